"""Rprop and ASGD."""

from __future__ import annotations

import numpy as np

from tests.fma import Array, MultiplyAdd
from tests.specs._spec import (
    NONNEGATIVE,
    OTHER,
    POSITIVE,
    ErrorCase,
    H,
    Hyper,
    Spec,
    State,
    fading_decay,
    falling,
    l2,
    lerp,
    number,
)
from tests.specs.lion import sign


def rprop(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    agreement = sign(g) * sign(state["prev"])
    factor = np.ones_like(p)
    factor[agreement < 0] = number(p, h["etas"][0])
    factor[agreement > 0] = number(p, h["etas"][1])
    low, high = (number(p, x) for x in h["step_sizes"])
    size = np.clip(state["step_size"] * factor, low, high)
    g = np.where(agreement < 0, number(p, 0), g)
    return fma(-size, sign(g), p), {"prev": g, "step_size": size}


def asgd(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    g = l2(p, g, h, fma)
    eta = h["lr"] if t == 1 else state["eta"]
    p = fma(number(p, -eta), g, p * number(p, 1.0 - h["lambd"] * eta))
    return p, {
        "ax": lerp(state["ax"], p, 1.0 - state["mu"], p, fma),
        "eta": h["lr"] / (1.0 + h["lambd"] * h["lr"] * t) ** h["alpha"],
        "mu": 1.0 / max(1.0, t - h["t0"]),
    }


LR = {"lr": 0.02}

SPECS = {
    "Rprop": Spec(
        hyper={
            "lr": H(1e-2, POSITIVE, once=True),
            "etas": H((0.5, 1.2), OTHER),
            "step_sizes": H((1e-6, 50), OTHER),
        },
        rule=rprop,
        state=lambda h: ("prev", "step_size"),
        first=lambda p, h: {"step_size": np.full_like(p, h["lr"])},
        cases={
            "defaults": {},
            "lr": {"lr": 0.5},
            "etas": {"etas": (0.3, 2)},
            "step_sizes": {"step_sizes": (0.005, 0.02)},
            "all": {"lr": 0.1, "etas": (0.9, 1.5), "step_sizes": (0.05, 1.0), "maximize": True},
            "clip_both": {"clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"etas": (0.3, 2.0), "maximize": True},
            {"lr": 0.5},
            {"step_sizes": (0.1, 0.2)},
        ],
        errors=[
            ErrorCase("lr-schedule", {"lr": falling}, TypeError, (r"\blr\b", "once")),
            ErrorCase("etas-above", {"etas": (1.2, 1.5)}, ValueError, ("etas",)),
            ErrorCase("etas-below", {"etas": (0.5, 0.9)}, ValueError, ("etas",)),
            ErrorCase("etas-number", {"etas": 0.5}, TypeError, ("etas",)),
            ErrorCase("step_sizes", {"step_sizes": (1.0, 0.5)}, ValueError, ("step_sizes",)),
            ErrorCase("step_sizes-0", {"step_sizes": (0.0, 0.5)}, ValueError, ("step_sizes",)),
        ],
        torch="Rprop",
        keeps_squares=False,
        golden={"Rprop": {}},
    ),
    "ASGD": Spec(
        hyper={
            "lr": H(1e-2, NONNEGATIVE),
            "lambd": H(1e-4, NONNEGATIVE),
            "alpha": H(0.75, NONNEGATIVE),
            "t0": H(1e6, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
        },
        rule=asgd,
        state=lambda h: ("ax",),
        first=lambda p, h: {"eta": h["lr"](0) if callable(h["lr"]) else float(h["lr"]), "mu": 1.0},
        cases={
            "defaults": {},
            "lambd": {**LR, "lambd": 0.1, "alpha": 0.5},
            "t0": {**LR, "t0": 0},
            "t0-later": {**LR, "t0": 5},
            "weight_decay": {**LR, "weight_decay": 0.3},
            "all": {**LR, "weight_decay": 0.3, "maximize": True, "t0": 1, "lambd": 0.2},
            "schedules": {"lr": falling, "lambd": fading_decay, "weight_decay": fading_decay},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"lambd": 0.1, "maximize": True},
            {"weight_decay": 0.2, "lr": falling},
            {"t0": 0, "alpha": 0.5},
        ],
        torch="ASGD",
        keeps_squares=False,
        golden={"ASGD": {}},
    ),
}
