from numpy cimport ndarray

from fastgd._engine._work cimport (
    MOST_STREAMS,
    MOST_SUMS,
    Kernels,
    Layout,
    Source,
    Span,
    Sweep,
    Touched,
    Work,
)

cdef const Kernels* active() noexcept
cpdef object only_tree(object spec, object grads)
cdef bint same_shape(ndarray array, ndarray param) noexcept
cdef bint same_order(ndarray array, ndarray param) noexcept

# What a gradient needs that is not an array as its rule takes it.
cdef struct Part:
    Source source   # of a sum's part
    Layout layout
    Touched touched

cdef class Binding:
    cdef readonly list params, names
    cdef list held            # the arrays of the current step's gradients, a list of those of a sum
    cdef list rows_of         # what those touch that are of some rows only, see _arrays/gradients.py
    cdef tuple specs
    cdef ndarray partials
    cdef Span* spans
    cdef Part** parts         # of the gradients that needed some so far
    cdef Py_ssize_t* part_counts
    cdef ndarray scratch      # for bands, see _codecs.pxd
    cdef Py_ssize_t* first    # see Work; the memory of both is for gradients of all elements
    cdef Py_ssize_t* piece
    cdef double* squares      # of each gradient, times a scale's square
    cdef size_t[::1] sorted_lows, sorted_highs
    cdef Py_ssize_t[::1] sorted_params
    cdef Py_ssize_t count, elements, group_count
    cdef bint windowed        # some arrays lie in files, and sweeps go over them a part at a time
    cdef Work work

    cdef int cut_into_chunks(self) noexcept
    cdef int sort_addresses(self, list state) except -1
    cdef int collect(self, grads) except -1
    cdef int bind(self) except -1
    cdef int release(self) except -1
    cdef bint is_wide(self, Py_ssize_t i) noexcept
    cdef Py_ssize_t walk(self, object spec, object node, Py_ssize_t leaf) except -1
    cdef object structure_error(self, Py_ssize_t leaf, str expected, object node)
    cdef Part* parts_of(self, Py_ssize_t i, Py_ssize_t count) except NULL
    cdef int hold(self, Py_ssize_t leaf, object node) except -1
    cdef int bind_leaf(self, Py_ssize_t i, ndarray array) except -1
    cdef int bind_rows(self, Py_ssize_t i, ndarray values, tuple touched) except -1
    cdef int bind_product(self, Py_ssize_t i, Layout* layout, ndarray right, ndarray left) except -1
    cdef int bind_sum(self, Py_ssize_t i, list arrays, list touched) except -1
    cdef int describe_rows(self, Touched* rows, tuple touched) except -1
    cdef int bind_layout(self, Py_ssize_t i, Layout* layout, ndarray array, ndarray like) except -1
    cdef int choose_band(self, Layout* layout) noexcept
    cdef int make_scratch(self, int team) except -1
    cdef int check_overlap(self, Py_ssize_t i, size_t low, size_t high) except -1
    cdef int sweep(self, Sweep what, int team) except -1
    cdef int add_pieces(self, Py_ssize_t which, double* out) except -1
    cdef double gradient_norm(self, int team) except? -1
    cdef double sum_squares(self, double scale, int team) except? -1
