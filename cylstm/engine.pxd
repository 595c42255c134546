"""The engine for other extensions: models of `cylstm.save`, opened and run without Python or its lock.

    cimport cylstm.engine as engine        # and cylstm.get_include() among the extension's include_dirs

What the functions do, and what has to stay as long as what, is said in include/cylstm/cylstm.h.
"""
from libc.stddef cimport size_t

cdef extern from "cylstm/cylstm.h" nogil:
    enum:
        CYL_OK
        CYL_NOT_A_MODEL
        CYL_DAMAGED
        CYL_OTHER_FORMAT
        CYL_UNKNOWN_LAYER
        CYL_UNKNOWN_OPTION
        CYL_BAD_OPTION
        CYL_BAD_LAYERS
        CYL_TOO_MANY_LAYERS
        CYL_BAD_TENSORS
        CYL_MISALIGNED
        CYL_BAD_SIZE
        CYL_TOO_LITTLE_MEMORY
        CYL_BAD_INDEX
        CYL_NOT_CAUSAL

    ctypedef struct cyl_model:
        Py_ssize_t I, O
        size_t real
        int isa, reads_indices, pools, causal, layers

    ctypedef struct cyl_runner:
        const cyl_model *model
        Py_ssize_t T, B

    const char *cyl_error_text(int error)
    int cyl_model_open(cyl_model *model, const void *data, size_t size)
    size_t cyl_model_memory(const cyl_model *model, Py_ssize_t T, Py_ssize_t B)
    int cyl_runner_plan(
        cyl_runner *runner, const cyl_model *model, void *buffer, size_t size, Py_ssize_t T, Py_ssize_t B)
    int cyl_run(cyl_runner *runner, void *y, const void *x, Py_ssize_t T)
    int cyl_steps(cyl_runner *runner, void *y, const void *x, Py_ssize_t T)
    void cyl_reset(cyl_runner *runner)
    void *cyl_state(const cyl_runner *runner, size_t *size)
