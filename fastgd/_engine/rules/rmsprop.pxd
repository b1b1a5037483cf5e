"""RMSprop: Tieleman & Hinton 2012; centered: Graves 2013, section 4.2."""

from libc.string cimport memset

from fastgd._engine._work cimport Head, Kernels
from fastgd._engine.rules._common cimport floating, fma, lerp, mean_square, prepare, sqrt
from fastgd._engine.rules._entry cimport add

cdef struct RMSpropHyper:
    double lr
    double alpha
    double eps
    double weight_decay
    double momentum
    double centered
    double eps_inside
    double lr_in_momentum

cdef struct RMSprop:
    Head head
    double lr        # without a buffer
    double alpha
    double inside    # epsilon under the root
    double outside
    double momentum
    double inflow    # of the direction into the buffer
    double outflow   # of the buffer into the parameter


cdef inline void rmsprop_fill(const double* hyper, double t, double* numbers,
                              double* row) noexcept nogil:
    cdef const RMSpropHyper* h = <const RMSpropHyper*> hyper
    cdef RMSprop* k = <RMSprop*> row
    k.head.weight_decay = h.weight_decay
    k.lr = h.lr
    k.alpha = h.alpha
    k.inside = h.eps if h.eps_inside else 0.0
    k.outside = 0.0 if h.eps_inside else h.eps
    k.momentum = h.momentum
    k.inflow = h.lr if h.lr_in_momentum else 1.0
    k.outflow = 1.0 if h.lr_in_momentum else h.lr


cdef inline void rmsprop_loop(const double* row, floating* p, const floating* grad,
                              floating* square_avg, floating* buf, floating* grad_avg,
                              Py_ssize_t n, bint momentum, bint centered) noexcept nogil:
    cdef RMSprop k = (<const RMSprop*> row)[0]
    cdef floating lr = <floating> (k.outflow if momentum else k.lr)
    cdef floating g, second, zero = 0
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(&k.head, grad[i], p[i])
        second = mean_square(square_avg[i], g, k.alpha)
        square_avg[i] = second
        if centered:
            grad_avg[i] = lerp(grad_avg[i], g, k.alpha)
            second = fma(-grad_avg[i], grad_avg[i], second)
            second = zero if second < zero else second
        g = g / (sqrt(second + <floating> k.inside) + <floating> k.outside)
        if momentum:
            buf[i] = fma(<floating> k.momentum, buf[i], <floating> k.inflow * g)
            g = buf[i]
        p[i] = fma(-lr, g, p[i])


cdef inline void rmsprop(const double* row, floating* p, const floating* grad, floating** state,
                         Py_ssize_t n) noexcept nogil:
    """State: square_avg, momentum_buffer, grad_avg."""
    if state[1] == NULL and state[2] == NULL:
        rmsprop_loop(row, p, grad, state[0], state[1], state[2], n, False, False)
    elif state[2] == NULL:
        rmsprop_loop(row, p, grad, state[0], state[1], state[2], n, True, False)
    elif state[1] == NULL:
        rmsprop_loop(row, p, grad, state[0], state[1], state[2], n, False, True)
    else:
        rmsprop_loop(row, p, grad, state[0], state[1], state[2], n, True, True)


cdef inline int enter(Kernels* kernels, dict rules) except -1:
    cdef RMSpropHyper hyper
    memset(&hyper, 0, sizeof(hyper))
    add(kernels, rules, "rmsprop", sizeof(RMSprop), rmsprop_fill, rmsprop[float], rmsprop[double], hyper,
        ("square_avg", "momentum_buffer", "grad_avg")).squares = True
    return 0
