"""Sums of squares whose bits depend on nothing but the data.

Lane l of a block adds elements l, l + LANES, l + 2 LANES, … in a double; then the lanes are added in
order. The number of lanes does not depend on the instruction set, and blocks do not depend on the
number of threads. float32 squares are exact in double and cannot overflow it; a sum of float64 squares
that leaves the safe range is taken again over elements scaled by a power of two.
"""

from fastgd._engine.rules._common cimport floating, fma

cdef enum:
    LANES = 32


cdef inline double add_lanes(const double* lanes) noexcept nogil:
    cdef double total = 0
    cdef int lane
    for lane in range(LANES):
        total += lanes[lane]
    return total


cdef inline void square_sums(double* lanes, const floating* x, Py_ssize_t n, double scale,
                             bint scaled) noexcept nogil:
    cdef double value
    cdef Py_ssize_t i, block, whole = n - n % LANES
    cdef int lane
    for block in range(n // LANES):
        for lane in range(LANES):
            value = x[block * LANES + lane]
            if scaled:
                value = value * scale
            lanes[lane] = fma(value, value, lanes[lane])
    for i in range(whole, n):
        value = x[i]
        if scaled:
            value = value * scale
        lanes[i - whole] = fma(value, value, lanes[i - whole])


cdef inline void add_squares(double* lanes, const floating* x, Py_ssize_t n,
                             double scale) noexcept nogil:
    """Add (scale * x)² to the lanes. Only the last of the blocks may be no multiple of LANES long."""
    if scale == 1:
        square_sums(lanes, x, n, scale, False)
    else:
        square_sums(lanes, x, n, scale, True)


cdef inline void add_products(double* lanes, const floating* x, const floating* y,
                              Py_ssize_t n) noexcept nogil:
    """Add x * y to the lanes, or x where y is NULL. As add_squares of blocks."""
    cdef Py_ssize_t i, block, whole = n - n % LANES
    cdef int lane
    if y == NULL:
        for block in range(n // LANES):
            for lane in range(LANES):
                lanes[lane] += x[block * LANES + lane]
        for i in range(whole, n):
            lanes[i - whole] += x[i]
        return
    for block in range(n // LANES):
        for lane in range(LANES):
            i = block * LANES + lane
            lanes[lane] = fma(<double> x[i], <double> y[i], lanes[lane])
    for i in range(whole, n):
        lanes[i - whole] = fma(<double> x[i], <double> y[i], lanes[i - whole])


# What a tracked step sums over each array.
cdef struct Sums:
    double grad     # squares
    double update
    double param
    double product  # of gradient and update


cdef inline Sums sum_block(const floating* after, const floating* before, const floating* grad,
                           Py_ssize_t n) noexcept nogil:
    """The sums over one block, in lanes of the arrays' own type."""
    cdef floating grads[LANES]
    cdef floating updates[LANES]
    cdef floating params[LANES]
    cdef floating products[LANES]
    cdef floating g, p, update
    cdef Sums sums = Sums(0, 0, 0, 0)
    cdef Py_ssize_t i, block
    cdef int lane
    for lane in range(LANES):
        grads[lane] = updates[lane] = params[lane] = products[lane] = 0
    for block in range(n // LANES):
        for lane in range(LANES):
            i = block * LANES + lane
            g, p = grad[i], after[i]
            update = p - before[i]
            grads[lane] = fma(g, g, grads[lane])
            updates[lane] = fma(update, update, updates[lane])
            params[lane] = fma(p, p, params[lane])
            products[lane] = fma(g, update, products[lane])
    for i in range(n - n % LANES, n):
        lane = i % LANES
        g, p = grad[i], after[i]
        update = p - before[i]
        grads[lane] = fma(g, g, grads[lane])
        updates[lane] = fma(update, update, updates[lane])
        params[lane] = fma(p, p, params[lane])
        products[lane] = fma(g, update, products[lane])
    for lane in range(LANES):
        sums.grad += grads[lane]
        sums.update += updates[lane]
        sums.param += params[lane]
        sums.product += products[lane]
    return sums


cdef inline bint in_range(double square) noexcept nogil:
    """Whether a sum of squares in float32 has lost nothing to overflow or underflow."""
    return 1e-30 < square < 1e30


cdef inline void add_block(Sums* total, const floating* after, const floating* before,
                           const floating* grad, Py_ssize_t n) noexcept nogil:
    """Add the sums over one block of at most a few thousand elements.

    float32 blocks are summed in float32, four times as fast as in double and good to six digits; a
    block that leaves the range of float32's squares is summed again in double.
    """
    cdef Sums sums = sum_block(after, before, grad, n)
    cdef double g, p, update
    cdef Py_ssize_t i
    if floating is float:
        if not (in_range(sums.grad) and in_range(sums.update) and in_range(sums.param)):
            sums = Sums(0, 0, 0, 0)
            for i in range(n):
                g, p = grad[i], after[i]
                update = p - <double> before[i]
                sums.grad += g * g
                sums.update += update * update
                sums.param += p * p
                sums.product += g * update
    total.grad += sums.grad
    total.update += sums.update
    total.param += sums.param
    total.product += sums.product
