"""Fused multiply-add in plain NumPy, exact to the bit.

The documented rules say where the engine rounds once (fma) and where twice, so an oracle that
rounds in the same places can ask for equal bits instead of a tolerance. NumPy has no fma; it is
rebuilt here from error-free transformations and round-to-odd: S. Boldo and G. Melquiond,
"Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd",
IEEE Transactions on Computers 57(4), 2008.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[Any]
MultiplyAdd: TypeAlias = Callable[[ArrayLike, ArrayLike, ArrayLike], Array]

# Outside these magnitudes the float64 transformations below may underflow or overflow.
_TINY, _HUGE = 2.0**-900, 2.0**990
_SPLITTER = 2.0**27 + 1.0


def fused(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> Array:
    """a * b + c rounded once. All of one dtype, float32 or float64; they broadcast."""
    a, b, c = np.broadcast_arrays(a, b, c)
    if not a.dtype == b.dtype == c.dtype:
        raise TypeError(f"fused needs one dtype, got {a.dtype}, {b.dtype}, {c.dtype}")
    shape = a.shape
    a, b, c = a.ravel(), b.ravel(), c.ravel()
    with np.errstate(all="ignore"):
        result = _fused32(a, b, c) if a.dtype == np.float32 else _fused64(a, b, c)
    return result.reshape(shape)


def rounded_twice(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> Array:
    """a * b + c as a machine without fma computes it."""
    with np.errstate(all="ignore"):
        return np.asarray(np.multiply(a, b) + c)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded sum and its exact error (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded product and its exact error (Veltkamp, Dekker)."""
    a_high = _SPLITTER * a - (_SPLITTER * a - a)
    b_high = _SPLITTER * b - (_SPLITTER * b - b)
    a_low, b_low = a - a_high, b - b_high
    p = a * b
    return p, a_low * b_low - (((p - a_high * b_high) - a_low * b_high) - a_high * b_low)


def _odd_sum(a: Array, b: Array) -> Array:
    """a + b rounded to odd: an inexact sum takes the neighbour whose last bit is 1."""
    s, error = _two_sum(a, b)
    inexact = np.isfinite(s) & np.isfinite(error) & (error != 0)
    even = (s.view(np.int64) & 1) == 0
    return np.where(inexact & even, np.nextafter(s, np.copysign(np.inf, error)), s)


def _fused32(a: Array, b: Array, c: Array) -> Array:
    # The product of two 24-bit significands is exact in float64; rounding the sum to odd there
    # makes the second rounding, to float32, innocuous.
    product = a.astype(np.float64) * b.astype(np.float64)
    return _odd_sum(product, c.astype(np.float64)).astype(np.float32)


def _fused64(a: Array, b: Array, c: Array) -> Array:
    product, product_error = _two_product(a, b)
    t, t_error = _two_sum(c, product_error)
    v, v_error = _two_sum(product, t)
    result = v + _odd_sum(t_error, v_error)

    # A finite product never overflows before an infinite c is added.
    plain = np.where(np.isfinite(a) & np.isfinite(b) & ~np.isfinite(c), c, a * b + c)
    trivial = (a == 0) | (b == 0) | ~np.isfinite(a) | ~np.isfinite(b) | ~np.isfinite(c)
    size = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.maximum(np.abs(c), np.abs(product)))
    hard = ~trivial & ((np.abs(product) < _TINY) | ~(size < _HUGE))
    result = np.where(trivial, plain, result)
    for i in np.flatnonzero(hard):
        result[i] = _by_fractions(float(a[i]), float(b[i]), float(c[i]))
    return result


def _by_fractions(a: float, b: float, c: float) -> float:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c if a * b != 0 else 0.0  # the sign of a zero result
    try:
        value = float(exact)  # correctly rounded, subnormals included
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")
    if value == 0:
        return 0.0 if exact > 0 else -0.0
    return value
