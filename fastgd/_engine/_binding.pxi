# The first half of a step: validating one set of gradients and recording where they lie.

cdef class Binding:
    """Arrays cut into chunks, and gradients of the same structure bound to them.

    Args:
        params: arrays, already validated: writeable, aligned, contiguous in C or Fortran order,
            native float32 or float64, no two overlapping.
        names: one for each array, for messages.
        groups: the number of the group of each array, ascending.
        specs: the structure of each group's gradients, from _tree.
    """

    cdef readonly list params, names
    cdef list held            # the gradients of the current step, kept alive
    cdef tuple specs
    cdef cnp.ndarray span_array, first_array, piece_array, partials
    cdef Span[::1] spans
    cdef Py_ssize_t[::1] groups
    cdef Py_ssize_t[::1] sorted_params
    cdef size_t[::1] sorted_lows
    cdef size_t[::1] sorted_highs
    cdef Layout** layouts     # of the gradients that needed one so far
    cdef Py_ssize_t count, elements, group_count
    cdef Work work

    def __cinit__(self, list params, list names, list groups, tuple specs, *args):
        cdef Py_ssize_t i, position = 0
        self.count = len(params)
        self.params = params
        self.names = names
        self.specs = specs
        self.group_count = len(specs)
        self.held = [None] * self.count
        self.groups = np.array(groups, np.intp)
        self.span_array = np.zeros(self.count, span_dtype)
        self.spans = self.span_array
        self.layouts = <Layout**> PyMem_Calloc(self.count + 1, sizeof(void*))
        if self.layouts == NULL:
            raise MemoryError
        for i in range(self.count):
            array = params[i]
            self.spans[i].param = <size_t> cnp.PyArray_DATA(array)
            self.spans[i].start = position
            self.spans[i].length = array.size
            self.spans[i].row = -1
            self.spans[i].double_ = array.dtype.itemsize == 8
            position += (array.size + ALIGN - 1) // ALIGN * ALIGN
        self.elements = position
        self.cut_into_chunks()

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.layouts != NULL:
            for i in range(self.count):
                PyMem_Free(self.layouts[i])
        PyMem_Free(self.layouts)

    cdef int cut_into_chunks(self) except -1:
        """The first span and the number of the first piece of every chunk."""
        starts = self.span_array["start"]
        ends = starts + self.span_array["length"]
        lows = np.arange(0, self.elements, CHUNK, dtype=np.intp)
        first = np.searchsorted(ends, lows, side="right").astype(np.intp)
        stop = np.searchsorted(starts, lows + CHUNK, side="left")
        pieces = np.zeros(len(lows) + 1, np.intp)
        np.cumsum(np.maximum(stop - first, 0), out=pieces[1:])
        self.first_array, self.piece_array = first, pieces
        self.partials = np.zeros((4, int(pieces.max()) + 1))
        self.work.spans = <const Span*> cnp.PyArray_DATA(self.span_array)
        self.work.span_count = self.count
        self.work.chunk_count = len(lows)
        self.work.first = <const Py_ssize_t*> cnp.PyArray_DATA(self.first_array)
        self.work.piece = <const Py_ssize_t*> cnp.PyArray_DATA(self.piece_array)
        self.work.grad_squares = <double*> cnp.PyArray_DATA(self.partials)
        self.work.update_squares = self.work.grad_squares + self.partials.shape[1]
        self.work.param_squares = self.work.update_squares + self.partials.shape[1]
        self.work.products = self.work.param_squares + self.partials.shape[1]
        return 0

    cdef int sort_addresses(self) except -1:
        """The memory of parameters and state in order of address, for finding what a gradient overlaps."""
        lows = np.concatenate([self.span_array["param"], self.span_array["slots"].T.ravel()])
        nbytes = np.tile(self.span_array["length"] * np.where(self.span_array["double_"] == 1, 8, 4), 4)
        nbytes[lows == 0] = 0
        occupied = np.flatnonzero(nbytes > 0)
        order = occupied[np.argsort(lows[occupied], kind="stable")]
        self.sorted_params = order.astype(np.intp)
        self.sorted_lows = lows[order]
        self.sorted_highs = lows[order] + nbytes[order].astype(np.uintp)
        return 0

    cdef int collect(self, grads) except -1:
        """Walk `grads` along the parameters' structure and hold their arrays.

        Whatever foreign code there is in them (`__array__`) runs here. `release` must follow.

        Raises: TypeError, ValueError naming an array.
        """
        cdef Py_ssize_t leaf = 0, group
        if self.group_count == 1:
            self.walk(self.specs[0], grads, 0)
            return 0
        if not isinstance(grads, (list, tuple)) or len(grads) != self.group_count:
            raise ValueError(
                f"gradients: expected a list of {self.group_count} trees, one for each parameter "
                f"group, got {describe(grads)}")
        for group in range(self.group_count):
            leaf = self.walk(self.specs[group], grads[group], leaf)
        return 0

    cdef int bind(self) except -1:
        """Validate the arrays that are held, and record where they lie; writes no array.

        No foreign code runs from here to the end of the step, so nothing can be resized or moved.

        Raises: TypeError, ValueError naming the array.
        """
        cdef Py_ssize_t i
        self.check_parameters()
        for i in range(self.count):
            if self.held[i] is None:
                self.spans[i].grad = self.spans[i].layout = 0
            else:
                self.bind_leaf(i, <cnp.ndarray> self.held[i])
        return 0

    cdef int release(self) except -1:
        """Drop the references to the gradients of the step."""
        cdef Py_ssize_t i
        for i in range(self.count):
            self.held[i] = None
        return 0

    cdef inline bint has_gradient(self, Py_ssize_t i) noexcept:
        return self.work.spans[i].grad != 0 or self.work.spans[i].layout != 0

    cdef int check_parameters(self) except -1:
        """A parameter that was resized or frozen behind the optimizer's back is refused."""
        cdef Py_ssize_t i, size
        cdef int axis
        cdef cnp.ndarray array
        for i in range(self.count):
            array = <cnp.ndarray> self.params[i]
            size = 1
            for axis in range(cnp.PyArray_NDIM(array)):
                size *= cnp.PyArray_DIMS(array)[axis]
            if (<size_t> cnp.PyArray_DATA(array) != self.spans[i].param or size != self.spans[i].length
                    or (cnp.PyArray_TYPE(array) == cnp.NPY_DOUBLE) != self.spans[i].double_
                    or not cnp.PyArray_ISNOTSWAPPED(array)):
                raise ValueError(
                    f"parameter {self.names[i]!r} was resized, moved or given another dtype since the "
                    "optimizer was made; call rebind() with arrays like the original ones")
            if not cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_WRITEABLE):
                raise ValueError(
                    f"parameter {self.names[i]!r} has become read-only, so it cannot be updated; "
                    "make it writeable, or rebind() the optimizer to other arrays")
        return 0

    @cython.boundscheck(True)  # a leaf's __array__ may change the caller's list
    cdef Py_ssize_t walk(self, object spec, object node, Py_ssize_t leaf) except -1:
        """Hold the leaves of `node` from number `leaf` on; the number of the next one."""
        cdef tuple keys, children
        cdef Py_ssize_t i, n
        if spec is None:
            if node is not None and not cnp.PyArray_CheckExact(node):
                node = self.foreign_array(leaf, node)
            if node is not None:
                learn_dtype(<cnp.ndarray> node)
            self.held[leaf] = node
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

    cdef object structure_error(self, Py_ssize_t leaf, str expected, object node):
        where = f"around {self.names[leaf]!r}" if leaf < self.count else "at an empty container"
        return ValueError(
            f"gradients: the structure differs from the parameters' {where}: expected {expected}, "
            f"got {describe(node)}")

    cdef int bind_leaf(self, Py_ssize_t i, cnp.ndarray array) except -1:
        cdef Span* span = &self.spans[i]
        cdef cnp.ndarray param = <cnp.ndarray> self.params[i]
        cdef size_t address = <size_t> cnp.PyArray_DATA(array)
        if not same_shape(array, param):
            raise ValueError(
                f"gradient {self.names[i]!r} has shape {(<object> array).shape}, its parameter has "
                f"{(<object> param).shape}")
        if (cnp.PyArray_TYPE(array) == cnp.PyArray_TYPE(param)
                and cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_ALIGNED)
                and cnp.PyArray_ISNOTSWAPPED(array)
                and same_order(array, param)):
            if address != span.grad:  # where the last one lay, which overlapped nothing
                self.check_overlap(i, address, address + cnp.PyArray_NBYTES(array))
            span.grad, span.layout = address, 0
        else:
            self.bind_layout(i, array)
        return 0

    cdef object foreign_array(self, Py_ssize_t i, object grad):
        """Whatever NumPy can see as an array without being told how, such as JAX's arrays."""
        if isinstance(grad, np.ma.MaskedArray):
            raise TypeError(
                f"gradient {self.names[i]!r} is a masked array, whose mask would be lost; "
                "pass .filled(0) or .data")
        if isinstance(grad, (np.ndarray, float)) or hasattr(grad, "__array__"):
            try:
                return np.asarray(grad)
            except Exception as error:  # such as of a torch tensor that requires a gradient itself
                raise TypeError(
                    f"gradient {self.names[i]!r} cannot be read as an array: {error}") from error
        hint = "; pass .toarray()" if hasattr(grad, "toarray") else ""  # sparse matrices
        raise TypeError(
            f"gradient {self.names[i]!r} must be an array or None, got {describe(grad)}{hint}")

    cdef int bind_layout(self, Py_ssize_t i, cnp.ndarray array) except -1:
        """Record a gradient that must be decoded: another dtype, order, stride or alignment."""
        cdef Layout* layout = self.layouts[i]
        cdef int format = format_of(array), axis, dims = 0, ndim = cnp.PyArray_NDIM(array)
        cdef bint reverse = not cnp.PyArray_CHKFLAGS(
            <cnp.ndarray> self.params[i], cnp.NPY_ARRAY_C_CONTIGUOUS)
        cdef Py_ssize_t size, stride
        cdef size_t low = <size_t> cnp.PyArray_DATA(array), high = low + cnp.PyArray_ITEMSIZE(array)
        if format < 0:
            raise TypeError(
                f"gradient {self.names[i]!r} has dtype {(<object> array).dtype.str}; expected float16, "
                "float32, float64 or bfloat16 in native byte order: convert it with .astype()")
        if layout == NULL:
            layout = self.layouts[i] = <Layout*> PyMem_Malloc(sizeof(Layout))
            if layout == NULL:
                raise MemoryError
        layout.data = <const char*> low
        layout.format = <Format> format
        layout.shape[0], layout.strides[0] = 1, 0
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
        self.spans[i].grad, self.spans[i].layout = 0, <size_t> layout
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


cdef inline bint same_shape(cnp.ndarray array, cnp.ndarray param) noexcept:
    cdef int axis, ndim = cnp.PyArray_NDIM(param)
    if cnp.PyArray_NDIM(array) != ndim:
        return False
    for axis in range(ndim):
        if cnp.PyArray_DIMS(array)[axis] != cnp.PyArray_DIMS(param)[axis]:
            return False
    return True


cdef inline bint same_order(cnp.ndarray array, cnp.ndarray param) noexcept:
    """Whether both walk their memory, without gaps, in the same order of elements."""
    if cnp.PyArray_CHKFLAGS(param, cnp.NPY_ARRAY_C_CONTIGUOUS):
        return cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_C_CONTIGUOUS)
    return cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_F_CONTIGUOUS)


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


cdef str describe(object node):
    """What was given instead of a tree or an array, in a few words."""
    if isinstance(node, (list, tuple)):
        return f"a {type(node).__name__} of length {len(node)}"
    if isinstance(node, dict):
        return f"a dict with the keys {list(node)}"
    if isinstance(node, np.ndarray):
        return f"an array of shape {node.shape}"
    return f"{type(node).__module__}.{type(node).__qualname__}"
