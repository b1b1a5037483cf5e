"""Steps whose length is found out: DoG: Ivgi, Hinder & Carmon 2023; DoWG: Khaled et al. 2023; Polyak's:
Polyak 1987, Loizou et al. 2021; Prodigy: Mishchenko & Defazio 2023.
"""

from libc.math cimport isnan, pow, sqrt as root
from libc.string cimport memset

from fastgd._engine._work cimport NOTHING, PARAM, TERM_0, TERM_1, TERM_2, Head, Kernels, Rule
from fastgd._engine.rules._common cimport (
    Pair,
    absolute,
    decay,
    floating,
    fma,
    prepare,
    sqrt,
    take_gradient,
)
from fastgd._engine.rules._entry cimport add, measures

cdef struct DoGHyper:
    double lr
    double reps_rel
    double weight_decay
    double eps
    double init_eta
    double layerwise

cdef struct DoWGHyper:
    double lr
    double eps

cdef struct PolyakHyper:
    double lr
    double scaling
    double f_min
    double eps
    double clamp

cdef struct ProdigyHyper:
    double lr
    Pair betas
    double beta3
    double eps
    double weight_decay
    double decouple
    double use_bias_correction
    double safeguard_warmup
    double d0
    double d_coef
    double growth_rate

cdef struct Distance:
    Head head
    double lr
    double rate       # what the sums make of it
    double eps
    double reps_rel
    double init_eta
    double first
    double scaling
    double f_min
    double clamp

cdef struct Prodigy:
    Head head
    double step_size    # d * lr, corrected
    double keep
    double beta1
    double beta2
    double beta3
    double momentum_inflow
    double square_inflow
    double s_inflow
    double weight       # of the inner product
    double eps          # times the new d
    double d_coef
    double d0
    double growth_rate
    double plain_eps


cdef inline void dog_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const DoGHyper* h = <const DoGHyper*> hyper
    cdef Distance* k = <Distance*> row
    k.head.weight_decay = h.weight_decay
    k.lr = h.lr
    k.reps_rel = h.reps_rel
    k.init_eta = h.init_eta
    k.first = t == 1


cdef inline void distance_measure(const double* row, const floating* p, const floating* grad,
                                  floating** state, floating** terms, Py_ssize_t n) noexcept nogil:
    """The gradient, and the way from the start."""
    cdef Distance k = (<const Distance*> row)[0]
    cdef const floating* start = state[0]
    cdef floating* g = terms[0]
    cdef floating* way = terms[1]
    cdef Py_ssize_t i
    for i in range(n):
        g[i] = prepare(&k.head, grad[i], p[i])
        way[i] = p[i] - start[i]


cdef inline void dog_conclude(const double* sums, double elements, double* numbers,
                              double* row) noexcept nogil:
    """Sums: squares of the way, of the gradient, of the parameter. Numbers: rbar, G."""
    cdef Distance* k = <Distance*> row
    if k.first and isnan(k.init_eta):
        numbers[0] = k.reps_rel * (1.0 + root(sums[2]))
    numbers[0] = max(numbers[0], root(sums[0]))
    numbers[1] += sums[1]
    k.rate = k.lr * numbers[0] / root(numbers[1]) if numbers[1] > 0 else 0
    if k.first and not isnan(k.init_eta):
        k.rate = k.lr * k.init_eta


cdef inline void dowg_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const DoWGHyper* h = <const DoWGHyper*> hyper
    cdef Distance* k = <Distance*> row
    k.head.weight_decay = 0
    k.lr = h.lr
    k.eps = h.eps


cdef inline void dowg_conclude(const double* sums, double elements, double* numbers,
                               double* row) noexcept nogil:
    """Sums as in dog_conclude. Numbers: the largest squared distance, the weighted sum."""
    cdef Distance* k = <Distance*> row
    numbers[0] = max(numbers[0], sums[0])
    numbers[1] += numbers[0] * sums[1]
    k.rate = k.lr * numbers[0] / (root(numbers[1]) + k.eps)


cdef inline void polyak_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const PolyakHyper* h = <const PolyakHyper*> hyper
    cdef Distance* k = <Distance*> row
    k.head.weight_decay = 0
    k.lr = h.lr
    k.eps = h.eps
    k.scaling = h.scaling
    k.f_min = h.f_min
    k.clamp = h.clamp


cdef inline void polyak_conclude(const double* sums, double elements, double* numbers,
                                 double* row) noexcept nogil:
    """Sums: squares of the gradient."""
    cdef Distance* k = <Distance*> row
    cdef double squares = sums[0] * k.scaling * k.scaling + k.eps, gap = k.head.loss - k.f_min
    if k.clamp:
        gap = max(gap, 0.0)
    k.rate = 0 if squares <= 2.0 ** -52 else k.scaling * min(gap / squares, k.lr)


cdef inline void distance(const double* row, floating* p, const floating* grad, floating** state,
                          Py_ssize_t n) noexcept nogil:
    cdef Distance k = (<const Distance*> row)[0]
    cdef Py_ssize_t i
    for i in range(n):
        p[i] = fma(<floating> -k.rate, prepare(&k.head, grad[i], p[i]), p[i])


cdef inline void prodigy_fill(const double* hyper, double t, double* numbers,
                              double* row) noexcept nogil:
    """Numbers: d, d_max, d_numerator."""
    cdef const ProdigyHyper* h = <const ProdigyHyper*> hyper
    cdef Prodigy* k = <Prodigy*> row
    cdef double d = numbers[0], beta1 = h.betas.first, beta2 = h.betas.second
    k.step_size = d * h.lr
    if h.use_bias_correction:
        k.step_size *= root(1.0 - pow(beta2, t)) / (1.0 - pow(beta1, t))
    k.keep = decay(&k.head, k.step_size, h.weight_decay, h.decouple != 0)
    k.beta1 = beta1
    k.beta2 = beta2
    k.beta3 = root(beta2) if isnan(h.beta3) else h.beta3
    k.momentum_inflow = d * (1.0 - beta1)
    k.square_inflow = d * d * (1.0 - beta2)
    k.weight = d / h.d0 * k.step_size
    k.s_inflow = d / h.d0 * d if h.safeguard_warmup else k.weight
    k.d_coef = h.d_coef
    k.d0 = h.d0
    k.growth_rate = h.growth_rate
    k.plain_eps = h.eps


cdef inline void prodigy_measure(const double* row, const floating* p, const floating* grad,
                                 floating** state, floating** terms, Py_ssize_t n) noexcept nogil:
    """The moments and s; the weighted gradient, the way back to the start, |s|."""
    cdef Prodigy k = (<const Prodigy*> row)[0]
    cdef floating* exp_avg = state[0]
    cdef floating* exp_avg_sq = state[1]
    cdef floating* s = state[2]
    cdef const floating* start = state[3]
    cdef floating* weighted = terms[0]
    cdef floating* way = terms[1]
    cdef floating* size = terms[2]
    cdef floating g
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        exp_avg[i] = fma(<floating> k.beta1, exp_avg[i], <floating> k.momentum_inflow * g)
        exp_avg_sq[i] = fma(<floating> k.beta2, exp_avg_sq[i], <floating> k.square_inflow * g * g)
        s[i] = fma(<floating> k.beta3, s[i], <floating> k.s_inflow * g)
        weighted[i] = <floating> k.weight * g
        way[i] = start[i] - p[i]
        size[i] = absolute(s[i])


cdef inline void prodigy_conclude(const double* sums, double elements, double* numbers,
                                  double* row) noexcept nogil:
    """Sums: weighted gradient times way, |s|; over all arrays."""
    cdef Prodigy* k = <Prodigy*> row
    cdef double estimate
    if sums[1] == 0:  # no gradient has been anything but zero
        k.step_size, k.keep = 0, 1
        return
    numbers[2] = k.beta3 * numbers[2] + sums[0]
    estimate = k.d_coef * numbers[2] / sums[1]
    if numbers[0] == k.d0:
        numbers[0] = max(numbers[0], estimate)
    numbers[1] = max(numbers[1], estimate)
    numbers[0] = min(numbers[1], numbers[0] * k.growth_rate)
    k.eps = numbers[0] * k.plain_eps


cdef inline void prodigy(const double* row, floating* p, const floating* grad, floating** state,
                         Py_ssize_t n) noexcept nogil:
    """State: exp_avg, exp_avg_sq, s, p0."""
    cdef Prodigy k = (<const Prodigy*> row)[0]
    cdef const floating* exp_avg = state[0]
    cdef const floating* exp_avg_sq = state[1]
    cdef floating step_size = <floating> -k.step_size
    cdef Py_ssize_t i
    if k.step_size == 0:
        return
    for i in range(n):
        p[i] = fma(step_size, exp_avg[i] / (sqrt(exp_avg_sq[i]) + <floating> k.eps),
                   p[i] * <floating> k.keep)


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef DoGHyper of_dog
    cdef DoWGHyper of_dowg
    cdef PolyakHyper of_polyak
    cdef ProdigyHyper of_prodigy
    cdef Rule* rule
    cdef tuple squares = ((TERM_1, TERM_1), (TERM_0, TERM_0), (PARAM, PARAM))
    memset(&of_dog, 0, sizeof(of_dog))
    memset(&of_dowg, 0, sizeof(of_dowg))
    memset(&of_polyak, 0, sizeof(of_polyak))
    memset(&of_prodigy, 0, sizeof(of_prodigy))
    for name, joint in (("dog", True), ("ldog", False)):
        rule = add(kernels, rules, name, sizeof(Distance), dog_fill, distance[float], distance[double],
                   of_dog, ("init_buffer",), ("rbar", "G"))
        measures(rule, distance_measure[float], distance_measure[double], dog_conclude, squares, joint)
    rule = add(kernels, rules, "dowg", sizeof(Distance), dowg_fill, distance[float], distance[double],
               of_dowg, ("init_buffer",), ("r_squared", "v"))
    measures(rule, distance_measure[float], distance_measure[double], dowg_conclude, squares, True)
    rule = add(kernels, rules, "polyak", sizeof(Distance), polyak_fill, distance[float],
               distance[double], of_polyak, ())
    measures(rule, take_gradient[float], take_gradient[double], polyak_conclude,
             ((TERM_0, TERM_0),), True)
    rule = add(kernels, rules, "prodigy", sizeof(Prodigy), prodigy_fill, prodigy[float],
               prodigy[double], of_prodigy, ("exp_avg", "exp_avg_sq", "s", "p0"),
               ("d", "d_max", "d_numerator"))
    rule.squares = True
    measures(rule, prodigy_measure[float], prodigy_measure[double], prodigy_conclude,
             ((TERM_0, TERM_1), (TERM_2, NOTHING)), True)
    return 0
