"""NAdam: Dozat 2016; NAdamW in the form of MLCommons' AlgoPerf; RAdam: Liu et al. 2020."""

from libc.math cimport pow, sqrt as root
from libc.string cimport memset

from fastgd._engine._work cimport Head, Kernels
from fastgd._engine.rules._common cimport (
    Pair,
    decay,
    floating,
    fma,
    lerp,
    mean_square,
    prepare,
    sqrt,
)
from fastgd._engine.rules._entry cimport add

cdef struct NAdamHyper:
    double lr
    Pair betas
    double eps
    double weight_decay
    double momentum_decay
    double decoupled_weight_decay
    double constant_momentum

cdef struct NAdamWHyper:
    double lr
    Pair betas
    double eps
    double weight_decay

cdef struct RAdamHyper:
    double lr
    Pair betas
    double eps
    double weight_decay
    double decoupled_weight_decay
    double eps_hat
    double degenerated_to_sgd

cdef struct NAdam:
    Head head
    double momentum_step    # of exp_avg
    double grad_step        # of the gradient
    double keep             # 1 - lr * decoupled decay
    double beta1
    double beta2
    double root_correction  # 1 / sqrt(1 - beta2^t)
    double eps
    double rectified        # RAdam: whether the second moment divides


cdef inline double momentum_at(const NAdamHyper* h, double t) noexcept nogil:
    return h.betas.first * (1.0 - 0.5 * pow(0.96, t * h.momentum_decay))


cdef inline void nadam_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    """Numbers: mu_product."""
    cdef const NAdamHyper* h = <const NAdamHyper*> hyper
    cdef NAdam* k = <NAdam*> row
    cdef double now = momentum_at(h, t), ahead = momentum_at(h, t + 1.0), beta1 = h.betas.first
    k.keep = decay(&k.head, h.lr, h.weight_decay, h.decoupled_weight_decay != 0)
    numbers[0] *= now
    if h.constant_momentum:
        k.momentum_step = h.lr * beta1 / (1.0 - pow(beta1, t + 1.0))
        k.grad_step = h.lr * (1.0 - beta1) / (1.0 - pow(beta1, t))
    else:
        k.momentum_step = h.lr * ahead / (1.0 - numbers[0] * ahead)
        k.grad_step = h.lr * (1.0 - now) / (1.0 - numbers[0])
    k.beta1 = beta1
    k.beta2 = h.betas.second
    k.root_correction = 1.0 / root(1.0 - pow(h.betas.second, t))
    k.eps = h.eps


cdef inline void nadamw_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const NAdamWHyper* h = <const NAdamWHyper*> hyper
    cdef NAdam* k = <NAdam*> row
    cdef double corrected = h.lr / (1.0 - pow(h.betas.first, t))
    k.keep = decay(&k.head, h.lr, h.weight_decay, True)
    k.momentum_step = corrected * h.betas.first
    k.grad_step = corrected * (1.0 - h.betas.first)
    k.beta1 = h.betas.first
    k.beta2 = h.betas.second
    k.root_correction = 1.0 / root(1.0 - pow(h.betas.second, t))
    k.eps = h.eps


cdef inline double rectification(double beta2, double t) noexcept nogil:
    """RAdam's factor of a step; 0 where the second moment is not to be trusted yet."""
    cdef double power = pow(beta2, t), most = 2.0 / (1.0 - beta2) - 1.0
    cdef double length = most - 2.0 * t * power / (1.0 - power)
    if not length > 5.0:
        return 0
    return root((length - 4.0) * (length - 2.0) * most / ((most - 4.0) * (most - 2.0) * length))


cdef inline void radam_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const RAdamHyper* h = <const RAdamHyper*> hyper
    cdef NAdam* k = <NAdam*> row
    cdef double correction = root(1.0 - pow(h.betas.second, t))
    cdef double factor = rectification(h.betas.second, t)
    k.keep = decay(&k.head, h.lr, h.weight_decay, h.decoupled_weight_decay != 0)
    k.beta1 = h.betas.first
    k.beta2 = h.betas.second
    k.momentum_step = h.lr / (1.0 - pow(h.betas.first, t))
    k.root_correction = 1.0 / correction
    k.eps = h.eps / correction if h.eps_hat else h.eps
    k.rectified = factor > 0
    if k.rectified:
        k.momentum_step *= factor
    elif not h.degenerated_to_sgd:
        k.momentum_step = 0
        k.keep = 1.0


cdef inline void nadam(const double* row, floating* p, const floating* grad, floating** state,
                       Py_ssize_t n) noexcept nogil:
    """State: exp_avg, exp_avg_sq."""
    cdef NAdam k = (<const NAdam*> row)[0]
    cdef floating* exp_avg = state[0]
    cdef floating* exp_avg_sq = state[1]
    cdef floating g, second, direction
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        exp_avg[i] = lerp(exp_avg[i], g, k.beta1)
        second = mean_square(exp_avg_sq[i], g, k.beta2)
        exp_avg_sq[i] = second
        second = fma(sqrt(second), <floating> k.root_correction, <floating> k.eps)
        direction = fma(<floating> k.momentum_step, exp_avg[i], <floating> k.grad_step * g)
        p[i] = fma(p[i], <floating> k.keep, -(direction / second))


cdef inline void radam_loop(const double* row, floating* p, const floating* grad, floating* exp_avg,
                            floating* exp_avg_sq, Py_ssize_t n, bint rectified) noexcept nogil:
    cdef NAdam k = (<const NAdam*> row)[0]
    cdef floating g, second, direction
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        direction = lerp(exp_avg[i], g, k.beta1)
        exp_avg[i] = direction
        second = mean_square(exp_avg_sq[i], g, k.beta2)
        exp_avg_sq[i] = second
        if rectified:
            direction = direction / fma(sqrt(second), <floating> k.root_correction, <floating> k.eps)
        p[i] = fma(<floating> -k.momentum_step, direction, p[i] * <floating> k.keep)


cdef inline void radam(const double* row, floating* p, const floating* grad, floating** state,
                       Py_ssize_t n) noexcept nogil:
    """State: exp_avg, exp_avg_sq."""
    if (<const NAdam*> row).rectified:
        radam_loop(row, p, grad, state[0], state[1], n, True)
    else:
        radam_loop(row, p, grad, state[0], state[1], n, False)


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef NAdamHyper of_nadam
    cdef NAdamWHyper of_nadamw
    cdef RAdamHyper of_radam
    memset(&of_nadam, 0, sizeof(of_nadam))
    memset(&of_nadamw, 0, sizeof(of_nadamw))
    memset(&of_radam, 0, sizeof(of_radam))
    cdef tuple state = ("exp_avg", "exp_avg_sq")
    add(kernels, rules, "nadam", sizeof(NAdam), nadam_fill, nadam[float], nadam[double], of_nadam, state,
        ("mu_product",)).squares = True
    add(kernels, rules, "nadamw", sizeof(NAdam), nadamw_fill, nadam[float], nadam[double], of_nadamw,
        state).squares = True
    add(kernels, rules, "radam", sizeof(NAdam), radam_fill, radam[float], radam[double], of_radam,
        state).squares = True
    return 0
