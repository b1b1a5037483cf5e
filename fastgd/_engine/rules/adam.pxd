"""Adam: Kingma & Ba 2015; decoupled decay: Loshchilov & Hutter 2019; AMSGrad: Reddi et al. 2018."""

from libc.math cimport pow, sqrt as root

from fastgd._engine._work cimport Head
from fastgd._engine.rules._common cimport floating, fma, lerp, mean_square, prepare, sqrt

cdef struct AdamHyper:
    double lr
    double betas[2]
    double eps
    double weight_decay
    double amsgrad
    double eps_hat

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
    cdef double correction = root(1.0 - pow(h.betas[1], t))
    k.head.weight_decay = h.weight_decay
    k.step_size = h.lr / (1.0 - pow(h.betas[0], t))
    k.keep = 1.0
    k.beta1 = h.betas[0]
    k.beta2 = h.betas[1]
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
