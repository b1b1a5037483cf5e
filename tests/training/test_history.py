"""History: what a step leaves in it, bounded memory, and rows that stay true when others go."""

from __future__ import annotations

import csv
import doctest
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastgd.history
from fastgd.history import EARLY_STEPS, FEWEST_RECORDS, LAYER_BYTES, History


def filled(steps: int, arrays: int = 2, **options: Any) -> History:
    """A history of steps 0 … steps - 1 in which every number tells the step."""
    history = History([f"p{i}" for i in range(arrays)], **options)
    first = options.get("first_step", 0)
    for step in range(first, first + steps):
        history.record(step, -float(step), step / 1000, step // 10)
        if history.due(step):
            squares = np.full((4, arrays), float(step) ** 2)
            history.record_norms(step, -float(step), step / 1000, squares)
    return history


def test_every_step_is_recorded() -> None:
    history = filled(5)
    assert_array_equal(history.step, np.arange(5))
    assert history.step.dtype == np.int64
    assert_array_equal(history.loss, -np.arange(5.0))
    assert_array_equal(history.lr, np.arange(5) / 1000)
    assert history.names == ("p0", "p1")
    assert len(history) == 5


def test_norms_of_layers_and_of_all() -> None:
    history = History(["a", "b"])
    sums = np.array([[9.0, 16.0], [36.0, 64.0], [144.0, 25.0], [-2.0, 0.5]])
    history.record_norms(0, 1.0, 0.1, sums)
    assert_array_equal(history.layer_grad_norm, [[3.0, 4.0]])
    assert_array_equal(history.layer_update_norm, [[6.0, 8.0]])
    assert_array_equal(history.layer_param_norm, [[12.0, 5.0]])
    assert_array_equal(history.grad_norm, [5.0])
    assert_array_equal(history.update_norm, [10.0])
    assert_array_equal(history.param_norm, [13.0])
    assert_array_equal(history.grad_dot_update, [-1.5])


def test_grad_scale_scales_gradients_only() -> None:
    history = History(["a"])
    sums = np.array([[16.0], [4.0], [9.0], [-8.0]])
    history.record_norms(0, 1.0, 0.1, sums, grad_scale=0.25)
    assert_array_equal(sums, [[16.0], [4.0], [9.0], [-8.0]])
    found = [history.grad_norm, history.update_norm, history.param_norm, history.grad_dot_update]
    assert_array_equal(np.ravel(found), [1.0, 2.0, 3.0, -2.0])


@pytest.mark.parametrize("steps", [99, 100, 101, 1000, 12_345])
def test_memory_is_bounded_and_rows_stay_together(steps: int) -> None:
    history = filled(steps, max_records=100)
    step = history.step
    assert len(history) <= 100
    assert len(history) > (100 - EARLY_STEPS) // 2 or steps < 100
    assert_array_equal(history.loss, -step.astype(float))
    assert_array_equal(history.norm_step, step)
    assert_array_equal(history.layer_param_norm, np.stack([step, step], axis=1))
    early = min(EARLY_STEPS, 100 // 4)
    assert_array_equal(step[:early], np.arange(early))
    later = step[step >= early]
    gaps = np.diff(later)
    assert (gaps == gaps[0]).all()
    assert later[-1] + gaps[0] >= steps


def test_record_every() -> None:
    history = filled(200, record_every=50)
    assert_array_equal(history.norm_step, [*range(EARLY_STEPS), 50, 100, 150])
    assert_array_equal(history.norm_loss, -history.norm_step.astype(float))
    assert_array_equal(history.norm_lr, history.norm_step / 1000)
    assert_array_equal(history.step, np.arange(200))


def test_a_run_that_continues_another() -> None:
    history = filled(200, record_every=50, first_step=1000)
    expected = [*range(1000, 1000 + EARLY_STEPS), 1050, 1100, 1150]
    assert_array_equal(history.norm_step, expected)
    assert_array_equal(history.step, np.arange(1000, 1200))


def test_many_arrays_leave_fewer_records() -> None:
    history = filled(1000, arrays=10_000)
    assert FEWEST_RECORDS <= history.norm_step.size <= LAYER_BYTES // (8 * 4 * 10_000)
    assert history.layer_grad_norm.shape == (history.norm_step.size, 10_000)
    assert len(history) == 1000


def test_properties_are_copies() -> None:
    history = filled(3)
    for name in ("step", "loss", "lr", "grad_norm", "layer_grad_norm"):
        getattr(history, name)[...] = 7
        assert not (getattr(history, name) == 7).all(), name


def test_probes_and_validations_are_bounded_too() -> None:
    history = History(["a"], max_records=50)
    for step in range(0, 4000, 2):
        history.record_probe(step, 1.0 * step, 2.0 * step, 3.0 * step, 4.0 * step, 5.0 * step)
        history.record_validation(step, 0.5 * step)
    assert 25 <= history.probe_step.size <= 50
    assert 25 <= history.validation_step.size <= 50
    step = history.probe_step.astype(float)
    for factor, name in enumerate(
        ("loss_before", "loss_after", "grad_dot_update", "update_norm", "lr"), 1
    ):
        assert_array_equal(getattr(history, f"probe_{name}"), factor * step)
    assert_array_equal(history.validation_loss, 0.5 * history.validation_step)


def test_overflow_and_nan_are_recorded_silently() -> None:
    history = History(["a", "b"])
    history.record_norms(0, np.inf, 0.1, np.full((4, 2), 1e308))
    history.record_norms(1, np.nan, 0.1, np.full((4, 2), np.nan))
    assert_array_equal(history.grad_norm, [np.inf, np.nan])
    assert_array_equal(history.norm_loss, [np.inf, np.nan])


def test_epochs_are_means_of_all_steps() -> None:
    means = filled(12_345, max_records=2_000).epochs()
    assert_array_equal(means.epoch, np.arange(1235))
    assert_array_equal(means.steps, [10] * 1234 + [5])
    assert_array_equal(means.loss[:3], [-4.5, -14.5, -24.5])
    assert History(["a"]).epochs().loss.size == 0


def test_epochs_are_bounded_too() -> None:
    """A run on all data has one for each step."""
    means = filled(12_345, max_records=100).epochs()
    assert 50 <= means.epoch.size <= 101
    assert_array_equal(means.loss[:-1], -10.0 * means.epoch[:-1] - 4.5)
    assert means.epoch[-1] == 1234


def validated() -> History:
    history = filled(40, metrics=["accuracy"], record_every=50)
    history.record_validation(20, 0.1 + 0.2, {"accuracy": 0.5})
    history.record_validation(40, 0.25, {"accuracy": 0.75})
    return history


def test_arrays_by_name() -> None:
    history = validated()
    everything = history.to_dict()
    assert_array_equal(history["accuracy"], [0.5, 0.75])
    assert_array_equal(everything["accuracy"], [0.5, 0.75])
    for name in ("step", "loss", "lr", "grad_norm", "validation_loss", "validation_step"):
        assert_array_equal(history[name], getattr(history, name))
        assert_array_equal(everything[name], history[name])
    with pytest.raises(KeyError, match="no 'grad_nrom'; did you mean 'grad_norm'"):
        history["grad_nrom"]


def test_a_metric_alone_has_no_validation_loss() -> None:
    history = History(["a"], metrics=["accuracy"])
    history.record_validation(3, None, {"accuracy": 0.5})
    assert history.validation_loss.size == 0
    assert_array_equal(history.validation_step, [3])
    assert_array_equal(history["accuracy"], [0.5])


def test_csv(tmp_path: Path) -> None:
    history = validated()
    history.to_csv(tmp_path / "run.csv")
    with open(tmp_path / "run.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(41))
    assert [float(row["loss"]) for row in rows[:40]] == history.loss.tolist()
    assert [row["grad_norm"] != "" for row in rows] == [step < EARLY_STEPS for step in range(41)]
    assert float(rows[20]["validation_loss"]) == 0.1 + 0.2
    assert rows[40]["loss"] == ""
    assert rows[40]["accuracy"] == "0.75"


def test_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    history = validated()
    frame = history.to_pandas()
    assert frame.index.name == "step"
    assert_array_equal(frame["loss"].dropna(), history.loss)
    assert_array_equal(frame["accuracy"].dropna(), [0.5, 0.75])
    assert isinstance(frame, pandas.DataFrame)


def test_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"fastgd\[pandas\]"):
        validated().to_pandas()


def test_repr() -> None:
    assert repr(History(["a"], optimizer="SGD")) == "<History of SGD: no steps>"
    assert repr(filled(3, optimizer="Adam")) == ("<History of Adam: steps 0 to 2, loss -0 to -2>")


def test_pickling_keeps_the_records() -> None:
    history = filled(300)
    again = pickle.loads(pickle.dumps(history))
    assert_array_equal(again.loss, history.loss)
    assert_array_equal(again.layer_grad_norm, history.layer_grad_norm)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_records": FEWEST_RECORDS - 1}, ValueError, "max_records"),
        ({"max_records": 1e4}, TypeError, "max_records"),
        ({"max_records": True}, TypeError, "max_records"),
        ({"record_every": 0}, ValueError, "record_every"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        History(["a"], **options)


def test_doctests() -> None:
    result = doctest.testmod(fastgd.history)
    assert result.attempted > 0
    assert result.failed == 0
