"""The second half of a step: coefficients, stages, and what is kept for the next one.

A step collects (foreign code runs), binds (none runs), then writes. What its stages are depends on the
rules of its rows: a rule may look at sums before it updates, or have NumPy work on its direction.
"""

cimport cython
cimport numpy as cnp
from cpython.dict cimport PyDict_GetItem, PyDict_Next
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.ref cimport PyObject
from libc.math cimport INFINITY, NAN, copysign, fabs, isfinite
from libc.math cimport sqrt as root
from libc.stdint cimport uint32_t

import numpy as np

from fastgd._arguments import describe
from fastgd._arrays.memory import is_mapped
from fastgd._arrays.tree import check_parameter

from fastgd._engine._binding cimport Binding, active, only_tree, same_order, same_shape
from fastgd._engine._gate cimport Gate
from fastgd._engine._runtime cimport Pace
from fastgd._engine._work cimport (
    BF16,
    BF16_RANDOM,
    DIRECT,
    F64,
    MEASURE,
    MOST_NUMBERS,
    MOST_STREAMS,
    MOST_SUMS,
    PAIRED8,
    RATIO8,
    ROOT8,
    SIGNED8,
    SIZE8,
    UPDATE,
    UPDATE_BACKWARDS,
    WIDTH,
    Head,
    Rule,
    Span,
    Stream,
)

cdef extern from "narrow.h" nogil:
    uint32_t fastgd_mix(uint32_t)

cnp.import_array()

cdef enum:
    SERIAL_BELOW = 262144  # elements, see _binding.pyx

most_numbers = MOST_NUMBERS

cdef enum Outcome:
    TAKEN = -1

# Factors beyond these are no normal float32 any more, or nearly: they multiply in double precision.
cdef double LEAST_FACTOR = 2.0 ** -100, MOST_FACTOR = 2.0 ** 100


cdef struct Numbers:
    double values[MOST_NUMBERS]


cdef class Plan(Binding):
    """One optimizer's arrays and state, and the step over them.

    Immutable but for the step counts, the numbers that rules keep and the coefficients: an optimizer
    whose arrays, groups or state change builds a new plan and swaps it in, so that nothing is ever
    half changed.

    Args:
        params, names, specs: see Binding; the arrays are already validated: writeable, aligned,
            contiguous in C or Fortran order, native float32 or float64, no two overlapping.
        gate: serialises whatever uses the plan.
        groups: the number of the group of each array, ascending.
        rules: the name of each group's rule, what it expects (see rules/table.pxd), and under "kinds"
            what kind each array of its state is (see _arrays/formats.py).
        state: for each array the arrays of its rule's state, None where unused; same size, dtype and
            memory order as the parameter, but for those that only `direct` of a matrix rule uses, and
            those in fewer bits: uint16 or uint8, see _arrays/formats.py.
        numbers: (number of arrays, MOST_NUMBERS) float64, what rules keep for each array.
        steps: how many steps each array has taken.
        step_count: of the optimizer.
        trees: the containers of each group's arrays, see check_containers.
        spread: where the arrays are parts of arrays that are spread over several processes: the elements
            of each whole one, and a function that adds up float64 arrays over the processes, in place.
            All take the same steps; None where nothing is spread.
    """

    cdef readonly cnp.ndarray steps
    cdef readonly cnp.ndarray numbers
    cdef readonly object grad_norm  # before clipping, None where the last step taken did not need it
    cdef readonly Py_ssize_t step_count
    cdef Gate gate
    cdef tuple trees
    cdef list state           # kept alive, since the spans hold their addresses
    cdef cnp.int64_t* step_counts
    cdef Numbers* kept        # what rules keep, by array
    cdef Numbers* advanced    # the same after this step, by row
    cdef double* rows
    cdef int* rules           # of each row
    cdef Py_ssize_t[::1] groups
    cdef int[::1] group_rules
    cdef Py_ssize_t row_count
    cdef Py_ssize_t* leaders  # the first array of each row
    cdef signed char* manners  # how each array's gradient is given: 0 none, 1, 2 wide
    cdef double* totals       # MOST_SUMS for each array
    cdef list directions      # the scratch of matrix rules: (array number, its view), or None
    cdef bint measures, tracked
    cdef bint narrow          # whether some array's state is
    cdef double[:, ::1] tracked_sums
    cdef double loss          # of this step, NaN if it was not given
    cdef double[::1] wholes   # the elements of each array, wherever they lie
    cdef object add_up        # over the processes, or None

    def __cinit__(self, list params, list names, tuple specs, Gate gate, list groups, list rules,
                  list state, cnp.ndarray numbers, list steps, Py_ssize_t step_count, tuple trees,
                  spread=None):
        cdef Py_ssize_t i, j
        sizes, self.add_up = ([array.size for array in params], None) if spread is None else spread
        self.wholes = np.array(sizes, np.float64)
        self.trees = trees
        self.gate = gate
        self.state = state
        self.step_count = step_count
        self.steps = np.array(steps, np.int64)
        self.step_counts = <cnp.int64_t*> cnp.PyArray_DATA(self.steps)
        self.numbers = np.array(numbers, np.float64, order="C")
        if (<object> self.numbers).shape != (self.count, MOST_NUMBERS):
            raise ValueError(f"numbers must have the shape {(self.count, MOST_NUMBERS)}")
        self.kept = <Numbers*> cnp.PyArray_DATA(self.numbers)
        self.groups = np.array(groups, np.intp)
        self.group_rules = np.array([rule["number"] for rule in rules], np.intc)
        for i in range(self.count):
            for j, array in enumerate(state[i]):
                if array is not None:
                    self.set_stream(&self.spans[i], <int> j, <cnp.ndarray?> array,
                                    rules[self.groups[i]]["kinds"][j])
            self.spans[i].param.mapped = is_mapped(params[i])
            self.windowed = self.windowed or self.spans[i].param.mapped
        self.sort_addresses(state)
        self.advanced = <Numbers*> PyMem_Calloc(self.count + 1, sizeof(Numbers))
        self.rows = <double*> PyMem_Calloc(self.count + 1, WIDTH * sizeof(double))
        self.rules = <int*> PyMem_Calloc(self.count + 1, sizeof(int))
        self.leaders = <Py_ssize_t*> PyMem_Calloc(self.count + 1, sizeof(Py_ssize_t))
        self.manners = <signed char*> PyMem_Calloc(self.count + 1, 1)
        self.totals = <double*> PyMem_Calloc(self.count + 1, MOST_SUMS * sizeof(double))
        if (self.advanced == NULL or self.rows == NULL or self.rules == NULL or self.leaders == NULL
                or self.manners == NULL or self.totals == NULL):
            raise MemoryError
        self.tracked_sums = np.zeros((MOST_SUMS, self.count))
        self.work.table = &active().rules[0]
        self.work.rows = self.rows
        self.work.rules = self.rules

    cdef int set_stream(self, Span* span, int slot, cnp.ndarray array, object kind) except -1:
        """Where an array of the state lies, and how its dtype stores what its kind is."""
        cdef Stream* stream = &span.state[slot]
        stream.data = <char*> cnp.PyArray_DATA(array)
        if cnp.PyArray_TYPE(array) == cnp.NPY_UINT16:
            stream.format = BF16 if kind[0] in ("average", "ratio", "precise") else BF16_RANDOM
        elif cnp.PyArray_TYPE(array) != cnp.NPY_UINT8:
            stream.format = span.param.format
        elif kind[0] == "ratio":
            stream.format, stream.beside = RATIO8, kind[1]
            span.state[stream.beside].format = PAIRED8
        elif kind[0] == "square":
            if stream.format != PAIRED8:
                stream.format = ROOT8
        else:
            stream.format = SIZE8 if kind[0] == "size" else SIGNED8
        if stream.format >= BF16:
            self.narrow = span.narrow = True
        if array.size == span.length or stream.format >= ROOT8:
            stream.mapped = is_mapped(array)
            self.windowed = self.windowed or stream.mapped
        return 0

    def __dealloc__(self):
        PyMem_Free(self.advanced)
        PyMem_Free(self.rows)
        PyMem_Free(self.rules)
        PyMem_Free(self.leaders)
        PyMem_Free(self.manners)
        PyMem_Free(self.totals)

    def sums(self):
        """What the last step taken has summed over each array.

        Returns: (4, number of arrays) float64: the squares of its gradient, of its update and of
        itself after the step, and gradient times update; zeros for an array without a gradient.
        None if the step was taken without `track`.
        """
        return np.array(self.tracked_sums) if self.tracked else None

    cdef Py_ssize_t take(self, grads, tuple groups, double grad_scale, double loss, limits,
                         bint finite_only, bint track) except? -3:
        """The step; see `step`."""
        cdef double clip_norm, clip_value
        self.loss = loss
        try:
            self.collect(grads)
            self.note_mapped()
            self.check_forms(groups)
            groups = self.evaluated(groups)
            clip_norm, clip_value = limits(self.step_count) if callable(limits) else limits
            self.fill_rows(groups)
            self.bind()
            return self.run(groups, grad_scale, clip_norm, clip_value, finite_only, track)
        finally:
            self.release()

    cdef int note_mapped(self) except -1:
        """Which gradients lie in files."""
        cdef Py_ssize_t i
        if self.windowed:
            for i in range(self.count):
                self.spans[i].source.mapped = is_mapped(self.held[i])
        return 0

    cdef int check_forms(self, tuple groups) except -1:
        """A rule that looks at the whole of an array before it updates it cannot go on with some rows."""
        cdef Py_ssize_t i
        for i in range(self.count):
            if self.rows_of[i] is None or type(self.rows_of[i]) is list:
                continue  # of all elements, if only in one part of a sum
            if self.spans[i].narrow and self.has_codes(i) and not (<tuple> self.rows_of[i])[6]:
                raise TypeError(
                    f"gradient {self.names[i]!r} is of some rows or elements, and the parameter's 8-bit "
                    'state is stored in blocks of 256 elements; use state_dtype="bfloat16", or pass a '
                    "dense array")
            if self.rule_of(i).by_row:
                if (<tuple> self.rows_of[i])[5] != self.spans[i].width:
                    raise TypeError(
                        f"gradient {self.names[i]!r} is of some elements, and "
                        f"{groups[self.groups[i]].kind.__name__} looks at whole rows; pass Rows, or "
                        ".toarray() of it")
            elif self.rule_of(i).measure_single != NULL:
                raise TypeError(
                    f"gradient {self.names[i]!r} is of some rows or elements, and "
                    f"{groups[self.groups[i]].kind.__name__} with these hyperparameters looks at whole "
                    "arrays; pass a dense array, .toarray() of it, or give the parameter a group with "
                    "another rule")
        return 0

    cdef bint has_codes(self, Py_ssize_t i) noexcept:
        """Whether the state of array i has 8-bit codes."""
        cdef int slot
        for slot in range(self.rule_of(i).state):
            if self.spans[i].state[slot].data != NULL and self.spans[i].state[slot].format >= ROOT8:
                return True
        return False

    # --- what is checked once more, since others can change it ---

    cdef int bind(self) except -1:
        cdef Py_ssize_t i, leaf = 0
        self.check_parameters()
        for i in range(len(self.trees)):
            leaf = self.check_containers(self.specs[i], self.trees[i], leaf)
        Binding.bind(self)
        return 0

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
            if (<char*> cnp.PyArray_DATA(array) != self.spans[i].param.data or size != self.spans[i].length
                    or (cnp.PyArray_TYPE(array) == cnp.NPY_DOUBLE) != (self.spans[i].param.format == F64)
                    or not cnp.PyArray_ISNOTSWAPPED(array)):
                raise ValueError(
                    f"parameter {self.names[i]!r} was resized, moved or given another dtype since the "
                    "optimizer was made; call rebind() with arrays like the original ones")
            if not cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_WRITEABLE):
                raise ValueError(
                    f"parameter {self.names[i]!r} has become read-only, so it cannot be updated; "
                    "make it writeable, or rebind() the optimizer to other arrays")
        return 0

    cdef Py_ssize_t check_containers(self, object spec, object node, Py_ssize_t leaf) except -1:
        """Refuse to go on in an array in whose place its container holds another: an entry was assigned
        and not filled. The number of the leaf after `node`.
        """
        cdef Py_ssize_t i, position = 0
        cdef PyObject* key
        cdef PyObject* child
        cdef tuple keys, children
        if spec is None:
            if node is not self.params[leaf] and cnp.PyArray_Check(node):
                raise ValueError(
                    f"parameter {self.names[leaf]!r} was replaced by another array in its container, but "
                    "the optimizer still updates the old one; fill it in place, as in p['W'][...] = "
                    "values, or call rebind() with the containers as they are now")
            return leaf + 1
        keys, children = <tuple> spec
        if keys is None:
            if not isinstance(node, (list, tuple)) or len(node) != len(children):
                return leaf + leaves(spec)
            for i in range(len(children)):
                leaf = self.check_containers(children[i], node[i], leaf)
            return leaf
        if not isinstance(node, dict) or len(<dict> node) != len(keys):
            return leaf + leaves(spec)
        for i in range(len(keys)):
            if not PyDict_Next(node, &position, &key, &child) or <object> key is not keys[i]:
                child = PyDict_GetItem(node, keys[i])  # in another order than at first
            leaf = self.check_containers(children[i], None if child == NULL else <object> child, leaf)
        return leaf

    # --- a host that hands its arrays over with every step ---

    cdef list follow(self, object params):
        """Go on in other arrays where `params` has others. Returns those before, None if none is another.

        Raises: TypeError, ValueError naming a parameter; nothing has changed then.
        """
        cdef list fresh = list(self.params)
        cdef list before = None
        cdef tuple trees
        cdef Py_ssize_t leaf = 0, i
        if self.group_count == 1:
            trees = (only_tree(self.specs[0], params),)
        elif isinstance(params, (list, tuple)) and len(params) == self.group_count:
            trees = tuple(params)
        else:
            raise ValueError(
                f"params: expected a list of {self.group_count} trees, one for each parameter group, got "
                f"{describe(params)}")
        for i in range(self.group_count):
            leaf = self.leaves_of(self.specs[i], trees[i], leaf, fresh)
        for i in range(self.count):
            if fresh[i] is not self.params[i]:
                self.check_successor(i, fresh[i])
                before = self.params
        if before is not None:
            self.move(fresh)
        self.trees = trees
        return before

    @cython.boundscheck(True)
    cdef Py_ssize_t leaves_of(self, object spec, object node, Py_ssize_t leaf, list found) except -1:
        """Put the leaves of `node` in `found` from number `leaf` on; the number of the next one."""
        cdef tuple keys, children
        cdef Py_ssize_t i, n
        if spec is None:
            found[leaf] = node
            return leaf + 1
        keys, children = <tuple> spec
        n = len(children)
        if keys is None:
            if not isinstance(node, (list, tuple)) or len(node) != n:
                raise ValueError(f"params: expected a sequence of length {n}, got {describe(node)}")
            for i in range(n):
                leaf = self.leaves_of(children[i], node[i], leaf, found)
            return leaf
        if not isinstance(node, dict) or len(<dict> node) != n:
            raise ValueError(f"params: expected a dict with the keys {list(keys)}, got {describe(node)}")
        for i in range(n):
            if keys[i] not in <dict> node:
                raise ValueError(
                    f"params: expected a dict with the keys {list(keys)}, got {describe(node)}")
            leaf = self.leaves_of(children[i], (<dict> node)[keys[i]], leaf, found)
        return leaf

    cdef int check_successor(self, Py_ssize_t i, object array) except -1:
        """Refuse an array that cannot take the place of a parameter: the state is laid out as that is."""
        cdef cnp.ndarray old = <cnp.ndarray> self.params[i]
        if (cnp.PyArray_CheckExact(array)
                and cnp.PyArray_TYPE(<cnp.ndarray> array) == cnp.PyArray_TYPE(old)
                and cnp.PyArray_ISBEHAVED(<cnp.ndarray> array)
                and cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray> array)
                and same_shape(<cnp.ndarray> array, old) and same_order(<cnp.ndarray> array, old)):
            return 0
        check_parameter(self.names[i], array)
        if not same_shape(<cnp.ndarray> array, old) or array.dtype != old.dtype:
            raise ValueError(
                f"params: parameter {self.names[i]!r} has shape {array.shape} and dtype {array.dtype}, "
                f"expected {(<object> old).shape} and {(<object> old).dtype}")
        if not same_order(<cnp.ndarray> array, old):
            raise ValueError(
                f"params: parameter {self.names[i]!r} is laid out in the other order (C or Fortran) than "
                "the array that it replaces; pass a copy with order='K' of that one")
        return 0

    cdef int move(self, list fresh) except -1:
        """Take these arrays, which are checked one by one, in place of those before.

        Raises: ValueError if two of them, or one and the state, share memory; nothing has changed then.
        """
        cdef Py_ssize_t i, k
        cdef Py_ssize_t[::1] numbers = self.sorted_params
        lows, highs = np.array(self.sorted_lows), np.array(self.sorted_highs)
        cdef size_t[::1] low = lows, high = highs
        for k in range(numbers.shape[0]):
            i = numbers[k]
            if i < self.count:
                high[k] = high[k] - low[k] + <size_t> cnp.PyArray_DATA(<cnp.ndarray> fresh[i])
                low[k] = <size_t> cnp.PyArray_DATA(<cnp.ndarray> fresh[i])
        order = np.argsort(lows, kind="stable")
        lows, highs, which = lows[order], highs[order], np.asarray(numbers)[order]
        shared = np.flatnonzero(highs[:-1] > lows[1:])
        if shared.size:
            first, second = (self.names[which[shared[0] + j] % self.count] for j in range(2))
            raise ValueError(
                f"params: the memory of parameters {first!r} and {second!r}, or of their state, overlaps")
        self.sorted_lows, self.sorted_highs, self.sorted_params = lows, highs, which
        self.params = fresh
        for i in range(self.count):
            self.spans[i].param.data = <char*> cnp.PyArray_DATA(<cnp.ndarray> fresh[i])
            self.spans[i].source.grad = NULL  # where it lay the last time a parameter may lie now
            if self.windowed:
                self.spans[i].param.mapped = is_mapped(fresh[i])
        return 0

    # --- rows of coefficients ---

    cdef const Rule* rule(self, Py_ssize_t row) noexcept:
        return self.work.table + self.rules[row]

    cdef const Rule* rule_of(self, Py_ssize_t i) noexcept:
        """Of array i."""
        return self.work.table + self.group_rules[self.groups[i]]

    cdef tuple evaluated(self, tuple groups):
        """The groups with their schedules evaluated, which is Python code."""
        for group in groups:
            if group.scheduled:
                return tuple([group.at(self.step_count) for group in groups])
        return groups

    cdef int fill_rows(self, tuple groups) except -1:
        """A row for each group, number of steps taken and numbers kept, among the arrays that have a
        gradient; one for each array where sums over it decide.

        As long as the same arrays have one, those of a row march in step and stay together.
        """
        cdef Py_ssize_t i, row
        for i in range(self.count):
            if self.manners[i] != self.manner(i):
                self.assign_rows()
                break
        for row in range(self.row_count):
            i = self.leaders[row]
            group = groups[self.groups[i]]
            self.advanced[row] = self.kept[i]
            self.rule(row).fill(<const double*> cnp.PyArray_DATA(<cnp.ndarray> group.packed),
                                self.step_counts[i] + 1.0, &self.advanced[row].values[0],
                                self.rows + row * WIDTH)
            self.head(row).scale = -1.0 if group.maximize else 1.0
            self.head(row).loss = -self.loss if group.maximize else self.loss
        if self.narrow:
            for i in range(self.count):
                if self.spans[i].narrow:
                    self.draw_seeds(i)
        return 0

    cdef int draw_seeds(self, Py_ssize_t i) noexcept:
        """Of the noise with which the state of array i is rounded: from its number and its step alone."""
        cdef int slot
        cdef uint32_t stream
        for slot in range(MOST_STREAMS):
            stream = fastgd_mix(<uint32_t> (i * MOST_STREAMS + slot))
            self.spans[i].state[slot].seed = fastgd_mix(stream + <uint32_t> self.step_counts[i])
        return 0

    cdef inline Head* head(self, Py_ssize_t row) noexcept:
        return <Head*> (self.rows + row * WIDTH)

    cdef inline int manner(self, Py_ssize_t i) noexcept:
        return 0 if self.held[i] is None else 2 if self.spans[i].wide else 1

    cdef int assign_rows(self) except -1:
        cdef Py_ssize_t i, row
        cdef const Rule* rule
        cdef dict rows = {}
        self.row_count = 0
        self.measures = False
        for i in range(self.count):
            self.spans[i].row = -1
            self.manners[i] = self.manner(i)
            if self.manners[i] == 0:
                continue
            rule = self.rule_of(i)
            key = (
                self.groups[i], self.step_counts[i], self.manners[i], self.numbers[i].tobytes(),
                i if rule.sums > 0 and not rule.joint else -1,
            )
            if key not in rows:
                row = rows[key] = self.row_count
                self.rules[row] = self.group_rules[self.groups[i]]
                self.leaders[row] = i
                self.row_count += 1
                self.measures = self.measures or rule.sums > 0
            self.spans[i].row = rows[key]
        return 0

    # --- the stages ---

    cdef double sum_squares(self, double scale, int team) except? -1:
        """Of all processes."""
        cdef Py_ssize_t i
        cdef double total = Binding.sum_squares(self, scale, team)
        if self.add_up is None:
            return total
        all_squares = np.asarray(<double[:self.count]> self.squares)
        self.add_up(all_squares)
        self.bind()  # Python code has run
        total = 0
        for i in range(self.count):
            total += self.squares[i]
        return total

    cdef Py_ssize_t run(self, tuple groups, double grad_scale, double clip_norm, double clip_value,
                        bint finite_only, bint track) except? -3:
        cdef double norm = 0, factor = grad_scale
        cdef Py_ssize_t i, culprit
        cdef bint reduce = clip_norm != INFINITY or finite_only
        cdef Pace pace = self.gate.pace
        cdef list written = []
        cdef int team = pace.choose(self.elements, SERIAL_BELOW)
        self.work.track = track
        if reduce:
            norm = self.gradient_norm(team)
            factor = clipped(grad_scale, norm, clip_norm)
            culprit = self.culprit(factor, clip_value) if finite_only else -1
            if culprit >= 0:
                return culprit
        reported = fabs(grad_scale) * norm if reduce else None
        self.set_heads(factor, clip_value)
        if self.directions is None:
            self.make_directions()
        if self.directions:
            written = self.direct(groups, team)
        if self.measures:
            self.measure(team)
        self.sweep(UPDATE_BACKWARDS if reduce or self.measures else UPDATE, team)
        pace.done(self.elements)
        for target, source in written:
            cnp.PyArray_CopyInto(<cnp.ndarray> target, <cnp.ndarray> source)
        self.commit(reported)
        self.tracked = track
        if track:
            for i in range(MOST_SUMS):
                self.add_pieces(<int> i, &self.tracked_sums[i, 0])
        return TAKEN

    cdef int set_heads(self, double factor, double clip_value) noexcept:
        """Where a gradient is scaled: by its rule, or in double precision before it is rounded."""
        cdef Py_ssize_t row
        cdef bint before = not LEAST_FACTOR < fabs(factor) < MOST_FACTOR
        self.work.prescale = factor if before else 1
        self.work.wide_scale = factor
        for row in range(self.row_count):
            if not before and self.manners[self.leaders[row]] != 2:
                self.head(row).scale *= factor
            self.head(row).clip_value = clip_value
        return 0

    cdef int measure(self, int team) except -1:
        """What rules that look before they update see, and conclude."""
        cdef Py_ssize_t i, j, row
        cdef double elements = 0
        cdef double[MOST_SUMS] joint
        cdef const Rule* rule
        cdef const double* sums
        cdef double[:, ::1] by_sum = np.empty((MOST_SUMS, self.count))
        self.sweep(MEASURE, team)
        for j in range(MOST_SUMS):
            joint[j] = 0
            self.add_pieces(j, &by_sum[j, 0])
        if self.add_up is not None:
            self.add_up(np.asarray(by_sum))
            self.bind()  # Python code has run
        for i in range(self.count):
            for j in range(MOST_SUMS):
                self.totals[i * MOST_SUMS + j] = by_sum[j, i]
        for i in range(self.count):
            row = self.spans[i].row
            if row >= 0 and self.rule(row).joint:
                elements += self.wholes[i]
                for j in range(self.rule(row).sums):
                    joint[j] += self.totals[i * MOST_SUMS + j]
        for row in range(self.row_count):
            rule = self.rule(row)
            i = self.leaders[row]
            if rule.sums > 0:
                sums = &joint[0] if rule.joint else self.totals + i * MOST_SUMS
                rule.conclude(sums, elements if rule.joint else self.wholes[i],
                              &self.advanced[row].values[0], self.rows + row * WIDTH)
        return 0

    cdef int make_directions(self) except -1:
        """The scratch of matrix rules, as large as the arrays that have one: once for each plan."""
        cdef Py_ssize_t i
        cdef const Rule* rule
        cdef list made = []
        for i in range(self.count):
            rule = self.rule_of(i)
            if rule.matrix:
                array = np.empty_like(self.params[i], order="K", subok=False)
                self.spans[i].state[rule.state].data = <char*> cnp.PyArray_DATA(array)
                made.append((i, array))
        self.directions = made
        return 0

    cdef list direct(self, tuple groups, int team):
        """The directions, and what NumPy makes of them: pairs of a state array that is no stream of the
        rule, and what it will hold. Nothing else has been written so far, and afterwards everything is
        bound anew, since Python code has run.
        """
        cdef Py_ssize_t i
        cdef list written = []
        self.sweep(DIRECT, team)
        for i, array in self.directions:
            if self.spans[i].row >= 0:
                written += groups[self.groups[i]].direct(
                    array, self.params[i], self.state[i], self.step_counts[i] + 1)
        self.bind()
        return written

    cdef int commit(self, grad_norm) except -1:
        """What the step changes beside the arrays."""
        cdef Py_ssize_t i
        for i in range(self.count):
            if self.spans[i].row >= 0:
                self.step_counts[i] += 1
                self.kept[i] = self.advanced[self.spans[i].row]
        if self.measures:
            self.share_numbers()
        self.grad_norm = grad_norm
        self.step_count += 1
        return 0

    cdef int share_numbers(self) noexcept:
        """What a joint rule keeps is the same for all arrays of a group, those without a gradient too."""
        cdef Py_ssize_t i, row, group
        for row in range(self.row_count):
            if self.rule(row).joint:
                group = self.groups[self.leaders[row]]
                for i in range(self.count):
                    if self.spans[i].row < 0 and self.groups[i] == group:
                        self.kept[i] = self.advanced[row]
        return 0

    cdef Py_ssize_t culprit(self, double factor, double clip_value) noexcept:
        """The first array whose gradient is not finite as its rule takes it, or whose square would not
        be where the rule keeps such: a second moment that is infinite never comes back.
        """
        cdef Py_ssize_t i
        cdef bint single, squares
        cdef double largest, size, scale = fabs(factor) if isfinite(factor) else 1
        for i in range(self.count):
            single = self.spans[i].param.format != F64
            squares = self.rule_of(i).squares
            largest = 2.0 ** 128 if single else INFINITY
            if squares:
                largest = 2.0 ** 64 if single else 2.0 ** 512
            size = root(self.squares[i]) / self.work.scale
            if not size < INFINITY or not min(size * scale, clip_value) < largest:
                return i
        return -1


cdef Py_ssize_t leaves(object spec) except -1:
    return 1 if spec is None else sum([leaves(child) for child in spec[1]])


cdef double clipped(double grad_scale, double norm, double clip_norm) noexcept:
    """The factor of all gradients, whose norm is `norm`."""
    cdef double scaled = fabs(grad_scale) * norm
    # A NaN norm gives NaN, which propagates; a norm of 0 gives inf, hence 1.
    if clip_norm == INFINITY or clip_norm / scaled > 1:
        return grad_scale
    if scaled == INFINITY and norm < INFINITY:  # grad_scale alone takes it out of range
        return copysign(clip_norm / norm, grad_scale)
    return grad_scale * (clip_norm / scaled)


def step(optimizer, grads, double grad_scale, double loss=NAN, params=None):
    """Validate everything, then take the step.

    Args:
        optimizer: with `_gate`, and `_bound`: the plan, the groups (see ParamGroup) and the options, of
            which `limits` are the largest global norm and the largest magnitude of an element, inf for
            no clipping, or a function of the step count that returns the two; `finite_only` takes no
            step when a gradient has a NaN or an infinity.
        grads: see Binding.collect.
        grad_scale: multiplies every gradient.
        loss: for a rule that needs it.
        params: the parameters' arrays as the host has them now, None for those of the last step.

    Returns:
        None; or the name of the first array with a non-finite gradient, which kept the step from being
        taken.
    """
    cdef Gate gate = optimizer._gate
    cdef Plan plan
    cdef Py_ssize_t outcome
    cdef list before = None
    cdef tuple trees
    gate.enter()
    try:
        bound = optimizer._bound
        plan = bound.plan
        options = bound.options
        if params is not None:
            trees = plan.trees
            before = plan.follow(params)
            if before is not None:
                bound = bound.following(plan.params, plan.trees)
        try:
            outcome = plan.take(grads, bound.groups, grad_scale, loss, options.limits,
                                options.finite_only, optimizer.track_norms)
        except BaseException:
            if before is not None:
                plan.move(before)
            if params is not None:
                plan.trees = trees
            raise
        if before is not None:  # no Python code has run since the arrays were written
            object.__setattr__(optimizer, "_bound", bound)
        return None if outcome == TAKEN else plan.names[outcome]
    finally:
        gate.leave()
