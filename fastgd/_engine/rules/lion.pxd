"""Lion: Chen et al. 2023; signSGD and Signum: Bernstein et al. 2018; cautious: Liang et al. 2024."""

from libc.string cimport memset

from fastgd._engine._work cimport Head, Kernels, NOTHING, Rule, TERM_0
from fastgd._engine.rules._common cimport Pair, floating, fma, lerp, prepare, sign
from fastgd._engine.rules._entry cimport add, measures

cdef struct LionHyper:
    double lr
    Pair betas
    double weight_decay
    double cautious

cdef struct SignumHyper:
    double lr
    double beta
    double weight_decay

cdef struct SignSGDHyper:
    double lr
    double weight_decay

cdef struct Lion:
    Head head
    double lr
    double keep      # 1 - lr * decoupled decay
    double beta1     # of the momentum in the direction
    double beta2     # of the momentum in itself


cdef inline void lion_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const LionHyper* h = <const LionHyper*> hyper
    cdef Lion* k = <Lion*> row
    k.head.weight_decay = 0
    k.lr = h.lr
    k.keep = 1.0 - h.lr * h.weight_decay
    k.beta1 = h.betas.first
    k.beta2 = h.betas.second


cdef inline void signum_fill(const double* hyper, double t, double* numbers,
                             double* row) noexcept nogil:
    cdef const SignumHyper* h = <const SignumHyper*> hyper
    cdef Lion* k = <Lion*> row
    k.head.weight_decay = 0
    k.lr = h.lr
    k.keep = 1.0 - h.lr * h.weight_decay
    k.beta1 = k.beta2 = h.beta


cdef inline void sign_sgd_fill(const double* hyper, double t, double* numbers,
                               double* row) noexcept nogil:
    cdef const SignSGDHyper* h = <const SignSGDHyper*> hyper
    cdef Lion* k = <Lion*> row
    k.head.weight_decay = 0
    k.lr = h.lr
    k.keep = 1.0 - h.lr * h.weight_decay


cdef inline void lion(const double* row, floating* p, const floating* grad, floating** state,
                      Py_ssize_t n) noexcept nogil:
    """State: exp_avg."""
    cdef Lion k = (<const Lion*> row)[0]
    cdef floating* exp_avg = state[0]
    cdef floating lr = <floating> k.lr, g, direction
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        direction = sign(lerp(exp_avg[i], g, k.beta1))
        exp_avg[i] = lerp(exp_avg[i], g, k.beta2)
        p[i] = fma(-lr, direction, p[i] * <floating> k.keep)


cdef inline void signum(const double* row, floating* p, const floating* grad, floating** state,
                        Py_ssize_t n) noexcept nogil:
    """State: exp_avg."""
    cdef Lion k = (<const Lion*> row)[0]
    cdef floating* exp_avg = state[0]
    cdef floating lr = <floating> k.lr
    cdef Py_ssize_t i
    for i in range(n):
        exp_avg[i] = lerp(exp_avg[i], prepare(&k.head, grad[i], p[i]), k.beta2)
        p[i] = fma(-lr, sign(exp_avg[i]), p[i] * <floating> k.keep)


cdef inline void sign_sgd(const double* row, floating* p, const floating* grad, floating** state,
                          Py_ssize_t n) noexcept nogil:
    cdef Lion k = (<const Lion*> row)[0]
    cdef floating lr = <floating> k.lr
    cdef Py_ssize_t i
    for i in range(n):
        p[i] = fma(-lr, sign(prepare(&k.head, grad[i], p[i])), p[i] * <floating> k.keep)


cdef inline void cautious_lion_measure(const double* row, const floating* p, const floating* grad,
                                       floating** state, floating** terms, Py_ssize_t n) noexcept nogil:
    """1 for each element whose direction agrees with its gradient."""
    cdef Lion k = (<const Lion*> row)[0]
    cdef floating* agrees = terms[0]
    cdef const floating* exp_avg = state[0]
    cdef floating g, zero = 0, one = 1
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        agrees[i] = one if sign(lerp(exp_avg[i], g, k.beta1)) * g > zero else zero


cdef inline void cautious_lion_conclude(const double* sums, double elements, double* numbers,
                                        double* row) noexcept nogil:
    cdef Lion* k = <Lion*> row
    k.lr = k.lr / max(sums[0] / elements, 1e-3)


cdef inline void cautious_lion(const double* row, floating* p, const floating* grad, floating** state,
                               Py_ssize_t n) noexcept nogil:
    """State: exp_avg."""
    cdef Lion k = (<const Lion*> row)[0]
    cdef floating* exp_avg = state[0]
    cdef floating lr = <floating> k.lr, zero = 0, g, direction
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        direction = sign(lerp(exp_avg[i], g, k.beta1))
        exp_avg[i] = lerp(exp_avg[i], g, k.beta2)
        # Not <= 0, so that a NaN stays.
        direction = zero if direction * g <= zero else direction
        p[i] = fma(-lr, direction, p[i] * <floating> k.keep)


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef LionHyper of_lion
    cdef SignumHyper of_signum
    cdef SignSGDHyper of_sign_sgd
    cdef Rule* rule
    memset(&of_lion, 0, sizeof(of_lion))
    memset(&of_signum, 0, sizeof(of_signum))
    memset(&of_sign_sgd, 0, sizeof(of_sign_sgd))
    add(kernels, rules, "lion", sizeof(Lion), lion_fill, lion[float], lion[double], of_lion,
        ("exp_avg",))
    rule = add(kernels, rules, "cautious lion", sizeof(Lion), lion_fill, cautious_lion[float],
               cautious_lion[double], of_lion, ("exp_avg",))
    measures(rule, cautious_lion_measure[float], cautious_lion_measure[double], cautious_lion_conclude,
             ((TERM_0, NOTHING),))
    add(kernels, rules, "signum", sizeof(Lion), signum_fill, signum[float], signum[double], of_signum,
        ("exp_avg",))
    add(kernels, rules, "sign_sgd", sizeof(Lion), sign_sgd_fill, sign_sgd[float], sign_sgd[double],
        of_sign_sgd, ())
    return 0
