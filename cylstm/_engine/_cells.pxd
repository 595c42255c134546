# The table of cells of include/cylstm/cells.h.

cdef extern from "cylstm/cells.h" nogil:
    enum:
        CYL_ISA_COUNT

    ctypedef struct cyl_forward_f32:
        Py_ssize_t B, H
        float *gates
        float *h
        float *c
        const float *c_prev
        const float *bias

    ctypedef struct cyl_forward_f64:
        Py_ssize_t B, H
        double *gates
        double *h
        double *c
        const double *c_prev
        const double *bias

    ctypedef struct cyl_backward_f32:
        Py_ssize_t B, H
        float *gates
        float *dc
        const float *dh
        const float *c
        const float *c_prev

    ctypedef struct cyl_backward_f64:
        Py_ssize_t B, H
        double *gates
        double *dc
        const double *dh
        const double *c
        const double *c_prev

    ctypedef void (*forward_f32)(const cyl_forward_f32 *) noexcept nogil
    ctypedef void (*forward_f64)(const cyl_forward_f64 *) noexcept nogil
    ctypedef void (*backward_f32)(const cyl_backward_f32 *) noexcept nogil
    ctypedef void (*backward_f64)(const cyl_backward_f64 *) noexcept nogil

    ctypedef struct cyl_cell_f32:
        forward_f32 forward[CYL_ISA_COUNT]
        backward_f32 backward[CYL_ISA_COUNT]

    ctypedef struct cyl_cell_f64:
        forward_f64 forward[CYL_ISA_COUNT]
        backward_f64 backward[CYL_ISA_COUNT]

    enum:
        CYL_CELL_COUNT

    const cyl_cell_f32 cyl_cells_f32[CYL_CELL_COUNT]
    const cyl_cell_f64 cyl_cells_f64[CYL_CELL_COUNT]
    int cyl_detect_isa()
