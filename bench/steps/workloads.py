"""What is measured: five shapes of model, the optimizers, with and without a clipped norm."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

LR = 1e-3  # for every optimizer
SHAPES = {  # name -> number of arrays, elements of each
    "1x16.7M": (1, 1 << 24),
    "1x1M": (1, 1_000_000),
    "200x10k": (200, 10_000),
    "100x1k": (100, 1_000),
    "10x100": (10, 100),
}


@dataclass(frozen=True)
class Rule:
    """An optimizer and the options under which all contestants run it."""

    name: str
    optimizer: str  # fastgd's and torch's class
    state: int  # arrays of state for each parameter
    options: dict[str, Any] = field(default_factory=dict, hash=False)


RULES = {
    rule.name: rule
    for rule in (
        Rule("SGD", "SGD", 0),
        Rule("SGD momentum", "SGD", 1, {"momentum": 0.9}),
        Rule("Adam", "Adam", 2),
        Rule("AdamW", "AdamW", 2, {"weight_decay": 1e-2}),
        Rule("Adagrad", "Adagrad", 1),
        Rule("RMSprop", "RMSprop", 1),
    )
}


@dataclass(frozen=True)
class Case:
    rule: Rule
    shape: str
    clip: bool

    @property
    def key(self) -> str:
        return f"{self.rule.name} {self.shape}{' clip' if self.clip else ''}"

    @property
    def count(self) -> int:
        return SHAPES[self.shape][0]

    @property
    def size(self) -> int:
        return SHAPES[self.shape][1]

    @property
    def max_norm(self) -> float:
        """Half the norm of the gradients, so that clipping has something to do."""
        _, grads = templates(self.count, self.size)
        return 0.5 * math.sqrt(sum(float(np.square(g, dtype=np.float64).sum()) for g in grads))

    def make(self) -> tuple[list[Array], list[Array]]:
        """Parameters and gradients of a contestant's own, where NumPy puts them."""
        params, grads = templates(self.count, self.size)
        return [p.copy() for p in params], [g.copy() for g in grads]


def all_cases() -> list[Case]:
    """Without clipping first, then with it, shape by shape."""
    return [
        Case(rule, shape, clip)
        for shape in SHAPES
        for clip in (False, True)
        for rule in RULES.values()
    ]


def on_threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


@functools.lru_cache(maxsize=1)
def templates(count: int, size: int) -> tuple[list[Array], list[Array]]:
    """The first values of all contestants.

    Gradients of either sign and magnitudes of 0.005 to 0.015: far from zero, so that it does not
    matter where a library puts epsilon, and of no particular norm.
    """
    rng = np.random.default_rng(0)
    params, grads = [], []
    for _ in range(count):
        params.append(rng.random(size, np.float32) * 2 - 1)
        signs = np.where(rng.random(size, np.float32) < 0.5, np.float32(-0.01), np.float32(0.01))
        grads.append((rng.random(size, np.float32) + np.float32(0.5)) * signs)
    return params, grads
