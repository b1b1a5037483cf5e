"""The kernels for whatever the compiler takes for this machine."""

from fastgd._engine._kernels cimport offer
from fastgd._engine._work cimport Kernels

cdef Kernels kernels
table, rules = offer(&kernels)
