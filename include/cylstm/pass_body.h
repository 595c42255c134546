/* The pass for one real type and instruction set; see pass.h. */
#include "pass_forward_body.h"
#ifndef CYL_FORWARD_ONLY
#include "pass_backward_body.h"
#endif
