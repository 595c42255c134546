"""Builds the extension: `python -m pip install --no-build-isolation .` where cylstm and Cython are installed."""

import cylstm
from Cython.Build import cythonize
from setuptools import Extension, setup

# The flags with which results are the bits of cylstm in Python.
FLAGS = ["-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
extension = Extension(
    "threshold", ["threshold.pyx"], include_dirs=[cylstm.get_include()], extra_compile_args=FLAGS
)
setup(ext_modules=cythonize([extension], compiler_directives={"language_level": 3}))
