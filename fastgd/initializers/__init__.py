"""Initial weights whose scale keeps signals and gradients alive through depth.

Each function draws one weight array of a network: its entries independent, with mean 0 and a
variance that the array's fans decide, or, with `orthogonal`, its rows or columns orthonormal.

    variance = gain² / fan                       fan: LeCun  fan_in
                                                      He     fan_in, or fan_out on request
                                                      Glorot (fan_in + fan_out) / 2

Shapes have one of two layouts, with the same meaning in all functions:

    layout      dense               convolution                 where
    "in_out"    (fan_in, fan_out)   (*kernel, inputs, outputs)  NumPy's x @ W, JAX, Keras; default
    "out_in"    (fan_out, fan_in)   (outputs, inputs, *kernel)  PyTorch

Draws come from the generator given as `seed`, or from numpy.random.default_rng(seed), and from no
global state. They are made in double precision and rounded to the dtype, so float32 weights are the
float64 weights of the same seed, rounded. The same integer for two arrays of one shape gives the
same weights twice: pass one Generator to all the calls for a network instead.

Start biases at zero, with numpy.zeros.
"""

from fastgd.initializers._draws import (
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    lecun_normal,
    lecun_uniform,
    orthogonal,
)
from fastgd.initializers._scale import fans, gain

__all__ = [
    "fans",
    "gain",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "orthogonal",
]
