"""iRprop-: Riedmiller & Braun 1993, Igel & Hüsken 2000; ASGD: Polyak & Juditsky 1992, Xu 2011."""

from libc.math cimport pow
from libc.string cimport memset

from fastgd._engine._work cimport Head, Kernels
from fastgd._engine.rules._common cimport Pair, floating, fma, lerp, prepare, sign
from fastgd._engine.rules._entry cimport add

cdef struct RpropHyper:
    double lr
    Pair etas
    Pair step_sizes

cdef struct ASGDHyper:
    double lr
    double lambd
    double alpha
    double t0
    double weight_decay

cdef struct Rprop:
    Head head
    double shrink
    double grow
    double smallest
    double largest

cdef struct ASGD:
    Head head
    double eta
    double keep   # 1 - lambd * eta
    double stale  # 1 - mu, of the average in itself


cdef inline void rprop_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const RpropHyper* h = <const RpropHyper*> hyper
    cdef Rprop* k = <Rprop*> row
    k.head.weight_decay = 0
    k.shrink = h.etas.first
    k.grow = h.etas.second
    k.smallest = h.step_sizes.first
    k.largest = h.step_sizes.second


cdef inline void rprop(const double* row, floating* p, const floating* grad, floating** state,
                       Py_ssize_t n) noexcept nogil:
    """State: prev, step_size."""
    cdef Rprop k = (<const Rprop*> row)[0]
    cdef floating* prev = state[0]
    cdef floating* step_size = state[1]
    cdef floating shrink = <floating> k.shrink, grow = <floating> k.grow, one = 1, zero = 0
    cdef floating smallest = <floating> k.smallest, largest = <floating> k.largest
    cdef floating g, size, agreement
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        agreement = sign(g) * sign(prev[i])  # of signs: a product of the two might underflow
        size = grow if agreement > zero else one
        size = step_size[i] * (shrink if agreement < zero else size)
        size = smallest if size < smallest else size
        size = largest if size > largest else size
        g = zero if agreement < zero else g
        step_size[i] = size
        prev[i] = g
        p[i] = fma(-size, sign(g), p[i])


cdef inline void asgd_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    """Numbers: eta, mu of the next step; a rate that changes acts one step late, as in PyTorch."""
    cdef const ASGDHyper* h = <const ASGDHyper*> hyper
    cdef ASGD* k = <ASGD*> row
    k.head.weight_decay = h.weight_decay
    k.eta = h.lr if t == 1 else numbers[0]
    k.keep = 1.0 - h.lambd * k.eta
    k.stale = 1.0 - numbers[1]
    numbers[0] = h.lr / pow(1.0 + h.lambd * h.lr * t, h.alpha)
    numbers[1] = 1.0 / max(1.0, t - h.t0)


cdef inline void asgd(const double* row, floating* p, const floating* grad, floating** state,
                      Py_ssize_t n) noexcept nogil:
    """State: ax."""
    cdef ASGD k = (<const ASGD*> row)[0]
    cdef floating* ax = state[0]
    cdef floating g
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        p[i] = fma(<floating> -k.eta, g, p[i] * <floating> k.keep)
        ax[i] = lerp(ax[i], p[i], k.stale)


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef RpropHyper of_rprop
    cdef ASGDHyper of_asgd
    memset(&of_rprop, 0, sizeof(of_rprop))
    memset(&of_asgd, 0, sizeof(of_asgd))
    add(kernels, rules, "rprop", sizeof(Rprop), rprop_fill, rprop[float], rprop[double], of_rprop,
        ("prev", "step_size"))
    add(kernels, rules, "asgd", sizeof(ASGD), asgd_fill, asgd[float], asgd[double], of_asgd, ("ax",),
        ("eta", "mu"))
    return 0
