"""SGD."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fma import Array, MultiplyAdd
from tests.specs._spec import (
    FLAG,
    NONNEGATIVE,
    REAL,
    ErrorCase,
    H,
    Hyper,
    Spec,
    State,
    fading_decay,
    falling,
    l2,
    number,
    rising_beta,
    wavy,
)


def sgd(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    g = l2(p, g, h, fma)
    if h["centralize"] and p.ndim > 1 and p.size:
        g = g - g.mean(axis=tuple(range(1, p.ndim)), keepdims=True, dtype=np.float64).astype(
            g.dtype
        )
    if "momentum_buffer" not in state:
        return fma(number(p, -h["lr"]), g, p), {}
    inside, outside = (h["lr"], 1.0) if h["lr_in_momentum"] else (1.0, h["lr"])
    undamped = 1.0 if t == 1 else 1.0 - h["dampening"]
    momentum = number(p, h["momentum"])
    buffer = fma(momentum, state["momentum_buffer"], number(p, undamped * inside) * g)
    direction = fma(momentum, buffer, number(p, inside) * g) if h["nesterov"] else buffer
    return fma(number(p, -outside), direction, p), {"momentum_buffer": buffer}


def valid(h: dict[str, Any]) -> dict[str, Any]:
    h = {**h, "centralize": False}  # whose sums have no bits to compare
    if h["nesterov"]:
        return {**h, "dampening": 0}
    return h


LR = {"lr": 0.05}

SPECS = {
    "SGD": Spec(
        hyper={
            "lr": H(1e-3, NONNEGATIVE),
            "momentum": H(0, NONNEGATIVE),
            "dampening": H(0, REAL),
            "weight_decay": H(0, NONNEGATIVE),
            "nesterov": H(False, FLAG),
            "lr_in_momentum": H(False, FLAG, ours=True),
            "centralize": H(False, FLAG, ours=True),
        },
        rule=sgd,
        state=lambda h: ("momentum_buffer",) if h["momentum"] else (),
        cases={
            "defaults": {},
            "plain": LR,
            "lr-zero": {"lr": 0.0},
            "weight_decay": {**LR, "weight_decay": 0.1},
            "maximize": {**LR, "maximize": True},
            "maximize-weight_decay": {**LR, "maximize": True, "weight_decay": 0.1},
            "momentum": {**LR, "momentum": 0.9},
            "momentum-weight_decay": {**LR, "momentum": 0.9, "weight_decay": 0.1},
            "momentum-maximize": {**LR, "momentum": 0.9, "maximize": True},
            "dampening": {**LR, "momentum": 0.9, "dampening": 0.3},
            "dampening-one": {**LR, "momentum": 0.5, "dampening": 1.0},
            "dampening-negative": {**LR, "momentum": 0.7, "dampening": -0.3},
            "nesterov": {**LR, "momentum": 0.9, "nesterov": True},
            "nesterov-weight_decay": {
                **LR,
                "momentum": 0.9,
                "nesterov": True,
                "weight_decay": 0.1,
                "maximize": True,
            },
            "lr_in_momentum": {"momentum": 0.9, "lr": falling, "lr_in_momentum": True},
            "lr_in_momentum-dampening": {
                "momentum": 0.9,
                "dampening": 0.3,
                "lr": wavy,
                "lr_in_momentum": True,
            },
            "lr_in_momentum-nesterov": {
                "momentum": 0.9,
                "nesterov": True,
                "lr": falling,
                "lr_in_momentum": True,
            },
            "lr_in_momentum-unused": {"lr": falling, "lr_in_momentum": True},
            "schedules": {"lr": falling, "weight_decay": fading_decay},
            "schedules-momentum": {
                "lr": wavy,
                "momentum": rising_beta,
                "dampening": fading_decay,
            },
            "centralize": {**LR, "centralize": True, "momentum": 0.9},
            "centralize-all": {
                **LR,
                "centralize": True,
                "momentum": 0.9,
                "nesterov": True,
                "weight_decay": 0.1,
                "maximize": True,
            },
            "clip_norm": {**LR, "clip_norm": 0.5, "momentum": 0.9},
            "clip_value": {**LR, "clip_value": 0.5},
            "clip_both": {
                **LR,
                "clip_norm": 5.0,
                "clip_value": 0.2,
                "weight_decay": 0.1,
                "maximize": True,
            },
        },
        overrides=[
            {},
            {"lr": falling, "momentum": 0.9, "nesterov": True},
            {"weight_decay": 0.3, "maximize": True},
            {"momentum": 0.5, "dampening": 0.2, "lr_in_momentum": True},
        ],
        errors=[
            ErrorCase(
                "nesterov-dampening",
                {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
                ValueError,
                (r"\bnesterov\b", r"\bdampening\b"),
            ),
        ],
        valid=valid,
        whole=lambda h: bool(h["centralize"]),
        ulps=16,
        torch="SGD",
        golden={"SGD + gradient centralization": {"centralize": True, "momentum": 0.9}},
        golden_cases={
            "matrix 2x3, weight_decay=0.1, added after centralizing": "a chain of optax",
        },
        keeps_squares=False,
    ),
}
