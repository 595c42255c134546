"""The compiled engine: BLAS wrapper, time loop, dense layers, optimiser loops.

`Plan` and `Arena` (planning.py) and the choice of instruction set (isa.py) are
Python; the rest is Cython over the C kernels of include/cylstm/.
"""

try:
    import cylstm._engine._kernels  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "cylstm._engine._kernels":
        raise
    from cylstm._engine.missing import message

    raise ImportError(message(), name=error.name) from None
