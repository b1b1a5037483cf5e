"""SGD: Robbins & Monro 1951; momentum: Polyak 1964, Sutskever et al. 2013; gradient
centralization: Yong et al. 2020.
"""

from libc.math cimport INFINITY
from libc.string cimport memcpy, memset

from fastgd._engine._work cimport WIDTH, Head, Kernels, Rule
from fastgd._engine.rules._common cimport floating, fma, prepare, take_gradient
from fastgd._engine.rules._entry cimport add, makes_directions

cdef struct SGDHyper:
    double lr
    double momentum
    double dampening
    double weight_decay
    double nesterov
    double lr_in_momentum
    double centralize

cdef struct SGD:
    Head head
    double lr           # without a buffer
    double momentum
    double inflow       # of the gradient into the buffer
    double outflow      # of the buffer into the parameter
    double lookahead    # of the gradient into Nesterov's direction
    double nesterov


cdef inline void sgd_fill(const double* hyper, double t, double* numbers, double* row) noexcept nogil:
    cdef const SGDHyper* h = <const SGDHyper*> hyper
    cdef SGD* k = <SGD*> row
    k.head.weight_decay = h.weight_decay
    k.lr = h.lr
    k.momentum = h.momentum
    k.outflow = 1.0 if h.lr_in_momentum else h.lr
    k.lookahead = h.lr if h.lr_in_momentum else 1.0
    k.inflow = k.lookahead if t == 1 else k.lookahead * (1.0 - h.dampening)
    k.nesterov = h.nesterov


cdef inline void sgd_loop(const double* row, floating* p, const floating* grad, floating* buf,
                          Py_ssize_t n, bint momentum, bint nesterov) noexcept nogil:
    cdef SGD k = (<const SGD*> row)[0]
    cdef floating lr = <floating> (k.outflow if momentum else k.lr), decay = <floating> k.momentum
    cdef floating g
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        if momentum:
            buf[i] = fma(decay, buf[i], <floating> k.inflow * g)
            g = fma(decay, buf[i], <floating> k.lookahead * g) if nesterov else buf[i]
        p[i] = fma(-lr, g, p[i])


cdef inline void sgd(const double* row, floating* p, const floating* grad, floating** state,
                     Py_ssize_t n) noexcept nogil:
    """State: momentum_buffer."""
    if state[0] == NULL:
        sgd_loop(row, p, grad, state[0], n, False, False)
    elif (<const SGD*> row).nesterov == 0:
        sgd_loop(row, p, grad, state[0], n, True, False)
    else:
        sgd_loop(row, p, grad, state[0], n, True, True)


cdef inline void centralized_sgd(const double* row, floating* p, const floating* grad, floating** state,
                                 Py_ssize_t n) noexcept nogil:
    """State: momentum_buffer; then the gradient as it is taken."""
    cdef double plain[WIDTH]
    memcpy(&plain[0], row, sizeof(plain))
    (<SGD*> &plain[0]).head = Head(1, INFINITY, 0, 0)
    sgd(&plain[0], p, <const floating*> state[1], state, n)


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef SGDHyper hyper
    cdef Rule* rule
    memset(&hyper, 0, sizeof(hyper))
    add(kernels, rules, "sgd", sizeof(SGD), sgd_fill, sgd[float], sgd[double], hyper,
        ("momentum_buffer",))
    rule = add(kernels, rules, "centralized sgd", sizeof(SGD), sgd_fill, centralized_sgd[float],
               centralized_sgd[double], hyper, ("momentum_buffer",))
    makes_directions(rule, rules["centralized sgd"], take_gradient[float], take_gradient[double])
    return 0
