"""NAdam, NAdamW and RAdam."""

from __future__ import annotations

import math

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
)

MOMENTS = ("exp_avg", "exp_avg_sq")


def averages(
    p: Array, g: Array, state: State, betas: tuple[float, float], fma: MultiplyAdd
) -> dict[str, Array]:
    return {
        "exp_avg": lerp(state["exp_avg"], g, betas[0], p, fma),
        "exp_avg_sq": mean_square(state["exp_avg_sq"], g, betas[1], p, fma),
    }


def stepped(
    p: Array, g: Array, new: State, h: Hyper, t: int, parts: tuple[float, float], fma: MultiplyAdd
) -> Array:
    """p * keep - (a * exp_avg + b * g) / denominator."""
    decoupled = h.get("decoupled_weight_decay", True)
    keep = 1.0 - h["lr"] * h["weight_decay"] if decoupled else 1.0
    root = 1.0 / math.sqrt(1.0 - h["betas"][1] ** t)
    denominator = fma(np.sqrt(new["exp_avg_sq"]), number(p, root), number(p, h["eps"]))
    direction = fma(number(p, parts[0]), new["exp_avg"], number(p, parts[1]) * g)
    return fma(p, number(p, keep), -(direction / denominator))


def nadam(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    beta1, lr = h["betas"][0], h["lr"]
    if not h["decoupled_weight_decay"]:
        g = l2(p, g, h, fma)
    now, ahead = (
        beta1 * (1.0 - 0.5 * 0.96 ** (time * h["momentum_decay"])) for time in (t, t + 1.0)
    )
    product = state["mu_product"] * now
    new = averages(p, g, state, h["betas"], fma)
    if h["constant_momentum"]:
        parts = lr * beta1 / (1.0 - beta1 ** (t + 1.0)), lr * (1.0 - beta1) / (1.0 - beta1**t)
    else:
        parts = lr * ahead / (1.0 - product * ahead), lr * (1.0 - now) / (1.0 - product)
    return stepped(p, g, new, h, t, parts, fma), {**new, "mu_product": product}


def nadamw(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    beta1 = h["betas"][0]
    corrected = h["lr"] / (1.0 - beta1**t)
    new = averages(p, g, state, h["betas"], fma)
    return stepped(p, g, new, h, t, (corrected * beta1, corrected * (1.0 - beta1)), fma), new


def rectification(beta2: float, t: int) -> float:
    """RAdam's factor; 0 where the second moment is not to be trusted."""
    most = 2.0 / (1.0 - beta2) - 1.0
    length = most - 2.0 * t * beta2**t / (1.0 - beta2**t)
    if length <= 5.0:
        return 0.0
    return math.sqrt(
        (length - 4.0) * (length - 2.0) * most / ((most - 4.0) * (most - 2.0) * length)
    )


def radam(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    beta1, beta2 = h["betas"]
    keep = 1.0
    if h["decoupled_weight_decay"]:
        keep = 1.0 - h["lr"] * h["weight_decay"]
    else:
        g = l2(p, g, h, fma)
    new = averages(p, g, state, h["betas"], fma)
    step, direction = h["lr"] / (1.0 - beta1**t), new["exp_avg"]
    root = math.sqrt(1.0 - beta2**t)
    factor = rectification(beta2, t)
    if factor:
        step *= factor
        eps = h["eps"] / root if h["eps_hat"] else h["eps"]
        second = fma(np.sqrt(new["exp_avg_sq"]), number(p, 1.0 / root), number(p, eps))
        direction = direction / second
    elif not h["degenerated_to_sgd"]:
        step, keep = 0.0, 1.0
    return fma(number(p, -step), direction, p * number(p, keep)), new


LR = {"lr": 0.02}

SPECS = {
    "NAdam": Spec(
        hyper={
            "lr": H(2e-3, NONNEGATIVE),
            "betas": H((0.9, 0.999), PAIR),
            "eps": H(1e-8, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
            "momentum_decay": H(4e-3, NONNEGATIVE),
            "decoupled_weight_decay": H(False, FLAG),
            "constant_momentum": H(False, FLAG, ours=True),
        },
        rule=nadam,
        state=lambda h: MOMENTS,
        first=lambda p, h: {"mu_product": 1.0},
        cases={
            "defaults": {},
            "betas": {**LR, "betas": (0.6, 0.8)},
            "eps": {**LR, "eps": 0.1},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "decoupled": {**LR, "weight_decay": 0.3, "decoupled_weight_decay": True},
            "momentum_decay": {**LR, "momentum_decay": 1.0},
            "momentum_decay-zero": {**LR, "momentum_decay": 0.0},
            "constant_momentum": {**LR, "constant_momentum": True},
            "maximize": {**LR, "maximize": True, "weight_decay": 0.3},
            "schedules": {
                "lr": falling,
                "betas": (rising_beta, 0.99),
                "momentum_decay": fading_decay,
                "eps": shrinking_eps,
            },
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"betas": (0.5, 0.7), "maximize": True},
            {"weight_decay": 0.2, "decoupled_weight_decay": True, "lr": falling},
            {"momentum_decay": 0.5, "eps": 0.1},
        ],
        torch="NAdam",
        golden={"NAdam": {}, "NAdam (optax)": {"constant_momentum": True}},
        golden_cases={
            "weight_decay=0.1 (nadamw)": {
                "lr": 0.1,
                "weight_decay": 0.1,
                "decoupled_weight_decay": True,
                "constant_momentum": True,
            }
        },
    ),
    "NAdamW": Spec(
        hyper={
            "lr": H(1e-3, NONNEGATIVE),
            "betas": H((0.9, 0.999), PAIR),
            "eps": H(1e-8, NONNEGATIVE),
            "weight_decay": H(1e-2, NONNEGATIVE),
        },
        rule=nadamw,
        state=lambda h: MOMENTS,
        cases={
            "defaults": {},
            "betas": {**LR, "betas": (0.6, 0.8)},
            "all": {**LR, "eps": 0.1, "weight_decay": 0.3, "maximize": True},
            "schedules": {"lr": falling, "betas": (0.9, rising_beta), "weight_decay": fading_decay},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"betas": (0.5, 0.7), "maximize": True},
            {"weight_decay": 0.2, "lr": falling},
            {"eps": 0.1},
        ],
    ),
    "RAdam": Spec(
        hyper={
            "lr": H(1e-3, NONNEGATIVE),
            "betas": H((0.9, 0.999), PAIR),
            "eps": H(1e-8, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
            "decoupled_weight_decay": H(False, FLAG),
            "eps_hat": H(True, FLAG, ours=True),
            "degenerated_to_sgd": H(True, FLAG, ours=True),
        },
        rule=radam,
        state=lambda h: MOMENTS,
        cases={
            "defaults": {},
            "betas": {**LR, "betas": (0.6, 0.8)},
            "betas-never": {**LR, "betas": (0.5, 0.6)},
            "eps": {**LR, "eps": 0.1},
            "eps_hat-off": {**LR, "eps": 0.1, "eps_hat": False, "betas": (0.9, 0.95)},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "decoupled": {**LR, "weight_decay": 0.3, "decoupled_weight_decay": True},
            "patient": {**LR, "degenerated_to_sgd": False, "weight_decay": 0.3},
            "maximize": {**LR, "maximize": True, "weight_decay": 0.3},
            "schedules": {"lr": falling, "betas": (rising_beta, 0.99), "eps": shrinking_eps},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"betas": (0.5, 0.7), "maximize": True},
            {"weight_decay": 0.2, "decoupled_weight_decay": True, "lr": falling},
            {"eps_hat": False, "eps": 0.1, "betas": (0.9, 0.9)},
        ],
        torch="RAdam",
        golden={"RAdam": {}},
        golden_cases={"optax form, the same": {"lr": 0.1, "eps_hat": False}},
    ),
}
