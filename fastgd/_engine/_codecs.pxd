"""Codecs: how a gradient of any layout and storage format becomes a contiguous block for a rule.

A rule sees float32 or float64 only. A gradient that already is a contiguous array of the parameter's
dtype is handed to the rule where it lies; any other has a `Layout`, and the kernel decodes it block by
block into a buffer on its stack that stays in the L1 cache. n rules and m formats are n + m functions.
"""

from fastgd._engine._work cimport BF16, BLOCK, F16, F32, F64, MAX_DIMS, Format, Layout
from fastgd._engine.rules._common cimport floating

cdef extern from "numeric.h" nogil:
    float fastgd_load_f16(const char*)
    float fastgd_load_bf16(const char*)
    float fastgd_load_f32(const char*)
    double fastgd_load_f64(const char*)

cdef inline void convert_run(Format format, const char* src, Py_ssize_t stride, Py_ssize_t n,
                             floating* out) noexcept nogil:
    """n elements `stride` bytes apart; a constant stride lets the compiler vectorise the loads."""
    cdef Py_ssize_t i
    if format == F32:
        if stride == 4:
            for i in range(n):
                out[i] = <floating> fastgd_load_f32(src + i * 4)
        else:
            for i in range(n):
                out[i] = <floating> fastgd_load_f32(src + i * stride)
    elif format == F64:
        if stride == 8:
            for i in range(n):
                out[i] = <floating> fastgd_load_f64(src + i * 8)
        else:
            for i in range(n):
                out[i] = <floating> fastgd_load_f64(src + i * stride)
    elif format == F16:
        if stride == 2:
            for i in range(n):
                out[i] = <floating> fastgd_load_f16(src + i * 2)
        else:
            for i in range(n):
                out[i] = <floating> fastgd_load_f16(src + i * stride)
    else:
        if stride == 2:
            for i in range(n):
                out[i] = <floating> fastgd_load_bf16(src + i * 2)
        else:
            for i in range(n):
                out[i] = <floating> fastgd_load_bf16(src + i * stride)


cdef inline void decode(const Layout* layout, Py_ssize_t begin, Py_ssize_t n,
                        floating* out) noexcept nogil:
    """Elements begin … begin+n of the walk over `layout`, into `out`."""
    cdef Py_ssize_t index[MAX_DIMS]
    cdef Py_ssize_t rest = begin, done = 0, run
    cdef int last = layout.ndim - 1, axis
    cdef const char* src = layout.data
    for axis in range(last, -1, -1):
        index[axis] = rest % layout.shape[axis]
        rest = rest // layout.shape[axis]
        src += index[axis] * layout.strides[axis]
    while True:
        run = min(layout.shape[last] - index[last], n - done)
        convert_run(layout.format, src, layout.strides[last], run, out + done)
        done += run
        if done == n:
            return
        # The run ended at the end of the fastest axis: carry into the slower ones.
        src -= index[last] * layout.strides[last]
        index[last] = 0
        axis = last - 1
        while True:
            index[axis] += 1
            src += layout.strides[axis]
            if index[axis] < layout.shape[axis]:
                break
            src -= index[axis] * layout.strides[axis]
            index[axis] = 0
            axis -= 1


cdef inline void decode_scaled(const Layout* layout, double scale, Py_ssize_t begin, Py_ssize_t n,
                               floating* out) noexcept nogil:
    """The same times `scale`, multiplied in double precision and rounded once."""
    cdef double wide[BLOCK]
    cdef Py_ssize_t i
    decode(layout, begin, n, &wide[0])
    for i in range(n):
        out[i] = <floating> (wide[i] * scale)
