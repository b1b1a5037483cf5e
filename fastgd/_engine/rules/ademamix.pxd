"""AdEMAMix: Pagliardini, Ablin & Grangier 2024; Adan: Xie et al. 2022."""

from libc.math cimport isnan, log, pow, sqrt as root
from libc.string cimport memset

from fastgd._engine._work cimport Head, Kernels
from fastgd._engine.rules._common cimport Triple, floating, fma, lerp, mean_square, prepare, sqrt
from fastgd._engine.rules._entry cimport add

cdef struct AdEMAMixHyper:
    double lr
    Triple betas
    double alpha
    double beta3_warmup
    double alpha_warmup
    double eps
    double weight_decay

cdef struct AdanHyper:
    double lr
    Triple betas
    double eps
    double weight_decay
    double no_prox

cdef struct AdEMAMix:
    Head head
    double lr
    double keep             # 1 - lr * decoupled decay
    double beta1
    double beta2
    double beta3            # of the slow average
    double alpha            # its weight
    double correction       # 1 / (1 - beta1^t)
    double root_correction  # 1 / sqrt(1 - beta2^t)
    double eps

cdef struct Adan:
    Head head
    double lr
    double keep             # before the step: 1 - lr * decay
    double shrink           # after it: 1 / (1 + lr * decay)
    double beta1
    double beta2
    double beta3
    double correction       # 1 / (1 - beta1^t)
    double diff_correction  # beta2 / (1 - beta2^t)
    double root_correction  # 1 / sqrt(1 - beta3^t)
    double eps
    double first


cdef inline double half_life(double beta) noexcept nogil:
    """Steps, less one, after which an average has forgotten half."""
    return log(0.5) / log(beta + 1e-8) - 1.0


cdef inline void ademamix_fill(const double* hyper, double t, double* numbers,
                               double* row) noexcept nogil:
    cdef const AdEMAMixHyper* h = <const AdEMAMixHyper*> hyper
    cdef AdEMAMix* k = <AdEMAMix*> row
    cdef double share
    k.head.weight_decay = 0
    k.lr = h.lr
    k.keep = 1.0 - h.lr * h.weight_decay
    k.beta1 = h.betas.first
    k.beta2 = h.betas.second
    k.beta3 = h.betas.third
    k.alpha = h.alpha
    if not isnan(h.alpha_warmup) and t < h.alpha_warmup:
        k.alpha = h.alpha * (t / h.alpha_warmup)
    if not isnan(h.beta3_warmup) and t < h.beta3_warmup:  # the half-life grows linearly
        share = t / h.beta3_warmup
        k.beta3 = pow(0.5, 1.0 / (1.0 + (1.0 - share) * half_life(h.betas.first)
                                  + share * half_life(h.betas.third)))
    k.correction = 1.0 / (1.0 - pow(h.betas.first, t))
    k.root_correction = 1.0 / root(1.0 - pow(h.betas.second, t))
    k.eps = h.eps


cdef inline void ademamix(const double* row, floating* p, const floating* grad, floating** state,
                          Py_ssize_t n) noexcept nogil:
    """State: exp_avg_fast, exp_avg_slow, exp_avg_sq."""
    cdef AdEMAMix k = (<const AdEMAMix*> row)[0]
    cdef floating* fast = state[0]
    cdef floating* slow = state[1]
    cdef floating* exp_avg_sq = state[2]
    cdef floating g, second, direction
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        fast[i] = lerp(fast[i], g, k.beta1)
        slow[i] = lerp(slow[i], g, k.beta3)
        exp_avg_sq[i] = mean_square(exp_avg_sq[i], g, k.beta2)
        second = fma(sqrt(exp_avg_sq[i]), <floating> k.root_correction, <floating> k.eps)
        direction = fma(<floating> k.alpha, slow[i], fast[i] * <floating> k.correction) / second
        p[i] = fma(<floating> -k.lr, direction, p[i] * <floating> k.keep)


cdef inline void adan_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const AdanHyper* h = <const AdanHyper*> hyper
    cdef Adan* k = <Adan*> row
    k.head.weight_decay = 0
    k.lr = h.lr
    k.keep = 1.0 - h.lr * h.weight_decay if h.no_prox else 1.0
    k.shrink = 1.0 if h.no_prox else 1.0 / (1.0 + h.lr * h.weight_decay)
    k.beta1 = h.betas.first
    k.beta2 = h.betas.second
    k.beta3 = h.betas.third
    k.correction = 1.0 / (1.0 - pow(h.betas.first, t))
    k.diff_correction = h.betas.second / (1.0 - pow(h.betas.second, t))
    k.root_correction = 1.0 / root(1.0 - pow(h.betas.third, t))
    k.eps = h.eps
    k.first = t == 1


cdef inline void adan(const double* row, floating* p, const floating* grad, floating** state,
                      Py_ssize_t n) noexcept nogil:
    """State: exp_avg, exp_avg_diff, exp_avg_sq, neg_pre_grad."""
    cdef Adan k = (<const Adan*> row)[0]
    cdef floating* exp_avg = state[0]
    cdef floating* exp_avg_diff = state[1]
    cdef floating* exp_avg_sq = state[2]
    cdef floating* neg_pre_grad = state[3]
    cdef floating g, difference, second, direction, zero = 0
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        difference = zero if k.first != 0 else g + neg_pre_grad[i]
        neg_pre_grad[i] = -g
        exp_avg[i] = lerp(exp_avg[i], g, k.beta1)
        exp_avg_diff[i] = lerp(exp_avg_diff[i], difference, k.beta2)
        second = mean_square(exp_avg_sq[i], fma(<floating> k.beta2, difference, g), k.beta3)
        exp_avg_sq[i] = second
        second = fma(sqrt(second), <floating> k.root_correction, <floating> k.eps)
        direction = fma(<floating> k.diff_correction, exp_avg_diff[i],
                        exp_avg[i] * <floating> k.correction) / second
        p[i] = fma(<floating> -k.lr, direction, p[i] * <floating> k.keep) * <floating> k.shrink


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef AdEMAMixHyper of_ademamix
    cdef AdanHyper of_adan
    memset(&of_ademamix, 0, sizeof(of_ademamix))
    memset(&of_adan, 0, sizeof(of_adan))
    add(kernels, rules, "ademamix", sizeof(AdEMAMix), ademamix_fill, ademamix[float], ademamix[double],
        of_ademamix, ("exp_avg_fast", "exp_avg_slow", "exp_avg_sq")).squares = True
    add(kernels, rules, "adan", sizeof(Adan), adan_fill, adan[float], adan[double], of_adan,
        ("exp_avg", "exp_avg_diff", "exp_avg_sq", "neg_pre_grad")).squares = True
    return 0
