"""The time loop: one recurrent layer, forward and back through time, on the BLAS path.

B batch, T time steps, I input size, H hidden size, G gates. Time-major and
row-major throughout: x (T,B,I), gates (T,B,G.H), states h and c (slots,B,H).
Slot 0 is the initial state and step t writes slot t+1; training keeps T+1 slots,
inference takes 2 for c in turn, for nothing reads c back.

The loop knows no cell. It forms pre-activations with GEMMs and hands each step to
a row of the table of cells (include/cylstm/cells.h). Complexity, forward:
2.T.B.G.H.(I+H) flops; backward: twice that, less 2.T.B.G.H.I without dx.
"""
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer)

from cylstm._engine._blas cimport NO, YES, add_column_sums, gemm, real, require
from cylstm._engine._cells cimport (
    CYL_CELL_COUNT, cyl_backward_f32, cyl_backward_f64, cyl_cells_f32, cyl_cells_f64,
    cyl_detect_isa, cyl_forward_f32, cyl_forward_f64)

# Everything one pass needs; the pointers are to float or double, as `LayerPass` says.
cdef struct Pass:
    int cell, isa
    Py_ssize_t T, B, I, H, G, c_slots
    const void *w_ih    # (G.H, I)
    const void *w_hh    # (G.H, H)
    const void *b_ih    # (G.H) or NULL
    const void *b_hh    # (G.H) or NULL
    const void *x       # (T, B, I)
    void *bias          # (G.H)       b_ih + b_hh
    void *gates         # (T, B, G.H) forward: the gates; backward: dL/d(pre-activations)
    void *h             # (T+1, B, H)
    void *c             # (c_slots, B, H)
    const void *dy      # (T, B, H)   dL/dy; dx may overwrite it
    void *dh            # (B, H)      in: dL/dh_T; out: dL/dh_0
    void *dc            # (B, H)      in: dL/dc_T; out: dL/dc_0
    void *dx            # (T, B, I)   or NULL: not asked for
    void *dw_ih         # gradients are added to
    void *dw_hh
    void *db_ih         # or NULL
    void *db_hh


cdef void forward(const Pass *p, real _) noexcept nogil:
    cdef Py_ssize_t t, j, BH = p.B * p.H, BGH = p.B * p.G * p.H
    cdef real *gates = <real *>p.gates
    cdef real *h = <real *>p.h
    cdef real *bias = <real *>p.bias
    for j in range(p.G * p.H):
        bias[j] = (<real *>p.b_ih)[j] + (<real *>p.b_hh)[j] if p.b_ih != NULL else 0
    # z_t = W_ih x_t for all t at once
    # gates (T.B, G.H) = x (T.B, I) . W_ih^T (I, G.H)
    gemm[real](NO, YES, p.T * p.B, p.G * p.H, p.I, <const real *>p.x, <const real *>p.w_ih, 0, gates)
    for t in range(p.T):
        # z_t += W_hh h_{t-1}
        # gates[t] (B, G.H) += h[t] (B, H) . W_hh^T (H, G.H)
        gemm[real](NO, YES, p.B, p.G * p.H, p.H, h + t * BH, <const real *>p.w_hh, 1, gates + t * BGH)
        step_forward[real](
            p, gates + t * BGH, h + (t + 1) * BH,
            <real *>p.c + ((t + 1) % p.c_slots) * BH, <real *>p.c + (t % p.c_slots) * BH)


cdef void step_forward(const Pass *p, real *gates, real *h, real *c, const real *c_prev) noexcept nogil:
    cdef cyl_forward_f32 f32
    cdef cyl_forward_f64 f64
    if real is float:
        f32 = cyl_forward_f32(p.B, p.H, gates, h, c, c_prev, <const float *>p.bias)
        cyl_cells_f32[p.cell].forward[p.isa](&f32)
    else:
        f64 = cyl_forward_f64(p.B, p.H, gates, h, c, c_prev, <const double *>p.bias)
        cyl_cells_f64[p.cell].forward[p.isa](&f64)


cdef void backward(const Pass *p, real _) noexcept nogil:
    cdef Py_ssize_t t, j, BH = p.B * p.H, BGH = p.B * p.G * p.H, TB = p.T * p.B, GH = p.G * p.H
    cdef real *dgates = <real *>p.gates
    cdef real *dh = <real *>p.dh
    cdef const real *dy = <const real *>p.dy
    cdef const real *h = <const real *>p.h
    cdef const real *c = <const real *>p.c
    for t in range(p.T - 1, -1, -1):
        for j in range(BH):
            dh[j] += dy[t * BH + j]
        step_backward[real](p, dgates + t * BGH, c + (t + 1) * BH, c + t * BH)
        # dL/dh_{t-1} through the pre-activations of step t
        # dh (B, H) = dgates[t] (B, G.H) . W_hh (G.H, H)
        gemm[real](NO, NO, p.B, p.H, GH, dgates + t * BGH, <const real *>p.w_hh, 0, dh)
    # dL/dW_ih = sum_t dz_t x_t^T
    # dW_ih (G.H, I) += dgates^T (G.H, T.B) . x (T.B, I)
    gemm[real](YES, NO, GH, p.I, TB, dgates, <const real *>p.x, 1, <real *>p.dw_ih)
    # dL/dW_hh = sum_t dz_t h_{t-1}^T
    # dW_hh (G.H, H) += dgates^T (G.H, T.B) . h[0:T] (T.B, H)
    gemm[real](YES, NO, GH, p.H, TB, dgates, h, 1, <real *>p.dw_hh)
    if p.db_ih != NULL:
        bias_gradients[real](p, dgates)
    if p.dx != NULL:
        # dL/dx_t = W_ih^T dz_t
        # dx (T.B, I) = dgates (T.B, G.H) . W_ih (G.H, I)
        gemm[real](NO, NO, TB, p.I, GH, dgates, <const real *>p.w_ih, 0, <real *>p.dx)


cdef void step_backward(const Pass *p, real *gates, const real *c, const real *c_prev) noexcept nogil:
    cdef cyl_backward_f32 f32
    cdef cyl_backward_f64 f64
    if real is float:
        f32 = cyl_backward_f32(p.B, p.H, gates, <float *>p.dc, <const float *>p.dh, c, c_prev)
        cyl_cells_f32[p.cell].backward[p.isa](&f32)
    else:
        f64 = cyl_backward_f64(p.B, p.H, gates, <double *>p.dc, <const double *>p.dh, c, c_prev)
        cyl_cells_f64[p.cell].backward[p.isa](&f64)


cdef void bias_gradients(const Pass *p, const real *dgates) noexcept nogil:
    """db_ih and db_hh are the same column sums; bias (G.H) is free to hold them."""
    cdef Py_ssize_t j, GH = p.G * p.H
    cdef real *sums = <real *>p.bias
    for j in range(GH):
        sums[j] = 0
    add_column_sums[real](p.T * p.B, GH, dgates, sums)
    for j in range(GH):
        (<real *>p.db_ih)[j] += sums[j]
        (<real *>p.db_hh)[j] += sums[j]


cdef class LayerPass:
    """One layer's pass over planned buffers, checked once and run many times.

    Parameters
    ----------
    cell, isa : int
        Row of the table of cells, instruction set.
    T, B, I, H, G : int
        Sizes.
    arrays : dict
        The arrays of `Pass` by name, C-contiguous, all float32 or all float64. `b_ih`,
        `b_hh` and their gradients may be missing together. For inference `dy`
        and all gradients are missing, and `c` may have 2 slots instead of T+1.
    """
    cdef Pass p
    cdef bint double_precision, trains
    cdef dict arrays

    def __init__(self, int cell, int isa, Py_ssize_t T, Py_ssize_t B, Py_ssize_t I, Py_ssize_t H,
                 Py_ssize_t G, dict arrays):
        cdef Pass *p = &self.p
        if not 0 <= cell < CYL_CELL_COUNT or not 0 <= isa <= cyl_detect_isa():
            raise ValueError(f"cell {cell}, isa {isa}: no such row in the table of cells on this machine")
        require(max(T * B, G * H, I))
        self.arrays = arrays
        self.double_precision = arrays["x"].dtype.itemsize == 8
        self.trains = "dy" in arrays
        p.cell, p.isa, p.T, p.B, p.I, p.H, p.G = cell, isa, T, B, I, H, G
        p.c_slots = arrays["c"].shape[0]
        if p.c_slots != T + 1 and (self.trains or p.c_slots != 2):
            raise ValueError(f"c: expected T+1 = {T + 1} slots (or 2 in inference), got {p.c_slots}")
        p.w_ih = self.pointer("w_ih", (G * H, I), False)
        p.w_hh = self.pointer("w_hh", (G * H, H), False)
        p.b_ih = self.optional("b_ih", (G * H,), False)
        p.b_hh = self.pointer("b_hh", (G * H,), False) if p.b_ih != NULL else NULL
        p.x = self.pointer("x", (T, B, I), False)
        p.bias = self.pointer("bias", (G * H,), True)
        p.gates = self.pointer("gates", (T, B, G * H), True)
        p.h = self.pointer("h", (T + 1, B, H), True)
        p.c = self.pointer("c", (p.c_slots, B, H), True)
        if not self.trains:
            return
        p.dy = self.pointer("dy", (T, B, H), False)
        p.dh = self.pointer("dh", (B, H), True)
        p.dc = self.pointer("dc", (B, H), True)
        p.dx = self.optional("dx", (T, B, I), True)
        p.dw_ih = self.pointer("dw_ih", (G * H, I), True)
        p.dw_hh = self.pointer("dw_hh", (G * H, H), True)
        p.db_ih = self.pointer("db_ih", (G * H,), True) if p.b_ih != NULL else NULL
        p.db_hh = self.pointer("db_hh", (G * H,), True) if p.b_ih != NULL else NULL

    cdef void *optional(self, str name, tuple shape, bint writable) except? NULL:
        return self.pointer(name, shape, writable) if name in self.arrays else NULL

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
        """Fill gates and the states after slot 0."""
        with nogil:
            if self.double_precision:
                forward[double](&self.p, 0)
            else:
                forward[float](&self.p, 0)

    def backward(self, bint need_dx=True):
        """Turn gates into dL/d(pre-activations), dh and dc into those of the initial state; add gradients."""
        cdef Pass p = self.p
        if not self.trains:
            raise ValueError("backward: this pass was planned for inference")
        if not need_dx:
            p.dx = NULL
        with nogil:
            if self.double_precision:
                backward[double](&p, 0)
            else:
                backward[float](&p, 0)
