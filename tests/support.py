"""Helper functions of the tests: data, bitwise comparison, and what the engine build rounds once."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from tests.fma import Array, MultiplyAdd, fused, rounded_twice


def child_environment(**environment: str) -> dict[str, str]:
    """For a fresh interpreter that sees the same fastgd and these tests.

    fastgd's own folder comes first, lest the source folder, where these tests may lie, shadow it.
    """
    path = os.pathsep.join([str(Path(fastgd.__file__).parents[1]), str(Path(__file__).parents[1])])
    return {**os.environ, "PYTHONPATH": path, **environment}


def optimizer(name: str, params: Any, **kwargs: Any) -> Any:
    """`fastgd.<name>(params, **kwargs)`."""
    return getattr(fastgd, name)(params, **kwargs)


@functools.cache
def engine_multiply_add() -> MultiplyAdd:
    """How this engine build computes a * b + c, found by trying it.

    test_rules.py holds the builds for v3 and v4 to `fused` and the one for v2 to `rounded_twice`.
    """
    p, g = np.array([1.0]), np.array([1.0 + 2.0**-30])
    lr = 1.0 - 2.0**-30  # lr * g = 1 - 2^-60, which rounds to 1
    fastgd.SGD(p, lr=lr).step(g)
    return fused if p[0] == 2.0**-60 else rounded_twice


def bits(x: Array) -> Array:
    """The bit patterns of a float array, every NaN made the same one."""
    x = np.array(x, order="C")
    x[np.isnan(x)] = np.nan
    return x.view(np.dtype(f"u{x.dtype.itemsize}"))


def assert_same_bits(actual: Array, expected: Array, where: str = "") -> None:
    """Equal dtype, shape and bits: tells -0.0 from 0.0, unlike assert_array_equal."""
    assert actual.dtype == expected.dtype, where
    assert actual.shape == expected.shape, where
    if not np.array_equal(bits(actual), bits(expected)):
        np.testing.assert_array_equal(actual, expected, err_msg=where)
        raise AssertionError(f"{where}: only the sign of a zero differs")


def assert_matches(actual: Array, expected: Array, ulps: int, where: str = "") -> None:
    """The same bits, or where `ulps` says so as far apart as so many of the largest element's."""
    if ulps == 0:
        assert_same_bits(actual, expected, where)
        return
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), where
    if expected.size:
        bound = ulps * float(np.spacing(np.abs(expected).max()))
        assert np.abs(actual - expected).max() <= bound, where


def assert_same_state(
    opt: Any,
    steps: Mapping[str, int],
    state: Mapping[str, Mapping[str, Any]],
    where: str = "",
    ulps: int = 0,
) -> None:
    """opt.state has exactly these step counts, slots and numbers."""
    assert set(opt.state) == set(state), where
    for name, slots in state.items():
        entry = opt.state[name]
        assert set(entry) == {"step", *slots}, f"{where} {name}"
        assert entry["step"] == steps[name], f"{where} {name}"
        for slot, expected in slots.items():
            if isinstance(expected, float):
                assert entry[slot] == pytest.approx(expected, rel=ulps * 2.0**-52, abs=0), slot
            else:
                assert_matches(entry[slot], expected, ulps, f"{where} {name} {slot}")


def wide(rng: np.random.Generator, shape: int | tuple[int, ...], dtype: Any) -> Array:
    """Values of both signs over six decades, with a few zeros, some of them negative."""
    x = rng.standard_normal(shape) * 10.0 ** rng.uniform(-4, 2, shape)
    x = np.where(rng.random(shape) < 0.03, np.copysign(0.0, x), x)
    return np.asarray(x, dtype)


def tame(rng: np.random.Generator, shape: int | tuple[int, ...], dtype: Any) -> Array:
    """Standard normal values."""
    return np.asarray(rng.standard_normal(shape), dtype)
