"""What a user meant, and would not get: said at once instead of lost without a word."""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastgd
from fastgd import schedules
from fastgd.averaging import ExponentialAverage, TailAverage

X = np.linspace(-1, 1, 40).reshape(20, 2)
Y = X @ [1.0, 2.0]


def quadratic(w: Any) -> Any:
    return float(w @ w), 2 * w


def regression(w: Any, x: Any, y: Any) -> Any:
    r = x @ w - y
    return float(r @ r) / len(r), 2 * x.T @ r / len(r)


# --- assignments that would do nothing ---


def test_samplers_and_schedules_refuse_late_arguments() -> None:
    batches = fastgd.MiniBatches(X, Y, batch_size=5)
    with pytest.raises(AttributeError, match=r"MiniBatches\(…, batch_size=10\)"):
        batches.batch_size = 10
    with pytest.raises(AttributeError, match="did you mean 'batch_size'"):
        batches.batchsize = 10  # type: ignore[attr-defined]
    schedule = schedules.cosine(0.1, total_steps=9)
    with pytest.raises(AttributeError, match=r"make another, cosine\(…, lr=0.5\)"):
        schedule.lr = 0.5  # type: ignore[attr-defined]
    plateau = schedules.ReduceOnPlateau(0.1)
    with pytest.raises(AttributeError, match="patience"):
        plateau.patience = 3  # type: ignore[attr-defined]
    assert schedule(0) == 0.1

    class Mine(fastgd.MiniBatches):
        pass

    mine = Mine(X, batch_size=5)
    mine.tag = "own attributes are one's own"  # type: ignore[attr-defined]


# --- nothing trained ---


def test_no_gradient_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="None in place of every gradient"):
        fastgd.minimize(lambda w: (float(w @ w), None), np.ones(2), steps=50)


def test_a_plateau_follows_the_loss_of_all_data() -> None:
    lr = schedules.ReduceOnPlateau(0.5, patience=0, threshold=0.5)
    w = np.array([1.0, 1.0])
    fastgd.minimize(lambda w: (1.0, np.zeros(2)), w, lr=lr, steps=5, optimizer="sgd")
    assert lr(0) < 0.5


def test_a_plateau_that_nobody_feeds_is_refused() -> None:
    lr = schedules.ReduceOnPlateau(0.1)
    with pytest.raises(ValueError, match="ReduceOnPlateau needs something to follow"):
        fastgd.minimize(regression, np.zeros(2), data=(X, Y), batch_size=5, epochs=1, lr=lr)
    fastgd.minimize(
        regression, np.zeros(2), data=(X, Y), batch_size=5, epochs=1, lr=lr,
        callback=lambda info: lr.update(info.loss) and None,
    )  # fmt: skip


# --- schedules that end too soon ---


def test_a_schedule_in_epochs_is_pointed_out() -> None:
    lr = schedules.cosine(0.1, total_steps=8)
    with pytest.warns(
        UserWarning, match=r"lr of group 0.*not epochs, of which each has 4: pass 32"
    ):
        fastgd.minimize(regression, np.zeros(2), data=(X, Y), batch_size=5, epochs=8, lr=lr)


def test_a_schedule_that_ends_long_before_the_run_is_pointed_out() -> None:
    lr = schedules.linear(0.1, total_steps=10, end_factor=0)
    with pytest.warns(UserWarning, match="ends long before this run of 100 steps"):
        fastgd.minimize(quadratic, np.ones(2), lr=lr, steps=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastgd.minimize(quadratic, np.ones(2), lr=lr, steps=19)


def test_load_can_keep_the_callers_hyperparameters(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    first = fastgd.SGD(np.zeros(1), lr=schedules.cosine(0.1, total_steps=10), clip_norm=1.0)
    for _ in range(10):
        first.step(np.ones(1))
    fastgd.save(path, first)

    def longer() -> Any:
        return fastgd.SGD(np.zeros(1), lr=schedules.cosine(0.1, total_steps=100))

    kept = longer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastgd.load(path, kept, keep_hyperparameters=True)
    assert (kept.step_count, kept.clip_norm) == (10, None)
    assert kept.param_groups[0]["lr"] == schedules.cosine(0.1, total_steps=100)
    replaced = longer()
    with pytest.warns(UserWarning, match="has ended at step 10; pass keep_hyperparameters=True"):
        fastgd.load(path, replaced)
    assert replaced.param_groups[0]["lr"] == schedules.cosine(0.1, total_steps=10)


# --- validation ---


def test_validation_counts_samples_whatever_comes_first() -> None:
    """A key or a mask may come before the data."""

    def mean(w: Any, key: Any, y: Any) -> Any:
        return float(y.mean()), np.zeros(1)

    batches = [(np.zeros(2), np.zeros(64)), (np.zeros(2), np.ones(1))]
    result = fastgd.minimize(mean, np.zeros(1), data=batches, epochs=1, validation=batches)
    assert result.history.validation_loss[-1] == pytest.approx(2 / 66)


def test_validation_of_numbers() -> None:
    result = fastgd.minimize(
        lambda w, x, t: (x, np.zeros(1)), np.zeros(1), data=[(1.0, 2.0)], epochs=1,
        validation=[(1.0, 2.0), (3.0, 2.0)],
    )  # fmt: skip
    assert result.history.validation_loss.tolist() == [2.0]


# --- a loss that is NaN ---


@pytest.mark.parametrize("odd", [[[1], [2, 3]], object(), {"key": [[1], [2, 3]]}, "text"])
def test_a_nan_loss_with_a_batch_that_is_no_array(odd: Any) -> None:
    calls = [0]

    def value_and_grad(w: Any, ids: Any, x: Any) -> Any:
        calls[0] += 1
        return (float("nan") if calls[0] > 3 else 1.0), np.zeros(1)

    result = fastgd.minimize(
        value_and_grad, np.zeros(1), data=[(odd, np.ones(2))] * 9, epochs=1, probe=False
    )
    assert result.reason.startswith("nonfinite")


# --- Ctrl-C ---


def test_an_interruption_is_said(caplog: pytest.LogCaptureFixture) -> None:
    def interrupted(w: Any) -> Any:
        raise KeyboardInterrupt

    result = fastgd.minimize(interrupted, np.ones(2), steps=5)
    assert result.reason == "interrupted"
    assert "interrupted after 0 steps" in caplog.text
    with pytest.raises(KeyboardInterrupt):
        fastgd.minimize(interrupted, np.ones(2), steps=5, on_interrupt="raise")
    with pytest.raises(ValueError, match="on_interrupt"):
        fastgd.minimize(quadratic, np.ones(2), steps=5, on_interrupt="stop")  # type: ignore[arg-type]


# --- containers ---


class Box(dict):  # type: ignore[type-arg]
    __getattr__ = dict.__getitem__


class Layers(list):  # type: ignore[type-arg]
    name = "layers"


class Pair(NamedTuple):
    w: Any
    b: Any


@dataclass
class Model:
    w: Any


@pytest.mark.parametrize("kind", [Box, OrderedDict])
def test_subclasses_of_dict_are_kept(kind: Any) -> None:
    params = kind(w=np.ones(2))

    def value_and_grad(p: Any) -> Any:
        assert type(p) is kind
        return float(p["w"] @ p["w"]), {"w": 2 * p["w"]}

    for extra in ({"copy": True}, {"average": "ema"}):
        result = fastgd.minimize(value_and_grad, params, steps=3, **extra)  # type: ignore[arg-type]
        assert type(result.params) is kind


def test_subclasses_of_list_and_named_tuples_are_kept() -> None:
    for params in (Layers([np.ones(2)]), Pair(np.ones(2), np.ones(1))):
        result = fastgd.minimize(
            lambda p: (sum(float(w @ w) for w in p), [2 * w for w in p]), params, steps=3, copy=True
        )
        assert type(result.params) is type(params)
    assert fastgd.SGD(Layers([np.ones(2)])).params.keys() == {"0"}


@pytest.mark.parametrize(
    ("params", "fix"),
    [
        (Model(np.ones(2)), r"vars\(value\)"),
        (MappingProxyType({"w": np.ones(2)}), r"dict\(value\)"),
        ({"w": np.ones(2)}.values(), r"list\(value\)"),
        ((x for x in [np.ones(2)]), "named_parameters"),
        ([1.0, 2.0], r"numpy\.array"),
    ],
)
def test_other_containers_are_refused_with_the_fix(params: Any, fix: str) -> None:
    with pytest.raises(TypeError, match=fix):
        fastgd.SGD(params)


# --- NumPy's errstate ---

TINY, HUGE = 1e-310, 1e300


def averaged(kind: Any) -> None:
    w = np.full(3, TINY)
    average = kind(w)
    for value in (1e-308, 0.0, TINY, HUGE, 0.0):
        w[...] = value
        average.update()
    assert average.params is not None


WORKS: dict[str, Any] = {
    "clip_grad_norm_": lambda: fastgd.clip_grad_norm_([np.full(3, TINY)], 1e-300),
    "clip_grad_value_": lambda: fastgd.clip_grad_value_([np.full(3, HUGE)], 1e-300),
    "global_norm": lambda: fastgd.global_norm([np.full(3, HUGE)]),
    "ExponentialAverage": lambda: averaged(ExponentialAverage),
    "TailAverage": lambda: averaged(TailAverage),
    "check_gradient": lambda: fastgd.check_gradient(quietly, np.full(3, 1e-200)),
    "find_lr": lambda: fastgd.find_lr(quietly, np.full(3, 1e-100), steps=20, optimizer="sgd"),
    "minimize": lambda: fastgd.minimize(quietly, np.full(3, TINY), steps=9, lr=0.1).diagnosis,
    "diverging": lambda: fastgd.minimize(quietly, np.ones(3), steps=9, lr=1e200).diagnosis,
    "MiniBatches": lambda: list(fastgd.MiniBatches(X, weights=np.full(20, TINY), batch_size=3)),
    "schedules": lambda: schedules.exponential(1e-300, gamma=0.1)(500),
}


def quietly(w: Any) -> Any:
    with np.errstate(all="ignore"):
        return float((w * w).sum()), 2 * w


@pytest.mark.parametrize("name", WORKS)
def test_errstate_changes_nothing(name: str) -> None:
    with np.errstate(all="raise"):
        WORKS[name]()


@pytest.mark.parametrize("name", fastgd.optimizers.all_optimizers())
def test_no_step_minds_errstate(name: str, dtype: type[np.floating]) -> None:
    info = np.finfo(dtype)
    with np.errstate(all="raise"):
        opt: Any = getattr(fastgd, name)(np.full((3, 2), info.tiny / 8, dtype))
        for g in (float(info.tiny) / 8, float(info.max) / 4, 0.0):
            opt.step(np.full((3, 2), g, dtype), loss=1.0)
        opt.eval()
        opt.train()


# --- a second moment that overflows ---


def spiking(at: int) -> Any:
    calls = [0]

    def value_and_grad(x: Any) -> Any:
        calls[0] += 1
        return float(x @ x), (np.full_like(x, 1e25) if calls[0] == at else 2 * x)

    return value_and_grad


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "adagrad", "adamw", "lamb"])
@pytest.mark.parametrize("at", [5, 20])
def test_diagnose_names_a_frozen_second_moment(optimizer: str, at: int) -> None:
    x = np.full(3, 5, np.float32)
    result = fastgd.minimize(spiking(at), x, optimizer=optimizer, lr=0.01, steps=300)
    assert result.diagnosis.verdict == "frozen_second_moment"
    assert f"at step {at - 1}" in str(result.diagnosis)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lion"])
def test_a_run_without_a_spike_is_not_called_frozen(optimizer: str) -> None:
    for scale in (1.0, 1e10):
        x = np.full(3, 5, np.float32)
        result = fastgd.minimize(
            lambda x, s=scale: (s * float(x @ x), np.float32(2 * s) * x),  # type: ignore[misc]
            x, optimizer=optimizer, lr=0.01 / (scale if optimizer == "sgd" else 1), steps=300,
        )  # fmt: skip
        assert all(f.verdict != "frozen_second_moment" for f in result.diagnosis.findings)


def test_a_skipped_spike_says_what_it_was() -> None:
    x = np.full(3, 5, np.float32)
    result = fastgd.minimize(spiking(9), x, optimizer="adam", lr=0.01, steps=50, nonfinite="skip")
    assert "its square is infinite" in result.reason


# --- Python's own overflow ---


def growing(w: Any) -> Any:
    return math.exp(abs(float(w[0]))), np.array([-math.exp(min(abs(float(w[0])), 700.0))])


def test_an_overflow_error_is_an_infinite_loss() -> None:
    w = np.array([1.0])
    result = fastgd.minimize(growing, w, optimizer="sgd", lr=100.0, steps=50)
    assert result.reason.startswith("nonfinite: the loss is inf")
    assert np.isfinite(w).all()
    sweep = fastgd.find_lr(growing, np.array([1.0]), optimizer="sgd", lr_max=1e4, steps=40)
    assert sweep.losses.size < 40


def test_check_gradient_of_many_arrays_asks_for_each_name_once() -> None:
    params = {f"w{i}": np.ones(1) for i in range(3)}
    assert fastgd.check_gradient(
        lambda p: (sum(float(w[0] ** 2) for w in p.values()), {k: 2 * w for k, w in p.items()}),
        params,
    ).ok
    with pytest.raises(ValueError, match="same name"):
        fastgd.check_gradient(lambda p: (0.0, p), {1: np.ones(1), "1": np.ones(1)})


def test_a_parameter_that_a_callback_replaced_is_noticed() -> None:
    def value_and_grad(p: Any) -> Any:
        return float(p["w"] @ p["w"]), {"w": 2 * p["w"]}

    def project(info: Any) -> None:
        info.params["w"] = np.maximum(info.params["w"], 0)

    with pytest.raises(ValueError, match=r"'w' was replaced.*p\['W'\]\[\.\.\.\]"):
        fastgd.minimize(
            value_and_grad, {"w": np.array([3.0, 4.0])}, lr=0.1, steps=9, callback=project
        )


def test_a_users_own_class_works_everywhere(tmp_path: Path) -> None:
    class Mine(fastgd.Adam):
        """Nothing of its own."""

    w = np.full(3, 2.0)
    opt = Mine(w, lr=0.1)
    result = fastgd.minimize(quadratic, w, optimizer=opt, steps=30)
    assert result.history.optimizer == "Adam"
    assert result.diagnosis.verdict
    fastgd.save(tmp_path / "run.npz", opt)
    other = Mine(np.zeros(3))
    fastgd.load(tmp_path / "run.npz", other)
    assert other.step_count == 30
    assert "Mine" not in fastgd.optimizers.all_optimizers()
