"""LAMB: You et al. 2020; LARS: You, Gitman & Ginsburg 2017. Both scale a step by the parameter's norm."""

from libc.math cimport pow, sqrt as root
from libc.string cimport memset

from fastgd._engine._work cimport Head, Kernels, PARAM, Rule, TERM_0
from fastgd._engine.rules._common cimport (
    Pair,
    floating,
    fma,
    lerp,
    mean_square,
    prepare,
    sqrt,
    take_gradient,
)
from fastgd._engine.rules._entry cimport add, measures

cdef struct LAMBHyper:
    double lr
    Pair betas
    double eps
    double weight_decay
    double bias_correction
    double grad_averaging
    double trust_clip
    double always_adapt

cdef struct LARSHyper:
    double lr
    double momentum
    double weight_decay
    double nesterov
    double trust_coefficient
    double eps
    double lr_in_momentum
    double trust_clip
    double decay_in_norm
    double always_adapt

cdef struct LAMB:
    Head head
    double lr
    double step_size        # lr times the trust ratio
    double beta1
    double beta2
    double inflow           # of the gradient into exp_avg where it is a sum
    double averaging
    double correction       # 1 / (1 - beta1^t)
    double root_correction  # 1 / sqrt(1 - beta2^t)
    double eps
    double decay            # in the direction
    double adapt
    double trust_clip

cdef struct LARS:
    Head head
    double lr
    double momentum
    double inflow           # of the gradient into the buffer
    double outflow          # of the buffer into the parameter
    double lookahead        # of the gradient into Nesterov's direction
    double nesterov
    double decay            # in the direction, beside the gradient
    double trust_coefficient
    double eps
    double adapt
    double trust_clip
    double lr_in_momentum


cdef inline void lamb_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const LAMBHyper* h = <const LAMBHyper*> hyper
    cdef LAMB* k = <LAMB*> row
    k.head.weight_decay = 0
    k.lr = k.step_size = h.lr
    k.beta1 = h.betas.first
    k.beta2 = h.betas.second
    k.averaging = h.grad_averaging
    k.correction = 1.0 / (1.0 - pow(h.betas.first, t)) if h.bias_correction else 1.0
    k.root_correction = 1.0 / root(1.0 - pow(h.betas.second, t)) if h.bias_correction else 1.0
    k.eps = h.eps
    k.decay = h.weight_decay
    k.adapt = h.always_adapt != 0 or h.weight_decay != 0
    k.trust_clip = h.trust_clip


cdef inline floating lamb_direction(const LAMB* k, floating m, floating v, floating p) noexcept nogil:
    cdef floating second = fma(sqrt(v), <floating> k.root_correction, <floating> k.eps)
    return fma(<floating> k.decay, p, m * <floating> k.correction / second)


cdef inline void lamb_loop(const double* row, const floating* p, const floating* grad,
                           floating* exp_avg, floating* exp_avg_sq, floating* direction, Py_ssize_t n,
                           bint averaging) noexcept nogil:
    cdef LAMB k = (<const LAMB*> row)[0]
    cdef floating g, average, square
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        if averaging:
            average = lerp(exp_avg[i], g, k.beta1)
        else:
            average = fma(<floating> k.beta1, exp_avg[i], g)
        square = mean_square(exp_avg_sq[i], g, k.beta2)
        exp_avg[i] = average
        exp_avg_sq[i] = square
        direction[i] = lamb_direction(&k, average, square, p[i])


cdef inline void lamb_measure(const double* row, const floating* p, const floating* grad,
                              floating** state, floating** terms, Py_ssize_t n) noexcept nogil:
    """The direction, and the moments before it."""
    if (<const LAMB*> row).averaging != 0:
        lamb_loop(row, p, grad, state[0], state[1], terms[0], n, True)
    else:
        lamb_loop(row, p, grad, state[0], state[1], terms[0], n, False)


cdef inline double trust_ratio(double param_squares, double direction_squares) noexcept nogil:
    if param_squares == 0 or direction_squares == 0:
        return 1.0
    return root(param_squares) / root(direction_squares)


cdef inline void lamb_conclude(const double* sums, double elements, double* numbers,
                               double* row) noexcept nogil:
    """Sums: the squares of the parameter, of the direction."""
    cdef LAMB* k = <LAMB*> row
    cdef double ratio = trust_ratio(sums[0], sums[1]) if k.adapt else 1.0
    k.step_size = k.lr * (min(ratio, 1.0) if k.trust_clip else ratio)


cdef inline void lamb(const double* row, floating* p, const floating* grad, floating** state,
                      Py_ssize_t n) noexcept nogil:
    """State: exp_avg, exp_avg_sq."""
    cdef LAMB k = (<const LAMB*> row)[0]
    cdef const floating* exp_avg = state[0]
    cdef const floating* exp_avg_sq = state[1]
    cdef Py_ssize_t i
    for i in range(n):
        p[i] = fma(<floating> -k.step_size, lamb_direction(&k, exp_avg[i], exp_avg_sq[i], p[i]), p[i])


cdef inline void lars_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const LARSHyper* h = <const LARSHyper*> hyper
    cdef LARS* k = <LARS*> row
    k.head.weight_decay = 0 if h.decay_in_norm else h.weight_decay
    k.decay = h.weight_decay if h.decay_in_norm else 0
    k.lr = h.lr
    k.momentum = h.momentum
    k.nesterov = h.nesterov
    k.lr_in_momentum = h.lr_in_momentum
    k.outflow = 1.0 if h.lr_in_momentum else h.lr
    k.trust_coefficient = h.trust_coefficient
    k.eps = h.eps
    k.adapt = h.always_adapt != 0 or h.weight_decay != 0
    k.trust_clip = h.trust_clip


cdef inline void lars_conclude(const double* sums, double elements, double* numbers,
                               double* row) noexcept nogil:
    """Sums: the squares of the parameter, of the gradient."""
    cdef LARS* k = <LARS*> row
    cdef double ratio = 1.0, norm = root(sums[0])
    if k.adapt and sums[0] != 0 and sums[1] != 0:
        ratio = k.trust_coefficient * norm / (root(sums[1]) + k.decay * norm + k.eps)
    if k.trust_clip:
        ratio = min(ratio / k.lr, 1.0) if k.lr != 0 else 1.0
    k.inflow = ratio * (k.lr if k.lr_in_momentum else 1.0)
    k.lookahead = k.inflow


cdef inline void lars(const double* row, floating* p, const floating* grad, floating** state,
                      Py_ssize_t n) noexcept nogil:
    """State: momentum_buffer."""
    cdef LARS k = (<const LARS*> row)[0]
    cdef floating* buf = state[0]
    cdef floating momentum = <floating> k.momentum, g, direction
    cdef Py_ssize_t i
    for i in range(n):
        g = fma(<floating> k.decay, p[i], prepare(&k.head, grad[i], p[i])) * <floating> k.inflow
        direction = fma(momentum, buf[i], g)
        buf[i] = direction
        if k.nesterov != 0:
            direction = fma(momentum, direction, g)
        p[i] = fma(<floating> -k.outflow, direction, p[i])


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef LAMBHyper of_lamb
    cdef LARSHyper of_lars
    cdef Rule* rule
    memset(&of_lamb, 0, sizeof(of_lamb))
    memset(&of_lars, 0, sizeof(of_lars))
    cdef tuple norms = ((PARAM, PARAM), (TERM_0, TERM_0))
    rule = add(kernels, rules, "lamb", sizeof(LAMB), lamb_fill, lamb[float], lamb[double], of_lamb,
               ("exp_avg", "exp_avg_sq"))
    rule.squares = True
    measures(rule, lamb_measure[float], lamb_measure[double], lamb_conclude, norms)
    rule = add(kernels, rules, "lars", sizeof(LARS), lars_fill, lars[float], lars[double], of_lars,
               ("momentum_buffer",))
    measures(rule, take_gradient[float], take_gradient[double], lars_conclude, norms)
    return 0
