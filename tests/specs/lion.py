"""Lion, Signum and SignSGD."""

from __future__ import annotations

import numpy as np

from tests.fma import Array, MultiplyAdd
from tests.specs._spec import (
    FLAG,
    FRACTION,
    NONNEGATIVE,
    PAIR,
    H,
    Hyper,
    Spec,
    State,
    fading_decay,
    falling,
    lerp,
    no_state,
    number,
    rising_beta,
    total,
    wavy,
)


def sign(x: Array) -> Array:
    """-1, 0 or 1; a NaN stays, and so does the sign of a zero."""
    return np.where(x == 0, x, np.sign(x)).astype(x.dtype)


def moved(p: Array, direction: Array, lr: float, h: Hyper, fma: MultiplyAdd) -> Array:
    decayed = p * number(p, 1.0 - h["lr"] * h["weight_decay"])
    return fma(number(p, -lr), direction, decayed)


def lion(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    beta1, beta2 = h["betas"]
    direction = sign(lerp(state["exp_avg"], g, beta1, p, fma))
    new = {"exp_avg": lerp(state["exp_avg"], g, beta2, p, fma)}
    if not h["cautious"]:
        return moved(p, direction, h["lr"], h, fma), new
    agrees = direction * g > 0
    share = max(total(agrees) / p.size, 1e-3) if p.size else 1.0
    kept = np.where(direction * g <= 0, number(p, 0), direction)
    return moved(p, kept, h["lr"] / share, h, fma), new


def signum(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    average = lerp(state["exp_avg"], g, h["beta"], p, fma)
    return moved(p, sign(average), h["lr"], h, fma), {"exp_avg": average}


def sign_sgd(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    return moved(p, sign(g), h["lr"], h, fma), {}


LR = {"lr": 0.02}

SPECS = {
    "Lion": Spec(
        hyper={
            "lr": H(1e-4, NONNEGATIVE),
            "betas": H((0.9, 0.99), PAIR),
            "weight_decay": H(0, NONNEGATIVE),
            "cautious": H(False, FLAG, ours=True),
        },
        rule=lion,
        state=lambda h: ("exp_avg",),
        cases={
            "defaults": {},
            "betas": {**LR, "betas": (0.6, 0.3)},
            "betas-zero": {**LR, "betas": (0.0, 0.0)},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "maximize": {**LR, "maximize": True, "weight_decay": 0.3},
            "cautious": {**LR, "cautious": True},
            "all": {"lr": wavy, "cautious": True, "weight_decay": 0.3, "betas": (0.5, 0.9)},
            "schedules": {"lr": falling, "weight_decay": fading_decay, "betas": (0.9, rising_beta)},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"betas": (0.5, 0.7), "maximize": True},
            {"cautious": True, "lr": falling},
            {"weight_decay": 0.2},
        ],
        keeps_squares=False,
        whole=lambda h: bool(h["cautious"]),
        golden={"Lion": {}, "C-Lion": {"cautious": True, "betas": (0.95, 0.98)}},
        golden_cases={"author form n/(k+1)": "timm's form, which keeps the mean step"},
    ),
    "Signum": Spec(
        hyper={
            "lr": H(1e-3, NONNEGATIVE),
            "beta": H(0.9, FRACTION),
            "weight_decay": H(0, NONNEGATIVE),
        },
        rule=signum,
        state=lambda h: ("exp_avg",),
        cases={
            "defaults": {},
            "beta": {**LR, "beta": 0.5},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "all": {**LR, "maximize": True, "weight_decay": 0.3, "beta": 0.0},
            "schedules": {"lr": falling, "weight_decay": fading_decay, "beta": rising_beta},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"beta": 0.5, "maximize": True},
            {"lr": falling},
            {"weight_decay": 0.2},
        ],
        keeps_squares=False,
        golden={"Signum": {}},
    ),
    "SignSGD": Spec(
        hyper={"lr": H(1e-3, NONNEGATIVE), "weight_decay": H(0, NONNEGATIVE)},
        rule=sign_sgd,
        state=no_state,
        cases={
            "defaults": {},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "all": {**LR, "maximize": True, "weight_decay": 0.3},
            "schedules": {"lr": falling, "weight_decay": fading_decay},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[{}, {"lr": 0.1, "maximize": True}, {"lr": falling}, {"weight_decay": 0.2}],
        keeps_squares=False,
        golden={"signSGD": {}},
    ),
}
