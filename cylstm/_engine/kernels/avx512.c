/* The kernels for AVX-512; nothing on other processors than x86-64. */
#define CYL_ONE_ISA 2
#include "cylstm/platform.h"
#if CYL_X86_DISPATCH
#define CYL_TABLES cyl_kernels_avx512
#include "kernels_body.h"
#endif
