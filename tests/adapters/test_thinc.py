"""thinc's own optimizers, and ours behind their interface."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd.optimizers import all_optimizers

thinc = pytest.importorskip("thinc")

import thinc.optimizers as theirs  # noqa: E402
from thinc.api import Model, Relu, Softmax, chain, registry  # noqa: E402
from thinc.schedules import compounding, warmup_linear  # noqa: E402

import fastgd.adapters.thinc as adapter  # noqa: E402

CASES: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {}),
    ("Adam", {"L2": 0.1, "grad_clip": 0.5}),
    ("Adam", {"L2": 0.1, "L2_is_weight_decay": False, "beta1": 0.5, "beta2": 0.9, "eps": 1e-3}),
    ("Adam", {"learn_rate": "schedule", "use_averages": False, "grad_clip": 0.0}),
    ("SGD", {"learn_rate": 0.05}),
    ("SGD", {"learn_rate": "schedule", "L2": 0.01, "grad_clip": 10.0}),
]


def arguments(options: dict[str, Any]) -> dict[str, Any]:
    if options.get("learn_rate") == "schedule":  # a schedule has a state of its own
        return {**options, "learn_rate": warmup_linear(0.1, 10, 60)}
    return options


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_the_same_numbers(name: str, options: dict[str, Any], rng: np.random.Generator) -> None:
    """60 steps of three arrays, one of which is replaced now and then and one seen half as often. thinc
    knows float32 only: a step's rounding is half a unit in the last place of weights below 4.
    """
    shapes = [(4, 3), (7,), (2, 5)]
    first = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    runs = []
    for module in (theirs, adapter):
        weights = [array.copy() for array in first]
        optimizer = getattr(module, name)(**arguments(options))
        runs.append((weights, optimizer))
    for i in range(60):
        grads = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        for weights, optimizer in runs:
            for k, shape in enumerate(shapes):
                if k == 2 and i % 2:
                    continue
                given = grads[k].copy()
                before = weights[k] = weights[k].copy() if i % 9 == 0 else weights[k]
                after, zeroed = optimizer((k, "W"), before, given, lr_scale=0.5 if k else 1.0)
                weights[k] = after
                assert after.shape == shape
                assert not zeroed.any()
            optimizer.step_schedules()
    (a, one), (b, other) = runs
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(y, x, rtol=0, atol=60 * 2.0**-23)
    assert one.nr_update == other.nr_update
    assert (one.averages is None) == (other.averages is None)
    for key in one.averages or ():
        np.testing.assert_allclose(other.averages[key], one.averages[key], rtol=0, atol=1e-5)
    for key in one.mom1:
        np.testing.assert_allclose(other.mom1[key], one.mom1[key], rtol=0, atol=1e-5)


def network() -> Any:
    return chain(Relu(nO=16, nI=8), Relu(nO=16), Softmax(nO=3))


def trained(optimizer: Any, steps: int) -> tuple[Any, float]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 8)).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[np.abs(x[:, :3]).argmax(1)]
    model = network()
    thinc.util.fix_random_seed(0)
    model.initialize(x, y)
    loss = 0.0
    for _ in range(steps):
        guess, back = model.begin_update(x)
        back((guess - y) / len(x))
        model.finish_update(optimizer)
        optimizer.step_schedules()
        loss = -float(np.log((guess * y).sum(1)).mean())
    return model, loss


def parameters(model: Any) -> Any:
    nodes = [(node, name) for node in model.walk() for name in node.param_names]
    return np.concatenate([node.get_param(name).ravel() for node, name in nodes])


def test_a_model_is_trained_as_with_thincs_own() -> None:
    (a, loss), (b, other) = (trained(module.Adam(0.01), 20) for module in (theirs, adapter))
    assert other == pytest.approx(loss, rel=1e-4)
    np.testing.assert_allclose(parameters(b), parameters(a), atol=1e-4)


def test_averages_go_into_the_model_and_out_again() -> None:
    optimizer = adapter.Adam(0.01)
    model, _ = trained(optimizer, 20)
    before = parameters(model)
    with model.use_params(optimizer.averages):
        assert not np.array_equal(parameters(model), before)
    assert np.array_equal(parameters(model), before)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_goes_on_by_itself(way: Any) -> None:
    weights, twin = np.ones(5), np.ones(5)
    optimizer = adapter.Adam(0.1)
    optimizer((1, "W"), weights, np.ones(5))
    twin[:] = weights
    other = way(optimizer)
    for _ in range(3):
        optimizer((1, "W"), weights, np.arange(5.0))
        other((1, "W"), twin, np.arange(5.0))
    assert weights.tobytes() == twin.tobytes()
    assert other.nr_update[(1, "W")] == 4


# --- the registry ---


@pytest.mark.parametrize("name", sorted(set(all_optimizers()) - {"PolyakSGD"}))
def test_every_optimizer_is_registered(name: str) -> None:
    """As spaCy's configs name it; the bits of fastgd, with thinc's clipping of each array."""
    if name not in adapter.FACTORIES:
        assert "lr" not in all_optimizers()[name].declaration.defaults
        return
    rate = {} if name != "SGD" else {"learn_rate": 0.001}
    config = {"optimizer": {"@optimizers": f"fastgd.{name}.v1", **rate}}
    optimizer = registry.resolve(config)["optimizer"]
    assert isinstance(optimizer, theirs.Optimizer)
    weights = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    plain = weights.copy()
    by_hand = all_optimizers()[name](plain, clip_norm=1.0)
    for i in range(3):
        gradient = np.random.default_rng(i).standard_normal((4, 3)).astype(np.float32)
        by_hand.step(gradient)
        optimizer((1, "W"), weights, gradient)
    if name not in ("Adam",):  # that one has thinc's epsilon
        assert weights.tobytes() == plain.tobytes()


def test_a_config_with_hyperparameters_and_a_schedule() -> None:
    config = {
        "optimizer": {
            "@optimizers": "fastgd.AdamW.v1",
            "betas": [0.8, 0.9],
            "weight_decay": 0.1,
            "grad_clip": 0.0,
            "learn_rate": {
                "@schedules": "warmup_linear.v1",
                "initial_rate": 0.1,
                "warmup_steps": 2,
                "total_steps": 9,
            },
        }
    }
    optimizer = registry.resolve(config)["optimizer"]
    weights, plain = np.ones(3), np.ones(3)
    by_hand = fastgd.AdamW(plain, betas=(0.8, 0.9), weight_decay=0.1)
    for rate in (0.0, 0.05, 0.1):
        optimizer((1, "W"), weights, np.ones(3))
        optimizer.step_schedules()
        by_hand.param_groups[0]["lr"] = rate
        by_hand.step(np.ones(3))
    assert weights.tobytes() == plain.tobytes()


def test_errors() -> None:
    with pytest.raises(TypeError, match="weight_deca"):
        adapter.AdamW(0.1, weight_deca=0.1)
    with pytest.raises(NotImplementedError, match="beta1"):
        adapter.Adam(0.1, beta1=0.0)((1, "W"), np.ones(3), np.ones(3))
    optimizer = adapter.Adam(0.1)
    with pytest.raises(ValueError, match="shape"):
        optimizer((1, "W"), np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="lr"):
        adapter.Adam(-0.1)((1, "W"), np.ones(3), np.ones(3))
    empty = np.ones((0, 3))
    assert adapter.Adam(0.1)((1, "W"), empty, empty)[0] is empty
    assert isinstance(compounding(0.1, 1.0, 1.1), thinc.schedules.Schedule)
    assert isinstance(network(), Model)
