"""Alarms while a signal comes in: a loop over the engine's steps that needs neither Python nor its lock.

    detector = threshold.Detector(open("model.safetensors", "rb").read())
    t = detector.first_above(signal, limit)     # signal (T, I) float32
"""
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cimport cylstm.engine as engine


cdef class Detector:
    """A model that reads forward only, with float32 parameters; a signal's steps go through it one by one.

    Parameters
    ----------
    file : bytes
        What `cylstm.save` wrote.
    """
    cdef engine.cyl_model model
    cdef engine.cyl_runner runner
    cdef void *file
    cdef void *buffer
    cdef float *y

    def __init__(self, bytes file):
        cdef size_t size = len(file), needed
        if self.file != NULL:
            raise ValueError("a detector is made once")
        self.file = malloc(size + 1)  # at a multiple of 8, which bytes need not be
        if self.file == NULL:
            raise MemoryError
        memcpy(self.file, <const char *>file, size)
        check(engine.cyl_model_open(&self.model, self.file, size))
        if self.model.real != sizeof(float) or self.model.reads_indices or not self.model.causal:
            raise ValueError("file: expected a float32 model that reads forward only, and no indices")
        needed = engine.cyl_model_memory(&self.model, 1, 1)
        self.buffer = malloc(needed)
        self.y = <float *>malloc(self.model.O * sizeof(float))
        if self.buffer == NULL or self.y == NULL:
            raise MemoryError
        check(engine.cyl_runner_plan(&self.runner, &self.model, self.buffer, needed, 1, 1))

    def __dealloc__(self):
        free(self.file)
        free(self.buffer)
        free(self.y)

    def first_above(self, const float[:, ::1] signal, float limit):
        """The first step at which the model's first output is above a limit; None if it never is."""
        cdef Py_ssize_t t, found = -1
        if self.y == NULL or signal.shape[1] != self.model.I:
            raise ValueError(f"signal: expected (T, {self.model.I}), got {signal.shape[0], signal.shape[1]}")
        with nogil:
            engine.cyl_reset(&self.runner)
            for t in range(signal.shape[0]):
                engine.cyl_steps(&self.runner, self.y, &signal[t, 0], 1)
                if self.y[0] > limit:
                    found = t
                    break
        return None if found < 0 else found

    def last_output(self):
        """The model's outputs at the last step that went through it."""
        return [self.y[k] for k in range(self.model.O)]


cdef int check(int error) except -1:
    if error:
        raise ValueError(engine.cyl_error_text(error).decode())
    return 0
