"""The time loop: one recurrent layer in one direction, forward and back through time, on the BLAS path.

T time steps, B sequences, I input size, H hidden size, G gates. Sequences may differ in length: they
stand in descending order of it, so that the rows[t] of them that have a step t are the first ones, and the
rows of all steps lie packed one after the other, N in all: x (N,I), gates (N,G.H). States h and c have
B rows of the initial state before those, (B+N,H): step t reads the first rows[t] rows of the block before
its own. Inference takes two blocks of c in turn and one of `extra`, for nothing reads them back. A reversed
layer is a matter of the order in which the caller packs the rows.

The loop knows no cell. The row of a cell in the tables of include/cylstm/cells.h says which products with
W_hh are formed before which pointwise function. Complexity, forward: 2.N.G.H.(I+H) flops;
backward: twice that, less 2.N.G.H.I without dx.
"""
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer)
from libc.string cimport memcpy, memmove

from cylstm._engine._blas cimport NO, YES, add_column_sums, gemm, real, require
from cylstm._engine._cells cimport (
    CYL_CELL_COUNT, cyl_backward_f32, cyl_backward_f64, cyl_cell_shape, cyl_cell_shapes, cyl_cells_f32,
    cyl_cells_f64, cyl_detect_isa, cyl_forward_f32, cyl_forward_f64, cyl_product)

# Everything one pass needs; the pointers are to float or double, as `LayerPass` says.
cdef struct Pass:
    int cell, isa
    bint trains
    Py_ssize_t T, B, N, I, H
    const Py_ssize_t *rows  # (T)        descending
    const void *w_ih        # (G.H, I)
    const void *w_hh        # (G.H, H)
    const void *b_ih        # (G.H)
    const void *b_hh        # (G.H)
    const void *x           # (N, I)
    void *gates             # (N, G.H)   forward: the gates; backward: dL/d(what x's product is added to)
    void *extra             # (N, H)     or (B, H) in inference, or NULL: the cell has none
    void *h                 # (B+N, H)
    void *c                 # (B+N, H)   or (2, B, H) in inference, or NULL
    const void *dy          # (N, H)     dL/dy; dx may overwrite it
    void *dh                # (B, H)     in: dL/d(last h); out: dL/dh_0
    void *dc                # (B, H)     likewise, or NULL
    void *dextra            # (B, H)     scratch, or NULL
    void *dh_steps          # (N, H)     out: dL/dh_t of every step, or NULL: not asked for
    void *dx                # (N, I)     or NULL: not asked for
    void *dw_ih             # gradients are added to
    void *dw_hh
    void *sums              # (G.H)      scratch
    void *db_ih             # or NULL: no bias
    void *db_hh

# Where step t is: the first packed row, the rows, and the same of the states.
cdef struct Step:
    Py_ssize_t start, B, h_prev, h, c_prev, c, extra


cdef Step step_at(const Pass *p, Py_ssize_t t, Py_ssize_t start) noexcept nogil:
    """Offsets in rows; start is the sum of rows before t."""
    cdef Step s
    s.start, s.B = start, p.rows[t]
    s.h = p.B + start
    s.h_prev = s.h - p.rows[t - 1] if t else 0
    s.c_prev, s.c = (s.h_prev, s.h) if p.trains else ((t % 2) * p.B, ((t + 1) % 2) * p.B)
    s.extra = start if p.trains else 0
    return s


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
        for stage in range(cell.stages):
            for k in range(cell.products):
                if cell.product[k].stage == stage:
                    product[real](p, &s, &cell.product[k], 0)
            pointwise_forward[real](p, &s, stage, 0)
        start += s.B


cdef void product(const Pass *p, const Step *s, const cyl_product *q, real _) noexcept nogil:
    cdef Py_ssize_t H = p.H, GH = cyl_cell_shapes[p.cell].gates * H
    cdef real *extra = <real *>p.extra + s.extra * H if p.extra != NULL else NULL
    cdef const real *source = extra if q.from_extra else <real *>p.h + s.h_prev * H
    cdef const real *w = <const real *>p.w_hh + q.first * H * H
    # z += W_hh h_{t-1} for the gates of q
    # gates (B, count.H of G.H), or extra (B, H) =, += source (B, H) . W_hh[q]^T (H, count.H)
    if q.to_extra:
        gemm[real](NO, YES, s.B, q.count * H, H, source, H, w, H, 0, extra, H)
    else:
        gemm[real](NO, YES, s.B, q.count * H, H, source, H, w, H,
                   1, <real *>p.gates + s.start * GH + q.first * H, GH)


cdef void pointwise_forward(const Pass *p, const Step *s, int stage, real _) noexcept nogil:
    cdef cyl_forward_f32 f32
    cdef cyl_forward_f64 f64
    cdef Py_ssize_t H = p.H, GH = cyl_cell_shapes[p.cell].gates * H
    cdef real *gates = <real *>p.gates + s.start * GH
    cdef real *extra = <real *>p.extra + s.extra * H if p.extra != NULL else NULL
    cdef real *h = <real *>p.h + s.h * H
    cdef real *h_prev = <real *>p.h + s.h_prev * H
    cdef real *c = <real *>p.c + s.c * H if p.c != NULL else NULL
    cdef real *c_prev = <real *>p.c + s.c_prev * H if p.c != NULL else NULL
    if real is float:
        f32 = cyl_forward_f32(s.B, H, gates, extra, h, c, h_prev, c_prev,
                              <const float *>p.b_ih, <const float *>p.b_hh)
        cyl_cells_f32[p.cell].forward[stage][p.isa](&f32)
    else:
        f64 = cyl_forward_f64(s.B, H, gates, extra, h, c, h_prev, c_prev,
                              <const double *>p.b_ih, <const double *>p.b_hh)
        cyl_cells_f64[p.cell].forward[stage][p.isa](&f64)


cdef void backward(const Pass *p, real _) noexcept nogil:
    cdef const cyl_cell_shape *cell = &cyl_cell_shapes[p.cell]
    cdef Py_ssize_t t, j, start = p.N, GH = cell.gates * p.H
    cdef real *dh = <real *>p.dh
    cdef const real *dy = <const real *>p.dy
    cdef int stage, k
    cdef Step s
    for t in range(p.T - 1, -1, -1):
        start -= p.rows[t]
        s = step_at(p, t, start)
        # Rows that end at step t still hold dL/d(last h): no later step has touched them.
        for j in range(s.B * p.H):
            dh[j] += dy[start * p.H + j]
        if p.dh_steps != NULL:
            memcpy(<real *>p.dh_steps + start * p.H, dh, s.B * p.H * sizeof(real))
        for stage in range(cell.stages - 1, -1, -1):
            pointwise_backward[real](p, &s, stage, 0)
            for k in range(cell.products):
                if cell.product[k].stage == stage:
                    product_backward[real](p, &s, &cell.product[k], 0)
    weight_gradients[real](p, 0)
    if p.dx != NULL:
        # dL/dx_t = W_ih^T dz_t
        # dx (N, I) = dgates (N, G.H) . W_ih (G.H, I)
        gemm[real](NO, NO, p.N, p.I, GH, <const real *>p.gates, GH, <const real *>p.w_ih, p.I,
                   0, <real *>p.dx, p.I)


cdef void pointwise_backward(const Pass *p, const Step *s, int stage, real _) noexcept nogil:
    cdef cyl_backward_f32 f32
    cdef cyl_backward_f64 f64
    cdef Py_ssize_t H = p.H, GH = cyl_cell_shapes[p.cell].gates * H
    cdef real *gates = <real *>p.gates + s.start * GH
    cdef real *extra = <real *>p.extra + s.extra * H if p.extra != NULL else NULL
    cdef const real *h_prev = <const real *>p.h + s.h_prev * H
    cdef const real *c = <const real *>p.c + s.c * H if p.c != NULL else NULL
    cdef const real *c_prev = <const real *>p.c + s.c_prev * H if p.c != NULL else NULL
    if real is float:
        f32 = cyl_backward_f32(s.B, H, gates, extra, <float *>p.dh, <float *>p.dc,
                               <const float *>p.dextra, h_prev, c, c_prev)
        cyl_cells_f32[p.cell].backward[stage][p.isa](&f32)
    else:
        f64 = cyl_backward_f64(s.B, H, gates, extra, <double *>p.dh, <double *>p.dc,
                               <const double *>p.dextra, h_prev, c, c_prev)
        cyl_cells_f64[p.cell].backward[stage][p.isa](&f64)


cdef void product_backward(const Pass *p, const Step *s, const cyl_product *q, real _) noexcept nogil:
    cdef Py_ssize_t H = p.H, GH = cyl_cell_shapes[p.cell].gates * H
    cdef Py_ssize_t ld = H if q.to_extra else GH
    cdef const real *w = <const real *>p.w_hh + q.first * H * H
    cdef const real *dz = (
        <const real *>p.extra + s.extra * H if q.to_extra
        else <const real *>p.gates + s.start * GH + q.first * H)
    # dL/dh_{t-1}, or dL/d(extra), through the product q
    # dh (B, H) +=, or dextra (B, H) = dz (B, count.H) . W_hh[q] (count.H, H)
    if q.from_extra:
        gemm[real](NO, NO, s.B, H, q.count * H, dz, ld, w, H, 0, <real *>p.dextra, H)
    else:
        gemm[real](NO, NO, s.B, H, q.count * H, dz, ld, w, H, 1, <real *>p.dh, H)


cdef void weight_gradients(const Pass *p, real _) noexcept nogil:
    """One product each over all steps, and column sums for the biases."""
    cdef const cyl_cell_shape *cell = &cyl_cell_shapes[p.cell]
    cdef Py_ssize_t H = p.H, GH = cell.gates * H, ld
    cdef const cyl_product *q
    cdef const real *dgates = <const real *>p.gates
    cdef const real *dz
    cdef Py_ssize_t j
    cdef int k
    align_previous_states[real](p, 0)
    # dL/dW_ih = sum_t dz_t x_t^T
    # dW_ih (G.H, I) += dgates^T (G.H, N) . x (N, I)
    gemm[real](YES, NO, GH, p.I, p.N, dgates, GH, <const real *>p.x, p.I, 1, <real *>p.dw_ih, p.I)
    if p.db_ih != NULL:
        input_bias_gradient[real](p, 0)
    for k in range(cell.products):
        q = &cell.product[k]
        ld = H if q.to_extra else GH
        dz = <const real *>p.extra if q.to_extra else dgates + q.first * H
        # dL/dW_hh = sum_t dz_t h_{t-1}^T for the gates of q
        # dW_hh[q] (count.H, H) += dz^T (count.H, N) . h[t-1] or extra (N, H)
        gemm[real](YES, NO, q.count * H, H, p.N, dz, ld,
                   <const real *>p.extra if q.from_extra else <const real *>p.h, H,
                   1, <real *>p.dw_hh + q.first * H * H, H)
        if p.db_hh != NULL and q.to_extra:
            add_column_sums[real](p.N, q.count * H, dz, ld, <real *>p.db_hh + q.first * H)
        elif p.db_hh != NULL:
            for j in range(q.first * H, (q.first + q.count) * H):
                (<real *>p.db_hh)[j] += (<real *>p.sums)[j]


cdef void input_bias_gradient(const Pass *p, real _) noexcept nogil:
    """db_ih += column sums of dgates, which stay in sums: db_hh is the same but for what goes to extra."""
    cdef Py_ssize_t j, GH = cyl_cell_shapes[p.cell].gates * p.H
    cdef real *sums = <real *>p.sums
    for j in range(GH):
        sums[j] = 0
    add_column_sums[real](p.N, GH, <const real *>p.gates, GH, sums)
    for j in range(GH):
        (<real *>p.db_ih)[j] += sums[j]


cdef void align_previous_states(const Pass *p, real _) noexcept nogil:
    """Move h_{t-1} of each packed row into that row of h, which no one reads again; they are there already
    when all sequences are of one length."""
    cdef Py_ssize_t t, start = 0
    cdef Step s
    for t in range(p.T):
        s = step_at(p, t, start)
        if s.h_prev != start:
            memmove(<real *>p.h + start * p.H, <const real *>p.h + s.h_prev * p.H, s.B * p.H * sizeof(real))
        start += s.B


cdef class LayerPass:
    """One layer's pass over planned buffers, checked once and run many times.

    Parameters
    ----------
    cell, isa : int
        Row of the tables of cells, instruction set.
    rows : ndarray of intp
        (T,), the number of sequences that have each step: descending, B at most.
    B, I, H : int
        Sizes.
    arrays : dict
        The arrays of `Pass` by name, C-contiguous, all float32 or all float64. What the
        table says that the cell lacks is missing; `db_ih` and `db_hh` without a bias; `dx` and `dh_steps`
        where they are never asked for; for inference `dy` and all gradients.
    """
    cdef Pass p
    cdef bint double_precision
    cdef dict arrays
    cdef const Py_ssize_t[::1] rows

    def __init__(self, int cell, int isa, const Py_ssize_t[::1] rows, Py_ssize_t B, Py_ssize_t I,
                 Py_ssize_t H, dict arrays):
        cdef Pass *p = &self.p
        if not 0 <= cell < CYL_CELL_COUNT or not 0 <= isa <= cyl_detect_isa():
            raise ValueError(f"cell {cell}, isa {isa}: no such row in the table of cells on this machine")
        check_products(cell)
        self.rows, self.arrays = rows, arrays
        self.double_precision = arrays["x"].dtype.itemsize == 8
        p.cell, p.isa, p.T, p.B, p.I, p.H = cell, isa, rows.shape[0], B, I, H
        p.rows = &rows[0] if p.T else NULL
        p.N = self.checked_rows()
        require(max(p.N, cyl_cell_shapes[cell].gates * H, I))
        p.trains = "dy" in arrays
        self.bind()

    cdef Py_ssize_t checked_rows(self) except -1:
        cdef Py_ssize_t t, total = 0, before = self.p.B
        for t in range(self.p.T):
            if not 0 < self.rows[t] <= before:
                raise ValueError(f"rows: expected to descend from at most {self.p.B}, got {list(self.rows)}")
            before = self.rows[t]
            total += before
        return total

    cdef int bind(self) except -1:
        """Take the addresses of all arrays, checking their shapes."""
        cdef Pass *p = &self.p
        cdef const cyl_cell_shape *cell = &cyl_cell_shapes[p.cell]
        GH, N, B, H = cell.gates * p.H, p.N, p.B, p.H
        p.w_ih = self.pointer("w_ih", (GH, p.I), False)
        p.w_hh = self.pointer("w_hh", (GH, H), False)
        p.b_ih = self.pointer("b_ih", (GH,), False)
        p.b_hh = self.pointer("b_hh", (GH,), False)
        p.x = self.pointer("x", (N, p.I), False)
        p.gates = self.pointer("gates", (N, GH), True)
        p.h = self.pointer("h", (B + N, H), True)
        if cell.states == 2:
            p.c = self.pointer("c", (B + N if p.trains else 2 * B, H), True)
        if cell.has_extra:
            p.extra = self.pointer("extra", (N if p.trains else B, H), True)
        if not p.trains:
            return 0
        p.dy = self.pointer("dy", (N, H), False)
        p.dh = self.pointer("dh", (B, H), True)
        if cell.states == 2:
            p.dc = self.pointer("dc", (B, H), True)
        if cell.has_extra:
            p.dextra = self.pointer("dextra", (B, H), True)
        if "dh_steps" in self.arrays:
            p.dh_steps = self.pointer("dh_steps", (N, H), True)
        if "dx" in self.arrays:
            p.dx = self.pointer("dx", (N, p.I), True)
        p.dw_ih = self.pointer("dw_ih", (GH, p.I), True)
        p.dw_hh = self.pointer("dw_hh", (GH, H), True)
        if "db_ih" in self.arrays:
            p.sums = self.pointer("sums", (GH,), True)
            p.db_ih = self.pointer("db_ih", (GH,), True)
            p.db_hh = self.pointer("db_hh", (GH,), True)
        return 0

    cdef void *pointer(self, str name, tuple shape, bint writable) except? NULL:
        """Address of a named array of this shape; self.arrays keeps it alive."""
        cdef Py_buffer view
        cdef void *address
        array = self.arrays[name]
        if array.shape != shape or array.dtype.char != ("d" if self.double_precision else "f"):
            raise ValueError(
                f"{name}: expected {shape} {'float64' if self.double_precision else 'float32'}, "
                f"got {array.shape} {array.dtype}")
        PyObject_GetBuffer(
            array, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (PyBUF_WRITABLE if writable else 0))
        address = view.buf
        PyBuffer_Release(&view)
        return address

    def forward(self):
        """Fill gates and the states after the initial one."""
        with nogil:
            if self.double_precision:
                forward[double](&self.p, 0)
            else:
                forward[float](&self.p, 0)

    def backward(self, bint need_dx=True):
        """Turn gates into gradients, dh and dc into those of the initial state; add to those of weights.

        h is used up: afterwards it holds h_{t-1} of every packed row.
        """
        cdef Pass p = self.p
        if not p.trains:
            raise ValueError("backward: this pass was planned for inference")
        if not need_dx:
            p.dx = NULL
        with nogil:
            if self.double_precision:
                backward[double](&p, 0)
            else:
                backward[float](&p, 0)


cdef int check_products(int cell) except -1:
    """A cell's products cover every gate once, and fit into `extra`, which is one gate wide."""
    cdef const cyl_cell_shape *shape = &cyl_cell_shapes[cell]
    cdef int k, gates = 0
    for k in range(shape.products):
        gates += shape.product[k].count
        if shape.product[k].to_extra and (shape.product[k].count != 1 or not shape.has_extra):
            raise ValueError(f"cell {cell}: product {k} does not fit into the plane of the cell")
    if gates != shape.gates:
        raise ValueError(f"cell {cell}: products cover {gates} of {shape.gates} gates")
    return 0


def cell_shape(int cell):
    """What the C table says of a cell: (gates, states, has_extra)."""
    if not 0 <= cell < CYL_CELL_COUNT:
        raise ValueError(f"cell: expected 0 to {CYL_CELL_COUNT - 1}, got {cell}")
    check_products(cell)
    return cyl_cell_shapes[cell].gates, cyl_cell_shapes[cell].states, bool(cyl_cell_shapes[cell].has_extra)
