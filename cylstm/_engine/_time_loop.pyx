"""The time loop: one recurrent layer in one direction, forward and back through time, on the BLAS path.

T time steps, B sequences, I input size, H units, P width of h, G gates. Sequences may differ in length: they
stand in descending order of it, so that the rows[t] of them that have a step t are the first ones, and the
rows of all steps lie packed one after the other, N in all: x (N,I), gates (N,G.H). States h and c have
B rows of the initial state before those, (B+N,P): step t reads the first rows[t] rows of the block before
its own. Inference takes two blocks of c in turn and one of `extra`, for nothing reads them back. A reversed
layer is a matter of the order in which the caller packs the rows.

The loop knows no cell. The row of a cell in the tables of include/cylstm/cells.h says which products with
W_hh are formed before which pointwise function. Around them stand what any cell may have: a mask on h before
the products (recurrent dropout), a projection of h after the cell, and zoneout of both states at the end.
Complexity, forward: 2.N.G.H.(I+P) flops, and 2.N.H.P for a projection; backward: twice that, less 2.N.G.H.I
without dx.
"""
from libc.string cimport memcpy, memmove, memset

from cylstm._engine._blas cimport NO, YES, add_column_sums, gemm, real
from cylstm._engine._cells cimport (
    cyl_backward_f32, cyl_backward_f64, cyl_cell_shape, cyl_cell_shapes, cyl_cell_f32, cyl_cell_f64,
    cyl_forward_f32, cyl_forward_f64, cyl_product)
from cylstm._engine._kernels cimport kernels_of
from cylstm._engine._rows cimport add, mix, multiply, multiply_add, split

cdef extern from "kernels/kernels.h" nogil:
    ctypedef struct cyl_kernels:
        const cyl_cell_f32 *cells_f32
        const cyl_cell_f64 *cells_f64

# Position of step t: first packed row, number of rows, and rows of the states.
cdef struct Step:
    Py_ssize_t start, B, h_prev, h, c_prev, c, scratch  # scratch: row in planes reused by inference


cdef Step step_at(const Pass *p, Py_ssize_t t, Py_ssize_t start) noexcept nogil:
    """Offsets in rows; start is the sum of rows before t."""
    cdef Step s
    s.start, s.B = start, p.rows[t]
    s.h = p.B + start
    s.h_prev = s.h - p.rows[t - 1] if t else 0
    s.c_prev, s.c = (s.h_prev, s.h) if p.trains else ((t % 2) * p.B, ((t + 1) % 2) * p.B)
    s.scratch = start if p.trains else 0
    return s


cdef inline real *row(const void *array, Py_ssize_t index, Py_ssize_t width, real _) noexcept nogil:
    """A row of an array, or NULL where there is none."""
    return <real *>array + index * width if array != NULL else NULL


cdef void forward(const Pass *p, real _) noexcept nogil:
    cdef const cyl_cell_shape *cell = &cyl_cell_shapes[p.cell]
    cdef Py_ssize_t t, start = 0, GH = cell.gates * p.H
    cdef int stage, k
    cdef Step s
    # z_t = W_ih x_t for all t at once
    # gates (N, G.H) = x (N, I) . W_ih^T (I, G.H)
    gemm[real](NO, YES, p.N, GH, p.I, <const real *>p.x, p.I, <const real *>p.w_ih, p.I,
               0, <real *>p.gates, GH)
    for t in range(p.T):
        s = step_at(p, t, start)
        if p.mask_h != NULL:
            multiply[real](s.B * p.P, row[real](p.h_masked, s.start, p.P, 0),
                           row[real](p.h, s.h_prev, p.P, 0), <const real *>p.mask_h)
        for stage in range(cell.stages):
            for k in range(cell.products):
                if cell.product[k].stage == stage:
                    product[real](p, &s, &cell.product[k], 0)
            pointwise_forward[real](p, &s, stage, 0)
        finish_step[real](p, &s, 0)
        start += s.B


cdef void product(const Pass *p, const Step *s, const cyl_product *q, real _) noexcept nogil:
    cdef Py_ssize_t H = p.H, P = p.P, GH = cyl_cell_shapes[p.cell].gates * H
    cdef Py_ssize_t EH = cyl_cell_shapes[p.cell].extra * H
    cdef real *extra = row[real](p.extra, s.scratch, EH, 0)
    cdef const real *source = row[real](p.h, s.h_prev, P, 0)
    cdef const real *w = <const real *>p.w_hh + q.first * H * P
    cdef Py_ssize_t ld = P
    if q.from_extra:
        source = extra
        ld = EH
        if p.mask_h != NULL:
            multiply[real](s.B * H, extra, extra, <const real *>p.mask_h)
    elif p.mask_h != NULL:
        source = row[real](p.h_masked, s.start, P, 0)
    # z += W_hh h_{t-1} for the gates of q
    # gates (B, count.H of G.H) +=, or extra (B, count.H of E.H) =, source (B, P) . W_hh[q]^T (P, count.H)
    if q.to_extra:
        gemm[real](NO, YES, s.B, q.count * H, P, source, ld, w, P, 0, extra, EH)
    else:
        gemm[real](NO, YES, s.B, q.count * H, P, source, ld, w, P,
                   1, <real *>p.gates + s.start * GH + q.first * H, GH)


cdef void pointwise_forward(const Pass *p, const Step *s, int stage, real _) noexcept nogil:
    cdef const cyl_kernels *kernels = <const cyl_kernels *>kernels_of(p.isa)
    cdef cyl_forward_f32 f32
    cdef cyl_forward_f64 f64
    cdef Py_ssize_t H = p.H, GH = cyl_cell_shapes[p.cell].gates * H
    cdef Py_ssize_t EH = cyl_cell_shapes[p.cell].extra * H
    cdef real *gates = row[real](p.gates, s.start, GH, 0)
    cdef real *extra = row[real](p.extra, s.scratch, EH, 0)
    cdef real *h = row[real](p.h, s.h, H, 0) if p.w_hr == NULL else row[real](p.m, s.scratch, H, 0)
    cdef real *h_prev = row[real](p.h, s.h_prev, p.P, 0)
    cdef real *c = row[real](p.c, s.c, H, 0)
    cdef real *c_prev = row[real](p.c, s.c_prev, H, 0)
    if real is float:
        f32 = cyl_forward_f32(s.B, H, H, H, GH, EH, H, H, <float>p.clip, gates, extra, h, c, h_prev, c_prev,
                              <const float *>p.b_ih, <const float *>p.b_hh, <const float *>p.cell_parameters)
        kernels.cells_f32[p.cell].forward[stage][p.isa](&f32)
    else:
        f64 = cyl_forward_f64(s.B, H, H, H, GH, EH, H, H, p.clip, gates, extra, h, c, h_prev, c_prev,
                              <const double *>p.b_ih, <const double *>p.b_hh,
                              <const double *>p.cell_parameters)
        kernels.cells_f64[p.cell].forward[stage][p.isa](&f64)


cdef void finish_step(const Pass *p, const Step *s, real _) noexcept nogil:
    """Apply the projection of h, then zoneout of both states."""
    cdef real *h = row[real](p.h, s.h, p.P, 0)
    if p.w_hr != NULL:
        # h_t = W_hr m_t
        # h (B, P) = m (B, H) . W_hr^T (H, P)
        gemm[real](NO, YES, s.B, p.P, p.H, row[real](p.m, s.scratch, p.H, 0), p.H,
                   <const real *>p.w_hr, p.H, 0, h, p.P)
    if p.zoneout_h > 0:
        mix[real](s.B * p.P, h, row[real](p.h, s.h_prev, p.P, 0),
                  row[real](p.zone_h, s.start, p.P, 0), p.zoneout_h)
    if p.zoneout_c > 0:
        mix[real](s.B * p.H, row[real](p.c, s.c, p.H, 0), row[real](p.c, s.c_prev, p.H, 0),
                  row[real](p.zone_c, s.start, p.H, 0), p.zoneout_c)


cdef void backward(const Pass *p, real _) noexcept nogil:
    cdef const cyl_cell_shape *cell = &cyl_cell_shapes[p.cell]
    cdef Py_ssize_t t, start = p.N, GH = cell.gates * p.H
    cdef int stage, k
    cdef Step s
    for t in range(p.T - 1, -1, -1):
        start -= p.rows[t]
        s = step_at(p, t, start)
        begin_step_back[real](p, &s, 0)
        for stage in range(cell.stages - 1, -1, -1):
            pointwise_backward[real](p, &s, stage, 0)
            for k in range(cell.products):
                if cell.product[k].stage == stage:
                    product_backward[real](p, &s, &cell.product[k], 0)
        if p.zoneout_h > 0:
            add[real](s.B * p.P, <real *>p.dh, <const real *>p.dh_retained)
        if p.zoneout_c > 0:
            add[real](s.B * p.H, <real *>p.dc, <const real *>p.dc_retained)
    weight_gradients[real](p, 0)
    if p.dx != NULL:
        # dL/dx_t = W_ih^T dz_t
        # dx (N, I) = dgates (N, G.H) . W_ih (G.H, I)
        gemm[real](NO, NO, p.N, p.I, GH, <const real *>p.gates, GH, <const real *>p.w_ih, p.I,
                   0, <real *>p.dx, p.I)


cdef void begin_step_back(const Pass *p, const Step *s, real _) noexcept nogil:
    """Backward pass of `finish_step`: gradients of the outputs of the cell."""
    cdef Py_ssize_t n = s.B * p.P
    cdef real *dh = <real *>p.dh
    cdef real *dy = row[real](p.dy, s.start, p.P, 0)
    # Rows that end at this step still hold dL/d(last h): no later step has touched them.
    add[real](n, dh, dy)
    if p.dh_steps != NULL:
        memcpy(row[real](p.dh_steps, s.start, p.P, 0), dh, n * sizeof(real))
    if p.zoneout_h > 0:
        split[real](n, dh, <real *>p.dh_retained, row[real](p.zone_h, s.start, p.P, 0), p.zoneout_h)
    if p.zoneout_c > 0:
        split[real](s.B * p.H, <real *>p.dc, <real *>p.dc_retained,
                    row[real](p.zone_c, s.start, p.H, 0), p.zoneout_c)
    if p.w_hr != NULL:
        memcpy(dy, dh, n * sizeof(real))  # for dW_hr
        # dL/dm_t = W_hr^T dL/dh_t
        # dm (B, H) = dh (B, P) . W_hr (P, H)
        gemm[real](NO, NO, s.B, p.H, p.P, dh, p.P, <const real *>p.w_hr, p.H, 0, <real *>p.dm, p.H)
        memset(dh, 0, n * sizeof(real))


cdef void pointwise_backward(const Pass *p, const Step *s, int stage, real _) noexcept nogil:
    cdef const cyl_kernels *kernels = <const cyl_kernels *>kernels_of(p.isa)
    cdef cyl_backward_f32 f32
    cdef cyl_backward_f64 f64
    cdef Py_ssize_t H = p.H, GH = cyl_cell_shapes[p.cell].gates * H
    cdef Py_ssize_t EH = cyl_cell_shapes[p.cell].extra * H
    cdef real *gates = row[real](p.gates, s.start, GH, 0)
    cdef real *extra = row[real](p.extra, s.scratch, EH, 0)
    cdef real *dh = <real *>p.dh if p.w_hr == NULL else <real *>p.dm
    cdef const real *h_prev = row[real](p.h, s.h_prev, p.P, 0)
    cdef const real *c_prev = row[real](p.c, s.c_prev, H, 0)
    if real is float:
        f32 = cyl_backward_f32(s.B, H, H, H, GH, EH, H, H, H, <float>p.clip, gates, extra, dh, <float *>p.dc,
                               <float *>p.dextra, h_prev, c_prev, <const float *>p.cell_parameters,
                               <float *>p.d_cell_parameters)
        kernels.cells_f32[p.cell].backward[stage][p.isa](&f32)
    else:
        f64 = cyl_backward_f64(s.B, H, H, H, GH, EH, H, H, H, p.clip, gates, extra, dh, <double *>p.dc,
                               <double *>p.dextra, h_prev, c_prev, <const double *>p.cell_parameters,
                               <double *>p.d_cell_parameters)
        kernels.cells_f64[p.cell].backward[stage][p.isa](&f64)


cdef void product_backward(const Pass *p, const Step *s, const cyl_product *q, real _) noexcept nogil:
    cdef Py_ssize_t H = p.H, P = p.P, GH = cyl_cell_shapes[p.cell].gates * H
    cdef Py_ssize_t EH = cyl_cell_shapes[p.cell].extra * H
    cdef Py_ssize_t ld = EH if q.to_extra else GH
    cdef const real *w = <const real *>p.w_hh + q.first * H * P
    cdef const real *dz = <const real *>p.gates + s.start * GH + q.first * H
    if q.to_extra:
        dz = row[real](p.extra, s.scratch, EH, 0)
    # dL/dh_{t-1}, or dL/d(extra), through the product q
    # dh (B, P) +=, or dextra (B, H) =, dz (B, count.H) . W_hh[q] (count.H, P)
    if q.from_extra:
        gemm[real](NO, NO, s.B, P, q.count * H, dz, ld, w, P, 0, <real *>p.dextra, P)
        if p.mask_h != NULL:
            multiply[real](s.B * P, <real *>p.dextra, <const real *>p.dextra, <const real *>p.mask_h)
    elif p.mask_h != NULL:
        gemm[real](NO, NO, s.B, P, q.count * H, dz, ld, w, P, 0, <real *>p.dh_masked, P)
        multiply_add[real](s.B * P, <real *>p.dh, <const real *>p.dh_masked, <const real *>p.mask_h)
    else:
        gemm[real](NO, NO, s.B, P, q.count * H, dz, ld, w, P, 1, <real *>p.dh, P)


cdef void weight_gradients(const Pass *p, real _) noexcept nogil:
    """One product each over all steps, and column sums for the biases."""
    cdef const cyl_cell_shape *cell = &cyl_cell_shapes[p.cell]
    cdef Py_ssize_t H = p.H, P = p.P, GH = cell.gates * H, EH = cell.extra * H, ld
    cdef const cyl_product *q
    cdef const real *dgates = <const real *>p.gates
    cdef const real *dz
    cdef Py_ssize_t j
    cdef int k
    if p.h_masked == NULL:
        align_previous_states[real](p, 0)
    # dL/dW_ih = sum_t dz_t x_t^T
    # dW_ih (G.H, I) += dgates^T (G.H, N) . x (N, I)
    gemm[real](YES, NO, GH, p.I, p.N, dgates, GH, <const real *>p.x, p.I, 1, <real *>p.dw_ih, p.I)
    if p.db_ih != NULL:
        input_bias_gradient[real](p, 0)
    for k in range(cell.products):
        q = &cell.product[k]
        ld = EH if q.to_extra else GH
        dz = <const real *>p.extra if q.to_extra else dgates + q.first * H
        # dL/dW_hh = sum_t dz_t h_{t-1}^T for the gates of q
        # dW_hh[q] (count.H, P) += dz^T (count.H, N) . h[t-1] or extra (N, P)
        gemm[real](YES, NO, q.count * H, P, p.N, dz, ld, previous_states[real](p, q, 0),
                   EH if q.from_extra else P, 1, <real *>p.dw_hh + q.first * H * P, P)
        if p.db_hh != NULL and q.to_extra:
            add_column_sums[real](p.N, q.count * H, dz, ld, <real *>p.db_hh + q.first * H)
        elif p.db_hh != NULL:
            for j in range(q.first * H, (q.first + q.count) * H):
                (<real *>p.db_hh)[j] += (<real *>p.sums)[j]
    if p.w_hr != NULL:
        # dL/dW_hr = sum_t dL/dh_t m_t^T
        # dW_hr (P, H) += dh^T (P, N) . m (N, H), dh being in dy
        gemm[real](YES, NO, P, H, p.N, <const real *>p.dy, P, <const real *>p.m, H, 1, <real *>p.dw_hr, H)


cdef const real *previous_states(const Pass *p, const cyl_product *q, real _) noexcept nogil:
    """Return the operand of product q at every packed row."""
    if q.from_extra:
        return <const real *>p.extra
    if p.h_masked != NULL:
        return <const real *>p.h_masked
    return <const real *>p.h


cdef void input_bias_gradient(const Pass *p, real _) noexcept nogil:
    """db_ih += column sums of dgates, which stay in sums: db_hh is the same but for what goes to extra."""
    cdef Py_ssize_t GH = cyl_cell_shapes[p.cell].gates * p.H
    memset(p.sums, 0, GH * sizeof(real))
    add_column_sums[real](p.N, GH, <const real *>p.gates, GH, <real *>p.sums)
    add[real](GH, <real *>p.db_ih, <const real *>p.sums)


cdef void align_previous_states(const Pass *p, real _) noexcept nogil:
    """Move h_{t-1} of each packed row into that row of h, which no one reads again; they are there already
    when all sequences are of one length."""
    cdef Py_ssize_t t, start = 0
    cdef Step s
    for t in range(p.T):
        s = step_at(p, t, start)
        if s.h_prev != start:
            memmove(row[real](p.h, start, p.P, 0), row[real](p.h, s.h_prev, p.P, 0), s.B * p.P * sizeof(real))
        start += s.B
