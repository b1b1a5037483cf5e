"""find_lr: its suggestions, what it restores, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd import schedules
from fastgd._arrays.tree import flatten
from fastgd.training import find_lr, minimize
from tests.diagnostics import problems as dp
from tests.diagnostics.runs import (
    Setup,
    a_deep_network,
    a_linear_regression,
    a_logistic_regression,
    a_network,
    a_regression_network,
)
from tests.support import assert_same_bits


def loss_at(setup: Setup, params: Any) -> float:
    return setup.value_and_grad(params, *setup.data)[0]


# --- suggestions ---


@pytest.mark.parametrize("condition", [1.0, 3.0, 30.0, 300.0])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_quadratic_with_a_known_best_rate(
    condition: float, scale: float, rng: np.random.Generator
) -> None:
    eigenvalues = np.geomspace(1, condition, 12) * scale
    best = 2 / (eigenvalues[0] + eigenvalues[-1])
    f, x = dp.quadratic(eigenvalues), rng.standard_normal(12)
    sweep = find_lr(f, x, optimizer="sgd", lr_max=1e4)
    assert sweep.suggestion is not None
    assert best / 50 < sweep.suggestion < best
    steps = int(40 * condition)
    assert (
        minimize(f, x, optimizer="sgd", lr=sweep.suggestion, steps=steps).loss
        < 1e-3 * f(x * 0 + 1)[0]
    )


@pytest.mark.parametrize("batch_size", [None, 32])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
@pytest.mark.parametrize(
    "problem", [a_linear_regression, a_logistic_regression, a_network, a_regression_network]
)
def test_training_with_the_suggestion_converges(
    problem: Any, optimizer: str, batch_size: int | None
) -> None:
    setup = problem(np.random.default_rng(5))
    sweep = find_lr(
        setup.value_and_grad, setup.params, setup.data, optimizer, batch_size=batch_size
    )
    assert sweep.suggestion is not None
    start = loss_at(setup, setup.params)

    def end(lr: float, steps: int = 500) -> float:
        options = {"optimizer": optimizer, "batch_size": batch_size, "lr": lr, "steps": steps}
        with np.errstate(all="ignore"):  # ten times the rate may be far too high
            run = minimize(
                setup.value_and_grad, setup.params, data=setup.data, copy=True, **options
            )
            return loss_at(setup, run.params)

    gained = start - end(sweep.suggestion)
    # It trains, and neither a tenth nor ten times the rate does very much better.
    assert gained > 0.4 * (start - np.fmin(end(sweep.suggestion / 10), end(10 * sweep.suggestion)))


def test_deep_network_in_float32() -> None:
    setup = a_deep_network(np.random.default_rng(2))
    params = [{k: a.astype(np.float32) for k, a in layer.items()} for layer in setup.params]
    x, y = setup.data
    data = (x.astype(np.float32), y)
    sweep = find_lr(setup.value_and_grad, params, data, "adam", batch_size=64)
    assert sweep.suggestion is not None
    start = setup.value_and_grad(params, *data)[0]
    options: dict[str, Any] = {"data": data, "batch_size": 64, "steps": 400}
    minimize(setup.value_and_grad, params, lr=sweep.suggestion, **options)
    assert setup.value_and_grad(params, *data)[0] < 0.2 * start


def test_sweep_has_what_it_says() -> None:
    setup = a_linear_regression(np.random.default_rng(0))
    sweep = find_lr(setup.value_and_grad, setup.params, setup.data, "sgd", lr_max=1e4, steps=50)
    assert sweep.lrs.shape == sweep.losses.shape == sweep.smoothed.shape
    np.testing.assert_allclose(sweep.lrs, np.geomspace(1e-7, 1e4, 50)[: sweep.lrs.size])
    assert sweep.lrs.size < 50  # it stopped at divergence
    assert np.isfinite(sweep.losses).all()
    assert "ended at" in sweep.reason
    assert_same_bits(sweep.losses, sweep.smoothed)
    assert "suggestion" in repr(sweep)
    assert f"{sweep.suggestion:.2g}" in repr(sweep)


def test_first_loss_is_that_after_a_step() -> None:
    f, x = dp.quadratic(np.array([1.0, 2.0])), np.array([1.0, 1.0])
    sweep = find_lr(f, x, optimizer="sgd", lr_min=1e-3, lr_max=1e-2, steps=10)
    y = x - 1e-3 * np.array([1.0, 2.0]) * x
    np.testing.assert_allclose(sweep.losses[0], f(y)[0], rtol=1e-14)


def test_rate_of_the_lowest_loss_at_the_end() -> None:
    f = dp.quadratic(np.array([1e-3, 2e-3]))
    sweep = find_lr(f, np.ones(2), optimizer="sgd", lr_max=1.0)
    assert sweep.suggestion == pytest.approx(1 / 3)
    assert "raise it" in sweep.reason
    assert find_lr(f, np.ones(2), optimizer="sgd", lr_max=1.0, trial_steps=0).suggestion == (
        pytest.approx(0.1)
    )


def test_flat_loss_gives_no_suggestion() -> None:
    sweep = find_lr(lambda x: (1.0, np.zeros(3)), np.ones(3))
    assert sweep.suggestion is None
    assert "did not fall" in sweep.reason


def test_divergence_at_once_gives_no_suggestion() -> None:
    sweep = find_lr(dp.quadratic(np.full(3, 1e12)), np.ones(3), optimizer="sgd")
    assert sweep.suggestion is None
    assert "lower lr_min" in sweep.reason


def test_plot() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    sweep = find_lr(dp.quadratic(np.array([1.0, 10.0])), np.ones(2), optimizer="sgd")
    assert sweep.plot(label="a").get_xscale() == "log"
    matplotlib.pyplot.close("all")


# --- restoring ---


def moved_optimizer(rng: np.random.Generator, **options: Any) -> tuple[Any, Any, Any]:
    """A network, its data and an optimizer that has taken some steps."""
    params = dp.mlp_params(rng, [4, 8, 3])
    data, f = dp.classes(rng, 60, 4, 3), dp.mlp("tanh")
    opt = fastgd.Adam(params, amsgrad=True, **options)
    for _ in range(3):
        opt.step(f(params, *data)[1])
    return params, data, opt


def snapshot(params: Any, opt: Any) -> tuple[Any, Any]:
    return [np.copy(a) for _, a in flatten(params)[0]], opt.state_dict()


def assert_restored(params: Any, opt: Any, before: tuple[Any, Any]) -> None:
    for (name, array), old in zip(flatten(params)[0], before[0], strict=True):
        assert_same_bits(array, old, name)
    now, old = opt.state_dict(), before[1]
    assert now["step_count"] == old["step_count"]
    assert now["param_groups"] == old["param_groups"]
    assert now["options"] == old["options"]
    for name, entry in old["state"].items():
        assert now["state"][name]["step"] == entry["step"]
        for slot in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            assert_same_bits(now["state"][name][slot], entry[slot], name)


def test_parameters_and_state_are_restored(rng: np.random.Generator) -> None:
    schedule = schedules.cosine(1e-2, total_steps=100)
    params, data, opt = moved_optimizer(rng, lr=schedule, clip_norm=1.0)
    before = snapshot(params, opt)
    sweep = find_lr(dp.mlp("tanh"), params, data, opt, batch_size=16)
    assert sweep.suggestion is not None
    assert_restored(params, opt, before)
    assert opt.param_groups[0]["lr"] is schedule


def test_resumed_training_is_unaffected(rng: np.random.Generator) -> None:
    params, data, opt = moved_optimizer(rng)
    twin = [{k: a.copy() for k, a in layer.items()} for layer in params]
    other = fastgd.Adam(twin, amsgrad=True)
    other.load_state_dict(opt.state_dict())
    find_lr(dp.mlp("tanh"), params, data, opt)
    for p, o in ((params, opt), (twin, other)):
        o.step(dp.mlp("tanh")(p, *data)[1])
    for (name, a), (_, b) in zip(flatten(params)[0], flatten(twin)[0], strict=True):
        assert_same_bits(a, b, name)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("calls", [1, 2, 7, 8])
def test_restored_after_an_exception(
    error: type[BaseException], calls: int, rng: np.random.Generator
) -> None:
    params, data, opt = moved_optimizer(rng)
    batches = fastgd.MiniBatches(*data, batch_size=16, seed=3)
    next(iter(batches))
    before, position, made = snapshot(params, opt), batches.state_dict(), [0]

    def f(p: Any, *batch: Any) -> Any:
        made[0] += 1
        if made[0] == calls:
            p[0]["W"][...] = 7.0
            raise error("stop")
        return dp.mlp("tanh")(p, *batch)

    with pytest.raises(error, match="stop"):
        find_lr(f, params, batches, opt)
    assert_restored(params, opt, before)
    assert batches.state_dict() == position


def test_minibatches_stay_where_they_were(rng: np.random.Generator) -> None:
    params, data, opt = moved_optimizer(rng)
    batches = fastgd.MiniBatches(*data, batch_size=16, seed=3)
    next(iter(batches))
    position = batches.state_dict()
    find_lr(dp.mlp("tanh"), params, batches, opt)
    assert batches.state_dict() == position


def test_groups_keep_their_ratios() -> None:
    a, b = np.ones(2), np.ones(2)
    seen = []

    def f(trees: Any) -> Any:
        seen.append((trees[0][0], trees[1][0]))
        return float(trees[0] @ trees[0] + trees[1] @ trees[1]) / 2, [trees[0] * 1, trees[1] * 1]

    groups = [{"params": a, "lr": 1e-3}, {"params": b, "lr": 1e-2}]
    opt = fastgd.SGD(groups)
    find_lr(f, groups, optimizer=opt, lr_min=1e-4, lr_max=1e-3, steps=10)
    # After the first step at rates 1e-4 and 1e-3:
    np.testing.assert_allclose(seen[1], (1 - 1e-4, 1 - 1e-3), rtol=1e-12)
    assert [g["lr"] for g in opt.param_groups] == [1e-3, 1e-2]


def test_seeded(rng: np.random.Generator) -> None:
    params, data, _ = moved_optimizer(rng)
    sweeps = [find_lr(dp.mlp("tanh"), params, data, batch_size=8, seed=s) for s in (0, 0, 1)]
    assert_same_bits(sweeps[0].losses, sweeps[1].losses)
    assert sweeps[0].suggestion == sweeps[1].suggestion
    assert not np.array_equal(sweeps[0].losses[:5], sweeps[2].losses[:5])


# --- ends ---


def test_data_that_end(rng: np.random.Generator) -> None:
    params, data, _ = moved_optimizer(rng)
    sweep = find_lr(dp.mlp("tanh"), params, iter([data] * 20), optimizer="sgd")
    assert sweep.lrs.size == 19
    assert "as the data did" in sweep.reason
    sweep = find_lr(dp.mlp("tanh"), params, iter([data]), optimizer="sgd")
    assert (sweep.suggestion, sweep.lrs.size) == (None, 0)
    assert "too few batches" in sweep.reason
    assert "0 rates" in repr(sweep)


def test_gradients_in_a_reused_buffer(rng: np.random.Generator) -> None:
    x, y = dp.regression(rng, 64, 3, linear=True)
    buffer = {"w": np.empty(3), "b": np.empty(1)}

    def reusing(params: Any, *batch: Any) -> Any:
        loss, grads = dp.least_squares(params, *batch)
        for name, array in buffer.items():
            array[...] = grads[name]
        return loss, buffer

    params = {"w": np.zeros(3), "b": np.zeros(1)}
    sweeps = [find_lr(f, params, (x, y), "sgd", batch_size=8) for f in (reusing, dp.least_squares)]
    assert_same_bits(sweeps[0].losses, sweeps[1].losses)


def test_nonfinite_gradient_is_an_end(rng: np.random.Generator) -> None:
    params, data, _ = moved_optimizer(rng)
    made = [0]

    def f(p: Any, *batch: Any) -> Any:
        loss, grads = dp.mlp("tanh")(p, *batch)
        made[0] += 1
        if made[0] > 30:
            grads[0]["W"] = grads[0]["W"] * np.nan
        return loss, grads

    sweep = find_lr(f, params, data, optimizer="sgd", nonfinite="raise")
    assert sweep.lrs.size == 30
    assert "gradient was not finite" in sweep.reason


def test_loss_that_is_not_finite_at_first() -> None:
    x = np.ones(2)
    with pytest.raises(FloatingPointError, match="before the first step"):
        find_lr(lambda x: (np.nan, x * 1), x)
    assert_same_bits(x, np.ones(2))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"lr_min": 0.0}, ValueError, "lr_min"),
        ({"lr_min": -1.0}, ValueError, "lr_min"),
        ({"lr_max": np.inf}, ValueError, "lr_max"),
        ({"lr_max": "1"}, TypeError, "lr_max"),
        ({"lr_min": 1.0, "lr_max": 0.5}, ValueError, "less than"),
        ({"steps": 9}, ValueError, "steps"),
        ({"steps": 20.0}, TypeError, "steps"),
        ({"seed": -1}, ValueError, "seed"),
        ({"optimizer": "newton"}, ValueError, "optimizer"),
        ({"optimizer": 3}, TypeError, "optimizer"),
        ({"batch_size": 4}, ValueError, "batch_size"),
        ({"lr": 0.1}, TypeError, "lr_min and lr_max"),
        ({"momentum": -1, "optimizer": "sgd"}, ValueError, "momentum"),
        ({"optimizer": fastgd.SGD(np.ones(2))}, ValueError, "params are not the arrays"),
    ],
)
def test_refused(options: dict[str, Any], error: type[Exception], match: str) -> None:
    x = np.ones(2)
    with pytest.raises(error, match=match):
        find_lr(lambda x: (float(x @ x), 2 * x), x, **options)
    assert_same_bits(x, np.ones(2))


def test_params_refused() -> None:
    with pytest.raises(TypeError, match="'params'"):
        find_lr(lambda x: (0.0, x), np.ones(2, int))
    with pytest.raises(TypeError, match="value_and_grad"):
        find_lr(3, np.ones(2))  # type: ignore[arg-type]


def test_data_that_end_while_the_loss_falls_suggest_nothing() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1000, 8))
    y = X @ rng.standard_normal(8)

    def squares(w: Any, X: Any, y: Any) -> tuple[float, Any]:
        r = X @ w - y
        return float(r @ r / len(y)), 2 * X.T @ r / len(y)

    batches = ((X[i : i + 50], y[i : i + 50]) for i in range(0, 1000, 50))
    sweep = fastgd.find_lr(squares, np.zeros(8), batches, "adam")
    assert sweep.suggestion is None
    assert "as the data did: pass data that can be gone through again" in sweep.reason


def test_trials_are_short_trainings_from_the_start(rng: np.random.Generator) -> None:
    f, x = dp.quadratic(np.array([1.0, 30.0])), rng.standard_normal(2)
    calls = []

    def counted(x: Any) -> Any:
        calls.append(x.copy())
        return f(x)

    start = x.copy()
    sweep = find_lr(counted, x, optimizer="sgd", trial_steps=25)
    assert np.array_equal(x, start)
    assert sweep.suggestion in sweep.trials
    assert sweep.trials[sweep.suggestion] == min(sweep.trials.values()) < 0
    assert f"the best of {len(sweep.trials)} trials of 25 steps" in sweep.reason
    assert sum(np.array_equal(call, start) for call in calls) >= 1 + len(sweep.trials)
    for rate, change in sweep.trials.items():
        p, losses = start.copy(), []
        opt = fastgd.SGD(p, lr=rate)
        for _ in range(26):
            loss, grad = f(p)
            losses.append(loss - f(start)[0])
            opt.step(grad)
        if np.isfinite(change):
            assert change == pytest.approx(np.mean(losses[-6:]))
        else:
            assert max(losses) > f(start)[0]


def test_a_rate_that_is_too_high_in_the_end_is_not_suggested() -> None:
    """Along one direction, of which little is there at first, the best of the trials diverges slowly."""
    scale = np.array([1.0, 10.0])

    def f(x: Any) -> tuple[float, Any]:
        return float(scale @ (x * x)) / 2, scale * x

    start = np.array([100.0, 1e-4])
    sweep = find_lr(f, start, optimizer="sgd", lr_max=2.0, trial_steps=15)
    assert sweep.suggestion is not None
    assert sweep.suggestion < 0.2
    if sweep.suggestion not in sweep.trials:
        assert "too high for more steps" in sweep.reason


def test_data_that_ends_ends_the_trials() -> None:
    data = iter([(np.full((4, 1), float(i % 3 + 1)),) for i in range(60)])
    sweep = find_lr(
        lambda w, x: (float(np.square(w * x - x).mean()), (2 * (w * x - x) * x).mean(0)),
        np.zeros(1),
        data,
        "sgd",
        steps=40,
        lr_min=1e-3,
        lr_max=1.0,
    )
    assert sweep.suggestion is not None
    assert "trial" not in sweep.reason
