"""The rules: each optimizer's formula, once.

A rule is an element-wise loop over one span of contiguous elements in the parameter's dtype, which
the compiler vectorises: there is no hand-written vector body or tail. It reads the gradient,
updates the parameter `p` and up to three state slots `a`, `b`, `c` in place, in the order in which
the class in optimizers.py names them; a slot that the group does not use is NULL. `k` holds the
step's coefficients, computed in double precision by the class and rounded here, once, to the
parameter's dtype. The first three mean the same in every rule (SCALE, CLIP_VALUE, WEIGHT_DECAY).

An option that changes the loop is a `bint` argument of an inline function that is called with
constants, so that every variant compiles to a loop of its own without a branch inside.

`fma` is written exactly where one rounding is wanted; nothing else is fused (see numeric.h).
"""

cimport cython

ctypedef fused floating:
    float
    double

cdef extern from "numeric.h" nogil:
    float FASTGD_FMAF(float, float, float)
    double FASTGD_FMA(double, double, double)
    float sqrtf(float)
    double c_sqrt "sqrt"(double)

# The common head of every rule's coefficients.
cdef enum:
    SCALE = 0         # multiplies the gradient: its sign, grad_scale and the clipping coefficient
    CLIP_VALUE = 1    # then clamps it to ±this
    WEIGHT_DECAY = 2  # then adds this times the parameter (L2)
    RULE = 3          # here the rule's own coefficients begin


cdef inline floating fma(floating x, floating y, floating z) noexcept nogil:
    if floating is float:
        return FASTGD_FMAF(x, y, z)
    else:
        return FASTGD_FMA(x, y, z)


cdef inline floating sqrt(floating x) noexcept nogil:
    if floating is float:
        return sqrtf(x)
    else:
        return c_sqrt(x)


cdef inline floating prepare(floating g, floating p, floating scale, floating clip_value,
                             floating weight_decay) noexcept nogil:
    """The gradient as the formulas see it. The comparisons keep a NaN."""
    g = g * scale
    g = clip_value if g > clip_value else g
    g = -clip_value if g < -clip_value else g
    return fma(weight_decay, p, g) if weight_decay != 0 else g


cdef inline floating lerp(floating start, floating end, floating weight, floating keep) noexcept nogil:
    """keep * start + weight * end with keep = 1 - weight, from the nearer end, as in PyTorch's lerp:
    exact for start == end and for a weight of 0 or 1.
    """
    if weight < 0.5:
        return fma(weight, end - start, start)
    return fma(keep, start - end, end)


# --- SGD: Robbins & Monro 1951; momentum: Polyak 1964, Sutskever et al. 2013 ------------------------

cdef inline void sgd_loop(const double* k, floating* p, const floating* grad, floating* buf,
                          Py_ssize_t n, bint momentum, bint nesterov) noexcept nogil:
    cdef floating scale = <floating> k[SCALE], clip_value = <floating> k[CLIP_VALUE]
    cdef floating weight_decay = <floating> k[WEIGHT_DECAY]
    cdef floating lr = <floating> (k[RULE + 3] if momentum else k[RULE]), decay = <floating> k[RULE + 1]
    cdef floating inflow = <floating> k[RULE + 2], lookahead = <floating> k[RULE + 4]
    cdef floating g
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(grad[i], p[i], scale, clip_value, weight_decay)
        if momentum:
            buf[i] = fma(decay, buf[i], inflow * g)
            g = fma(decay, buf[i], lookahead * g) if nesterov else buf[i]
        p[i] = fma(-lr, g, p[i])


cdef inline void sgd(const double* k, floating* p, const floating* grad, floating* buf,
                     floating* b, floating* c, Py_ssize_t n) noexcept nogil:
    """k: lr without a buffer; momentum, factor of the gradient in the buffer, lr of the buffer;
    factor of the gradient in Nesterov's direction, whether to take that. Slots: momentum_buffer.
    """
    if buf == NULL:
        sgd_loop(k, p, grad, buf, n, False, False)
    elif k[RULE + 5] == 0:
        sgd_loop(k, p, grad, buf, n, True, False)
    else:
        sgd_loop(k, p, grad, buf, n, True, True)


# --- Adam: Kingma & Ba 2015; decoupled decay: Loshchilov & Hutter 2019; AMSGrad: Reddi et al. 2018 --

cdef inline void adam_loop(const double* k, floating* p, const floating* grad, floating* exp_avg,
                           floating* exp_avg_sq, floating* maximum, Py_ssize_t n,
                           bint amsgrad) noexcept nogil:
    cdef floating scale = <floating> k[SCALE], clip_value = <floating> k[CLIP_VALUE]
    cdef floating weight_decay = <floating> k[WEIGHT_DECAY]
    cdef floating step_size = <floating> k[RULE], keep = <floating> k[RULE + 1]
    cdef floating beta1 = <floating> k[RULE + 2], one_minus_beta1 = <floating> k[RULE + 3]
    cdef floating beta2 = <floating> k[RULE + 4], one_minus_beta2 = <floating> k[RULE + 5]
    cdef floating root_correction = <floating> k[RULE + 6], eps = <floating> k[RULE + 7]
    cdef floating g, second
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(grad[i], p[i], scale, clip_value, weight_decay)
        exp_avg[i] = lerp(exp_avg[i], g, one_minus_beta1, beta1)
        second = fma(beta2, exp_avg_sq[i], one_minus_beta2 * g * g)
        exp_avg_sq[i] = second
        if amsgrad:
            # In this order a NaN stays, as in PyTorch's maximum.
            second = maximum[i] if maximum[i] > second else second
            maximum[i] = second
        p[i] = fma(-step_size, exp_avg[i] / fma(sqrt(second), root_correction, eps), p[i] * keep)


cdef inline void adam(const double* k, floating* p, const floating* grad, floating* exp_avg,
                      floating* exp_avg_sq, floating* maximum, Py_ssize_t n) noexcept nogil:
    """k: lr / (1 - beta1^t), 1 - lr * decoupled decay, beta1, 1 - beta1, beta2, 1 - beta2,
    1 / sqrt(1 - beta2^t), epsilon. Slots: exp_avg, exp_avg_sq, max_exp_avg_sq.
    """
    if maximum == NULL:
        adam_loop(k, p, grad, exp_avg, exp_avg_sq, maximum, n, False)
    else:
        adam_loop(k, p, grad, exp_avg, exp_avg_sq, maximum, n, True)


# --- Adagrad: Duchi, Hazan & Singer 2011 ------------------------------------------------------------

cdef inline void adagrad(const double* k, floating* p, const floating* grad, floating* total,
                         floating* b, floating* c, Py_ssize_t n) noexcept nogil:
    """k: lr / (1 + (t-1) lr_decay), epsilon inside the root, outside. Slots: sum."""
    cdef floating scale = <floating> k[SCALE], clip_value = <floating> k[CLIP_VALUE]
    cdef floating weight_decay = <floating> k[WEIGHT_DECAY]
    cdef floating lr = <floating> k[RULE], inside = <floating> k[RULE + 1], outside = <floating> k[RULE + 2]
    cdef floating g
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(grad[i], p[i], scale, clip_value, weight_decay)
        total[i] = fma(g, g, total[i])
        p[i] = fma(-lr, g / (sqrt(total[i] + inside) + outside), p[i])


# --- RMSprop: Tieleman & Hinton 2012; centered: Graves 2013, section 4.2 ----------------------------

cdef inline void rmsprop_loop(const double* k, floating* p, const floating* grad,
                              floating* square_avg, floating* buf, floating* grad_avg,
                              Py_ssize_t n, bint momentum, bint centered) noexcept nogil:
    cdef floating scale = <floating> k[SCALE], clip_value = <floating> k[CLIP_VALUE]
    cdef floating weight_decay = <floating> k[WEIGHT_DECAY]
    cdef floating lr = <floating> (k[RULE + 3] if momentum else k[RULE]), decay = <floating> k[RULE + 1]
    cdef floating inflow = <floating> k[RULE + 2]
    cdef floating alpha = <floating> k[RULE + 4], one_minus_alpha = <floating> k[RULE + 5]
    cdef floating inside = <floating> k[RULE + 6], outside = <floating> k[RULE + 7]
    cdef floating g, second, zero = 0
    cdef Py_ssize_t i
    for i in range(n):
        g = prepare(grad[i], p[i], scale, clip_value, weight_decay)
        second = fma(alpha, square_avg[i], one_minus_alpha * g * g)
        square_avg[i] = second
        if centered:
            grad_avg[i] = lerp(grad_avg[i], g, one_minus_alpha, alpha)
            second = fma(-grad_avg[i], grad_avg[i], second)
            second = zero if second < zero else second
        g = g / (sqrt(second + inside) + outside)
        if momentum:
            buf[i] = fma(decay, buf[i], inflow * g)
            g = buf[i]
        p[i] = fma(-lr, g, p[i])


cdef inline void rmsprop(const double* k, floating* p, const floating* grad, floating* square_avg,
                         floating* buf, floating* grad_avg, Py_ssize_t n) noexcept nogil:
    """k: lr without a buffer; momentum, factor of the direction in the buffer, lr of the buffer;
    alpha, 1 - alpha, epsilon inside the root, outside.
    Slots: square_avg, momentum_buffer, grad_avg.
    """
    if buf == NULL and grad_avg == NULL:
        rmsprop_loop(k, p, grad, square_avg, buf, grad_avg, n, False, False)
    elif grad_avg == NULL:
        rmsprop_loop(k, p, grad, square_avg, buf, grad_avg, n, True, False)
    elif buf == NULL:
        rmsprop_loop(k, p, grad, square_avg, buf, grad_avg, n, False, True)
    else:
        rmsprop_loop(k, p, grad, square_avg, buf, grad_avg, n, True, True)
