"""Codecs: how a gradient of any layout and storage format becomes a contiguous block for a rule.

A rule sees float32 or float64 only. A gradient that already is a contiguous array of the parameter's
dtype is handed to the rule where it lies; any other has a `Layout`, and the kernel decodes it block by
block into a buffer on its stack that stays in the L1 cache. n rules and m formats are n + m functions.

Of an array whose memory runs across the lines of the parameter's, as in Fortran against C order, each
element of a line lies in another line of cache. It is turned a band at a time: so many lines that what
is fetched is used, decoded into scratch that belongs to the thread. A product of factors is formed in the
same way, a band at a time.
"""

from libc.string cimport memcpy

from fastgd._engine._products cimport multiply
from fastgd._engine._runs cimport convert_run
from fastgd._engine._work cimport BAND, BAND_PAD, BLOCK, MAX_DIMS, Band, Format, Layout
from fastgd._engine.rules._common cimport floating

cdef extern from "numeric.h" nogil:
    void FASTGD_PREFETCH(const void*)

cdef extern from "turn.h" nogil:
    void fastgd_turn_f32(const float*, Py_ssize_t, float*, Py_ssize_t, Py_ssize_t, Py_ssize_t)
    void fastgd_turn_f64(const double*, Py_ssize_t, double*, Py_ssize_t, Py_ssize_t, Py_ssize_t)

cdef enum:
    TILE = 16  # elements of a line that are turned at a time

cdef inline void walk(const Layout* layout, Py_ssize_t begin, Py_ssize_t n, floating* out) noexcept nogil:
    """Elements begin … begin+n of the walk over `layout`, into `out`, one line after another."""
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


cdef inline void turn(const char* src, Format format, Py_ssize_t along, Py_ssize_t across, Py_ssize_t lines,
                      Py_ssize_t length, floating* out) noexcept nogil:
    """Lines, whose elements are `along` bytes apart and which are `across` bytes apart themselves."""
    cdef floating tile[TILE * BAND]
    cdef Py_ssize_t j = 0, k, m, i
    while j < length:
        m = min(length - j, <Py_ssize_t> TILE)
        for k in range(m):
            if j + k + TILE < length:
                i = 0
                while i < lines:
                    FASTGD_PREFETCH(src + (j + k + TILE) * along + i * across)
                    i += 16
            convert_run(format, src + (j + k) * along, across, lines, &tile[k * BAND])
        if floating is float:
            fastgd_turn_f32(&tile[0], BAND, out + j, length + BAND_PAD, lines, m)
        else:
            fastgd_turn_f64(&tile[0], BAND, out + j, length + BAND_PAD, lines, m)
        j += m


cdef inline Py_ssize_t length_of(const Layout* layout) noexcept nogil:
    """Of a line."""
    return layout.shape[layout.ndim - 1]


cdef inline void fill_band(Band* band, const Layout* layout, Py_ssize_t line,
                           floating* kind) noexcept nogil:
    """Decode the band that begins with a line. `kind` only carries the type."""
    cdef int last = layout.ndim - 1, axis
    cdef Py_ssize_t rest = line, lines = 0, index
    cdef const char* src = layout.data
    for axis in range(last - 1, -1, -1):
        index = rest % layout.shape[axis]
        if axis == last - 1:
            lines = min(layout.band, layout.shape[axis] - index)
        rest = rest // layout.shape[axis]
        src += index * layout.strides[axis]
    band.layout, band.line, band.itemsize = layout, line, sizeof(floating)
    if layout.left != NULL:
        multiply(layout, line, lines, length_of(layout) + BAND_PAD, <floating*> band.data)
        return
    turn(src, layout.format, layout.strides[last], layout.strides[last - 1], lines, layout.shape[last],
         <floating*> band.data)


cdef inline void decode(Band* bands, const Layout* layout, Py_ssize_t begin, Py_ssize_t n,
                        floating* out) noexcept nogil:
    """Elements begin … begin+n of the walk over `layout`, into `out`.

    bands: of the thread, NULL to do without.
    """
    cdef Py_ssize_t length, line, column, row, m
    cdef Band* band
    if layout.band == 0 or bands == NULL:
        walk(layout, begin, n, out)
        return
    band = &bands[layout.slot]
    length = length_of(layout)
    line, column = begin // length, begin % length
    while n > 0:
        row = line % layout.shape[layout.ndim - 2] % layout.band  # within the band
        if (band.layout != layout or band.line != line - row or band.itemsize != sizeof(floating)):
            fill_band(band, layout, line - row, out)
        m = min(length - column, n)
        memcpy(out, (<const floating*> band.data) + row * (length + BAND_PAD) + column, m * sizeof(floating))
        out, n, line, column = out + m, n - m, line + 1, 0


cdef inline void decode_scaled(Band* bands, const Layout* layout, double scale, Py_ssize_t begin,
                               Py_ssize_t n, floating* out) noexcept nogil:
    """The same times `scale`, multiplied in double precision and rounded once."""
    cdef double wide[BLOCK]
    cdef Py_ssize_t i
    decode(bands, layout, begin, n, &wide[0])
    for i in range(n):
        out[i] = <floating> (wide[i] * scale)
