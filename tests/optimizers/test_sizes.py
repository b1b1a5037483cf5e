"""More elements than 32 bits can count, and more arrays than anybody has. All of it is long."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import fastgd
from tests.fma import Array
from tests.support import assert_same_bits

pytestmark = pytest.mark.long

ROWS, COLUMNS = 524_400, 4_100  # a little over 2^31 elements: 8.6 GB of float32
BLOCK = 20_000


def require_gigabytes(wanted: float) -> None:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable") and int(line.split()[1]) / 2**20 > wanted:
            return
    pytest.skip(f"needs {wanted} GB of memory")


def row_values() -> Array:
    """A gradient for each row. With it, what is written to the wrong place shows."""
    return (np.arange(ROWS) % 251 - 125).astype(np.float32)


def assert_rows(p: Array, expected: Array) -> None:
    flat = p.reshape(-1)
    for i in (0, 1, 2**31 - 1, 2**31, 2**31 + 1, flat.size - 1):
        assert flat[i] == expected[i // COLUMNS], f"element {i}"
    for low in range(0, ROWS, BLOCK):
        part = p[low : low + BLOCK]
        assert (part == expected[low : low + BLOCK, np.newaxis]).all(), f"rows from {low}"


@pytest.mark.parametrize("clip_norm", [None, 1e30])
def test_beyond_2_to_the_31(clip_norm: float | None) -> None:
    require_gigabytes(9.5)
    p = np.zeros((ROWS, COLUMNS), np.float32)
    assert p.size > 2**31
    values = row_values()
    gradient = np.broadcast_to(values[:, np.newaxis], p.shape)  # no memory of its own
    opt = fastgd.SGD(p, lr=0.5, clip_norm=clip_norm, nonfinite="raise")
    assert opt.step(gradient)
    assert_rows(p, -0.5 * values)
    exact = math.sqrt(COLUMNS * math.fsum((values.astype(np.float64) ** 2).tolist()))
    assert opt.grad_norm == pytest.approx(exact, rel=1e-15)
    last = values.copy()
    last[-1] = np.nan
    with pytest.raises(FloatingPointError):
        opt.step(np.broadcast_to(last[:, np.newaxis], p.shape))
    assert_rows(p, -0.5 * values)


def test_beyond_2_to_the_31_with_a_gradient_in_memory() -> None:
    require_gigabytes(18.5)
    p, gradient = np.zeros((2, ROWS, COLUMNS), np.float32)
    values = row_values()
    for low in range(0, ROWS, BLOCK):
        gradient[low : low + BLOCK] = values[low : low + BLOCK, np.newaxis]
    opt = fastgd.SGD(p, lr=0.5, maximize=True)
    assert opt.step(gradient)
    assert_rows(p, 0.5 * values)
    assert fastgd.global_norm(gradient[-3:]) == fastgd.global_norm(gradient[-3:].copy())
    assert_rows(gradient, values)


def test_many_elements_before_a_small_array() -> None:
    """An array whose place in the virtual concatenation is beyond 2^31."""
    require_gigabytes(9.5)
    large, small = np.zeros(2**31, np.float32), np.zeros(1000)
    opt = fastgd.SGD({"large": large, "small": small}, lr=1.0, momentum=0.0)
    opt.step({"large": None, "small": np.arange(1000.0)})
    assert_same_bits(small, -np.arange(1000.0) + 0.0)
    opt.track_norms = True
    opt.step({"large": np.broadcast_to(np.float16(0.5), 2**31), "small": np.ones(1000)})
    assert large[0] == large[-1] == large[2**30] == -0.5
    assert opt.norms()["update"].tolist() == [math.sqrt(2**29), math.sqrt(1000)]
    assert opt.state["large"]["step"] == 1


def test_a_hundred_thousand_arrays() -> None:
    rng = np.random.default_rng(3)
    count = 100_000
    sizes = rng.integers(0, 9, count)
    edges = np.cumsum(sizes)[:-1]
    whole = rng.standard_normal(sizes.sum()).astype(np.float32)
    parts = [part.copy() for part in np.split(whole, edges)]
    opt, one = fastgd.Adam({"w": parts}, lr=0.1), fastgd.Adam(whole, lr=0.1)
    for _ in range(3):
        gradient = rng.standard_normal(whole.size).astype(np.float32)
        opt.step({"w": np.split(gradient, edges)})
        one.step(gradient)
    assert_same_bits(np.concatenate(parts), whole)

    saved = opt.state_dict()
    again = fastgd.Adam({"w": parts}, lr=0.1)
    again.load_state_dict(saved)
    some = [part[:0] if i % 3 else np.ones_like(part) for i, part in enumerate(parts)]
    with pytest.raises(ValueError, match="gradient 'w/"):
        again.step({"w": some})
    again.step({"w": [None if i % 3 else part for i, part in enumerate(some)]})
    steps = [entry["step"] for entry in again.state.values()]
    assert steps == [3 if i % 3 else 4 for i in range(count)]

    more = [np.zeros(2) for _ in range(count)]
    again.add_param_group({"params": more, "lr": 1.0})
    assert len(again.params) == 2 * count
    again.step([{"w": None}, [np.ones(2)] * count])
    assert all((p < 0).all() for p in more)
    with pytest.raises(ValueError, match="same name"):
        fastgd.SGD({**{i: np.zeros(1) for i in range(count)}, "7": np.zeros(1)})
    with pytest.raises(ValueError, match=r"'(99999|100000)' and '(99999|100000)' overlap"):
        fastgd.SGD([*more, more[-1]])
