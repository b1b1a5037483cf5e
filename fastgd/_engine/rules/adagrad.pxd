"""Adagrad: Duchi, Hazan & Singer 2011."""

from libc.math cimport sqrt as root
from libc.string cimport memset

from fastgd._engine._work cimport Head, Kernels
from fastgd._engine.rules._common cimport floating, fma, prepare, sqrt, take_gradient
from fastgd._engine.rules._entry cimport add, sums_rows

cdef struct AdagradHyper:
    double lr
    double lr_decay
    double weight_decay
    double eps
    double eps_inside

cdef struct Adagrad:
    Head head
    double lr
    double inside   # epsilon under the root
    double outside


cdef inline void adagrad_fill(const double* hyper, double t, double* numbers,
                              double* row) noexcept nogil:
    cdef const AdagradHyper* h = <const AdagradHyper*> hyper
    cdef Adagrad* k = <Adagrad*> row
    k.head.weight_decay = h.weight_decay
    k.lr = h.lr / (1.0 + (t - 1.0) * h.lr_decay)
    k.inside = h.eps if h.eps_inside else 0.0
    k.outside = 0.0 if h.eps_inside else h.eps


cdef inline void adagrad(const double* row, floating* p, const floating* grad, floating** state,
                         Py_ssize_t n) noexcept nogil:
    """State: sum."""
    cdef Adagrad k = (<const Adagrad*> row)[0]
    cdef floating* total = state[0]
    cdef floating g
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        total[i] = fma(g, g, total[i])
        g = g / (sqrt(total[i] + <floating> k.inside) + <floating> k.outside)
        p[i] = fma(<floating> -k.lr, g, p[i])


# --- one number for each row of the sum of the squares' means ---

cdef inline void row_wise_conclude(const double* sums, double n, double* total, double* row) noexcept nogil:
    cdef Adagrad* k = <Adagrad*> row
    total[0] += sums[0] / n
    k.lr = k.lr / (root(total[0] + k.inside) + k.outside)


cdef inline void row_wise(const double* row, floating* p, const floating* grad, floating** state,
                          Py_ssize_t n) noexcept nogil:
    cdef Adagrad k = (<const Adagrad*> row)[0]
    cdef floating g
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        p[i] = fma(<floating> -k.lr, g, p[i])


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef AdagradHyper hyper
    memset(&hyper, 0, sizeof(hyper))
    add(kernels, rules, "adagrad", sizeof(Adagrad), adagrad_fill, adagrad[float], adagrad[double], hyper,
        ("sum",)).squares = True
    sums_rows(add(kernels, rules, "row-wise adagrad", sizeof(Adagrad), adagrad_fill, row_wise[float],
                  row_wise[double], hyper, ("sum",)),
              rules["row-wise adagrad"], take_gradient[float], take_gradient[double],
              row_wise_conclude).squares = True
    return 0
