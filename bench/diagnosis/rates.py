"""What `find_lr` suggests, against the best constant rate of a grid.

    python -m bench.diagnosis.rates [--seeds 2]

For each problem and optimizer a grid of 12 rates, half a decade apart (from 1e-5, SGD's from 3e-5): the
best is that with the lowest loss over all data after 300 steps, mean of the seeds. Two sets: the problems
of the tests, and those of held_out.py, which the way to the suggestion was not chosen by. "near" counts
also rates as good as the grid's best but for 20 % of its loss.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

import fastgd
from bench.diagnosis import held_out
from tests.diagnostics import runs

SETS: dict[str, list[Callable[[np.random.Generator], Any]]] = {
    "of the tests": [
        runs.a_linear_regression,
        runs.a_logistic_regression,
        runs.a_network,
        runs.a_regression_network,
    ],
    "kept apart": [
        held_out.a_digits_network,
        held_out.a_softmax_regression,
        held_out.a_poisson_regression,
        held_out.a_factorization,
        held_out.an_autoencoder,
        held_out.a_regression_on_digits,
    ],
}
OPTIMIZERS: list[tuple[str, dict[str, Any], int | None]] = [
    ("sgd", {}, 32),
    ("sgd", {"momentum": 0.9}, 32),
    ("adam", {}, 32),
    ("rmsprop", {}, 32),
    ("sgd", {}, None),
]
GRID, STEPS, NEAR, FACTOR = 12, 300, 1.2, 3.0


def end_of(setup: Any, name: str, options: dict[str, Any], batch: int | None, lr: float) -> float:
    """The loss over all data after a training."""
    try:
        with np.errstate(all="ignore"):
            run = fastgd.minimize(
                setup.value_and_grad,
                setup.params,
                data=setup.data or None,
                optimizer=name,
                lr=lr,
                batch_size=batch,
                steps=STEPS,
                copy=True,
                **options,
            )
            loss = float(setup.value_and_grad(run.params, *setup.data)[0])
    except FloatingPointError:
        return math.inf
    return loss if math.isfinite(loss) else math.inf


def measure(problem: Any, name: str, options: Any, batch: int | None, seeds: int) -> list[Any]:
    """For each seed: suggestion over the grid's best, and its distance from the rates that are near it."""
    setups = [problem(np.random.default_rng(100 + seed)) for seed in range(seeds)]
    grid = 10.0 ** (np.arange(GRID) / 2 - (4.5 if name == "sgd" else 5.0))
    losses = np.array(
        [
            statistics.mean(end_of(setup, name, options, batch, lr) for setup in setups)
            for lr in grid
        ]
    )
    best, near = (
        grid[losses.argmin()],
        grid[losses <= losses.min() + (NEAR - 1) * abs(losses.min())],
    )
    found = []
    for setup in setups:
        with np.errstate(all="ignore"):
            suggested = fastgd.find_lr(
                setup.value_and_grad,
                setup.params,
                setup.data or None,
                name,
                batch_size=batch,
                **options,
            ).suggestion
        if suggested is None:
            found.append((math.nan, math.inf))
        else:
            away = max(near.min() / suggested, suggested / near.max(), 1.0)
            found.append((suggested / best, away))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    for title, problems in SETS.items():
        print(f"\n{title}: suggestion / best of the grid, by seed")
        exact = close = total = 0
        for problem in problems:
            has_batches = bool(problem(np.random.default_rng(0)).data)
            for name, options, batch in OPTIMIZERS:
                if not has_batches and batch is not None:
                    continue
                found = measure(problem, name, options, batch, args.seeds)
                total += len(found)
                exact += sum(1 / FACTOR <= ratio <= FACTOR for ratio, _ in found)
                close += sum(away <= FACTOR for _, away in found)
                label = f"{name}{' momentum' if options else ''}, {batch or 'all data'}"
                ratios = "  ".join(f"{ratio:7.2f}" for ratio, _ in found)
                print(f"  {problem.__name__:24} {label:20} {ratios}", flush=True)
        print(
            f"  within {FACTOR:g}: {exact} of {total}; of a rate near the best: {close} of {total}"
        )


if __name__ == "__main__":
    main()
