/* The kernels for AVX2; nothing on other processors than x86-64. */
#define CYL_ONE_ISA 1
#include "cylstm/platform.h"
#if CYL_X86_DISPATCH
#define CYL_TABLES cyl_kernels_avx2
#include "kernels_body.h"
#endif
