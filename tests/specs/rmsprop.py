"""RMSprop."""

from __future__ import annotations

import numpy as np

from tests.fma import Array, MultiplyAdd
from tests.specs._spec import (
    FLAG,
    FRACTION,
    NONNEGATIVE,
    H,
    Hyper,
    Spec,
    State,
    fading_decay,
    falling,
    l2,
    lerp,
    mean_square,
    number,
    rising_beta,
    shrinking_eps,
    wavy,
)
from tests.specs.adagrad import rooted


def rmsprop(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    g = l2(p, g, h, fma)
    alpha = h["alpha"]
    v = mean_square(state["square_avg"], g, alpha, p, fma)
    new = {"square_avg": v}
    if h["centered"]:
        a = lerp(state["grad_avg"], g, alpha, p, fma)
        new["grad_avg"] = a
        v = np.maximum(fma(-a, a, v), number(p, 0.0))
    direction = g / rooted(p, v, h)
    if "momentum_buffer" not in state:
        return fma(number(p, -h["lr"]), direction, p), new
    inside, outside = (h["lr"], 1.0) if h["lr_in_momentum"] else (1.0, h["lr"])
    buffer = fma(number(p, h["momentum"]), state["momentum_buffer"], number(p, inside) * direction)
    new["momentum_buffer"] = buffer
    return fma(number(p, -outside), buffer, p), new


def state(h: Hyper) -> tuple[str, ...]:
    momentum = ("momentum_buffer",) if h["momentum"] else ()
    return ("square_avg", *momentum, *(("grad_avg",) if h["centered"] else ()))


LR = {"lr": 0.02}

SPECS = {
    "RMSprop": Spec(
        hyper={
            "lr": H(1e-2, NONNEGATIVE),
            "alpha": H(0.99, FRACTION),
            "eps": H(1e-8, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
            "momentum": H(0, NONNEGATIVE),
            "centered": H(False, FLAG),
            "eps_inside": H(False, FLAG, ours=True),
            "lr_in_momentum": H(False, FLAG, ours=True),
        },
        rule=rmsprop,
        state=state,
        cases={
            "defaults": {},
            "lr": LR,
            "alpha": {**LR, "alpha": 0.6},
            "alpha-zero": {**LR, "alpha": 0.0},
            "eps": {**LR, "eps": 0.1},
            "eps_inside": {**LR, "eps": 1e-3, "eps_inside": True},
            "weight_decay": {**LR, "weight_decay": 0.1},
            "maximize": {**LR, "maximize": True, "weight_decay": 0.1},
            "momentum": {**LR, "momentum": 0.9},
            "momentum-lr_in_momentum": {"momentum": 0.9, "lr": falling, "lr_in_momentum": True},
            "lr_in_momentum-unused": {"lr": falling, "lr_in_momentum": True},
            "centered": {**LR, "centered": True, "alpha": 0.9},
            "centered-eps_inside": {
                **LR,
                "centered": True,
                "alpha": 0.9,
                "eps": 1e-3,
                "eps_inside": True,
            },
            "centered-momentum": {
                **LR,
                "centered": True,
                "alpha": 0.9,
                "momentum": 0.8,
                "weight_decay": 0.1,
            },
            "all": {
                "centered": True,
                "momentum": 0.8,
                "eps": 1e-3,
                "eps_inside": True,
                "lr_in_momentum": True,
                "lr": wavy,
                "maximize": True,
            },
            "schedules": {
                "lr": wavy,
                "alpha": rising_beta,
                "eps": shrinking_eps,
                "weight_decay": fading_decay,
            },
            "schedules-momentum": {"lr": falling, "momentum": rising_beta},
            "clip_norm": {**LR, "clip_norm": 0.5, "momentum": 0.9},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2, "centered": True},
        },
        overrides=[
            {},
            {"centered": True, "momentum": 0.9},
            {"alpha": 0.5, "eps": 0.1, "eps_inside": True, "maximize": True},
            {"momentum": 0.5, "lr_in_momentum": True, "lr": falling},
        ],
        torch="RMSprop",
    ),
}
