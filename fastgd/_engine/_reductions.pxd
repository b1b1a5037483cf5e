"""Sums of squares whose bits depend on nothing but the data.

Lane l of a block adds elements l, l + LANES, l + 2 LANES, … in a double; then the lanes are added in
order. The number of lanes does not depend on the instruction set, and blocks do not depend on the
number of threads. float32 squares are exact in double and cannot overflow it; a sum of float64 squares
that leaves the safe range is done again, scaled by the largest element.
"""

from fastgd._engine._rules cimport fma, floating, sqrt

cdef enum:
    LANES = 32


cdef inline double add_lanes(const double* lanes) noexcept nogil:
    cdef double total = 0
    cdef int lane
    for lane in range(LANES):
        total += lanes[lane]
    return total


cdef inline double sum_of_squares(const floating* x, Py_ssize_t n) noexcept nogil:
    cdef double lanes[LANES]
    cdef double value
    cdef Py_ssize_t i, block, whole = n - n % LANES
    cdef int lane
    for lane in range(LANES):
        lanes[lane] = 0
    for block in range(n // LANES):
        for lane in range(LANES):
            value = x[block * LANES + lane]
            lanes[lane] = fma(value, value, lanes[lane])
    for i in range(whole, n):
        value = x[i]
        lanes[i - whole] = fma(value, value, lanes[i - whole])
    return add_lanes(lanes)


cdef inline double update_sums(const floating* after, const floating* before, const floating* grad,
                               Py_ssize_t n, double* product) noexcept nogil:
    """Sum of (after - before)²; adds the sum of grad * (after - before) to `product`."""
    cdef double squares[LANES]
    cdef double products[LANES]
    cdef double update
    cdef Py_ssize_t i, block, whole = n - n % LANES
    cdef int lane
    for lane in range(LANES):
        squares[lane] = products[lane] = 0
    for block in range(n // LANES):
        for lane in range(LANES):
            i = block * LANES + lane
            update = <double> after[i] - <double> before[i]
            squares[lane] = fma(update, update, squares[lane])
            products[lane] = fma(<double> grad[i], update, products[lane])
    for i in range(whole, n):
        update = <double> after[i] - <double> before[i]
        squares[i - whole] = fma(update, update, squares[i - whole])
        products[i - whole] = fma(<double> grad[i], update, products[i - whole])
    product[0] += add_lanes(products)
    return add_lanes(squares)


cdef inline double largest_magnitude(const floating* x, Py_ssize_t n) noexcept nogil:
    """max |x|; NaN where there is one."""
    cdef double largest = 0, value
    cdef Py_ssize_t i
    for i in range(n):
        value = x[i] if x[i] >= 0 else -x[i]
        if not value <= largest:
            largest = value
            if value != value:
                break
    return largest


cdef inline double scaled_sum_of_squares(const floating* x, Py_ssize_t n,
                                         double scale) noexcept nogil:
    """Sum of (x / scale)²."""
    cdef double total = 0, value
    cdef Py_ssize_t i
    for i in range(n):
        value = x[i] / scale
        total = fma(value, value, total)
    return total
