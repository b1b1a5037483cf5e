"""What `diagnose` is tested on: setups, how they are trained, and whether they went as intended.

diagnosis_families.py makes setups that go wrong in a known way, and others that go well, of the
problems at the end of this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import fastgd
from fastgd.training import minimize
from tests.diagnostics import problems as dp


@dataclass(frozen=True)
class Setup:
    """What to train, and how."""

    value_and_grad: dp.ValueAndGrad
    params: Any
    optimizer: Callable[[Any], Any]
    data: tuple[Any, ...] = ()
    batch_size: int | None = None
    steps: int = 400
    validation: tuple[Any, ...] = ()
    seed: int = 0
    accept: tuple[str, ...] = ()  # verdicts that are right besides the family's own
    reference: Setup | None = None  # the same without the fault, to see what it cost


Family = Callable[[np.random.Generator], Setup]


@dataclass(frozen=True)
class Outcome:
    """A run: its result, and the loss over all samples at 21 points of it, the last at its end."""

    result: fastgd.training.Result
    checkpoints: dp.Array


def train(setup: Setup) -> Outcome:
    """Train a copy."""
    checkpoints = [setup.value_and_grad(setup.params, *setup.data)[0]]
    every = max(1, setup.steps // 20)

    def look(info: Any) -> None:
        if info.step % every == 0:
            checkpoints.append(setup.value_and_grad(info.params, *setup.data)[0])

    result = minimize(
        setup.value_and_grad,
        setup.params,
        data=setup.data or None,
        optimizer=setup.optimizer,
        batch_size=setup.batch_size,
        steps=setup.steps,
        validation=setup.validation or None,
        validation_every=max(1, setup.steps // 30) if setup.validation else None,
        callback=look,
        copy=True,
        progress=False,
        seed=setup.seed,
    )
    if result.reason.startswith("nonfinite"):
        checkpoints.append(np.nan)
    return Outcome(result, np.array(checkpoints))


def labelled_rightly(verdict: str, setup: Setup, outcome: Outcome) -> bool:
    """Whether the run did go wrong in this way, by the loss over all samples.

    A draw with ten times the stable learning rate may train well all the same. Such draws have no right
    answer, and are left out.
    """
    path = outcome.checkpoints
    if not np.isfinite(path).all():
        return verdict in (
            "learning_rate_too_high",
            "exploding_gradients",
            "nonfinite_data_or_loss",
        )
    start, middle, end = path[0], path[10:16].mean(), path[16:].mean()
    if verdict == "healthy" and setup.validation:
        v = outcome.result.history.validation_loss
        if v[-1] - v.min() > 0.02 * (v[0] - v.min()):
            return False
    if setup.reference is None:
        return bool(end < start) if verdict == "healthy" else True
    best = train(setup.reference).checkpoints[-1]
    gained, possible, late = start - end, start - best, middle - end
    return bool(
        {
            "healthy": gained > 0.5 * possible,
            "learning_rate_too_high": gained < 0.5 * possible,
            "vanishing_gradients": gained < 0.5 * possible,
            "learning_rate_too_low": gained < 0.1 * possible,
            "plateau": late < 0.02 * possible and gained < 0.9 * possible,
            "noise_floor": late < 0.05 * possible
            and end - best > 0.02 * possible
            and end - best > 0.15 * abs(end),
        }[verdict]
    )


# --- choosing ---


def pick(rng: np.random.Generator, *choices: Any) -> Any:
    return choices[rng.integers(len(choices))]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Log-uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def sgd(lr: Any, momentum: float = 0.0) -> Callable[[Any], Any]:
    return lambda params: fastgd.SGD(params, lr=lr, momentum=momentum)


def adam(lr: Any) -> Callable[[Any], Any]:
    return lambda params: fastgd.Adam(params, lr=lr)


def stable(setup: Setup, samples: int = 256) -> float:
    """2 / λmax at the start."""
    batch = tuple(array[:samples] for array in setup.data)
    return 2 / dp.sharpness(setup.value_and_grad, setup.params, *batch)


def against(setup: Setup, optimizer: Any, **changes: Any) -> Setup:
    """The setup with `optimizer`; as it stands it is the reference."""
    return replace(setup, optimizer=optimizer, reference=setup, **changes)


# --- problems that nothing is wrong with; the learning rate is the caller's ---

none: Any = None  # an optimizer to be chosen


def a_quadratic(rng: np.random.Generator) -> Setup:
    eigenvalues = np.geomspace(1, between(rng, 2, 60), int(rng.integers(5, 60)))
    eigenvalues *= between(rng, 1e-3, 1e3)
    x = rng.standard_normal(eigenvalues.size) * between(rng, 0.1, 10)
    return Setup(dp.quadratic(eigenvalues), x, none, steps=int(rng.integers(200, 800)))


def a_linear_regression(rng: np.random.Generator, noise: float = 0.1) -> Setup:
    d = int(rng.integers(3, 30))
    data = dp.regression(rng, int(rng.integers(200, 600)), d, noise, linear=True)
    params = {"w": np.zeros(d), "b": np.zeros(1)}
    return Setup(dp.least_squares, params, none, data, steps=int(rng.integers(200, 800)))


def a_logistic_regression(rng: np.random.Generator, flipped: float = 0.1) -> Setup:
    d = int(rng.integers(3, 30))
    x, y = dp.classes(rng, int(rng.integers(200, 600)), d, 2, flipped)
    params = {"w": np.zeros(d), "b": np.zeros(1)}
    return Setup(dp.logistic, params, none, (x, 2.0 * y - 1), steps=int(rng.integers(200, 800)))


def a_network(rng: np.random.Generator, flipped: float = 0.0) -> Setup:
    act = pick(rng, "tanh", "relu", "sigmoid")
    d, count = int(rng.integers(4, 16)), int(rng.integers(2, 6))
    hidden = [int(rng.integers(16, 40))] * (1 if act == "sigmoid" else int(rng.integers(1, 3)))
    data = dp.classes(rng, int(rng.integers(200, 500)), d, count, flipped)
    gain = {"relu": np.sqrt(2), "sigmoid": 2.0, "tanh": 1.0}[act]
    params = dp.mlp_params(rng, [d, *hidden, count], gain)
    return Setup(dp.mlp(act), params, none, data, steps=int(rng.integers(300, 800)))


def a_regression_network(rng: np.random.Generator, noise: float = 0.0) -> Setup:
    act = pick(rng, "tanh", "relu", "elu")
    d = int(rng.integers(3, 8))
    data = dp.regression(rng, int(rng.integers(200, 500)), d, noise)
    sizes = [d] + [int(rng.integers(16, 40))] * int(rng.integers(1, 3)) + [1]
    params = dp.mlp_params(rng, sizes, 1.4 if act == "relu" else 1.0)
    return Setup(dp.mlp(act, "squares"), params, none, data, steps=int(rng.integers(300, 800)))


def a_deep_network(rng: np.random.Generator) -> Setup:
    act = pick(rng, "tanh", "relu")
    d, depth = int(rng.integers(6, 14)), int(rng.integers(5, 9))
    data = dp.classes(rng, 300, d, 3)
    params = dp.mlp_params(rng, [d] + [24] * depth + [3], 1.4 if act == "relu" else 1.1)
    return Setup(dp.mlp(act), params, none, data, steps=int(rng.integers(300, 600)))


def a_sequence_task(rng: np.random.Generator) -> Setup:
    time = int(rng.integers(6, 16))
    params = dp.rnn_params(rng, 3, 16, 2, gain=rng.uniform(0.6, 1.0))
    return Setup(dp.rnn(), params, none, dp.sequences(rng, 200, time), steps=300)


CONVEX = (a_quadratic, a_linear_regression, a_logistic_regression)
NETWORKS = (a_network, a_regression_network, a_deep_network, a_sequence_task)
