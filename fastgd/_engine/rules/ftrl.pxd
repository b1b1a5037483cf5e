"""FTRL-Proximal: McMahan et al. 2013."""

from libc.string cimport memset

from fastgd._engine._work cimport Head, Kernels
from fastgd._engine.rules._common cimport absolute, floating, fma, prepare, sign, sqrt
from fastgd._engine.rules._entry cimport add

cdef struct FTRLHyper:
    double lr
    double l1
    double l2
    double l2_shrinkage
    double beta

cdef struct FTRL:
    Head head
    double rate       # 1 / lr
    double faster     # what it has grown by since the step before
    double beta
    double l1
    double l2         # twice the hyperparameter, and beta / lr
    double shrinkage  # twice the hyperparameter


cdef inline void ftrl_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    """Numbers: the rate of the step before."""
    cdef const FTRLHyper* h = <const FTRLHyper*> hyper
    cdef FTRL* k = <FTRL*> row
    k.head.weight_decay = 0
    k.rate = 1.0 / h.lr
    k.faster = k.rate - 1.0 / numbers[0]
    k.beta = h.beta
    numbers[0] = h.lr
    k.l1 = h.l1
    k.l2 = 2.0 * h.l2 + h.beta / h.lr
    k.shrinkage = 2.0 * h.l2_shrinkage


cdef inline void ftrl(const double* row, floating* p, const floating* grad, floating** state,
                      Py_ssize_t n) noexcept nogil:
    """State: accumulator, linear."""
    cdef FTRL k = (<const FTRL*> row)[0]
    cdef floating* accumulator = state[0]
    cdef floating* linear = state[1]
    cdef floating rate = <floating> k.rate, l1 = <floating> k.l1, zero = 0
    cdef floating g, before, after, total, growth, quadratic
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        before = sqrt(accumulator[i])
        accumulator[i] = fma(g, g, accumulator[i])
        after = sqrt(accumulator[i])
        total = after + before
        # The difference of the roots, which themselves may agree in all their digits.
        growth = g * g / total * rate if total > zero else total
        # A rate that changes must not by itself move the parameter.
        growth = fma(<floating> k.faster, before + <floating> k.beta, growth)
        total = linear[i] + fma(<floating> k.shrinkage, p[i], g)
        total = fma(-growth, p[i], total)
        linear[i] = total
        quadratic = fma(after, rate, <floating> k.l2)
        growth = -(total - l1 * sign(total)) / quadratic if quadratic != zero else p[i]
        p[i] = zero if absolute(total) <= l1 else growth


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef FTRLHyper hyper
    memset(&hyper, 0, sizeof(hyper))
    add(kernels, rules, "ftrl", sizeof(FTRL), ftrl_fill, ftrl[float], ftrl[double], hyper,
        ("accumulator", "linear"), ("last_lr",)).squares = True
    return 0
