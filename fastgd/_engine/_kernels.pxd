"""What a build of the kernels consists of; each _kernels_*.pyx is one, compiled for its instruction set."""

from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memset

from fastgd._engine._stages cimport sweep
from fastgd._engine._work cimport Kernels
from fastgd._engine.rules.table cimport add_rules

cdef extern from "numeric.h":
    int FASTGD_HAS_FMA


cdef inline tuple offer(Kernels* kernels):
    """Fill the table of a build: it as a capsule, and what each rule expects (see rules/table.pxd)."""
    memset(kernels, 0, sizeof(Kernels))
    kernels.sweep = sweep
    kernels.has_fma = FASTGD_HAS_FMA
    rules = add_rules(kernels)
    return PyCapsule_New(kernels, "fastgd kernels", NULL), rules
