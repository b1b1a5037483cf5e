"""Gradients, norms and factors far from 1: right to rounding, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastgd


def stepped(p: Any, grad: Any, scale: float = 1.0, **options: Any) -> Any:
    opt = fastgd.SGD(p, lr=1.0, **options)
    assert opt.step(grad, scale) is True
    return opt


@pytest.mark.parametrize("size", [1e39, 1e150, 1e300])
def test_float64_gradients_beyond_float32_are_clipped_in_double(size: float) -> None:
    w = np.zeros(4, np.float32)
    opt = stepped(w, np.full(4, size), clip_norm=1.0)
    np.testing.assert_array_max_ulp(w, np.full(4, -0.5, np.float32), 1)
    assert opt.grad_norm == pytest.approx(2 * size, rel=1e-15)


@pytest.mark.parametrize("size", [1e39, 1e-60])
def test_grad_scale_brings_float64_gradients_into_range(size: float) -> None:
    w = np.zeros(3, np.float32)
    stepped(w, np.full(3, size), 1.0 / size)
    np.testing.assert_array_max_ulp(w, np.full(3, -1.0, np.float32), 1)


@pytest.mark.parametrize("scale", [1e-40, 1e-300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_factors_below_float32(scale: float, dtype: Any) -> None:
    """In float32 1e-40 is subnormal and 1e-300 is zero."""
    w = np.zeros(3, dtype)
    stepped(w, np.full(3, 2.0, dtype), scale)
    expected = (np.full(3, -2.0) * scale).astype(dtype)
    np.testing.assert_array_equal(w, expected)


def test_a_clipping_factor_below_float32() -> None:
    w = np.zeros(1, np.float32)
    stepped(w, np.array([3e38], np.float32), clip_norm=1e-3)
    np.testing.assert_array_max_ulp(w, np.array([-1e-3], np.float32), 1)


def test_grad_scale_out_of_range_and_clipping_back() -> None:
    w = np.zeros(1)
    stepped(w, np.array([1e300]), 1e300, clip_norm=2.0)
    assert w[0] == pytest.approx(-2.0, rel=1e-15)


@pytest.mark.parametrize("kind", [fastgd.Adam, fastgd.Adagrad, fastgd.RMSprop])
def test_a_square_that_would_be_infinite_for_ever(kind: Any) -> None:
    """One finite gradient may not freeze a parameter: v = inf stays, and every step is 0."""
    grads = [np.array([1e25, 1.0], np.float32), np.ones(2, np.float32)]
    w = np.zeros(2, np.float32)
    opt = kind(w, nonfinite="skip")
    assert [opt.step(g) for g in grads] == [False, True]
    assert (w != 0).all()
    with pytest.raises(FloatingPointError, match=r"'params'.*square"):
        kind(w, nonfinite="raise").step(grads[0])
    for options in ({"clip_value": 1.0}, {"clip_norm": 1.0}):  # which bring it into range
        w[...] = 0
        assert kind(w, nonfinite="raise", **options).step(grads[0]) is True
        assert np.isfinite(w).all()


def test_tracked_norms_are_the_callers() -> None:
    w = np.zeros(2, np.float32)
    opt = fastgd.SGD(w, lr=1.0)
    opt.track_norms = True
    opt.step(np.array([3.0, 4.0]), 0.0)
    assert opt.norms()["grad"].tolist() == [5.0]
    opt.step(np.array([3.0, 4.0], np.float32), 1e-40)
    assert opt.norms()["grad"].tolist() == [5.0]
