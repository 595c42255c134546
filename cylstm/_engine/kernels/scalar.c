/* The kernels for the compiler's baseline. */
#define CYL_ONE_ISA 0
#define CYL_TABLES cyl_kernels_scalar
#include "kernels_body.h"
