"""Rows of test_bad_inputs.py: hyperparameters, options and schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastgd
from fastgd import schedules
from tests.engine.bad_arrays import ones
from tests.engine.bad_inputs import Row, World
from tests.reference import SPECS
from tests.specs._spec import (
    CLOSED_FRACTION,
    FLAG,
    FRACTION,
    NONNEGATIVE,
    OTHER,
    PAIR,
    POSITIVE,
    TRIPLE,
)

NAN, INF = math.nan, math.inf
HUGE = 10**400  # beyond a double
NUMBERS: list[tuple[Any, type[Exception]]] = [
    *((x, ValueError) for x in (NAN, INF, -INF, HUGE, np.float32(NAN), np.longdouble("1e4000"))),
    *((x, TypeError) for x in (
        None, "0.1", b"1", True, np.True_, 1j, np.complex64(1), np.array(1j), np.timedelta64(1, "s"),
        np.array("1"), [0.1], (0.1,), {}, np.ones(1), np.ones(2), object(),
    )),
]  # fmt: skip
FEW = [NUMBERS[i] for i in (0, 2, 3, 6, 7, 9, 12, 19)]  # for what has the same check as others
NEGATIVE = [(-1, ValueError), (-1e-300, ValueError), (np.float64(-0.5), ValueError)]
FRACTIONS = [(1, ValueError), (1.0, ValueError), (np.float32(1.5), ValueError), (-0.1, ValueError)]
FLAGS: list[tuple[Any, type[Exception]]] = [
    (x, TypeError) for x in (0, 1, None, "True", [True], len, ones(1))
]
PAIRS: list[tuple[Any, type[Exception]]] = [
    *((x, TypeError) for x in (0.9, None, "ab", {0.9, 0.99}, {0: 0.9, 1: 0.99}, (0.9, None),
                               np.array([[0.9, 0.99]]), ("0.9", 0.99), (0.9, True), (0.9, [0.99]),
                               abs)),
    *((x, ValueError) for x in ((1.0, 0.9), (0.9, 1), (-0.1, 0.9), (0.9, NAN), (0.9, INF), (),
                                (HUGE, 0.9), (0.9,), (0.9, 0.99, 0.999))),
]  # fmt: skip

TRIPLES: list[tuple[Any, type[Exception]]] = [
    *((x, TypeError) for x in (0.9, None, "abc", (0.9, 0.9, None), np.ones((1, 3)) / 2, abs)),
    *((x, ValueError) for x in ((1.0, 0.9, 0.9), (0.9, 0.9, -0.1), (0.9, 0.99), (NAN, 0.9, 0.9))),
]


def bad_values_of(optimizer: str, name: str) -> list[tuple[Any, type[Exception]]]:
    kind = FLAG if name == "maximize" else SPECS[optimizer].hyper[name].kind
    numbers = NUMBERS if (optimizer, name) == ("SGD", "lr") else FEW
    also = {
        NONNEGATIVE: NEGATIVE,
        POSITIVE: [*NEGATIVE, (0, ValueError)],
        FRACTION: FRACTIONS,
        CLOSED_FRACTION: FRACTIONS[2:],
    }
    return {FLAG: FLAGS, PAIR: PAIRS, TRIPLE: TRIPLES}.get(kind) or numbers + also.get(kind, [])


def short(value: Any) -> str:
    kind = f"{type(value).__module__}.{type(value).__name__}"
    return f"{kind}{getattr(value, 'dtype', '')}-{str(value)[:12]}"


def assigned(world: World, given: Any) -> None:
    opt, name, value = given
    opt.param_groups[0][name] = value


def hyperparameter_rows() -> Iterator[Row]:
    """By assignment for all; in the constructor and in groups for a few, as cases.py has more."""
    for optimizer, spec in SPECS.items():
        for name in (*spec.hyper, "maximize"):
            if name in spec.hyper and spec.hyper[name].kind == OTHER:
                continue  # of a kind of its own, whose errors are in its file
            for value, exception in bad_values_of(optimizer, name):
                yield Row(
                    f"assign-{optimizer}-{name}-{short(value)}",
                    lambda w, o=optimizer, n=name, v=value: (getattr(fastgd, o)(np.ones((2, 1))), n, v),  # type: ignore[misc]
                    assigned, exception, rf"^{name}(\[[012]\])? must be",
                )  # fmt: skip
    for name in ("lr", "momentum", "weight_decay", "nesterov"):
        for value, exception in bad_values_of("SGD", name):
            yield Row(
                f"construct-{name}-{short(value)}",
                lambda w, n=name, v=value: {n: v},  # type: ignore[misc]
                lambda w, given: fastgd.SGD(w.data, **given),
                exception, f"^{name} must be",
            )  # fmt: skip
            yield Row(
                f"group-{name}-{short(value)}",
                lambda w, n=name, v=value: {"params": ones(3), n: v},  # type: ignore[misc]
                lambda w, given: w.sgd.add_param_group(given),
                exception, f"^{name} must be",
            )  # fmt: skip
    for name in ("clip_norm", "clip_value"):
        for value, exception in [*NUMBERS, *NEGATIVE, (0, ValueError), (-0.0, ValueError)]:
            if value is not None:
                yield Row(
                    f"option-{name}-{short(value)}",
                    lambda w, v=value: v,  # type: ignore[misc]
                    lambda w, v, n=name: setattr(w.adam, n, v),  # type: ignore[misc]
                    exception, f"^{name} must be",
                )  # fmt: skip
    for value in ("ignore", "", None, 1, True, ["raise"], b"skip", np.array(["raise", "skip"])):
        yield Row(
            f"option-nonfinite-{short(value)}",
            lambda w, v=value: v,  # type: ignore[misc]
            lambda w, v: setattr(w.adam, "nonfinite", v),
            ValueError, "^nonfinite must be",
        )  # fmt: skip


Use = Callable[[World, Any], Any]
# What a group, or an optimizer as a whole, does not do.
GROUP_USES: list[tuple[str, Use, type[Exception], str]] = [
    ("unknown", lambda w, g: g.__setitem__("learning_rate", 1), ValueError, "'learning_rate'"),
    ("other-kind", lambda w, g: g.__setitem__("momentum", 1), ValueError, "no .*'momentum'"),
    ("not-text", lambda w, g: g.__setitem__(0, 1), ValueError, "hyperparameter 0"),
    ("params", lambda w, g: g.__setitem__("params", [ones(1)]), TypeError, "arrays of a group"),
    ("delete", lambda w, g: g.__delitem__("lr"), TypeError, "'lr'"),
    ("delete-params", lambda w, g: g.__delitem__("params"), TypeError, "'params'"),
    ("pop", lambda w, g: g.pop("eps"), TypeError, "'eps'"),
    ("clear", lambda w, g: g.clear(), TypeError, "'params'"),
    ("update", lambda w, g: g.update(lr=-1), ValueError, "lr must be"),
    ("setdefault", lambda w, g: g.setdefault("foo", 1), ValueError, "'foo'"),
    ("step_count", lambda w, g: setattr(w.adam, "step_count", 0), AttributeError, "step_count"),
    ("grad_norm", lambda w, g: setattr(w.adam, "grad_norm", 0), AttributeError, "grad_norm"),
    ("state", lambda w, g: setattr(w.adam, "state", {}), AttributeError, "state"),
    ("norms", lambda w, g: w.adam.norms(), RuntimeError, "track_norms"),
    ("no-params", lambda w, g: fastgd.Adam(), TypeError, "params"),
    ("no-grads", lambda w, g: w.adam.step(), TypeError, "grads"),
    ("keyword", lambda w, g: fastgd.Adam(ones(1), learning_rate=1), TypeError, "learning_rate"),
    ("positional", lambda w, g: fastgd.SGD(ones(1), 1, 0, 0, 0, False, True), TypeError,
     "positional"),
    ("dampened", lambda w, g: w.sgd.param_groups[1].update(dampening=0.1), ValueError,
     "nesterov .*dampening"),
    ("accumulator", lambda w, g: fastgd.Adagrad(w.data, initial_accumulator_value=abs), TypeError,
     "initial_accumulator_value must be a number"),
]  # fmt: skip


def group_of_adam(world: World) -> Any:
    world.sgd.param_groups[1]["nesterov"] = True
    return world.adam.param_groups[0]


def not_nesterov(world: World, given: Any) -> None:
    world.sgd.param_groups[1]["nesterov"] = False


def failing(step: int) -> float:
    raise LookupError("no value at this step")


SCHEDULED: list[tuple[Any, type[Exception], str]] = [
    *((x, ValueError, "{} must be") for x in (NAN, INF, -1.0, HUGE)),
    *((x, TypeError, "{} must be") for x in (None, "1", True, 1j, [1.0], (0.1, 0.2), np.ones(1))),
    (abs, TypeError, "{}: the schedule returned a function"),
    (schedules.constant(0.1), TypeError, "{}: the schedule returned a function"),
]  # fmt: skip


def step_scheduled(world: World, given: Any) -> None:
    world.adam.step(world.adam_grads())


def scheduled_rows() -> Iterator[Row]:
    """A schedule is found out only when a step, or an option's first use, calls it."""
    for name in ("lr", "betas", "clip_norm", "clip_value"):
        for value, exception, match in [*SCHEDULED, (0, ValueError, "{} must be")]:
            right = "None" if name.startswith("clip") else "0"
            if repr(value) == right:
                continue

            def install(world: World, name: str = name, value: Any = value) -> Any:
                if name.startswith("clip"):
                    setattr(world.adam, name, lambda step: value)
                else:
                    beta = world.adam.param_groups[0]["betas"][0]
                    schedule: Any = lambda step: value  # noqa: E731
                    schedule = (beta, schedule) if name == "betas" else schedule
                    world.adam.param_groups[0][name] = schedule

            def restore(world: World, given: Any, name: str = name) -> None:
                fresh: Any = World(world.folder).adam
                if name.startswith("clip"):
                    setattr(world.adam, name, getattr(fresh, name))
                else:
                    world.adam.param_groups[0][name] = fresh.param_groups[0][name]

            where = r"betas(\[1\])?" if name == "betas" else name
            yield Row(f"schedule-{name}-{short(value)}", install, step_scheduled, exception,
                      "^" + match.format(where), restore)  # fmt: skip
    yield Row(
        "schedule-raises", lambda w: None,
        lambda w, g: fastgd.SGD(w.data, lr=failing).step(w.data * 2), LookupError, "no value",
    )  # fmt: skip
    yield Row(
        "schedule-takes-nothing", lambda w: None,
        lambda w, g: fastgd.SGD(w.data, lr=lambda: 0.1).step(w.data * 2), TypeError, "argument",
    )  # fmt: skip
    for bad in (-1, 1.0, None, "1", True):
        yield Row(
            f"schedule-called-with-{bad!r}", lambda w, bad=bad: bad,  # type: ignore[misc]
            lambda w, bad: schedules.cosine(0.1, total_steps=9)(bad),
            ValueError if bad == -1 else TypeError, "^step must be",
        )  # fmt: skip


# (function, arguments, exception, message); test_schedules_arguments.py has many more.
FACTORIES: list[tuple[Callable[..., Any], dict[str, Any], type[Exception], str]] = [
    (schedules.constant, {"value": NAN}, ValueError, "^value"),
    (schedules.constant, {"value": "1"}, TypeError, "^value"),
    (schedules.step, {"lr": 1, "step_size": 0}, ValueError, "^step_size"),
    (schedules.multi_step, {"lr": 1, "milestones": [3, 3]}, ValueError, "^milestones"),
    (schedules.multi_step, {"lr": 1, "milestones": None}, TypeError, "^milestones"),
    (schedules.piecewise_constant, {"values": [1], "boundaries": [1]}, ValueError, "^values"),
    (schedules.linear, {"lr": "1", "total_steps": 3}, TypeError, "^lr"),
    (schedules.linear, {"lr": 1, "total_steps": 2.0}, TypeError, "^total_steps"),
    (schedules.polynomial, {"lr": 1, "total_steps": 3, "power": -1}, ValueError, "^power"),
    (schedules.exponential, {"lr": 1, "gamma": 0}, ValueError, "^gamma"),
    (schedules.inverse_time, {"lr": 1, "decay_rate": INF}, ValueError, "^decay_rate"),
    (schedules.inverse_sqrt, {"lr": 1, "warmup_steps": True}, TypeError, "^warmup_steps"),
    (schedules.cosine, {"lr": 1, "total_steps": 3, "warmup_steps": 3}, ValueError, "^warmup_steps"),
    (schedules.cosine_restarts, {"lr": 1, "period": -1}, ValueError, "^period"),
    (schedules.cyclic, {"base_lr": 0, "max_lr": 1, "mode": "saw"}, ValueError, "^mode"),
    (schedules.one_cycle, {"max_lr": 1, "total_steps": 1}, ValueError, "^total_steps"),
    (schedules.one_cycle_momentum, {"total_steps": 9, "max_momentum": 2}, ValueError, "^max_mom"),
    (schedules.warmup, {"schedule": "cosine", "steps": 3}, TypeError, "^schedule"),
    (schedules.join, {"schedules": [1, 2], "boundaries": []}, ValueError, "^schedules"),
    (schedules.warmup_stable_decay, {"lr": 1, "total_steps": 3, "warmup_steps": 2,
                                     "decay_steps": 2}, ValueError, "^total_steps"),
    (schedules.ReduceOnPlateau, {"lr": 1, "factor": 1}, ValueError, "^factor"),
    (schedules.ReduceOnPlateau, {"lr": 1, "min_lr": 2}, ValueError, "^min_lr"),
]  # fmt: skip


def rows() -> Iterator[Row]:
    yield from hyperparameter_rows()
    for name, use, exception, match in GROUP_USES:
        yield Row(f"group-{name}", group_of_adam, use, exception, match, not_nesterov)
    yield from scheduled_rows()
    for factory, arguments, exception, match in FACTORIES:
        yield Row(
            f"schedules-{factory.__name__}-{match[1:]}-{exception.__name__}",
            lambda w, a=arguments: a,  # type: ignore[misc]
            lambda w, a, f=factory: f(**a),  # type: ignore[misc]
            exception, match,
        )  # fmt: skip


ROWS = list(rows())
