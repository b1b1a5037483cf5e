"""Adagrad."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.fma import Array, MultiplyAdd
from tests.specs._spec import (
    FLAG,
    NONNEGATIVE,
    H,
    Hyper,
    Spec,
    State,
    always,
    fading_decay,
    falling,
    l2,
    number,
    shrinking_eps,
)


def rooted(p: Array, square: Array, h: Hyper) -> Array:
    """The denominator with epsilon outside the root (the default) or inside it."""
    inside, outside = (h["eps"], 0.0) if h["eps_inside"] else (0.0, h["eps"])
    return np.asarray(np.sqrt(square + number(p, inside)) + number(p, outside))


def adagrad(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    g = l2(p, g, h, fma)
    squares = fma(g, g, state["sum"])
    lr = h["lr"] / (1.0 + (t - 1) * h["lr_decay"])
    return fma(number(p, -lr), g / rooted(p, squares, h), p), {"sum": squares}


def row_wise(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    g = l2(p, g, h, fma)
    by_row = np.square(g.reshape((*p.shape[:1], -1) if p.size else p.shape), dtype=np.float64)
    means = by_row.mean(axis=-1) if p.size else np.zeros(p.shape[:1])
    squares = state["sum"] + means.reshape(p.shape[:1])
    lr = h["lr"] / (1.0 + (t - 1) * h["lr_decay"])
    with np.errstate(divide="ignore"):
        rates = (-lr / rooted(squares, squares, h)).astype(p.dtype)
    rates = rates.reshape(p.shape[:1] + (1,) * (p.ndim - 1))
    return fma(np.broadcast_to(rates, p.shape), g, p), {"sum": squares.astype(p.dtype)}


LR = {"lr": 0.1}

SPECS = {
    "Adagrad": Spec(
        hyper={
            "lr": H(1e-2, NONNEGATIVE),
            "lr_decay": H(0, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
            "initial_accumulator_value": H(0, NONNEGATIVE, once=True),
            "eps": H(1e-10, NONNEGATIVE),
            "eps_inside": H(False, FLAG, ours=True),
        },
        rule=adagrad,
        state=lambda h: ("sum",),
        first=lambda p, h: {"sum": np.full_like(p, h["initial_accumulator_value"])},
        cases={
            "defaults": {},
            "lr": LR,
            "lr_decay": {**LR, "lr_decay": 0.1},
            "weight_decay": {**LR, "weight_decay": 0.1},
            "initial_accumulator_value": {**LR, "initial_accumulator_value": 0.3},
            "eps": {**LR, "eps": 0.1},
            "eps_inside": {**LR, "eps": 1e-3, "eps_inside": True},
            "maximize": {**LR, "maximize": True, "weight_decay": 0.1},
            "all": {
                **LR,
                "lr_decay": 0.1,
                "weight_decay": 0.1,
                "initial_accumulator_value": 0.3,
                "eps": 1e-3,
            },
            "schedules": {"lr": falling, "lr_decay": fading_decay, "eps": shrinking_eps},
            "clip_norm": {**LR, "clip_norm": 0.5},
            "clip_both": {**LR, "clip_norm": 5.0, "clip_value": 0.2, "eps_inside": True},
        },
        overrides=[
            {},
            {"lr_decay": 0.5, "initial_accumulator_value": 0.25},
            {"eps": 0.1, "eps_inside": True, "maximize": True},
            {"weight_decay": 0.2, "lr": falling},
        ],
        torch="Adagrad",
    ),
}
SPECS["RowWiseAdagrad"] = replace(
    SPECS["Adagrad"],
    rule=row_wise,
    first=lambda p, h: {"sum": np.full(p.shape[:1], h["initial_accumulator_value"], p.dtype)},
    torch=None,
    whole=always,
    ulps=4,
    row_wise=True,
)
