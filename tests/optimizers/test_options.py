"""The options that all optimizers share, against the reference: scaling, clipping, groups, None."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastgd
from tests.cases import falling
from tests.fma import Array
from tests.reference import OPTIMIZERS, SPECS, Reference, global_norm
from tests.support import (
    assert_matches,
    assert_same_bits,
    assert_same_state,
    engine_multiply_add,
    optimizer,
    tame,
    wide,
)

SHAPES = {"a": (7, 5), "b": (), "c": (130,), "d": (0,)}


def arrays(rng: np.random.Generator, dtype: Any) -> dict[str, Array]:
    return {name: tame(rng, shape, dtype) for name, shape in SHAPES.items()}


def reference(name: str, params: dict[str, Array], **kwargs: Any) -> Reference:
    return Reference(name, params, multiply_add=engine_multiply_add(), **kwargs)


def assert_same(opt: Any, ref: Reference, names: dict[str, str] | None = None) -> None:
    """Parameters, state and counts; `names` maps the reference's names to the optimizer's."""
    names = names or {name: name for name in ref.params}
    ulps = ref.ulps * (ref.step_count + 1)
    for name, p in ref.params.items():
        assert_matches(opt.params[names[name]], p, ulps, name)
    steps = {names[n]: t for n, t in ref.steps.items()}
    assert_same_state(opt, steps, {names[n]: s for n, s in ref.state.items()}, ulps=ulps)
    assert opt.step_count == ref.step_count


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("scale", [1.0, 0.1, -2.0, 0.0, 1e-3])
def test_grad_scale(
    name: str, scale: float, dtype: type[np.floating], rng: np.random.Generator
) -> None:
    params = arrays(rng, dtype)
    ref = reference(name, params, **SPECS[name].having(weight_decay=0.1))
    opt = optimizer(name, params, **SPECS[name].having(weight_decay=0.1))
    for _ in range(3):
        grads = arrays(rng, dtype)
        assert opt.step(grads, grad_scale=scale) is True
        ref.step(grads, scale)
    assert_same(opt, ref)
    assert opt.grad_norm is None


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_grad_scale(name: str, bad: float) -> None:
    p = np.ones(3)
    opt = optimizer(name, p)
    with pytest.raises(ValueError, match="grad_scale"):
        opt.step(np.ones(3), grad_scale=bad)
    assert_same_bits(p, np.ones(3))
    assert opt.step_count == 0


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("limit", [1e-3, 3.0, 1e9])
def test_clip_norm_with_scale(
    name: str, maximize: bool, limit: float, dtype: type[np.floating], rng: np.random.Generator
) -> None:
    params = arrays(rng, dtype)
    kwargs = {"clip_norm": limit, "clip_value": 0.4, "maximize": maximize}
    ref, opt = reference(name, params, **kwargs), optimizer(name, params, **kwargs)
    for scale in (0.7, -0.3, 2.0):
        grads: dict[str, Array | None] = {**arrays(rng, dtype), "b": None}
        opt.step(grads, grad_scale=scale)
        exact = abs(scale) * global_norm([g for g in grads.values() if g is not None])
        assert opt.grad_norm == pytest.approx(exact, rel=200 * 2.0**-53)
        ref.step(grads, scale, norm=opt.grad_norm)
    assert_same(opt, ref)


def test_clip_norm_of_a_zero_gradient(dtype: type[np.floating]) -> None:
    p = np.ones(5, dtype)
    opt = fastgd.SGD(p, lr=0.5, clip_norm=1.0)
    opt.step(np.zeros(5, dtype))
    assert opt.grad_norm == 0.0
    assert_same_bits(p, np.ones(5, dtype))


def test_norm_is_computed_when_it_is_needed() -> None:
    for kwargs, wanted in (
        ({}, None),
        ({"clip_value": 1.0}, None),
        ({"clip_norm": 1.0}, 5.0),
        ({"nonfinite": "raise"}, 5.0),
        ({"nonfinite": "skip"}, 5.0),
    ):
        opt = fastgd.SGD(np.zeros(2), **kwargs)
        opt.step(np.array([3.0, -4.0]))
        assert opt.grad_norm == wanted


def test_nesterov_without_momentum_is_plain_sgd() -> None:
    """scikit-learn and Keras have nesterov beside a momentum of 0."""
    one, other = np.ones(5), np.ones(5)
    opt = fastgd.SGD(one, lr=0.1, nesterov=True)
    plain = fastgd.SGD(other, lr=0.1)
    for _ in range(3):
        opt.step(np.arange(5.0))
        plain.step(np.arange(5.0))
    assert_same_bits(one, other)
    assert "momentum_buffer" not in opt.state["params"]


@pytest.mark.parametrize("size", [1e-200, 1e200, 1e-310])
def test_norms_neither_overflow_nor_underflow(size: float) -> None:
    p = np.zeros(4)
    g = np.full(4, size)
    opt = fastgd.SGD(p, lr=1.0, clip_norm=1e300)
    opt.step(g)
    assert opt.grad_norm == pytest.approx(2 * size, rel=1e-14)
    assert fastgd.global_norm([g]) == pytest.approx(2 * size, rel=1e-14)
    assert_same_bits(p, -g)


def test_clip_value_keeps_nan(dtype: type[np.floating]) -> None:
    p = np.zeros(5, dtype)
    fastgd.SGD(p, lr=1.0, clip_value=0.5).step(np.array([np.nan, np.inf, -np.inf, 0.25, 9], dtype))
    assert_same_bits(p, np.array([np.nan, -0.5, 0.5, -0.25, -0.5], dtype))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip_norm", [None, 2.0])
def test_groups_override_everything_and_none_skips(
    name: str, clip_norm: float | None, dtype: type[np.floating], rng: np.random.Generator
) -> None:
    params = arrays(rng, dtype)
    overrides = dict(zip(params, SPECS[name].overrides, strict=True))
    kwargs: dict[str, Any] = {"lr": 0.05, "clip_norm": clip_norm}
    ref = reference(name, params, overrides=overrides, **kwargs)
    groups = [{"params": {key: p}, **overrides[key]} for key, p in params.items()]
    opt = optimizer(name, groups, **kwargs)
    frozen: list[set[str]] = [set(), {"a"}, {"a", "c"}, set(params), {"b"}, set()]
    for skipped in frozen:
        grads = {key: None if key in skipped else g for key, g in arrays(rng, dtype).items()}
        assert opt.step([{key: g} for key, g in grads.items()]) is True
        ref.step(grads, norm=opt.grad_norm)
    assert_same(opt, ref, {key: f"{i}/{key}" for i, key in enumerate(params)})
    assert opt.state["0/a"]["step"] == 3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_setting_a_value_takes_effect_at_the_next_step(
    name: str, dtype: type[np.floating], rng: np.random.Generator
) -> None:
    params = arrays(rng, dtype)
    ref, opt = reference(name, params), optimizer(name, params)
    spec = SPECS[name]
    changes: list[dict[str, Any]] = [
        {},
        spec.having(lr=0.25),
        {**spec.having(weight_decay=0.5), "maximize": True},
        {**spec.having(lr=falling), "maximize": False},
    ]
    for change in changes:
        for key, value in change.items():
            opt.param_groups[0][key] = value
            for hyper in ref.hyper.values():
                hyper[key] = value
        grads = arrays(rng, dtype)
        opt.step(grads)
        ref.step(grads)
    assert_same(opt, ref)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("policy", ["raise", "skip"])
@pytest.mark.parametrize("position", [0, 64, 129])
def test_nonfinite(name: str, bad: float, policy: str, position: int, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    params = arrays(rng, dtype)
    ref, opt = reference(name, params), optimizer(name, params, nonfinite=policy)
    grads = arrays(rng, dtype)
    opt.step(grads)
    ref.step(grads)
    poisoned = {key: g.copy() for key, g in grads.items()}
    poisoned["c"][position] = bad
    if policy == "raise":
        with pytest.raises(FloatingPointError, match=r"\bc\b"):
            opt.step(poisoned)
    else:
        assert opt.step(poisoned) is False
    assert_same(opt, ref)
    assert opt.step(grads) is True
    ref.step(grads)
    assert_same(opt, ref)


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if not SPECS[n].ulps])
def test_nonfinite_propagates_to_its_element_only(name: str, dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(2)
    p, g = wide(rng, 100, dtype), wide(rng, 100, dtype)
    ref, opt = reference(name, {"params": p}), optimizer(name, p)
    g[17] = np.nan
    for _ in range(2):
        assert opt.step(g) is True
        ref.step({"params": g})
    assert_same(opt, ref)
    assert np.flatnonzero(np.isnan(p)).tolist() == [17]


def test_squares_that_overflow_are_not_nonfinite() -> None:
    """Finite gradients whose squares overflow are finite."""
    p = np.zeros(3)
    opt = fastgd.SGD(p, lr=1.0, nonfinite="raise")
    assert opt.step(np.full(3, 1e300)) is True
    assert (p == -1e300).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_maximize_is_minimizing_the_negative(
    name: str, dtype: type[np.floating], rng: np.random.Generator
) -> None:
    up = wide(rng, 200, dtype)
    down = up.copy()
    decay = SPECS[name].having(weight_decay=0.1)
    ascending = optimizer(name, up, maximize=True, **decay)
    descending = optimizer(name, down, **decay)
    for _ in range(3):
        g = wide(rng, 200, dtype)
        ascending.step(g)
        descending.step(-g)
    assert_same_bits(up, down)


def test_stand_alone_clipping_equals_the_fused(rng: np.random.Generator) -> None:
    """The same norm and the same coefficient, written into the gradients."""
    grads = [tame(rng, 1000, np.float64), tame(rng, (3, 5), np.float64)]
    exact = global_norm(grads)
    clipped = [g.copy() for g in grads]
    assert fastgd.clip_grad_norm_(clipped, 2.5) == fastgd.global_norm(grads)
    assert fastgd.global_norm(grads) == pytest.approx(exact, rel=1018 * 2.0**-53)
    for c, g in zip(clipped, grads, strict=True):
        assert_same_bits(c, g * (2.5 / fastgd.global_norm(grads)))
    assert fastgd.clip_grad_norm_(clipped, 3.0) == pytest.approx(2.5, rel=1e-14)
    fastgd.clip_grad_value_(grads, 0.5)
    assert max(float(np.abs(g).max()) for g in grads) == 0.5


def test_norms_are_those_of_the_last_step_taken() -> None:
    opt = fastgd.SGD([np.ones(2), np.ones(3)], lr=0.5, nonfinite="skip")
    opt.track_norms = True
    assert opt.step([np.ones(2), np.full(3, 2.0)])
    norms, grad_norm = opt.norms(), opt.grad_norm
    with pytest.raises(ValueError, match="shape"):
        opt.step([None, np.ones(4)])
    assert not opt.step([np.full(2, np.nan), np.full(3, 14.0)])
    for name, values in opt.norms().items():
        assert_same_bits(values, norms[name])
    assert opt.grad_norm == grad_norm
    opt.track_norms = False
    assert opt.step([np.ones(2), np.ones(3)])
    with pytest.raises(RuntimeError, match="track_norms"):
        opt.norms()


def test_schedules_of_clipping_see_the_count_of_their_step() -> None:
    seen = []

    def limit(step: int) -> float:
        seen.append(step)
        return 1.0

    opt = fastgd.SGD(np.ones(3), lr=0.1, clip_norm=limit, clip_value=lambda step: 1.0 + step)
    for _ in range(3):
        opt.step(np.ones(3))
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_clipping_when_the_scale_takes_the_norm_out_of_range(sign: float) -> None:
    w = np.zeros(2)
    opt = fastgd.SGD(w, lr=1.0, clip_norm=1.0)
    opt.step(np.array([3e200, 4e200]), grad_scale=sign * 1e200)
    np.testing.assert_allclose(w, [-0.6 * sign, -0.8 * sign], rtol=1e-15)


def test_state_that_is_given_back_crosswise() -> None:
    """The arrays of a state are copied, also where they are the live ones of another parameter."""
    opt = fastgd.SGD({"a": np.zeros(3), "b": np.zeros(3)}, lr=0.1, momentum=0.9)
    opt.step({"a": np.full(3, 1.0), "b": np.full(3, 2.0)})
    state = opt.state
    opt.load_state_dict({**opt.state_dict(), "state": {"a": state["b"], "b": state["a"]}})
    assert opt.state["a"]["momentum_buffer"].tolist() == [2.0] * 3
    assert opt.state["b"]["momentum_buffer"].tolist() == [1.0] * 3


def test_rebind_takes_no_hyperparameters() -> None:
    w = np.zeros(2)
    opt = fastgd.SGD([{"params": w}], lr=0.1)
    with pytest.raises(ValueError, match=r"rebind takes arrays only.*lr"):
        opt.rebind([{"params": np.ones(2), "lr": 0.5}])
    assert opt.params["params"] is w
