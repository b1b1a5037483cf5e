"""AdaBelief: Zhuang et al. 2020; Yogi: Zaheer et al. 2018; ADOPT: Taniguchi et al. 2024."""

from libc.math cimport INFINITY, isnan, pow, sqrt as root
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
    sign,
    sqrt,
)
from fastgd._engine.rules._entry cimport add
from fastgd._engine.rules.nadam cimport rectification

cdef struct AdaBeliefHyper:
    double lr
    Pair betas
    double eps
    double eps_root
    double weight_decay
    double amsgrad
    double rectify
    double nesterov

cdef struct YogiHyper:
    double lr
    Pair betas
    double eps
    double weight_decay
    double eps_hat

cdef struct ADOPTHyper:
    double lr
    Pair betas
    double eps
    double weight_decay
    double decouple
    double clip_exponent

cdef struct Belief:
    Head head
    double momentum_step    # of exp_avg
    double grad_step        # of the gradient
    double keep             # 1 - lr * decoupled decay
    double beta1
    double beta2
    double root_correction  # 1 / sqrt(1 - beta2^t)
    double eps
    double eps_root
    double divides          # whether the second moment does

cdef struct ADOPT:
    Head head
    double lr
    double keep
    double beta1
    double beta2
    double eps
    double limit            # of the normalised gradient
    double first


cdef inline void adabelief_fill(const double* hyper, double t, double* numbers,
                                double* row) noexcept nogil:
    cdef const AdaBeliefHyper* h = <const AdaBeliefHyper*> hyper
    cdef Belief* k = <Belief*> row
    cdef double beta1 = h.betas.first, correction = root(1.0 - pow(h.betas.second, t)), factor = 1
    k.head.weight_decay = 0
    k.keep = 1.0 - h.lr * h.weight_decay
    k.beta1 = beta1
    k.beta2 = h.betas.second
    k.root_correction = 1.0 / correction
    k.eps = h.eps / correction if h.rectify else h.eps
    k.eps_root = h.eps_root
    k.divides = True
    if h.rectify:
        factor = rectification(h.betas.second, t)
        k.divides = factor > 0
        factor = factor if k.divides else 1
    if h.nesterov:
        k.momentum_step = factor * h.lr * beta1 / (1.0 - pow(beta1, t + 1.0))
        k.grad_step = factor * h.lr * (1.0 - beta1) / (1.0 - pow(beta1, t))
    else:
        k.momentum_step = factor * h.lr / (1.0 - pow(beta1, t))
        k.grad_step = 0


cdef inline void adabelief_loop(const double* row, floating* p, const floating* grad, floating* exp_avg,
                                floating* exp_avg_var, floating* maximum, Py_ssize_t n,
                                bint amsgrad) noexcept nogil:
    cdef Belief k = (<const Belief*> row)[0]
    cdef floating g, second, direction, one = 1
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        exp_avg[i] = lerp(exp_avg[i], g, k.beta1)
        second = mean_square(exp_avg_var[i], g - exp_avg[i], k.beta2) + <floating> k.eps_root
        exp_avg_var[i] = second
        if amsgrad:
            second = maximum[i] if maximum[i] > second else second
            maximum[i] = second
        second = fma(sqrt(second), <floating> k.root_correction, <floating> k.eps)
        direction = fma(<floating> k.momentum_step, exp_avg[i], <floating> k.grad_step * g)
        direction = direction / (second if k.divides != 0 else one)
        p[i] = fma(p[i], <floating> k.keep, -direction)


cdef inline void adabelief(const double* row, floating* p, const floating* grad, floating** state,
                           Py_ssize_t n) noexcept nogil:
    """State: exp_avg, exp_avg_var, max_exp_avg_var."""
    if state[2] == NULL:
        adabelief_loop(row, p, grad, state[0], state[1], state[2], n, False)
    else:
        adabelief_loop(row, p, grad, state[0], state[1], state[2], n, True)


cdef inline void yogi_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const YogiHyper* h = <const YogiHyper*> hyper
    cdef Belief* k = <Belief*> row
    cdef double correction = root(1.0 - pow(h.betas.second, t))
    k.head.weight_decay = h.weight_decay
    k.momentum_step = h.lr / (1.0 - pow(h.betas.first, t))
    k.beta1 = h.betas.first
    k.beta2 = h.betas.second
    k.root_correction = 1.0 / correction
    k.eps = h.eps / correction if h.eps_hat else h.eps


cdef inline void yogi(const double* row, floating* p, const floating* grad, floating** state,
                      Py_ssize_t n) noexcept nogil:
    """State: exp_avg, exp_avg_sq."""
    cdef Belief k = (<const Belief*> row)[0]
    cdef floating* exp_avg = state[0]
    cdef floating* exp_avg_sq = state[1]
    cdef floating share = <floating> (1.0 - k.beta2), g, second
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        exp_avg[i] = lerp(exp_avg[i], g, k.beta1)
        second = exp_avg_sq[i]
        second = fma(-share * sign(second - g * g), g * g, second)
        exp_avg_sq[i] = second
        second = fma(sqrt(second), <floating> k.root_correction, <floating> k.eps)
        p[i] = fma(<floating> -k.momentum_step, exp_avg[i] / second, p[i])


cdef inline void adopt_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const ADOPTHyper* h = <const ADOPTHyper*> hyper
    cdef ADOPT* k = <ADOPT*> row
    k.keep = decay(&k.head, h.lr, h.weight_decay, h.decouple != 0)
    k.lr = h.lr
    k.beta1 = h.betas.first
    k.beta2 = h.betas.second
    k.eps = h.eps
    k.limit = INFINITY if isnan(h.clip_exponent) else pow(t - 1.0, h.clip_exponent)
    k.first = t == 1


cdef inline void adopt(const double* row, floating* p, const floating* grad, floating** state,
                       Py_ssize_t n) noexcept nogil:
    """State: exp_avg, exp_avg_sq."""
    cdef ADOPT k = (<const ADOPT*> row)[0]
    cdef floating* exp_avg = state[0]
    cdef floating* exp_avg_sq = state[1]
    cdef floating eps = <floating> k.eps, limit = <floating> k.limit, g, size
    cdef Py_ssize_t i
    if k.first != 0:
        for i in range(n):
            g = prepare(&k.head, grad[i], p[i])
            exp_avg_sq[i] = g * g
        return
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        size = sqrt(exp_avg_sq[i])
        size = g / (eps if eps > size else size)
        size = limit if size > limit else size
        size = -limit if size < -limit else size
        exp_avg[i] = lerp(exp_avg[i], size, k.beta1)
        exp_avg_sq[i] = mean_square(exp_avg_sq[i], g, k.beta2)
        p[i] = fma(<floating> -k.lr, exp_avg[i], p[i] * <floating> k.keep)


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef AdaBeliefHyper of_adabelief
    cdef YogiHyper of_yogi
    cdef ADOPTHyper of_adopt
    memset(&of_adabelief, 0, sizeof(of_adabelief))
    memset(&of_yogi, 0, sizeof(of_yogi))
    memset(&of_adopt, 0, sizeof(of_adopt))
    add(kernels, rules, "adabelief", sizeof(Belief), adabelief_fill, adabelief[float], adabelief[double],
        of_adabelief, ("exp_avg", "exp_avg_var", "max_exp_avg_var")).squares = True
    add(kernels, rules, "yogi", sizeof(Belief), yogi_fill, yogi[float], yogi[double], of_yogi,
        ("exp_avg", "exp_avg_sq")).squares = True
    add(kernels, rules, "adopt", sizeof(ADOPT), adopt_fill, adopt[float], adopt[double], of_adopt,
        ("exp_avg", "exp_avg_sq")).squares = True
    return 0
