"""AdaBelief, Yogi and ADOPT."""

from __future__ import annotations

import math

import numpy as np

from tests.fma import Array, MultiplyAdd
from tests.specs._spec import (
    FLAG,
    NONNEGATIVE,
    OTHER,
    PAIR,
    ErrorCase,
    H,
    Hyper,
    Spec,
    State,
    decayed,
    fading_decay,
    falling,
    l2,
    lerp,
    mean_square,
    number,
    rising_beta,
    shrinking_eps,
)
from tests.specs.lion import sign
from tests.specs.nadam import rectification


def adabelief(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    beta1, beta2 = h["betas"]
    root = math.sqrt(1.0 - beta2**t)
    m = lerp(state["exp_avg"], g, beta1, p, fma)
    s = mean_square(state["exp_avg_var"], g - m, beta2, p, fma) + number(p, h["eps_root"])
    new = {"exp_avg": m, "exp_avg_var": s}
    if h["amsgrad"]:
        s = new["max_exp_avg_var"] = np.maximum(state["max_exp_avg_var"], s)
    factor, divides = 1.0, True
    if h["rectify"]:
        divides = rectification(beta2, t) > 0
        factor = rectification(beta2, t) or 1.0
    lr = factor * h["lr"]
    parts = lr / (1.0 - beta1**t), 0.0
    if h["nesterov"]:
        parts = lr * beta1 / (1.0 - beta1 ** (t + 1.0)), lr * (1.0 - beta1) / (1.0 - beta1**t)
    direction = fma(number(p, parts[0]), m, number(p, parts[1]) * g)
    if divides:
        eps = h["eps"] / root if h["rectify"] else h["eps"]
        direction = direction / fma(np.sqrt(s), number(p, 1.0 / root), number(p, eps))
    return fma(p, number(p, 1.0 - h["lr"] * h["weight_decay"]), -direction), new


def yogi(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    beta1, beta2 = h["betas"]
    g = l2(p, g, h, fma)
    root = math.sqrt(1.0 - beta2**t)
    eps = h["eps"] / root if h["eps_hat"] else h["eps"]
    m, v = lerp(state["exp_avg"], g, beta1, p, fma), state["exp_avg_sq"]
    v = fma(-number(p, 1.0 - beta2) * sign(v - g * g), g * g, v)
    second = fma(np.sqrt(v), number(p, 1.0 / root), number(p, eps))
    step = number(p, -(h["lr"] / (1.0 - beta1**t)))
    return fma(step, m / second, p), {"exp_avg": m, "exp_avg_sq": v}


def adopt(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    if t == 1:
        _, g = decayed(p, g, h, h["decouple"], fma)
        return p, {"exp_avg": state["exp_avg"], "exp_avg_sq": g * g}
    p, g = decayed(p, g, h, h["decouple"], fma)
    n = g / np.maximum(np.sqrt(state["exp_avg_sq"]), number(p, h["eps"]))
    if h["clip_exponent"] is not None:
        limit = number(p, (t - 1.0) ** h["clip_exponent"])
        n = np.clip(n, -limit, limit)
    m = lerp(state["exp_avg"], n, h["betas"][0], p, fma)
    v = mean_square(state["exp_avg_sq"], g, h["betas"][1], p, fma)
    return fma(number(p, -h["lr"]), m, p), {"exp_avg": m, "exp_avg_sq": v}


LR = {"lr": 0.02}

SPECS = {
    "AdaBelief": Spec(
        hyper={
            "lr": H(1e-3, NONNEGATIVE),
            "betas": H((0.9, 0.999), PAIR),
            "eps": H(1e-16, NONNEGATIVE),
            "eps_root": H(1e-16, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
            "amsgrad": H(False, FLAG, ours=True),
            "rectify": H(False, FLAG, ours=True),
            "nesterov": H(False, FLAG, ours=True),
        },
        rule=adabelief,
        state=lambda h: (
            "exp_avg",
            "exp_avg_var",
            *(("max_exp_avg_var",) if h["amsgrad"] else ()),
        ),
        cases={
            "defaults": {},
            "betas": {**LR, "betas": (0.6, 0.8)},
            "eps": {**LR, "eps": 0.1, "eps_root": 0.01},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "amsgrad": {**LR, "amsgrad": True, "betas": (0.9, 0.7)},
            "rectify": {**LR, "rectify": True, "eps": 1e-8},
            "nesterov": {**LR, "nesterov": True},
            "all": {
                **LR,
                "amsgrad": True,
                "rectify": True,
                "nesterov": True,
                "betas": (0.8, 0.9),
                "maximize": True,
            },
            "schedules": {"lr": falling, "betas": (0.9, rising_beta), "eps": shrinking_eps},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"betas": (0.5, 0.7), "maximize": True, "amsgrad": True},
            {"weight_decay": 0.2, "rectify": True, "lr": falling},
            {"eps": 0.1, "nesterov": True},
        ],
        golden={"AdaBelief": {}},
    ),
    "Yogi": Spec(
        hyper={
            "lr": H(1e-2, NONNEGATIVE),
            "betas": H((0.9, 0.999), PAIR),
            "eps": H(1e-3, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
            "initial_accumulator_value": H(1e-6, NONNEGATIVE, ours=True, once=True),
            "initial_exp_avg": H(1e-6, NONNEGATIVE, ours=True, once=True),
            "eps_hat": H(False, FLAG, ours=True),
        },
        rule=yogi,
        state=lambda h: ("exp_avg", "exp_avg_sq"),
        first=lambda p, h: {
            "exp_avg": np.full_like(p, h["initial_exp_avg"]),
            "exp_avg_sq": np.full_like(p, h["initial_accumulator_value"]),
        },
        cases={
            "defaults": {},
            "betas": {**LR, "betas": (0.6, 0.8)},
            "eps_hat": {**LR, "eps": 0.1, "eps_hat": True},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "starts": {**LR, "initial_accumulator_value": 0.1, "initial_exp_avg": 0.0},
            "all": {**LR, "weight_decay": 0.3, "maximize": True, "betas": (0.3, 0.5)},
            "schedules": {"lr": falling, "betas": (0.9, rising_beta), "weight_decay": fading_decay},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"betas": (0.5, 0.7), "maximize": True},
            {"weight_decay": 0.2, "lr": falling, "initial_exp_avg": 0.5},
            {"eps": 0.1, "eps_hat": True, "initial_accumulator_value": 1.0},
        ],
        errors=[
            ErrorCase(f"{name}-schedule", {name: falling}, TypeError, (rf"\b{name}\b", "once"))
            for name in ("initial_accumulator_value", "initial_exp_avg")
        ],
        golden={"Yogi": {}},
        golden_cases={
            "m starts at 0": {"lr": 0.1, "initial_exp_avg": 0},
            "TF Addons: v0=1e-6, m0=0, eps on the uncorrected root": {
                "lr": 0.1,
                "initial_exp_avg": 0,
                "eps_hat": True,
            },
        },
    ),
    "ADOPT": Spec(
        hyper={
            "lr": H(1e-3, NONNEGATIVE),
            "betas": H((0.9, 0.9999), PAIR),
            "eps": H(1e-6, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
            "decouple": H(False, FLAG),
            "clip_exponent": H(0.25, OTHER, ours=True),
        },
        rule=adopt,
        state=lambda h: ("exp_avg", "exp_avg_sq"),
        cases={
            "defaults": {},
            "betas": {**LR, "betas": (0.6, 0.8)},
            "eps": {**LR, "eps": 0.1},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "decouple": {**LR, "weight_decay": 0.3, "decouple": True},
            "no clipping": {**LR, "clip_exponent": None},
            "all": {**LR, "weight_decay": 0.3, "maximize": True, "clip_exponent": 0.333},
            "schedules": {"lr": falling, "betas": (0.9, rising_beta), "eps": shrinking_eps},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"betas": (0.5, 0.7), "maximize": True},
            {"weight_decay": 0.2, "decouple": True, "lr": falling},
            {"eps": 0.1, "clip_exponent": None},
        ],
        errors=[
            ErrorCase("exponent", {"clip_exponent": -1.0}, ValueError, ("clip_exponent", "-1")),
            ErrorCase("exponent-text", {"clip_exponent": "1"}, TypeError, ("clip_exponent",)),
        ],
        golden={"ADOPT": {}},
        golden_cases={
            "no clipping": {"lr": 0.1, "clip_exponent": None},
            "clip exponent 0.333 (timm)": {"lr": 0.1, "clip_exponent": 0.333},
        },
    ),
}
