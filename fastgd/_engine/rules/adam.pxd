"""Adam: Kingma & Ba 2015; decoupled decay: Loshchilov & Hutter 2019; AMSGrad: Reddi et al. 2018; the
cautious form: Liang et al. 2024.
"""

from libc.math cimport pow, sqrt as root
from libc.string cimport memset

from fastgd._engine._work cimport Head, Kernels, NOTHING, Rule, TERM_0
from fastgd._engine.rules._common cimport Pair, floating, fma, lerp, mean_square, prepare, sqrt
from fastgd._engine.rules._entry cimport add, measures

cdef struct AdamHyper:
    double lr
    Pair betas
    double eps
    double weight_decay
    double amsgrad
    double eps_hat

cdef struct AdamWHyper:
    double lr
    Pair betas
    double eps
    double weight_decay
    double amsgrad
    double eps_hat
    double cautious

cdef struct Adam:
    Head head
    double step_size        # lr / (1 - beta1^t)
    double keep             # 1 - lr * decoupled decay
    double beta1
    double beta2
    double root_correction  # 1 / sqrt(1 - beta2^t)
    double eps


cdef inline void adam_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const AdamHyper* h = <const AdamHyper*> hyper
    cdef Adam* k = <Adam*> row
    cdef double correction = root(1.0 - pow(h.betas.second, t))
    k.head.weight_decay = h.weight_decay
    k.step_size = h.lr / (1.0 - pow(h.betas.first, t))
    k.keep = 1.0
    k.beta1 = h.betas.first
    k.beta2 = h.betas.second
    k.root_correction = 1.0 / correction
    k.eps = h.eps / correction if h.eps_hat else h.eps


cdef inline void adamw_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const AdamHyper* h = <const AdamHyper*> hyper
    cdef Adam* k = <Adam*> row
    adam_fill(hyper, t, numbers, row)
    k.head.weight_decay = 0
    k.keep = 1.0 - h.lr * h.weight_decay


cdef inline void adam_loop(const double* row, floating* p, const floating* grad, floating* exp_avg,
                           floating* exp_avg_sq, floating* maximum, Py_ssize_t n,
                           bint amsgrad) noexcept nogil:
    cdef Adam k = (<const Adam*> row)[0]
    cdef floating g, second
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        exp_avg[i] = lerp(exp_avg[i], g, k.beta1)
        second = mean_square(exp_avg_sq[i], g, k.beta2)
        exp_avg_sq[i] = second
        if amsgrad:
            # In this order a NaN stays, as in PyTorch's maximum.
            second = maximum[i] if maximum[i] > second else second
            maximum[i] = second
        second = fma(sqrt(second), <floating> k.root_correction, <floating> k.eps)
        p[i] = fma(<floating> -k.step_size, exp_avg[i] / second, p[i] * <floating> k.keep)


cdef inline void adam(const double* row, floating* p, const floating* grad, floating** state,
                      Py_ssize_t n) noexcept nogil:
    """State: exp_avg, exp_avg_sq, max_exp_avg_sq."""
    if state[2] == NULL:
        adam_loop(row, p, grad, state[0], state[1], state[2], n, False)
    else:
        adam_loop(row, p, grad, state[0], state[1], state[2], n, True)


cdef inline void moments_loop(const double* row, const floating* p, const floating* grad,
                              floating* exp_avg, floating* exp_avg_sq, floating* maximum,
                              floating* agrees, Py_ssize_t n, bint amsgrad) noexcept nogil:
    cdef Adam k = (<const Adam*> row)[0]
    cdef floating g, second, zero = 0, one = 1
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        exp_avg[i] = lerp(exp_avg[i], g, k.beta1)
        second = mean_square(exp_avg_sq[i], g, k.beta2)
        exp_avg_sq[i] = second
        if amsgrad:
            maximum[i] = maximum[i] if maximum[i] > second else second
        agrees[i] = one if exp_avg[i] * g > zero else zero


cdef inline void cautious_measure(const double* row, const floating* p, const floating* grad,
                                  floating** state, floating** terms, Py_ssize_t n) noexcept nogil:
    """The moments, and 1 for each element whose direction agrees with its gradient."""
    if state[2] == NULL:
        moments_loop(row, p, grad, state[0], state[1], state[2], terms[0], n, False)
    else:
        moments_loop(row, p, grad, state[0], state[1], state[2], terms[0], n, True)


cdef inline void cautious_conclude(const double* sums, double elements, double* numbers,
                                   double* row) noexcept nogil:
    cdef Adam* k = <Adam*> row
    k.step_size = k.step_size / max(sums[0] / elements, 1e-3)


cdef inline void cautious(const double* row, floating* p, const floating* grad, floating** state,
                          Py_ssize_t n) noexcept nogil:
    """State: exp_avg, exp_avg_sq, max_exp_avg_sq."""
    cdef Adam k = (<const Adam*> row)[0]
    cdef const floating* exp_avg = state[0]
    cdef const floating* squares = state[1] if state[2] == NULL else state[2]
    cdef floating zero = 0, direction
    cdef Py_ssize_t i
    for i in range(n):
        direction = exp_avg[i] / fma(sqrt(squares[i]), <floating> k.root_correction, <floating> k.eps)
        # Not <= 0 the other way round, so that a NaN stays.
        if exp_avg[i] * prepare(&k.head, grad[i], p[i]) <= zero:
            direction = zero
        p[i] = fma(<floating> -k.step_size, direction, p[i] * <floating> k.keep)


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef AdamHyper of_adam
    cdef AdamWHyper of_adamw
    cdef Rule* rule = NULL
    memset(&of_adam, 0, sizeof(of_adam))
    memset(&of_adamw, 0, sizeof(of_adamw))
    cdef tuple state = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    add(kernels, rules, "adam", sizeof(Adam), adam_fill, adam[float], adam[double], of_adam,
        state).squares = True
    add(kernels, rules, "adamw", sizeof(Adam), adamw_fill, adam[float], adam[double], of_adamw,
        state).squares = True
    rule = add(kernels, rules, "cautious adamw", sizeof(Adam), adamw_fill, cautious[float],
               cautious[double], of_adamw, state)
    rule.squares = True
    measures(rule, cautious_measure[float], cautious_measure[double], cautious_conclude,
             ((TERM_0, NOTHING),))
    return 0
