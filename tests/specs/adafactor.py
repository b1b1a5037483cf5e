"""Adafactor. Its reference computes in float64 whatever the dtype."""

from __future__ import annotations

import math

import numpy as np

from tests.fma import Array, MultiplyAdd
from tests.specs._spec import (
    FLAG,
    NONNEGATIVE,
    OTHER,
    POSITIVE,
    REAL,
    ErrorCase,
    H,
    Hyper,
    Spec,
    State,
    always,
    falling,
    no_state,
    total,
)


def rms(x: Array) -> float:
    return math.sqrt(total(x, x) / x.size)


def adafactor(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    if not p.size:
        return p, state
    dtype = p.dtype
    least = float(np.finfo(dtype).eps) if h["eps"][0] is None else h["eps"][0]
    theta, grad = p.astype(np.float64), g.astype(np.float64)
    weight = t ** h["beta2_decay"]
    square, floor = grad**2, least
    if h["eps_added"]:
        square, floor = square + least, 0.0
    new: State = {}
    if p.ndim <= 1:
        v = state["variance"] + weight * (square - state["variance"])
        new["variance"] = v
    else:
        row = state["row_var"] + weight * (square.mean(axis=-1, keepdims=True) - state["row_var"])
        col = state["col_var"] + weight * (square.mean(axis=-2, keepdims=True) - state["col_var"])
        v = row * col / np.maximum(row.mean(axis=-2, keepdims=True), floor)
        new["row_var"], new["col_var"] = row, col
    u = grad / np.sqrt(np.maximum(v, floor**2))
    rate = min(h["lr"], 1.0 / math.sqrt(t)) if h["relative_step"] else h["lr"]
    if h["scale_parameter"]:
        rate *= max(h["eps"][1], rms(p))
    step = rate / max(1.0, rms(u) / h["d"]) * u
    if h["beta1"] is not None:
        step = new["exp_avg"] = h["beta1"] * state["exp_avg"] + (1 - h["beta1"]) * step
    moved = theta * (1.0 - h["lr"] * h["weight_decay"]) - step
    return moved.astype(dtype), {name: x.astype(dtype) for name, x in new.items()}


def first(p: Array, h: Hyper) -> State:
    state: State = {}
    if p.ndim > 1:
        state["row_var"] = np.zeros((*p.shape[:-1], 1), p.dtype)
        state["col_var"] = np.zeros((*p.shape[:-2], 1, p.shape[-1]), p.dtype)
    else:
        state["variance"] = np.zeros_like(p)
    return state | ({} if h["beta1"] is None else {"exp_avg": np.zeros_like(p)})


LR = {"lr": 0.05}

SPECS = {
    "Adafactor": Spec(
        hyper={
            "lr": H(1e-2, NONNEGATIVE),
            "beta2_decay": H(-0.8, REAL),
            "eps": H((None, 1e-3), OTHER),
            "d": H(1.0, POSITIVE),
            "weight_decay": H(0.0, NONNEGATIVE),
            "relative_step": H(True, FLAG, ours=True),
            "scale_parameter": H(True, FLAG, ours=True),
            "eps_added": H(False, FLAG, ours=True),
            "beta1": H(None, OTHER, ours=True),
        },
        rule=adafactor,
        state=no_state,
        first=first,
        cases={
            "defaults": {},
            "lr": LR,
            "lr-large": {"lr": 10.0},
            "beta2_decay": {**LR, "beta2_decay": -0.5},
            "eps": {**LR, "eps": (1e-3, 0.1)},
            "d": {**LR, "d": 1.5},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "relative_step": {**LR, "relative_step": False},
            "scale_parameter": {**LR, "scale_parameter": False},
            "eps_added": {**LR, "eps_added": True, "eps": (1e-6, 1e-3)},
            "beta1": {**LR, "beta1": 0.9},
            "all": {**LR, "weight_decay": 0.3, "maximize": True, "beta1": 0.5, "d": 2.0},
            "schedules": {"lr": falling},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"d": 0.5, "maximize": True},
            {"weight_decay": 0.2, "lr": falling},
            {"beta1": 0.9, "scale_parameter": False},
        ],
        errors=[
            ErrorCase("eps", {"eps": (1e-3,)}, TypeError, ("eps",)),
            ErrorCase("eps-negative", {"eps": (1e-3, -1.0)}, ValueError, ("eps", "-1")),
            ErrorCase("beta1", {"beta1": 1.0}, ValueError, ("beta1", "1")),
        ],
        torch="Adafactor",
        whole=always,
        ulps=64,
        golden={
            "Adafactor (torch, float64 eps1)": {},
            "Adafactor (optax)": {
                "relative_step": False,
                "eps_added": True,
                "eps": (1e-30, 1e-3),
            },
            "Adafactor (Hugging Face / fairseq)": {"eps_added": True, "eps": (1e-30, 1e-3)},
        },
        golden_cases={
            "momentum=0.9": {"lr": 0.1, "beta1": 0.9},
            "weight_decay_rate=0.01": "optax' decay is not multiplied by lr",
            "no clipping": {"lr": 0.1, "d": 1e300},
            "multiply_by_parameter_scale=False": {"lr": 0.1, "scale_parameter": False},
            "matrix 2x3, min_dim_size_to_factor=2": {"lr": 0.1},
        },
    ),
}
