"""The scale of initial weights, fans and gains, and the checks of the initializers' arguments."""

from __future__ import annotations

import math
from operator import index
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from fastgd._arguments import choice, integer, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    Shape: TypeAlias = Sequence[int]
    Seed: TypeAlias = int | np.random.Generator | None
    Layout: TypeAlias = Literal["in_out", "out_in"]

_GAINS = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "leaky_relu": math.sqrt(2.0 / (1.0 + 0.01**2)),
    "selu": 3.0 / 4.0,
}


def gain(activation: str, param: float | None = None) -> float:
    """The factor on the weights that makes good what an activation takes away from a signal.

        activation      gain                      E[gain² f(z)²] for z ~ N(0, 1)
        "linear"        1                         1
        "sigmoid"       1                         0.29
        "tanh"          5/3                       1.10
        "relu"          √2                        1
        "leaky_relu"    √(2 / (1 + slope²))       1
        "selu"          3/4                       0.56

    The values are PyTorch's (torch.nn.init.calculate_gain). The last column is the variance before
    an activation when it was 1 before the previous one and the weights in between have variance
    gain² / fan_in. Only for the piecewise linear activations does every variance change by that
    factor; with "tanh" it settles at 1.18 whatever it was at first.

    Args:
        activation: One of the names above.
        param: The negative slope of "leaky_relu", finite, 0.01 by default. The others have none.

    Returns:
        The gain, > 0.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Warning:
        For "selu" the theory of Klambauer et al. needs gain 1, that is `lecun_normal` as it is:
        then mean 0 and variance 1 are a stable fixed point. PyTorch's 3/4 gives that up for a
        steadier gradient.

    Example:
        >>> from fastgd import initializers
        >>> round(initializers.gain("tanh"), 4)
        1.6667
        >>> round(initializers.gain("leaky_relu", 0.2), 4)
        1.3868

    References:
        He, Zhang, Ren & Sun, Delving Deep into Rectifiers (2015), arXiv:1502.01852, equations 10
        (ReLU) and 15 (leaky). LeCun, Bottou, Orr & Müller, Efficient BackProp (1998), section 4.4:
        scaling tanh so that unit variance is kept. Klambauer, Unterthiner, Mayr & Hochreiter,
        Self-Normalizing Neural Networks (2017), arXiv:1706.02515.
    """
    choice("activation", activation, _GAINS)
    if param is None:
        return _GAINS[activation]
    if activation != "leaky_relu":
        raise ValueError(f"param must be None for {activation!r}, got {param!r}")
    return math.sqrt(2.0) / math.hypot(1.0, number("param", param, -math.inf, bounds="()"))


def fans(shape: Shape, layout: Layout = "in_out") -> tuple[int, int]:
    """How many inputs an output depends on, and how many outputs an input reaches.

        fan_in = inputs * prod(kernel)    fan_out = outputs * prod(kernel)

    Args:
        shape: Shape of the weights, two dimensions or more, each >= 1: those of the module's table.
        layout: "in_out" or "out_in".

    Returns:
        (fan_in, fan_out).

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Warning:
        For a convolution in groups the shape holds inputs / groups, which makes fan_in right and
        fan_out too large by that factor, here as in other libraries; a stride does the same.

    Example:
        >>> from fastgd import initializers
        >>> initializers.fans((784, 100))
        (784, 100)
        >>> initializers.fans((3, 3, 16, 32)) == initializers.fans((32, 16, 3, 3), "out_in")
        True

    References:
        He et al. (2015), arXiv:1502.01852, section 2.2, n and n̂.
    """
    dims = as_shape(shape)
    choice("layout", layout, ("in_out", "out_in"))
    *kernel, inputs, outputs = dims if layout == "in_out" else dims[::-1]
    field = math.prod(kernel)
    return inputs * field, outputs * field


def as_gain(value: Any) -> float:
    """The number that the argument `gain` stands for."""
    if isinstance(value, str):
        choice("gain", value, _GAINS)
        return _GAINS[value]
    return number("gain", value, bounds="()")


def as_shape(shape: Any) -> tuple[int, ...]:
    try:
        if isinstance(shape, (str, bytes)):
            raise TypeError
        dims = tuple(map(index, shape))
    except TypeError:
        raise TypeError(
            f"shape must be a tuple of integers, got {type(shape).__name__}: {shape!r}"
        ) from None
    if len(dims) < 2:
        raise ValueError(
            f"shape must have at least two dimensions, inputs and outputs, got {shape!r}; "
            "start a bias with numpy.zeros"
        )
    if min(dims) < 1:
        raise ValueError(f"shape must have dimensions of at least 1, got {shape!r}")
    return dims


def as_dtype(dtype: Any) -> np.dtype[Any]:
    expected = "dtype must be native float32 or float64"
    if dtype is None:  # which NumPy takes for float64
        raise TypeError(f"{expected}, got None")
    try:
        kind = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"{expected}, got {dtype!r}") from None
    if kind not in (np.float32, np.float64):
        raise TypeError(f"{expected}, got {dtype!r}")
    chosen: np.dtype[Any] = kind
    return chosen


def as_generator(seed: Any) -> np.random.Generator:
    if isinstance(seed, np.random.Generator):
        return seed
    if seed is None:
        return np.random.default_rng()
    hint = "; it may also be a numpy.random.Generator, or None"
    return np.random.default_rng(integer("seed", seed, hint=hint))
