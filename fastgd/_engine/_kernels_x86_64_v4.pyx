"""The kernels for x86-64-v4: AVX-512."""

from fastgd._engine._kernels cimport offer
from fastgd._engine._work cimport Kernels

cdef Kernels kernels
table, rules = offer(&kernels)
