"""FTRL-Proximal."""

from __future__ import annotations

import numpy as np

from tests.fma import Array, MultiplyAdd
from tests.specs._spec import (
    FLAG,
    NONNEGATIVE,
    POSITIVE,
    ErrorCase,
    H,
    Hyper,
    Spec,
    State,
    at_zero,
    fading_decay,
    falling,
    number,
)
from tests.specs.lion import sign


def ftrl(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    rate, l1 = number(p, 1.0 / h["lr"]), number(p, h["l1"])
    before = np.sqrt(state["accumulator"])
    n = fma(g, g, state["accumulator"])
    after = np.sqrt(n)
    both = after + before
    growth = np.where(both > 0, g * g / both * rate, both)
    faster = 1.0 / h["lr"] - 1.0 / state["last_lr"]
    growth = fma(number(p, faster), before + number(p, h["beta"]), growth)
    z = state["linear"] + fma(number(p, 2.0 * h["l2_shrinkage"]), p, g)
    z = fma(-growth, p, z)
    quadratic = fma(after, rate, number(p, 2.0 * h["l2"] + h["beta"] / h["lr"]))
    moved = np.where(quadratic != 0, -(z - l1 * sign(z)) / quadratic, p)
    return np.where(np.abs(z) <= l1, number(p, 0), moved), {
        "accumulator": n,
        "linear": z,
        "last_lr": float(h["lr"]),
    }


def first(p: Array, h: Hyper) -> State:
    h = {name: at_zero(value) for name, value in h.items()}
    n = np.full_like(p, h["initial_accumulator_value"])
    if not h["keep_start"]:
        return {"accumulator": n, "last_lr": float(h["lr"])}
    root = h["initial_accumulator_value"] ** 0.5
    quadratic = (root + h["beta"]) / h["lr"] + 2 * h["l2"]
    return {
        "accumulator": n,
        "last_lr": float(h["lr"]),
        "linear": -p * number(p, quadratic) - number(p, h["l1"]) * np.sign(p),
    }


LR = {"lr": 0.1}

SPECS = {
    "FTRL": Spec(
        hyper={
            "lr": H(1e-3, POSITIVE),
            "initial_accumulator_value": H(0.1, NONNEGATIVE, once=True),
            "l1": H(0, NONNEGATIVE),
            "l2": H(0, NONNEGATIVE),
            "l2_shrinkage": H(0, NONNEGATIVE),
            "beta": H(0, NONNEGATIVE),
            "keep_start": H(True, FLAG, ours=True, once=True),
        },
        rule=ftrl,
        state=lambda h: ("accumulator", "linear"),
        first=first,
        cases={
            "defaults": {},
            "lr": LR,
            "l1": {**LR, "l1": 0.5},
            "l2": {**LR, "l2": 0.5, "l2_shrinkage": 0.1},
            "beta": {**LR, "beta": 1.0, "initial_accumulator_value": 0.0},
            "from zero": {**LR, "keep_start": False, "initial_accumulator_value": 0.0},
            "all": {**LR, "l1": 0.2, "l2": 0.1, "maximize": True, "keep_start": False},
            "schedules": {"lr": falling, "l1": fading_decay},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[
            {},
            {"l1": 0.3, "maximize": True},
            {"l2": 0.2, "lr": falling, "keep_start": False},
            {"beta": 1.0, "initial_accumulator_value": 0.0},
        ],
        valid=lambda h: {**h, "lr": h["lr"] or 0.1},
        errors=[
            ErrorCase(
                "accumulator-schedule",
                {"initial_accumulator_value": falling},
                TypeError,
                ("initial_accumulator_value", "once"),
            )
        ],
        golden={"FTRL": {"keep_start": False}},
        golden_cases={
            "beta=1 (McMahan), n0=0": {
                "lr": 0.1,
                "beta": 1,
                "initial_accumulator_value": 0,
                "keep_start": False,
            }
        },
    ),
}
