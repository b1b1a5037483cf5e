"""How a run of minimize ends: tolerances, early stopping, callbacks, interruptions, NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastgd
from fastgd import schedules
from fastgd.averaging import ExponentialAverage
from fastgd.sampling import MiniBatches
from fastgd.training import minimize
from fastgd.training._loop import MOST_SKIPPED, StepInfo
from fastgd.training._observers import GUARD_EVERY
from tests.support import assert_same_bits
from tests.training.problems import Watched, X, Y, leaves, quadratic, regression, sgd, start, zeros


def minimize_regression(function: Any = regression, params: Any = None, **options: Any) -> Any:
    options = {"data": (X, Y), "batch_size": 10, "optimizer": sgd, "epochs": 3, **options}
    return minimize(function, zeros() if params is None else params, **options)


def copies(params: Any) -> list[np.ndarray]:
    return [array.copy() for array in leaves(params)]


def assert_params(params: Any, expected: list[np.ndarray]) -> None:
    for a, b in zip(leaves(params), expected, strict=True):
        assert_same_bits(a, b)


def nan_loss(params: Any, *batch: Any) -> Any:
    return np.nan, (regression(params, *batch) if batch else quadratic(params))[1]


def nan_gradient(params: Any, X: Any, y: Any) -> Any:
    loss, grads = regression(params, X, y)
    return loss, {**grads, "b": np.array([np.inf])}


# ---------------------------------------------------------------- tolerance and limits


def test_tolerance() -> None:
    result = minimize(quadratic, start(), optimizer="sgd", lr=0.1, steps=10_000, tol=1e-6)
    assert (result.converged, result.reason) == (True, "tol")
    assert result.nfev == result.nit + 1
    assert np.linalg.norm(quadratic(result.params)[1]) <= 1e-6
    assert result.loss == quadratic(result.params)[0]
    assert result.history.grad_norm[-1] > 1e-6


def test_tolerance_reached_by_the_last_step() -> None:
    steps = minimize(quadratic, start(), optimizer="sgd", lr=0.1, steps=10_000, tol=1e-6).nit
    result = minimize(quadratic, start(), optimizer="sgd", lr=0.1, steps=steps, tol=1e-6)
    assert (result.nit, result.converged, result.reason) == (steps, True, "tol")


def test_a_start_at_the_minimum() -> None:
    result = minimize(quadratic, np.zeros(3), steps=10, tol=0)
    assert (result.nit, result.nfev, result.converged, result.loss) == (0, 1, True, 0.0)


def test_whichever_limit_comes_first() -> None:
    assert minimize_regression(steps=5).reason == "steps"
    assert minimize_regression(steps=5).nit == 5
    assert minimize_regression(steps=12).nit == 12
    assert minimize_regression(steps=13).reason == "epochs"


# ---------------------------------------------------------------- callback


def test_callback() -> None:
    seen: list[StepInfo] = []
    params = zeros()
    result = minimize_regression(params=params, callback=seen.append)
    assert [info.step for info in seen] == list(range(1, 13))
    assert [info.epoch for info in seen] == [0] * 4 + [1] * 4 + [2] * 4
    assert [info.loss for info in seen] == result.history.loss.tolist()
    assert all(info.params is params for info in seen)
    assert seen[0].history is result.history


@pytest.mark.parametrize("stop", [True, np.True_])
def test_callback_stops(stop: Any) -> None:
    result = minimize_regression(callback=lambda info: stop if info.step == 3 else "no")
    assert (result.nit, result.reason) == (3, "callback")


def test_callback_raises_stop_iteration() -> None:
    def callback(info: StepInfo) -> None:
        raise StopIteration

    assert minimize_regression(callback=callback).nit == 1


def test_a_callback_can_change_the_optimizer() -> None:
    def callback(info: StepInfo) -> None:
        info.optimizer.param_groups[0]["lr"] = 1.0 / (1 + info.step)

    history = minimize_regression(callback=callback, steps=4).history
    assert_array_equal(history.lr, [0.05, 1 / 2, 1 / 3, 1 / 4])


# ---------------------------------------------------------------- validation, early stopping


def test_validation_with_data_or_a_function() -> None:
    expected: list[float] = []

    def value(params: Any) -> float:
        expected.append(regression(params, X, Y)[0])
        return expected[-1]

    by_function = minimize_regression(validation=value)
    assert_array_equal(by_function.history.validation_loss, expected)
    assert_array_equal(by_function.history.validation_step, [4, 8, 12])
    assert by_function.nfev == by_function.nit + by_function.history.probe_step.size
    whole = minimize_regression(validation=(X, Y))
    assert_array_equal(whole.history.validation_loss, expected)
    parts = minimize_regression(validation=MiniBatches(X, Y, batch_size=7, shuffle=False))
    np.testing.assert_allclose(parts.history.validation_loss, expected, rtol=1e-14)


def test_validation_every() -> None:
    history = minimize_regression(validation=(X, Y), validation_every=5).history
    assert_array_equal(history.validation_step, [5, 10, 12])
    assert minimize(quadratic, start(), steps=3, validation=lambda x: 0).history.validation_step[
        -1
    ] == 3  # fmt: skip


def test_early_stopping_restores_the_best() -> None:
    metrics = iter([3.0, 1.0, 2.0, np.nan, 1.0, 0.5])
    kept: list[Any] = []

    def validation(params: Any) -> float:
        kept.append(copies(params))
        return next(metrics)

    params = zeros()
    result = minimize_regression(params=params, epochs=9, validation=validation, patience=3)
    assert (result.reason, result.nit, result.converged) == ("patience", 20, False)
    assert result.params is params
    assert_params(params, kept[1])
    assert result.loss == pytest.approx(result.history.loss[4:8].mean(), rel=1e-14)


def test_the_best_is_restored_however_a_run_ends() -> None:
    for options in ({"epochs": 4}, {"steps": 15}, {"callback": lambda info: info.step == 15}):
        metrics, kept = iter([3.0, 1.0, 2.0, 4.0]), []

        def validation(params: Any, metrics: Any = metrics, kept: Any = kept) -> float:
            kept.append(copies(params))
            return next(metrics)

        result = minimize_regression(validation=validation, patience=9, **{"epochs": 9, **options})
        assert_params(result.params, kept[1])


def test_early_stopping_keeps_the_best_average() -> None:
    metrics, kept = iter([3.0, 1.0, 2.0, 2.0]), []

    def validation(params: Any) -> float:
        kept.append(copies(params))
        return next(metrics)

    params = zeros()
    result = minimize_regression(
        params=params, epochs=9, validation=validation, patience=2, average=("ema", 0.9)
    )
    by_hand = zeros()
    average = ExponentialAverage(by_hand, 0.9)
    optimizer = sgd(by_hand)
    batches = MiniBatches(X, Y, batch_size=10)
    for epoch in range(4):
        for batch in batches:
            optimizer.step(regression(by_hand, *batch)[1])
            average.update()
        if epoch == 1:
            best = copies(average.params)
    assert_params(result.params, best)
    assert_params(result.params, kept[1])
    assert_params(params, leaves(by_hand))


def test_patience_without_noise() -> None:
    """A learning rate that is too high: the first loss is the lowest."""
    x = start()
    result = minimize(quadratic, x, optimizer="sgd", lr=0.3, steps=100, patience=4)
    assert (result.reason, result.nit) == ("patience", 4)
    assert_same_bits(x, start())
    assert result.loss == quadratic(start())[0]


def test_plateau_schedules_follow_the_validation() -> None:
    lr = schedules.ReduceOnPlateau(0.5, factor=0.5, patience=0)
    metrics = iter([1.0, 2.0, 3.0])
    result = minimize_regression(optimizer="sgd", lr=lr, validation=lambda p: next(metrics))
    assert lr.lr == 0.125
    assert_array_equal(result.history.lr, [0.5] * 8 + [0.25] * 4)


# ---------------------------------------------------------------- interruption


@pytest.mark.parametrize("prefetch", [0, 1])
def test_an_interrupted_run_can_go_on(prefetch: int) -> None:
    params, expected = zeros(), zeros()
    batches = MiniBatches(X, Y, batch_size=7, prefetch=prefetch)
    optimizer = fastgd.Adam(params)
    interrupted = Watched(regression, at=9, do=KeyboardInterrupt())
    options = {"data": batches, "optimizer": optimizer, "probe": False}
    first = minimize(interrupted, params, epochs=3, **options)
    assert (first.reason, first.nit, first.converged) == ("interrupted", 9, False)
    assert first.params is params
    assert first.loss == pytest.approx(first.history.loss[-6:].mean(), rel=1e-14)
    second = minimize(regression, params, epochs=2, **options)
    assert second.nit == 9
    minimize(regression, expected, data=(X, Y), batch_size=7, epochs=3)
    assert_params(params, leaves(expected))


class InterruptedSGD(fastgd.SGD):
    """Gets a KeyboardInterrupt in its fifth step, when it can no longer be prevented."""

    def step(self, grads: Any, grad_scale: float = 1.0) -> bool:
        taken = super().step(grads, grad_scale)
        if self.step_count == 5:
            raise KeyboardInterrupt
        return taken


def test_an_interruption_within_a_step() -> None:
    params, expected = zeros(), zeros()
    batches = MiniBatches(X, Y, batch_size=10)
    average = ExponentialAverage(params)
    optimizer = InterruptedSGD(params, lr=0.05)
    result = minimize(
        regression, params, data=batches, optimizer=optimizer, steps=9, average=average
    )
    assert (result.reason, result.nit) == ("interrupted", 5)
    assert len(result.history) == average.count == 5
    assert (batches.epoch, batches.state_dict()["position"]) == (1, 1)
    minimize_regression(params=expected, steps=5)
    assert_params(params, leaves(expected))


def test_an_interruption_without_noise_evaluates_no_more() -> None:
    function = Watched(quadratic, at=5, do=KeyboardInterrupt())
    result = minimize(function, start(), steps=10)
    assert (result.reason, result.nit, result.nfev, function.calls) == ("interrupted", 5, 6, 6)
    assert result.loss == result.history.loss[-1]


def test_an_interruption_while_validating_restores_the_best() -> None:
    kept = []

    def validation(params: Any) -> float:
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(copies(params))
        return float(len(kept))

    result = minimize_regression(validation=validation, patience=5)
    assert result.reason == "interrupted"
    assert_params(result.params, kept[0])


def test_other_errors_pass_and_lose_nothing() -> None:
    params = zeros()
    optimizer = fastgd.Adam(params)
    batches = MiniBatches(X, Y, batch_size=10)
    failing = Watched(regression, at=6, do=OSError("disk"))
    with pytest.raises(OSError, match="disk"):
        minimize(failing, params, data=batches, optimizer=optimizer, epochs=3, probe=False)
    assert optimizer.step_count == 6
    assert optimizer.track_norms is False
    assert (batches.epoch, batches.state_dict()["position"]) == (1, 2)


# ---------------------------------------------------------------- not finite


def test_a_loss_that_is_not_finite_ends_the_run_before_the_step() -> None:
    function = Watched(quadratic, at=6, do=nan_loss)
    expected = start()
    minimize(quadratic, expected, optimizer="sgd", lr=0.05, steps=5)
    x = start()
    result = minimize(function, x, optimizer="sgd", lr=0.05, steps=20)
    assert result.reason == (
        "nonfinite: the loss is nan at step 6; the parameters were put back to those before step 5"
    )
    assert (result.nit, result.converged, function.calls) == (6, False, 7)
    assert_same_bits(x, expected)
    assert result.loss == quadratic(x)[0]
    assert_array_equal(result.history.step, np.arange(7))
    assert np.isnan(result.history.loss[-1])
    assert result.history.update_norm[-1] == 0
    assert result.history.grad_norm[-1] > 0


def test_larger_models_go_back_further() -> None:
    def value_and_grad(x: Any) -> Any:
        return float(x[0]), np.ones(20_000)

    function = Watched(value_and_grad, at=2 * GUARD_EVERY - 2, do=lambda x: (np.inf, x + 1))
    x = np.zeros(20_000)
    result = minimize(function, x, optimizer="sgd", lr=1, steps=100)
    assert_array_equal(x, np.full(20_000, -GUARD_EVERY))
    assert f"before step {GUARD_EVERY}" in result.reason
    assert result.loss == -GUARD_EVERY


def test_a_first_loss_that_is_not_finite() -> None:
    x = start()
    result = minimize(nan_loss, x, steps=20)
    assert result.reason == "nonfinite: the loss is nan at step 0"
    assert (result.nit, result.nfev) == (0, 1)
    assert np.isnan(result.loss)
    assert_same_bits(x, start())
    assert result.diagnosis.verdict == "nonfinite_data_or_loss"


@pytest.mark.parametrize("as_dict", [False, True])
def test_data_that_is_not_finite_is_named(as_dict: bool) -> None:
    bad = X.copy()
    bad[11, 1] = np.nan
    at = MiniBatches(X, Y, batch_size=10).order(0).tolist().index(11) // 10
    expected = zeros()
    minimize_regression(params=expected, steps=max(at, 1))
    params = zeros() if at else expected
    if as_dict:
        data: Any = {"X": bad, "y": Y}
        result = minimize_regression(lambda p, b: regression(p, b["X"], b["y"]), params, data=data)
    else:
        result = minimize_regression(params=params, data=(bad, Y))
    name = "'X'" if as_dict else "0"
    assert result.reason == (
        f"nonfinite: the loss is nan at step {at}; the batch's array {name} has a NaN or an infinity"
    )
    assert_params(params, leaves(expected))


def test_a_gradient_that_is_not_finite_shows_in_the_next_loss() -> None:
    expected = zeros()
    minimize_regression(params=expected, steps=5)
    function = Watched(regression, at=5, do=nan_gradient)
    with np.errstate(invalid="ignore"):
        result = minimize_regression(function, probe=False)
    assert "parameter 'b' has a NaN" in result.reason
    assert result.nit == 6
    assert_params(result.params, leaves(expected))


def test_nonfinite_raise_ends_the_run_before_the_step() -> None:
    expected = zeros()
    minimize_regression(params=expected, steps=5)
    function = Watched(regression, at=5, do=nan_gradient)
    params = zeros()
    optimizer = sgd(params, nonfinite="raise")
    result = minimize_regression(function, params, optimizer=optimizer, probe=False)
    assert result.reason.startswith("nonfinite: gradient 'b' has a NaN or an infinity, or")
    assert result.nit == optimizer.step_count == 5
    assert_params(params, leaves(expected))
    assert np.isfinite(result.history.loss).all()
    assert np.isinf(result.history.layer_grad_norm[-1, 1])


def test_nonfinite_skip_leaves_steps_out() -> None:
    bad = X.copy()
    bad[11, 1] = np.nan
    result = minimize_regression(data=(bad, Y), optimizer="sgd", lr=0.05, nonfinite="skip")
    assert (result.nit, result.reason) == (9, "epochs")
    assert np.isfinite(result.loss)
    assert all(np.isfinite(array).all() for array in leaves(result.params))


def test_nonfinite_skip_does_not_skip_for_ever() -> None:
    bad = np.full_like(X, np.nan)
    options: dict[str, Any] = {"optimizer": "sgd", "nonfinite": "skip", "steps": 10**6}
    result = minimize_regression(data=(bad, Y), epochs=None, **options)
    assert (result.nit, result.nfev) == (0, MOST_SKIPPED)
    assert "'w', 'b'" in result.reason
    whole = minimize(lambda x: (1.0, x * np.nan), start(), **options)
    assert whole.reason == "nonfinite: gradient 'params' has a NaN or an infinity at step 0"
    assert whole.nfev == 1


def test_a_diverged_average_is_not_returned() -> None:
    function = Watched(regression, at=5, do=nan_gradient)
    with np.errstate(invalid="ignore"):
        result = minimize_regression(function, average="ema", probe=False)
    assert all(np.isfinite(array).all() for array in leaves(result.params))


def test_the_best_is_restored_after_a_loss_that_is_not_finite() -> None:
    kept = []
    params = zeros()
    function = Watched(regression, at=10, do=nan_loss)

    def validation(params: Any) -> float:
        kept.append(copies(params))
        return float(len(kept))

    result = minimize_regression(function, params, validation=validation, patience=5, probe=False)
    assert result.reason.startswith("nonfinite")
    assert_params(params, kept[0])


def test_patience_restores_the_best_after_an_error_too() -> None:
    w, calls, seen = np.array([3.0]), [0], []

    def uphill(w: Any, x: Any) -> tuple[float, Any]:
        calls[0] += 1
        if calls[0] == 9:
            raise RuntimeError("disk full")
        return float(w @ w), -2 * w

    def validation(w: Any) -> float:
        seen.append(w.copy())
        return float(w[0] ** 2)

    with pytest.raises(RuntimeError, match="disk full"):
        minimize(
            uphill, w, data=np.zeros((4, 1)), batch_size=2, optimizer="sgd", lr=0.1, epochs=50,
            validation=validation, patience=20, probe=False,
        )  # fmt: skip
    assert_same_bits(w, seen[0])
