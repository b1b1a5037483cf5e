"""The optimizers in plain NumPy as one would write them with care: in place, one scratch array.

Each is a function (p, g, state, scratch, t) that takes the t-th step of one array; t = 1, 2, …
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bench.steps.workloads import LR, Array

Update = Callable[[Array, Array, list[Array], Array, int], None]
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


def sgd(p: Array, g: Array, state: list[Array], scratch: Array, t: int) -> None:
    np.multiply(g, LR, out=scratch)
    p -= scratch


def momentum(p: Array, g: Array, state: list[Array], scratch: Array, t: int) -> None:
    (buffer,) = state
    buffer *= 0.9
    buffer += g
    np.multiply(buffer, LR, out=scratch)
    p -= scratch


def adam(p: Array, g: Array, state: list[Array], scratch: Array, t: int) -> None:
    exp_avg, exp_avg_sq = state
    exp_avg *= BETA1
    np.multiply(g, 1 - BETA1, out=scratch)
    exp_avg += scratch
    exp_avg_sq *= BETA2
    np.multiply(g, g, out=scratch)
    scratch *= 1 - BETA2
    exp_avg_sq += scratch
    # Both bias corrections in the scalars, which saves a pass over memory.
    root = math.sqrt(1 - BETA2**t)
    np.sqrt(exp_avg_sq, out=scratch)
    scratch += EPS * root
    np.divide(exp_avg, scratch, out=scratch)
    scratch *= LR * root / (1 - BETA1**t)
    p -= scratch


def adamw(p: Array, g: Array, state: list[Array], scratch: Array, t: int) -> None:
    p *= 1 - LR * 1e-2
    adam(p, g, state, scratch, t)


def adagrad(p: Array, g: Array, state: list[Array], scratch: Array, t: int) -> None:
    (total,) = state
    np.multiply(g, g, out=scratch)
    total += scratch
    np.sqrt(total, out=scratch)
    scratch += 1e-10
    np.divide(g, scratch, out=scratch)
    scratch *= LR
    p -= scratch


def rmsprop(p: Array, g: Array, state: list[Array], scratch: Array, t: int) -> None:
    (square_avg,) = state
    square_avg *= 0.99
    np.multiply(g, g, out=scratch)
    scratch *= 1 - 0.99
    square_avg += scratch
    np.sqrt(square_avg, out=scratch)
    scratch += EPS
    np.divide(g, scratch, out=scratch)
    scratch *= LR
    p -= scratch


UPDATES: dict[str, Update] = {
    "SGD": sgd,
    "SGD momentum": momentum,
    "Adam": adam,
    "AdamW": adamw,
    "Adagrad": adagrad,
    "RMSprop": rmsprop,
}


class Stepper:
    """A step over several arrays, with the global norm clipped where max_norm is given."""

    def __init__(
        self, rule: str, params: list[Array], grads: list[Array], slots: int, max_norm: float | None
    ) -> None:
        self.update = UPDATES[rule]
        self.params, self.grads, self.max_norm = params, grads, max_norm
        self.states = [[np.zeros_like(p) for _ in range(slots)] for p in params]
        largest = max(p.size for p in params)
        self.scratch, self.clipped = np.empty(largest, np.float32), np.empty(largest, np.float32)
        self.t = 0

    def step(self) -> None:
        self.t += 1
        coefficient = 1.0
        if self.max_norm is not None:
            norm = math.sqrt(sum(float(np.dot(g, g)) for g in self.grads))
            coefficient = min(1.0, self.max_norm / norm)
        for p, g, state in zip(self.params, self.grads, self.states, strict=True):
            if coefficient < 1:
                g = np.multiply(g, coefficient, out=self.clipped[: g.size])
            self.update(p, g, state, self.scratch[: p.size], self.t)
