"""Runs that the thresholds of `diagnose` were not chosen by: see diagnosis_confusion.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import fastgd
from fastgd import schedules
from fastgd._arrays.tree import rebuild
from tests.diagnostics import problems as dp
from tests.diagnostics.families import with_live_gradients
from tests.diagnostics.runs import Family, Setup, adam, against, between, none, pick, sgd, stable

# --- problems ---


def digits(rng: np.random.Generator, n: int = 400) -> tuple[Any, Any]:
    """Handwritten digits of scikit-learn, or blobs of the same shape without it."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        centres = rng.standard_normal((10, 64))
        y = rng.integers(0, 10, n)
        return centres[y] * 0.3 + 0.3 * rng.standard_normal((n, 64)), y
    x, y = load_digits(return_X_y=True)
    chosen = rng.choice(len(y), n, replace=False)
    return x[chosen] / 16.0, y[chosen]


def a_digits_network(rng: np.random.Generator) -> Setup:
    act = pick(rng, "relu", "tanh", "softsign")
    sizes = [64, int(rng.integers(16, 48)), 10]
    params = dp.mlp_params(rng, sizes, 1.2)
    return Setup(dp.mlp(act), params, none, digits(rng), steps=int(rng.integers(200, 400)))


def a_softmax_regression(rng: np.random.Generator) -> Setup:
    params = [{"W": np.zeros((64, 10)), "b": np.zeros(10)}]
    return Setup(dp.mlp(), params, none, digits(rng), steps=int(rng.integers(200, 400)))


def a_poisson_regression(rng: np.random.Generator) -> Setup:
    d = int(rng.integers(2, 12))
    x = rng.standard_normal((400, d)) / np.sqrt(d)
    y = rng.poisson(np.exp(x @ rng.standard_normal(d))).astype(float)
    params = {"w": np.zeros(d), "b": np.zeros(1)}
    return Setup(dp.poisson, params, none, (x, y), steps=int(rng.integers(200, 600)))


def a_factorization(rng: np.random.Generator) -> Setup:
    n, rank = int(rng.integers(6, 20)), int(rng.integers(1, 4))
    target = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, n))
    params = {"U": rng.standard_normal((n, rank)), "V": rng.standard_normal((rank, n))}
    return Setup(dp.factorization(target), params, none, steps=int(rng.integers(300, 600)))


def an_autoencoder(rng: np.random.Generator) -> Setup:
    x, _ = digits(rng, 200)

    def value_and_grad(params: Any, x: Any, _: Any) -> tuple[float, Any]:
        return dp.mlp("elu", "squares")(params, x, x)

    return Setup(value_and_grad, dp.mlp_params(rng, [64, 16, 64]), none, (x, x), steps=200)


def a_regression_on_digits(rng: np.random.Generator) -> Setup:
    x, y = digits(rng)
    params = dp.mlp_params(rng, [64, 20, 1], 1.2)
    return Setup(dp.mlp("elu", "squares"), params, none, (x, y / 10.0), steps=300)


OTHERS = (
    a_digits_network,
    a_softmax_regression,
    a_poisson_regression,
    a_factorization,
    an_autoencoder,
)


def with_rate(rng: np.random.Generator) -> tuple[Setup, float]:
    """One of these with a third of the stable learning rate, and the stable one."""
    setup = pick(rng, *OTHERS)(rng)
    lr = stable(setup)
    return replace(setup, optimizer=sgd(lr / 3)), lr


# --- families ---


def healthy_others(rng: np.random.Generator) -> Setup:
    setup, lr = with_rate(rng)
    return replace(setup, optimizer=sgd(lr * rng.uniform(0.15, 0.6)))


def healthy_nesterov(rng: np.random.Generator) -> Setup:
    setup, lr = with_rate(rng)
    lr *= rng.uniform(0.05, 0.2)
    return replace(
        setup,
        optimizer=lambda p: fastgd.SGD(p, lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-4),
    )


def healthy_warmup(rng: np.random.Generator) -> Setup:
    setup = pick(rng, a_digits_network, a_softmax_regression, an_autoencoder)(rng)
    lr = schedules.cosine(between(rng, 3e-3, 1e-2), total_steps=setup.steps, warmup_steps=20)
    return replace(setup, optimizer=lambda p: fastgd.AdamW(p, lr=lr), batch_size=64)


def healthy_momentum(rng: np.random.Generator) -> Setup:
    setup = pick(rng, a_digits_network, a_softmax_regression)(rng)
    lr = stable(setup) * rng.uniform(0.01, 0.03)
    return replace(setup, optimizer=sgd(lr, 0.9), batch_size=pick(rng, 32, 100))


def too_high_others(rng: np.random.Generator) -> Setup:
    setup, lr = with_rate(rng)
    return against(setup, sgd(lr * between(rng, 4, 300), pick(rng, 0.0, 0.5)))


def too_high_adaptive(rng: np.random.Generator) -> Setup:
    setup = pick(rng, a_digits_network, an_autoencoder, a_poisson_regression)(rng)
    setup = replace(setup, optimizer=adam(5e-3), batch_size=pick(rng, None, 32))
    lr = between(rng, 1, 30)
    make = pick(rng, fastgd.RMSprop, fastgd.AdamW, fastgd.Adam)
    return against(setup, lambda p: make(p, lr=lr))


def too_high_digits(rng: np.random.Generator) -> Setup:
    setup = a_digits_network(rng)
    lr = stable(setup)
    setup = replace(setup, optimizer=sgd(lr / 5), batch_size=32)
    return against(setup, sgd(lr * between(rng, 10, 300), pick(rng, 0.0, 0.9)))


def too_low_others(rng: np.random.Generator) -> Setup:
    setup, lr = with_rate(rng)
    return against(setup, sgd(lr * between(rng, 1e-6, 1e-3), pick(rng, 0.0, 0.5)))


def too_low_adaptive(rng: np.random.Generator) -> Setup:
    setup = pick(rng, a_digits_network, an_autoencoder, a_softmax_regression)(rng)
    setup = replace(setup, optimizer=adam(5e-3), batch_size=pick(rng, None, 50))
    lr = between(rng, 1e-8, 1e-5)
    make = pick(rng, fastgd.RMSprop, fastgd.AdamW, fastgd.Adagrad)
    return against(setup, lambda p: make(p, lr=lr))


def too_low_schedule(rng: np.random.Generator) -> Setup:
    """It decays before anything has happened."""
    setup, lr = with_rate(rng)
    decay = schedules.exponential(lr * between(rng, 1e-2, 1e-1), gamma=rng.uniform(0.5, 0.9))
    return against(setup, sgd(decay))


def renamed(setup: Setup, rng: np.random.Generator) -> Setup:
    """The layers as a dict {"W1": …, "b1": …} or as a plain list, instead of a list of dicts."""
    f, flat = setup.value_and_grad, rng.random() < 0.5
    layers = setup.params
    keys = [f"{kind}{i}" for i in range(1, len(layers) + 1) for kind in ("W", "b")]

    def split(tree: Any) -> Any:
        leaves = [layer[kind] for layer in tree for kind in ("W", "b")]
        return leaves if flat else dict(zip(keys, leaves, strict=True))

    def value_and_grad(params: Any, *batch: Any) -> tuple[float, Any]:
        leaves = params if flat else list(params.values())
        pairs = zip(leaves[::2], leaves[1::2], strict=True)
        loss, grads = f([{"W": w, "b": b} for w, b in pairs], *batch)
        return loss, split(grads)

    return replace(setup, value_and_grad=value_and_grad, params=split(layers))


def vanishing_digits(rng: np.random.Generator) -> Setup:
    sizes = [64] + [24] * int(rng.integers(6, 10)) + [10]
    params = dp.mlp_params(rng, sizes, 1.0)
    setup = Setup(dp.mlp("sigmoid"), params, sgd(0.1, 0.5), digits(rng), 50, steps=300)
    good = with_live_gradients(setup, sizes, rng).reference
    return replace(renamed(setup, rng), reference=good)


def vanishing_single(rng: np.random.Generator) -> Setup:
    sizes = [64] + [24] * int(rng.integers(6, 10)) + [10]
    params = dp.mlp_params(rng, sizes, 1.0, dtype=np.float32)
    x, y = digits(rng)
    setup = Setup(dp.mlp("sigmoid"), params, sgd(0.2), (x.astype(np.float32), y), steps=300)
    return with_live_gradients(setup, sizes, rng)


def exploding_digits(rng: np.random.Generator) -> Setup:
    depth = int(rng.integers(6, 12))
    params = dp.mlp_params(rng, [64] + [24] * depth + [10], rng.uniform(4, 8))
    opt = pick(rng, sgd(1e-2), sgd(1e-3, 0.9))
    setup = Setup(dp.mlp(pick(rng, "relu", "elu")), params, opt, digits(rng), 50, steps=200)
    return renamed(setup, rng)


def exploding_sequences(rng: np.random.Generator) -> Setup:
    params = dp.rnn_params(rng, 3, 32, 1, gain=rng.uniform(3, 5))
    x, y = dp.sequences(rng, 100, int(rng.integers(30, 50)))
    opt = pick(rng, sgd(1e-2, 0.5), sgd(1e-3))
    return Setup(dp.rnn("squares"), params, opt, (x, 1.0 * y), steps=150)


def dead_others(rng: np.random.Generator) -> Setup:
    setup = pick(rng, a_digits_network, an_autoencoder, a_factorization)(rng)
    params = rebuild(setup.params, np.zeros_like)
    return replace(setup, params=params, optimizer=pick(rng, sgd(0.1), adam(1e-3)))


def dead_inputs(rng: np.random.Generator) -> Setup:
    """Inputs of very large values that saturate the units, or switch them off."""
    x, y = digits(rng)
    params = dp.mlp_params(rng, [64, 24, 24, 10], dtype=np.float32)
    params[0]["W"] = -np.abs(params[0]["W"])
    opt = pick(rng, sgd(0.1), adam(3e-3))
    return Setup(dp.mlp("relu"), params, opt, (100 * x.astype(np.float32), y), 50, steps=200)


def nonfinite_label(rng: np.random.Generator) -> Setup:
    setup = pick(rng, a_poisson_regression, a_regression_on_digits)(rng)
    x, y = setup.data
    y = y.astype(float)
    y[rng.integers(len(y))] = np.nan
    lr = stable(replace(setup, data=setup.data)) * 0.2
    return replace(setup, data=(x, y), optimizer=sgd(lr), batch_size=pick(rng, None, 20))


def nonfinite_softmax(rng: np.random.Generator) -> Setup:
    """exp of the logits of one sample out of scale."""
    x, y = digits(rng)
    x[rng.integers(len(x))] *= 1e7

    def value_and_grad(params: Any, x: Any, y: Any) -> tuple[float, Any]:
        with np.errstate(all="ignore"):
            p = np.exp(x @ params["W"] + params["b"])
            p /= p.sum(axis=1, keepdims=True)
            loss = -np.mean(np.log(p[np.arange(len(y)), y]))
            p[np.arange(len(y)), y] -= 1
        return float(loss), {"W": x.T @ p / len(y), "b": p.mean(axis=0)}

    params = {"W": 0.05 * rng.standard_normal((64, 10)), "b": np.zeros(10)}
    return Setup(value_and_grad, params, sgd(0.1), (x, y), pick(rng, 10, 40), steps=200)


def nonfinite_raised(rng: np.random.Generator) -> Setup:
    """The optimizer refuses the step."""
    setup = a_digits_network(rng)
    x = setup.data[0].copy()
    x[rng.choice(len(x), 5, replace=False), 20] = np.nan
    lr = stable(setup) * 0.1
    setup = replace(setup, data=(x, setup.data[1]), batch_size=20)
    return replace(setup, optimizer=lambda p: fastgd.SGD(p, lr=lr, nonfinite="raise"))


def plateau_deep_linear(rng: np.random.Generator) -> Setup:
    """A product of three matrices, all close to zero: the initialization's fault as well."""
    d, scale = int(rng.integers(3, 8)), between(rng, 1e-4, 1e-3)
    target = rng.standard_normal((d, d))
    target /= np.linalg.norm(target, 2)

    def value_and_grad(params: Any) -> tuple[float, Any]:
        a, b, c = params["A"], params["B"], params["C"]
        r = a @ b @ c - target
        grads = {"A": r @ (b @ c).T, "B": a.T @ r @ c.T, "C": (a @ b).T @ r}
        return float(0.5 * np.sum(r * r)), grads

    params = {key: scale * rng.standard_normal((d, d)) for key in "ABC"}
    # The time to leave is that of x' = x² from x = scale √d: 1 / (lr scale √d).
    steps = int(rng.uniform(0.3, 0.6) / (0.2 * scale * 2 * np.sqrt(d)))
    accept = ("dead_initialization",)
    return Setup(value_and_grad, params, sgd(0.2), steps=min(steps, 3000), accept=accept)


def plateau_collinear(rng: np.random.Generator) -> Setup:
    """Pairs of features that differ by little, and targets that depend on the difference."""
    d = int(rng.integers(2, 6))
    a = rng.standard_normal((300, d))
    b = a + between(rng, 1e-4, 2e-3) * rng.standard_normal((300, d))
    difference = (a - b) / np.std(a - b)
    y = a @ rng.standard_normal(d) + difference @ rng.standard_normal(d)
    params = {"w": np.zeros(2 * d), "b": np.zeros(1)}
    setup = Setup(dp.least_squares, params, none, (np.hstack([a, b]), y), steps=500)
    lr = stable(setup) * rng.uniform(0.3, 0.8)
    better = replace(setup, data=(np.hstack([a, difference]), y), optimizer=sgd(lr))
    return replace(setup, optimizer=sgd(lr), reference=better)


def noise_floor_poisson(rng: np.random.Generator) -> Setup:
    setup = a_poisson_regression(rng)
    lr = stable(setup) * rng.uniform(0.02, 0.06)
    setup = replace(setup, optimizer=sgd(lr), steps=1500)
    return against(setup, sgd(lr), batch_size=int(pick(rng, 1, 2)))


def noise_floor_momentum(rng: np.random.Generator) -> Setup:
    d = int(rng.integers(4, 20))
    data = dp.regression(rng, 500, d, rng.uniform(0.7, 1.5), linear=True)
    params, size = {"w": rng.standard_normal(d) * 0.7, "b": np.zeros(1)}, int(pick(rng, 2, 4, 8))
    m = rng.uniform(0.5, 0.9)
    lr = rng.uniform(0.3, 0.8) * size / d * (1 - m)
    setup = Setup(dp.least_squares, params, sgd(lr, m), data, steps=1000)
    return against(setup, sgd(lr, m), batch_size=size)


def overfitting_digits(rng: np.random.Generator) -> Setup:
    x, y = digits(rng, 500)
    n = int(rng.integers(60, 120))
    wrong = rng.random(n) < 0.3
    y[:n][wrong] = rng.integers(0, 10, wrong.sum())
    params = dp.mlp_params(rng, [64, 48, 10], 1.4)
    opt = adam(between(rng, 3e-3, 1e-2))
    valid = (x[n:], y[n:])
    return Setup(dp.mlp("relu"), params, opt, (x[:n], y[:n]), pick(rng, None, 20), 400, valid)


def overfitting_polynomial(rng: np.random.Generator) -> Setup:
    """A random-feature expansion with more features than samples."""
    x, y = dp.regression(rng, 300, 4, 0.5)
    features = np.tanh(x @ rng.standard_normal((4, 150)) + rng.standard_normal(150))
    features -= features.mean(axis=0)
    n = int(rng.integers(60, 120))
    params = {"w": np.zeros(150), "b": np.zeros(1)}
    data, valid = (features[:n], y[:n]), (features[n:], y[n:])
    return Setup(dp.least_squares, params, adam(0.02), data, steps=600, validation=valid)


FAMILIES: dict[str, tuple[Family, ...]] = {
    "healthy": (
        healthy_others,
        healthy_nesterov,
        healthy_warmup,
        healthy_momentum,
    ),
    "learning_rate_too_high": (too_high_others, too_high_adaptive, too_high_digits),
    "learning_rate_too_low": (too_low_others, too_low_adaptive, too_low_schedule),
    "vanishing_gradients": (vanishing_digits, vanishing_single),
    "exploding_gradients": (exploding_digits, exploding_sequences),
    "dead_initialization": (dead_others, dead_inputs),
    "nonfinite_data_or_loss": (nonfinite_label, nonfinite_softmax, nonfinite_raised),
    "plateau": (plateau_deep_linear, plateau_collinear),
    "noise_floor": (noise_floor_poisson, noise_floor_momentum),
    "overfitting": (overfitting_digits, overfitting_polynomial),
}
