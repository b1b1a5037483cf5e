"""Adafactor: Shazeer & Stern 2018. What it makes of a gradient is in fastgd/optimizers/adafactor.py."""

from libc.string cimport memset

from fastgd._engine._work cimport Head, Kernels, Rule
from fastgd._engine.rules._common cimport floating, take_gradient
from fastgd._engine.rules._entry cimport add, makes_directions

cdef struct AdafactorHyper:
    double lr
    double weight_decay

cdef struct Adafactor:
    Head head
    double keep  # 1 - lr * decoupled decay


cdef inline void adafactor_fill(const double* hyper, double t, double* numbers,
                                double* row) noexcept nogil:
    cdef const AdafactorHyper* h = <const AdafactorHyper*> hyper
    cdef Adafactor* k = <Adafactor*> row
    k.head.weight_decay = 0
    k.keep = 1.0 - h.lr * h.weight_decay


cdef inline void adafactor(const double* row, floating* p, const floating* grad, floating** state,
                           Py_ssize_t n) noexcept nogil:
    """State: row_var, col_var, variance, exp_avg; then the step."""
    cdef Adafactor k = (<const Adafactor*> row)[0]
    cdef const floating* step = state[4]
    cdef Py_ssize_t i
    for i in range(n):
        p[i] = p[i] * <floating> k.keep - step[i]


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef AdafactorHyper hyper
    cdef Rule* rule
    memset(&hyper, 0, sizeof(hyper))
    rule = add(kernels, rules, "adafactor", sizeof(Adafactor), adafactor_fill, adafactor[float],
               adafactor[double], hyper, ("row_var", "col_var", "variance", "exp_avg"))
    rule.squares = True
    makes_directions(rule, rules["adafactor"], take_gradient[float], take_gradient[double])
    return 0
