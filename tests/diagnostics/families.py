"""Runs that go wrong in a known way, and runs that go well: what `diagnose` is tested on.

A family is a function of a generator that draws one Setup, so that every seed gives another problem,
learning rate, optimizer and batch. FAMILIES holds those by which the thresholds of the rules were
chosen; bench/diagnosis_confusion.py has more, on which they were not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastgd._arrays.tree import rebuild
from tests.diagnostics import problems as dp
from tests.diagnostics.healthy import HEALTHY
from tests.diagnostics.runs import (
    CONVEX,
    NETWORKS,
    Family,
    Setup,
    a_deep_network,
    a_linear_regression,
    a_logistic_regression,
    a_network,
    a_regression_network,
    adam,
    against,
    between,
    none,
    pick,
    sgd,
    stable,
)

# --- learning rate ---


def with_good_rate(setup: Setup, rng: np.random.Generator) -> tuple[Setup, float]:
    """The setup with a third of the stable learning rate, and the stable one."""
    lr = stable(setup)
    return replace(setup, optimizer=sgd(lr / 3)), lr


def too_high_descent(rng: np.random.Generator) -> Setup:
    setup, lr = with_good_rate(pick(rng, *CONVEX[:2])(rng), rng)
    return against(setup, sgd(lr * between(rng, 1.05, 100)))


def too_high_minibatch(rng: np.random.Generator) -> Setup:
    setup, lr = with_good_rate(
        pick(rng, a_linear_regression, a_network, a_regression_network)(rng), rng
    )
    opt = sgd(lr * between(rng, 10, 300), pick(rng, 0.0, 0.9))
    return against(setup, opt, batch_size=pick(rng, 16, 64))


def too_high_network(rng: np.random.Generator) -> Setup:
    setup, lr = with_good_rate(pick(rng, *NETWORKS)(rng), rng)
    return against(setup, sgd(lr * between(rng, 10, 1000)))


def too_high_adam(rng: np.random.Generator) -> Setup:
    setup = pick(rng, a_network, a_regression_network, a_deep_network)(rng)
    setup = replace(setup, optimizer=adam(3e-3), batch_size=pick(rng, None, 32))
    return against(setup, adam(between(rng, 0.3, 30)))


def too_low_descent(rng: np.random.Generator) -> Setup:
    setup, lr = with_good_rate(pick(rng, *CONVEX, *NETWORKS)(rng), rng)
    return against(setup, sgd(lr * between(rng, 1e-6, 1e-3)))


def too_low_minibatch(rng: np.random.Generator) -> Setup:
    setup, lr = with_good_rate(
        pick(rng, a_linear_regression, a_logistic_regression, a_network)(rng), rng
    )
    opt = sgd(lr * between(rng, 1e-6, 3e-4), pick(rng, 0.0, 0.5))
    return against(setup, opt, batch_size=pick(rng, 16, 64))


def too_low_adam(rng: np.random.Generator) -> Setup:
    setup = pick(rng, *NETWORKS)(rng)
    setup = replace(setup, optimizer=adam(3e-3), batch_size=pick(rng, None, 32))
    return against(setup, adam(between(rng, 1e-8, 1e-5)))


# --- gradients by layer, initialization ---


def with_live_gradients(setup: Setup, sizes: list[int], rng: np.random.Generator) -> Setup:
    """The setup with tanh units and weights of the right size as its reference."""
    loss = "squares" if sizes[-1] == 1 else "softmax"
    params = dp.mlp_params(rng, sizes, 1.2)
    good = replace(setup, value_and_grad=dp.mlp("tanh", loss), params=params, optimizer=adam(3e-3))
    return replace(setup, reference=good)


def vanishing_sigmoid(rng: np.random.Generator) -> Setup:
    d, depth = int(rng.integers(6, 14)), int(rng.integers(7, 12))
    sizes = [d] + [20] * depth + [3]
    params = dp.mlp_params(rng, sizes, 1.0)
    setup = Setup(dp.mlp("sigmoid"), params, none, dp.classes(rng, 300, d, 3), steps=400)
    opt, batch = sgd(stable(setup) * rng.uniform(0.2, 0.5)), pick(rng, None, 32)
    return with_live_gradients(replace(setup, optimizer=opt, batch_size=batch), sizes, rng)


def vanishing_scale(rng: np.random.Generator) -> Setup:
    """Signals shrink from layer to layer on both ways: the initialization's fault as well."""
    d, depth = int(rng.integers(6, 14)), int(rng.integers(6, 12))
    sizes = [d] + [20] * depth + [3]
    params = dp.mlp_params(rng, sizes, rng.uniform(0.1, 0.4))
    value_and_grad, data = dp.mlp(pick(rng, "tanh", "relu")), dp.classes(rng, 300, d, 3)
    opt, accept = sgd(between(rng, 0.05, 0.5)), ("dead_initialization",)
    setup = Setup(value_and_grad, params, opt, data, steps=400, accept=accept)
    return with_live_gradients(setup, sizes, rng)


def vanishing_regression(rng: np.random.Generator) -> Setup:
    d, depth = int(rng.integers(3, 8)), int(rng.integers(7, 12))
    sizes = [d] + [20] * depth + [1]
    params, data = dp.mlp_params(rng, sizes, 1.0), dp.regression(rng, 300, d)
    setup = Setup(dp.mlp("sigmoid", "squares"), params, none, data, steps=400)
    opt = sgd(stable(setup) * rng.uniform(0.2, 0.5), pick(rng, 0, 0.9))
    return with_live_gradients(replace(setup, optimizer=opt), sizes, rng)


def exploding_tanh(rng: np.random.Generator) -> Setup:
    d, depth = int(rng.integers(6, 14)), int(rng.integers(10, 16))
    params = dp.mlp_params(rng, [d] + [24] * depth + [3], rng.uniform(5, 12))
    data = dp.classes(rng, 300, d, 3)
    lr = between(rng, 1e-3, 1e-1)
    return Setup(dp.mlp("tanh"), params, sgd(lr), data, pick(rng, None, 32), steps=300)


def exploding_relu(rng: np.random.Generator) -> Setup:
    d, depth = int(rng.integers(6, 14)), int(rng.integers(6, 12))
    params = dp.mlp_params(rng, [d] + [24] * depth + [3], 1.4 * rng.uniform(3, 6))
    data = dp.classes(rng, 300, d, 3)
    lr = between(rng, 1e-3, 1e-1)
    return Setup(dp.mlp("relu"), params, sgd(lr), data, pick(rng, None, 32), steps=300)


def exploding_rnn(rng: np.random.Generator) -> Setup:
    params = dp.rnn_params(rng, 3, 24, 2, gain=rng.uniform(3, 6))
    data = dp.sequences(rng, 150, int(rng.integers(25, 45)))
    lr = between(rng, 1e-3, 1e-1)
    return Setup(dp.rnn(), params, sgd(lr), data, pick(rng, None, 32), steps=200)


def dead_zero_weights(rng: np.random.Generator) -> Setup:
    setup = pick(rng, *NETWORKS)(rng)
    params = rebuild(setup.params, np.zeros_like)
    opt = pick(rng, sgd(0.1), adam(3e-3), sgd(0.01, 0.9))
    return replace(setup, params=params, optimizer=opt, batch_size=pick(rng, None, 32))


def dead_units(rng: np.random.Generator) -> Setup:
    """Every rectifier of a layer is off on every sample."""
    d, depth = int(rng.integers(4, 16)), int(rng.integers(1, 5))
    params = dp.mlp_params(rng, [d] + [24] * depth + [3], 1.4, bias=-rng.uniform(10, 30))
    opt = pick(rng, sgd(0.1), adam(3e-3), sgd(0.01, 0.9))
    data = dp.classes(rng, 300, d, 3)
    return Setup(dp.mlp("relu"), params, opt, data, pick(rng, None, 32), steps=400)


def dead_scale(rng: np.random.Generator) -> Setup:
    """Weights much too small."""
    d, depth = int(rng.integers(4, 16)), int(rng.integers(2, 5))
    act = pick(rng, "relu", "tanh")
    params = dp.mlp_params(rng, [d] + [24] * depth + [3], std=between(rng, 1e-5, 1e-3))
    data = dp.classes(rng, 300, d, 3)
    accept = ("vanishing_gradients",)
    return Setup(dp.mlp(act), params, sgd(0.1), data, pick(rng, None, 32), accept=accept)


def dead_saturated(rng: np.random.Generator) -> Setup:
    """An output unit saturated on the wrong side, or hidden ones on every sample."""
    d = int(rng.integers(4, 16))
    x, y = dp.classes(rng, 300, d, 2)
    params = dp.mlp_params(rng, [d, 24, 1], between(rng, 1, 2))
    params[-1]["b"][...] = pick(rng, -1, 1) * rng.uniform(25, 40)
    return Setup(
        dp.mlp(pick(rng, "tanh", "relu"), "sigmoid_squares"), params, sgd(0.3), (x, y), steps=300
    )


# --- data ---


def nan_in_data(rng: np.random.Generator) -> Setup:
    setup = pick(rng, a_linear_regression, a_logistic_regression, a_network)(rng)
    x = setup.data[0].copy()
    x[rng.integers(len(x)), rng.integers(x.shape[1])] = pick(rng, np.nan, np.inf)
    lr = stable(replace(setup)) * 0.1
    return replace(
        setup, data=(x, setup.data[1]), optimizer=sgd(lr), batch_size=pick(rng, None, 16)
    )


def log_of_zero(rng: np.random.Generator) -> Setup:
    """log(p) of a probability that reaches 0 in one unlucky sample."""
    d = int(rng.integers(3, 10))
    x, y = dp.classes(rng, 300, d, 2)
    x[rng.integers(300)] *= 1e6

    def value_and_grad(params: Any, x: Any, y: Any) -> tuple[float, Any]:
        with np.errstate(all="ignore"):
            p = 1 / (1 + np.exp(-(x @ params["w"] + params["b"])))
            loss = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
            s = (p - y) / (p * (1 - p)) * (p * (1 - p)) / len(y)
        return float(loss), {"w": x.T @ s, "b": np.array([s.sum()])}

    params = {"w": 0.01 * rng.standard_normal(d), "b": np.zeros(1)}
    return Setup(value_and_grad, params, sgd(0.05), (x, y), pick(rng, 8, 16, 32), steps=300)


def root_of_zero(rng: np.random.Generator) -> Setup:
    """The gradient of a norm at 0 is 0/0, the loss is not."""
    setup = a_linear_regression(rng)
    d = setup.data[0].shape[1]
    params = {"w": rng.standard_normal(d) * 0.1, "b": np.zeros(1)}
    lr, at = stable(setup) * 0.1, int(rng.integers(0, 100))
    calls = [0]

    def value_and_grad(params: Any, x: Any, y: Any) -> tuple[float, Any]:
        loss, grads = dp.least_squares(params, x, y)
        calls[0] += 1
        if calls[0] > at:
            grads["b"] = grads["b"] * np.nan
        return loss, grads

    return replace(setup, value_and_grad=value_and_grad, params=params, optimizer=sgd(lr))


# --- no progress ---


def plateau_saddle(rng: np.random.Generator) -> Setup:
    """A start so close to a saddle that the run ends before it is left behind."""
    scale, part = between(rng, 1e-9, 1e-5), rng.uniform(0.3, 0.7)
    if rng.random() < 0.5:
        x = scale * rng.standard_normal(int(rng.integers(1, 10)))
        f, lr, growth = dp.double_well, 0.02 * x.size, 0.08
    else:
        n, rank = int(rng.integers(5, 20)), 3
        target = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, n))
        x = {
            "U": scale * rng.standard_normal((n, rank)),
            "V": scale * rng.standard_normal((rank, n)),
        }
        f, growth = dp.factorization(target), 0.1
        lr = growth / np.linalg.norm(target, 2) * target.size
    return Setup(f, x, sgd(lr), steps=int(np.log(1 / scale) / growth * part))


def plateau_valley(rng: np.random.Generator) -> Setup:
    """The learning rate is as high as steep directions allow, and along flat ones nothing moves."""
    d, flat = int(rng.integers(4, 20)), 10 ** -rng.uniform(4.5, 7)
    eigenvalues = np.geomspace(between(rng, 0.1, 1), 1, d)
    eigenvalues[: max(2, d // 2)] *= flat
    eigenvalues *= between(rng, 1e-3, 1e3)
    x = rng.standard_normal(d) / np.sqrt(eigenvalues) * 10
    lr = rng.uniform(0.3, 0.9) * 2 / eigenvalues[-1]
    setup = Setup(dp.quadratic(eigenvalues), x, none, steps=int(rng.integers(200, 800)))
    ideal = replace(setup, params=x * 0, optimizer=sgd(lr))
    return replace(setup, optimizer=sgd(lr), reference=ideal)


def plateau_unscaled(rng: np.random.Generator) -> Setup:
    """Features of two very different sizes."""
    setup = pick(rng, lambda r: a_linear_regression(r, 0.1), a_logistic_regression)(rng)
    setup, _ = with_good_rate(setup, rng)
    x, y = setup.data
    sizes = np.ones(x.shape[1])
    sizes[: max(1, len(sizes) // 3)] = 10 ** rng.uniform(2.5, 4)
    scaled = replace(setup, data=(x * sizes, y))
    lr = stable(scaled) * rng.uniform(0.2, 0.8)
    return replace(scaled, optimizer=sgd(lr), reference=setup)


def noise_floor_linear(rng: np.random.Generator) -> Setup:
    setup = a_linear_regression(rng, noise=rng.uniform(0.5, 2))
    size = int(pick(rng, 1, 2, 4))
    x = setup.data[0]
    lr = rng.uniform(0.15, 0.6) * size / np.mean(np.sum(x * x, axis=1))
    setup = replace(setup, optimizer=sgd(lr), steps=int(rng.integers(600, 1500)))
    return against(setup, sgd(lr), batch_size=size)


def noise_floor_quadratic(rng: np.random.Generator) -> Setup:
    """½ xᵀHx + x · s, the mean of the samples s near 0."""
    d, size = int(rng.integers(5, 30)), int(pick(rng, 1, 2, 4))
    eigenvalues = np.geomspace(1, between(rng, 2, 10), d)

    def value_and_grad(x: Any, shifts: Any) -> tuple[float, Any]:
        shift = shifts.mean(axis=0)
        return float(1 + 0.5 * np.sum(eigenvalues * x * x) + x @ shift), eigenvalues * x + shift

    shifts = between(rng, 5, 30) * rng.standard_normal((300, d)) / np.sqrt(d)
    opt = sgd(rng.uniform(0.2, 0.5) / eigenvalues[-1], pick(rng, 0.0, 0.5))
    setup = Setup(value_and_grad, rng.standard_normal(d), opt, (shifts, shifts), steps=600)
    setup = replace(setup, value_and_grad=lambda x, shifts, _: value_and_grad(x, shifts))
    return against(setup, opt, batch_size=size)


def noise_floor_logistic(rng: np.random.Generator) -> Setup:
    setup = a_logistic_regression(rng, flipped=rng.uniform(0.1, 0.4))
    size = int(pick(rng, 1, 2, 4))
    x = setup.data[0]
    lr = rng.uniform(0.6, 2) * size / np.mean(np.sum(x * x, axis=1))
    setup = replace(setup, optimizer=sgd(lr), steps=int(rng.integers(600, 1500)))
    return against(setup, sgd(lr), batch_size=size)


def noise_floor_adam(rng: np.random.Generator) -> Setup:
    setup = a_linear_regression(rng, noise=rng.uniform(0.5, 2))
    lr = between(rng, 0.03, 0.15)
    setup = replace(setup, optimizer=adam(lr), steps=int(rng.integers(800, 1500)))
    return against(setup, adam(lr), batch_size=int(pick(rng, 1, 2)))


def overfit_linear(rng: np.random.Generator) -> Setup:
    d = int(rng.integers(30, 60))
    x, y = dp.regression(rng, 400, d, rng.uniform(0.5, 1), linear=True)
    n = int(d * rng.uniform(0.9, 1.1))
    params = {"w": np.zeros(d), "b": np.zeros(1)}
    setup = Setup(
        dp.least_squares, params, none, (x[:n], y[:n]), validation=(x[n:], y[n:]), steps=800
    )
    return replace(setup, optimizer=sgd(stable(setup) * rng.uniform(0.3, 0.7)))


def overfit_network(rng: np.random.Generator) -> Setup:
    d = int(rng.integers(8, 16))
    x, y = dp.classes(rng, 500, d, 3, flipped=0.3)
    n = int(rng.integers(60, 120))
    params = dp.mlp_params(rng, [d, 64, 3], 1.4)
    act = pick(rng, "tanh", "relu")
    return Setup(
        dp.mlp(act), params, adam(1e-2), (x[:n], y[:n]), pick(rng, None, 32), 500, (x[n:], y[n:])
    )


def overfit_logistic(rng: np.random.Generator) -> Setup:
    d = int(rng.integers(30, 60))
    x, y = dp.classes(rng, 400, d, 2, flipped=0.2)
    n = int(d * rng.uniform(1.0, 1.6))
    y = 2.0 * y - 1
    params = {"w": np.zeros(d), "b": np.zeros(1)}
    setup = Setup(dp.logistic, params, none, (x[:n], y[:n]), validation=(x[n:], y[n:]), steps=800)
    return replace(setup, optimizer=adam(between(rng, 0.02, 0.1)))


FAMILIES: dict[str, tuple[Family, ...]] = {
    "healthy": HEALTHY,
    "learning_rate_too_high": (
        too_high_descent,
        too_high_minibatch,
        too_high_network,
        too_high_adam,
    ),
    "learning_rate_too_low": (too_low_descent, too_low_minibatch, too_low_adam),
    "vanishing_gradients": (vanishing_sigmoid, vanishing_scale, vanishing_regression),
    "exploding_gradients": (exploding_tanh, exploding_relu, exploding_rnn),
    "dead_initialization": (dead_zero_weights, dead_units, dead_scale, dead_saturated),
    "nonfinite_data_or_loss": (nan_in_data, log_of_zero, root_of_zero),
    "plateau": (plateau_saddle, plateau_valley, plateau_unscaled),
    "noise_floor": (
        noise_floor_linear,
        noise_floor_quadratic,
        noise_floor_logistic,
        noise_floor_adam,
    ),
    "overfitting": (overfit_linear, overfit_network, overfit_logistic),
}
