"""What minimize records, what it accumulates, and which averages it keeps."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastgd
from fastgd.averaging import ExponentialAverage, TailAverage
from fastgd.sampling import MiniBatches
from fastgd.training import minimize
from fastgd.training._loop import StepInfo
from fastgd.training._observers import PROBE_EVERY
from tests.training.problems import (
    EIGENVALUES,
    N,
    X,
    Y,
    assert_same_params,
    quadratic,
    regression,
    sgd,
    start,
    zeros,
)

# ---------------------------------------------------------------- history


def test_history_holds_the_norms_of_every_step() -> None:
    params = zeros()
    seen: list[Any] = []

    def watch(info: StepInfo) -> None:
        norms = info.optimizer.norms()
        seen.append({key: value.copy() for key, value in norms.items()})

    result = minimize(
        regression, params, data=(X, Y), batch_size=8, epochs=2, callback=watch, clip_norm=0.1
    )
    history = result.history
    assert history.names == ("w", "b")
    assert (history.batch_size, history.samples, history.optimizer) == (8, N, "Adam")
    for key in ("grad", "update", "param"):
        expected = np.stack([norms[key] for norms in seen])
        assert_array_equal(getattr(history, f"layer_{key}_norm"), expected)
        assert_allclose(
            getattr(history, f"{key}_norm"), np.sqrt((expected**2).sum(axis=1)), rtol=1e-15
        )
    assert_array_equal(
        history.grad_dot_update, np.stack([n["grad_dot_update"].sum() for n in seen])
    )


def test_larger_models_are_recorded_now_and_then() -> None:
    x = np.ones(10_000)
    history = minimize(lambda x: (0.0, x + 1), x, steps=100).history
    assert_array_equal(history.norm_step, [*range(32), 62, 93])
    assert_array_equal(history.step, np.arange(100))
    history = minimize(lambda x: (0.0, x + 1), x, steps=100, record_every=1).history
    assert_array_equal(history.norm_step, np.arange(100))


def test_probes_of_mini_batches() -> None:
    losses: dict[tuple[float, ...], list[float]] = {}

    def value_and_grad(params: Any, X: Any, y: Any) -> Any:
        result = regression(params, X, y)
        losses.setdefault(tuple(y), []).append(result[0])
        return result

    steps = 2 * PROBE_EVERY + 1
    result = minimize(value_and_grad, zeros(), data=(X, Y), batch_size=8, steps=steps, lr=0.01)
    history = result.history
    at = [0, 1, 2, 4, 8, 16, 32, 64, 128, PROBE_EVERY, 2 * PROBE_EVERY]
    assert_array_equal(history.probe_step, at)
    assert result.nfev == steps + len(at)
    assert_array_equal(history.probe_loss_before, history.loss[at])
    assert_array_equal(history.probe_update_norm, history.update_norm[at])
    assert_array_equal(history.probe_grad_dot_update, history.grad_dot_update[at])
    assert_array_equal(history.probe_lr, np.full(len(at), 0.01))
    first = next(iter(losses.values()))
    assert (history.probe_loss_before[0], history.probe_loss_after[0]) == (first[0], first[1])
    without = minimize(value_and_grad, zeros(), data=(X, Y), batch_size=8, steps=9, probe=False)
    assert without.nfev == 9
    assert without.history.probe_step.size == 0


def test_probes_without_noise_cost_nothing() -> None:
    result = minimize(quadratic, start(), optimizer="sgd", lr=0.05, steps=10)
    history = result.history
    assert_array_equal(history.probe_step, np.arange(10))
    assert_array_equal(history.probe_loss_after, [*history.loss[1:], result.loss])
    secant = history.probe_loss_after - history.probe_loss_before - history.probe_grad_dot_update
    curvature = 2 * secant / history.probe_update_norm**2
    assert (curvature > EIGENVALUES.min()).all()
    assert (curvature < EIGENVALUES.max()).all()


def test_probes_do_not_change_the_steps() -> None:
    on, off = zeros(), zeros()
    minimize(regression, on, data=(X, Y), batch_size=3, epochs=2)
    minimize(regression, off, data=(X, Y), batch_size=3, epochs=2, probe=False)
    assert_same_params(on, off)


# ---------------------------------------------------------------- accumulation, averages


def test_accumulation_averages_gradients() -> None:
    params, expected = zeros(), zeros()
    optimizer = sgd(expected)
    losses = []
    batches = list(MiniBatches(X, Y, batch_size=6, seed=0))
    for group in (batches[:3], batches[3:6], batches[6:]):
        results = [regression(expected, *batch) for batch in group]
        # One after the other: sum() of floats rounds otherwise from Python 3.12 on.
        losses.append(functools.reduce(operator.add, (loss for loss, _ in results)) / len(group))
        total = {key: sum(grads[key] for _, grads in results) for key in ("w", "b")}
        optimizer.step(total, 1 / len(group))
    result = minimize(
        regression, params, data=(X, Y), batch_size=6, optimizer=sgd, accumulate=3, epochs=1
    )
    assert_same_params(params, expected)
    assert result.nit == 3
    assert_array_equal(result.history.loss, losses)
    assert result.history.batch_size == 18
    gradient = np.sqrt(sum((value**2).sum() for value in regression(zeros(), X, Y)[1].values()))
    whole = minimize(
        regression, zeros(), data=(X, Y), batch_size=10, optimizer=sgd, accumulate=4, epochs=1
    )
    assert whole.history.grad_norm[0] == pytest.approx(gradient, rel=1e-14)


def test_accumulation_leaves_the_callers_gradients_alone() -> None:
    grads = [{"w": np.ones(3, np.float16), "b": None}, {"w": np.ones(3), "b": np.ones(1)}]
    grads[0]["w"].flags.writeable = False
    calls = iter(grads * 2)

    def value_and_grad(params: Any, x: Any) -> Any:
        return 1.0, next(calls)

    params = zeros()
    minimize(
        value_and_grad,
        params,
        data=[(0,), (1,)],
        optimizer=fastgd.SGD,
        lr=1,
        accumulate=2,
        steps=2,
        probe=False,
    )
    assert_array_equal(params["w"], np.full(3, -2.0))
    assert_array_equal(params["b"], [-1.0])
    assert_array_equal(grads[0]["w"], np.ones(3))
    assert_array_equal(grads[1]["b"], [1.0])


def test_accumulation_sums_half_precision_in_float32() -> None:
    def value_and_grad(params: Any, x: Any) -> Any:
        return 0.0, np.full(2, 40_000.0, np.float16)  # the sum of two is beyond float16

    result = minimize(
        value_and_grad, np.zeros(2), data=[(0,), (1,)], optimizer="sgd", lr=1, accumulate=2, steps=1
    )
    assert_array_equal(result.params, np.full(2, -float(np.float16(40_000))))


@pytest.mark.parametrize(
    ("average", "make"),
    [
        ("ema", lambda p: ExponentialAverage(p)),
        (("ema", 0.9), lambda p: ExponentialAverage(p, 0.9)),
        ("tail", lambda p: TailAverage(p, 6)),
        (("tail", 0.25), lambda p: TailAverage(p, 9)),
        (("tail", 1), lambda p: TailAverage(p)),
    ],
)
def test_averages(average: Any, make: Any) -> None:
    expected = zeros()
    optimizer, by_definition = sgd(expected), make(expected)
    for batch in [*MiniBatches(X, Y, batch_size=10)] * 3:
        optimizer.step(regression(expected, *batch)[1])
        by_definition.update()
    params = zeros()
    batches = [*MiniBatches(X, Y, batch_size=10)]
    result = minimize(regression, params, data=batches, optimizer=sgd, epochs=3, average=average)
    assert_same_params(params, expected)
    assert_same_params(result.params, by_definition.params)
    assert result.params is not params


def test_without_noise_the_loss_is_that_of_the_average() -> None:
    result = minimize(quadratic, start(), steps=10, average="tail")
    assert result.loss == quadratic(result.params)[0]
