/* The tables of kernels, for modules that do not hold the kernels: one structure for each instruction set.
 *
 * Each structure is made by a file of its own, scalar.c, avx2.c and avx512.c, from kernels_body.h. In its tables only
 * the entries of its instruction set are filled: cyl_kernels_of(isa)->cells_f32[cell].forward[stage][isa].
 */
#ifndef CYLSTM_KERNELS_H
#define CYLSTM_KERNELS_H

#include "cylstm/activations.h"
#include "cylstm/cells.h"
#include "cylstm/dense.h"
#include "cylstm/elementwise.h"
#include "cylstm/optimizers.h"
#include "cylstm/pass.h"
#include "cylstm/softmax.h"

#if defined(__GNUC__) && !defined(_WIN32)
#define CYL_HIDDEN __attribute__((visibility("hidden")))
#else
#define CYL_HIDDEN
#endif

typedef struct {
    const cyl_cell_f32 *cells_f32; /* by cell */
    const cyl_cell_f64 *cells_f64;
    const cyl_pass_functions *passes_f32, *passes_f64;
    const cyl_dense_function_f32 *dense_f32; /* from here on by instruction set */
    const cyl_dense_function_f64 *dense_f64;
    const cyl_dense_back_function *dense_back_f32, *dense_back_f64;
    const cyl_softmax_function_f32 *softmax_f32;
    const cyl_softmax_function_f64 *softmax_f64;
    const cyl_activation_f32 (*activations_f32)[CYL_ISA_COUNT]; /* by function and instruction set */
    const cyl_activation_f64 (*activations_f64)[CYL_ISA_COUNT];
    const cyl_elementwise_function_f32 (*elementwise_f32)[CYL_ISA_COUNT];
    const cyl_elementwise_function_f64 (*elementwise_f64)[CYL_ISA_COUNT];
    const cyl_optimizer_f32 (*optimizers_f32)[CYL_ISA_COUNT];
    const cyl_optimizer_f64 (*optimizers_f64)[CYL_ISA_COUNT];
} cyl_kernels;

CYL_HIDDEN extern const cyl_kernels cyl_kernels_scalar;
#if CYL_X86_DISPATCH
CYL_HIDDEN extern const cyl_kernels cyl_kernels_avx2, cyl_kernels_avx512;
#endif

static inline const cyl_kernels *cyl_kernels_of(int isa) {
#if CYL_X86_DISPATCH
    if (isa == CYL_AVX512) return &cyl_kernels_avx512;
    if (isa == CYL_AVX2) return &cyl_kernels_avx2;
#else
    (void)isa;
#endif
    return &cyl_kernels_scalar;
}

#endif
