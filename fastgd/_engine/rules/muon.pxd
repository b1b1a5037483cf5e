"""Muon: Jordan et al. 2024. The matrix products between the two sweeps are in fastgd/optimizers/muon.py."""

from libc.string cimport memset

from fastgd._engine._work cimport Head, Kernels, Rule
from fastgd._engine.rules._common cimport floating, fma, lerp, prepare
from fastgd._engine.rules._entry cimport add, makes_directions

cdef struct MuonHyper:
    double lr
    double weight_decay
    double momentum
    double nesterov

cdef struct Muon:
    Head head
    double lr
    double keep      # 1 - lr * decoupled decay
    double momentum
    double nesterov


cdef inline void muon_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const MuonHyper* h = <const MuonHyper*> hyper
    cdef Muon* k = <Muon*> row
    k.head.weight_decay = 0
    k.lr = h.lr
    k.keep = 1.0 - h.lr * h.weight_decay
    k.momentum = h.momentum
    k.nesterov = h.nesterov


cdef inline void muon_measure(const double* row, const floating* p, const floating* grad,
                              floating** state, floating** terms, Py_ssize_t n) noexcept nogil:
    """The direction before it is orthogonalised; the buffer stays as it is."""
    cdef Muon k = (<const Muon*> row)[0]
    cdef const floating* buf = state[0]
    cdef floating* direction = terms[0]
    cdef floating g, average
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        average = lerp(buf[i], g, k.momentum)
        direction[i] = lerp(g, average, 1.0 - k.momentum) if k.nesterov != 0 else average


cdef inline void muon(const double* row, floating* p, const floating* grad, floating** state,
                      Py_ssize_t n) noexcept nogil:
    """State: momentum_buffer; then the direction."""
    cdef Muon k = (<const Muon*> row)[0]
    cdef floating* buf = state[0]
    cdef const floating* direction = state[1]
    cdef Py_ssize_t i
    for i in range(n):
        buf[i] = lerp(buf[i], prepare(&k.head, grad[i], p[i]), k.momentum)
        p[i] = fma(<floating> -k.lr, direction[i], p[i] * <floating> k.keep)


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef MuonHyper hyper
    cdef Rule* rule
    memset(&hyper, 0, sizeof(hyper))
    rule = add(kernels, rules, "muon", sizeof(Muon), muon_fill, muon[float], muon[double], hyper,
               ("momentum_buffer",))
    makes_directions(rule, rules["muon"], muon_measure[float], muon_measure[double])
    return 0
