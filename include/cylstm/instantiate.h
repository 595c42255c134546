/* Builds one kernel body for every real type and instruction set.
 *
 *     #define CYL_BODY "lstm_body.h"
 *     #include "instantiate.h"
 *
 * The body sees CYL_REAL, CYL_REAL_BITS, CYL_TYPED(name) -> name_f32 and
 * CYL_KERNEL(name) -> name_f32_avx2, and puts CYL_TARGET before each kernel. CYL_VECTOR_BYTES is the width of a
 * vector register, CYL_PANEL the numbers in two of them, CYL_TILE the rows of a product's tile,
 * CYL_FUSES whether a multiplication and an addition are one instruction.
 * CYL_ONE_ISA and CYL_NO_KERNELS of platform.h leave out instruction sets.
 * A body that is the same for every instruction set needs instantiate_reals.h only.
 * No include guard: it is meant to be included once per body.
 */
#include "platform.h"

#ifndef CYL_PANEL
#define CYL_PANEL (16 * CYL_VECTOR_BYTES / CYL_REAL_BITS)
#define CYL_TILE (CYL_VECTOR_BYTES == 64 ? 12 : 6)
#if defined(__FP_FAST_FMA) || defined(__aarch64__)
#define CYL_FUSES 1
#else
#define CYL_FUSES (CYL_VECTOR_BYTES > 16)
#endif
#endif

#if CYL_HAS_SCALAR
#define CYL_ISA_SUFFIX scalar
#define CYL_ISA_INDEX CYL_SCALAR
#define CYL_VECTOR_BYTES 16
#define CYL_TARGET CYL_UNUSED
#include "instantiate_reals.h"
#undef CYL_ISA_SUFFIX
#undef CYL_ISA_INDEX
#undef CYL_VECTOR_BYTES
#undef CYL_TARGET
#endif

#if CYL_HAS_AVX2
#define CYL_ISA_SUFFIX avx2
#define CYL_ISA_INDEX CYL_AVX2
#define CYL_VECTOR_BYTES 32
#define CYL_TARGET CYL_UNUSED __attribute__((target("avx2,fma")))
#include "instantiate_reals.h"
#undef CYL_ISA_SUFFIX
#undef CYL_ISA_INDEX
#undef CYL_VECTOR_BYTES
#undef CYL_TARGET
#endif

#if CYL_HAS_AVX512
#define CYL_ISA_SUFFIX avx512
#define CYL_ISA_INDEX CYL_AVX512
#define CYL_VECTOR_BYTES 64
#define CYL_TARGET CYL_UNUSED __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,fma")))
#include "instantiate_reals.h"
#undef CYL_ISA_SUFFIX
#undef CYL_ISA_INDEX
#undef CYL_VECTOR_BYTES
#undef CYL_TARGET
#endif

#undef CYL_BODY
