# The tables of cells of include/cylstm/cells.h.

cdef extern from "cylstm/cells.h" nogil:
    enum:
        CYL_ISA_COUNT
        CYL_MAX_STAGES
        CYL_MAX_PRODUCTS
        CYL_CELL_COUNT

    ctypedef struct cyl_product:
        int stage, first, count, from_extra, to_extra

    ctypedef struct cyl_cell_parameter:
        const char *name
        int planes

    ctypedef struct cyl_cell_shape:
        int gates, states, extra, cell_parameters, stages, products
        cyl_product product[CYL_MAX_PRODUCTS]
        int biases
        const cyl_cell_parameter *parameters

    ctypedef struct cyl_forward_f32:
        Py_ssize_t B, H, gate, plane, ld_gates, ld_extra, ld_h, ld_c
        float clip
        float *gates
        float *extra
        float *h
        float *c
        const float *h_prev
        const float *c_prev
        const float *b_ih
        const float *b_hh
        const float *cell_parameters

    ctypedef struct cyl_forward_f64:
        Py_ssize_t B, H, gate, plane, ld_gates, ld_extra, ld_h, ld_c
        double clip
        double *gates
        double *extra
        double *h
        double *c
        const double *h_prev
        const double *c_prev
        const double *b_ih
        const double *b_hh
        const double *cell_parameters

    ctypedef struct cyl_backward_f32:
        Py_ssize_t B, H, gate, plane, ld_gates, ld_extra, ld_h, ld_c, ld_d
        float clip
        float *gates
        float *extra
        float *dh
        float *dc
        float *dextra
        const float *h_prev
        const float *c_prev
        const float *cell_parameters
        float *d_cell_parameters

    ctypedef struct cyl_backward_f64:
        Py_ssize_t B, H, gate, plane, ld_gates, ld_extra, ld_h, ld_c, ld_d
        double clip
        double *gates
        double *extra
        double *dh
        double *dc
        double *dextra
        const double *h_prev
        const double *c_prev
        const double *cell_parameters
        double *d_cell_parameters

    ctypedef void (*cyl_forward_step_f32)(const cyl_forward_f32 *) noexcept nogil
    ctypedef void (*cyl_forward_step_f64)(const cyl_forward_f64 *) noexcept nogil
    ctypedef void (*cyl_backward_step_f32)(const cyl_backward_f32 *) noexcept nogil
    ctypedef void (*cyl_backward_step_f64)(const cyl_backward_f64 *) noexcept nogil

    ctypedef struct cyl_cell_f32:
        cyl_forward_step_f32 forward[CYL_MAX_STAGES][CYL_ISA_COUNT]
        cyl_backward_step_f32 backward[CYL_MAX_STAGES][CYL_ISA_COUNT]

    ctypedef struct cyl_cell_f64:
        cyl_forward_step_f64 forward[CYL_MAX_STAGES][CYL_ISA_COUNT]
        cyl_backward_step_f64 backward[CYL_MAX_STAGES][CYL_ISA_COUNT]

    const cyl_cell_shape cyl_cell_shapes[CYL_CELL_COUNT]
    int cyl_detect_isa()
