"""Gathering the rows of a mini-batch: bound by memory, so with all threads and the rows ahead asked for."""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.string cimport memcpy

from fastgd._engine._runtime cimport Pace

cdef extern from "prefetch.h" nogil:
    void fastgd_prefetch_row(const char*, Py_ssize_t)

cnp.import_array()

# Below this many bytes waking a thread costs more than it saves.
cdef enum:
    SERIAL_BELOW = 1 << 20
    GIL_BELOW = 1 << 15

cdef Pace pace = Pace()


cdef void copy_rows(const char* src, Py_ssize_t stride, const cnp.int64_t* index, Py_ssize_t begin,
                    Py_ssize_t end, Py_ssize_t row_bytes, char* out) noexcept nogil:
    cdef Py_ssize_t i
    # A constant size lets the compiler turn the copy into one load and one store.
    if row_bytes == 4:
        for i in range(begin, end):
            memcpy(out + i * 4, src + index[i] * stride, 4)
    elif row_bytes == 8:
        for i in range(begin, end):
            memcpy(out + i * 8, src + index[i] * stride, 8)
    else:
        for i in range(begin, end):
            if i + 2 < end:
                fastgd_prefetch_row(src + index[i + 2] * stride, min(row_bytes, <Py_ssize_t> 4096))
            memcpy(out + i * row_bytes, src + index[i] * stride, row_bytes)


def gather_rows(cnp.ndarray src not None, cnp.ndarray index not None, cnp.ndarray out not None,
                bint serial=False):
    """Write `src[index]` into `out`, bit for bit, with all threads when the rows are many.

    Args:
        src: (n, …) of any dtype without objects, its rows C-contiguous, any stride between them.
        index: (m,) int64, C-contiguous, each in 0 … n-1.
        out: (m, …) C-contiguous, writeable, of src's dtype and row shape; must not overlap src.
        serial: use the calling thread only: for a background thread, whose own OpenMP team would
            compete with that of the main thread.

    Raises:
        TypeError, ValueError: an array is not as above. IndexError: an index is out of range.
        Nothing has been written then.
    """
    cdef Py_ssize_t n, m, i, row_bytes, stride, team, t
    cdef bint paced
    cdef const cnp.int64_t* rows
    cdef const char* source
    cdef char* target
    if src.ndim < 1 or src.dtype.hasobject:
        raise TypeError("gather_rows: src must have at least one dimension and no object dtype")
    if index.ndim != 1 or cnp.PyArray_TYPE(index) != cnp.NPY_INT64 or not cnp.PyArray_ISCARRAY_RO(index):
        raise TypeError("gather_rows: index must be a C-contiguous one-dimensional int64 array")
    n, m = src.shape[0], index.shape[0]
    if out.dtype != src.dtype or out.ndim != src.ndim or out.shape[0] != m or not cnp.PyArray_CHKFLAGS(
            out, cnp.NPY_ARRAY_CARRAY):
        raise ValueError("gather_rows: out must be C-contiguous, writeable and of src's dtype and row shape")
    for i in range(1, src.ndim):
        if out.shape[i] != src.shape[i]:
            raise ValueError("gather_rows: out and src differ in the shape of a row")
    row_bytes = src.dtype.itemsize
    for i in range(src.ndim - 1, 0, -1):
        if src.shape[i] != 1 and src.strides[i] != row_bytes:
            raise ValueError("gather_rows: the rows of src must be C-contiguous")
        row_bytes *= src.shape[i]
    rows = <const cnp.int64_t*> cnp.PyArray_DATA(index)
    for i in range(m):
        if rows[i] < 0 or rows[i] >= n:
            raise IndexError(f"gather_rows: index[{i}] = {rows[i]} is out of range for {n} rows")
    stride = src.strides[0]
    source = <const char*> cnp.PyArray_DATA(src)
    target = <char*> cnp.PyArray_DATA(out)
    if m == 0 or row_bytes == 0:
        return
    paced = not serial and m * row_bytes >= SERIAL_BELOW
    team = pace.choose(m * row_bytes, SERIAL_BELOW) if paced else 1
    if m * row_bytes < GIL_BELOW:
        copy_rows(source, stride, rows, 0, m, row_bytes, target)
    elif team == 1:
        with nogil:
            copy_rows(source, stride, rows, 0, m, row_bytes, target)
    else:
        with nogil:
            for t in prange(team, schedule="static", chunksize=1, num_threads=team):
                copy_rows(source, stride, rows, t * m // team, (t + 1) * m // team, row_bytes, target)
    if paced:
        pace.done(m * row_bytes)
