# The second half of a step: the norm where it is asked for, and the update.

cdef enum:
    TAKEN = -1
    RETIRED = -2

taken = TAKEN
retired = RETIRED


cdef class Plan(Binding):
    """One optimizer's arrays and state, and the step over them.

    Immutable but for the step counts and the coefficients: an optimizer whose arrays, groups or
    slots change builds a new plan and swaps it in, so that nothing is ever half changed.

    Args:
        params, names, groups, specs: see Binding.
        gate: serialises whatever uses the plan.
        rule: one of rule_names.
        slots: for each array the arrays of the rule's state slots, None where unused; same size,
            dtype and memory order as the parameter.
        steps: how many steps each array has taken.
    """

    cdef readonly cnp.ndarray steps
    cdef readonly object grad_norm  # before clipping, None where the last step taken did not need it
    cdef public Py_ssize_t step_count
    cdef public bint retired  # replaced by another plan
    cdef Gate gate
    cdef list slots           # kept alive, since the spans hold their addresses
    cdef cnp.int64_t[::1] step_counts
    cdef double[:, ::1] coefficients
    cdef double[::1] array_sums     # of the squares of each gradient, times a scale's square
    cdef double[:, ::1] tracked_sums
    cdef list leaders         # the first array of each row
    cdef bint tracked, any_double

    def __cinit__(self, list params, list names, list groups, tuple specs, Gate gate, str rule,
                  list slots, list steps, Py_ssize_t step_count):
        cdef Py_ssize_t i, j
        self.gate = gate
        self.slots = slots
        self.step_count = step_count
        self.steps = np.array(steps, np.int64)
        self.step_counts = self.steps
        for i in range(self.count):
            for j, slot in enumerate(slots[i]):
                if slot is not None:
                    self.spans[i].slots[j] = <size_t> cnp.PyArray_DATA(slot)
        self.sort_addresses()
        self.any_double = bool((self.span_array["double_"] == 1).any())
        self.array_sums = np.zeros(self.count)
        self.tracked_sums = np.zeros((4, self.count))
        self.coefficients = np.zeros((self.group_count, WIDTH))
        self.leaders = []
        self.work.scale = 1
        self.work.rule = rule_names.index(rule)

    def step(self, grads, list groups, coefficients, double grad_scale, limits, bint finite_only,
             bint track):
        """Validate everything, then take the step.

        Args:
            grads: see Binding.collect.
            groups: the ParamGroups.
            coefficients: a function of (hyperparameters, t) that returns (weight decay, the rule's
                coefficients …) for the arrays of a group that take their t-th step now.
            grad_scale: multiplies every gradient.
            limits: the largest global norm and the largest magnitude of an element, inf for no
                clipping; or a function of the step count that returns the two.
            finite_only: take no step when a gradient has a NaN or an infinity.
            track: also sum the squares of gradients, updates and parameters, for `sums`.

        Returns:
            TAKEN; or RETIRED, if another thread has put a new plan in this one's place; or the number
            of the first non-finite gradient, which kept the step from being taken.
        """
        cdef double clip_norm, clip_value
        self.gate.enter()
        try:
            if self.retired:
                return RETIRED
            self.collect(grads)
            self.fill_rows(groups, coefficients)
            clip_norm, clip_value = limits(self.step_count) if callable(limits) else limits
            self.bind()
            return self.run(grad_scale, clip_norm, clip_value, finite_only, track)
        finally:
            self.release()
            self.gate.leave()

    def norm(self, grads):
        """The global norm of `grads`, without a step."""
        self.gate.enter()
        try:
            self.collect(grads)
            self.bind()
            return self.gradient_norm(team_size(self.elements, SERIAL_BELOW))
        finally:
            self.release()
            self.gate.leave()

    def sums(self):
        """What the last step taken has summed over each array.

        Returns: (4, number of arrays) float64: the squares of its gradient, of its update and of
        itself after the step, and gradient times update; zeros for an array without a gradient.
        None if the step was taken without `track`.
        """
        with self.gate:
            return np.array(self.tracked_sums) if self.tracked else None

    # --- rows of coefficients ---

    cdef int fill_rows(self, list groups, object coefficients) except -1:
        """A row for each group and number of steps taken, among the arrays that have a gradient.

        As long as the same arrays have one, those of a row march in step and stay together.
        """
        cdef Py_ssize_t i, row
        for i in range(self.count):
            if (self.spans[i].row >= 0) != (self.held[i] is not None):
                self.assign_rows()
                break
        for row in range(len(self.leaders)):
            i = self.leaders[row]
            self.fill_row(row, groups[self.groups[i]], coefficients, self.step_counts[i] + 1)
        return 0

    cdef int assign_rows(self) except -1:
        cdef Py_ssize_t i
        cdef dict rows = {}
        self.leaders = []
        for i in range(self.count):
            self.spans[i].row = -1
            if self.held[i] is not None:
                key = self.groups[i], self.step_counts[i]
                if key not in rows:
                    rows[key] = len(rows)
                    self.leaders.append(i)
                self.spans[i].row = rows[key]
        if len(rows) > self.coefficients.shape[0]:
            self.coefficients = np.zeros((len(rows), WIDTH))
        return 0

    cdef int fill_row(self, Py_ssize_t row, object group, object coefficients, Py_ssize_t t) except -1:
        cdef Py_ssize_t i
        cdef dict hyperparameters = group.constants
        cdef tuple values
        if group.scheduled:
            hyperparameters = group.values_at(self.step_count)
        values = coefficients(hyperparameters, t)
        if len(values) != 1 + RULES[self.work.rule].coefficients:
            raise ValueError(
                f"rule {rule_names[self.work.rule]!r} takes the weight decay and "
                f"{RULES[self.work.rule].coefficients} coefficients, got {len(values)} numbers: the "
                "engine and the Python files are of different versions; build it again")
        self.coefficients[row, SCALE] = -1.0 if hyperparameters["maximize"] else 1.0
        for i in range(len(values)):
            self.coefficients[row, WEIGHT_DECAY + i] = values[i]
        return 0

    # --- the passes ---

    cdef Py_ssize_t run(self, double grad_scale, double clip_norm, double clip_value,
                        bint finite_only, bint track) except? -3:
        cdef double raw, norm = 0, factor = grad_scale
        cdef Py_ssize_t i, culprit
        cdef bint reduce = clip_norm != INFINITY or finite_only
        cdef Pace pace = self.gate.pace
        cdef int team = pace.choose(self.elements, SERIAL_BELOW)
        self.work.coefficients = &self.coefficients[0, 0]
        self.work.track = track
        if reduce:
            raw = self.gradient_norm(team)
            norm = fabs(grad_scale) * raw
            culprit = self.culprit() if finite_only else -1
            if culprit >= 0:
                return culprit
            self.grad_norm = norm
            # A NaN norm gives NaN, which propagates; a norm of 0 gives inf, hence 1.
            if clip_norm != INFINITY and not clip_norm / norm > 1:
                if norm == INFINITY and raw < INFINITY:  # grad_scale alone takes it out of range
                    factor = copysign(clip_norm / raw, grad_scale)
                else:
                    factor *= clip_norm / norm
        for i in range(len(self.leaders)):
            self.coefficients[i, SCALE] *= factor
            self.coefficients[i, CLIP_VALUE] = clip_value
        self.sweep(UPDATE_BACKWARDS if reduce else UPDATE, team)
        pace.done(self.elements)
        if track:
            for i in range(4):
                self.add_pieces(i, self.tracked_sums[i])
        self.tracked = track
        for i in range(self.count):
            self.step_counts[i] += self.has_gradient(i)
        if not reduce:
            self.grad_norm = None
        self.step_count += 1
        return TAKEN

    cdef int sweep(self, Pass what, int team) except -1:
        cdef const Work* work = &self.work
        if team == 1 and self.elements < GIL_BELOW:
            pass_range(work, what, 0, 1)
        else:
            with nogil:
                pass_all(work, what, team)
        return 0

    cdef int add_pieces(self, Py_ssize_t which, double[::1] out) except -1:
        """The sum over the pieces of each array, in order."""
        cdef Py_ssize_t number, piece, i
        cdef const double* values = self.work.grad_squares + which * self.partials.shape[1]
        out[:] = 0
        for number in range(self.work.chunk_count):
            i = self.work.first[number]
            for piece in range(self.work.piece[number], self.work.piece[number + 1]):
                if self.has_gradient(i) and self.spans[i].length > 0:
                    out[i] += values[piece]
                i += 1
        return 0

    cdef double sum_squares(self, double scale, int team) except? -1:
        """The sum of the squares of all gradients times `scale`; each array's in array_sums."""
        cdef Py_ssize_t i
        cdef double total = 0
        self.work.scale = scale
        self.sweep(REDUCE, team)
        self.add_pieces(0, self.array_sums)
        for i in range(self.count):
            total += self.array_sums[i]
        return total

    cdef double gradient_norm(self, int team) except? -1:
        """The global norm. A NaN or an infinity shows in it, and in the sums of its arrays.

        A sum of squares outside 1e-200 … 1e200 may have lost range, as sums of float64 squares can:
        it is taken again over elements times a power of two that keeps every finite one in range.
        """
        cdef double scale = 1, total = self.sum_squares(scale, team)
        if not 1e-200 < total < 1e200 and self.any_double:
            scale = 2.0 ** 600 if total < 1 else 2.0 ** -600
            total = self.sum_squares(scale, team)
        return root(total) / scale

    cdef Py_ssize_t culprit(self) noexcept:
        """The first array whose gradient is not finite, by gradient_norm's sums."""
        cdef Py_ssize_t i
        for i in range(self.count):
            if not isfinite(self.array_sums[i]):
                return i
        return -1
