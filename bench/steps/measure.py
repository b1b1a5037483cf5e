"""The measurements of one process, which has one number of threads.

Run by report.py, in a child whose environment says how many threads OpenMP, BLAS and XLA may use:
most libraries read that once, when they are loaded.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import fastgd
from bench.steps.peers import BOUND, CONTESTANTS, FASTGD, Factory, Unavailable
from bench.steps.timing import QUICK, Contestant, Effort, Timing, interleave
from bench.steps.workloads import LR, Array, Case, Rule, all_cases, on_threads

UNCLIPPED = "fastgd, no clip"
STEPS = 3  # taken and compared before anything is timed
DENORMAL_SIZE = 1_000_000
ARRAY_COUNTS = (200, 2_000)
ARRAY_SIZES = (10, 100)  # small: with more, the memory is measured


def child_environment(threads: int) -> dict[str, str]:
    """What makes the libraries use so many threads. NPROC is XLA's."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
    counts = dict.fromkeys(names, str(threads))
    return {**os.environ, **counts, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}


# --- the step of every library ---


def updates_of(contestant: Contestant) -> list[Array]:
    """What STEPS steps add to the parameters."""
    before = [np.array(p) for p in contestant.params()]
    for _ in range(STEPS):
        contestant.prepare()
        contestant.calls(1)
    return [p - q for p, q in zip(contestant.params(), before, strict=True)]


def difference(updates: list[Array], expected: list[Array]) -> str | None:
    """How the updates differ from fastgd's beyond rounding, or None."""
    largest = max(float(np.abs(e).max()) for e in expected)
    # Parameters are less than 1, and each of the steps rounds them once or twice.
    tolerance = 1e-3 * largest + 2 * STEPS * 2.0**-24
    error = max(float(np.abs(u - e).max()) for u, e in zip(updates, expected, strict=True))
    if error <= tolerance:  # false for a NaN
        return None
    return f"not fastgd's result: off by {error:.2g} where the largest update is {largest:.2g}"


def enter(
    case: Case, threads: int, factories: Mapping[str, Factory]
) -> tuple[dict[str, Contestant], dict[str, str]]:
    """Contestants that do what fastgd does, and for the others the reason why not."""
    taking_part: dict[str, Contestant] = {}
    missing: dict[str, str] = {}
    reference = CONTESTANTS[FASTGD](case, threads)
    expected = updates_of(reference)
    if not all(np.abs(e).min() > 0 for e in expected):
        raise AssertionError(f"fastgd left parameters as they were in {case.key}")
    for name, factory in factories.items():
        try:
            contestant = factory(case, threads)
            updates = updates_of(contestant)
        except Exception as error:  # whatever a library raises, the others are measured
            known = isinstance(error, Unavailable)
            missing[name] = str(error) if known else f"{type(error).__name__}: {error}"
            continue
        wrong = None if name == BOUND else difference(updates, expected)
        if name == BOUND and not all(np.abs(u).min() > 0 for u in updates):
            wrong = "it left memory as it was"
        if wrong:
            missing[name] = wrong
        else:
            taking_part[name] = contestant
    return taking_part, missing


def unclipped(case: Case, threads: int) -> Contestant:
    return CONTESTANTS[FASTGD](Case(case.rule, case.shape, clip=False), threads)


def measure_case(case: Case, threads: int, effort: Effort) -> dict[str, Any]:
    contestants, missing = enter(case, threads, CONTESTANTS)
    if case.clip:  # in the same run, for the price of clipping
        contestants[UNCLIPPED] = unclipped(case, threads)
    timings = interleave(contestants, effort)
    return {
        "threads": threads,
        "rule": case.rule.name,
        "shape": case.shape,
        "clip": case.clip,
        "timings": as_dicts(timings),
        "missing": missing,
        "notes": {name: c.note for name, c in contestants.items() if c.note},
    }


def as_dicts(timings: Mapping[str, Timing]) -> dict[str, Any]:
    return {name: timing.as_dict() for name, timing in timings.items()}


# --- fastgd against itself ---


def fastgd_over(
    optimizer: str, params: list[Array], grads: list[Array], **options: Any
) -> Contestant:
    made = getattr(fastgd, optimizer)(params, lr=LR, **options)
    return Contestant(lambda: made.step(grads), lambda: params)


def measure_array_counts(threads: int, effort: Effort) -> Iterable[dict[str, Any]]:
    """AdamW over few and many arrays of the same size."""
    fastgd.set_num_threads(threads)
    for size in ARRAY_SIZES:
        contestants = {}
        for count in ARRAY_COUNTS:
            params = [np.ones(size, np.float32) for _ in range(count)]
            grads = [np.full(size, 0.01, np.float32) for _ in range(count)]
            contestants[str(count)] = fastgd_over("AdamW", params, grads)
        timings = interleave(contestants, effort)
        yield {"threads": threads, "size": size, "timings": as_dicts(timings)}


def measure_denormals(
    threads: int, effort: Effort, rules: Iterable[Rule]
) -> Iterable[dict[str, Any]]:
    """Gradients that are denormal throughout, against normal ones."""
    fastgd.set_num_threads(threads)
    for rule in rules:
        contestants = {}
        for name, value in (("normal", 1e-2), ("denormal", 1e-41)):
            params = [np.ones(DENORMAL_SIZE, np.float32)]
            grads = [np.full(DENORMAL_SIZE, value, np.float32)]
            contestants[name] = fastgd_over(rule.optimizer, params, grads, **rule.options)
        timings = interleave(contestants, effort)
        yield {"threads": threads, "rule": rule.name, "timings": as_dicts(timings)}


# --- the process ---


def collect(threads: int, effort: Effort, only: re.Pattern[str]) -> dict[str, list[dict[str, Any]]]:
    cases = [case for case in all_cases() if only.search(case.key)]
    groups = []
    for number, case in enumerate(cases, 1):
        print(
            f"[{number}/{len(cases)}] {on_threads(threads)}: {case.key}",
            file=sys.stderr,
            flush=True,
        )
        groups.append(measure_case(case, threads, effort))
        forget()
    rules = list({case.rule.name: case.rule for case in all_cases()}.values())
    arrays = measure_array_counts(threads, effort) if only.search("arrays") else ()
    denormals = measure_denormals(threads, effort, rules) if only.search("denormals") else ()
    return {"groups": groups, "arrays": list(arrays), "denormals": list(denormals)}


def forget() -> None:
    """Drop what the last case has left, compiled functions included."""
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    gc.collect()


def main() -> None:
    parser = argparse.ArgumentParser(description="measures for report.py")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    effort = QUICK if given.quick else Effort()
    results = collect(given.threads, effort, re.compile(given.only))
    given.out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
