"""Schedules: hyperparameters that follow the step count.

Each function here returns a `Schedule`, a pure function `step -> float` with step 0 the first one.
Any numeric hyperparameter of any parameter group takes one in place of a number:

    lr = fastgd.schedules.cosine(3e-4, total_steps=10_000, warmup_steps=500)
    opt = fastgd.AdamW(params, lr=lr)

There is nothing to call and nothing to forget, and resuming needs the step count only. `warmup`
and `join` compose schedules; any other function `step -> float` may be used as one.
`ReduceOnPlateau` is the only one with a state.

The first argument is called lr after its most frequent use; the value may be any hyperparameter's.
"""

from fastgd.schedules._cycles import cyclic, one_cycle, one_cycle_momentum
from fastgd.schedules._elementary import (
    constant,
    exponential,
    inverse_sqrt,
    inverse_time,
    linear,
    multi_step,
    piecewise_constant,
    polynomial,
    step,
)
from fastgd.schedules._phases import cosine, cosine_restarts, join, warmup, warmup_stable_decay
from fastgd.schedules._plateau import ReduceOnPlateau
from fastgd.schedules._schedule import Schedule
from fastgd.schedules._schedule import end_of as end_of
from fastgd.schedules._schedule import functions_in as functions_in

__all__ = [
    "ReduceOnPlateau",
    "Schedule",
    "constant",
    "cosine",
    "cosine_restarts",
    "cyclic",
    "exponential",
    "inverse_sqrt",
    "inverse_time",
    "join",
    "linear",
    "multi_step",
    "one_cycle",
    "one_cycle_momentum",
    "piecewise_constant",
    "polynomial",
    "step",
    "warmup",
    "warmup_stable_decay",
]


def __dir__() -> list[str]:
    return __all__
