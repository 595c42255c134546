"""Builds the extension, where cylstm and Cython are: `python -m pip install --no-build-isolation .`."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import cylstm

# The flags with which results are the bits of cylstm in Python.
FLAGS = ["-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
extension = Extension(
    "threshold", ["threshold.pyx"], include_dirs=[cylstm.get_include()], extra_compile_args=FLAGS
)
setup(ext_modules=cythonize([extension], compiler_directives={"language_level": 3}))
