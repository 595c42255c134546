/* The kernels of the instruction set CYL_ONE_ISA, and their tables under the name CYL_TABLES. */
#include "kernels.h"

const cyl_kernels CYL_TABLES = {
    cyl_cells_f32,
    cyl_cells_f64,
    &cyl_passes_f32,
    &cyl_passes_f64,
    cyl_dense_f32,
    cyl_dense_f64,
    cyl_dense_back_f32,
    cyl_dense_back_f64,
    cyl_softmax_f32,
    cyl_softmax_f64,
    cyl_activations_f32,
    cyl_activations_f64,
    cyl_elementwise_f32,
    cyl_elementwise_f64,
    cyl_optimizers_f32,
    cyl_optimizers_f64,
};
