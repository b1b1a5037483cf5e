r"""Ordinary trainings and ordinary mistakes: what `diagnose` says of them, in two halves.

    python -m bench.diagnosis.ordinary [--seed 0] [--all]

Data that scikit-learn ships, mostly float32, networks and linear models, every common optimizer, full
batches and mini-batches; what is wrong with each is known, since it was made wrong. The rules of `diagnose`
may be changed after a look at the first half ("seen"); the second is kept apart. A verdict is right if it
names the mistake; of a good run, if it finds none; and nothing that fails may be called healthy.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import datasets

import fastgd

Params = dict[str, Any]
GOOD = frozenset({"healthy"})


@dataclass(frozen=True)
class Training:
    """One run, and what may be said of it.

    Attributes:
        right: the verdicts that name what is wrong.
        words: of which one has to be in the text, if there are any.
    """

    name: str
    right: frozenset[str]
    run: Callable[[np.random.Generator], Any]
    words: tuple[str, ...] = ()


# --- data ---


def classes(name: str, dtype: Any = np.float32, *, raw: bool = False) -> tuple[Any, Any]:
    data = getattr(datasets, f"load_{name}")()
    x = data.data.astype(dtype)
    if not raw:
        x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    return x.astype(dtype), data.target


def regression(dtype: Any = np.float32, *, raw: bool = False) -> tuple[Any, Any]:
    data = datasets.load_diabetes(scaled=False)
    x, y = data.data, data.target
    if not raw:
        x = (x - x.mean(0)) / x.std(0)
        y = (y - y.mean()) / y.std()
    return x.astype(dtype), y.astype(dtype)


# --- models ---

ACTIVATIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "relu": (lambda z: np.maximum(z, 0), lambda a: (a > 0).astype(a.dtype)),
    "tanh": (np.tanh, lambda a: 1 - a * a),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda a: a * (1 - a)),
}


def network(
    activation: str = "relu", *, classify: bool = True
) -> Callable[..., tuple[float, Params]]:
    """value_and_grad of a multi-layer perceptron with parameters W0, b0, W1, …"""
    function, slope = ACTIVATIONS[activation]

    def value_and_grad(params: Params, x: Any, y: Any) -> tuple[float, Params]:
        depth = len(params) // 2
        layers = [x]
        for i in range(depth):
            z = layers[-1] @ params[f"W{i}"] + params[f"b{i}"]
            layers.append(z if i == depth - 1 else function(z))
        out = layers[-1]
        if classify:
            out = out - out.max(1, keepdims=True)
            log = out - np.log(np.exp(out).sum(1, keepdims=True))
            loss = -log[np.arange(len(y)), y].mean()
            delta = np.exp(log)
            delta[np.arange(len(y)), y] -= 1
            delta /= len(y)
        else:
            error = out[:, 0] - y
            loss = (error * error).mean()
            delta = (2 * error / len(y))[:, None]
        grads: Params = {}
        for i in reversed(range(depth)):
            grads[f"W{i}"], grads[f"b{i}"] = layers[i].T @ delta, delta.sum(0)
            if i:
                delta = (delta @ params[f"W{i}"].T) * slope(layers[i])
        return float(loss), {name: grads[name].astype(params[name].dtype) for name in params}

    return value_and_grad


def weights(
    rng: np.random.Generator, sizes: tuple[int, ...], dtype: Any, gain: float = 1.0
) -> Params:
    params: Params = {}
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        params[f"W{i}"] = (gain * rng.standard_normal((n, m)) * np.sqrt(2 / n)).astype(dtype)
        params[f"b{i}"] = np.zeros(m, dtype)
    return params


def recurrent(params: Params, x: Any, y: Any) -> tuple[float, Params]:
    """A network through time: x (samples, steps), y the class that its sum has."""
    W, u, v = params["W"], params["u"], params["v"]
    states = [np.zeros((len(x), len(W)), W.dtype)]
    for t in range(x.shape[1]):
        states.append(np.tanh(states[-1] @ W + x[:, t : t + 1] * u))
    error = states[-1] @ v - y
    loss, delta = float((error * error).mean()), (2 * error / len(y))[:, None] * v
    grads = {"W": np.zeros_like(W), "u": np.zeros_like(u), "v": states[-1].T @ (2 * error / len(y))}
    for t in reversed(range(x.shape[1])):
        delta = delta * (1 - states[t + 1] ** 2)
        grads["W"] += states[t].T @ delta
        grads["u"] += (x[:, t : t + 1] * delta).sum(0)
        delta = delta @ W.T
    return loss, {name: grads[name].astype(params[name].dtype) for name in params}


# --- trainings ---


def trained(
    value_and_grad: Any,
    params: Params,
    data: Any,
    lr: float,
    optimizer: str = "sgd",
    **options: Any,
) -> Any:
    options = {"batch_size": 32, "epochs": 20, **options}
    with np.errstate(all="ignore"):
        return fastgd.minimize(
            value_and_grad, params, data=data, optimizer=optimizer, lr=lr, **options
        )


SIZES = {"digits": (64, 32, 10), "breast_cancer": (30, 16, 2), "wine": (13, 16, 3)}
RATES = {"sgd": 0.1, "momentum": 0.02, "adam": 3e-3, "rmsprop": 1e-3}


def chosen(name: str) -> tuple[str, dict[str, Any]]:
    return ("sgd", {"momentum": 0.9}) if name == "momentum" else (name, {})


def classified(
    data: str,
    kind: str,
    factor: float,
    *,
    dtype: Any = np.float32,
    full: bool = False,
    **changes: Any,
) -> Callable[[np.random.Generator], Any]:
    """A network on classes, at `factor` times a rate that is right for it."""

    def run(rng: np.random.Generator) -> Any:
        optimizer, options = chosen(kind)
        x, y = classes(data, dtype)
        params = weights(rng, SIZES[data], dtype)
        if full:
            options |= {"batch_size": None, "epochs": None, "steps": 300}
        return trained(
            network(), params, (x, y), RATES[kind] * factor, optimizer, **options, **changes
        )

    return run


def named(*verdicts: str) -> frozenset[str]:
    return frozenset(verdicts)


def rates() -> Iterator[Training]:
    low, high = named("learning_rate_too_low"), named("learning_rate_too_high")
    for data in SIZES:
        for kind in RATES:
            yield Training(f"good, {data}, {kind}", GOOD, classified(data, kind, 1.0))
            yield Training(f"rate too low, {data}, {kind}", low, classified(data, kind, 1e-3))
            factor = 100.0 if kind in ("sgd", "momentum") else 300.0
            if (data, kind) != ("wine", "adam"):  # which bears it
                yield Training(
                    f"rate too high, {data}, {kind}", high, classified(data, kind, factor)
                )
    for kind in ("sgd", "adam"):
        full = {"full": True}
        yield Training(f"good, full batches, {kind}", GOOD, classified("wine", kind, 2.0, **full))
        yield Training(
            f"rate too low, full batches, {kind}", low, classified("digits", kind, 1e-3, **full)
        )
        wide = {"dtype": np.float64}
        yield Training(f"good, float64, {kind}", GOOD, classified("digits", kind, 1.0, **wide))
        yield Training(
            f"rate too low, float64, {kind}", low, classified("digits", kind, 1e-3, **wide)
        )


def regressions() -> Iterator[Training]:
    def linear(rng: np.random.Generator, factor: float, raw: bool, sign: float = 1.0) -> Any:
        x, y = regression(raw=raw)
        fit = network(classify=False)

        def value_and_grad(params: Params, *batch: Any) -> tuple[float, Params]:
            loss, grads = fit(params, *batch)
            return loss, {name: sign * grad for name, grad in grads.items()}

        return trained(value_and_grad, weights(rng, (10, 1), np.float32), (x, y), 0.05 * factor)

    low, high = named("learning_rate_too_low"), named("learning_rate_too_high")
    yield Training("good, linear regression", GOOD, lambda rng: linear(rng, 0.2, False))
    yield Training("rate too low, linear regression", low, lambda rng: linear(rng, 1e-3, False))
    yield Training("rate too high, linear regression", high, lambda rng: linear(rng, 40, False))
    scaled = ("scale", "standardi")
    yield Training("unscaled features", high, lambda rng: linear(rng, 1, True), scaled)
    slow = low | named("plateau", "learning_rate_too_high")
    yield Training(
        "unscaled features, tiny rate", slow, lambda rng: linear(rng, 1e-3, True), scaled
    )
    yield Training("sign of the gradient", high, lambda rng: linear(rng, 0.2, False, -1), ("sign",))
    yield Training("sign, small rate", high, lambda rng: linear(rng, 0.01, False, -1), ("sign",))


def starts() -> Iterator[Training]:
    dead = named("dead_initialization")

    def started(change: Callable[[Params], None], kind: str = "sgd", **model: Any) -> Any:
        def run(rng: np.random.Generator) -> Any:
            x, y = classes("digits")
            sizes = model.get("sizes", (64, 32, 32, 10))
            params = weights(rng, sizes, np.float32, model.get("gain", 1.0))
            change(params)
            fit = network(model.get("activation", "relu"))
            optimizer, options = chosen(kind)
            return trained(fit, params, (x, y), model.get("lr", RATES[kind]), optimizer, **options)

        return run

    def fill(value: float) -> Callable[[Params], None]:
        def change(params: Params) -> None:
            for name, array in params.items():
                array[...] = value if name.startswith("W") else 0

        return change

    def nothing(params: Params) -> None:
        pass

    def off(params: Params) -> None:
        params["b0"][...] = -100

    for kind in ("sgd", "adam"):
        yield Training(f"zero weights, {kind}", dead, started(fill(0.0), kind))
        stuck = dead | named("plateau", "noise_floor", "no_progress")
        yield Training(f"constant weights, {kind}", stuck, started(fill(0.05), kind))
    yield Training("units that are off", dead, started(off))
    deep = (64, *[32] * 8, 10)
    fade = dead | named("vanishing_gradients")
    sigmoids = started(nothing, activation="sigmoid", sizes=deep)
    yield Training("a stack of sigmoids", fade, sigmoids)
    small = started(nothing, activation="tanh", sizes=deep, gain=0.15)
    yield Training("weights too small, deep", fade, small)
    saturated = started(nothing, activation="tanh", gain=200.0)
    high = named("learning_rate_too_high", "exploding_gradients")
    yield Training("saturated units", fade | high, saturated)
    large = started(nothing, sizes=deep, gain=6.0, lr=0.01)
    yield Training("weights too large, deep", high | named("nonfinite_data_or_loss"), large)
    good = started(nothing, activation="tanh", gain=0.7)
    yield Training("good, tanh", GOOD, good)


def others() -> Iterator[Training]:
    def spoilt(rng: np.random.Generator) -> Any:
        x, y = classes("wine")
        x[7, 3] = np.nan
        return trained(network(), weights(rng, SIZES["wine"], np.float32), (x, y), 0.05)

    yield Training("a NaN in the data", named("nonfinite_data_or_loss"), spoilt)

    def memorized(rng: np.random.Generator) -> Any:
        x, y = classes("digits")
        params = weights(rng, (64, 128, 10), np.float32)
        wrong = np.where(rng.random(60) < 0.4, rng.integers(0, 10, 60), y[:60])
        few, rest = (x[:60], wrong), (x[60:600], y[60:600])
        return trained(network(), params, few, 3e-3, "adam", epochs=150, validation=rest)

    yield Training("overfitting", named("overfitting"), memorized)

    def sequences(rng: np.random.Generator, gain: float, lr: float) -> Any:
        x = rng.standard_normal((400, 20)).astype(np.float32)
        y = np.tanh(x[:, -4:].sum(1)).astype(np.float32)
        n = 16
        params = {
            "W": (gain * rng.standard_normal((n, n)) / np.sqrt(n)).astype(np.float32),
            "u": rng.standard_normal(n).astype(np.float32),
            "v": (rng.standard_normal(n) / n).astype(np.float32),
        }
        return trained(recurrent, params, (x, y), lr, "rmsprop")

    yield Training("good, recurrent", GOOD, lambda rng: sequences(rng, 0.5, 2e-3))
    low = named("learning_rate_too_low")
    yield Training("rate too low, recurrent", low, lambda rng: sequences(rng, 0.5, 2e-6))
    burst = named("exploding_gradients", "learning_rate_too_high")
    yield Training("weights too large, recurrent", burst, lambda rng: sequences(rng, 6.0, 2e-3))

    def still(rng: np.random.Generator) -> Any:
        return classified("digits", "sgd", 0.0)(rng)

    yield Training("a rate of 0", low, still)

    def chance(rng: np.random.Generator) -> Any:
        x, _ = classes("digits")
        y = rng.integers(0, 10, len(x))
        return trained(network(), weights(rng, (64, 10), np.float32), (x, y), 0.02, epochs=10)

    # Nothing can be gained: it may be named as noise, but must not be praised.
    yield Training("labels at random", named("plateau", "noise_floor", "no_progress"), chance)


def collection() -> list[Training]:
    return [*rates(), *regressions(), *starts(), *others()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="list also what is kept apart and wrong")
    options = parser.parse_args()
    counts = {"seen": [0, 0], "kept apart": [0, 0]}
    praised = alarms = good = failing = 0
    for number, training in enumerate(collection()):
        half = "kept apart" if number % 2 else "seen"
        found = fastgd.diagnose(training.run(np.random.default_rng([options.seed, number])))
        text = repr(found).lower()
        words = not training.words or any(word in text for word in training.words)
        right = found.verdict in training.right and words
        counts[half][0] += right
        counts[half][1] += 1
        if training.right == GOOD:
            good += 1
            alarms += not right
        else:
            failing += 1
            praised += found.verdict == "healthy"
        if not right and (half == "seen" or options.all):
            print(f"  {half}: {training.name}: {found.verdict}: {found.summary}")
    for half, (right_ones, count) in counts.items():
        print(f"{half}: {right_ones} of {count} right, {right_ones / count:.0%}")
    print(
        f"called healthy: {praised} of {failing} that fail; false alarms: {alarms} of {good} good ones"
    )


if __name__ == "__main__":
    main()
