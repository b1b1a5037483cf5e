"""Adadelta: Zeiler 2012; Adamax: Kingma & Ba 2015, section 7.1."""

from libc.math cimport pow
from libc.string cimport memset

from fastgd._engine._work cimport Head, Kernels
from fastgd._engine.rules._common cimport (
    Pair,
    absolute,
    decay,
    floating,
    fma,
    lerp,
    mean_square,
    prepare,
    sqrt,
)
from fastgd._engine.rules._entry cimport add

cdef struct AdadeltaHyper:
    double lr
    double rho
    double eps
    double weight_decay
    double decoupled_weight_decay

cdef struct AdamaxHyper:
    double lr
    Pair betas
    double eps
    double weight_decay
    double decoupled_weight_decay
    double eps_outside

cdef struct Adadelta:
    Head head
    double lr
    double keep         # 1 - lr * decoupled decay
    double rho
    double eps

cdef struct Adamax:
    Head head
    double step_size    # lr / (1 - beta1^t)
    double keep         # 1 - lr * decoupled decay
    double beta1
    double beta2
    double eps_inside   # in the maximum
    double eps_outside  # beside it


cdef inline void adadelta_fill(const double* hyper, double t, double* numbers,
                               double* row) noexcept nogil:
    cdef const AdadeltaHyper* h = <const AdadeltaHyper*> hyper
    cdef Adadelta* k = <Adadelta*> row
    k.keep = decay(&k.head, h.lr, h.weight_decay, h.decoupled_weight_decay != 0)
    k.lr = h.lr
    k.rho = h.rho
    k.eps = h.eps


cdef inline void adadelta(const double* row, floating* p, const floating* grad, floating** state,
                          Py_ssize_t n) noexcept nogil:
    """State: square_avg, acc_delta."""
    cdef Adadelta k = (<const Adadelta*> row)[0]
    cdef floating* square_avg = state[0]
    cdef floating* acc_delta = state[1]
    cdef floating eps = <floating> k.eps, g, delta
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        square_avg[i] = mean_square(square_avg[i], g, k.rho)
        delta = sqrt(acc_delta[i] + eps) / sqrt(square_avg[i] + eps) * g
        acc_delta[i] = mean_square(acc_delta[i], delta, k.rho)
        p[i] = fma(<floating> -k.lr, delta, p[i] * <floating> k.keep)


cdef inline void adamax_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const AdamaxHyper* h = <const AdamaxHyper*> hyper
    cdef Adamax* k = <Adamax*> row
    k.keep = decay(&k.head, h.lr, h.weight_decay, h.decoupled_weight_decay != 0)
    k.step_size = h.lr / (1.0 - pow(h.betas.first, t))
    k.beta1 = h.betas.first
    k.beta2 = h.betas.second
    k.eps_inside = 0 if h.eps_outside else h.eps
    k.eps_outside = h.eps if h.eps_outside else 0


cdef inline void adamax(const double* row, floating* p, const floating* grad, floating** state,
                        Py_ssize_t n) noexcept nogil:
    """State: exp_avg, exp_inf."""
    cdef Adamax k = (<const Adamax*> row)[0]
    cdef floating* exp_avg = state[0]
    cdef floating* exp_inf = state[1]
    cdef floating g, size
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        exp_avg[i] = lerp(exp_avg[i], g, k.beta1)
        size = absolute(g) + <floating> k.eps_inside
        # Whichever of the two is a NaN stays one: exp_avg keeps the gradient's.
        exp_inf[i] = size if size > exp_inf[i] * <floating> k.beta2 else exp_inf[i] * <floating> k.beta2
        size = exp_avg[i] / (exp_inf[i] + <floating> k.eps_outside)
        p[i] = fma(<floating> -k.step_size, size, p[i] * <floating> k.keep)


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef AdadeltaHyper of_adadelta
    cdef AdamaxHyper of_adamax
    memset(&of_adadelta, 0, sizeof(of_adadelta))
    memset(&of_adamax, 0, sizeof(of_adamax))
    add(kernels, rules, "adadelta", sizeof(Adadelta), adadelta_fill, adadelta[float], adadelta[double],
        of_adadelta, ("square_avg", "acc_delta")).squares = True
    add(kernels, rules, "adamax", sizeof(Adamax), adamax_fill, adamax[float], adamax[double], of_adamax,
        ("exp_avg", "exp_inf"))
    return 0
