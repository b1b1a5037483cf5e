"""Adam and AdamW."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.fma import Array, MultiplyAdd
from tests.specs._spec import (
    FLAG,
    NONNEGATIVE,
    PAIR,
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
    total,
)


def adam(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    return moments(p, l2(p, g, h, fma), state, h, t, fma)


def adamw(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    if h["cautious"]:
        return cautious(p, g, state, h, t, fma)
    decayed = p * number(p, 1.0 - h["lr"] * h["weight_decay"])
    return moments(decayed, g, state, h, t, fma)


def cautious(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    """AdamW that moves the elements whose direction agrees with their gradient."""
    beta1, beta2 = h["betas"]
    root = math.sqrt(1.0 - beta2**t)
    eps = h["eps"] / root if h["eps_hat"] else h["eps"]
    new = averages(p, g, state, h, fma)
    m = new["exp_avg"]
    share = max(total(m * g > 0) / p.size, 1e-3) if p.size else 1.0
    square = new.get("max_exp_avg_sq", new["exp_avg_sq"])
    direction = m / fma(np.sqrt(square), number(p, 1.0 / root), number(p, eps))
    kept = np.where(m * g <= 0, number(p, 0), direction)
    step = h["lr"] / (1.0 - beta1**t) / share
    decayed = p * number(p, 1.0 - h["lr"] * h["weight_decay"])
    return fma(number(p, -step), kept, decayed), new


def averages(p: Array, g: Array, state: State, h: Hyper, fma: MultiplyAdd) -> dict[str, Array]:
    beta1, beta2 = h["betas"]
    v = mean_square(state["exp_avg_sq"], g, beta2, p, fma)
    new = {"exp_avg": lerp(state["exp_avg"], g, beta1, p, fma), "exp_avg_sq": v}
    if h["amsgrad"]:
        new["max_exp_avg_sq"] = np.maximum(state["max_exp_avg_sq"], v)
    return new


def moments(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    beta1, beta2 = h["betas"]
    root = math.sqrt(1.0 - beta2**t)
    eps = h["eps"] / root if h["eps_hat"] else h["eps"]
    new = averages(p, g, state, h, fma)
    square = new.get("max_exp_avg_sq", new["exp_avg_sq"])
    denominator = fma(np.sqrt(square), number(p, 1.0 / root), number(p, eps))
    return fma(number(p, -(h["lr"] / (1.0 - beta1**t))), new["exp_avg"] / denominator, p), new


LR = {"lr": 0.02}
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "lr": LR,
    "betas": {**LR, "betas": (0.6, 0.8)},
    "betas-zero": {**LR, "betas": (0.0, 0.0)},
    "eps": {**LR, "eps": 0.1},
    "weight_decay": {**LR, "weight_decay": 0.3},
    "weight_decay-zero": {**LR, "weight_decay": 0.0},
    "amsgrad": {**LR, "amsgrad": True, "betas": (0.9, 0.7)},
    "eps_hat": {**LR, "eps": 1e-3, "eps_hat": True},
    "eps_hat-amsgrad": {
        **LR,
        "eps": 1e-3,
        "eps_hat": True,
        "amsgrad": True,
        "weight_decay": 0.3,
    },
    "maximize": {**LR, "maximize": True, "weight_decay": 0.3},
    "schedules": {"lr": falling, "eps": shrinking_eps, "weight_decay": fading_decay},
    "schedule-beta1": {**LR, "betas": (rising_beta, 0.99)},
    "schedule-betas": {**LR, "betas": (0.9, rising_beta), "amsgrad": True},
    "clip_norm": {**LR, "clip_norm": 0.5},
    "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2, "maximize": True},
}


def hyper(weight_decay: float) -> dict[str, H]:
    return {
        "lr": H(1e-3, NONNEGATIVE),
        "betas": H((0.9, 0.999), PAIR),
        "eps": H(1e-8, NONNEGATIVE),
        "weight_decay": H(weight_decay, NONNEGATIVE),
        "amsgrad": H(False, FLAG),
        "eps_hat": H(False, FLAG, ours=True),
    }


def state(h: Hyper) -> tuple[str, ...]:
    return ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if h["amsgrad"] else ()))


SPECS = {
    "Adam": Spec(
        hyper=hyper(0),
        rule=adam,
        state=state,
        cases=CASES,
        overrides=[
            {},
            {"lr": falling, "amsgrad": True},
            {"betas": (0.5, 0.7), "maximize": True},
            {"eps": 0.1, "eps_hat": True, "weight_decay": 0.2},
        ],
        torch="Adam",
    ),
    "AdamW": Spec(
        hyper={**hyper(1e-2), "cautious": H(False, FLAG, ours=True)},
        rule=adamw,
        state=state,
        whole=lambda h: bool(h["cautious"]),
        cases={
            **CASES,
            "cautious": {**LR, "cautious": True},
            "cautious-amsgrad": {**LR, "cautious": True, "amsgrad": True, "betas": (0.9, 0.7)},
            "cautious-all": {
                "cautious": True,
                "lr": falling,
                "eps": 1e-3,
                "eps_hat": True,
                "weight_decay": 0.3,
                "maximize": True,
            },
        },
        golden={"C-AdamW": {"cautious": True, "eps": 1e-6, "eps_hat": True, "weight_decay": 0}},
        golden_cases={"no bias correction": "an option of the authors' code only"},
        overrides=[
            {},
            {"weight_decay": 0.0, "amsgrad": True},
            {"lr": 0.5, "maximize": True},
            {"eps": 0.1, "eps_hat": True, "betas": (0.0, 0.5)},
        ],
        torch="AdamW",
    ),
}
