/* What differs between compilers and processors, in one place.
 *
 * CYL_INLINE        a function inlined into every kernel, so that it takes on
 *                   that kernel's instruction set.
 * CYL_IVDEP         before a loop whose iterations are independent.
 * CYL_X86_DISPATCH  1 where one translation unit can hold kernels for several
 *                   x86 instruction sets (GCC and clang); not with CYL_BASELINE_ONLY, for small programs.
 * CYL_PACKED        1 where the packed path is built: vector extensions (GCC and clang).
 * cyl_isa           the instruction sets; a larger value needs a newer CPU.
 */
#ifndef CYLSTM_PLATFORM_H
#define CYLSTM_PLATFORM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__) && defined(_MSC_VER) /* where clang before 20 leaves these out of it */
#include <smmintrin.h>
#include <avxintrin.h>
#include <avx2intrin.h>
#include <fmaintrin.h>
#include <avx512fintrin.h>
#endif
#endif

#if defined(__GNUC__) || defined(__clang__)
#define CYL_INLINE static inline __attribute__((always_inline))
#define CYL_UNUSED __attribute__((unused))
#else
#define CYL_INLINE static inline
#define CYL_UNUSED
#endif

#if defined(__clang__)
#define CYL_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define CYL_IVDEP _Pragma("GCC ivdep")
#else
#define CYL_IVDEP
#endif

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__) && !defined(CYL_BASELINE_ONLY)
#define CYL_X86_DISPATCH 1
#else
#define CYL_X86_DISPATCH 0
#endif

#if (defined(__GNUC__) || defined(__clang__)) && !defined(CYL_NO_PACKED)
#define CYL_PACKED 1
#else
#define CYL_PACKED 0
#endif

/* Names within the bodies that instantiate.h builds: cyl_exp -> cyl_exp_f32, cyl_exp_f32_avx2. */
#define CYL_PASTE2(a, b) a##_##b
#define CYL_PASTE(a, b) CYL_PASTE2(a, b)
#define CYL_TYPED(name) CYL_PASTE(name, CYL_SUFFIX)
#define CYL_KERNEL(name) CYL_PASTE(CYL_TYPED(name), CYL_ISA_SUFFIX)

typedef enum { CYL_SCALAR = 0, CYL_AVX2 = 1, CYL_AVX512 = 2, CYL_ISA_COUNT = 3 } cyl_isa;

/* Which kernels this translation unit holds: all of them; with CYL_ONE_ISA (0, 1 or 2, as in cyl_isa) those of one
 * instruction set; with CYL_NO_KERNELS none, for code that calls kernels compiled elsewhere. */
#if defined(CYL_NO_KERNELS)
#define CYL_HAS(isa) 0
#elif defined(CYL_ONE_ISA)
#define CYL_HAS(isa) (CYL_ONE_ISA == (isa))
#else
#define CYL_HAS(isa) 1
#endif
#define CYL_HAS_SCALAR CYL_HAS(0)
#define CYL_HAS_AVX2 (CYL_X86_DISPATCH && CYL_HAS(1))
#define CYL_HAS_AVX512 (CYL_X86_DISPATCH && CYL_HAS(2))

/* {name_f32_scalar, name_f32_avx2, ...}: one function for every instruction set, NULL for those left out. */
#if CYL_HAS_SCALAR
#define CYL_SCALAR_OF(name) name##_scalar
#else
#define CYL_SCALAR_OF(name) NULL
#endif
#if CYL_HAS_AVX2
#define CYL_AVX2_OF(name) name##_avx2
#elif CYL_X86_DISPATCH
#define CYL_AVX2_OF(name) NULL
#else
#define CYL_AVX2_OF(name) CYL_SCALAR_OF(name)
#endif
#if CYL_HAS_AVX512
#define CYL_AVX512_OF(name) name##_avx512
#elif CYL_X86_DISPATCH
#define CYL_AVX512_OF(name) NULL
#else
#define CYL_AVX512_OF(name) CYL_SCALAR_OF(name)
#endif
#define CYL_ISA_ROW(name, type) {CYL_SCALAR_OF(name##_##type), CYL_AVX2_OF(name##_##type), CYL_AVX512_OF(name##_##type)}

/* The same for functions of the backward pass, which who only runs models leaves out by CYL_FORWARD_ONLY. */
#ifdef CYL_FORWARD_ONLY
#define CYL_BACKWARD_ROW(name, type) {0}
#else
#define CYL_BACKWARD_ROW(name, type) CYL_ISA_ROW(name, type)
#endif

/* Flush subnormals to 0 in this thread, because they are a hundred times slower; and restore the caller's mode. */
#if defined(__x86_64__)
static inline unsigned cyl_flush_subnormals(void) {
    const unsigned kept = _mm_getcsr();
    _mm_setcsr(kept | 0x8040u);
    return kept;
}
static inline void cyl_restore_subnormals(unsigned kept) { _mm_setcsr(kept); }
#elif defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
static inline unsigned cyl_flush_subnormals(void) {
    uint64_t kept;
    __asm__ volatile("mrs %0, fpcr" : "=r"(kept));
    __asm__ volatile("msr fpcr, %0" : : "r"(kept | (1u << 24)));
    return (unsigned)kept;
}
static inline void cyl_restore_subnormals(unsigned kept) { __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)kept)); }
#else
static inline unsigned cyl_flush_subnormals(void) { return 0; }
static inline void cyl_restore_subnormals(unsigned kept) { (void)kept; }
#endif

#if CYL_X86_DISPATCH
static inline void cyl_cpuid(unsigned leaf, unsigned *r) { /* eax, ebx, ecx, edx */
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(0));
}

/* What the CPU has and the system keeps registers for (Intel's manual, volume 1, 14.7 and 15.2). The compilers'
 * __builtin_cpu_supports would need a library of clang's that Microsoft's linker does not look for. */
static inline int cyl_ask_cpu(void) {
    const unsigned FMA = 1u << 12, XSAVE = 1u << 27, AVX = 1u << 28, AVX2 = 1u << 5;
    const unsigned AVX512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    const unsigned YMM = 0x06, ZMM = 0xe6;
    unsigned most[4], one[4], seven[4], kept, high;
    cyl_cpuid(0, most);
    if (most[0] < 7) return CYL_SCALAR;
    cyl_cpuid(1, one);
    cyl_cpuid(7, seven);
    if (~one[2] & (FMA | XSAVE | AVX) || ~seven[1] & AVX2) return CYL_SCALAR;
    __asm__ volatile("xgetbv" : "=a"(kept), "=d"(high) : "c"(0));
    if (~kept & YMM) return CYL_SCALAR;
    return ~kept & ZMM || ~seven[1] & AVX512 ? CYL_AVX2 : CYL_AVX512;
}
#endif

/* The best instruction set that this build has kernels for and this CPU runs.
 * CYL_SCALAR is the compiler's baseline: SSE2 on x86-64, NEON on aarch64. */
static inline int cyl_detect_isa(void) {
#if CYL_X86_DISPATCH
    static int known; /* 1 more than the answer; to ask takes as long as a step of a network, in virtual machines */
    int found = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (!found) __atomic_store_n(&known, found = cyl_ask_cpu() + 1, __ATOMIC_RELAXED);
    return found - 1;
#else
    return CYL_SCALAR;
#endif
}

#endif
