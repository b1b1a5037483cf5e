"""Schedule-Free: Defazio et al. 2024. The parameter holds y while training; x is derived from it and z."""

from libc.math cimport pow, sqrt as root
from libc.string cimport memset

from fastgd._engine._work cimport Head, Kernels
from fastgd._engine.rules._common cimport Pair, floating, fma, lerp, mean_square, prepare, sqrt
from fastgd._engine.rules._entry cimport add

cdef struct ScheduleFreeSGDHyper:
    double lr
    double momentum
    double weight_decay
    double warmup_steps
    double r
    double weight_lr_power

cdef struct ScheduleFreeAdamWHyper:
    double lr
    Pair betas
    double eps
    double weight_decay
    double warmup_steps
    double r
    double weight_lr_power

cdef struct ScheduleFree:
    Head head
    double lr               # warmed up
    double stale            # 1 - c, of y in the average
    double outflow          # lr (b (1 - c) - 1), of the direction in y
    double beta2
    double root_correction  # 1 / sqrt(1 - beta2^t)
    double eps
    double decay            # in the direction


cdef inline void average(ScheduleFree* k, double lr, double b, double warmup, double r, double power,
                         double t, double* numbers) noexcept nogil:
    """Numbers: weight_sum, lr_max."""
    cdef double weight, c
    k.lr = lr * (min(1.0, t / warmup) if warmup > 0 else 1.0)
    numbers[1] = max(numbers[1], k.lr)
    weight = pow(t, r) * pow(numbers[1], power)
    numbers[0] += weight
    c = weight / numbers[0] if numbers[0] > 0 else 0
    k.stale = 1.0 - c
    k.outflow = k.lr * (b * (1.0 - c) - 1.0)


cdef inline void schedule_free_sgd_fill(const double* hyper, double t, double* numbers,
                                        double* row) noexcept nogil:
    cdef const ScheduleFreeSGDHyper* h = <const ScheduleFreeSGDHyper*> hyper
    cdef ScheduleFree* k = <ScheduleFree*> row
    k.head.weight_decay = h.weight_decay
    average(k, h.lr, h.momentum, h.warmup_steps, h.r, h.weight_lr_power, t, numbers)


cdef inline void schedule_free_sgd(const double* row, floating* p, const floating* grad,
                                   floating** state, Py_ssize_t n) noexcept nogil:
    """State: z."""
    cdef ScheduleFree k = (<const ScheduleFree*> row)[0]
    cdef floating* z = state[0]
    cdef floating g
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        p[i] = fma(<floating> k.outflow, g, lerp(p[i], z[i], k.stale))
        z[i] = fma(<floating> -k.lr, g, z[i])


cdef inline void schedule_free_adamw_fill(const double* hyper, double t, double* numbers,
                                          double* row) noexcept nogil:
    cdef const ScheduleFreeAdamWHyper* h = <const ScheduleFreeAdamWHyper*> hyper
    cdef ScheduleFree* k = <ScheduleFree*> row
    k.head.weight_decay = 0
    average(k, h.lr, h.betas.first, h.warmup_steps, h.r, h.weight_lr_power, t, numbers)
    k.beta2 = h.betas.second
    k.root_correction = 1.0 / root(1.0 - pow(h.betas.second, t))
    k.eps = h.eps
    k.decay = h.weight_decay


cdef inline void schedule_free_adamw(const double* row, floating* p, const floating* grad,
                                     floating** state, Py_ssize_t n) noexcept nogil:
    """State: z, exp_avg_sq."""
    cdef ScheduleFree k = (<const ScheduleFree*> row)[0]
    cdef floating* z = state[0]
    cdef floating* exp_avg_sq = state[1]
    cdef floating g, second
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        exp_avg_sq[i] = mean_square(exp_avg_sq[i], g, k.beta2)
        second = fma(sqrt(exp_avg_sq[i]), <floating> k.root_correction, <floating> k.eps)
        g = fma(<floating> k.decay, p[i], g / second)
        p[i] = fma(<floating> k.outflow, g, lerp(p[i], z[i], k.stale))
        z[i] = fma(<floating> -k.lr, g, z[i])


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef ScheduleFreeSGDHyper of_sgd
    cdef ScheduleFreeAdamWHyper of_adamw
    cdef tuple numbers = ("weight_sum", "lr_max", "evaluating")
    memset(&of_sgd, 0, sizeof(of_sgd))
    memset(&of_adamw, 0, sizeof(of_adamw))
    add(kernels, rules, "schedule_free_sgd", sizeof(ScheduleFree), schedule_free_sgd_fill,
        schedule_free_sgd[float], schedule_free_sgd[double], of_sgd, ("z",), numbers)
    add(kernels, rules, "schedule_free_adamw", sizeof(ScheduleFree), schedule_free_adamw_fill,
        schedule_free_adamw[float], schedule_free_adamw[double], of_adamw, ("z", "exp_avg_sq"),
        numbers).squares = True
    return 0
