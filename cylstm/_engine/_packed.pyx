"""The packed path: weights in panels, and the pass of a layer over planned buffers on the thread pool.

The loops are C (include/cylstm/pass.h), for they are one piece with their kernels. Here are the checks, the
packing of weights, and the division of a call among threads.
"""
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer)

from cylstm._engine._cells cimport CYL_CELL_COUNT, cyl_cell_shape, cyl_cell_shapes, cyl_detect_isa
from cylstm._engine._kernels cimport kernels_of

ctypedef fused real:
    float
    double

cdef extern from "cylstm/pass.h" nogil:
    enum:
        CYL_PACKED
        CYL_MAX_PARTS
    enum:
        CYL_ROWS_AHEAD
        CYL_SEGMENT
    ctypedef struct cyl_barrier_slot:
        unsigned count
    ctypedef struct cyl_part:
        int index
    ctypedef void (*cyl_pass_function)(const cyl_pass *, cyl_part *) noexcept nogil
    ctypedef struct cyl_pass_functions:
        cyl_pass_function forward[3]
        cyl_pass_function backward[3]
    Py_ssize_t cyl_panel(int isa, size_t size)
    Py_ssize_t cyl_tile(int isa)
    Py_ssize_t cyl_strips(int cell, Py_ssize_t tile, Py_ssize_t H, Py_ssize_t P)
    bint cyl_side_by_side(const cyl_pass *, int, size_t)
    int cyl_divide(const cyl_pass *, int, Py_ssize_t, Py_ssize_t, size_t, int, cyl_part *, cyl_barrier_slot *)
    void cyl_pack_rows_f32(float *, Py_ssize_t, Py_ssize_t, const float *, Py_ssize_t, Py_ssize_t)
    void cyl_pack_rows_f64(double *, Py_ssize_t, Py_ssize_t, const double *, Py_ssize_t, Py_ssize_t)
    void cyl_pack_columns_f32(
        float *, Py_ssize_t, Py_ssize_t, const float *, Py_ssize_t, Py_ssize_t, Py_ssize_t)
    void cyl_pack_columns_f64(
        double *, Py_ssize_t, Py_ssize_t, const double *, Py_ssize_t, Py_ssize_t, Py_ssize_t)

cdef extern from "kernels/kernels.h" nogil:
    ctypedef struct cyl_kernels:
        const cyl_pass_functions *passes_f32
        const cyl_pass_functions *passes_f64

cdef extern from "thread_pool.h" nogil:
    int cyl_acquire_pool(int members)
    void cyl_release_pool()
    void cyl_run_in_pool(cyl_job function, void *argument, int members)

AVAILABLE = bool(CYL_PACKED)  # whether this build supports the packed path
AHEAD = CYL_ROWS_AHEAD  # minimum rows of gates in an inference pass
SPAN = CYL_SEGMENT  # steps of a checkpoint interval, if states are recomputed


cdef int _threads = 1


cdef public int cylstm_get_num_threads() noexcept nogil:
    """Called by threadpoolctl, which looks it up by name."""
    return _threads


cdef public void cylstm_set_num_threads(int n) noexcept nogil:
    global _threads
    _threads = max(1, n)


def get_threads():
    """Return the default number of threads of a pass."""
    return _threads


def set_threads(int n):
    """Set the default number of threads of a pass."""
    cylstm_set_num_threads(n)


cdef struct Job:
    cyl_pass_function function
    const cyl_pass *p
    cyl_part parts[CYL_MAX_PARTS]
    cyl_barrier_slot barrier_slots[2 * CYL_MAX_PARTS]


cdef void run_part(void *job, int index) noexcept nogil:
    cdef Job *j = <Job *>job
    j.function(j.p, &j.parts[index])


cdef void run_side(void *jobs, int index) noexcept nogil:
    run_part(<Job *>jobs + index, 0)


def forward_both(PackedPass a, PackedPass b, int threads=1):
    """Run the forward passes of both directions of a layer, in parallel if that is faster."""
    cdef Job jobs[2]
    cdef size_t size = 8 if a.double_precision else 4
    with nogil:
        if cyl_side_by_side(&a.p, threads, size) and take_team(2) == 2:
            divide(&jobs[0], &a.p, a.isa, a.double_precision, False, 1)
            divide(&jobs[1], &b.p, b.isa, b.double_precision, False, 1)
            run_team(run_side, jobs, 2)
        else:
            run(&a.p, a.isa, a.double_precision, False, threads)
            run(&b.p, b.isa, b.double_precision, False, threads)


def panel(int isa, int itemsize):
    """Return the number of units in a panel for an instruction set."""
    return cyl_panel(isa, itemsize)


def strips(int cell, int isa, Py_ssize_t H, Py_ssize_t P):
    """Return the size of the scratch buffer for strips of gradients in the backward pass."""
    return cyl_strips(cell, cyl_tile(isa), H, P)


def pack_rows(real[::1] out, Py_ssize_t panel, const real[:, ::1] w, Py_ssize_t blocks):
    """w (blocks.units, K) to panels (ceil(units / panel), blocks, K, panel), with zeros beyond the units."""
    cdef Py_ssize_t units = w.shape[0] // blocks, K = w.shape[1], block, size = K * panel
    cdef Py_ssize_t panels = (units + panel - 1) // panel
    if units == 0 or K == 0 or out.shape[0] != panels * blocks * size:
        raise ValueError("pack_rows: sizes of out and w do not fit together")
    with nogil:
        for block in range(blocks):
            if real is float:
                cyl_pack_rows_f32(&out[block * size], blocks * size, panel, &w[block * units, 0], units, K)
            else:
                cyl_pack_rows_f64(&out[block * size], blocks * size, panel, &w[block * units, 0], units, K)


def pack_columns(real[::1] out, Py_ssize_t panel, const real[:, ::1] w, Py_ssize_t blocks, Py_ssize_t padded):
    """w (blocks.K, columns) to panels (ceil(columns / panel), blocks, padded K, panel), with zeros around."""
    cdef Py_ssize_t K = w.shape[0] // blocks, columns = w.shape[1], block, size = padded * panel
    cdef Py_ssize_t panels = (columns + panel - 1) // panel
    if K == 0 or columns == 0 or padded < K or out.shape[0] != panels * blocks * size:
        raise ValueError("pack_columns: sizes of out and w do not fit together")
    with nogil:
        for block in range(blocks):
            if real is float:
                cyl_pack_columns_f32(
                    &out[block * size], blocks * size, panel, &w[block * K, 0], K, columns, padded)
            else:
                cyl_pack_columns_f64(
                    &out[block * size], blocks * size, panel, &w[block * K, 0], K, columns, padded)


cdef class PackedPass:
    """One layer's pass over planned buffers, checked once and run many times: `LayerPass` of the packed path.

    Parameters
    ----------
    cell, isa : int
        Row of the tables of cells, instruction set.
    rows : ndarray of intp
        (T,), the number of sequences that have each step: descending, B at most.
    B, I, H, P : int
        Sizes; P, the width of h, is H without a projection.
    arrays : dict
        The arrays of `cyl_pass` (include/cylstm/pass.h) by name, C-contiguous, all float32 or all float64.
        What the cell or the options lack is missing; for inference `dy` and all gradients.
    clip, zoneout_h, zoneout_c : float
    """
    def __init__(self, int cell, int isa, const Py_ssize_t[::1] rows, Py_ssize_t B, Py_ssize_t I,
                 Py_ssize_t H, Py_ssize_t P, dict arrays, *, double clip=float("inf"),
                 double zoneout_h=0, double zoneout_c=0):
        cdef cyl_pass *p = &self.p
        cdef Py_ssize_t unit
        if not 0 <= cell < CYL_CELL_COUNT or not 0 <= isa <= cyl_detect_isa():
            raise ValueError(f"cell {cell}, isa {isa}: no such row in the table of cells on this machine")
        self.rows, self.arrays, self.isa = rows, dict(arrays), isa
        self.double_precision = arrays["x"].dtype.itemsize == 8
        unit = cyl_panel(isa, 8 if self.double_precision else 4)
        p.cell, p.T, p.B, p.I, p.H, p.P = cell, rows.shape[0], B, I, H, P
        p.Hp, p.Pp = (H + unit - 1) // unit * unit, (P + unit - 1) // unit * unit
        p.clip, p.zoneout_h, p.zoneout_c = clip, zoneout_h, zoneout_c
        p.rows = &rows[0] if p.T else NULL
        p.N = count_rows(rows, B)
        if P != H and (cyl_cell_shapes[cell].states != 2 or "w_hr" not in arrays):
            raise ValueError(f"P: expected {H} without a projection, got {P}")
        p.trains = "dy" in arrays
        self.bind(unit)
        if p.trains:
            self.bind_gradients(unit)

    cdef int bind(self, Py_ssize_t unit) except -1:
        """Store the addresses of forward buffers after checking their shapes."""
        cdef cyl_pass *p = &self.p
        cdef const cyl_cell_shape *cell = &cyl_cell_shapes[p.cell]
        G, N, B, H, P, Hp, Pp = cell.gates, p.N, p.B, p.H, p.P, p.Hp, p.Pp
        one_step = N if p.trains else B  # rows of planes that are saved for the backward pass only
        p.ld_gates = self.arrays["gates"].shape[1]
        p.rows_of_gates = N if p.trains else max(B, CYL_ROWS_AHEAD)
        if p.ld_gates < G * Hp:
            raise ValueError(f"gates: expected rows of at least {G * Hp}, got {p.ld_gates}")
        p.w_ih = self.pointer("w_ih", (G * Hp * p.I,), False)
        p.w_hh = self.pointer("w_hh", (G * Hp * P,), False)
        p.b_ih = self.pointer("b_ih", (G, Hp), False)
        p.b_hh = self.pointer("b_hh", (G, Hp), False)
        p.x = self.pointer("x", (N, p.I), False)
        p.gates = self.pointer("gates", (p.rows_of_gates, p.ld_gates), True)
        p.h = self.pointer("h", (B + N, Pp), True)
        if "c_checkpoints" in self.arrays:
            self.bind_recomputed_states()
        if cell.states == 2:
            p.c = self.pointer("c", (B + N if p.trains and p.c_checkpoints == NULL else 2 * B, Hp), True)
        if cell.extra:
            p.ld_extra = cell.extra * Hp
            p.extra = self.pointer("extra", (one_step, p.ld_extra), True)
        if cell.cell_parameters:
            p.cell_parameters = self.pointer("cell_parameters", (cell.cell_parameters, Hp), False)
        if "w_hr" in self.arrays:
            p.w_hr = self.pointer("w_hr", (Pp * H,), False)
            p.m = self.pointer("m", (one_step, Hp), True)
        if "mask_h" in self.arrays:
            p.mask_h = self.pointer("mask_h", (B, P), False)
            p.h_masked = self.pointer("h_masked", (N, Pp), True)
        if "zone_h" in self.arrays:
            p.zone_h = self.pointer("zone_h", (N, P), False)
        if "zone_c" in self.arrays:
            p.zone_c = self.pointer("zone_c", (N, H), False)
        return 0

    cdef int bind_recomputed_states(self) except -1:
        """Store the addresses of checkpoints and of recomputed states."""
        cdef cyl_pass *p = &self.p
        cdef const cyl_cell_shape *cell = &cyl_cell_shapes[p.cell]
        zoned = p.zoneout_h > 0 or p.zoneout_c > 0
        if not p.trains or cell.states != 2 or cell.extra or zoned or "w_hr" in self.arrays:
            raise ValueError("c_checkpoints: expected training of an LSTM whose states follow from its gates")
        kept = ((p.T + CYL_SEGMENT - 1) // CYL_SEGMENT * p.B, p.Hp)
        again = (2 * CYL_SEGMENT * p.B, p.Hp)
        p.h_checkpoint = self.pointer("h_checkpoint", (p.B, p.Hp), True)
        p.c_checkpoints = self.pointer("c_checkpoints", kept, True)
        p.h_recomputed = self.pointer("h_recomputed", again, True)
        p.c_recomputed = self.pointer("c_recomputed", again, True)
        return 0

    cdef int bind_gradients(self, Py_ssize_t unit) except -1:
        """Store the addresses of additional backward buffers."""
        cdef cyl_pass *p = &self.p
        cdef const cyl_cell_shape *cell = &cyl_cell_shapes[p.cell]
        G, N, B, H, P, Hp, Pp = cell.gates, p.N, p.B, p.H, p.P, p.Hp, p.Pp
        p.w_hh_t = self.pointer("w_hh_t", (Pp * G * Hp,), False)
        p.w_ih_t = self.pointer("w_ih_t", ((p.I + unit - 1) // unit * unit * G * Hp,), False)
        p.dy = self.pointer("dy", (N, P), True)
        p.dh = self.pointer("dh", (B, Pp), True)
        p.dw_ih = self.pointer("dw_ih", (G * H, p.I), True)
        p.dw_hh = self.pointer("dw_hh", (G * H, P), True)
        p.strips = self.pointer("strips", (cyl_strips(p.cell, cyl_tile(self.isa), H, P),), True)
        if cell.states == 2:
            p.dc = self.pointer("dc", (B, Hp), True)
        if cell.extra:
            p.dextra = self.pointer("dextra", (B, Hp), True)
        if cell.cell_parameters:
            p.d_cell_parameters = self.pointer("d_cell_parameters", (cell.cell_parameters, Hp), True)
        if p.w_hr != NULL:
            p.w_hr_t = self.pointer("w_hr_t", (Hp * P,), False)
            p.dm = self.pointer("dm", (B, Hp), True)
            p.dw_hr = self.pointer("dw_hr", (P, H), True)
        if p.mask_h != NULL:
            p.dh_masked = self.pointer("dh_masked", (B, Pp), True)
        if p.zoneout_h > 0:
            p.dh_retained = self.pointer("dh_retained", (B, P), True)
        if p.zoneout_c > 0:
            p.dc_retained = self.pointer("dc_retained", (B, H), True)
        if "dh_steps" in self.arrays:
            p.dh_steps = self.pointer("dh_steps", (N, P), True)
        if "dx" in self.arrays:
            p.dx = self.pointer("dx", (N, p.I), True)
        if "db_ih" in self.arrays:
            p.db_ih = self.pointer("db_ih", (G * H,), True)
            p.db_hh = self.pointer("db_hh", (G * H,), True)
        return 0

    cdef void *pointer(self, str name, tuple shape, bint writable) except? NULL:
        """Address of a named array of this shape; self.arrays keeps it alive."""
        return address(name, self.arrays[name], shape, self.double_precision, writable)

    def forward(self, int threads=1, x=None):
        """Fill gates and the states after the initial one, from an x (N, I) of this call or that planned."""
        h = self.arrays.get("h")  # a reference, in case another thread drops the array
        cdef cyl_pass p = self.p
        if h is None or p.h == NULL:
            raise ValueError("forward: the hidden states of this pass have been donated")
        if x is not None:
            p.x = address("x", x, (p.N, p.I), self.double_precision, False)
        with nogil:
            run(&p, self.isa, self.double_precision, False, threads)

    def donate_h(self):
        """Release the hidden states if the backward pass recomputes them."""
        if self.p.c_checkpoints == NULL:
            raise ValueError("donate_h: backward reads them")
        self.p.h = NULL
        self.arrays.pop("h", None)

    def backward(self, bint need_dx=True, int threads=1, dy=None):
        """Turn gates into gradients, dh and dc into those of the initial state; add to those of weights.

        From a dy (N, P) of this call, which is only read, or the planned one.
        """
        cdef cyl_pass p = self.p
        if not p.trains:
            raise ValueError("backward: this pass was planned for inference")
        if dy is not None:
            if p.w_hr != NULL:
                raise ValueError("dy: expected the planned one of a projection, which is written to")
            p.dy = address("dy", dy, (p.N, p.P), self.double_precision, False)
        if not need_dx:
            p.dx = NULL
        with nogil:
            run(&p, self.isa, self.double_precision, True, threads)


cdef Py_ssize_t count_rows(const Py_ssize_t[::1] rows, Py_ssize_t B) except -1:
    """Check the rows of all steps, which descend from at most B."""
    cdef Py_ssize_t t, total = 0, before = B
    for t in range(rows.shape[0]):
        if not 0 < rows[t] <= before:
            raise ValueError(f"rows: expected to descend from at most {B}, got {list(rows)}")
        before = rows[t]
        total += before
    return total


cdef void *address(str name, array, tuple shape, bint double_precision, bint writable) except? NULL:
    """Return the address of a C-contiguous array of this shape; the caller keeps it alive."""
    cdef Py_buffer view
    cdef void *place
    kind = "d" if double_precision else "f"
    if array.shape != shape or not array.dtype.isnative or array.dtype.char != kind:
        raise ValueError(
            f"{name}: expected {shape} {'float64' if double_precision else 'float32'}, "
            f"got {array.shape} {array.dtype}")
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (PyBUF_WRITABLE if writable else 0))
    place = view.buf
    PyBuffer_Release(&view)
    return place


cdef int divide(Job *job, const cyl_pass *p, int isa, bint double_precision, bint back,
                int threads) noexcept nogil:
    """Divide a pass into parts for at most n threads; return their number."""
    cdef const cyl_kernels *kernels = <const cyl_kernels *>kernels_of(isa)
    cdef const cyl_pass_functions *functions = kernels.passes_f64 if double_precision else kernels.passes_f32
    cdef size_t size = 8 if double_precision else 4
    job.p, job.function = p, functions.backward[isa] if back else functions.forward[isa]
    return cyl_divide(p, min(threads, CYL_MAX_PARTS), cyl_panel(isa, size), cyl_tile(isa), size, back,
                      job.parts, job.barrier_slots)


cdef int run(const cyl_pass *p, int isa, bint double_precision, bint back, int threads) noexcept nogil:
    """Run a pass on at most n threads; return their number."""
    cdef Job job
    cdef int taken
    threads = divide(&job, p, isa, double_precision, back, threads)
    taken = take_team(threads)
    if taken < threads:
        threads = divide(&job, p, isa, double_precision, back, taken)
    if taken == 1:
        run_part(&job, 0)
    else:
        run_team(run_part, &job, threads)
    return threads


cdef int take_team(int members) noexcept nogil:
    return cyl_acquire_pool(members)


cdef void run_team(cyl_job function, void *argument, int members) noexcept nogil:
    cyl_run_in_pool(function, argument, members)
    cyl_release_pool()
