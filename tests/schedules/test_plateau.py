"""ReduceOnPlateau: golden values, resuming, and what it refuses."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import numpy as np
import pytest

from fastgd.schedules import ReduceOnPlateau


def test_plateau_golden() -> None:
    lr = ReduceOnPlateau(
        1.0, factor=0.5, patience=1, cooldown=1, threshold=0.5, threshold_mode="abs"
    )
    #       best       bad 1     bad 2: reduced, cooldown 1; ignored; bad 1; bad 2: reduced; better
    metrics = [3.0, 2.75, 2.5, 9.0, 9.0, 9.0, 2.25]
    assert [lr.update(x) for x in metrics] == [False, False, True, False, False, True, False]
    assert lr.state_dict() == {
        "lr": 0.25,
        "best": 2.25,
        "num_bad_epochs": 0,
        "cooldown_counter": 0,
        "last_epoch": 7,
    }
    assert lr(0) == lr(10**6) == 0.25


@pytest.mark.parametrize(
    ("mode", "threshold_mode", "equal_to_bar", "better"),
    [
        ("min", "rel", 1.0, 0.99),
        ("min", "abs", 1.5, 1.49),
        ("max", "rel", 3.0, 3.01),
        ("max", "abs", 2.5, 2.51),
    ],
)
def test_plateau_threshold(
    mode: Any, threshold_mode: Any, equal_to_bar: float, better: float
) -> None:
    lr = ReduceOnPlateau(1.0, mode=mode, threshold=0.5, threshold_mode=threshold_mode)
    for metric, best in [(2.0, 2.0), (equal_to_bar, 2.0), (math.nan, 2.0), (better, better)]:
        lr.update(metric)
        assert lr.best == best


def test_plateau_reduces_on_nan() -> None:
    lr = ReduceOnPlateau(1.0, factor=0.5, patience=2)
    assert [lr.update(math.nan) for _ in range(6)] == [False, False, True] * 2
    assert lr.best == math.inf


def test_plateau_least_value_and_least_reduction() -> None:
    lr = ReduceOnPlateau(1.0, factor=0.5, patience=0, min_lr=0.2, eps=0.1)
    lr.update(0.0)
    assert [lr.update(1.0) for _ in range(4)] == [True, True, False, False]
    assert lr.lr == 0.25  # 0.25 - 0.2 is not more than eps


def test_plateau_resumes_exactly() -> None:
    rng = np.random.default_rng(7)
    metrics = np.cumsum(rng.normal(-0.01, 1, 400))
    options: dict[str, Any] = {"factor": 0.9, "patience": 2, "cooldown": 3, "threshold_mode": "abs"}
    whole, first = ReduceOnPlateau(0.1, **options), ReduceOnPlateau(0.1, **options)
    for metric in metrics:
        whole.update(metric)
    for metric in metrics[:200]:
        first.update(metric)
    state = json.loads(json.dumps(first.state_dict()))
    second, third = ReduceOnPlateau(0.1, **options), pickle.loads(pickle.dumps(first))
    second.load_state_dict(state)
    for metric in metrics[200:]:
        second.update(metric)
        third.update(metric)
    assert second.state_dict() == third.state_dict() == whole.state_dict()
    assert whole.lr < 0.05


def test_plateau_repr_is_its_call() -> None:
    lr = ReduceOnPlateau(0.5, mode="max", patience=0)
    lr.update(1.0)
    lr.update(1.0)
    assert repr(lr) == (
        "ReduceOnPlateau(0.5, mode='max', factor=0.1, patience=0, threshold=0.0001, "
        "threshold_mode='rel', cooldown=0, min_lr=0.0, eps=1e-08)"
    )
    assert repr(eval(repr(lr), {"ReduceOnPlateau": ReduceOnPlateau})) == repr(lr)


@pytest.mark.parametrize("metric", ["1", None, True, 1j, np.ones(2), np.True_])
def test_plateau_refuses_what_is_no_number(metric: Any) -> None:
    lr = ReduceOnPlateau(0.1)
    before = lr.state_dict()
    with pytest.raises(TypeError, match="metric must be a number"):
        lr.update(metric)
    assert lr.state_dict() == before


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lr": math.nan}, ValueError, "state_dict['lr']"),
        ({"lr": -1.0}, ValueError, "state_dict['lr']"),
        ({"best": math.nan}, ValueError, "state_dict['best']"),
        ({"best": "0"}, TypeError, "state_dict['best']"),
        ({"num_bad_epochs": -1}, ValueError, "state_dict['num_bad_epochs']"),
        ({"cooldown_counter": 1.0}, TypeError, "state_dict['cooldown_counter']"),
        ({"last_epoch": None}, TypeError, "state_dict['last_epoch']"),
        ({"momentum": 1}, ValueError, "state_dict must have the keys lr, best"),
    ],
)
def test_plateau_refuses_bad_states(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    lr = ReduceOnPlateau(0.1)
    lr.update(1.0)
    before = lr.state_dict()
    with pytest.raises(error) as caught:
        lr.load_state_dict({**before, "lr": 0.05, **change})
    assert message in str(caught.value)
    assert lr.state_dict() == before


def test_plateau_refuses_incomplete_states() -> None:
    with pytest.raises(ValueError, match=r"must have the keys lr, best, .*; got none"):
        ReduceOnPlateau(0.1).load_state_dict({})
    with pytest.raises(TypeError, match="state_dict must be a mapping, got int: 3"):
        ReduceOnPlateau(0.1).load_state_dict(3)  # type: ignore[arg-type]
