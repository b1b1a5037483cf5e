"""Elements of any storage format as a rule takes them."""

from fastgd._engine._work cimport F16, F32, F64, Format
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
