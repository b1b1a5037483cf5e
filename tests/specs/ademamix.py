"""AdEMAMix and Adan."""

from __future__ import annotations

import math

import numpy as np

from tests.fma import Array, MultiplyAdd
from tests.specs._spec import (
    FLAG,
    NONNEGATIVE,
    OTHER,
    TRIPLE,
    ErrorCase,
    H,
    Hyper,
    Spec,
    State,
    fading_decay,
    falling,
    lerp,
    mean_square,
    number,
    rising_beta,
    wavy,
)


def half_life(beta: float) -> float:
    return math.log(0.5) / math.log(beta + 1e-8) - 1.0


def ademamix(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    beta1, beta2, beta3 = h["betas"]
    alpha = h["alpha"]
    if h["alpha_warmup"] is not None and t < h["alpha_warmup"]:
        alpha = alpha * (t / h["alpha_warmup"])
    if h["beta3_warmup"] is not None and t < h["beta3_warmup"]:
        share = t / h["beta3_warmup"]
        beta3 = 0.5 ** (1.0 / (1.0 + (1.0 - share) * half_life(beta1) + share * half_life(beta3)))
    fast = lerp(state["exp_avg_fast"], g, beta1, p, fma)
    slow = lerp(state["exp_avg_slow"], g, beta3, p, fma)
    v = mean_square(state["exp_avg_sq"], g, beta2, p, fma)
    root = 1.0 / math.sqrt(1.0 - beta2**t)
    second = fma(np.sqrt(v), number(p, root), number(p, h["eps"]))
    direction = fma(number(p, alpha), slow, fast * number(p, 1.0 / (1.0 - beta1**t))) / second
    decayed = p * number(p, 1.0 - h["lr"] * h["weight_decay"])
    new = {"exp_avg_fast": fast, "exp_avg_slow": slow, "exp_avg_sq": v}
    return fma(number(p, -h["lr"]), direction, decayed), new


def adan(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    beta1, beta2, beta3 = h["betas"]
    difference = np.zeros_like(g) if t == 1 else g + state["neg_pre_grad"]
    m = lerp(state["exp_avg"], g, beta1, p, fma)
    d = lerp(state["exp_avg_diff"], difference, beta2, p, fma)
    n = mean_square(state["exp_avg_sq"], fma(number(p, beta2), difference, g), beta3, p, fma)
    root = 1.0 / math.sqrt(1.0 - beta3**t)
    second = fma(np.sqrt(n), number(p, root), number(p, h["eps"]))
    first = m * number(p, 1.0 / (1.0 - beta1**t))
    direction = fma(number(p, beta2 / (1.0 - beta2**t)), d, first) / second
    decay = h["lr"] * h["weight_decay"]
    keep, shrink = (1.0 - decay, 1.0) if h["no_prox"] else (1.0, 1.0 / (1.0 + decay))
    new = {"exp_avg": m, "exp_avg_diff": d, "exp_avg_sq": n, "neg_pre_grad": -g}
    return fma(number(p, -h["lr"]), direction, p * number(p, keep)) * number(p, shrink), new


LR = {"lr": 0.02}

SPECS = {
    "AdEMAMix": Spec(
        hyper={
            "lr": H(1e-3, NONNEGATIVE),
            "betas": H((0.9, 0.999, 0.9999), TRIPLE),
            "alpha": H(2.0, NONNEGATIVE),
            "beta3_warmup": H(None, OTHER),
            "alpha_warmup": H(None, OTHER),
            "eps": H(1e-8, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
        },
        rule=ademamix,
        state=lambda h: ("exp_avg_fast", "exp_avg_slow", "exp_avg_sq"),
        cases={
            "defaults": {},
            "betas": {**LR, "betas": (0.6, 0.8, 0.95)},
            "beta1-zero": {**LR, "betas": (0.0, 0.8, 0.95)},
            "alpha": {**LR, "alpha": 5.0},
            "warm-ups": {**LR, "beta3_warmup": 15, "alpha_warmup": 10},
            "all": {**LR, "eps": 0.1, "weight_decay": 0.3, "maximize": True},
            "schedules": {"lr": falling, "betas": (0.9, 0.99, rising_beta), "alpha": wavy},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"betas": (0.5, 0.7, 0.9), "maximize": True},
            {"weight_decay": 0.2, "alpha_warmup": 4, "lr": falling},
            {"eps": 0.1, "beta3_warmup": 6},
        ],
        errors=[
            ErrorCase("warmup", {"alpha_warmup": -1}, ValueError, ("alpha_warmup", "-1")),
            ErrorCase("warmup-text", {"beta3_warmup": "9"}, TypeError, ("beta3_warmup",)),
        ],
        golden={"AdEMAMix": {}},
        golden_cases={
            "alpha=5, beta3_warmup=5 without the 1e-8 in the logarithm": "optax' form of it",
        },
    ),
    "Adan": Spec(
        hyper={
            "lr": H(1e-3, NONNEGATIVE),
            "betas": H((0.98, 0.92, 0.99), TRIPLE),
            "eps": H(1e-8, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
            "no_prox": H(False, FLAG),
        },
        rule=adan,
        state=lambda h: ("exp_avg", "exp_avg_diff", "exp_avg_sq", "neg_pre_grad"),
        cases={
            "defaults": {},
            "betas": {**LR, "betas": (0.6, 0.8, 0.95)},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "no_prox": {**LR, "weight_decay": 0.3, "no_prox": True},
            "all": {**LR, "eps": 0.1, "weight_decay": 0.3, "maximize": True},
            "schedules": {
                "lr": falling,
                "betas": (0.9, 0.99, rising_beta),
                "weight_decay": fading_decay,
            },
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"betas": (0.5, 0.7, 0.9), "maximize": True},
            {"weight_decay": 0.2, "no_prox": True, "lr": falling},
            {"eps": 0.1, "weight_decay": 0.1},
        ],
        golden={"Adan": {}},
        golden_cases={"optax 0.2.8 (1-b2, eps_root=1e-8)": "a fault of optax 0.2.8"},
    ),
}
