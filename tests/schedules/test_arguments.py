"""What schedules refuse when they are made, and the messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest

from fastgd.schedules import (
    ReduceOnPlateau,
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

NAN, INF = math.nan, math.inf
CYCLE: dict[str, Any] = {"total_steps": 10}
WSD: dict[str, Any] = {"total_steps": 10, "warmup_steps": 2, "decay_steps": 3}
Case: TypeAlias = tuple[Callable[..., Any], dict[str, Any], type[Exception], str]
BAD: list[Case] = [
    *[
        (constant, {"value": bad}, error, "value must be a number in [0, inf), got")
        for bad, error in [
            (NAN, ValueError),
            (INF, ValueError),
            (-0.1, ValueError),
            (10**400, ValueError),
            (True, TypeError),
            (np.True_, TypeError),
            ("0.1", TypeError),
            (b"1", TypeError),
            (None, TypeError),
            (1j, TypeError),
            ([0.1], TypeError),
            (np.ones(2), TypeError),
            (constant(1), TypeError),
        ]
    ],
    *[
        (factory, {"lr": NAN, **rest}, ValueError, "lr must be a number in [0, inf), got nan")
        for factory, rest in [
            (step, {"step_size": 1}),
            (multi_step, {"milestones": [1]}),
            (linear, CYCLE),
            (polynomial, CYCLE),
            (exponential, {"gamma": 0.9}),
            (inverse_time, {"decay_rate": 1}),
            (inverse_sqrt, {"warmup_steps": 1}),
            (cosine, CYCLE),
            (cosine_restarts, {"period": 1}),
            (warmup_stable_decay, WSD),
            (ReduceOnPlateau, {}),
        ]
    ],
    *[
        (factory, {"lr": 1, "total_steps": bad}, error, f"total_steps must be {expected}")
        for factory in (linear, polynomial, cosine)
        for bad, error, expected in [
            (0, ValueError, "at least 1, got 0"),
            (-5, ValueError, "at least 1, got -5"),
            (10.0, TypeError, "an integer, got float: 10.0"),
            (True, TypeError, "an integer, got bool: True"),
            (None, TypeError, "an integer, got NoneType: None"),
            ("10", TypeError, "an integer, got str: '10'"),
        ]
    ],
    (step, {"lr": 1, "step_size": 0}, ValueError, "step_size must be at least 1, got 0"),
    (step, {"lr": 1, "step_size": 2, "gamma": 0}, ValueError, "gamma must be a number in (0, inf)"),
    (
        step,
        {"lr": 1, "step_size": 2, "gamma": NAN},
        ValueError,
        "gamma must be a number in (0, inf)",
    ),
    (
        multi_step,
        {"lr": 1, "milestones": 5},
        TypeError,
        "milestones must be a list or tuple, got int",
    ),
    (multi_step, {"lr": 1, "milestones": [3, 1]}, ValueError, "must increase, got 3 and then 1"),
    (multi_step, {"lr": 1, "milestones": [2, 2]}, ValueError, "must increase, got 2 and then 2"),
    (multi_step, {"lr": 1, "milestones": [0, 2]}, ValueError, "milestones[0] must be at least 1"),
    (multi_step, {"lr": 1, "milestones": [1, 2.5]}, TypeError, "milestones[1] must be an integer"),
    (
        multi_step,
        {"lr": 1, "milestones": "12"},
        TypeError,
        "milestones[0] must be an integer, got str",
    ),
    (multi_step, {"lr": 1, "milestones": [1], "gamma": -1}, ValueError, "gamma must be a number"),
    (
        piecewise_constant,
        {"values": [1, 2], "boundaries": [1, 2]},
        ValueError,
        "values must have one more item than boundaries, got 2 values and 2 boundaries",
    ),
    (piecewise_constant, {"values": [], "boundaries": []}, ValueError, "got 0 values"),
    (piecewise_constant, {"values": 1, "boundaries": []}, TypeError, "values must be a list"),
    (piecewise_constant, {"values": [1, NAN], "boundaries": [1]}, ValueError, "values[1] must be"),
    (piecewise_constant, {"values": [1, 2, 3], "boundaries": [2, 1]}, ValueError, "must increase"),
    (linear, {"lr": 1, **CYCLE, "start_factor": -1}, ValueError, "start_factor must be a number"),
    (linear, {"lr": 1, **CYCLE, "end_factor": INF}, ValueError, "end_factor must be a number"),
    (polynomial, {"lr": 1, **CYCLE, "power": 0}, ValueError, "power must be a number in (0, inf)"),
    (polynomial, {"lr": 1, **CYCLE, "final": -1}, ValueError, "final must be a number in [0, inf)"),
    (exponential, {"lr": 1, "gamma": -0.5}, ValueError, "gamma must be a number in (0, inf)"),
    (exponential, {"lr": 1, "gamma": INF}, ValueError, "gamma must be a number in (0, inf)"),
    (inverse_time, {"lr": 1, "decay_rate": -1}, ValueError, "decay_rate must be a number"),
    (inverse_time, {"lr": 1, "decay_rate": 1, "decay_steps": 0}, ValueError, "decay_steps must be"),
    (inverse_sqrt, {"lr": 1, "warmup_steps": 0}, ValueError, "warmup_steps must be at least 1"),
    (cosine, {"lr": 1, **CYCLE, "warmup_steps": -1}, ValueError, "warmup_steps must be at least 0"),
    (
        cosine,
        {"lr": 1, **CYCLE, "warmup_steps": 10},
        ValueError,
        "warmup_steps must be less than total_steps, got warmup_steps=10 and total_steps=10",
    ),
    (cosine, {"lr": 1, **CYCLE, "final": NAN}, ValueError, "final must be a number in [0, inf)"),
    (cosine_restarts, {"lr": 1, "period": 0}, ValueError, "period must be at least 1, got 0"),
    (cosine_restarts, {"lr": 1, "period": 2, "multiplier": 0}, ValueError, "multiplier must be at"),
    (
        cosine_restarts,
        {"lr": 1, "period": 2, "multiplier": 1.5},
        TypeError,
        "multiplier must be an",
    ),
    (cyclic, {"base_lr": NAN, "max_lr": 1}, ValueError, "base_lr must be a number"),
    (cyclic, {"base_lr": 0, "max_lr": -1}, ValueError, "max_lr must be a number"),
    (cyclic, {"base_lr": 0, "max_lr": 1, "step_size_up": 0}, ValueError, "step_size_up must be at"),
    (
        cyclic,
        {"base_lr": 0, "max_lr": 1, "step_size_down": 0},
        ValueError,
        "step_size_down must be",
    ),
    (
        cyclic,
        {"base_lr": 0, "max_lr": 1, "mode": "square"},
        ValueError,
        "mode must be one of 'triangular', 'triangular2', 'exp_range', got 'square'",
    ),
    (cyclic, {"base_lr": 0, "max_lr": 1, "mode": 2}, TypeError, "mode must be one of"),
    (cyclic, {"base_lr": 0, "max_lr": 1, "gamma": 0}, ValueError, "gamma must be a number"),
    (one_cycle, {"max_lr": -1, **CYCLE}, ValueError, "max_lr must be a number"),
    (one_cycle, {"max_lr": 1, **CYCLE, "div_factor": 0}, ValueError, "div_factor must be a number"),
    (
        one_cycle,
        {"max_lr": 1, **CYCLE, "final_div_factor": NAN},
        ValueError,
        "final_div_factor must",
    ),
    *[
        (factory, {**first, **CYCLE, **bad}, error, message)
        for factory, first in [(one_cycle, {"max_lr": 1}), (one_cycle_momentum, {})]
        for bad, error, message in [
            ({"total_steps": 1}, ValueError, "total_steps must be at least 2, got 1"),
            ({"pct_start": 1.5}, ValueError, "pct_start must be a number in [0, 1], got 1.5"),
            ({"pct_start": NAN}, ValueError, "pct_start must be a number in [0, 1], got nan"),
            ({"pct_start": 0.6, "three_phase": True}, ValueError, "pct_start must be at most 0.5"),
            ({"three_phase": 1}, TypeError, "three_phase must be True or False, got int: 1"),
            (
                {"anneal_strategy": "exp"},
                ValueError,
                "anneal_strategy must be one of 'cos', 'linear'",
            ),
        ]
    ],
    (one_cycle_momentum, {**CYCLE, "base_momentum": 1.1}, ValueError, "base_momentum must be"),
    (one_cycle_momentum, {**CYCLE, "max_momentum": -1}, ValueError, "max_momentum must be"),
    (warmup_stable_decay, {"lr": 1, **WSD, "decay_steps": 0}, ValueError, "decay_steps must be"),
    (warmup_stable_decay, {"lr": 1, **WSD, "warmup_steps": -1}, ValueError, "warmup_steps must be"),
    (warmup_stable_decay, {"lr": 1, **WSD, "total_steps": 4}, ValueError, "total_steps must be at"),
    (warmup_stable_decay, {"lr": 1, **WSD, "decay_type": "sqrt"}, ValueError, "decay_type must be"),
    (warmup_stable_decay, {"lr": 1, **WSD, "final": INF}, ValueError, "final must be a number"),
    (
        warmup,
        {"schedule": "cosine", "steps": 1},
        TypeError,
        "schedule, unless a function of the step,",
    ),
    (warmup, {"schedule": -1, "steps": 1}, ValueError, "schedule, unless a function of the step,"),
    (warmup, {"schedule": 1, "steps": -1}, ValueError, "steps must be at least 0, got -1"),
    (warmup, {"schedule": 1, "steps": True}, TypeError, "steps must be an integer, got bool"),
    (warmup, {"schedule": 1, "steps": 1, "start_factor": NAN}, ValueError, "start_factor must be"),
    (join, {"schedules": [], "boundaries": []}, ValueError, "got 0 schedules and 0 boundaries"),
    (join, {"schedules": [1, 2], "boundaries": []}, ValueError, "got 2 schedules and 0 boundaries"),
    (join, {"schedules": constant(1), "boundaries": []}, TypeError, "schedules must be a list"),
    (
        join,
        {"schedules": [1, None], "boundaries": [1]},
        TypeError,
        "schedules[1], unless a function",
    ),
    (join, {"schedules": [1, 2, 3], "boundaries": [2, 2]}, ValueError, "boundaries must increase"),
    (
        join,
        {"schedules": [1, 2], "boundaries": [0]},
        ValueError,
        "boundaries[0] must be at least 1",
    ),
    *[
        (ReduceOnPlateau, {"lr": 1, **bad}, error, message)
        for bad, error, message in [
            ({"mode": "less"}, ValueError, "mode must be one of 'min', 'max', got 'less'"),
            ({"factor": 1}, ValueError, "factor must be a number in (0, 1), got 1"),
            ({"factor": 0}, ValueError, "factor must be a number in (0, 1), got 0"),
            ({"patience": -1}, ValueError, "patience must be at least 0"),
            ({"patience": 1.5}, TypeError, "patience must be an integer"),
            ({"threshold": -1e-3}, ValueError, "threshold must be a number in [0, 1)"),
            ({"threshold": 1}, ValueError, "threshold must be a number in [0, 1)"),
            ({"threshold": NAN, "threshold_mode": "abs"}, ValueError, "threshold must be a number"),
            ({"threshold_mode": "mean"}, ValueError, "threshold_mode must be one of 'rel', 'abs'"),
            ({"cooldown": -1}, ValueError, "cooldown must be at least 0"),
            ({"min_lr": 2}, ValueError, "min_lr must be a number in [0, 1], got 2"),
            ({"eps": -1}, ValueError, "eps must be a number in [0, inf)"),
        ]
    ],
]


@pytest.mark.parametrize(
    ("factory", "arguments", "error", "message"),
    [pytest.param(*case, id=f"{case[0].__name__}-{i}") for i, case in enumerate(BAD)],
)
def test_bad_arguments_are_refused(
    factory: Callable[..., Any], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        factory(**arguments)
    assert message in str(caught.value)
