"""Early stopping: what is best, by which measure, over several runs and through checkpoints."""

from __future__ import annotations

import doctest
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastgd
import fastgd.training._early_stopping
from fastgd import EarlyStopping
from fastgd.training import minimize


def run_of(values: list[float], **options: Any) -> Any:
    """A run whose parameter counts the steps, and whose validation after step n is values[n - 1]."""
    options.setdefault("validation", lambda w: values[round(-w[0]) - 1])
    return minimize(
        lambda w: (0.0, np.ones(1)),
        np.zeros(1),
        optimizer="sgd",
        lr=1.0,
        steps=len(values),
        **{"validation_every": 1, **options},
    )


@pytest.mark.parametrize(
    ("options", "best", "nit"),
    [
        ({"patience": 2}, 3, 5),
        ({"patience": 3}, 6, 8),
        ({"patience": 2, "min_delta": 0.5}, 2, 4),
        ({"patience": 2, "mode": "max"}, 1, 3),
        ({"patience": 8, "mode": "max"}, 7, 8),
        ({}, 6, 8),
        ({"mode": "max"}, 7, 8),
    ],
)
def test_the_best_step(options: dict[str, Any], best: int, nit: int) -> None:
    values = [3.0, 2.0, 1.75, 2.5, math.nan, 1.0, 4.0, 2.0]
    result = run_of(values, **options)
    assert (result.best_step, result.best_loss) == (best, values[best - 1])
    assert result.nit == nit
    assert_array_equal(result.params, [-best if "patience" in options else -nit])
    assert result.reason == ("patience" if nit < 8 else "steps")
    assert result.success


def test_metrics_are_recorded_and_judged_by() -> None:
    metrics = {"accuracy": lambda w: float(-((w[0] + 3) ** 2)), "count": lambda w: -w[0]}
    result = run_of([1.0] * 6, metrics=metrics, monitor="accuracy", mode="max", patience=2)
    assert_array_equal(result.history["count"], [1, 2, 3, 4, 5])
    assert_array_equal(result.history["accuracy"], [-4, -1, 0, -1, -4])
    assert_array_equal(result.history.validation_loss, [1.0] * 5)
    assert (result.best_step, result.best_loss, result.reason) == (3, 0.0, "patience")
    result = run_of([0.0] * 6, validation=None, metrics=metrics, mode="max", patience=2)
    assert (result.best_step, result.params[0]) == (3, -3.0)
    assert result.history.validation_loss.size == 0


def test_a_metric_by_itself_is_named_after_its_function() -> None:
    def accuracy(w: Any) -> Any:
        return np.float32(w[0])

    result = run_of([0.0] * 3, validation=None, metrics=accuracy)
    assert_array_equal(result.history["accuracy"], [-1, -2, -3])
    with pytest.raises(TypeError, match=r"what metric 'accuracy' returns must be a real number"):
        run_of([0.0], metrics={"accuracy": lambda w: "high"})


def test_a_plateau_follows_the_monitored_metric() -> None:
    lr = fastgd.schedules.ReduceOnPlateau(1.0, mode="max", patience=0, factor=0.5)
    minimize(
        lambda w: (0.0, np.ones(1)), np.zeros(1), optimizer="sgd", lr=lr, steps=3,
        metrics=lambda w: float(w[0]), mode="max", validation_every=1,
    )  # fmt: skip
    assert lr.lr == 0.25


def test_without_noise_the_loss_itself_is_monitored() -> None:
    result = minimize(
        lambda w: (float(w[0] ** 2), 2 * w), np.array([1.0]), optimizer="sgd", lr=0.75, steps=4
    )
    assert (result.best_step, result.best_loss) == (4, 0.0625**2)
    assert result.fun == result.loss == result.best_loss


def test_nothing_is_monitored_on_mini_batches_alone() -> None:
    X = np.ones((4, 1))
    result = minimize(lambda w, x: (1.0, w + 0), np.ones(1), data=(X,), batch_size=2, epochs=2)
    assert result.best_step is None
    assert math.isnan(result.best_loss)


def descent(w: Any, *batch: Any) -> Any:
    """Goes down to 1 and up again."""
    return float(abs(w[0] - 1) + 1), np.array([-0.5])


def test_two_runs_are_one() -> None:
    whole = minimize(descent, np.zeros(1), optimizer="sgd", lr=1.0, steps=30, patience=4)
    w, stopping = np.zeros(1), EarlyStopping(4)
    opt = fastgd.SGD(w, lr=1.0)
    for steps in (4, 30):
        result = minimize(descent, w, optimizer=opt, steps=steps, patience=stopping)
    assert opt.step_count == whole.nit
    assert_array_equal(w, whole.params)
    assert (result.best_step, result.best_loss) == (whole.best_step, whole.best_loss) == (2, 1.0)
    assert result.reason == "patience"


def test_a_checkpoint_resumes_it(tmp_path: Path) -> None:
    """Killed at any step, the run that goes on ends as the one that was not."""
    whole = minimize(descent, np.zeros(1), optimizer="sgd", lr=1.0, steps=30, patience=4)
    for killed_at in range(1, 6):
        w, stopping = np.zeros(1), EarlyStopping(4)
        opt = fastgd.SGD(w, lr=1.0)

        def save(info: Any, at: int = killed_at, opt: Any = opt, stopping: Any = stopping) -> None:
            if info.step == at:
                fastgd.save(tmp_path / "run", opt, stopping=stopping)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            minimize(descent, w, optimizer=opt, steps=30, patience=stopping, callback=save)
        w, stopping = np.full(1, 9.0), EarlyStopping(4)
        opt = fastgd.SGD(w, lr=1.0)
        fastgd.load(tmp_path / "run", opt, stopping=stopping)
        result = minimize(descent, w, optimizer=opt, steps=30, patience=stopping)
        assert opt.step_count == whole.nit
        assert_array_equal(w, whole.params)
        assert (result.best_step, result.best_loss) == (2, 1.0)


def test_a_run_after_one_that_gave_up_has_its_chance() -> None:
    w, stopping = np.zeros(1), EarlyStopping(2)
    for _ in range(2):
        result = minimize(descent, w, optimizer="sgd", lr=1.0, steps=30, patience=stopping)
        assert result.nit >= 1
        assert_array_equal(w, [1.0])


def test_an_average_that_is_best_is_returned() -> None:
    w = np.zeros(1)
    result = minimize(
        lambda w: (0.0, np.ones(1)), w, optimizer="sgd", lr=1.0, steps=6, average=("tail", 1.0),
        validation=lambda w: abs(w[0] + 2), validation_every=1, patience=5,
    )  # fmt: skip
    assert_array_equal(result.params, [-2.0])
    assert_array_equal(w, [-6.0])
    assert result.best_step == 3


def test_another_model_is_refused() -> None:
    stopping = EarlyStopping(4)
    minimize(descent, np.zeros(1), optimizer="sgd", lr=1.0, steps=3, patience=stopping)
    with pytest.raises(ValueError, match="another model"):
        minimize(lambda w: (1.0, w + 0), np.zeros(2), steps=3, patience=stopping)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"best": None}, TypeError, "best"),
        ({"bad": -1}, ValueError, "bad"),
        ({"best_step": 0.5}, TypeError, "best_step"),
        ({"params": [["a"]]}, TypeError, "params"),
        ({"loss": "a"}, TypeError, "loss"),
    ],
)
def test_bad_states(change: dict[str, Any], error: type[Exception], message: str) -> None:
    stopping = EarlyStopping(4)
    before = repr(stopping), stopping.state_dict()
    with pytest.raises(error, match=message):
        stopping.load_state_dict({**stopping.state_dict(), **change})
    with pytest.raises(ValueError, match="state_dict has no 'bad'"):
        stopping.load_state_dict({k: v for k, v in stopping.state_dict().items() if k != "bad"})
    assert repr((repr(stopping), stopping.state_dict())) == repr(before)


def test_doctests() -> None:
    result = doctest.testmod(fastgd.training._early_stopping)
    assert result.attempted > 0
    assert result.failed == 0
