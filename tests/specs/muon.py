"""Muon, whose parameters are matrices: most of its tests are in tests/optimizers/test_muon.py."""

from __future__ import annotations

import math

import numpy as np

from tests.fma import Array, MultiplyAdd
from tests.specs._spec import (
    FLAG,
    FRACTION,
    NONNEGATIVE,
    OTHER,
    ErrorCase,
    H,
    Hyper,
    Spec,
    State,
    always,
    falling,
    lerp,
    number,
)


def orthogonalised(u: Array, h: Hyper) -> Array:
    a, b, c = h["ns_coefficients"]
    x = u.T if u.shape[0] > u.shape[1] else u
    x = x / max(math.sqrt(math.fsum((x.astype(np.float64) ** 2).ravel().tolist())), h["eps"])
    for _ in range(h["ns_steps"]):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return np.asarray(x.T if u.shape[0] > u.shape[1] else x, u.dtype)


def muon(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    buffer = lerp(state["momentum_buffer"], g, h["momentum"], p, fma)
    u = lerp(g, buffer, 1.0 - h["momentum"], p, fma) if h["nesterov"] else buffer
    rows, columns = matrix = p.shape[0], p.size // max(p.shape[0], 1)
    if not p.size:
        return p, {"momentum_buffer": buffer}
    scale = math.sqrt(max(1.0, rows / columns))
    if h["adjust_lr_fn"] == "match_rms_adamw":
        scale = 0.2 * math.sqrt(max(matrix))
    direction = orthogonalised(u.reshape(matrix).astype(np.float64), h).reshape(p.shape) * scale
    decayed = p * number(p, 1.0 - h["lr"] * h["weight_decay"])
    return fma(number(p, -h["lr"]), direction.astype(p.dtype), decayed), {"momentum_buffer": buffer}


LR = {"lr": 0.02}

SPECS = {
    "Muon": Spec(
        hyper={
            "lr": H(1e-3, NONNEGATIVE),
            "weight_decay": H(0.1, NONNEGATIVE),
            "momentum": H(0.95, FRACTION),
            "nesterov": H(True, FLAG),
            "ns_coefficients": H((3.4445, -4.775, 2.0315), OTHER),
            "eps": H(1e-7, NONNEGATIVE),
            "ns_steps": H(5, OTHER),
            "adjust_lr_fn": H(None, OTHER),
            "flatten": H(False, FLAG, ours=True),
        },
        rule=muon,
        state=lambda h: ("momentum_buffer",),
        cases={
            "defaults": {},
            "momentum": {**LR, "momentum": 0.5},
            "nesterov": {**LR, "nesterov": False},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "match_rms_adamw": {**LR, "adjust_lr_fn": "match_rms_adamw"},
            "original": {**LR, "adjust_lr_fn": "original"},
            "iteration": {**LR, "ns_steps": 3, "ns_coefficients": (3.0, -3.2, 1.2), "eps": 0.1},
            "flatten": {**LR, "flatten": True},
            "maximize": {**LR, "maximize": True},
            "schedules": {"lr": falling, "momentum": lambda step: 1.0 - 0.6 / (2.0 + step)},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"momentum": 0.5, "maximize": True},
            {"nesterov": False, "lr": falling},
            {"adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.0},
        ],
        errors=[
            ErrorCase("form", {"adjust_lr_fn": "rms"}, ValueError, ("adjust_lr_fn", "original")),
            ErrorCase("ns_steps", {"ns_steps": -1}, ValueError, ("ns_steps", "-1")),
            ErrorCase("ns_steps-float", {"ns_steps": 2.5}, TypeError, ("ns_steps", "integer")),
            ErrorCase("coefficients", {"ns_coefficients": (1, 2)}, TypeError, ("ns_coefficients",)),
        ],
        torch="Muon",
        keeps_squares=False,
        whole=always,
        ulps=400,
        matrices=True,
        golden={"Muon": {}},
    ),
}
