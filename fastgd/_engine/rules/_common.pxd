"""What the rules share: arithmetic in which every rounding is written down.

A rule is a formula, once. It has a struct of the hyperparameters as its class declares them; a struct
of the coefficients of one step, computed from them in double precision by `…_fill`; and an element-wise
loop over one span of contiguous elements in the parameter's dtype, which the compiler vectorises:
there is no hand-written vector body or tail. The loop reads the gradient and updates the parameter and
the state in place, the arrays in the order in which the class names them; one that the group does not
use is NULL. The coefficients are copied, so that nothing aliases them, and rounded to the parameter's
dtype once.

An option that changes the loop is a `bint` argument of an inline function that is called with
constants, so that every variant compiles to a loop of its own without a branch inside.

`fma` is written exactly where one rounding is wanted; nothing else is fused (see numeric.h).
"""

from fastgd._engine._work cimport Head

# Hyperparameters of several numbers; an array in their place would be converted for Python twice.
cdef struct Pair:
    double first
    double second

cdef struct Triple:
    double first
    double second
    double third

ctypedef fused floating:
    float
    double

cdef extern from "numeric.h" nogil:
    float FASTGD_FMAF(float, float, float)
    double FASTGD_FMA(double, double, double)
    float sqrtf(float)
    double c_sqrt "sqrt"(double)
    float fabsf(float)
    double fabs(double)


cdef inline floating fma(floating x, floating y, floating z) noexcept nogil:
    if floating is float:
        return FASTGD_FMAF(x, y, z)
    else:
        return FASTGD_FMA(x, y, z)


cdef inline floating sqrt(floating x) noexcept nogil:
    if floating is float:
        return sqrtf(x)
    else:
        return c_sqrt(x)


cdef inline floating absolute(floating x) noexcept nogil:
    if floating is float:
        return fabsf(x)
    else:
        return fabs(x)


cdef inline floating sign(floating x) noexcept nogil:
    """-1, 0 or 1; a NaN stays."""
    cdef floating one = 1, zero = 0
    return one if x > zero else -one if x < zero else x


cdef inline floating prepare(const Head* head, floating g, floating p) noexcept nogil:
    """The gradient as the formulas see it. The comparisons keep a NaN."""
    cdef floating clip_value = <floating> head.clip_value, weight_decay = <floating> head.weight_decay
    g = g * <floating> head.scale
    g = clip_value if g > clip_value else g
    g = -clip_value if g < -clip_value else g
    return fma(weight_decay, p, g) if weight_decay != 0 else g


cdef inline void take_gradient(const double* row, const floating* p, const floating* grad,
                               floating** state, floating** terms, Py_ssize_t n) noexcept nogil:
    """For rules whose first sweep wants the gradient as the formulas see it, and nothing else."""
    cdef Head head = (<const Head*> row)[0]
    cdef floating* g = terms[0]
    cdef Py_ssize_t i
    for i in range(n):
        g[i] = prepare(&head, grad[i], p[i])


cdef inline double decay(Head* head, double lr, double weight_decay, bint decoupled) noexcept nogil:
    """Set the L2 penalty; what the parameter is multiplied by where the decay is decoupled instead."""
    head.weight_decay = 0 if decoupled else weight_decay
    return 1.0 - lr * weight_decay if decoupled else 1.0


cdef inline floating lerp(floating start, floating end, double keep) noexcept nogil:
    """keep * start + (1 - keep) * end, from the nearer end, as in PyTorch's lerp: exact for
    start == end and for a weight of 0 or 1.
    """
    cdef floating weight = <floating> (1.0 - keep)
    if weight < <floating> 0.5:
        return fma(weight, end - start, start)
    return fma(<floating> keep, start - end, end)


cdef inline floating mean_square(floating average, floating g, double keep) noexcept nogil:
    """keep * average + (1 - keep) * g²."""
    return fma(<floating> keep, average, <floating> (1.0 - keep) * g * g)
