"""Schedules in checkpoints: stored by their call; other functions by name, their states in full."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd import schedules
from fastgd.schedules import ReduceOnPlateau, cosine, join, warmup
from tests.cases import falling, wavy
from tests.checkpoint.objects import everything, files

# One call for each function of fastgd.schedules, and compositions.
CALLS: dict[str, Any] = {
    "constant": schedules.constant(0.1),
    "step": schedules.step(0.1, step_size=3),
    "multi_step": schedules.multi_step(0.1, milestones=[2, 5]),
    "piecewise_constant": schedules.piecewise_constant([0.3, 0.1], boundaries=[4]),
    "linear": schedules.linear(0.1, total_steps=7),
    "polynomial": schedules.polynomial(0.1, total_steps=7, power=2),
    "exponential": schedules.exponential(0.1, gamma=0.97),
    "inverse_time": schedules.inverse_time(0.1, decay_rate=0.3),
    "inverse_sqrt": schedules.inverse_sqrt(0.1, warmup_steps=3),
    "cosine": cosine(1 / 3, total_steps=9, warmup_steps=2),
    "cosine_restarts": schedules.cosine_restarts(0.1, period=3),
    "warmup_stable_decay": schedules.warmup_stable_decay(
        0.1, total_steps=9, warmup_steps=2, decay_steps=3, decay_type="1-sqrt"
    ),
    "cyclic": schedules.cyclic(0.1, 0.3, step_size_up=2, mode="exp_range", gamma=0.9),
    "one_cycle": schedules.one_cycle(0.1, total_steps=9, three_phase=True),
    "one_cycle_momentum": schedules.one_cycle_momentum(total_steps=9),
    "warmup": warmup(0.1, 4, start_factor=0.25),
    "join": join([0.1, cosine(0.1, total_steps=3), warmup(join([0.1, 0.2], [2]), 5)], [3, 6]),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.npz"


def make(**kwargs: Any) -> Any:
    return fastgd.SGD(np.zeros(2), **kwargs)


def test_all_are_listed() -> None:
    assert set(CALLS) == set(schedules.__all__) - {"Schedule", "ReduceOnPlateau"}


@pytest.mark.parametrize("schedule", CALLS.values(), ids=CALLS)
def test_schedules(schedule: Any, path: Path) -> None:
    fastgd.save(path, make(lr=schedule))
    opt = make(lr=0.5)
    fastgd.load(path, opt)
    loaded = opt.param_groups[0]["lr"]
    assert loaded == schedule
    assert [loaded(t) for t in range(20)] == [schedule(t) for t in range(20)]
    assert fastgd.load(path).objects["optimizer"]["param_groups"][0]["lr"] == schedule


def test_everywhere(path: Path) -> None:
    lr = cosine(0.1, total_steps=9)

    def betas() -> tuple[Any, Any]:
        return (0.9, warmup(0.99, 3, start_factor=0.5))

    def adam(**kwargs: Any) -> Any:
        return fastgd.Adam([{"params": np.zeros(2)}, {"params": np.zeros(3), "eps": lr}], **kwargs)

    opt = adam(betas=betas(), clip_norm=lr, clip_value=warmup(1.0, 2, start_factor=0.1))
    fastgd.save(path, opt)
    other = adam()
    fastgd.load(path, other)
    assert everything(other) == everything(opt)
    assert other.clip_norm == lr
    assert other.param_groups[1]["eps"] == lr


# ---------------------------------------------------------------- functions that are not stored


def test_function_stays_the_live_one(path: Path) -> None:
    fastgd.save(path, make(lr=falling, weight_decay=lambda step: 0.1))
    other = make(lr=falling, weight_decay=lambda step: 0.2)
    live = other.param_groups[0]["weight_decay"]
    fastgd.load(path, other)
    assert other.param_groups[0]["lr"] is falling
    assert other.param_groups[0]["weight_decay"] is live


def test_function_within_a_schedule(path: Path) -> None:
    fastgd.save(path, make(lr=warmup(falling, 3)))
    other = make(lr=warmup(falling, 7))
    fastgd.load(path, other)
    assert other.param_groups[0]["lr"] == warmup(falling, 3)


@pytest.mark.parametrize("lr", [0.1, wavy, cosine(0.1, total_steps=9), warmup(wavy, 3)])
def test_function_that_is_missing(lr: Any, path: Path) -> None:
    fastgd.save(path, make(lr=falling))
    other = make(lr=lr)
    before = everything(other)
    with pytest.raises(
        fastgd.CheckpointError, match=r"param_groups/0/lr was the function 'falling'"
    ):
        fastgd.load(path, other)
    assert everything(other) == before


def test_missing_option_and_part(path: Path) -> None:
    fastgd.save(path, make(clip_norm=warmup(falling, 3)))
    with pytest.raises(fastgd.CheckpointError, match="options/clip_norm/schedule was the function"):
        fastgd.load(path, make(clip_norm=1.0))
    shown = fastgd.load(path).objects["optimizer"]["options"]["clip_norm"]
    assert repr(shown).startswith("warmup(schedule=<function 'falling', not stored>, steps=3")
    with pytest.raises(RuntimeError, match="'falling'"):
        shown(5)


# ---------------------------------------------------------------- functions with a state


def plateau(**kwargs: Any) -> ReduceOnPlateau:
    return ReduceOnPlateau(0.5, factor=0.5, patience=1, **kwargs)


def test_plateau_arguments_are_its_attributes() -> None:
    """The codec reads them from there."""
    options = {
        "mode": "max",
        "factor": 0.25,
        "patience": 3,
        "threshold": 0.5,
        "threshold_mode": "abs",
        "cooldown": 2,
        "min_lr": 0.125,
        "eps": 1e-3,
    }
    assert set(inspect.signature(ReduceOnPlateau).parameters) == {"lr", *options}
    from fastgd.checkpoint._codec import _plateau_arguments

    made = ReduceOnPlateau(0.5, **options)  # type: ignore[arg-type]
    made.lr = 0.25
    assert _plateau_arguments(made) == {"lr": 0.5, **options}


def test_plateau_is_restored_in_place(path: Path) -> None:
    """Its owner goes on calling update() on it."""
    saved, live = plateau(), plateau()
    for loss in (3.0, 2.0, 2.5, 2.5, 2.5):
        saved.update(loss)
    fastgd.save(path, make(lr=saved))
    other = make(lr=live)
    fastgd.load(path, other)
    assert other.param_groups[0]["lr"] is live
    assert live.state_dict() == saved.state_dict()
    assert live(0) == 0.25


def test_unused_plateau_has_an_infinite_best(path: Path) -> None:
    live = plateau()
    fastgd.save(path, make(lr=plateau()))
    live.update(1.0)
    fastgd.load(path, make(lr=live))
    assert live.state_dict() == plateau().state_dict()


def test_plateau_is_made_anew(path: Path) -> None:
    saved = plateau(min_lr=0.125)
    for loss in (3.0, 2.0, 2.5, 2.5, 2.5):
        saved.update(loss)
    fastgd.save(path, make(lr=warmup(saved, 3), weight_decay=saved))
    other = make(lr=0.1)
    fastgd.load(path, other)
    made = other.param_groups[0]["weight_decay"]
    assert (repr(made), made.state_dict()) == (repr(saved), saved.state_dict())
    assert other.param_groups[0]["lr"] == warmup(made, 3)  # the same one


def test_plateau_of_other_arguments(path: Path) -> None:
    fastgd.save(path, make(lr=plateau()))
    live = plateau(cooldown=1)
    with pytest.raises(fastgd.CheckpointError, match=r"cooldown=1.*other arguments.*'cooldown': 0"):
        fastgd.load(path, make(lr=live))
    assert live.state_dict() == plateau().state_dict()


@pytest.mark.parametrize("lr", [0.1, cosine(0.1, total_steps=9)])
def test_plateau_that_would_be_forgotten(lr: Any, path: Path) -> None:
    fastgd.save(path, make(lr=lr))
    other = make(lr=plateau())
    before = everything(other)
    with pytest.raises(fastgd.CheckpointError, match="no longer be used"):
        fastgd.load(path, other)
    with pytest.raises(fastgd.CheckpointError, match="schedule is ReduceOnPlateau"):
        fastgd.load(path, make(lr=warmup(plateau(), 3)))
    assert everything(other) == before


def test_sharing_must_be_the_same(path: Path) -> None:
    shared = plateau()
    fastgd.save(path, make(lr=shared, weight_decay=shared))
    with pytest.raises(fastgd.CheckpointError, match="share it in the same way"):
        fastgd.load(path, make(lr=plateau(), weight_decay=plateau()))
    fastgd.save(path, make(lr=plateau(), weight_decay=plateau()))
    with pytest.raises(fastgd.CheckpointError, match="share it in the same way"):
        fastgd.load(path, make(lr=shared, weight_decay=shared))
    fastgd.load(path, make(lr=plateau(), weight_decay=plateau()))


def test_shared_plateau(path: Path) -> None:
    shared, live = plateau(), plateau()
    shared.update(1.0)
    fastgd.save(path, make(lr=shared, weight_decay=shared))
    other = make(lr=live, weight_decay=live)
    fastgd.load(path, other)
    assert other.param_groups[0]["weight_decay"] is live
    assert live.best == 1.0


class Counting:
    """A function of the user's own that has a state."""

    def __init__(self, calls: int = 0) -> None:
        self.calls = calls

    def __call__(self, step: int) -> float:
        self.calls += 1
        return 0.1 / self.calls

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["calls"] < 0:
            raise ValueError("calls must be at least 0")
        self.calls = state["calls"]


def test_own_function_with_state(path: Path) -> None:
    fastgd.save(path, make(lr=Counting(7)))
    live = Counting()
    fastgd.load(path, make(lr=live))
    assert live.calls == 7
    with pytest.raises(fastgd.CheckpointError, match="lr was the function 'Counting'"):
        fastgd.load(path, make())


def test_refused_state_of_a_function(path: Path) -> None:
    fastgd.save(path, make(lr=Counting(3), momentum=0.5, weight_decay=Counting(-1)))
    first, second = Counting(1), Counting(2)
    other = make(lr=first, weight_decay=second)
    with pytest.raises(fastgd.CheckpointError, match=r"weight_decay.*at least 0"):
        fastgd.load(path, other)
    assert (first.calls, second.calls) == (1, 2)
    assert other.param_groups[0]["momentum"] == 0


def test_functions_only_in_optimizers(path: Path) -> None:
    with pytest.raises(TypeError, match="cannot store metadata/f"):
        fastgd.save(path, make(), metadata={"f": falling})
    fastgd.save(path, make(), metadata={"schedule": cosine(0.1, total_steps=9)})
    assert fastgd.load(path).metadata == {"schedule": cosine(0.1, total_steps=9)}
    assert files(path.parent) == ["run.npz"]
