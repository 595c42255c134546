"""The pass of a recurrent layer over planned buffers, validated once and run many times."""
from cylstm._engine._blas cimport require
from cylstm._engine._cells cimport CYL_CELL_COUNT, cyl_cell_shape, cyl_cell_shapes, cyl_detect_isa
from cylstm._engine._packed cimport address, count_rows
from cylstm._engine._time_loop cimport Pass, backward, forward


cdef class LayerPass:
    """One layer's pass over planned buffers, checked once and run many times.

    Parameters
    ----------
    cell, isa : int
        Row of the tables of cells, instruction set.
    rows : ndarray of intp
        (T,), the number of sequences that have each step: descending, B at most.
    B, I, H, P : int
        Sizes; P, the width of h, is H without a projection.
    arrays : dict
        The arrays of `Pass` by name, C-contiguous, all float32 or all float64. What the
        table says that the cell lacks is missing; `db_ih` and `db_hh` without a bias; `dx` and `dh_steps`
        where they are never asked for; what an option needs without it; for inference `dy` and all gradients.
    clip, zoneout_h, zoneout_c : float
        As in `Pass`.
    """
    cdef Pass p
    cdef bint double_precision
    cdef dict arrays
    cdef const Py_ssize_t[::1] rows

    def __init__(self, int cell, int isa, const Py_ssize_t[::1] rows, Py_ssize_t B, Py_ssize_t I,
                 Py_ssize_t H, Py_ssize_t P, dict arrays, *, double clip=float("inf"),
                 double zoneout_h=0, double zoneout_c=0):
        cdef Pass *p = &self.p
        if not 0 <= cell < CYL_CELL_COUNT or not 0 <= isa <= cyl_detect_isa():
            raise ValueError(f"cell {cell}, isa {isa}: no such row in the table of cells on this machine")
        check_products(cell)
        self.rows, self.arrays = rows, dict(arrays)
        self.double_precision = arrays["x"].dtype.itemsize == 8
        p.cell, p.isa, p.T, p.B, p.I, p.H, p.P = cell, isa, rows.shape[0], B, I, H, P
        p.clip, p.zoneout_h, p.zoneout_c = clip, zoneout_h, zoneout_c
        p.rows = &rows[0] if p.T else NULL
        p.N = count_rows(rows, B)
        require(max(p.N, cyl_cell_shapes[cell].gates * H, I, P))
        if P != H and (cyl_cell_shapes[cell].states != 2 or "w_hr" not in arrays):
            raise ValueError(f"P: expected {H} without a projection, got {P}")
        p.trains = "dy" in arrays
        self.bind()
        if p.trains:
            self.bind_gradients()

    cdef int bind(self) except -1:
        """Store the addresses of forward buffers after checking their shapes."""
        cdef Pass *p = &self.p
        cdef const cyl_cell_shape *cell = &cyl_cell_shapes[p.cell]
        GH, N, B, H, P = cell.gates * p.H, p.N, p.B, p.H, p.P
        one_step = N if p.trains else B  # rows of planes that are saved for the backward pass only
        p.w_ih = self.pointer("w_ih", (GH, p.I), False)
        p.w_hh = self.pointer("w_hh", (GH, P), False)
        p.b_ih = self.pointer("b_ih", (GH,), False)
        p.b_hh = self.pointer("b_hh", (GH,), False)
        p.x = self.pointer("x", (N, p.I), False)
        p.gates = self.pointer("gates", (N, GH), True)
        p.h = self.pointer("h", (B + N, P), True)
        if cell.states == 2:
            p.c = self.pointer("c", (B + N if p.trains else 2 * B, H), True)
        if cell.extra:
            p.extra = self.pointer("extra", (one_step, cell.extra * H), True)
        if cell.cell_parameters:
            p.cell_parameters = self.pointer("cell_parameters", (cell.cell_parameters * H,), False)
        if "w_hr" in self.arrays:
            p.w_hr = self.pointer("w_hr", (P, H), False)
            p.m = self.pointer("m", (one_step, H), True)
        if "mask_h" in self.arrays:
            p.mask_h = self.pointer("mask_h", (B, P), False)
            p.h_masked = self.pointer("h_masked", (N, P), True)
        if "zone_h" in self.arrays:
            p.zone_h = self.pointer("zone_h", (N, P), False)
        if "zone_c" in self.arrays:
            p.zone_c = self.pointer("zone_c", (N, H), False)
        return 0

    cdef int bind_gradients(self) except -1:
        """Store the addresses of additional backward buffers."""
        cdef Pass *p = &self.p
        cdef const cyl_cell_shape *cell = &cyl_cell_shapes[p.cell]
        GH, N, B, H, P = cell.gates * p.H, p.N, p.B, p.H, p.P
        p.dy = self.pointer("dy", (N, P), True)
        p.dh = self.pointer("dh", (B, P), True)
        p.dw_ih = self.pointer("dw_ih", (GH, p.I), True)
        p.dw_hh = self.pointer("dw_hh", (GH, P), True)
        if cell.states == 2:
            p.dc = self.pointer("dc", (B, H), True)
        if cell.extra:
            p.dextra = self.pointer("dextra", (B, H), True)
        if cell.cell_parameters:
            p.d_cell_parameters = self.pointer("d_cell_parameters", (cell.cell_parameters * H,), True)
        if p.w_hr != NULL:
            p.dm = self.pointer("dm", (B, H), True)
            p.dw_hr = self.pointer("dw_hr", (P, H), True)
        if p.mask_h != NULL:
            p.dh_masked = self.pointer("dh_masked", (B, P), True)
        if p.zoneout_h > 0:
            p.dh_retained = self.pointer("dh_retained", (B, P), True)
        if p.zoneout_c > 0:
            p.dc_retained = self.pointer("dc_retained", (B, H), True)
        if "dh_steps" in self.arrays:
            p.dh_steps = self.pointer("dh_steps", (N, P), True)
        if "dx" in self.arrays:
            p.dx = self.pointer("dx", (N, p.I), True)
        if "db_ih" in self.arrays:
            p.sums = self.pointer("sums", (GH,), True)
            p.db_ih = self.pointer("db_ih", (GH,), True)
            p.db_hh = self.pointer("db_hh", (GH,), True)
        return 0

    cdef void *pointer(self, str name, tuple shape, bint writable) except? NULL:
        """Address of a named array of this shape; self.arrays keeps it alive."""
        return address(name, self.arrays[name], shape, self.double_precision, writable)

    def forward(self, int threads=1, x=None):
        """Fill gates and the states after the initial one; on as many threads as BLAS has."""
        with nogil:
            if self.double_precision:
                forward[double](&self.p, 0)
            else:
                forward[float](&self.p, 0)

    def backward(self, bint need_dx=True, int threads=1, dy=None):
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
    """Check that the products of a cell cover every gate once and fit into `extra`."""
    cdef const cyl_cell_shape *shape = &cyl_cell_shapes[cell]
    cdef int k, gates = 0
    for k in range(shape.products):
        gates += shape.product[k].count
        if shape.product[k].to_extra and shape.product[k].count > shape.extra:
            raise ValueError(f"cell {cell}: product {k} does not fit into the planes of the cell")
    if gates != shape.gates:
        raise ValueError(f"cell {cell}: products cover {gates} of {shape.gates} gates")
    return 0


def cell_shape(int cell):
    """Return a cell's row of the C table.

    (gates, states, extra planes, planes of cell parameters, cell parameters, biases); sizes in units of H.
    """
    cdef const cyl_cell_shape *shape
    cdef int k = 0
    if not 0 <= cell < CYL_CELL_COUNT:
        raise ValueError(f"cell: expected 0 to {CYL_CELL_COUNT - 1}, got {cell}")
    check_products(cell)
    shape = &cyl_cell_shapes[cell]
    parameters = []
    while shape.parameters[k].name != NULL:
        parameters.append((shape.parameters[k].name.decode(), shape.parameters[k].planes))
        k += 1
    sizes = shape.gates, shape.states, shape.extra, shape.cell_parameters
    return (*sizes, tuple(parameters), bool(shape.biases))
