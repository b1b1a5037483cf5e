"""LAMB and LARS."""

from __future__ import annotations

import math

import numpy as np

from tests.fma import Array, MultiplyAdd
from tests.specs._spec import (
    FLAG,
    NONNEGATIVE,
    PAIR,
    ErrorCase,
    H,
    Hyper,
    Spec,
    State,
    always,
    fading_decay,
    falling,
    l2,
    lerp,
    mean_square,
    number,
    rising_beta,
    total,
    wavy,
)


def norm(x: Array) -> float:
    return math.sqrt(total(x, x))


def lamb(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    beta1, beta2 = h["betas"]
    m = lerp(state["exp_avg"], g, beta1, p, fma)
    if not h["grad_averaging"]:
        m = fma(number(p, beta1), state["exp_avg"], g)
    v = mean_square(state["exp_avg_sq"], g, beta2, p, fma)
    corrections = 1.0 / (1.0 - beta1**t), 1.0 / math.sqrt(1.0 - beta2**t)
    if not h["bias_correction"]:
        corrections = 1.0, 1.0
    second = fma(np.sqrt(v), number(p, corrections[1]), number(p, h["eps"]))
    u = fma(number(p, h["weight_decay"]), p, m * number(p, corrections[0]) / second)
    ratio = 1.0
    if (h["always_adapt"] or h["weight_decay"]) and norm(p) and norm(u):
        ratio = norm(p) / norm(u)
    step = h["lr"] * (min(ratio, 1.0) if h["trust_clip"] else ratio)
    return fma(number(p, -step), u, p), {"exp_avg": m, "exp_avg_sq": v}


def lars(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    decay = h["weight_decay"] if h["decay_in_norm"] else 0.0
    if not h["decay_in_norm"]:
        g = l2(p, g, h, fma)
    ratio = 1.0
    if (h["always_adapt"] or h["weight_decay"]) and norm(p) and norm(g):
        ratio = h["trust_coefficient"] * norm(p) / (norm(g) + decay * norm(p) + h["eps"])
    if h["trust_clip"]:
        ratio = min(ratio / h["lr"], 1.0)
    inside, outside = (h["lr"], 1.0) if h["lr_in_momentum"] else (1.0, h["lr"])
    scaled = fma(number(p, decay), p, g) * number(p, ratio * inside)
    momentum = number(p, h["momentum"])
    buffer = fma(momentum, state["momentum_buffer"], scaled)
    direction = fma(momentum, buffer, scaled) if h["nesterov"] else buffer
    return fma(number(p, -outside), direction, p), {"momentum_buffer": buffer}


LR = {"lr": 0.02}
TIMM = {"lr_in_momentum": False, "decay_in_norm": True, "always_adapt": False, "eps": 1e-8}

SPECS = {
    "LAMB": Spec(
        hyper={
            "lr": H(1e-3, NONNEGATIVE),
            "betas": H((0.9, 0.999), PAIR),
            "eps": H(1e-6, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
            "bias_correction": H(True, FLAG, ours=True),
            "grad_averaging": H(True, FLAG, ours=True),
            "trust_clip": H(False, FLAG, ours=True),
            "always_adapt": H(True, FLAG, ours=True),
        },
        rule=lamb,
        state=lambda h: ("exp_avg", "exp_avg_sq"),
        cases={
            "defaults": {},
            "betas": {**LR, "betas": (0.6, 0.8)},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "bias_correction": {**LR, "bias_correction": False},
            "grad_averaging": {**LR, "grad_averaging": False},
            "trust_clip": {**LR, "trust_clip": True},
            "always_adapt": {**LR, "always_adapt": False},
            "all": {
                "lr": wavy,
                "eps": 0.1,
                "weight_decay": 0.3,
                "always_adapt": False,
                "maximize": True,
            },
            "schedules": {"lr": falling, "betas": (0.9, rising_beta), "weight_decay": fading_decay},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"betas": (0.5, 0.7), "maximize": True},
            {"weight_decay": 0.2, "always_adapt": False, "lr": falling},
            {"trust_clip": True, "eps": 0.1},
        ],
        whole=always,
        ulps=16,
        golden={"LAMB": {}},
        golden_cases={
            "max_grad_norm=0.3, weight_decay=0.01 (apex, timm defaults but norm)": {
                "lr": 0.1,
                "clip_norm": 0.3,
                "weight_decay": 0.01,
                "always_adapt": False,
            },
            "coefficients in [0.01,10], eps=1e-8": "DeepSpeed's, whose correction is in lr",
        },
    ),
    "LARS": Spec(
        hyper={
            "lr": H(1.0, NONNEGATIVE),
            "momentum": H(0.9, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
            "nesterov": H(False, FLAG),
            "trust_coefficient": H(0.001, NONNEGATIVE),
            "eps": H(0, NONNEGATIVE),
            "lr_in_momentum": H(True, FLAG, ours=True),
            "trust_clip": H(False, FLAG, ours=True),
            "decay_in_norm": H(False, FLAG, ours=True),
            "always_adapt": H(True, FLAG, ours=True),
        },
        rule=lars,
        state=lambda h: ("momentum_buffer",),
        cases={
            "defaults": {},
            "momentum": {"momentum": 0.5},
            "momentum-zero": {"momentum": 0.0},
            "weight_decay": {"weight_decay": 0.3},
            "nesterov": {"nesterov": True},
            "trust_coefficient": {"trust_coefficient": 0.02, "eps": 0.1},
            "lr_in_momentum": {"lr": falling, "lr_in_momentum": False},
            "trust_clip": {"lr": 0.001, "lr_in_momentum": False, "trust_clip": True},
            "decay_in_norm": {"decay_in_norm": True, "weight_decay": 0.3},
            "all": {"weight_decay": 0.3, **TIMM, "maximize": True},
            "schedules": {"lr": falling, "momentum": rising_beta, "weight_decay": fading_decay},
            "clip_both": {"clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"momentum": 0.5, "maximize": True},
            {"weight_decay": 0.2, "always_adapt": False, "lr": falling},
            {"nesterov": True, "lr_in_momentum": False},
        ],
        errors=[
            ErrorCase(
                "trust_clip-alone",
                {"trust_clip": True},
                ValueError,
                (r"\btrust_clip\b", r"\blr_in_momentum\b"),
            )
        ],
        keeps_squares=False,
        whole=always,
        ulps=16,
        golden={"LARS": {}, "LARS (timm)": TIMM},
    ),
}
