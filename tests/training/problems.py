"""Small problems for the tests of minimize, and the loop written by hand that it must equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastgd
from fastgd._arrays.tree import flatten
from fastgd.sampling import MiniBatches
from tests.support import assert_same_bits

EIGENVALUES = np.array([1.0, 4.0, 10.0])
N, D = 40, 3

_rng = np.random.default_rng(7)
X = _rng.standard_normal((N, D))
Y = X @ np.array([1.0, -2.0, 0.5]) + 0.1 * _rng.standard_normal(N)


def quadratic(x: np.ndarray) -> tuple[float, np.ndarray]:
    return float(0.5 * (EIGENVALUES * x * x).sum()), EIGENVALUES * x


def start() -> np.ndarray:
    return np.array([1.0, -2.0, 3.0])


def regression(params: Any, X: np.ndarray, y: np.ndarray) -> tuple[float, Any]:
    """Least squares with parameters {"w", "b"}."""
    r = X @ params["w"] + params["b"] - y
    return float(r @ r / len(y)), {"b": np.array([2 * r.mean()]), "w": 2 * X.T @ r / len(y)}


def zeros(dtype: Any = np.float64) -> dict[str, np.ndarray]:
    return {"w": np.zeros(D, dtype), "b": np.zeros(1, dtype)}


class Watched:
    """A function that notes its calls and can be told to do something at one of them."""

    def __init__(self, function: Callable[..., Any], at: int = -1, do: Any = None) -> None:
        self.function = function
        self.calls = 0
        self._at, self._do = at, do

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls - 1 == self._at:
            if isinstance(self._do, BaseException):
                raise self._do
            return self._do(*arguments)
        return self.function(*arguments)


def by_hand(
    value_and_grad: Any, params: Any, optimizer: Any, batches: MiniBatches, epochs: int
) -> list[float]:
    """Train, and return the losses."""
    losses = []
    for _ in range(epochs):
        for batch in batches:
            loss, grads = value_and_grad(params, *batch)
            optimizer.step(grads)
            losses.append(loss)
    return losses


def leaves(params: Any) -> list[np.ndarray]:
    return [array for _, array in flatten(params)[0]]


def sgd(params: Any, **options: Any) -> fastgd.SGD:
    return fastgd.SGD(params, lr=0.05, **options)


def assert_same_params(actual: Any, expected: Any) -> None:
    for a, b in zip(leaves(actual), leaves(expected), strict=True):
        assert_same_bits(a, b)
