"""The draws, one function for each kind; see the package for what they share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from fastgd._arguments import choice
from fastgd.initializers._scale import (
    as_dtype,
    as_gain,
    as_generator,
    as_shape,
    fans,
)
from fastgd.placement import zeros

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from fastgd.initializers._scale import Layout, Seed, Shape

    Mode: TypeAlias = Literal["fan_in", "fan_out"]
    Gain: TypeAlias = float | str
    Weights: TypeAlias = NDArray[Any]


def glorot_uniform(
    shape: Shape,
    *,
    gain: Gain = 1.0,
    layout: Layout = "in_out",
    seed: Seed = None,
    dtype: DTypeLike = np.float32,
) -> Weights:
    """Uniform weights for layers whose signals and gradients matter alike ("Xavier").

        W ~ U(-a, a),  a = gain * sqrt(6 / (fan_in + fan_out))

    The variance is gain² * 2 / (fan_in + fan_out): between the one that keeps the variance of the
    signals on the way forward and the one that keeps that of the gradients on the way back.

    Args:
        shape: Shape of the weights, two dimensions or more, each >= 1.
        gain: A number > 0, or the name of the activation that follows, see `gain`. The default 1 is
            the paper's.
        layout: "in_out" or "out_in": which dimensions are the inputs, see `fans`.
        seed: An int >= 0; a numpy.random.Generator, which advances; or None for a new one that
            nobody can predict.
        dtype: numpy.float32 or numpy.float64.

    Returns:
        A new C-contiguous array.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> import numpy as np
        >>> from fastgd import initializers
        >>> rng = np.random.default_rng(0)
        >>> params = [{"W": initializers.glorot_uniform(shape, gain="tanh", seed=rng),
        ...            "b": np.zeros(shape[1], np.float32)} for shape in [(784, 100), (100, 10)]]
        >>> params[1]["W"].shape, params[1]["W"].dtype
        ((100, 10), dtype('float32'))

    References:
        Glorot & Bengio, Understanding the Difficulty of Training Deep Feedforward Neural Networks
        (2010), equation 16.
    """
    scale = as_gain(gain) / math.sqrt(sum(fans(shape, layout)) / 2)
    return _uniform(shape, scale, seed, dtype)


def glorot_normal(
    shape: Shape,
    *,
    gain: Gain = 1.0,
    layout: Layout = "in_out",
    seed: Seed = None,
    dtype: DTypeLike = np.float32,
) -> Weights:
    """Normal weights for layers whose signals and gradients matter alike ("Xavier").

        W ~ N(0, s²),  s = gain * sqrt(2 / (fan_in + fan_out))

    Args:
        shape, gain, layout, seed, dtype: see `glorot_uniform`.

    Returns:
        A new C-contiguous array.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Warning:
        Libraries differ in the tails. As in PyTorch this is the whole normal distribution;
        TensorFlow, Keras and JAX cut theirs off at two standard deviations and make up for the
        variance that is lost.

    Example:
        >>> from fastgd import initializers
        >>> W = initializers.glorot_normal((300, 100), seed=0)
        >>> bool(abs(W.std() / (2 / 400) ** 0.5 - 1) < 0.01)
        True

    References:
        Glorot & Bengio (2010), equation 12, with normal weights.
    """
    scale = as_gain(gain) / math.sqrt(sum(fans(shape, layout)) / 2)
    return _normal(shape, scale, seed, dtype)


def he_uniform(
    shape: Shape,
    *,
    gain: Gain = "relu",
    mode: Mode = "fan_in",
    layout: Layout = "in_out",
    seed: Seed = None,
    dtype: DTypeLike = np.float32,
) -> Weights:
    """Uniform weights for layers followed by a rectifier ("Kaiming").

        W ~ U(-a, a),  a = gain * sqrt(3 / fan)

    Args:
        shape, layout, seed, dtype: see `glorot_uniform`.
        gain: A number > 0, or the name of the activation that follows, see `gain`; "relu", the
            default, is √2.
        mode: "fan_in" keeps the variance of the signals on the way forward, "fan_out" that of the
            gradients on the way back.

    Returns:
        A new C-contiguous array.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Warning:
        PyTorch's kaiming_uniform_ has the same formula, but its layers pass it a slope of √5, which
        makes their gain 1/√3 and not √2.

    Example:
        >>> from fastgd import initializers
        >>> W = initializers.he_uniform((600, 100), seed=0)         # a = sqrt(6 / 600) = 0.1
        >>> bool(0.0999 < abs(W).max() <= 0.1)
        True

    References:
        He et al. (2015), arXiv:1502.01852, equations 10 and 14, with uniform weights.
    """
    scale = as_gain(gain) / math.sqrt(_fan(shape, layout, mode))
    return _uniform(shape, scale, seed, dtype)


def he_normal(
    shape: Shape,
    *,
    gain: Gain = "relu",
    mode: Mode = "fan_in",
    layout: Layout = "in_out",
    seed: Seed = None,
    dtype: DTypeLike = np.float32,
) -> Weights:
    """Normal weights for layers followed by a rectifier ("Kaiming").

        W ~ N(0, s²),  s = gain / sqrt(fan)

    Args:
        shape, layout, seed, dtype: see `glorot_uniform`.
        gain, mode: see `he_uniform`.

    Returns:
        A new C-contiguous array.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Warning:
        Not truncated, unlike TensorFlow's, Keras' and JAX's: see `glorot_normal`.

    Example:
        >>> from fastgd import initializers
        >>> kernel = initializers.he_normal((32, 16, 3, 3), layout="out_in", seed=0)
        >>> bool(abs(kernel.std() / (2 / 144) ** 0.5 - 1) < 0.02)
        True

    References:
        He et al. (2015), arXiv:1502.01852, equations 10 and 14.
    """
    scale = as_gain(gain) / math.sqrt(_fan(shape, layout, mode))
    return _normal(shape, scale, seed, dtype)


def lecun_uniform(
    shape: Shape,
    *,
    gain: Gain = 1.0,
    layout: Layout = "in_out",
    seed: Seed = None,
    dtype: DTypeLike = np.float32,
) -> Weights:
    """Uniform weights that keep the variance of the signals.

        W ~ U(-a, a),  a = gain * sqrt(3 / fan_in)

    Args:
        shape, gain, layout, seed, dtype: see `glorot_uniform`.

    Returns:
        A new C-contiguous array.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> from fastgd import initializers
        >>> W = initializers.lecun_uniform((300, 100), seed=0)      # a = sqrt(3 / 300) = 0.1
        >>> bool(0.0999 < abs(W).max() <= 0.1)
        True

    References:
        LeCun, Bottou, Orr & Müller, Efficient BackProp (1998), section 4.6.
    """
    return _uniform(shape, as_gain(gain) / math.sqrt(fans(shape, layout)[0]), seed, dtype)


def lecun_normal(
    shape: Shape,
    *,
    gain: Gain = 1.0,
    layout: Layout = "in_out",
    seed: Seed = None,
    dtype: DTypeLike = np.float32,
) -> Weights:
    """Normal weights that keep the variance of the signals; what SELU networks start from.

        W ~ N(0, s²),  s = gain / sqrt(fan_in)

    Args:
        shape, gain, layout, seed, dtype: see `glorot_uniform`.

    Returns:
        A new C-contiguous array.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Warning:
        Not truncated, unlike TensorFlow's, Keras' and JAX's: see `glorot_normal`.

    Example:
        >>> from fastgd import initializers
        >>> W = initializers.lecun_normal((400, 100), seed=0)
        >>> bool(abs(W.std() / 0.05 - 1) < 0.01)
        True

    References:
        LeCun, Bottou, Orr & Müller (1998), section 4.6; Klambauer et al. (2017),
        arXiv:1706.02515.
    """
    return _normal(shape, as_gain(gain) / math.sqrt(fans(shape, layout)[0]), seed, dtype)


def orthogonal(
    shape: Shape,
    *,
    gain: Gain = 1.0,
    layout: Layout = "in_out",
    seed: Seed = None,
    dtype: DTypeLike = np.float32,
) -> Weights:
    """A uniformly random orthogonal matrix, scaled by the gain.

    With the dimensions of the kernel and the inputs flattened into one, the weights are a matrix of
    shape (fan_in, outputs), transposed for layout "out_in". With gain 1 its columns are
    orthonormal, or its rows where those are fewer. So it stretches no signal, and where
    outputs >= fan_in it shrinks none either, through any number of layers.

    The matrix is the Q of a QR decomposition of normal draws with R's diagonal made positive:
    without that, Q would not be uniformly distributed (Mezzadri). Another LAPACK may round
    differently.

    Args:
        shape, gain, layout, seed, dtype: see `glorot_uniform`.

    Returns:
        A new C-contiguous array.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> import numpy as np
        >>> from fastgd import initializers
        >>> W = initializers.orthogonal((100, 30), seed=0, dtype=np.float64)
        >>> bool(np.allclose(W.T @ W, np.eye(30), rtol=0, atol=1e-14))
        True

    References:
        Saxe, McClelland & Ganguli, Exact Solutions to the Nonlinear Dynamics of Learning in Deep
        Linear Neural Networks (2014), arXiv:1312.6120. Mezzadri, How to Generate Random
        Matrices from the Classical Compact Groups (2007), arXiv:math-ph/0609050, section 5.
    """
    dims, scale, kind = as_shape(shape), as_gain(gain), as_dtype(dtype)
    fan_in, _ = fans(dims, layout)
    outputs = math.prod(dims) // fan_in
    tall = as_generator(seed).standard_normal((max(fan_in, outputs), min(fan_in, outputs)))
    q, r = np.linalg.qr(tall)
    q *= np.copysign(scale, np.diagonal(r))
    columns_are_outputs = q.shape == (fan_in, outputs)
    matrix = q if columns_are_outputs == (layout == "in_out") else q.T
    return _placed(np.ascontiguousarray(matrix).reshape(dims), kind)


def _uniform(shape: Shape, std: float, seed: Seed, dtype: DTypeLike) -> Weights:
    dims, kind, bound = as_shape(shape), as_dtype(dtype), math.sqrt(3.0) * std
    return _placed(as_generator(seed).uniform(-bound, bound, dims), kind)


def _normal(shape: Shape, std: float, seed: Seed, dtype: DTypeLike) -> Weights:
    dims, kind = as_shape(shape), as_dtype(dtype)
    draws = as_generator(seed).standard_normal(dims)
    draws *= std
    return _placed(draws, kind)


def _placed(draws: Weights, kind: np.dtype[Any]) -> Weights:
    """As a parameter, see fastgd/placement.py."""
    weights = zeros(draws.shape, kind)
    weights[...] = draws
    return weights


def _fan(shape: Shape, layout: Layout, mode: Mode) -> int:
    choice("mode", mode, ("fan_in", "fan_out"))
    return fans(shape, layout)[mode == "fan_out"]
