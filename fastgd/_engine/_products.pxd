"""Lines of a gradient that is a product of factors, a tile of the right one at a time, which stays in the
cache over all lines.

Each element is the sum over the samples in their order: bits do not depend on how it is cut.
"""

from fastgd._engine._runs cimport convert_run
from fastgd._engine._work cimport BAND, F64, Layout
from fastgd._engine.rules._common cimport floating

cdef extern from "product.h" nogil:
    void fastgd_product_f32(float*, Py_ssize_t, const float*, Py_ssize_t, const float*, Py_ssize_t,
                            Py_ssize_t, Py_ssize_t, Py_ssize_t, bint)
    void fastgd_product_f64(double*, Py_ssize_t, const double*, Py_ssize_t, const double*, Py_ssize_t,
                            Py_ssize_t, Py_ssize_t, Py_ssize_t, bint)

cdef enum:
    SAMPLES = 32   # that are summed at a time
    COLUMNS = 128  # of a tile


cdef inline void multiply(const Layout* layout, Py_ssize_t line, Py_ssize_t lines, Py_ssize_t step,
                          floating* out) noexcept nogil:
    """Lines `line` … `line` + `lines`, at most BAND, of the product, `step` elements apart."""
    cdef floating weights[BAND * SAMPLES]
    cdef floating tile[SAMPLES * COLUMNS]
    cdef Py_ssize_t width = layout.shape[1], size = 8 if layout.format == F64 else 4
    cdef Py_ssize_t sample = 0, samples, column, columns, i, k
    while sample < layout.samples:
        samples = min(layout.samples - sample, <Py_ssize_t> SAMPLES)
        for i in range(lines):
            for k in range(samples):
                weights[i * SAMPLES + k] = <floating> layout.left[(line + i) * layout.samples + sample + k]
        column = 0
        while column < width:
            columns = min(width - column, <Py_ssize_t> COLUMNS)
            for k in range(samples):
                convert_run(layout.format, layout.data + ((sample + k) * width + column) * size, size,
                            columns, &tile[k * COLUMNS])
            if floating is float:
                fastgd_product_f32(out + column, step, &tile[0], COLUMNS, &weights[0], SAMPLES, lines,
                                   samples, columns, sample == 0)
            else:
                fastgd_product_f64(out + column, step, &tile[0], COLUMNS, &weights[0], SAMPLES, lines,
                                   samples, columns, sample == 0)
            column += columns
        sample += samples
