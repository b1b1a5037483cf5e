"""The emulated fma, on which the oracle's exactness rests, against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.fma import Array, fused, rounded_twice


def _operands(rng: np.random.Generator, dtype: type[np.floating], n: int) -> Array:
    exponents = rng.integers(-30, 30, n)
    return np.ldexp(rng.standard_normal(n), exponents).astype(dtype)


def _nearest(exact: Fraction, dtype: type[np.floating]) -> np.floating:
    """The value of `dtype` nearest to `exact`, ties to even."""
    guess = dtype(float(exact))
    near = [np.nextafter(guess, dtype(-np.inf)), guess, np.nextafter(guess, dtype(np.inf))]
    bits = np.uint32 if dtype is np.float32 else np.uint64
    return min(near, key=lambda x: (abs(Fraction(float(x)) - exact), int(x.view(bits)) & 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounds_once(dtype: type[np.floating], rng: np.random.Generator) -> None:
    a, b = _operands(rng, dtype, 4000), _operands(rng, dtype, 4000)
    product = (a * b).astype(dtype)
    # Cancelling, comparable, much larger and much smaller addends, and ties.
    scale = np.repeat(np.ldexp(1.0, [-60, -26, -1, 0, 1, 24, 53, 60]), 500).astype(dtype)
    c = np.where(rng.random(4000) < 0.5, -product, product * scale * _operands(rng, dtype, 4000))
    c = c.astype(dtype)
    expected = [
        _nearest(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)), dtype)
        for x, y, z in zip(a, b, c, strict=True)
    ]
    np.testing.assert_array_equal(fused(a, b, c), np.array(expected, dtype))
    assert (rounded_twice(a, b, c) != fused(a, b, c)).any()


def test_double_rounding_is_avoided_in_float32() -> None:
    # 1 + 2^-24 is half-way between two float32; the 2^-80 that float64 cannot hold decides.
    a, b, c = np.float32(2**-40), np.float32(2**-40), np.float32(1)
    half = np.float32(2**-12)
    tie = fused(half, half, c)
    assert tie == np.float32(1)
    above = fused(np.float32(2**-12 * (1 + 2**-23)), half, c)
    assert above == np.nextafter(np.float32(1), np.float32(2))
    assert fused(a, b, c) == np.float32(1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ends_of_the_range(dtype: type[np.floating]) -> None:
    info = np.finfo(dtype)
    tiny, largest = info.smallest_subnormal, info.max
    assert fused(tiny, dtype(0.75), dtype(0)) == tiny
    assert fused(tiny, dtype(0.5), dtype(0)) == 0
    assert fused(tiny, dtype(0.5), tiny) == 2 * tiny  # a tie goes to even
    assert fused(largest, dtype(2), -largest) == largest
    assert fused(largest, dtype(2), dtype(0)) == np.inf
    assert np.isnan(fused(dtype(np.inf), dtype(0), dtype(1)))
    assert fused(dtype(np.inf), dtype(1), dtype(1)) == np.inf
    assert fused(-largest, largest, dtype(np.inf)) == np.inf  # the product is not rounded to -inf


def test_shapes_and_dtypes() -> None:
    assert fused(np.float32(2), np.ones((2, 3), np.float32), np.float32(1)).shape == (2, 3)
    assert fused(np.float32(2), np.ones((), np.float32), np.float32(1)).dtype == np.float32
    with pytest.raises(TypeError, match="one dtype"):
        fused(np.float32(1), np.float64(1), np.float32(1))
