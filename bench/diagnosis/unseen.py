"""Runs of problems written after the rules of `diagnose` were final: see diagnosis_confusion.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import fastgd
from fastgd._arrays.tree import rebuild
from tests.diagnostics import problems as dp
from tests.diagnostics.families import with_live_gradients
from tests.diagnostics.runs import Family, Setup, adam, against, between, none, pick, sgd, stable

# --- problems ---


def normal_likelihood(params: Any, x: Any, y: Any) -> tuple[float, Any]:
    """Minus the log likelihood of y ~ N(x w + b, exp(s)²), without its constant."""
    s = params["s"][0]
    with np.errstate(over="ignore", invalid="ignore"):
        r = (x @ params["w"] + params["b"] - y) * np.exp(-s)
        g = r * np.exp(-s) / len(y)
        grads = {"w": x.T @ g, "b": np.array([g.sum()]), "s": np.array([1 - np.mean(r * r)])}
        return float(0.5 * np.mean(r * r) + s), grads


def huber(params: Any, x: Any, y: Any) -> tuple[float, Any]:
    """½ r² for |r| <= 1, |r| - ½ beyond."""
    r = x @ params["w"] + params["b"] - y
    g = np.clip(r, -1, 1) / len(y)
    loss = np.where(np.abs(r) <= 1, 0.5 * r * r, np.abs(r) - 0.5).mean()
    return float(loss), {"w": x.T @ g, "b": np.array([g.sum()])}


def convolution(activation: str) -> dp.ValueAndGrad:
    """One convolution over the series x of shape (n, length), mean pooling, a dense layer, softmax."""
    act, slope = dp.ACTIVATIONS[activation]

    def value_and_grad(params: Any, x: Any, y: Any) -> tuple[float, Any]:
        k = params["kernel"]
        windows = np.lib.stride_tricks.sliding_window_view(x, k.shape[0], axis=1)
        h = act(windows @ k + params["shift"])
        pooled = h.mean(axis=1)
        loss, delta = dp.output_loss("softmax", pooled @ params["W"] + params["b"], y)
        back = ((delta @ params["W"].T)[:, None, :] / h.shape[1]) * slope(h)
        return loss, {
            "kernel": np.tensordot(windows, back, axes=([0, 1], [0, 1])),
            "shift": back.sum(axis=(0, 1)),
            "W": pooled.T @ delta,
            "b": delta.sum(axis=0),
        }

    return value_and_grad


def residual(params: Any, x: Any, y: Any) -> tuple[float, Any]:
    """h ← h + tanh(h W + b) V, block after block, and a softmax of h W."""
    *blocks, last = params
    with np.errstate(over="ignore", invalid="ignore"):
        h, inner = [x], []
        for block in blocks:
            inner.append(np.tanh(h[-1] @ block["W"] + block["b"]))
            h.append(h[-1] + inner[-1] @ block["V"])
        loss, delta = dp.output_loss("softmax", h[-1] @ last["W"], y)
        grads = [{"W": h[-1].T @ delta}]
        delta = delta @ last["W"].T
        for block, signal, t in zip(blocks[::-1], h[-2::-1], inner[::-1], strict=True):
            back = (delta @ block["V"].T) * (1 - t * t)
            grads.append({"W": signal.T @ back, "b": back.sum(axis=0), "V": t.T @ delta})
            delta = delta + back @ block["W"].T
    return loss, grads[::-1]


def a_likelihood(rng: np.random.Generator) -> Setup:
    d = int(rng.integers(2, 10))
    data = dp.regression(rng, 400, d, between(rng, 0.1, 0.5), linear=True)
    params = {"w": np.zeros(d), "b": np.zeros(1), "s": np.zeros(1)}
    return Setup(normal_likelihood, params, none, data, steps=int(rng.integers(300, 600)))


def a_robust_regression(rng: np.random.Generator) -> Setup:
    d = int(rng.integers(2, 10))
    x, y = dp.regression(rng, 400, d, 0.1, linear=True)
    far = rng.random(400) < 0.1
    y[far] += 10 * rng.standard_normal(far.sum())
    params = {"w": np.zeros(d), "b": np.zeros(1)}
    return Setup(huber, params, none, (x, y), steps=int(rng.integers(300, 600)))


def a_convolution(rng: np.random.Generator, n: int = 200) -> Setup:
    """Which of three frequencies is in the noise?"""
    y = rng.integers(0, 3, n)
    waves = np.sin(np.outer([0.3, 0.7, 1.3], np.arange(32)))[y]
    x = waves + rng.uniform(0.3, 0.8) * rng.standard_normal((n, 32))
    width, count = int(rng.integers(4, 8)), int(rng.integers(6, 12))
    params = {
        "kernel": rng.standard_normal((width, count)) * 1.4 / np.sqrt(width),
        "shift": np.zeros(count),
        "W": rng.standard_normal((count, 3)) / np.sqrt(count),
        "b": np.zeros(3),
    }
    f = convolution(pick(rng, "relu", "elu"))
    return Setup(f, params, none, (x, y), steps=int(rng.integers(200, 400)))


def a_residual_network(rng: np.random.Generator, gain: float = 0.5) -> Setup:
    d, depth = int(rng.integers(8, 16)), int(rng.integers(4, 8))

    def weights(a: int, b: int, scale: float = 1.0) -> Any:
        return rng.standard_normal((a, b)) * scale / np.sqrt(a)

    params = [
        {"W": weights(d, 16), "b": np.zeros(16), "V": weights(16, d, gain)} for _ in range(depth)
    ] + [{"W": weights(d, 3)}]
    return Setup(residual, params, none, dp.classes(rng, 300, d, 3), steps=300)


PROBLEMS = (a_likelihood, a_robust_regression, a_convolution, a_residual_network)


def with_rate(rng: np.random.Generator) -> tuple[Setup, float]:
    """One of these with a third of the stable learning rate, and the stable one."""
    setup = pick(rng, *PROBLEMS)(rng)
    lr = stable(setup)
    return replace(setup, optimizer=sgd(lr / 3)), lr


# --- families ---


def healthy_new(rng: np.random.Generator) -> Setup:
    setup, lr = with_rate(rng)
    return replace(setup, optimizer=sgd(lr * rng.uniform(0.15, 0.5)))


def healthy_new_adaptive(rng: np.random.Generator) -> Setup:
    setup = pick(rng, a_convolution, a_residual_network)(rng)
    lr = between(rng, 3e-3, 1e-2)
    make: Callable[..., Any] = pick(rng, fastgd.Adam, fastgd.AdamW, fastgd.RMSprop)
    return replace(setup, optimizer=lambda p: make(p, lr=lr), batch_size=pick(rng, None, 50))


def healthy_new_momentum(rng: np.random.Generator) -> Setup:
    setup = pick(rng, a_convolution, a_residual_network)(rng)
    return replace(setup, optimizer=sgd(stable(setup) * rng.uniform(0.02, 0.1), 0.8), batch_size=64)


def too_high_new(rng: np.random.Generator) -> Setup:
    setup, lr = with_rate(rng)
    return against(setup, sgd(lr * between(rng, 10, 300)), batch_size=pick(rng, None, 40))


def too_high_new_adaptive(rng: np.random.Generator) -> Setup:
    setup = pick(rng, a_convolution, a_residual_network)(rng)
    setup = replace(setup, optimizer=adam(5e-3))
    return against(setup, adam(between(rng, 1, 30)), batch_size=pick(rng, None, 40))


def too_low_new(rng: np.random.Generator) -> Setup:
    setup, lr = with_rate(rng)
    return against(setup, sgd(lr * between(rng, 1e-6, 1e-3)), batch_size=pick(rng, None, 40))


def too_low_new_adaptive(rng: np.random.Generator) -> Setup:
    setup = pick(rng, a_convolution, a_residual_network)(rng)
    setup = replace(setup, optimizer=adam(5e-3))
    return against(setup, adam(between(rng, 1e-8, 1e-5)), batch_size=pick(rng, None, 40))


def vanishing_softsign(rng: np.random.Generator) -> Setup:
    """Units driven far into saturation by their biases."""
    d, depth = int(rng.integers(6, 14)), int(rng.integers(6, 10))
    sizes = [d] + [20] * depth + [3]
    params = dp.mlp_params(rng, sizes, 1.0, bias=pick(rng, -1, 1) * rng.uniform(2, 3))
    opt, data = sgd(between(rng, 0.05, 0.3)), dp.classes(rng, 300, d, 3)
    setup = Setup(dp.mlp("softsign"), params, opt, data, steps=300)
    return with_live_gradients(setup, sizes, rng)


def exploding_residual(rng: np.random.Generator) -> Setup:
    d, depth = 12, int(rng.integers(12, 20))
    params = [
        {
            "W": rng.standard_normal((d, 24)) * 3,
            "b": np.zeros(24),
            "V": rng.standard_normal((24, d)) * rng.uniform(1, 2),
        }
        for _ in range(depth)
    ] + [{"W": rng.standard_normal((d, 3))}]
    x, y = dp.classes(rng, 200, d, 3)
    return Setup(residual, params, sgd(between(rng, 1e-3, 1e-2)), (0.1 * x, y), steps=150)


def dead_convolution(rng: np.random.Generator) -> Setup:
    setup = a_convolution(rng)
    params = {key: array.copy() for key, array in setup.params.items()}
    if rng.random() < 0.5:
        params["shift"] -= 50
        setup = replace(setup, value_and_grad=convolution("relu"))
    else:
        params = rebuild(params, np.zeros_like)
    opt = pick(rng, sgd(0.1), adam(3e-3))
    return replace(setup, params=params, optimizer=opt, batch_size=pick(rng, None, 50))


def nonfinite_series(rng: np.random.Generator) -> Setup:
    setup = a_convolution(rng)
    x = setup.data[0].copy()
    x[rng.integers(len(x)), rng.integers(32)] = pick(rng, np.nan, np.inf, -np.inf)
    opt, batch = pick(rng, sgd(0.05), adam(1e-3)), pick(rng, None, 8, 20)
    return replace(setup, data=(x, setup.data[1]), optimizer=opt, batch_size=batch)


def plateau_scales(rng: np.random.Generator) -> Setup:
    """A robust fit of features in units that differ by several orders of magnitude."""
    setup = a_robust_regression(rng)
    x, y = setup.data
    setup = replace(setup, optimizer=sgd(stable(setup) / 3))
    sizes = np.where(np.arange(x.shape[1]) % 2, 1.0, 10 ** rng.uniform(2.5, 4))
    scaled = replace(setup, data=(x * sizes, y))
    return replace(scaled, optimizer=sgd(stable(scaled) * rng.uniform(0.2, 0.6)), reference=setup)


def noise_floor_new(rng: np.random.Generator) -> Setup:
    d = int(rng.integers(3, 10))
    x, y = dp.regression(rng, 500, d, rng.uniform(0.5, 1), linear=True)
    params = {"w": rng.standard_normal(d), "b": np.zeros(1)}
    size, lr = int(pick(rng, 1, 2, 4)), rng.uniform(0.3, 0.8) / d
    setup = Setup(huber, params, sgd(lr), (x, y), steps=1000)
    return against(setup, sgd(lr * np.sqrt(size)), batch_size=size)


def overfitting_series(rng: np.random.Generator) -> Setup:
    setup = a_convolution(rng, 300)
    x, y = setup.data
    n = int(rng.integers(30, 60))
    y = y.copy()
    wrong = rng.random(n) < 0.4
    y[:n][wrong] = rng.integers(0, 3, wrong.sum())
    params = {
        "kernel": rng.standard_normal((16, 40)) * 0.35,
        "shift": np.zeros(40),
        "W": rng.standard_normal((40, 3)) / 6,
        "b": np.zeros(3),
    }
    data, valid = (x[:n], y[:n]), (x[n:], y[n:])
    return Setup(convolution("relu"), params, adam(0.02), data, None, 500, valid)


FAMILIES: dict[str, tuple[Family, ...]] = {
    "healthy": (healthy_new, healthy_new_adaptive, healthy_new_momentum),
    "learning_rate_too_high": (too_high_new, too_high_new_adaptive),
    "learning_rate_too_low": (too_low_new, too_low_new_adaptive),
    "vanishing_gradients": (vanishing_softsign,),
    "exploding_gradients": (exploding_residual,),
    "dead_initialization": (dead_convolution,),
    "nonfinite_data_or_loss": (nonfinite_series,),
    "plateau": (plateau_scales,),
    "noise_floor": (noise_floor_new,),
    "overfitting": (overfitting_series,),
}
