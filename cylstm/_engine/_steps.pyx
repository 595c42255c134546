"""Steps of a chain of layers on the packed path, for streams and sessions, with no Python between layers."""
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer)
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from cylstm._engine._packed cimport PackedPass, address, cyl_pass, run
from cylstm._engine._packed_dense cimport Dense, PackedDense, run_dense

import numpy as np

cdef type ndarray = np.ndarray
cdef object empty = np.empty


cdef struct Carried:
    char *state  # (B, width): the stream's
    char *first  # rows of the layer's buffer before the step, and after it
    char *last
    Py_ssize_t width, pitch  # bytes of a row, in the state and in the buffer


cdef struct Stage:
    const cyl_pass *layer  # NULL: dense
    int isa
    Dense *dense
    char *x  # where the layer reads
    Py_ssize_t inputs, pitch  # bytes of a row of x; of its output
    char *y
    int states
    Carried carried[2]


cdef void copy_rows(char *out, Py_ssize_t pitch_out, const char *a, Py_ssize_t pitch, Py_ssize_t rows,
                    Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t row
    for row in range(rows):
        memcpy(out + row * pitch_out, a + row * pitch, size)


cdef class Steps:
    """Layers one after the other, each planned for T steps of B sequences: one, of a stream's.

    Parameters
    ----------
    stages : list of tuple
        For a recurrent layer (pass, x, y, states): its `PackedPass`, the buffer it reads, the rows of h after
        each step, and for each state (the carried (B, width), rows before, rows after the last step). For a
        dense one (its `PackedDense`,). What the second reads is what the first has put out, and so on.
    T, B : int
        Steps and sequences.
    model : Layer
    store : ParameterStore
        The model's; the steps hold for the parameters and options as they are now.
    watched : list of tuple
        For each recurrent layer (layer, clip, zoneout, zoneout_cell).
    """
    cdef Stage *stages
    cdef int count
    cdef list kept
    cdef Py_ssize_t B, N, I, O, size
    cdef object dtype, store, place, version
    cdef list watched
    cdef tuple shape

    def __cinit__(self, list stages, *args):
        self.stages = <Stage *>calloc(len(stages), sizeof(Stage))
        if self.stages == NULL:
            raise MemoryError("steps: cannot allocate")

    def __dealloc__(self):
        free(self.stages)

    def __init__(self, list stages, Py_ssize_t T, Py_ssize_t B, model, store, list watched):
        self.B, self.N, self.dtype = B, T * B, model.dtype
        self.I, self.O = model.input_size, model.output_size
        self.size, self.watched, self.shape = self.dtype.itemsize, watched, (self.N, self.O)
        self.store, self.place, self.version = store, store.place, store.place.version
        self.kept, self.count = stages, len(stages)
        for k in range(self.count):
            if len(stages[k]) == 1:
                self.bind_dense(&self.stages[k], stages[k][0])
            else:
                layer, x, y, states = stages[k]
                self.bind_layer(&self.stages[k], layer, x, y, states)

    cdef int bind_dense(self, Stage *s, PackedDense dense) except -1:
        s.dense = &dense.dense
        s.inputs, s.pitch = dense.dense.inputs * self.size, dense.dense.outputs * self.size
        s.y = <char *>dense.dense.y
        return 0

    cdef int bind_layer(self, Stage *s, PackedPass layer, x, y, states) except -1:
        cdef bint double_precision = self.size == 8
        if layer.p.N != self.N or layer.p.N != layer.p.T * self.B or layer.p.trains:
            raise ValueError("steps: expected passes of just these steps, planned for inference")
        s.layer, s.isa, s.states = &layer.p, layer.isa, len(states)
        s.x = <char *>address("x", x, (self.N, layer.p.I), double_precision, True)
        s.inputs, s.pitch = layer.p.I * self.size, layer.p.Pp * self.size
        s.y = <char *>address("y", y, (self.N, layer.p.Pp), double_precision, False)
        for k, (state, first, last) in enumerate(states):
            shape, padded = state.shape, first.shape
            s.carried[k].state = <char *>address("state", state, (self.B, shape[1]), double_precision, True)
            s.carried[k].first = <char *>address("first", first, (self.B, padded[1]), double_precision, True)
            s.carried[k].last = <char *>address("last", last, (self.B, padded[1]), double_precision, False)
            s.carried[k].width, s.carried[k].pitch = shape[1] * self.size, padded[1] * self.size
            first[:, shape[1]:] = 0
        return 0

    cpdef bint current(self):
        """Whether parameters and options still match the plan."""
        if self.store.place is not self.place or self.place.version != self.version:
            return False
        for layer, clip, zoneout, zoneout_cell in self.watched:
            if layer.clip != clip or layer.zoneout != zoneout or layer.zoneout_cell != zoneout_cell:
                return False
        return True

    def step(self, x, out, int threads):
        """y (N, O) from x (N, I), N = T B; or (O,) from (I,).

        None, and nothing is done, where the plan holds no more or x or out is not just what it should be.
        """
        cdef Py_buffer a, y
        if type(x) is not ndarray or x.dtype is not self.dtype or not self.current():
            return None
        if out is None:
            out = empty(self.shape if x.ndim == 2 else self.shape[1], self.dtype)
        elif type(out) is not ndarray or out.dtype is not self.dtype or out.ndim != x.ndim:
            return None
        try:
            PyObject_GetBuffer(x, &a, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        except (BufferError, ValueError):
            return None
        try:
            PyObject_GetBuffer(out, &y, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE)
        except (BufferError, ValueError):
            PyBuffer_Release(&a)
            return None
        fits = self.fits(&a, self.I) and self.fits(&y, self.O)
        if fits:
            with nogil:
                self.go(<const char *>a.buf, <char *>y.buf, threads)
        PyBuffer_Release(&a)
        PyBuffer_Release(&y)
        return out if fits else None

    cdef bint fits(self, const Py_buffer *view, Py_ssize_t features) noexcept nogil:
        if view.ndim == 1:
            return self.N == 1 and view.shape[0] == features
        return view.ndim == 2 and view.shape[0] == self.N and view.shape[1] == features

    cdef void go(self, const char *x, char *out, int threads) noexcept nogil:
        cdef const char *source = x
        cdef Py_ssize_t pitch = self.I * self.size
        cdef Stage *s
        cdef Carried *c
        cdef Dense dense
        cdef int k, j
        for k in range(self.count):
            s = &self.stages[k]
            if s.layer == NULL:
                dense = s.dense[0]  # a copy, with another x
                dense.x, dense.ldx = source, pitch // self.size
                run_dense(&dense, threads)
            else:
                if s.x != source:
                    copy_rows(s.x, s.inputs, source, pitch, self.N, s.inputs)
                for j in range(s.states):
                    c = &s.carried[j]
                    copy_rows(c.first, c.pitch, c.state, c.width, self.B, c.width)
                run(s.layer, s.isa, self.size == 8, False, threads)
                for j in range(s.states):
                    c = &s.carried[j]
                    copy_rows(c.state, c.width, c.last, c.pitch, self.B, c.width)
            source, pitch = s.y, s.pitch
        copy_rows(out, self.O * self.size, source, pitch, self.N, self.O * self.size)
