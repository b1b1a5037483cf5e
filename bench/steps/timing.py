"""Alternating blocks of calls: how contestants are timed against each other in one run.

A lone call finds caches, clocks and thread pools cold, and two runs one after the other see two
different machines. So each contestant in turn runs a few calls to warm up and then a block of calls;
the order is drawn anew in each round, and the median over the rounds counts.
"""

from __future__ import annotations

import functools
import gc
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bench.steps.workloads import Array


def nothing() -> None:
    pass


def no_arrays() -> list[Array]:
    return []


@dataclass
class Contestant:
    """One library's step over arrays of its own.

    Attributes:
        step: takes one step.
        params: the parameters as they are now.
        prepare: puts back what a step uses up; before each turn, not timed.
        finish: waits for steps that run in the background; at the end of a block, timed.
        run: takes that many steps, for code that can count by itself.
        note: what a reader of the figure has to know.
    """

    step: Callable[[], object] = nothing
    params: Callable[[], list[Array]] = no_arrays
    prepare: Callable[[], object] = nothing
    finish: Callable[[], object] = nothing
    run: Callable[[int], object] | None = None
    note: str = ""

    def calls(self, count: int) -> None:
        if self.run is not None:
            self.run(count)
            return
        step = self.step
        for _ in itertools.repeat(None, count):
            step()
        self.finish()

    def once(self) -> Callable[[], object]:
        """A step by itself, with as little around it as can be."""
        if self.run is not None:
            return functools.partial(self.run, 1)
        return self.step if self.finish is nothing else functools.partial(self.calls, 1)


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int = 11
    seconds: float = 0.02  # of a block
    least_calls: int = 3
    pause: float = 0.01  # before a turn: idle workers of the previous thread pool stop spinning
    seed: int = 0


QUICK = Effort(rounds=3, seconds=0.005, pause=0.002)


@dataclass(frozen=True)
class Timing:
    """Seconds per call: one sample for each round."""

    calls: int
    samples: list[float] = field(repr=False)
    cores: float  # CPU time of all threads of the process over elapsed time, median

    @property
    def median(self) -> float:
        return float(np.median(self.samples))

    @property
    def spread(self) -> float:
        """Distance of the quartiles over the median."""
        low, high = np.percentile(self.samples, [25, 75])
        return float(high - low) / self.median

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "median": self.median, "spread": self.spread}


def block(contestant: Contestant, calls: int) -> tuple[float, float]:
    """Seconds per call, and cores in use."""
    cpu = time.process_time()
    start = time.perf_counter()
    contestant.calls(calls)
    elapsed = time.perf_counter() - start
    return elapsed / calls, (time.process_time() - cpu) / elapsed


def calibrate(contestant: Contestant, effort: Effort) -> int:
    """How many calls make a block."""
    calls = 1
    while True:
        contestant.prepare()
        per_call, _ = block(contestant, calls)
        if per_call * calls >= effort.seconds / 4:
            return max(effort.least_calls, math.ceil(effort.seconds / per_call))
        calls *= 4


def interleave(contestants: Mapping[str, Contestant], effort: Effort) -> dict[str, Timing]:
    """Time all contestants against each other."""
    calls = {name: calibrate(contestant, effort) for name, contestant in contestants.items()}
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    rng = np.random.default_rng(effort.seed)
    names = list(contestants)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(effort.rounds):
            for i in rng.permutation(len(names)):
                contestant, count = contestants[names[i]], calls[names[i]]
                contestant.prepare()
                time.sleep(effort.pause)
                contestant.calls(max(1, count // 10))
                samples[names[i]].append(block(contestant, count))
    finally:
        if collecting:
            gc.enable()
    return {
        name: Timing(
            calls[name],
            [seconds for seconds, _ in pairs],
            float(np.median([cores for _, cores in pairs])),
        )
        for name, pairs in samples.items()
    }
