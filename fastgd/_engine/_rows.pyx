"""Which rows a gradient touches: its indices sorted, equal ones together in the order in which they came."""

cimport numpy as cnp
from libc.string cimport memset

import numpy as np

cnp.import_array()

cdef enum:
    BITS = 11  # of a digit of the radix sort: its counts stay in the L1 cache
    RADIX = 1 << BITS


cdef void scatter(const cnp.int64_t* keys, const cnp.int64_t* places, Py_ssize_t n, int shift,
                  cnp.int64_t* to_keys, cnp.int64_t* to_places) noexcept nogil:
    """One pass of a stable radix sort, by the digit at `shift`; `places` NULL: 0, 1, 2, …"""
    cdef Py_ssize_t counts[RADIX]
    cdef Py_ssize_t i, total = 0, count, digit
    memset(&counts[0], 0, sizeof(counts))
    for i in range(n):
        counts[(keys[i] >> shift) & (RADIX - 1)] += 1
    for i in range(RADIX):
        count = counts[i]
        counts[i] = total
        total += count
    for i in range(n):
        digit = (keys[i] >> shift) & (RADIX - 1)
        to_keys[counts[digit]] = keys[i]
        to_places[counts[digit]] = i if places == NULL else places[i]
        counts[digit] += 1


def segments(cnp.ndarray indices not None, Py_ssize_t rows):
    """The rows among `indices`, ascending, each once, and where in `indices` each of them is.

    Args:
        indices: (n,) int64, C-contiguous, in any order.
        rows: how many there are.

    Returns:
        numbers (u,), starts (u + 1,), places (n,), all int64: row numbers[i] is at the ascending places
        places[starts[i]:starts[i + 1]].

    Raises:
        TypeError: indices is not as above. IndexError: one is negative, or `rows` or more; its argument
        is that index.
    """
    if (indices.ndim != 1 or cnp.PyArray_TYPE(indices) != cnp.NPY_INT64
            or not cnp.PyArray_CHKFLAGS(indices, cnp.NPY_ARRAY_CARRAY_RO)):
        raise TypeError("segments: indices must be a contiguous array of int64 of one dimension")
    cdef Py_ssize_t n = indices.shape[0], i, u = 0
    cdef const cnp.int64_t* keys = <const cnp.int64_t*> cnp.PyArray_DATA(indices)
    cdef const cnp.int64_t* places = NULL
    cdef bint ascending = True
    cdef int shift = 0, turn = 0
    for i in range(n):
        if keys[i] < 0 or keys[i] >= rows:
            raise IndexError(int(keys[i]))
        if i > 0 and keys[i] < keys[i - 1]:
            ascending = False
    cdef cnp.ndarray buffers = np.empty((4, n), np.int64)
    cdef cnp.int64_t* memory = <cnp.int64_t*> cnp.PyArray_DATA(buffers)
    while not ascending and (rows - 1) >> shift > 0:
        scatter(keys, places, n, shift, memory + 2 * turn * n, memory + (2 * turn + 1) * n)
        keys, places = memory + 2 * turn * n, memory + (2 * turn + 1) * n
        shift, turn = shift + BITS, 1 - turn
    order = np.arange(n) if places == NULL else buffers[2 * (1 - turn) + 1]
    cdef cnp.ndarray numbers = np.empty(n, np.int64), starts = np.empty(n + 1, np.int64)
    cdef cnp.int64_t* to_numbers = <cnp.int64_t*> cnp.PyArray_DATA(numbers)
    cdef cnp.int64_t* to_starts = <cnp.int64_t*> cnp.PyArray_DATA(starts)
    for i in range(n):
        if i == 0 or keys[i] != keys[i - 1]:
            to_numbers[u], to_starts[u] = keys[i], i
            u += 1
    to_starts[u] = n
    return numbers[:u], starts[:u + 1], order
