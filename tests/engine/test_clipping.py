"""clip_grad_norm_ in every dtype, with coefficients of every size; arrays that share elements."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastgd
from fastgd.clipping import clip_grad_norm_, clip_grad_value_

DTYPES = ["float16", "bfloat16", "float32", "float64"]
# Half a unit in the last place of a result. float32's has one of the coefficient besides.
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-23, "float64": 2.0**-52}
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def as_dtype(name: str) -> Any:
    return np.dtype(getattr(pytest.importorskip("ml_dtypes"), name) if name[0] == "b" else name)


@dtypes
@pytest.mark.parametrize("max_norm", [1.0, 0.05, 1e3])
def test_the_norm_afterwards_is_max_norm(dtype: str, max_norm: float) -> None:
    """A coefficient of 5e-7, or 3e-8, is beyond float16's normal numbers."""
    grads = np.full(1000, 60000, as_dtype(dtype))
    value = float(grads[0])
    assert clip_grad_norm_(grads, max_norm) == pytest.approx(value * 1000**0.5, rel=1e-14)
    error = ROUNDING[dtype] * (1 + 1e-6)  # and float32's of the coefficient, for the 16-bit ones
    assert fastgd.global_norm(grads) == pytest.approx(max_norm, rel=error)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_product_is_rounded_once(dtype: str, rng: np.random.Generator) -> None:
    exact = 1000 * rng.standard_normal(20000)  # more than one of NumPy's blocks
    grads = exact.astype(as_dtype(dtype))
    wide = grads.astype(np.float32)
    norm = clip_grad_norm_([grads[::2], {"odd": grads[1::2]}], 3.0)
    assert_array_equal(grads, (wide * np.float32(3.0 / norm)).astype(grads.dtype))


@pytest.mark.parametrize(
    ("dtype", "element", "max_norm"),
    [
        ("bfloat16", 2.0**100, 2.0**-40),
        ("float32", 2.0**100, 2.0**-40),
        ("float32", 3e38, 2.0**-130),
        ("float64", 2.0**1000, 2.0**-70),
        ("float64", 2.0**1000, 2.0**-1060),  # the quotient is 0 in float64
        ("float64", 1.7e308, 5e-324),
    ],
)
def test_a_coefficient_below_the_normal_numbers(
    dtype: str, element: float, max_norm: float
) -> None:
    kind = as_dtype(dtype)
    grads = np.array([element, 0.0, -element / 2**20], kind)
    first = float(grads[0])
    assert clip_grad_norm_(grads, max_norm) == pytest.approx(first, rel=2.0**-40)
    tiny = {"bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 5e-324}[dtype]
    error = 2 * ROUNDING[dtype] + 2.0**-40  # the small element is part of the norm
    assert float(grads[0]) == pytest.approx(max_norm, rel=error, abs=tiny)
    assert float(grads[2]) == pytest.approx(-max_norm / 2**20, rel=error, abs=tiny)
    assert grads[1] == 0


@dtypes
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite_shows(dtype: str, bad: float) -> None:
    grads = np.array([1.0, bad], as_dtype(dtype))
    assert_array_equal(clip_grad_norm_(grads, 1.0), bad)
    assert np.isnan(float(grads[1]))
    assert np.isnan(float(grads[0])) == np.isnan(bad)


@dtypes
def test_below_max_norm_nothing_changes(dtype: str) -> None:
    grads = np.array([3.0, 4.0], as_dtype(dtype))
    assert clip_grad_norm_(grads, 5.0) == 5.0
    assert_array_equal(grads, [3, 4])


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
def test_overlaps_of_arrays_that_are_no_neighbours(order: tuple[str, ...]) -> None:
    """a reaches over b to c: sorted by address, b stands between the two that share elements."""
    x = np.ones(100)
    grads = {"a": x[0:100:2], "b": x[1:5:2], "c": x[40:50:2]}
    tree = {key: grads[key] for key in order}
    pair = [key for key in order if key != "b"]
    for clip in (clip_grad_norm_, clip_grad_value_):
        with pytest.raises(ValueError, match=f"'{pair[0]}' and '{pair[1]}' overlap"):
            clip(tree, 0.5)  # type: ignore[operator]
    assert_array_equal(x, 1)


def test_interleaved_columns_do_not_overlap() -> None:
    matrix = np.full((50, 4), 2.0)
    columns = [matrix[:, 3], matrix[:, 0], matrix[::-1, 2], matrix[:, 1]]
    clip_grad_value_(columns, 1.0)
    assert_array_equal(matrix, 1)
    assert clip_grad_norm_(columns, 1.0) == pytest.approx(200**0.5, rel=1e-14)
    assert fastgd.global_norm(matrix) == pytest.approx(1, rel=1e-15)
