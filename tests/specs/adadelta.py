"""Adadelta and Adamax."""

from __future__ import annotations

import numpy as np

from tests.fma import Array, MultiplyAdd
from tests.specs._spec import (
    CLOSED_FRACTION,
    FLAG,
    NONNEGATIVE,
    PAIR,
    H,
    Hyper,
    Spec,
    State,
    decayed,
    fading_decay,
    falling,
    lerp,
    mean_square,
    number,
    rising_beta,
    shrinking_eps,
)


def adadelta(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    p, g = decayed(p, g, h, h["decoupled_weight_decay"], fma)
    eps = number(p, h["eps"])
    v = mean_square(state["square_avg"], g, h["rho"], p, fma)
    delta = np.sqrt(state["acc_delta"] + eps) / np.sqrt(v + eps) * g
    u = mean_square(state["acc_delta"], delta, h["rho"], p, fma)
    return fma(number(p, -h["lr"]), delta, p), {"square_avg": v, "acc_delta": u}


def adamax(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    beta1, beta2 = h["betas"]
    p, g = decayed(p, g, h, h["decoupled_weight_decay"], fma)
    inside, outside = (0.0, h["eps"]) if h["eps_outside"] else (h["eps"], 0.0)
    m = lerp(state["exp_avg"], g, beta1, p, fma)
    size, before = np.abs(g) + number(p, inside), state["exp_inf"] * number(p, beta2)
    u = np.where(size > before, size, before)
    step = number(p, -(h["lr"] / (1.0 - beta1**t)))
    return fma(step, m / (u + number(p, outside)), p), {"exp_avg": m, "exp_inf": u}


LR = {"lr": 0.02}

SPECS = {
    "Adadelta": Spec(
        hyper={
            "lr": H(1.0, NONNEGATIVE),
            "rho": H(0.9, CLOSED_FRACTION),
            "eps": H(1e-6, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
            "decoupled_weight_decay": H(False, FLAG, ours=True),
        },
        rule=adadelta,
        state=lambda h: ("square_avg", "acc_delta"),
        cases={
            "defaults": {},
            "lr": {"lr": 0.1},
            "rho": {"rho": 0.5},
            "rho-one": {"rho": 1.0},
            "eps": {"eps": 0.01},
            "weight_decay": {"weight_decay": 0.3},
            "decoupled": {"weight_decay": 0.3, "decoupled_weight_decay": True},
            "all": {"lr": 0.5, "rho": 0.6, "eps": 1e-3, "weight_decay": 0.3, "maximize": True},
            "schedules": {"lr": falling, "rho": rising_beta, "eps": shrinking_eps},
            "clip_both": {"clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"rho": 0.5, "maximize": True},
            {"weight_decay": 0.2, "decoupled_weight_decay": True, "lr": falling},
            {"eps": 0.1},
        ],
        torch="Adadelta",
        golden={"Adadelta": {}},
    ),
    "Adamax": Spec(
        hyper={
            "lr": H(2e-3, NONNEGATIVE),
            "betas": H((0.9, 0.999), PAIR),
            "eps": H(1e-8, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
            "decoupled_weight_decay": H(False, FLAG, ours=True),
            "eps_outside": H(False, FLAG, ours=True),
        },
        rule=adamax,
        state=lambda h: ("exp_avg", "exp_inf"),
        cases={
            "defaults": {},
            "betas": {**LR, "betas": (0.6, 0.8)},
            "eps": {**LR, "eps": 0.1},
            "eps_outside": {**LR, "eps": 0.1, "eps_outside": True},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "decoupled": {**LR, "weight_decay": 0.3, "decoupled_weight_decay": True},
            "all": {**LR, "weight_decay": 0.3, "maximize": True, "betas": (0.3, 0.5)},
            "schedules": {"lr": falling, "betas": (0.9, rising_beta), "weight_decay": fading_decay},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"betas": (0.5, 0.7), "maximize": True},
            {"weight_decay": 0.2, "decoupled_weight_decay": True, "lr": falling},
            {"eps": 0.1, "eps_outside": True},
        ],
        torch="Adamax",
        keeps_squares=False,
        golden={"Adamax": {}},
        golden_cases={"keras form, eps=1e-7": {"lr": 0.1, "eps": 1e-7, "eps_outside": True}},
    ),
}
