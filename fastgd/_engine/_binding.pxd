from numpy cimport ndarray

from fastgd._engine._work cimport MOST_STREAMS, MOST_SUMS, Kernels, Layout, Span, Sweep, Touched, Work

cdef const Kernels* active() noexcept
cpdef object only_tree(object spec, object grads)
cdef bint same_shape(ndarray array, ndarray param) noexcept
cdef bint same_order(ndarray array, ndarray param) noexcept

cdef class Binding:
    cdef readonly list params, names
    cdef list held            # the gradients of the current step, kept alive
    cdef list rows_of         # what those touch that are of some rows only, see _arrays/gradients.py
    cdef tuple specs
    cdef ndarray partials
    cdef Span* spans
    cdef Layout** layouts     # of the gradients that needed one so far
    cdef Touched* touches     # of the gradients that are of some rows
    cdef Py_ssize_t* first    # see Work; the memory of both is for gradients of all elements
    cdef Py_ssize_t* piece
    cdef double* squares      # of each gradient, times a scale's square
    cdef size_t[::1] sorted_lows, sorted_highs
    cdef Py_ssize_t[::1] sorted_params
    cdef Py_ssize_t count, elements, group_count
    cdef Work work

    cdef int cut_into_chunks(self) noexcept
    cdef int sort_addresses(self, list state) except -1
    cdef int collect(self, grads) except -1
    cdef int bind(self) except -1
    cdef int release(self) except -1
    cdef bint has_gradient(self, Py_ssize_t i) noexcept
    cdef bint is_wide(self, Py_ssize_t i) noexcept
    cdef Py_ssize_t walk(self, object spec, object node, Py_ssize_t leaf) except -1
    cdef object structure_error(self, Py_ssize_t leaf, str expected, object node)
    cdef int bind_leaf(self, Py_ssize_t i, ndarray array) except -1
    cdef int bind_rows(self, Py_ssize_t i, ndarray values, tuple touched) except -1
    cdef int bind_layout(self, Py_ssize_t i, ndarray array) except -1
    cdef int check_overlap(self, Py_ssize_t i, size_t low, size_t high) except -1
    cdef int sweep(self, Sweep what, int team) except -1
    cdef int add_pieces(self, Py_ssize_t which, double* out) except -1
    cdef double gradient_norm(self, int team) except? -1
    cdef double sum_squares(self, double scale, int team) except? -1
