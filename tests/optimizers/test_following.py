"""step(grads, params=…): hosts whose arrays are others with every step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from tests.support import assert_same_bits, optimizer, tame

SHAPES = {"W": (4, 3), "b": (3,), "big": (300, 40)}


def tree(rng: np.random.Generator, dtype: Any = np.float64) -> dict[str, Any]:
    made = {key: tame(rng, shape, dtype) for key, shape in SHAPES.items()}
    made["big"] = np.asfortranarray(made["big"])
    return made


def copied(params: Any) -> Any:
    return {key: value.copy(order="K") for key, value in params.items()}


@pytest.mark.parametrize("name", ["SGD", "Adam", "LAMB", "Muon", "ScheduleFreeAdamW"])
def test_a_host_that_replaces_its_arrays(
    name: str, dtype: type[np.floating], rng: np.random.Generator
) -> None:
    """Bit for bit the run over arrays that stay; those that were replaced are not written any more."""
    params: Any = tree(rng, dtype)
    if name == "Muon":
        params = {"W": params["W"]}
    stays = copied(params)
    opt, other = optimizer(name, params), optimizer(name, stays)
    for step in range(6):
        grads = {key: tame(rng, p.shape, dtype) for key, p in params.items()}
        if step % 2:  # all of them, then one, then none
            old = params
            keys = list(params) if step < 4 else list(params)[:1]
            params = {k: p.copy(order="K") if k in keys else p for k, p in params.items()}
            before = {key: old[key].copy(order="K") for key in keys}
            opt.step(grads, params=params)
            for key in keys:
                assert_same_bits(old[key], before[key], key)
        else:
            opt.step(grads, params=params)
        other.step(grads)
    for key, p in params.items():
        assert_same_bits(p, stays[key], key)
        assert opt.params[key] is p
        assert opt.param_groups[0]["params"][list(params).index(key)] is p


def test_afterwards_they_are_the_optimizers(tmp_path: Path, rng: np.random.Generator) -> None:
    """For saving, for steps without params, for groups."""
    groups = [tree(rng), {"V": tame(rng, (5, 5), np.float64)}]
    opt = fastgd.Adam([{"params": group} for group in groups])
    fresh = [copied(group) for group in groups]
    grads = [{key: np.ones(p.shape) for key, p in group.items()} for group in groups]
    opt.step(grads, params=fresh)
    opt.step(grads)
    assert opt.params["1/V"] is fresh[1]["V"]
    fastgd.save(tmp_path / "run", opt)
    saved = fastgd.load(tmp_path / "run").parameters
    assert_same_bits(saved["1/V"], fresh[1]["V"])
    fresh[0]["b"] = fresh[0]["b"].copy()
    with pytest.raises(ValueError, match="'0/b' was replaced"):
        opt.step(grads)


def test_one_array_and_a_list_of_one_group() -> None:
    w = np.zeros(3)
    opt = fastgd.SGD(w, lr=1.0)
    other = np.ones(3)
    opt.step(np.ones(3), params=other)
    opt.step([np.ones(3)], params=[other])
    assert (w.tolist(), other.tolist()) == ([0.0] * 3, [-1.0] * 3)


BAD: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "no array": (lambda p: {**p, "b": [1.0]}, TypeError, "parameter 'b' must be a numpy.ndarray"),
    "a shape": (lambda p: {**p, "b": np.ones(4)}, ValueError, r"'b' has shape \(4,\)"),
    "a dtype": (lambda p: {**p, "b": np.ones(3, np.float32)}, ValueError, "'b' has shape .*float32"),
    "integers": (lambda p: {**p, "b": np.ones(3, int)}, TypeError, "'b' has dtype"),
    "an order": (lambda p: {**p, "big": np.ones((300, 40))}, ValueError, "'big' is laid out in the"),
    "read-only": (
        lambda p: {**p, "b": np.frombuffer(np.ones(3).tobytes())}, ValueError, "'b' is read-only",
    ),
    "strided": (lambda p: {**p, "b": np.ones(6)[::2]}, ValueError, "'b' is not contiguous"),
    "a missing key": (lambda p: {"W": p["W"], "b": p["b"]}, ValueError, "params: expected a dict"),
    "another key": (
        lambda p: {"W": p["W"], "b": p["b"], "c": p["big"]}, ValueError, "params: expected a dict",
    ),
    "a list": (lambda p: list(p.values()), ValueError, "params: expected a dict"),
    "shared memory": (
        lambda p: {**p, "b": p["W"].reshape(-1)[:3]}, ValueError, "params: the memory of parameters",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_refused_and_nothing_has_changed(bad: str, rng: np.random.Generator) -> None:
    change, error, message = BAD[bad]
    params = tree(rng)
    opt = fastgd.Adam(params)
    grads = {key: np.ones(p.shape) for key, p in params.items()}
    opt.step(grads)
    before, state = copied(params), opt.state_dict()
    fresh = {**params, "W": params["W"].copy()}
    with pytest.raises(error, match=message):
        opt.step(grads, params=change(fresh if bad != "shared memory" else params))
    assert all(opt.params[key] is p for key, p in params.items())
    for key, p in params.items():
        assert_same_bits(p, before[key], key)
    assert repr(opt.state_dict()) == repr(state)
    assert opt.step(grads)


def test_a_refused_gradient_leaves_the_arrays_before(rng: np.random.Generator) -> None:
    params = tree(rng)
    opt = fastgd.Adam(params)
    fresh = copied(params)
    with pytest.raises(ValueError, match="gradient 'b' has shape"):
        opt.step({"W": None, "b": np.ones(4), "big": None}, params=fresh)
    with pytest.raises(ValueError, match="overlaps the memory of parameter 'W'"):
        opt.step({"W": fresh["W"], "b": None, "big": None}, params=fresh)
    assert all(opt.params[key] is p for key, p in params.items())
    opt.step({key: np.ones(p.shape) for key, p in params.items()})
    for key, p in fresh.items():
        assert not np.array_equal(p, params[key])


def test_a_gradient_where_a_parameter_lies_now_is_seen() -> None:
    """Where the last gradient lay, which overlapped nothing then."""
    w, g = np.zeros(4), np.ones(4)
    opt = fastgd.SGD(w, lr=1.0)
    opt.step(g)
    with pytest.raises(ValueError, match="overlaps the memory of parameter"):
        opt.step(g, params=g)
    assert w.tolist() == [-1.0] * 4
