"""Gradients of any dtype and layout give exactly what the contiguous converted gradient gives.

And none of them is ever written to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.cases import CASES, Case
from tests.fma import Array
from tests.support import assert_same_bits, optimizer, tame, wide

# One case per optimizer, the one with the most state, and one that clips the global norm.
SOME = [
    case
    for case in CASES
    if case.name
    in {
        "SGD-nesterov-weight_decay",
        "Adam-eps_hat-amsgrad",
        "AdamW-lr",
        "AdamW-clip_both",
        "Adagrad-all",
        "RMSprop-all",
    }
]
SHAPES = [(), (1,), (67,), (9, 14), (3, 4, 5), (2, 3, 4, 5), (2, 3, 2, 3, 4)]


def contiguous(g: Array) -> Array:
    return g


def fortran(g: Array) -> Array:
    return np.array(g, order="F")


def every_second(g: Array) -> Array:
    big = np.full(tuple(2 * n for n in g.shape), np.nan, g.dtype)
    index: tuple[Any, ...] = (..., *(slice(None, None, 2),) * g.ndim)
    view = big[index]
    view[...] = g
    return np.asarray(view)


def gap_after_rows(g: Array) -> Array:
    """Contiguous along the last axis only."""
    big = np.full((*g.shape[:-1], g.shape[-1] + 3), np.nan, g.dtype) if g.ndim else g
    view = big[..., : g.shape[-1]] if g.ndim else big
    view[...] = g
    return np.asarray(view)


def reversed_everywhere(g: Array) -> Array:
    backwards: tuple[Any, ...] = (..., *(slice(None, None, -1),) * g.ndim)
    return np.asarray(g[backwards].copy()[backwards])


def reversed_last(g: Array) -> Array:
    return np.asarray(g[..., ::-1].copy()[..., ::-1]) if g.ndim else g


def axes_rotated(g: Array) -> Array:
    """Neither C nor F order for three axes or more."""
    return np.asarray(np.moveaxis(np.moveaxis(g, 0, -1).copy(), -1, 0)) if g.ndim else g


def transposed(g: Array) -> Array:
    return np.asarray(g.T.copy().T)


def read_only(g: Array) -> Array:
    g = g.copy()
    g.flags.writeable = False
    return g


def misaligned(g: Array) -> Array:
    raw = np.zeros(g.nbytes + 1, np.uint8)
    view = raw[1:].view(g.dtype).reshape(g.shape)
    view[...] = g
    return view


def misaligned_strided(g: Array) -> Array:
    """A field of a packed record: the stride is no multiple of the item size."""
    record = np.zeros(g.shape, np.dtype([("tag", np.uint8), ("g", g.dtype)]))
    record["g"] = g
    return np.asarray(record["g"])


def broadcast_rows(g: Array) -> Array:
    """Stride 0 along the first axis."""
    return np.asarray(np.broadcast_to(g[:1], g.shape)) if g.ndim else g


def broadcast_columns(g: Array) -> Array:
    """Stride 0 along the last axis."""
    return np.asarray(np.broadcast_to(g[..., :1], g.shape)) if g.ndim else g


def broadcast_scalar(g: Array) -> Array:
    """Stride 0 along every axis."""
    return np.asarray(np.broadcast_to(g.ravel()[0], g.shape))


LAYOUTS: list[Callable[[Array], Array]] = [
    contiguous,
    fortran,
    every_second,
    gap_after_rows,
    reversed_everywhere,
    reversed_last,
    axes_rotated,
    transposed,
    read_only,
    misaligned,
    misaligned_strided,
    broadcast_rows,
    broadcast_columns,
    broadcast_scalar,
]


def check_same_as_contiguous(case: Case, starts: list[Array], gradients: list[Array]) -> None:
    """Two steps with `gradients`, and two with their contiguous copies in the parameters' dtype.

    But float64 ones stay: over float32 parameters they are clipped and scaled before they are rounded.
    """
    results = []
    copies = [g.tobytes() for g in gradients]
    with np.errstate(over="ignore"):
        plain = [
            np.array(g if g.dtype == np.float64 else g.astype(p.dtype), order="C")
            for g, p in zip(gradients, starts, strict=True)
        ]
    for given in (gradients, plain):
        params = [p.copy(order="K") for p in starts]
        opt = optimizer(case.optimizer, params, **case.kwargs)
        for _ in range(2):
            assert opt.step(given)
        slots = [opt.state[str(i)][slot] for i in range(len(params)) for slot in case.slots]
        results.append([*params, *slots])
    for actual, expected in zip(*results, strict=True):
        assert_same_bits(actual, expected)
    assert copies == [g.tobytes() for g in gradients]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", SOME, ids=str)
def test_layouts(
    case: Case,
    layout: Callable[[Array], Array],
    dtype: type[np.floating],
    rng: np.random.Generator,
) -> None:
    starts = [wide(rng, shape, dtype) for shape in SHAPES]
    gradients = [layout(wide(rng, shape, dtype)) for shape in SHAPES]
    check_same_as_contiguous(case, starts, gradients)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_f_ordered_parameters(
    layout: Callable[[Array], Array], dtype: type[np.floating], rng: np.random.Generator
) -> None:
    case = next(case for case in SOME if case.name == "AdamW-lr")
    starts = [np.array(wide(rng, shape, dtype), order="F") for shape in SHAPES]
    gradients = [layout(wide(rng, shape, dtype)) for shape in SHAPES]
    check_same_as_contiguous(case, starts, gradients)


def gradient_dtype(name: str) -> Any:
    if name == "bfloat16":
        return pytest.importorskip("ml_dtypes").bfloat16
    return np.dtype(name)


@pytest.mark.parametrize("name", ["float16", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", SOME, ids=str)
def test_dtypes(
    case: Case,
    layout: Callable[[Array], Array],
    name: str,
    dtype: type[np.floating],
    rng: np.random.Generator,
) -> None:
    of = gradient_dtype(name)
    starts = [wide(rng, shape, dtype) for shape in SHAPES]
    gradients = [layout(tame(rng, shape, np.float64).astype(of)) for shape in SHAPES]
    check_same_as_contiguous(case, starts, gradients)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_sixteen_bit_value(name: str, dtype: type[np.floating]) -> None:
    """SGD from zero with rate 1 returns the converted gradient: subnormals, infinities, NaN."""
    gradient = np.arange(2**16, dtype=np.uint16).view(gradient_dtype(name))
    with np.errstate(invalid="ignore"):  # signalling NaN
        expected = np.subtract(0.0, gradient.astype(dtype), dtype=dtype)
    p = np.zeros(2**16, dtype)
    optimizer("SGD", p, lr=1.0).step(gradient)
    assert_same_bits(p, expected)


def test_float64_to_float32_rounds_to_nearest_even(rng: np.random.Generator) -> None:
    low = tame(rng, 1000, np.float32)
    middle = (low.astype(np.float64) + np.nextafter(low, np.float32(np.inf))) / 2  # ties
    tiny = np.ldexp(tame(rng, 1000, np.float64), -140)  # subnormal in float32
    huge = np.array([1e39, -1e39, 3.4028235677973366e38, 1e308, np.inf, np.nan])
    gradient = np.concatenate([middle, np.nextafter(middle, np.inf), tiny, huge])
    p = np.zeros(gradient.size, np.float32)
    optimizer("SGD", p, lr=1.0).step(gradient)
    with np.errstate(over="ignore"):
        assert_same_bits(p, np.float32(0) - gradient.astype(np.float32))


@pytest.mark.parametrize("name", ["float16", "float64", "bfloat16"])
@pytest.mark.parametrize("strided", [False, True])
def test_conversion_of_long_arrays(
    name: str, strided: bool, dtype: type[np.floating], rng: np.random.Generator
) -> None:
    """Longer than the block that is converted at a time, at every alignment of its end."""
    case = next(case for case in SOME if case.name == "RMSprop-all")
    of = gradient_dtype(name)
    sizes = [4096, 8191, 8193, 50_001]
    starts = [tame(rng, n, dtype) for n in sizes]
    gradients = [tame(rng, 2 * n, np.float64).astype(of) for n in sizes]
    gradients = [g[::2] if strided else g[: g.size // 2] for g in gradients]
    check_same_as_contiguous(case, starts, gradients)
