"""The first half of a step: validating one set of gradients and recording where they lie.

  Binding  arrays cut into chunks, gradients bound to them, their norm.
  Plan     (_plan.pyx) adds an optimizer's state, its coefficients, and the update.
"""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.math cimport sqrt as root
from libc.stdint cimport int64_t

import numpy as np

from fastgd._arguments import describe
from fastgd._arrays.gradients import parts_of_sum
from fastgd._arrays.gradients import touched as touched_by
from fastgd._engine._runtime cimport team_size
from fastgd._engine._windows cimport sweep_windows
from fastgd._engine._work cimport (
    ALIGN,
    BAND,
    BAND_PAD,
    BF16,
    CHUNK,
    F16,
    F32,
    F64,
    GRAD_SQUARES,
    MOST_BANDS,
    MOST_SUMS,
    REDUCE,
    Format,
    Kernels,
    Layout,
    Source,
    Span,
    Sweep,
    Touched,
    is_given,
)

cnp.import_array()

cdef enum:
    SERIAL_BELOW = 262144  # elements: below, a team saves less than its threads cost the next product
    SCATTERED = 8          # times as long as another an element of a row takes that is in no cache
    FORMED = 1 << 19       # bytes of a band of a product, as doubles: it stays in a second-level cache
    MOST_BAND = 1 << 23    # bytes: longer lines have fewer of them in a band
    TURNED_FROM = 1 << 15  # bytes: a smaller array fits the cache however it lies
    GIL_BELOW = 8192       # elements: below, releasing the GIL costs more than the step

chunk = CHUNK

cdef const Kernels* kernels = NULL
cdef Py_ssize_t resident_bytes = 1 << 30


def set_resident_bytes(Py_ssize_t n):
    """How much of arrays in files may be in memory during a step, from now on."""
    global resident_bytes
    resident_bytes = n


def use(table):
    """Take the kernels of a build from now on; whether they fuse multiply and add."""
    global kernels
    kernels = <const Kernels*> PyCapsule_GetPointer(table, "fastgd kernels")
    return bool(kernels.has_fma)


cdef const Kernels* active() noexcept:
    return kernels


cpdef object only_tree(object spec, object grads):
    """The gradients of the only group, which may be a list of that group's tree."""
    if type(grads) is not list and type(grads) is not tuple or len(grads) != 1:
        return grads
    if spec is not None and (<tuple> spec)[0] is None and len((<tuple> spec)[1]) == 1:
        return grads  # of a list of one array
    return grads[0]


cdef class Binding:
    """Arrays cut into chunks, and gradients of the same structure bound to them.

    Args:
        params: arrays of the gradients' shapes, sums over which are taken in their order of memory.
        names: one for each array, for messages.
        specs: the structure of each group's gradients, from _tree.
    """

    def __cinit__(self, list params, list names, tuple specs, *args):
        cdef Py_ssize_t i, chunks = 0
        self.count = len(params)
        self.params = params
        self.names = names
        self.specs = specs
        self.group_count = len(specs)
        self.held = [None] * self.count
        self.rows_of = [None] * self.count
        self.sorted_lows = self.sorted_highs = np.empty(0, np.uintp)
        self.spans = <Span*> PyMem_Calloc(self.count + 1, sizeof(Span))
        self.parts = <Part**> PyMem_Calloc(self.count + 1, sizeof(void*))
        self.part_counts = <Py_ssize_t*> PyMem_Calloc(self.count + 1, sizeof(Py_ssize_t))
        self.squares = <double*> PyMem_Calloc(self.count + 1, sizeof(double))
        if (self.spans == NULL or self.parts == NULL or self.part_counts == NULL
                or self.squares == NULL):
            raise MemoryError
        for i in range(self.count):
            array = params[i]
            self.spans[i].param.data = <char*> cnp.PyArray_DATA(array)
            self.spans[i].param.format = F64 if array.dtype.itemsize == 8 else F32
            self.spans[i].length = self.spans[i].visited = array.size
            self.spans[i].width = array.size // max(len(array), 1) if array.ndim else 1
            self.spans[i].row = -1
            chunks += (array.size + ALIGN - 1) // ALIGN * ALIGN
        chunks = (chunks + CHUNK - 1) // CHUNK
        self.first = <Py_ssize_t*> PyMem_Calloc(chunks + 1, sizeof(Py_ssize_t))
        self.piece = <Py_ssize_t*> PyMem_Calloc(chunks + 1, sizeof(Py_ssize_t))
        if self.first == NULL or self.piece == NULL:
            raise MemoryError
        self.partials = np.zeros((MOST_SUMS, chunks + self.count + 1))
        self.work.spans = self.spans
        self.work.span_count = self.count
        self.work.first, self.work.piece = self.first, self.piece
        for i in range(MOST_SUMS):
            self.work.sums[i] = (<double*> cnp.PyArray_DATA(self.partials)) + i * self.partials.shape[1]
        self.work.scale = self.work.prescale = self.work.wide_scale = 1
        self.cut_into_chunks()

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.parts != NULL:
            for i in range(self.count):
                PyMem_Free(self.parts[i])
        PyMem_Free(self.parts)
        PyMem_Free(self.part_counts)
        PyMem_Free(self.spans)
        PyMem_Free(self.squares)
        PyMem_Free(self.first)
        PyMem_Free(self.piece)

    cdef int cut_into_chunks(self) noexcept:
        """Where every array begins, and the first span and the number of the first piece of every chunk."""
        cdef Py_ssize_t i, chunk, position = 0, span = 0, pieces = 0, weight
        self.elements = 0
        for i in range(self.count):
            self.spans[i].start = position
            weight = SCATTERED if self.spans[i].source.touched != NULL else 1
            self.elements += self.spans[i].visited * weight
            position += (self.spans[i].visited + ALIGN - 1) // ALIGN * ALIGN
        self.work.chunk_count = (position + CHUNK - 1) // CHUNK
        for chunk in range(self.work.chunk_count):
            while self.spans[span].start + self.spans[span].visited <= chunk * CHUNK:
                span += 1
            self.first[chunk], self.piece[chunk] = span, pieces
            i = span
            while i < self.count and self.spans[i].start < (chunk + 1) * CHUNK:
                i += 1
            pieces += i - span
        self.piece[self.work.chunk_count] = pieces
        return 0

    cdef int sort_addresses(self, list state) except -1:
        """The memory of parameters and state in order of address, for finding what a gradient overlaps."""
        cdef Py_ssize_t i
        cdef list occupied = []
        for i in range(self.count):
            for which, arrays in ((i, (self.params[i],)), (i + self.count, state[i])):
                for array in arrays:
                    if array is not None and cnp.PyArray_SIZE(array) > 0:
                        occupied.append((<size_t> cnp.PyArray_DATA(<cnp.ndarray> array),
                                         cnp.PyArray_NBYTES(<cnp.ndarray> array), which))
        occupied.sort()
        self.sorted_lows = np.array([low for low, _, _ in occupied], np.uintp)
        self.sorted_highs = np.array([low + size for low, size, _ in occupied], np.uintp)
        self.sorted_params = np.array([which for _, _, which in occupied], np.intp)
        return 0

    def check(self, grads):
        """Raise what a step with `grads` would, but for what its rules say of them."""
        try:
            self.collect(grads)
            self.bind()
        finally:
            self.release()

    def norm(self, grads):
        """The global norm of `grads`."""
        try:
            self.collect(grads)
            self.bind()
            return self.gradient_norm(team_size(self.elements, SERIAL_BELOW))
        finally:
            self.release()

    cdef int collect(self, grads) except -1:
        """Walk `grads` along the parameters' structure and hold their arrays.

        Whatever foreign code there is in them (`__array__`) runs here. `release` must follow.

        Raises: TypeError, ValueError naming an array.
        """
        cdef Py_ssize_t leaf = 0, group
        if self.group_count == 1:
            self.walk(self.specs[0], only_tree(self.specs[0], grads), 0)
            return 0
        if not isinstance(grads, (list, tuple)) or len(grads) != self.group_count:
            raise ValueError(
                f"gradients: expected a list of {self.group_count} trees, one for each parameter "
                f"group, got {describe(grads)}")
        for group in range(self.group_count):
            leaf = self.walk(self.specs[group], grads[group], leaf)
        return 0

    cdef int bind(self) except -1:
        """Validate the gradients that are held, and record where they lie; writes no array.

        No foreign code runs from here to the end of the step, so nothing can be resized or moved.

        Raises: TypeError, ValueError naming the array.
        """
        cdef Py_ssize_t i, visited
        cdef bint moved = False
        cdef Source* source
        for i in range(self.count):
            source = &self.spans[i].source
            visited = self.spans[i].length
            source.more = NULL
            if self.held[i] is None:
                source.grad, source.layout = NULL, NULL
            elif type(self.held[i]) is list:
                self.bind_sum(i, <list> self.held[i], <list> self.rows_of[i])
            elif self.rows_of[i] is None:
                self.bind_leaf(i, <cnp.ndarray> self.held[i])
                source.touched = NULL
            else:
                self.bind_rows(i, <cnp.ndarray> self.held[i], <tuple> self.rows_of[i])
                if source.touched != NULL:
                    visited = source.touched.count * source.touched.width
            if visited != self.spans[i].visited:
                self.spans[i].visited, moved = visited, True
        if moved:
            self.cut_into_chunks()
        return 0

    cdef int release(self) except -1:
        """Drop the references to the gradients of the step."""
        cdef Py_ssize_t i
        for i in range(self.count):
            self.held[i] = self.rows_of[i] = None
        return 0

    cdef inline bint is_wide(self, Py_ssize_t i) noexcept:
        """Whether the held gradient, or a part of it, is float64 and its parameter float32."""
        if self.held[i] is None or self.spans[i].param.format != F32:
            return False
        if type(self.held[i]) is list:
            for array in <list> self.held[i]:
                if cnp.PyArray_TYPE(<cnp.ndarray> array) == cnp.NPY_DOUBLE:
                    return True
            return False
        return cnp.PyArray_TYPE(<cnp.ndarray> self.held[i]) == cnp.NPY_DOUBLE

    @cython.boundscheck(True)  # a leaf's __array__ may change the caller's list
    cdef Py_ssize_t walk(self, object spec, object node, Py_ssize_t leaf) except -1:
        """Hold the leaves of `node` from number `leaf` on; the number of the next one."""
        cdef tuple keys, children
        cdef Py_ssize_t i, n
        if spec is None:
            if node is None or cnp.PyArray_CheckExact(node):
                self.rows_of[leaf] = None
                self.held[leaf] = node
                if node is not None:
                    learn_dtype(<cnp.ndarray> node)
            else:
                self.hold(leaf, node)
            self.spans[leaf].wide = self.is_wide(leaf)
            return leaf + 1
        keys, children = <tuple> spec
        n = len(children)
        if node is None:
            for i in range(n):
                leaf = self.walk(children[i], None, leaf)
        elif keys is None:
            if not isinstance(node, (list, tuple)) or len(node) != n:
                raise self.structure_error(leaf, f"a sequence of length {n}", node)
            for i in range(n):
                leaf = self.walk(children[i], node[i], leaf)
        else:
            if not isinstance(node, dict) or len(<dict> node) != n:
                raise self.structure_error(leaf, f"a dict with the keys {list(keys)}", node)
            for i in range(n):
                if keys[i] not in <dict> node:
                    raise self.structure_error(leaf, f"a dict with the keys {list(keys)}", node)
                leaf = self.walk(children[i], (<dict> node)[keys[i]], leaf)
        return leaf

    cdef int hold(self, Py_ssize_t leaf, object node) except -1:
        """Hold a gradient that is no plain array."""
        name, param = self.names[leaf], np.asarray(self.params[leaf])
        cdef list arrays = [], rows = []
        for part in parts_of_sum(node):
            touched = touched_by(name, part, param)
            array = as_array(name, part) if touched is None else np.asarray(touched[0])
            learn_dtype(<cnp.ndarray> array)
            arrays.append(array)
            rows.append(touched)
        if len(arrays) > 1:
            self.held[leaf], self.rows_of[leaf] = arrays, rows
        else:
            self.held[leaf], self.rows_of[leaf] = arrays[0], rows[0]
        return 0

    cdef object structure_error(self, Py_ssize_t leaf, str expected, object node):
        where = f"around {self.names[leaf]!r}" if leaf < self.count else "at an empty container"
        return ValueError(
            f"gradients: the structure differs from the parameters' {where}: expected {expected}, "
            f"got {describe(node)}")

    cdef Part* parts_of(self, Py_ssize_t i, Py_ssize_t count) except NULL:
        """Memory for so many parts of a gradient, which stays."""
        if self.part_counts[i] < count:
            self.spans[i].source.layout, self.spans[i].source.touched = NULL, NULL
            PyMem_Free(self.parts[i])
            self.part_counts[i] = 0
            self.parts[i] = <Part*> PyMem_Calloc(count, sizeof(Part))
            if self.parts[i] == NULL:
                raise MemoryError
            self.part_counts[i] = count
        return self.parts[i]

    cdef int bind_leaf(self, Py_ssize_t i, cnp.ndarray array) except -1:
        cdef Source* source = &self.spans[i].source
        cdef cnp.ndarray param = <cnp.ndarray> self.params[i]
        cdef size_t address = <size_t> cnp.PyArray_DATA(array)
        if not same_shape(array, param):
            raise ValueError(
                f"gradient {self.names[i]!r} has shape {(<object> array).shape}, its parameter has "
                f"{(<object> param).shape}")
        if lies_as(array, param, self.spans[i].param.format):
            if address != <size_t> source.grad:  # where the last one lay, which overlapped nothing
                self.check_overlap(i, address, address + cnp.PyArray_NBYTES(array))
            source.grad, source.layout = <const char*> address, NULL
        else:
            self.bind_layout(i, &self.parts_of(i, 1).layout, array, param)
            source.grad, source.layout = NULL, &self.parts[i].layout
        return 0

    cdef int bind_rows(self, Py_ssize_t i, cnp.ndarray values, tuple touched) except -1:
        """Record a gradient of some rows, whose numbers are checked."""
        cdef Source* source = &self.spans[i].source
        cdef Part* part = self.parts_of(i, 1)
        cdef size_t address = <size_t> cnp.PyArray_DATA(values)
        if touched[6]:
            self.bind_product(i, &part.layout, values, <cnp.ndarray> touched[4])
            source.grad, source.layout, source.touched = NULL, &part.layout, NULL
            return 0
        self.describe_rows(&part.touched, touched)
        source.touched = &part.touched
        if (format_of(values) == <int> self.spans[i].param.format
                and cnp.PyArray_CHKFLAGS(values, cnp.NPY_ARRAY_CARRAY_RO)):
            self.check_overlap(i, address, address + cnp.PyArray_NBYTES(values))
            source.grad, source.layout = <const char*> address, NULL
        else:
            self.bind_layout(i, &part.layout, values, None)
            source.grad, source.layout = NULL, &part.layout
        return 0

    cdef int bind_product(self, Py_ssize_t i, Layout* layout, cnp.ndarray right, cnp.ndarray left) except -1:
        """Record a product of factors, both in C order: the left one transposed, in double."""
        cdef Py_ssize_t samples = cnp.PyArray_DIMS(right)[0], width = cnp.PyArray_DIMS(right)[1]
        cdef Py_ssize_t size = (width + BAND_PAD) * <Py_ssize_t> sizeof(double)
        cdef size_t address = <size_t> cnp.PyArray_DATA(right)
        self.check_overlap(i, address, address + cnp.PyArray_NBYTES(right))
        layout.data, layout.format = <const char*> address, <Format> format_of(right)
        layout.left, layout.samples = <const double*> cnp.PyArray_DATA(left), samples
        layout.ndim, layout.slot = 2, 0
        layout.shape[0], layout.shape[1] = self.spans[i].length // max(width, 1), width
        layout.strides[0] = layout.strides[1] = 0
        layout.band = max(min(<Py_ssize_t> BAND, FORMED // size), <Py_ssize_t> 1)
        self.work.band_size = max(self.work.band_size, <size_t> (layout.band * size))
        return 0

    cdef int bind_sum(self, Py_ssize_t i, list arrays, list touched) except -1:
        """Record a gradient that is the sum of several, of which one is of all elements."""
        cdef Py_ssize_t k, count = len(arrays)
        cdef Part* parts = self.parts_of(i, count)
        cdef cnp.ndarray param = <cnp.ndarray> self.params[i]
        for k in range(count):
            parts[k].source.grad = NULL
            parts[k].source.layout = &parts[k].layout
            parts[k].source.touched = NULL
            parts[k].source.more = &parts[k + 1].source if k + 1 < count else NULL
            if touched[k] is not None:
                self.describe_rows(&parts[k].touched, <tuple> touched[k])
                parts[k].source.touched = &parts[k].touched
                self.bind_layout(i, &parts[k].layout, <cnp.ndarray> arrays[k], None)
                continue
            if not same_shape(<cnp.ndarray> arrays[k], param):
                raise ValueError(
                    f"gradient {self.names[i]!r} is a sum, of which part {k} has shape "
                    f"{arrays[k].shape}; its parameter has {(<object> param).shape}")
            self.bind_layout(i, &parts[k].layout, <cnp.ndarray> arrays[k], param)
            if lies_as(<cnp.ndarray> arrays[k], param, self.spans[i].param.format):
                parts[k].source.grad = <const char*> cnp.PyArray_DATA(<cnp.ndarray> arrays[k])
            parts[k].layout.slot = <int> k
            if k >= MOST_BANDS:
                parts[k].layout.band = 0
        self.spans[i].source.grad, self.spans[i].source.layout = NULL, NULL
        self.spans[i].source.touched, self.spans[i].source.more = NULL, &parts[0].source
        return 0

    cdef int describe_rows(self, Touched* rows, tuple touched) except -1:
        rows.numbers = <const int64_t*> cnp.PyArray_DATA(<cnp.ndarray?> touched[1])
        rows.starts = <const int64_t*> cnp.PyArray_DATA(<cnp.ndarray?> touched[2])
        rows.places = <const int64_t*> cnp.PyArray_DATA(<cnp.ndarray?> touched[3])
        rows.weights = NULL
        if touched[4] is not None:
            rows.weights = <const double*> cnp.PyArray_DATA(<cnp.ndarray?> touched[4])
        rows.count, rows.width = cnp.PyArray_SIZE(<cnp.ndarray> touched[1]), touched[5]
        return 0

    cdef int bind_layout(self, Py_ssize_t i, Layout* layout, cnp.ndarray array, cnp.ndarray like) except -1:
        """Record an array that must be decoded: another dtype, order, stride or alignment.

        like: the parameter, in whose order it is walked; None for C order, without bands.
        """
        cdef int format = format_of(array), axis, dims = 0, ndim = cnp.PyArray_NDIM(array)
        cdef bint reverse = (like is not None and cnp.PyArray_CHKFLAGS(like, cnp.NPY_ARRAY_F_CONTIGUOUS)
                             and not cnp.PyArray_CHKFLAGS(like, cnp.NPY_ARRAY_C_CONTIGUOUS))
        cdef Py_ssize_t size, stride
        cdef size_t low = <size_t> cnp.PyArray_DATA(array), high = low + cnp.PyArray_ITEMSIZE(array)
        if format < 0:
            raise TypeError(
                f"gradient {self.names[i]!r} has dtype {(<object> array).dtype.str}; expected float16, "
                "float32, float64 or bfloat16 in native byte order: convert it with .astype()")
        layout.data = <const char*> low
        layout.format = <Format> format
        layout.shape[0], layout.strides[0] = 1, 0
        layout.band, layout.slot, layout.left = 0, 0, NULL
        for axis in (range(ndim - 1, -1, -1) if reverse else range(ndim)):
            size, stride = cnp.PyArray_DIMS(array)[axis], cnp.PyArray_STRIDES(array)[axis]
            if size == 1:
                continue
            if stride < 0:
                low += (size - 1) * stride
            else:
                high += (size - 1) * stride
            if dims > 0 and layout.strides[dims - 1] == size * stride:
                layout.shape[dims - 1] *= size
                layout.strides[dims - 1] = stride
            else:
                layout.shape[dims], layout.strides[dims] = size, stride
                dims += 1
        layout.ndim = max(dims, 1)
        if self.spans[i].length > 0:
            self.check_overlap(i, low, high)
            if like is not None and high - low > TURNED_FROM:
                self.choose_band(layout)
        return 0

    cdef int choose_band(self, Layout* layout) noexcept:
        """Whether an array is turned, and how many lines at a time."""
        cdef Py_ssize_t length, lines, size
        if layout.ndim < 2:
            return 0
        length, lines = layout.shape[layout.ndim - 1], layout.shape[layout.ndim - 2]
        if abs(layout.strides[layout.ndim - 1]) <= abs(layout.strides[layout.ndim - 2]):
            return 0
        size = (length + BAND_PAD) * <Py_ssize_t> sizeof(double)
        lines = min(min(lines, <Py_ssize_t> BAND), MOST_BAND // size)
        if lines > 1:
            layout.band = lines
            self.work.band_size = max(self.work.band_size, <size_t> (lines * size))
        return 0

    cdef int make_scratch(self, int team) except -1:
        """Memory for the bands of all threads of a team."""
        cdef Py_ssize_t size = team * MOST_BANDS * <Py_ssize_t> self.work.band_size
        if self.scratch is None or cnp.PyArray_NBYTES(self.scratch) < size:
            self.work.scratch = NULL
            self.scratch = np.empty(size, np.uint8)
        self.work.scratch = <char*> cnp.PyArray_DATA(self.scratch)
        return 0

    cdef int check_overlap(self, Py_ssize_t i, size_t low, size_t high) except -1:
        """Refuse a gradient in the memory of a parameter: the update would read what it wrote."""
        cdef Py_ssize_t left = 0, right = self.sorted_lows.shape[0], middle
        while left < right:  # the number of parameters that begin before `high`
            middle = (left + right) // 2
            if self.sorted_lows[middle] < high:
                left = middle + 1
            else:
                right = middle
        if low < high and left > 0 and self.sorted_highs[left - 1] > low:
            which = self.sorted_params[left - 1]
            kind = "parameter" if which < self.count else "the state of parameter"
            raise ValueError(
                f"gradient {self.names[i]!r} overlaps the memory of {kind} "
                f"{self.names[which % self.count]!r}; pass a copy of the gradient")
        return 0

    # --- the norm ---

    cdef int sweep(self, Sweep what, int team) except -1:
        if self.work.band_size > 0:
            self.make_scratch(team)
        cdef Work* work = &self.work
        work.begin, work.end = 0, work.chunk_count
        if self.windowed:
            with nogil:
                sweep_windows(kernels, work, what, team, resident_bytes)
        elif team == 1 and self.elements < GIL_BELOW:
            kernels.sweep(work, what, 1)
        else:
            with nogil:
                kernels.sweep(work, what, team)
        return 0

    cdef int add_pieces(self, Py_ssize_t which, double* out) except -1:
        """The sum over the pieces of each array, in order."""
        cdef Py_ssize_t number, piece, i
        cdef const double* values = self.work.sums[which]
        for i in range(self.count):
            out[i] = 0
        for number in range(self.work.chunk_count):
            i = self.work.first[number]
            for piece in range(self.work.piece[number], self.work.piece[number + 1]):
                if is_given(&self.spans[i].source) and self.spans[i].visited > 0:
                    out[i] += values[piece]
                i += 1
        return 0

    cdef double sum_squares(self, double scale, int team) except? -1:
        """The sum of the squares of all gradients times `scale`; each array's in squares."""
        cdef Py_ssize_t i
        cdef double total = 0
        self.work.scale = scale
        self.sweep(REDUCE, team)
        self.add_pieces(GRAD_SQUARES, self.squares)
        for i in range(self.count):
            total += self.squares[i]
        return total

    cdef double gradient_norm(self, int team) except? -1:
        """The global norm. A NaN or an infinity shows in it, and in the sums of its arrays.

        A sum of squares outside 1e-200 … 1e200 may have lost range, as sums of float64 squares can:
        it is taken again over elements times a power of two that keeps every finite one in range.
        """
        cdef double scale = 1, total = self.sum_squares(scale, team)
        if not 1e-200 < total < 1e200:
            scale = 2.0 ** 600 if total < 1 else 2.0 ** -600
            total = self.sum_squares(scale, team)
        return root(total) / scale


def as_array(name, grad):
    """Whatever NumPy can see as an array without being told how, such as JAX's arrays.

    Raises: TypeError naming the gradient.
    """
    if isinstance(grad, np.ma.MaskedArray):
        raise TypeError(
            f"gradient {name!r} is a masked array, whose mask would be lost; pass .filled(0) or .data")
    if isinstance(grad, (np.ndarray, float)) or hasattr(grad, "__array__"):
        try:
            return np.asarray(grad)
        except Exception as error:  # such as of a torch tensor that requires a gradient itself
            raise TypeError(f"gradient {name!r} cannot be read as an array: {error}") from error
    hint = "; pass .toarray()" if hasattr(grad, "toarray") else ""  # sparse matrices
    raise TypeError(f"gradient {name!r} must be an array or None, got {describe(grad)}{hint}")


cdef bint same_shape(cnp.ndarray array, cnp.ndarray param) noexcept:
    cdef int axis, ndim = cnp.PyArray_NDIM(param)
    if cnp.PyArray_NDIM(array) != ndim:
        return False
    for axis in range(ndim):
        if cnp.PyArray_DIMS(array)[axis] != cnp.PyArray_DIMS(param)[axis]:
            return False
    return True


cdef bint same_order(cnp.ndarray array, cnp.ndarray param) noexcept:
    """Whether both walk their memory, without gaps, in the same order of elements."""
    if cnp.PyArray_CHKFLAGS(param, cnp.NPY_ARRAY_C_CONTIGUOUS):
        return cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_C_CONTIGUOUS)
    return cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_F_CONTIGUOUS)


cdef bint lies_as(cnp.ndarray array, cnp.ndarray param, Format format) noexcept:
    """Whether an array lies as a rule takes it."""
    return (format_of(array) == <int> format and cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_ALIGNED)
            and same_order(array, param))


cdef int bfloat16_type = -1  # its number, which NumPy gives it when ml_dtypes registers it


cdef int learn_dtype(cnp.ndarray array) except -1:
    """Ask a dtype that is not NumPy's own for its name, which is Python code."""
    global bfloat16_type
    cdef int number = cnp.PyArray_TYPE(array)
    if cnp.PyTypeNum_ISUSERDEF(number) and number != bfloat16_type:
        if (<object> array).dtype.name == "bfloat16":
            bfloat16_type = number
    return 0


cdef int format_of(cnp.ndarray array) noexcept:
    """The codec of an array's dtype, -1 without one."""
    cdef int number = cnp.PyArray_TYPE(array)
    if not cnp.PyArray_ISNOTSWAPPED(array):
        return -1
    if number == cnp.NPY_FLOAT:
        return F32
    if number == cnp.NPY_DOUBLE:
        return F64
    if number == cnp.NPY_FLOAT16:
        return F16
    if number == bfloat16_type:
        return BF16
    return -1
