"""ScheduleFreeSGD and ScheduleFreeAdamW."""

from __future__ import annotations

import math

import numpy as np

from tests.fma import Array, MultiplyAdd
from tests.specs._spec import (
    FRACTION,
    NONNEGATIVE,
    PAIR,
    REAL,
    ErrorCase,
    H,
    Hyper,
    Spec,
    State,
    at_zero,
    fading_decay,
    falling,
    l2,
    lerp,
    mean_square,
    number,
    rising_beta,
)


def moved(
    p: Array, d: Array, state: State, h: Hyper, b: float, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    warmup = h["warmup_steps"]
    lr = h["lr"] * (min(1.0, t / warmup) if warmup > 0 else 1.0)
    lr_max = max(state["lr_max"], lr)
    weight = float(t) ** h["r"] * lr_max ** h["weight_lr_power"]
    weight_sum = state["weight_sum"] + weight
    stale = 1.0 - (weight / weight_sum if weight_sum > 0 else 0.0)
    outflow = lr * (b * stale - 1.0) if weight_sum > 0 else lr * (b - 1.0)
    y = fma(number(p, outflow), d, lerp(p, state["z"], stale, p, fma))
    z = fma(number(p, -lr), d, state["z"])
    return y, {"z": z, "weight_sum": weight_sum, "lr_max": lr_max, "evaluating": 0.0}


def sgd(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    return moved(p, l2(p, g, h, fma), state, h, h["momentum"], t, fma)


def adamw(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    beta1, beta2 = h["betas"]
    v = mean_square(state["exp_avg_sq"], g, beta2, p, fma)
    root = 1.0 / math.sqrt(1.0 - beta2**t)
    second = fma(np.sqrt(v), number(p, root), number(p, h["eps"]))
    d = fma(number(p, h["weight_decay"]), p, g / second)
    y, new = moved(p, d, state, h, beta1, t, fma)
    return y, {**new, "exp_avg_sq": v}


def first(p: Array, h: Hyper) -> State:
    return {"z": p.copy(), "weight_sum": 0.0, "lr_max": 0.0, "evaluating": 0.0}


def not_zero(h: Hyper) -> dict[str, object]:
    """Values whose weight of the average is not 0."""
    h = dict(h)
    if "momentum" in h and at_zero(h["momentum"]) == 0:
        h["momentum"] = 0.9
    if "betas" in h and h["betas"][0] == 0:
        h["betas"] = (0.9, h["betas"][1])
    return h


LR = {"lr": 0.05}
AVERAGING = {
    "warmup_steps": H(0, NONNEGATIVE),
    "r": H(0.0, REAL),
    "weight_lr_power": H(2.0, REAL),
}

SPECS = {
    "ScheduleFreeSGD": Spec(
        hyper={
            "lr": H(1.0, NONNEGATIVE),
            "momentum": H(0.9, FRACTION),
            "weight_decay": H(0, NONNEGATIVE),
            **AVERAGING,
        },
        rule=sgd,
        state=lambda h: ("z",),
        first=first,
        cases={
            "defaults": {},
            "momentum": {**LR, "momentum": 0.5},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "warmup_steps": {**LR, "warmup_steps": 5},
            "r": {**LR, "r": 1.0, "weight_lr_power": 0.0},
            "all": {**LR, "weight_decay": 0.3, "maximize": True, "r": 0.5, "warmup_steps": 3},
            "schedules": {"lr": falling, "momentum": rising_beta, "weight_decay": fading_decay},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"momentum": 0.5, "maximize": True},
            {"weight_decay": 0.2, "lr": falling},
            {"warmup_steps": 3, "r": 1.0},
        ],
        valid=not_zero,
        errors=[ErrorCase("momentum-0", {"momentum": 0}, ValueError, ("momentum", "greater"))],
        keeps_squares=False,
        golden={"ScheduleFree SGD": {}},
    ),
    "ScheduleFreeAdamW": Spec(
        hyper={
            "lr": H(0.0025, NONNEGATIVE),
            "betas": H((0.9, 0.999), PAIR),
            "eps": H(1e-8, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
            **AVERAGING,
        },
        rule=adamw,
        state=lambda h: ("z", "exp_avg_sq"),
        first=first,
        cases={
            "defaults": {},
            "betas": {**LR, "betas": (0.6, 0.8)},
            "eps": {**LR, "eps": 0.1},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "warmup_steps": {**LR, "warmup_steps": 5},
            "r": {**LR, "r": 1.0, "weight_lr_power": 0.0},
            "all": {**LR, "weight_decay": 0.3, "maximize": True, "r": 0.5, "warmup_steps": 3},
            "schedules": {"lr": falling, "betas": (0.9, rising_beta), "weight_decay": fading_decay},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"betas": (0.5, 0.7), "maximize": True},
            {"weight_decay": 0.2, "lr": falling},
            {"warmup_steps": 3, "eps": 0.1},
        ],
        valid=not_zero,
        errors=[ErrorCase("beta1-0", {"betas": (0, 0.9)}, ValueError, ("betas", "greater"))],
        golden={"ScheduleFree AdamW": {}},
    ),
}
