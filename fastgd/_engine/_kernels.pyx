"""The plan of a step and the kernel that carries it out.

Layers, from the outside in:

  Plan         what Python sees: arrays, names and state of one optimizer. `bind` validates one set of
               gradients and records their addresses; `run` takes the step. Nothing is written before
               `run` has seen everything.
  pass_range   one thread's share of the chunks, called from the body of the only two `prange` loops.
  *_chunk      CHUNK elements of the virtual concatenation of all arrays, which may be part of one
               array or several small ones. The chunks do not depend on the number of threads.
  *_piece      the part of one array that lies in one chunk: decodes the gradient where needed
               (_codecs) and calls the rule (_rules) or the reduction (_reductions).

One parallel region serves all arrays of a step, because waking a team costs as much as updating tens
of thousands of elements; below SERIAL_BELOW elements no region is opened at all. A step that needs
the norm of the gradients first walks its chunks forwards, then updates them backwards, so that the
update finds the last part of the gradients still in cache.
"""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cython.parallel cimport prange
from libc.math cimport INFINITY, fabs, isfinite, sqrt as root
from libc.string cimport memcmp, memcpy

import numpy as np

from fastgd._engine._codecs cimport BF16, F16, F32, F64, Format, Layout, decode
from fastgd._engine._reductions cimport (
    largest_magnitude,
    scaled_sum_of_squares,
    sum_of_squared_differences,
    sum_of_squares,
)
from fastgd._engine._rules cimport (
    CLIP_VALUE,
    RULE,
    SCALE,
    WEIGHT_DECAY,
    adagrad,
    adam,
    floating,
    rmsprop,
    sgd,
)
from fastgd._engine._runtime cimport team_size

cdef extern from "numeric.h":
    int FASTGD_HAS_FMA

cnp.import_array()

cdef enum:
    CHUNK = 4096          # elements; also the unit of the deterministic reductions
    BLOCK = 1024          # elements decoded at a time: 8 KB of float64 in a 32 KB L1 cache
    ALIGN = 16            # every array begins at a multiple of this in the virtual concatenation
    WIDTH = 16            # coefficients of a row at most
    SERIAL_BELOW = 49152  # elements: measured break-even of waking the team
    GIL_BELOW = 8192      # elements: below, releasing the GIL costs more than the step

has_fma = bool(FASTGD_HAS_FMA)
chunk = CHUNK

# --- The registry of rules: name -> the compiled loops ----------------------------------------------

ctypedef void (*SingleRule)(const double*, float*, const float*, float*, float*, float*,
                            Py_ssize_t) noexcept nogil
ctypedef void (*DoubleRule)(const double*, double*, const double*, double*, double*, double*,
                            Py_ssize_t) noexcept nogil

cdef struct Rule:
    SingleRule single
    DoubleRule double_

cdef Rule[8] RULES
RULES[0] = Rule(sgd[float], sgd[double])
RULES[1] = Rule(adam[float], adam[double])
RULES[2] = Rule(adagrad[float], adagrad[double])
RULES[3] = Rule(rmsprop[float], rmsprop[double])
rule_names = ("sgd", "adam", "adagrad", "rmsprop")

# --- What the threads read --------------------------------------------------------------------------

cdef packed struct Span:
    size_t param       # address of the first element
    size_t grad        # address of a gradient in the parameter's dtype and order, 0: use the layout
    size_t layout      # address of a Layout, 0: use grad; both 0: no gradient this step
    size_t slots[3]    # addresses of the state, 0: the group does not use the slot
    Py_ssize_t start   # in the virtual concatenation
    Py_ssize_t length  # elements
    Py_ssize_t row     # of the coefficients
    Py_ssize_t double_  # 1: float64, 0: float32

span_dtype = np.dtype([
    ("param", np.uintp), ("grad", np.uintp), ("layout", np.uintp), ("slots", np.uintp, (3,)),
    ("start", np.intp), ("length", np.intp), ("row", np.intp), ("double_", np.intp),
])

cdef struct Work:
    const Span* spans
    Py_ssize_t span_count
    Py_ssize_t chunk_count
    const Py_ssize_t* first  # first span of each chunk
    const Py_ssize_t* piece  # number of the first piece of each chunk
    const double* coefficients
    double* grad_squares     # a sum per piece
    double* update_squares
    double* param_squares
    int rule
    bint track

cdef enum Pass:
    REDUCE
    UPDATE
    UPDATE_BACKWARDS


cdef inline void call_rule(int rule, const double* k, floating* p, const floating* g, floating* a,
                           floating* b, floating* c, Py_ssize_t n) noexcept nogil:
    if floating is float:
        RULES[rule].single(k, p, g, a, b, c, n)
    else:
        RULES[rule].double_(k, p, g, a, b, c, n)


cdef inline floating* shifted(floating* base, size_t address, Py_ssize_t by) noexcept nogil:
    """A slot's address `by` elements on; NULL stays NULL. `base` only carries the type."""
    return NULL if address == 0 else (<floating*> address) + by


cdef void update_piece(floating* p, const Work* work, const Span* span, Py_ssize_t begin,
                       Py_ssize_t end, Py_ssize_t piece) noexcept nogil:
    """Elements begin … end of one array. Tracking adds sums over blocks that are in cache anyway."""
    cdef floating decoded[BLOCK]
    cdef floating before[BLOCK]
    cdef const double* k = work.coefficients + span.row * WIDTH
    cdef const floating* g
    cdef floating* a
    cdef floating* b
    cdef floating* c
    cdef Py_ssize_t at = begin, n
    cdef Py_ssize_t stride = BLOCK if span.layout != 0 or work.track else end - begin
    cdef double grad = 0, update = 0, param = 0
    while at < end:
        n = min(stride, end - at)
        a = shifted(p, span.slots[0], at)
        b = shifted(p, span.slots[1], at)
        c = shifted(p, span.slots[2], at)
        if span.layout != 0:
            decode(<const Layout*> span.layout, at, n, &decoded[0])
            g = &decoded[0]
        else:
            g = (<const floating*> span.grad) + at
        if work.track:
            memcpy(&before[0], p + at, n * sizeof(floating))
            grad += sum_of_squares(g, n)
        call_rule(work.rule, k, p + at, g, a, b, c, n)
        if work.track:
            update += sum_of_squared_differences(<const floating*> (p + at), <const floating*> &before[0], n)
            param += sum_of_squares(<const floating*> (p + at), n)
        at += n
    if work.track:
        work.grad_squares[piece] = grad
        work.update_squares[piece] = update
        work.param_squares[piece] = param


cdef void reduce_piece(floating* p, const Work* work, const Span* span, Py_ssize_t begin,
                       Py_ssize_t end, Py_ssize_t piece) noexcept nogil:
    """The gradient's sum of squares over one piece. `p` only carries the type."""
    cdef floating decoded[BLOCK]
    cdef Py_ssize_t at = begin, n
    cdef double total = 0
    if span.layout == 0:
        total = sum_of_squares((<const floating*> span.grad) + begin, end - begin)
    else:
        while at < end:
            n = min(<Py_ssize_t> BLOCK, end - at)
            decode(<const Layout*> span.layout, at, n, &decoded[0])
            total += sum_of_squares(<const floating*> &decoded[0], n)
            at += n
    work.grad_squares[piece] = total


cdef void visit_chunk(const Work* work, Py_ssize_t chunk, Pass what) noexcept nogil:
    cdef Py_ssize_t low = chunk * CHUNK, high = low + CHUNK
    cdef Py_ssize_t i = work.first[chunk], piece = work.piece[chunk], begin, end
    cdef const Span* span
    while i < work.span_count and work.spans[i].start < high:
        span = &work.spans[i]
        begin = max(low - span.start, <Py_ssize_t> 0)
        end = min(high - span.start, span.length)
        if begin < end and (span.grad != 0 or span.layout != 0):
            if what == REDUCE:
                if span.double_:
                    reduce_piece(<double*> span.param, work, span, begin, end, piece)
                else:
                    reduce_piece(<float*> span.param, work, span, begin, end, piece)
            elif span.double_:
                update_piece(<double*> span.param, work, span, begin, end, piece)
            else:
                update_piece(<float*> span.param, work, span, begin, end, piece)
        i += 1
        piece += 1


cdef void pass_range(const Work* work, Pass what, Py_ssize_t thread, Py_ssize_t team) noexcept nogil:
    """The chunks of one thread: a contiguous share, so that it finds its state where it left it."""
    cdef Py_ssize_t low = work.chunk_count * thread // team
    cdef Py_ssize_t high = work.chunk_count * (thread + 1) // team
    cdef Py_ssize_t i
    if what == UPDATE_BACKWARDS:
        for i in range(high - 1, low - 1, -1):
            visit_chunk(work, i, what)
    else:
        for i in range(low, high):
            visit_chunk(work, i, what)


cdef void pass_all(const Work* work, Pass what, int team) noexcept nogil:
    cdef Py_ssize_t thread
    if team == 1:
        pass_range(work, what, 0, 1)
        return
    for thread in prange(team, schedule="static", chunksize=1, num_threads=team):
        pass_range(work, what, thread, team)


# --- The plan ---------------------------------------------------------------------------------------

cdef class Plan:
    """One optimizer's arrays, cut into chunks, and the step over them.

    Immutable but for the step counts and the coefficients: an optimizer whose arrays, groups or
    slots change builds a new plan and swaps it in, so that nothing is ever half changed.

    Args:
        rule: one of rule_names.
        params: arrays, already validated: writeable, aligned, contiguous in C or Fortran order,
            native float32 or float64, no two overlapping.
        names: one per array, for messages.
        slots: for each array the arrays of the rule's state slots, None where unused; same size,
            dtype and memory order as the parameter.
        groups: the number of the group of each array, ascending.
        specs: the structure of each group's gradients, from _tree.
        steps: how many steps each array has taken.
    """

    cdef readonly list params, names
    cdef readonly cnp.ndarray steps
    cdef list held            # the gradients of the current step, kept alive
    cdef tuple specs
    cdef cnp.ndarray span_array, group_array, first_array, piece_array, table
    cdef cnp.ndarray partials, order, lows, highs
    cdef Span[::1] spans
    cdef cnp.int64_t[::1] step_counts
    cdef Py_ssize_t[::1] groups
    cdef Py_ssize_t[::1] sorted_params
    cdef size_t[::1] sorted_lows
    cdef size_t[::1] sorted_highs
    cdef double[:, ::1] coefficients
    cdef Layout** layouts
    cdef size_t* seen         # addresses known not to overlap a parameter
    cdef Py_ssize_t count, present, group_count
    cdef bint rows_are_groups, uniform
    cdef Work work
    cdef Py_ssize_t elements

    def __cinit__(self, str rule, list params, list names, list slots, list groups, tuple specs,
                  list steps):
        cdef Py_ssize_t i, j, position = 0
        self.count = len(params)
        self.params = params
        self.names = names
        self.specs = specs
        self.group_count = len(specs)
        self.held = [None] * self.count
        self.steps = np.array(steps, np.int64)
        self.group_array = np.array(groups, np.intp)
        self.span_array = np.zeros(self.count, span_dtype)
        self.spans = self.span_array
        self.step_counts = self.steps
        self.groups = self.group_array
        self.layouts = <Layout**> PyMem_Malloc(max(self.count, 1) * sizeof(void*))
        self.seen = <size_t*> PyMem_Malloc(max(self.count, 1) * sizeof(size_t))
        if self.layouts == NULL or self.seen == NULL:
            raise MemoryError
        for i in range(self.count):
            self.layouts[i] = NULL
            self.seen[i] = 0
        for i in range(self.count):
            array = params[i]
            self.spans[i].param = <size_t> cnp.PyArray_DATA(array)
            self.spans[i].start = position
            self.spans[i].length = array.size
            self.spans[i].row = groups[i]
            self.spans[i].double_ = array.dtype.itemsize == 8
            for j, slot in enumerate(slots[i]):
                if slot is not None:
                    self.spans[i].slots[j] = <size_t> cnp.PyArray_DATA(slot)
            position += (array.size + ALIGN - 1) // ALIGN * ALIGN
        self.elements = position
        self.cut_into_chunks()
        self.sort_addresses()
        self.coefficients = self.table = np.zeros((max(self.group_count, 1), WIDTH))
        self.rows_are_groups = True
        self.note_uniformity()
        self.work.rule = rule_names.index(rule)

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.layouts != NULL:
            for i in range(self.count):
                PyMem_Free(self.layouts[i])
        PyMem_Free(self.layouts)
        PyMem_Free(self.seen)

    cdef int cut_into_chunks(self) except -1:
        """The first span and the number of the first piece of every chunk."""
        starts = self.span_array["start"]
        ends = starts + self.span_array["length"]
        lows = np.arange(0, self.elements, CHUNK, dtype=np.intp)
        # The last span that begins at or before the chunk; of empty ones at the same place, the first.
        first = np.searchsorted(ends, lows, side="right").astype(np.intp)
        stop = np.searchsorted(starts, lows + CHUNK, side="left")
        self.first_array = first
        self.piece_array = np.concatenate([np.zeros(1, np.intp), np.cumsum(stop - first, dtype=np.intp)])
        self.partials = np.zeros((3, max(int(self.piece_array[-1]), 1)))
        self.work.spans = <const Span*> cnp.PyArray_DATA(self.span_array)
        self.work.span_count = self.count
        self.work.chunk_count = len(lows)
        self.work.first = <const Py_ssize_t*> cnp.PyArray_DATA(self.first_array)
        self.work.piece = <const Py_ssize_t*> cnp.PyArray_DATA(self.piece_array)
        self.work.grad_squares = <double*> cnp.PyArray_DATA(self.partials)
        self.work.update_squares = self.work.grad_squares + self.partials.shape[1]
        self.work.param_squares = self.work.update_squares + self.partials.shape[1]
        return 0

    cdef int sort_addresses(self) except -1:
        """The memory of the parameters in order of address, for finding what a gradient overlaps."""
        lows = self.span_array["param"]
        nbytes = (self.span_array["length"] * np.where(self.span_array["double_"] == 1, 8, 4))
        occupied = np.flatnonzero(nbytes > 0)
        order = occupied[np.argsort(lows[occupied], kind="stable")]
        self.sorted_params = self.order = order.astype(np.intp)
        self.sorted_lows = self.lows = np.ascontiguousarray(lows[order])
        self.sorted_highs = self.highs = self.lows + nbytes[order].astype(np.uintp)
        return 0

    cdef int note_uniformity(self) except -1:
        """Whether the arrays of each group have taken equally many steps: the usual, fast case."""
        cdef Py_ssize_t i
        self.uniform = True
        for i in range(1, self.count):
            if self.groups[i] == self.groups[i - 1] and self.step_counts[i] != self.step_counts[i - 1]:
                self.uniform = False
        return 0

    # --- bind: validation ---

    def bind(self, grads):
        """Validate `grads` against the parameters and record where they lie; writes no array.

        Returns:
            The rows of coefficients that the step needs, a list of (group, t): arrays of one group
            that take their t-th step now. Row r is filled by set_row(r, …).

        Raises:
            TypeError, ValueError: as the interface says, naming the array.
        """
        cdef Py_ssize_t leaf = 0, group
        self.present = self.count
        self.check_parameters()
        try:
            if self.group_count == 1:
                self.collect(self.specs[0], grads, 0)
            else:
                if not isinstance(grads, (list, tuple)) or len(grads) != self.group_count:
                    raise ValueError(
                        f"gradients: expected a list of {self.group_count} trees, one for each "
                        f"parameter group, got {describe(grads)}")
                for group in range(self.group_count):
                    leaf = self.collect(self.specs[group], grads[group], leaf)
        except BaseException:
            self.release()
            raise
        return self.assign_rows()

    def release(self):
        """Drop the references to the gradients of the step."""
        cdef Py_ssize_t i
        for i in range(self.count):
            self.held[i] = None

    @cython.boundscheck(False)
    @cython.wraparound(False)
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
            if <size_t> cnp.PyArray_DATA(array) != self.spans[i].param or size != self.spans[i].length:
                raise ValueError(
                    f"parameter {self.names[i]!r} was resized or moved since the optimizer was made; "
                    "call rebind() with arrays of the original shapes")
            if not cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_WRITEABLE):
                raise ValueError(
                    f"parameter {self.names[i]!r} has become read-only; make it writeable, or give "
                    "None as its gradient after rebind() to a writeable array")
        return 0

    cdef Py_ssize_t collect(self, object spec, object node, Py_ssize_t leaf) except -1:
        """Walk `node` along the parameters' structure, binding leaf after leaf."""
        cdef tuple keys, children
        cdef Py_ssize_t i, n
        if spec is None:
            self.bind_leaf(leaf, node)
            return leaf + 1
        keys, children = <tuple> spec
        n = len(children)
        if node is None:
            for i in range(n):
                leaf = self.collect(children[i], None, leaf)
        elif keys is None:
            if not isinstance(node, (list, tuple)) or len(node) != n:
                raise self.structure_error(leaf, f"a sequence of length {n}", node)
            for i in range(n):
                leaf = self.collect(children[i], node[i], leaf)
        else:
            if not isinstance(node, dict) or len(<dict> node) != n:
                raise self.structure_error(leaf, f"a dict with the keys {list(keys)}", node)
            for i in range(n):
                try:
                    child = (<dict> node)[keys[i]]
                except KeyError:
                    raise self.structure_error(leaf, f"a dict with the keys {list(keys)}", node) from None
                leaf = self.collect(children[i], child, leaf)
        return leaf

    cdef object structure_error(self, Py_ssize_t leaf, str expected, object node):
        where = f"around {self.names[leaf]!r}" if leaf < self.count else "at an empty container"
        return ValueError(
            f"gradients: the structure differs from the parameters' {where}: expected {expected}, "
            f"got {describe(node)}")

    @cython.boundscheck(False)
    @cython.wraparound(False)
    cdef int bind_leaf(self, Py_ssize_t i, object grad) except -1:
        cdef Span* span = &self.spans[i]
        cdef cnp.ndarray param = <cnp.ndarray> self.params[i]
        cdef cnp.ndarray array
        cdef size_t address
        cdef int ndim = cnp.PyArray_NDIM(param)
        if grad is None:
            span.grad = span.layout = 0
            self.present -= 1
            return 0
        if not cnp.PyArray_Check(grad):
            grad = self.foreign_array(i, grad)
        array = <cnp.ndarray> grad
        if cnp.PyArray_NDIM(array) != ndim or memcmp(
                cnp.PyArray_DIMS(array), cnp.PyArray_DIMS(param), ndim * sizeof(cnp.npy_intp)) != 0:
            raise ValueError(
                f"gradient {self.names[i]!r} has shape {(<object> array).shape}, its parameter has "
                f"{(<object> param).shape}")
        self.held[i] = grad
        if (cnp.PyArray_TYPE(array) == cnp.PyArray_TYPE(param)
                and cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_ALIGNED)
                and cnp.PyArray_ISNOTSWAPPED(array)
                and same_order(array, param)):
            address = <size_t> cnp.PyArray_DATA(array)
            if address != self.seen[i]:
                self.check_overlap(i, address, address + cnp.PyArray_NBYTES(array))
                self.seen[i] = address
            span.grad, span.layout = address, 0
        else:
            self.bind_layout(i, array)
        return 0

    cdef object foreign_array(self, Py_ssize_t i, object grad):
        """Whatever NumPy can see as an array without being told how, such as JAX's arrays."""
        if isinstance(grad, (np.generic, float)) or hasattr(grad, "__array__"):
            return np.asarray(grad)
        raise TypeError(
            f"gradient {self.names[i]!r} must be an array or None, got {describe(grad)}")

    cdef int bind_layout(self, Py_ssize_t i, cnp.ndarray array) except -1:
        """Record a gradient that must be decoded: another dtype, order, stride or alignment."""
        cdef Layout* layout = self.layouts[i]
        cdef cnp.ndarray param = <cnp.ndarray> self.params[i]
        cdef int format = format_of(array), axis, dims = 0, ndim = cnp.PyArray_NDIM(array)
        cdef bint reverse = not cnp.PyArray_CHKFLAGS(param, cnp.NPY_ARRAY_C_CONTIGUOUS)
        cdef Py_ssize_t size, stride
        cdef size_t low = <size_t> cnp.PyArray_DATA(array), high = low + cnp.PyArray_ITEMSIZE(array)
        if format < 0:
            raise TypeError(
                f"gradient {self.names[i]!r} has dtype {(<object> array).dtype}; expected float16, float32, "
                "float64 or bfloat16 in native byte order: convert it with .astype()")
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
        self.seen[i] = 0
        self.spans[i].grad, self.spans[i].layout = 0, <size_t> layout
        return 0

    @cython.boundscheck(False)
    @cython.wraparound(False)
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
            raise ValueError(
                f"gradient {self.names[i]!r} overlaps the memory of parameter "
                f"{self.names[self.sorted_params[left - 1]]!r}; pass a copy of the gradient")
        return 0

    cdef list assign_rows(self):
        """Row g is group g as long as its arrays march in step; else a row per (group, t)."""
        cdef Py_ssize_t i
        cdef list rows = []
        if self.present == self.count and self.uniform:
            if not self.rows_are_groups:
                for i in range(self.count):
                    self.spans[i].row = self.groups[i]
                self.rows_are_groups = True
            for i in range(self.count):
                if i == 0 or self.groups[i] != self.groups[i - 1]:
                    # A group without arrays still has its row.
                    while len(rows) < self.groups[i]:
                        rows.append((len(rows), 1))
                    rows.append((self.groups[i], self.step_counts[i] + 1))
            return rows
        self.rows_are_groups = False
        numbers = {}
        for i in range(self.count):
            if self.spans[i].grad != 0 or self.spans[i].layout != 0:
                key = (self.groups[i], self.step_counts[i] + 1)
                if key not in numbers:
                    numbers[key] = len(rows)
                    rows.append(key)
                self.spans[i].row = numbers[key]
        if len(rows) > self.table.shape[0]:
            self.coefficients = self.table = np.zeros((len(rows), WIDTH))
        return rows

    # --- run: the step ---

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def set_row(self, Py_ssize_t row, bint maximize, double weight_decay, tuple coefficients):
        """The coefficients of one row, in the order that the rule documents."""
        cdef Py_ssize_t i
        if not 0 <= row < self.coefficients.shape[0] or len(coefficients) > WIDTH - RULE:
            raise IndexError("no such row of coefficients")
        self.coefficients[row, SCALE] = -1.0 if maximize else 1.0
        self.coefficients[row, WEIGHT_DECAY] = weight_decay
        for i in range(len(coefficients)):
            self.coefficients[row, RULE + i] = coefficients[i]

    def run(self, double grad_scale, double clip_norm, double clip_value, bint finite_only, bint track):
        """Take the step over what `bind` recorded.

        Args:
            grad_scale: multiplies every gradient.
            clip_norm: the largest global norm, inf for no clipping.
            clip_value: the largest magnitude of an element, inf for no clipping.
            finite_only: take no step when a gradient has a NaN or an infinity.
            track: also sum the squares of gradients, updates and parameters, for `norms`.

        Returns:
            (norm, culprit): the gradients' global norm before clipping, None where neither clipping
            nor finite_only asked for it; the number of the first non-finite gradient if that kept
            the step from being taken, else -1.
        """
        cdef double norm = 0, factor = grad_scale
        cdef Py_ssize_t i, culprit
        cdef bint reduce = clip_norm != INFINITY or finite_only
        cdef int team = team_size(self.elements, SERIAL_BELOW)
        self.work.coefficients = &self.coefficients[0, 0]
        self.work.track = track
        if reduce:
            self.sweep(REDUCE, team)
            norm, culprit = self.finish_norm(fabs(grad_scale))
            if finite_only and culprit >= 0:
                return norm, culprit
            # A NaN norm gives NaN, which propagates; a norm of 0 gives inf, hence 1.
            if clip_norm != INFINITY and not clip_norm / norm > 1:
                factor *= clip_norm / norm
        for i in range(self.coefficients.shape[0]):
            self.coefficients[i, SCALE] *= factor
            self.coefficients[i, CLIP_VALUE] = clip_value
        self.sweep(UPDATE_BACKWARDS if reduce else UPDATE, team)
        for i in range(self.count):
            if self.spans[i].grad != 0 or self.spans[i].layout != 0:
                self.step_counts[i] += 1
        if self.present != self.count or not self.uniform:
            self.note_uniformity()
        return (norm if reduce else None), -1

    def measure(self):
        """The global norm of what `bind` recorded, without a step."""
        self.sweep(REDUCE, team_size(self.elements, SERIAL_BELOW))
        return self.finish_norm(1.0)[0]

    def norms(self):
        """Norms of each array's gradient, update and parameter in the last tracked step.

        Returns: (3, number of arrays) float64; zeros for an array without a gradient.
        """
        cdef Py_ssize_t which
        cdef double[:, ::1] out
        result = np.zeros((3, self.count))
        out = result
        for which in range(3):
            self.add_pieces(which, out[which])
        return np.sqrt(result)

    cdef int sweep(self, Pass what, int team) except -1:
        cdef const Work* work = &self.work
        if self.elements < GIL_BELOW:
            pass_range(work, what, 0, 1)
        else:
            with nogil:
                pass_all(work, what, team)
        return 0

    @cython.boundscheck(False)
    @cython.wraparound(False)
    cdef int add_pieces(self, Py_ssize_t which, double[::1] out) except -1:
        """Add up the pieces of each array, in order."""
        cdef Py_ssize_t number, piece, i
        cdef const double* values = self.work.grad_squares + which * self.partials.shape[1]
        for number in range(self.work.chunk_count):
            i = self.work.first[number]
            for piece in range(self.work.piece[number], self.work.piece[number + 1]):
                if (self.spans[i].grad != 0 or self.spans[i].layout != 0) and self.spans[i].length > 0:
                    out[i] += values[piece]
                i += 1
        return 0

    cdef tuple finish_norm(self, double scale):
        """The global norm from the pieces, and the first array that is not finite or -1.

        A float64 sum outside 1e-200 … 1e200 may have lost range: it is taken again over elements
        divided by the largest.
        """
        cdef Py_ssize_t i, culprit = -1
        cdef double total = 0, largest = 1, magnitude
        cdef double[::1] sums = np.zeros(self.count)
        cdef double[::1] scales
        self.add_pieces(0, sums)
        for i in range(self.count):
            total += sums[i]
        if 1e-200 < total < 1e200:
            return scale * root(total), -1
        scales = np.ones(self.count)
        for i in range(self.count):
            if self.spans[i].double_ and not 1e-200 < sums[i] < 1e200 and (
                    self.spans[i].grad != 0 or self.spans[i].layout != 0):
                magnitude = self.rescale(i)
                if not isfinite(magnitude):
                    sums[i] = magnitude
                elif magnitude > 0:
                    sums[i] = self.rescaled_sum(i, magnitude)
                    scales[i] = magnitude
                else:
                    sums[i] = 0
            if culprit < 0 and not isfinite(sums[i]):
                culprit = i
        largest = np.max(np.asarray(scales)[np.asarray(sums) != 0], initial=0.0)
        total = 0
        for i in range(self.count):
            if sums[i] != 0:
                total += sums[i] * (scales[i] / largest) ** 2
        return scale * largest * root(total) if total != 0 else 0.0, culprit

    cdef double rescale(self, Py_ssize_t i) except? -1:
        """The largest magnitude of a float64 parameter's gradient."""
        cdef double[BLOCK] decoded
        cdef double largest = 0, value
        cdef Py_ssize_t at = 0, n
        if self.spans[i].layout == 0:
            return largest_magnitude(<const double*> self.spans[i].grad, self.spans[i].length)
        while at < self.spans[i].length:
            n = min(<Py_ssize_t> BLOCK, self.spans[i].length - at)
            decode(<const Layout*> self.spans[i].layout, at, n, &decoded[0])
            value = largest_magnitude(<const double*> &decoded[0], n)
            if not value <= largest:
                largest = value
            at += n
        return largest

    cdef double rescaled_sum(self, Py_ssize_t i, double scale) except? -1:
        cdef double[BLOCK] decoded
        cdef double total = 0
        cdef Py_ssize_t at = 0, n
        if self.spans[i].layout == 0:
            return scaled_sum_of_squares(
                <const double*> self.spans[i].grad, self.spans[i].length, scale)
        while at < self.spans[i].length:
            n = min(<Py_ssize_t> BLOCK, self.spans[i].length - at)
            decode(<const Layout*> self.spans[i].layout, at, n, &decoded[0])
            total += scaled_sum_of_squares(<const double*> &decoded[0], n, scale)
            at += n
        return total


cdef inline bint same_order(cnp.ndarray array, cnp.ndarray param) noexcept:
    """Whether both walk their memory, without gaps, in the same order of elements."""
    if cnp.PyArray_CHKFLAGS(param, cnp.NPY_ARRAY_C_CONTIGUOUS):
        return cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_C_CONTIGUOUS)
    return cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_F_CONTIGUOUS)


cdef int format_of(cnp.ndarray array) except -2:
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
    if (<object> array).dtype.name == "bfloat16":  # registered by ml_dtypes
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
