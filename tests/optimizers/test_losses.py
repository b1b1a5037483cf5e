"""Rules that need the loss, and rules whose numbers are shared by all arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastgd
from tests.cases import ALL_CASES, Case
from tests.reference import Reference
from tests.support import assert_matches, assert_same_bits, engine_multiply_add, optimizer, tame

CASES = [case for case in ALL_CASES if case.spec.needs_loss]
SHAPES = {"a": (7, 5), "b": (), "c": (5000,), "d": (0,)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case, dtype: type[np.floating], rng: np.random.Generator) -> None:
    params = {name: tame(rng, shape, dtype) for name, shape in SHAPES.items()}
    opt = optimizer(case.optimizer, params, **case.kwargs)
    ref = Reference(case.optimizer, params, multiply_add=engine_multiply_add(), **case.kwargs)
    for step, loss in enumerate([1.5, 0.02, -0.4, 0.9, 2.0], 1):
        grads: dict[str, Any] = {name: tame(rng, p.shape, dtype) for name, p in params.items()}
        grads["a"] = None if step == 3 else grads["a"]
        opt.step(grads, loss=loss)
        ref.step(grads, norm=opt.grad_norm, loss=loss)
        for name, p in params.items():
            assert_matches(p, ref.params[name], step * case.ulps, name)


def test_a_loss_is_asked_for() -> None:
    p = np.ones(3)
    opt = fastgd.PolyakSGD(p)
    with pytest.raises(TypeError, match="needs the loss"):
        opt.step(np.ones(3))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="loss must be a number"):
            opt.step(np.ones(3), loss=bad)
    with pytest.raises(TypeError, match="loss must be a number"):
        opt.step(np.ones(3), loss="1")  # type: ignore[arg-type]
    assert_same_bits(p, np.ones(3))
    assert opt.step_count == 0


def test_minimize_passes_the_loss() -> None:
    result = fastgd.minimize(
        lambda w: (float(w @ w), 2 * w), np.array([3.0, -4.0]), optimizer="polyaksgd", steps=60
    )
    assert result.loss < 1e-12


@pytest.mark.parametrize("name", ["DoG", "DoWG", "Prodigy"])
def test_what_is_kept_is_the_same_for_all_arrays(name: str, rng: np.random.Generator) -> None:
    """Those without a gradient too, so that it does not matter when each had one."""
    params = {"a": tame(rng, 5, np.float64), "b": tame(rng, 4, np.float64)}
    opt = optimizer(name, params)
    numbers = opt.declaration.numbers
    for step in range(6):
        grads = {key: tame(rng, p.shape, np.float64) for key, p in params.items()}
        opt.step({**grads, "b": None if step % 2 else grads["b"]})
        a, b = opt.state["a"], opt.state["b"]
        assert [a[key] for key in numbers] == [b[key] for key in numbers]
    assert opt.state["a"][numbers[0]] > 0


def test_layerwise_arrays_do_not_depend_on_each_other(rng: np.random.Generator) -> None:
    start = [tame(rng, 5, np.float64), tame(rng, 300, np.float64)]
    grads = [[tame(rng, p.size, np.float64) for p in start] for _ in range(4)]
    together = [p.copy() for p in start]
    opt = fastgd.DoG(together, reps_rel=0.01, layerwise=True)
    for g in grads:
        opt.step(g)
    for i, p in enumerate(start):
        alone = p.copy()
        single = fastgd.DoG(alone, reps_rel=0.01, layerwise=True)
        for g in grads:
            single.step(g[i])
        np.testing.assert_allclose(together[i], alone, rtol=1e-14)


def test_prodigy_waits_for_a_gradient() -> None:
    p = np.ones(3)
    opt = fastgd.Prodigy(p, weight_decay=0.1)
    opt.step(np.zeros(3))
    assert_same_bits(p, np.ones(3))
    assert opt.state["params"]["d"] == 1e-6


@pytest.mark.parametrize("name", ["Adam", "Muon"])
def test_other_rules_take_a_loss_and_do_not_look(name: str) -> None:
    p = np.ones((2, 2))
    assert optimizer(name, p).step(np.ones((2, 2)), loss=float("nan"))
