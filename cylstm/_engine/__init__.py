"""The compiled engine: BLAS wrapper, time loop, dense layers, optimiser loops.

`Plan` and `Arena` (planning.py) and the choice of instruction set (isa.py) are
Python; the rest is Cython over the C kernels of include/cylstm/.
"""
