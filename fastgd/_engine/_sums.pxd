"""The form of a gradient that is the sum of several, added while they are read.

All parts have a layout. They are added in their order, in the parameter's type; in double precision, and
rounded once, where one of them is float64 or the sum is scaled.
"""

from libc.string cimport memset

from fastgd._engine._codecs cimport decode, decode_scaled
from fastgd._engine._touched cimport add, add_two, row_gradient
from fastgd._engine._work cimport BLOCK, Band, Source, Touched
from fastgd._engine.rules._common cimport floating


cdef inline Py_ssize_t first_touched(const Touched* touched, Py_ssize_t row) noexcept nogil:
    """The place among the touched rows of the first that is not before `row`."""
    cdef Py_ssize_t low = 0, high = touched.count, middle
    while low < high:
        middle = (low + high) // 2
        if touched.numbers[middle] < row:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline void add_rows(const Source* part, Py_ssize_t at, Py_ssize_t n, floating* out) noexcept nogil:
    """Add elements at … at+n of a gradient of some rows."""
    cdef const Touched* touched = part.touched
    cdef Py_ssize_t width = touched.width, i = first_touched(touched, at // width), begin, end
    cdef floating scratch[BLOCK]
    while i < touched.count and touched.numbers[i] * width < at + n:
        begin = max(touched.numbers[i] * width, at)
        end = min((touched.numbers[i] + 1) * width, at + n)
        add(out + (begin - at),
            row_gradient(part, i, begin - touched.numbers[i] * width, 1, end - begin, &scratch[0]),
            end - begin)
        i += 1


cdef inline const floating* lying(const Source* part, bint own, Py_ssize_t at,
                                  const floating* kind) noexcept nogil:
    """Where elements of a part lie that need no decoding, NULL if they do. `kind` only carries the type,
    which is the parameter's `own`, or not.
    """
    if not own or part.grad == NULL or part.touched != NULL:
        return NULL
    return (<const floating*> part.grad) + at


cdef inline void add_parts(Band* bands, const Source* part, bint own, Py_ssize_t at, Py_ssize_t n,
                           floating* out) noexcept nogil:
    """`own`: the type is the parameter's."""
    cdef floating scratch[BLOCK]
    cdef bint first = True
    cdef const floating* here
    cdef const floating* there = NULL
    while part != NULL:
        here = lying(part, own, at, <const floating*> out)
        if first and here != NULL and part.more != NULL:
            there = lying(part.more, own, at, <const floating*> out)
        if there != NULL:
            add_two(out, here, there, n)
            part, there = part.more, NULL
        elif part.touched != NULL:
            if first:
                memset(out, 0, n * sizeof(floating))
            add_rows(part, at, n, out)
        elif first:
            decode(bands, part.layout, at, n, out)
        elif here != NULL:
            add(out, here, n)
        else:
            decode(bands, part.layout, at, n, &scratch[0])
            add(out, <const floating*> &scratch[0], n)
        first = False
        part = part.more


cdef inline void add_scaled(Band* bands, const Source* part, bint wide_parts, double scale, Py_ssize_t at,
                            Py_ssize_t n, floating* out) noexcept nogil:
    """The sum of the parts times `scale`, n at most BLOCK; in double precision also of a float32
    parameter, if it has wide parts.
    """
    cdef double wide[BLOCK]
    cdef bint own = not wide_parts
    cdef Py_ssize_t i
    if scale == 1 and (floating is double or not wide_parts):
        add_parts(bands, part, own, at, n, out)
        return
    if floating is float:
        own = False
    add_parts(bands, part, own, at, n, &wide[0])
    for i in range(n):
        out[i] = <floating> (wide[i] * scale)


cdef inline void decode_any(Band* bands, const Source* source, bint wide, double scale, Py_ssize_t at,
                            Py_ssize_t n, floating* out) noexcept nogil:
    """n elements of a gradient that does not lie there as a rule takes it, times `scale`; `wide` as in
    the span.
    """
    if source.layout == NULL:
        add_scaled(bands, source.more, wide, scale, at, n, out)
    elif scale == 1:
        decode(bands, source.layout, at, n, out)
    else:
        decode_scaled(bands, source.layout, scale, at, n, out)
