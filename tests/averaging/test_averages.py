"""Averages of parameters against their definitions."""

from __future__ import annotations

import copy
import doctest
import pickle
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastgd.averaging
from fastgd.averaging import Average, ExponentialAverage, TailAverage
from tests.support import assert_same_bits

SIZES = [0, 1, 7, 8191, 8192, 8193, 20_000]
ULP = np.finfo(np.float64).eps


def walk(rng: np.random.Generator, params: Any, average: Average, steps: int) -> np.ndarray:
    """Move an array at random, updating its average; all the values that it had, in float64."""
    seen = []
    for _ in range(steps):
        params[...] = rng.standard_normal(params.shape)
        average.update()
        seen.append(params.astype(np.float64))
    return np.stack(seen)


@pytest.mark.parametrize("size", SIZES)
def test_exponential(rng: np.random.Generator, dtype: Any, size: int) -> None:
    params = np.ones(size, dtype)
    average = ExponentialAverage(params, decay=0.9)
    seen = walk(rng, params, average, 30)
    weights = 0.1 * 0.9 ** np.arange(30)[::-1]
    expected = np.tensordot(weights, seen, 1) / (1 - 0.9**30)
    assert_allclose(average.state_dict()["means"]["params"], expected, rtol=0, atol=200 * ULP)
    assert_same_bits(average.params, average.state_dict()["means"]["params"].astype(dtype))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("start", [0, 1, 29])
def test_tail(rng: np.random.Generator, dtype: Any, size: int, start: int) -> None:
    params = np.ones(size, dtype)
    average = TailAverage(params, start)
    seen = walk(rng, params, average, 30)
    means = average.state_dict()["means"]["params"]
    assert_allclose(means, seen[start:].mean(axis=0), rtol=0, atol=200 * ULP)


def test_the_first_update_is_exact(rng: np.random.Generator) -> None:
    params = rng.standard_normal(100).astype(np.float32)
    for average in (ExponentialAverage(params, 0.9999), TailAverage(params)):
        average.update()
        assert_same_bits(average.params, params)


def test_nothing_averaged_yet_gives_the_parameters(rng: np.random.Generator) -> None:
    params = rng.standard_normal(5)
    average = TailAverage(params, start=3)
    for _ in range(3):
        assert average.empty
        read = average.params
        assert_same_bits(read, params)
        assert not np.shares_memory(read, params)
        params += 1
        average.update()
    average.update()
    assert not average.empty


def test_float32_averages_do_not_stall() -> None:
    """In float32 the average would stop at a relative distance of eps / (1 - decay)."""
    params = np.ones(1, np.float32)
    average = ExponentialAverage(params, decay=0.99999)
    average.update()
    params[0] = 1.001
    for _ in range(1000):
        average.update()
    weights = 0.99999 ** np.arange(1001)[::-1]
    expected = np.average([1.0] + [float(params[0])] * 1000, weights=weights)
    assert abs(average.state_dict()["means"]["params"][0] - expected) < 1e-12


def test_structure_layout_and_dtype_are_kept(rng: np.random.Generator) -> None:
    params = {
        "W": np.asfortranarray(rng.standard_normal((3, 4)).astype(np.float32)),
        "layers": [(rng.standard_normal((2, 3)), np.array(2.0))],
    }
    average = ExponentialAverage(params, 0.5)
    average.update()
    read = average.params
    assert list(read) == ["W", "layers"]
    assert isinstance(read["layers"][0], tuple)
    assert read["W"].flags.f_contiguous
    assert_same_bits(read["W"], params["W"])
    assert_same_bits(read["layers"][0][0], params["layers"][0][0])
    assert_same_bits(read["layers"][0][1], params["layers"][0][1])
    means = average.state_dict()["means"]
    assert list(means) == ["W", "layers/0/0", "layers/0/1"]
    assert_array_equal(means["W"], params["W"])


@pytest.mark.parametrize("kind", [ExponentialAverage, TailAverage])
def test_resuming_gives_the_same_bits(rng: np.random.Generator, kind: Any) -> None:
    values = rng.standard_normal((20, 3, 5)).astype(np.float32)
    params = [np.asfortranarray(values[0])]
    whole, part = kind(params), kind(params)
    for value in values[:9]:
        params[0][...] = value
        whole.update()
        part.update()
    resumed = kind(params)
    resumed.load_state_dict(part.state_dict())
    for value in values[9:]:
        params[0][...] = value
        whole.update()
        resumed.update()
    assert whole.count == resumed.count == 20
    assert_same_bits(whole.params[0], resumed.params[0])
    assert_same_bits(whole.state_dict()["means"]["0"], resumed.state_dict()["means"]["0"])


def test_state_dict_is_a_copy() -> None:
    average = TailAverage(np.ones(3))
    average.update()
    average.state_dict()["means"]["params"][...] = 9
    assert_array_equal(average.params, np.ones(3))


BAD_STATES: list[tuple[Any, type[Exception], str]] = [
    (3, TypeError, "dict"),
    ({"count": 1}, ValueError, "means"),
    ({"count": 1, "means": {}}, ValueError, "params"),
    ({"count": 1, "means": {"params": np.ones(3), "x": np.ones(1)}}, ValueError, "x"),
    ({"count": -1, "means": {"params": np.ones(3)}}, ValueError, "count"),
    ({"count": 1.0, "means": {"params": np.ones(3)}}, TypeError, "count"),
    ({"count": 1, "means": {"params": np.ones(4)}}, ValueError, "shape"),
    ({"count": 1, "means": {"params": np.ones(3, np.float32)}}, TypeError, "float64"),
    ({"count": 1, "means": {"params": [1.0, 1.0, 1.0]}}, TypeError, "float64"),
]


@pytest.mark.parametrize(("state", "error", "message"), BAD_STATES)
def test_bad_states_change_nothing(state: Any, error: type[Exception], message: str) -> None:
    average = TailAverage(np.full(3, 5.0))
    average.update()
    with pytest.raises(error, match=message):
        average.load_state_dict(state)
    assert average.count == 1
    assert_array_equal(average.params, np.full(3, 5.0))


def test_bad_arguments() -> None:
    x = np.ones(2)
    for decay, error in [(1.0, ValueError), (-0.1, ValueError), ("a", TypeError), (abs, TypeError)]:
        with pytest.raises(error, match="decay"):
            ExponentialAverage(x, decay)  # type: ignore[arg-type]
    for start, error in [(-1, ValueError), (0.5, TypeError)]:
        with pytest.raises(error, match="start"):
            TailAverage(x, start)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'0'"):
        TailAverage([1.0, 2.0])
    with pytest.raises(ValueError, match="at least one"):
        TailAverage([])


def test_diverged_parameters_are_averaged_silently() -> None:
    params = np.array([1.0, np.inf])
    average = ExponentialAverage(params)
    average.update()
    average.update()
    assert not average.finite
    assert average.params[0] == 1.0


def test_doctests() -> None:
    result = doctest.testmod(fastgd.averaging)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_average_is_not_copied(copied: Any) -> None:
    """A copy would follow arrays that nobody trains."""
    with pytest.raises(TypeError, match="follows arrays and cannot be pickled or copied"):
        copied(ExponentialAverage(np.ones(2)))


def test_a_mean_that_the_dtype_does_not_hold_is_no_error() -> None:
    """It is read as the cast gives it, whatever the caller's errstate."""
    theta = np.array([1e-45, 1.0], np.float32)
    average = ExponentialAverage(theta, decay=0.5)
    with np.errstate(all="raise"):
        average.update()
        theta[:] = 0
        average.update()
        assert average.params.tolist() == [0.0, np.float32(1 / 3)]
