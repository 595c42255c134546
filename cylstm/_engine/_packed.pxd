"""The packed path, declared to the modules that run it without Python."""

cdef extern from "cylstm/pass.h" nogil:
    ctypedef struct cyl_pass:
        int cell, trains
        double clip, zoneout_h, zoneout_c
        Py_ssize_t T, B, N, I, H, P, Hp, Pp, ld_gates, ld_extra, rows_of_gates
        const Py_ssize_t *rows
        const void *w_ih
        const void *w_hh
        const void *w_hr
        const void *w_ih_t
        const void *w_hh_t
        const void *w_hr_t
        const void *b_ih
        const void *b_hh
        const void *cell_parameters
        const void *x
        void *gates
        void *extra
        void *h
        void *c
        void *h_checkpoint
        void *c_checkpoints
        void *h_recomputed
        void *c_recomputed
        void *m
        void *h_masked
        const void *mask_h
        const void *zone_h
        const void *zone_c
        void *dy
        void *dh
        void *dc
        void *dextra
        void *dm
        void *dh_masked
        void *dh_retained
        void *dc_retained
        void *dh_steps
        void *dx
        void *dw_ih
        void *dw_hh
        void *dw_hr
        void *d_cell_parameters
        void *db_ih
        void *db_hh
        void *strips

ctypedef void (*cyl_job)(void *argument, int index) noexcept nogil


cdef class PackedPass:
    cdef cyl_pass p
    cdef int isa
    cdef bint double_precision
    cdef dict arrays
    cdef const Py_ssize_t[::1] rows
    cdef int bind(self, Py_ssize_t unit) except -1
    cdef int bind_recomputed_states(self) except -1
    cdef int bind_gradients(self, Py_ssize_t unit) except -1
    cdef void *pointer(self, str name, tuple shape, bint writable) except? NULL


cdef Py_ssize_t count_rows(const Py_ssize_t[::1] rows, Py_ssize_t B) except -1
cdef void *address(str name, array, tuple shape, bint double_precision, bint writable) except? NULL
cdef int run(const cyl_pass *p, int isa, bint double_precision, bint back, int threads) noexcept nogil
# Acquire the thread pool for at most n threads including the caller; a result above 1 requires run_team.
cdef int take_team(int members) noexcept nogil
cdef void run_team(cyl_job function, void *argument, int members) noexcept nogil
