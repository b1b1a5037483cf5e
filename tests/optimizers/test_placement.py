"""Arrays that lie well: where, and that nothing else about them differs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastgd
from tests.support import assert_same_bits

PAGE = 4096


def offset(array: Any) -> int:
    return int(array.ctypes.data % PAGE)


def test_zeros() -> None:
    for shape, dtype, order in (
        ((300, 400), np.float32, "C"),
        ((300, 400), np.float64, "F"),
        ([1000, 3, 100], np.dtype(">f8"), "C"),
        (10, np.float32, "C"),
        ((), np.float64, "C"),
        ((0, 7), np.float32, "F"),
    ):
        made = fastgd.zeros(shape, dtype, order)
        expected = np.zeros(shape, dtype, order)
        assert made.dtype == expected.dtype
        assert made.flags.writeable
        assert (made.shape, made.strides) == (expected.shape, expected.strides)
        assert not made.any()
        if made.nbytes >= 1 << 18:
            assert offset(made) == 0
    assert fastgd.zeros(5).dtype == np.float32


def test_zeros_refuses_as_numpy_does() -> None:
    for arguments in ((-1,), ("three",), (3, "no dtype")):
        with pytest.raises((ValueError, TypeError)):
            fastgd.zeros(*arguments)
    with pytest.raises(ValueError, match='order must be "C" or "F"'):
        fastgd.zeros(3, np.float32, "K")  # type: ignore[arg-type]


def test_place_keeps_everything_but_the_place() -> None:
    rng = np.random.default_rng(0)

    class Named(dict):  # type: ignore[type-arg]
        pass

    params = Named(
        W=rng.standard_normal((300, 400)),
        layers=[np.asfortranarray(rng.standard_normal((500, 300), np.float32)), np.ones(3)],
        odd=(rng.standard_normal((600, 300))[:, ::2],),
    )
    placed = fastgd.place(params)
    assert type(placed) is Named
    assert type(placed["layers"]) is list
    pairs = [
        (placed["W"], params["W"]),
        (placed["layers"][0], params["layers"][0]),
        (placed["layers"][1], params["layers"][1]),
        (placed["odd"][0], params["odd"][0]),
    ]
    for ours, theirs in pairs:
        assert_same_bits(ours, np.asarray(theirs, order="K"))
        assert not np.shares_memory(ours, theirs)
        assert ours.flags.f_contiguous or ours.flags.c_contiguous
        if ours.nbytes >= 1 << 18:
            assert offset(ours) == 0
    assert placed["layers"][0].flags.f_contiguous
    fastgd.AdamW(placed)  # takes them all, the view with gaps too


def test_gradients_lie_beside_parameters_and_state() -> None:
    params = fastgd.place([np.ones((400, 400), np.float32), np.ones((300, 300))])
    grads = fastgd.empty_like(params)
    opt = fastgd.Adam(params, amsgrad=True)
    for param, grad, entry in zip(params, grads, opt.state.values(), strict=True):
        assert (grad.shape, grad.dtype, grad.strides) == (param.shape, param.dtype, param.strides)
        streams = [param, grad, *(a for a in entry.values() if isinstance(a, np.ndarray))]
        places = sorted(offset(stream) for stream in streams)
        gaps = np.diff([*places, places[0] + PAGE])
        assert len(streams) == 5
        assert gaps.min() >= 400


def test_steps_have_the_same_bits_wherever_arrays_lie(rng: np.random.Generator) -> None:
    plain = rng.standard_normal((400, 300)).astype(np.float32)
    placed = fastgd.place(plain)
    opts = [fastgd.AdamW(plain), fastgd.AdamW(placed)]
    for _ in range(3):
        grad = rng.standard_normal(plain.shape).astype(np.float32)
        beside = fastgd.empty_like(placed)
        beside[...] = grad
        opts[0].step(grad)
        opts[1].step(beside)
    assert_same_bits(placed, plain)


def test_what_is_no_array_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"'b/1' must be a numpy.ndarray of numbers, got .*float"):
        fastgd.place({"W": np.ones(3), "b": [np.ones(2), 1.0]})
    with pytest.raises(TypeError, match="of objects"):
        fastgd.empty_like(np.array([None]))


def test_minimize_and_initializers_place_what_they_make() -> None:
    start = np.ones((300, 300))
    result = fastgd.minimize(lambda w: ((w * w).sum(), 2 * w), start, lr=0.1, steps=2, copy=True)
    assert offset(result.params) == 0
    assert offset(fastgd.initializers.he_normal((400, 400))) == 0
    assert offset(fastgd.initializers.orthogonal((400, 400))) == 0
