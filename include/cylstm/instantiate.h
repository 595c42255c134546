/* Builds one kernel body for every real type and instruction set.
 *
 *     #define CYL_BODY "lstm_body.h"
 *     #include "instantiate.h"
 *
 * The body sees CYL_REAL, CYL_REAL_BITS, CYL_TYPED(name) -> name_f32 and
 * CYL_KERNEL(name) -> name_f32_avx2, and puts CYL_TARGET before each kernel.
 * A body that is the same for every instruction set needs instantiate_reals.h only.
 * No include guard: it is meant to be included once per body.
 */
#include "platform.h"

#define CYL_ISA_SUFFIX scalar
#define CYL_TARGET CYL_UNUSED
#include "instantiate_reals.h"
#undef CYL_ISA_SUFFIX
#undef CYL_TARGET

#if CYL_X86_DISPATCH
#define CYL_ISA_SUFFIX avx2
#define CYL_TARGET CYL_UNUSED __attribute__((target("avx2,fma")))
#include "instantiate_reals.h"
#undef CYL_ISA_SUFFIX
#undef CYL_TARGET

#define CYL_ISA_SUFFIX avx512
#define CYL_TARGET CYL_UNUSED __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,fma")))
#include "instantiate_reals.h"
#undef CYL_ISA_SUFFIX
#undef CYL_TARGET
#endif

#undef CYL_BODY
