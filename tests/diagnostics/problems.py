"""Small problems in plain NumPy on which training is made to succeed or to fail in a known way.

Each function returns value_and_grad(params, *batch) -> (loss, gradients), in JAX's order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from fastgd._arrays.tree import flatten

Array = np.ndarray[Any, np.dtype[Any]]
ValueAndGrad = Callable[..., tuple[float, Any]]


def quadratic(eigenvalues: Array, noise: float = 0.0, seed: int = 0) -> ValueAndGrad:
    """½ Σ λᵢ xᵢ², the gradient disturbed by `noise` standard deviations per element."""
    rng = np.random.default_rng(seed)

    def value_and_grad(x: Array) -> tuple[float, Array]:
        shift = noise * rng.standard_normal(x.shape)
        return float(0.5 * np.sum(eigenvalues * x * x) + x @ shift), eigenvalues * x + shift

    return value_and_grad


def rosenbrock(x: Array) -> tuple[float, Array]:
    """(1 - x)² + 100 (y - x²)²"""
    a, b = 1 - x[0], x[1] - x[0] ** 2
    return float(a * a + 100 * b * b), np.array([-2 * a - 400 * x[0] * b, 200 * b])


def double_well(x: Array) -> tuple[float, Array]:
    """Mean of (xᵢ² - 1)²: a saddle or a maximum at 0, minima at ±1."""
    return float(np.mean((x**2 - 1) ** 2)), 4 * x * (x**2 - 1) / x.size


def factorization(target: Array) -> ValueAndGrad:
    """½ ‖U V - target‖² / size: a saddle at U = V = 0."""

    def value_and_grad(params: Any) -> tuple[float, Any]:
        u, v = params["U"], params["V"]
        r = (u @ v - target) / target.size
        return float(0.5 * np.sum(r * r) * target.size), {"U": r @ v.T, "V": u.T @ r}

    return value_and_grad


# --- linear models: params {"w": (d,), "b": (1,)} ---


def least_squares(params: Any, x: Array, y: Array) -> tuple[float, Any]:
    r = x @ params["w"] + params["b"] - y
    return float(0.5 * np.mean(r * r)), {"w": x.T @ r / len(y), "b": np.array([r.mean()], x.dtype)}


def logistic(params: Any, x: Array, y: Array) -> tuple[float, Any]:
    """Labels ±1."""
    z = y * (x @ params["w"] + params["b"])
    s = -y * np.exp(-np.logaddexp(0, z)) / len(y)
    return float(np.mean(np.logaddexp(0, -z))), {
        "w": x.T @ s,
        "b": np.array([s.sum()], x.dtype),
    }


def poisson(params: Any, x: Array, y: Array) -> tuple[float, Any]:
    """Counts y; the negative log likelihood without the constant, so that it may be negative."""
    eta = x @ params["w"] + params["b"]
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.exp(eta)
        r = (mean - y) / len(y)
        return float(np.mean(mean - y * eta)), {"w": x.T @ r, "b": np.array([r.sum()], x.dtype)}


# --- networks ---


def _sigmoid(z: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * z))


ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    # the function, and its derivative as a function of its value
    "tanh": (np.tanh, lambda h: 1 - h * h),
    "sigmoid": (_sigmoid, lambda h: h * (1 - h)),
    "relu": (lambda z: np.maximum(z, 0), lambda h: (h > 0).astype(h.dtype)),
    "softsign": (lambda z: z / (1 + np.abs(z)), lambda h: (1 - np.abs(h)) ** 2),
    "elu": (
        lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
        lambda h: np.minimum(h, 0) + 1,
    ),
}


def output_loss(kind: str, out: Array, y: Array) -> tuple[float, Array]:
    """(loss, its gradient with respect to the network's output)."""
    n = len(y)
    with np.errstate(over="ignore", invalid="ignore"):
        if kind == "squares":
            r = out - y.reshape(out.shape)
            return float(0.5 * np.sum(r * r) / n), r / n
        if kind == "sigmoid_squares":
            p = _sigmoid(out)
            r = p - y.reshape(out.shape)
            return float(0.5 * np.sum(r * r) / n), r * p * (1 - p) / n
        shifted = out - out.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        delta = np.exp(log_p)
        delta[np.arange(n), y] -= 1
        return float(-log_p[np.arange(n), y].mean()), delta / n


def mlp(activation: str = "tanh", loss: str = "softmax") -> ValueAndGrad:
    """params: a list of {"W": (in, out), "b": (out,)}."""
    act, slope = ACTIVATIONS[activation]

    def value_and_grad(params: Any, x: Array, y: Array) -> tuple[float, Any]:
        with np.errstate(over="ignore", invalid="ignore"):
            signals = [x]
            for layer in params[:-1]:
                signals.append(act(signals[-1] @ layer["W"] + layer["b"]))
            value, delta = output_loss(loss, signals[-1] @ params[-1]["W"] + params[-1]["b"], y)
            grads = []
            for i in range(len(params) - 1, -1, -1):
                grads.append({"W": signals[i].T @ delta, "b": delta.sum(axis=0)})
                if i:
                    delta = (delta @ params[i]["W"].T) * slope(signals[i])
        return value, grads[::-1]

    return value_and_grad


def mlp_params(
    rng: np.random.Generator,
    sizes: list[int],
    gain: float = 1.0,
    std: float | None = None,
    bias: float = 0.0,
    dtype: Any = np.float64,
) -> list[dict[str, Array]]:
    """Normal weights with std gain / √fan_in, or `std`; hidden biases `bias`."""
    return [
        {
            "W": (rng.standard_normal((a, b)) * (gain / np.sqrt(a) if std is None else std)).astype(
                dtype
            ),
            "b": np.full(b, bias if i < len(sizes) - 2 else 0.0, dtype),
        }
        for i, (a, b) in enumerate(itertools.pairwise(sizes))
    ]


def rnn(loss: str = "softmax") -> ValueAndGrad:
    """hₜ = tanh(xₜ Wx + hₜ₋₁ Wh + b), the loss on the last h; x has shape (n, time, features)."""

    def value_and_grad(params: Any, x: Array, y: Array) -> tuple[float, Any]:
        wx, wh, wy = params["Wx"], params["Wh"], params["Wy"]
        h = [np.zeros((len(x), wh.shape[0]), x.dtype)]
        for t in range(x.shape[1]):
            h.append(np.tanh(x[:, t] @ wx + h[-1] @ wh + params["b"]))
        value, delta = output_loss(loss, h[-1] @ wy + params["by"], y)
        grads = {name: np.zeros_like(array) for name, array in params.items()}
        grads["Wy"], grads["by"] = h[-1].T @ delta, delta.sum(axis=0)
        back = delta @ wy.T
        for t in range(x.shape[1] - 1, -1, -1):
            back = back * (1 - h[t + 1] ** 2)
            grads["Wx"] += x[:, t].T @ back
            grads["Wh"] += h[t].T @ back
            grads["b"] += back.sum(axis=0)
            back = back @ wh.T
        return value, grads

    return value_and_grad


def rnn_params(
    rng: np.random.Generator, features: int, hidden: int, outputs: int, gain: float
) -> dict[str, Array]:
    return {
        "Wx": rng.standard_normal((features, hidden)) / np.sqrt(features),
        "Wh": rng.standard_normal((hidden, hidden)) * gain / np.sqrt(hidden),
        "b": np.zeros(hidden),
        "Wy": rng.standard_normal((hidden, outputs)) / np.sqrt(hidden),
        "by": np.zeros(outputs),
    }


# --- data ---


def classes(
    rng: np.random.Generator, n: int, features: int, count: int, flipped: float = 0.0
) -> tuple[Array, Array]:
    """Labels of a random tanh network, a share of them replaced at random."""
    x = rng.standard_normal((n, features))
    scores = np.tanh(x @ rng.standard_normal((features, 8))) @ rng.standard_normal((8, count))
    y = np.argmax(scores - scores.mean(axis=0), axis=1)
    wrong = rng.random(n) < flipped
    y[wrong] = rng.integers(0, count, wrong.sum())
    return x, y


def regression(
    rng: np.random.Generator, n: int, features: int, noise: float = 0.0, linear: bool = False
) -> tuple[Array, Array]:
    """A linear function, or sines, of normal features, of variance about 1."""
    x = rng.standard_normal((n, features))
    z = x @ rng.standard_normal((features, 3)) / np.sqrt(features)
    clean = z[:, 0] if linear else np.sin(2 * z[:, 0]) + z[:, 1] * np.cos(z[:, 2])
    return x, clean + noise * rng.standard_normal(n)


def sequences(rng: np.random.Generator, n: int, time: int) -> tuple[Array, Array]:
    """Is the mean of the first feature over the last quarter of the sequence above 0?"""
    x = rng.standard_normal((n, time, 3))
    return x, (x[:, -max(1, time // 4) :, 0].mean(axis=1) > 0).astype(np.int64)


# --- curvature ---


def sharpness(value_and_grad: ValueAndGrad, params: Any, *batch: Any, rounds: int = 25) -> float:
    """Largest eigenvalue of the Hessian, by power iteration over differences of gradients."""

    flat = [a for _, a in flatten(params)[0]]
    start = [a.copy() for a in flat]
    rng = np.random.default_rng(0)
    v = [rng.standard_normal(a.shape) for a in flat]
    size = 0.0
    for _ in range(rounds):
        norm = np.sqrt(sum(np.sum(d * d) for d in v))
        eps = 1e-4 / norm
        sides = []
        for sign in (1.0, -1.0):
            for a, s, d in zip(flat, start, v, strict=True):
                a[...] = s + sign * eps * d
            grads = flatten(value_and_grad(params, *batch)[1])[0]
            sides.append([np.array(g) for _, g in grads])
        v = [(p - m) / (2 * eps * norm) for p, m in zip(*sides, strict=True)]
        size = float(np.sqrt(sum(np.sum(d * d) for d in v)))
    for a, s in zip(flat, start, strict=True):
        a[...] = s
    return size
