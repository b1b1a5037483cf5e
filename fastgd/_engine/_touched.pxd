"""The form of a gradient that touches some rows: sums of its values, and blocks of memory for a rule.

Elements are counted along the rows that are touched, one after another: element `at` is column
at % width of row number numbers[at // width].
"""

from libc.string cimport memset

from fastgd._engine._codecs cimport decode, decode_scaled
from fastgd._engine._work cimport BF16, BLOCK, Source, Span, Touched
from fastgd._engine.rules._common cimport floating

cdef extern from "rows.h" nogil:
    void fastgd_add_f32(float*, const float*, Py_ssize_t)
    void fastgd_add_f64(double*, const double*, Py_ssize_t)
    void fastgd_sum_f32(float*, const float*, const float*, Py_ssize_t)
    void fastgd_sum_f64(double*, const double*, const double*, Py_ssize_t)
    void fastgd_times_f32(float*, float, const float*, Py_ssize_t)
    void fastgd_times_f64(double*, double, const double*, Py_ssize_t)
    void fastgd_add_times_f32(float*, float, const float*, Py_ssize_t)
    void fastgd_add_times_f64(double*, double, const double*, Py_ssize_t)
    void fastgd_copy_f32(float*, const float*, Py_ssize_t)
    void fastgd_copy_f64(double*, const double*, Py_ssize_t)

cdef extern from "numeric.h" nogil:
    void FASTGD_PREFETCH(const void*)

cdef enum:
    SEVERAL = 512  # elements: narrower rows are updated several at a time in blocks of so many
    AHEAD = 8      # values that are asked for before they are summed
    ROWS_AHEAD = 16  # rows that are asked for before they are taken
    LINE = 64      # bytes of a line of cache


cdef inline void copy(floating* out, const floating* x, Py_ssize_t n) noexcept nogil:
    if floating is float:
        fastgd_copy_f32(out, x, n)
    else:
        fastgd_copy_f64(out, x, n)


cdef inline void add(floating* out, const floating* x, Py_ssize_t n) noexcept nogil:
    if floating is float:
        fastgd_add_f32(out, x, n)
    else:
        fastgd_add_f64(out, x, n)


cdef inline void add_two(floating* out, const floating* x, const floating* y, Py_ssize_t n) noexcept nogil:
    if floating is float:
        fastgd_sum_f32(out, x, y, n)
    else:
        fastgd_sum_f64(out, x, y, n)


cdef inline void add_times(floating* out, double weight, const floating* x, Py_ssize_t n,
                           bint first) noexcept nogil:
    """out += weight * x, or the first of the sum in place of it."""
    if floating is float:
        if first:
            fastgd_times_f32(out, <float> weight, x, n)
        else:
            fastgd_add_times_f32(out, <float> weight, x, n)
    else:
        if first:
            fastgd_times_f64(out, weight, x, n)
        else:
            fastgd_add_times_f64(out, weight, x, n)


cdef inline void fetch_row(const char* row, Py_ssize_t nbytes) noexcept nogil:
    cdef Py_ssize_t i = 0
    while i < nbytes:
        FASTGD_PREFETCH(row + i)
        i += LINE


cdef inline void fetch_rows(floating* p, const Span* span, int streams, Py_ssize_t at,
                            Py_ssize_t end) noexcept nogil:
    """Ask for the memory of elements at … end, which come soon."""
    cdef const Touched* touched = span.source.touched
    cdef Py_ssize_t size = min(touched.width, <Py_ssize_t> BLOCK) * <Py_ssize_t> sizeof(floating)
    cdef Py_ssize_t row = at // touched.width, offset
    cdef int i, half
    while row * touched.width < end:
        offset = touched.numbers[row] * touched.width
        fetch_row(<const char*> (p + offset), size)
        for i in range(streams):
            if span.state[i].data != NULL:
                half = 1 if span.state[i].format >= BF16 else 0  # of a format of fewer bits
                fetch_row(span.state[i].data + (offset * <Py_ssize_t> sizeof(floating) >> half), size >> half)
        row += 1


cdef inline const floating* where(const Source* source, Py_ssize_t place, Py_ssize_t column,
                                  const floating* kind) noexcept nogil:
    """Where the values of one place lie that need no decoding. `kind` only carries the type."""
    return (<const floating*> source.grad) + place * source.touched.width + column


cdef inline const floating* values_of(const Source* source, Py_ssize_t place, Py_ssize_t column, double scale,
                                      Py_ssize_t n, floating* scratch) noexcept nogil:
    """n values of one place: where they lie, or decoded and scaled."""
    cdef Py_ssize_t at = place * source.touched.width + column
    if source.layout == NULL:
        return where(source, place, column, <const floating*> scratch)
    if scale == 1:
        decode(NULL, source.layout, at, n, scratch)
    else:
        decode_scaled(NULL, source.layout, scale, at, n, scratch)
    return scratch


cdef inline const floating* row_gradient(const Source* source, Py_ssize_t row, Py_ssize_t column,
                                         double scale, Py_ssize_t n, floating* out) noexcept nogil:
    """n elements of the gradient of one row: where they lie, or summed into `out`."""
    cdef const Touched* touched = source.touched
    cdef floating part[BLOCK]
    cdef const floating* values
    cdef Py_ssize_t begin = touched.starts[row], end = touched.starts[row + 1], j, i
    cdef Py_ssize_t last = touched.starts[touched.count]
    if begin == end:
        memset(out, 0, n * sizeof(floating))
        return out
    for j in range(begin, end):
        if source.layout == NULL and touched.weights == NULL and j + AHEAD < last:
            fetch_row(<const char*> where(source, touched.places[j + AHEAD], column, <const floating*> out),
                      n * <Py_ssize_t> sizeof(floating))
        values = values_of(source, touched.places[j], column, scale, n, &part[0])
        if touched.weights != NULL:
            add_times(out, touched.weights[j], values, n, j == begin)
        elif j > begin:
            add(out, values, n)
        elif begin + 1 == end and source.layout == NULL and scale == 1:
            return where(source, touched.places[j], column, <const floating*> out)
        else:
            copy(out, values, n)
    if scale != 1 and source.layout == NULL:
        for i in range(n):
            out[i] = <floating> (out[i] * scale)
    return out


cdef inline void gradient_block(const Source* source, Py_ssize_t at, double scale, Py_ssize_t n,
                                floating* out) noexcept nogil:
    """n elements from `at` on, of as many rows as it takes."""
    cdef Py_ssize_t width = source.touched.width, row = at // width, column = at % width, m
    cdef const floating* part
    while n > 0:
        m = min(width - column, n)
        part = row_gradient(source, row, column, scale, m, out)
        if part != out:
            copy(out, part, m)
        out, n, row, column = out + m, n - m, row + 1, 0


cdef inline void take_block(const Touched* touched, const floating* array, Py_ssize_t at, Py_ssize_t n,
                            floating* out) noexcept nogil:
    """The n elements of an array of the parameter's size that belong to those of the gradient; of each
    row as it is taken the memory of one that comes later is asked for, no more at a time than is pending.
    """
    cdef Py_ssize_t row = at // touched.width, column = at % touched.width, m
    while n > 0:
        m = min(touched.width - column, n)
        if row + ROWS_AHEAD < touched.count:
            fetch_row(<const char*> (array + touched.numbers[row + ROWS_AHEAD] * touched.width),
                      touched.width * <Py_ssize_t> sizeof(floating))
        copy(out, array + touched.numbers[row] * touched.width + column, m)
        out, n, row, column = out + m, n - m, row + 1, 0


cdef inline void put_block(const Touched* touched, floating* array, Py_ssize_t at, Py_ssize_t n,
                           const floating* block) noexcept nogil:
    """The way back."""
    cdef Py_ssize_t row = at // touched.width, column = at % touched.width, m
    while n > 0:
        m = min(touched.width - column, n)
        copy(array + touched.numbers[row] * touched.width + column, block, m)
        block, n, row, column = block + m, n - m, row + 1, 0
