"""Schedules: golden values, and what holds for every one of them."""

from __future__ import annotations

import copy
import doctest
import importlib
import math
import pickle
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastgd import schedules
from fastgd.schedules import (
    ReduceOnPlateau,
    Schedule,
    constant,
    cosine,
    cosine_restarts,
    cyclic,
    exponential,
    inverse_sqrt,
    inverse_time,
    join,
    linear,
    multi_step,
    one_cycle,
    one_cycle_momentum,
    piecewise_constant,
    polynomial,
    step,
    warmup,
    warmup_stable_decay,
)


def values(schedule: Callable[[int], float], steps: int) -> list[float]:
    return [schedule(t) for t in range(steps)]


# A schedule of each kind, with its values at steps 0, 1, 2, ... worked out by hand; they are exact
# in binary wherever the formula's operations are.
GOLDEN: list[tuple[Schedule, list[float]]] = [
    (constant(0.25), [0.25] * 5),
    (step(1.0, step_size=3, gamma=0.5), [1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
    (multi_step(1.0, milestones=[1, 4], gamma=0.5), [1, 0.5, 0.5, 0.5, 0.25, 0.25]),
    (multi_step(1.0, milestones=[]), [1, 1, 1]),
    (piecewise_constant([0.5, 2.0, 0.0], boundaries=[1, 3]), [0.5, 2, 2, 0, 0]),
    (piecewise_constant([0.5], boundaries=[]), [0.5, 0.5]),
    (linear(2.0, total_steps=4, start_factor=0.25, end_factor=1.25), [0.5, 1, 1.5, 2, 2.5, 2.5]),
    (linear(3.0, total_steps=2), [1, 2, 3, 3]),
    (polynomial(1.0, total_steps=4, power=2, final=0.5), [1, 0.78125, 0.625, 0.53125, 0.5, 0.5]),
    (polynomial(1.0, total_steps=4), [1, 0.75, 0.5, 0.25, 0, 0]),
    (exponential(4.0, gamma=0.5), [4, 2, 1, 0.5, 0.25]),
    (exponential(1.0, gamma=2), [1, 2, 4, 8]),
    (inverse_time(1.0, decay_rate=1), [1, 1 / 2, 1 / 3, 1 / 4]),
    (inverse_time(1.0, decay_rate=2, decay_steps=4), [1, 1 / 1.5, 1 / 2, 1 / 2.5]),
    (inverse_sqrt(1.0, warmup_steps=1), [1, 2**-0.5, 3**-0.5, 0.5]),
    (inverse_sqrt(2.0, warmup_steps=4), [0.5, 1, 1.5, 2, 2 * 0.8**0.5]),
    # cos(pi/3) = 1/2 and cos(pi/4) = sqrt(1/2)
    (cosine(1.0, total_steps=3), [1, 0.75, 0.25, 0, 0]),
    (
        cosine(1.0, total_steps=4, final=0.5),
        [1, 0.75 + 0.125**0.5 / 2, 0.75, 0.75 - 0.125**0.5 / 2, 0.5],
    ),
    (cosine(0.25, total_steps=2, final=0.75), [0.25, 0.5, 0.75, 0.75]),
    (cosine(1.0, total_steps=5, warmup_steps=2), [0, 0.5, 1, 0.75, 0.25, 0, 0]),
    (cosine_restarts(1.0, period=3), [1, 0.75, 0.25, 1, 0.75, 0.25, 1]),
    (cosine_restarts(1.0, period=1, multiplier=3, final=0.5), [1, 1, 0.875, 0.625, 1]),
    (cyclic(0, 1, step_size_up=2), [0, 0.5, 1, 0.5, 0, 0.5, 1, 0.5, 0]),
    (cyclic(0, 1, step_size_up=1, step_size_down=4), [0, 1, 0.75, 0.5, 0.25, 0, 1]),
    (cyclic(1, 2, step_size_up=1, mode="triangular2"), [1, 2, 1, 1.5, 1, 1.25, 1, 1.125]),
    (cyclic(1, 2, step_size_up=1, mode="exp_range", gamma=0.5), [1, 1.5, 1, 1.125, 1, 1.03125]),
    (cyclic(0.75, 0.5, step_size_up=2), [0.75, 0.625, 0.5, 0.625, 0.75]),
    # phases end at steps 4 and 9
    (
        one_cycle(
            1.0,
            total_steps=10,
            pct_start=0.5,
            anneal_strategy="linear",
            div_factor=2,
            final_div_factor=4,
        ),
        [0.5, 0.625, 0.75, 0.875, 1, 0.825, 0.65, 0.475, 0.3, 0.125, 0.125],
    ),
    # phases end at steps 2, 4 and 11; half-way values of the cosine are means
    (
        one_cycle(1.0, total_steps=12, pct_start=0.25, div_factor=2, three_phase=True),
        [0.5, 0.75, 1, 0.75, 0.5],
    ),
    (
        one_cycle(1.0, total_steps=4, pct_start=0, div_factor=2, final_div_factor=2),
        [1 - 0.75 * (1 - math.cos(math.pi * x)) / 2 for x in (0.25, 0.5, 0.75, 1, 1)],
    ),
    # the rise is over before it began; phases end at steps 0 and 3
    (
        one_cycle(1.0, total_steps=4, pct_start=0.25, div_factor=2, final_div_factor=2),
        [1, 0.8125, 0.4375, 0.25, 0.25],
    ),
    (one_cycle(1.0, total_steps=3, pct_start=1, div_factor=2), [0.5, 0.75, 1, 1]),
    (
        one_cycle_momentum(0.25, 0.75, total_steps=5, pct_start=0.6, anneal_strategy="linear"),
        [0.75, 0.5, 0.25, 0.5, 0.75, 0.75],
    ),
    (
        one_cycle_momentum(0.25, 0.75, total_steps=12, pct_start=0.25, three_phase=True),
        [0.75, 0.5, 0.25, 0.5, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75],
    ),
    (
        warmup_stable_decay(1, total_steps=8, warmup_steps=2, decay_steps=4, final=0.5),
        [0, 0.5, 1, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.5],
    ),
    (
        warmup_stable_decay(1, total_steps=4, warmup_steps=0, decay_steps=4, decay_type="1-sqrt"),
        [1, 0.5, 1 - 0.5**0.5, 1 - 0.75**0.5, 0, 0],
    ),
    (
        warmup_stable_decay(1, total_steps=4, warmup_steps=1, decay_steps=3, decay_type="cosine"),
        [0, 1, 0.75, 0.25, 0, 0],
    ),
    (warmup(exponential(1.0, gamma=0.5), 2), [0, 0.5, 1, 0.5, 0.25]),
    (warmup(0.5, 4, start_factor=0.5), [0.25, 0.3125, 0.375, 0.4375, 0.5, 0.5]),
    (warmup(0.5, 1, start_factor=2), [1, 0.5]),
    (warmup(exponential(1.0, gamma=0.5), 0), [1, 0.5, 0.25]),
    (
        join([0.5, exponential(1, gamma=0.5), linear(1, total_steps=2, start_factor=0)], [2, 4]),
        [0.5, 0.5, 1, 0.5, 0, 0.5, 1, 1],
    ),
    (
        join([warmup(join([1.0, 2.0], [1]), 2), step(8, step_size=1, gamma=0.5)], [5]),
        [0, 0.5, 1, 2, 2, 8, 4, 2],
    ),
]
ALL = [pytest.param(schedule, id=repr(schedule)) for schedule, _ in GOLDEN]


def test_golden_values_cover_every_factory() -> None:
    factories = {name for name in schedules.__all__ if name[0].islower()}
    assert {repr(schedule).partition("(")[0] for schedule, _ in GOLDEN} == factories


@pytest.mark.parametrize(("schedule", "expected"), GOLDEN, ids=lambda x: repr(x)[:60])
def test_golden_values(schedule: Schedule, expected: list[float]) -> None:
    actual = values(schedule, len(expected))
    # 4 ULP of the largest value: a few roundings, and a cosine
    np.testing.assert_allclose(actual, expected, rtol=0, atol=4 * np.spacing(max(expected)))


@pytest.mark.parametrize(
    ("schedule", "end", "final"),
    [
        (linear(0.1, total_steps=7, start_factor=1, end_factor=0.3), 7, 0.1 * 0.3),
        (polynomial(0.1, total_steps=7, power=0.9, final=1e-3), 7, 1e-3),
        (cosine(0.1, total_steps=7, final=1e-3), 7, 1e-3),
        (cosine(0.1, total_steps=7, warmup_steps=3), 7, 0.0),
        (one_cycle(0.1, total_steps=7), 6, 0.1 / 25 / 1e4),
        (one_cycle_momentum(total_steps=7), 6, 0.95),
        (
            warmup_stable_decay(0.1, total_steps=9, warmup_steps=2, decay_steps=3, final=1e-3),
            9,
            1e-3,
        ),
    ],
    ids=lambda x: repr(x)[:40],
)
def test_end_is_exact_and_held(schedule: Schedule, end: int, final: float) -> None:
    assert schedule(end - 1) != final
    assert {schedule(t) for t in (end, end + 1, end + 1000, 10**9, 10**400)} == {final}


@pytest.mark.parametrize("lr", [0.1, 0.3, 1e-3, 3e-4])
def test_start_and_peak_are_exact(lr: float) -> None:
    final = lr / 7
    assert polynomial(lr, total_steps=9, final=final)(0) == lr
    assert cosine(lr, total_steps=9, final=final)(0) == lr
    assert cosine(lr, total_steps=9, warmup_steps=4, final=final)(4) == lr
    assert [cosine_restarts(lr, period=3, multiplier=2, final=final)(t) for t in (0, 3, 9)] == [
        lr
    ] * 3
    assert cyclic(final, lr, step_size_up=5)(5) == lr
    assert one_cycle(lr, total_steps=10)(2) == lr
    assert inverse_sqrt(lr, warmup_steps=7)(6) == lr


def test_restarts_far_out_are_exact() -> None:
    schedule = cosine_restarts(1.0, period=10, multiplier=3)
    restart = 0
    for i in range(60):
        restart += 10 * 3**i
        assert schedule(restart) == 1.0
        assert schedule(restart - 1) < 0.1


def test_triangular2_vanishes_without_overflow() -> None:
    assert cyclic(0.5, 1, step_size_up=1, mode="triangular2")(2 * 5000 + 1) == 0.5


def test_cosine_with_warmup_is_the_composition() -> None:
    whole = cosine(0.3, total_steps=100, warmup_steps=20, final=0.1)
    composed = warmup(cosine(0.3, total_steps=80, final=0.1), 20)
    assert values(whole, 120) == values(composed, 120)


def test_stable_part_does_not_depend_on_the_total() -> None:
    short = warmup_stable_decay(0.3, total_steps=100, warmup_steps=10, decay_steps=20)
    long = warmup_stable_decay(0.3, total_steps=1000, warmup_steps=10, decay_steps=20)
    assert values(short, 80) == values(long, 80)


def test_noam_is_the_formula_of_the_paper() -> None:
    d_model, warmup_steps = 512, 4000
    schedule = inverse_sqrt((d_model * warmup_steps) ** -0.5, warmup_steps=warmup_steps)
    for s in (1, 2, 1000, 3999, 4000, 4001, 100_000):  # the paper counts from 1
        expected = d_model**-0.5 * min(s**-0.5, s * warmup_steps**-1.5)
        assert schedule(s - 1) == pytest.approx(expected, rel=1e-14)


# What holds for every schedule


@pytest.mark.parametrize("schedule", ALL)
def test_repr_is_the_call_that_makes_it(schedule: Schedule) -> None:
    assert eval(repr(schedule), vars(schedules).copy()) == schedule


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_copies_are_equal(schedule: Schedule, duplicate: Callable[[Schedule], Schedule]) -> None:
    other = duplicate(schedule)
    assert other is not schedule
    assert other == schedule
    assert hash(other) == hash(schedule)
    assert values(other, 30) == values(schedule, 30)


def test_different_schedules_are_unequal() -> None:
    distinct = {schedule for schedule, _ in GOLDEN}
    assert len(distinct) == len(GOLDEN)
    assert constant(0.1) != 0.1
    assert cosine(0.1, total_steps=10) != cosine(0.1, total_steps=11)


def test_arguments_have_one_normal_form() -> None:
    assert cosine(1, total_steps=np.int32(10)) == cosine(np.float64(1.0), total_steps=10, final=0)
    assert multi_step(1, milestones=np.array([1, 2])) == multi_step(1, milestones=(1, 2))
    assert cyclic(0, 1, step_size_up=5) == cyclic(0, 1, step_size_up=5, step_size_down=5)
    assert warmup(0.5, 3) == warmup(constant(0.5), 3)


@pytest.mark.parametrize("schedule", ALL)
def test_numpy_integers_are_steps(schedule: Schedule) -> None:
    for dtype in (np.int8, np.uint16, np.int64, np.uint64):
        actual = [schedule(dtype(t)) for t in range(30)]
        assert actual == values(schedule, 30)
        assert {type(x) for x in actual} == {float}


@pytest.mark.parametrize("schedule", [*ALL, pytest.param(ReduceOnPlateau(0.1), id="plateau")])
def test_bad_steps_are_refused(schedule: Callable[[Any], float]) -> None:
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        schedule(-1)
    for bad in (1.0, "1", None, True, np.float64(1), np.array([1, 2])):
        with pytest.raises(TypeError, match="step must be an integer"):
            schedule(bad)


@pytest.mark.parametrize("schedule", ALL)
def test_order_of_calls_does_not_matter(schedule: Schedule) -> None:
    assert [schedule(t) for t in reversed(range(50))] == values(schedule, 50)[::-1]


def test_overflow_names_schedule_and_step() -> None:
    schedule = exponential(1.0, gamma=10.0)
    assert schedule(308) == pytest.approx(1e308)
    with pytest.raises(
        OverflowError, match=r"exponential\(lr=1.0, gamma=10.0\) overflows at step 309"
    ):
        schedule(309)


def test_any_function_can_be_composed() -> None:
    schedule = join([lambda t: 1.0 + t, warmup(lambda t: 4.0, 2)], [2])
    assert values(schedule, 6) == [1.0, 2.0, 0.0, 2.0, 4.0, 4.0]


def test_plateau_can_be_composed() -> None:
    plateau = ReduceOnPlateau(1.0, factor=0.5, patience=0)
    schedule = warmup(plateau, 2)
    plateau.update(1.0)
    plateau.update(1.0)
    assert values(schedule, 4) == [0.0, 0.25, 0.5, 0.5]


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(schedules.__path__)])
def test_doctests(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"{schedules.__name__}.{module}"))
    assert result.failed == 0
    assert result.attempted > 0


@pytest.mark.parametrize("name", schedules.__all__)
def test_docstrings_are_complete(name: str) -> None:
    text = getattr(schedules, name).__doc__
    sections = ["Example:"] if name == "Schedule" else ["Args:", "Example:"]
    assert all(section in text for section in sections)
