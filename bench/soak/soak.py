"""Hours of random use, every result of which is compared with the NumPy reference bit for bit.

    python -m bench.soak.soak [--seconds 60] [--seed 0] [--round N]

Each round draws a problem: optimizer, options, groups of arrays in some layout and tree (one model in
four has arrays that are stepped by several threads), gradients of any dtype and layout, number of
threads. Its optimizer takes a few steps beside that of tests/reference.py, and between them meets
faults: gradients that must be refused, NaN and infinities to be skipped or raised, damaged
checkpoints, a forked child that steps. Every other round is then played again with other thread
counts and interruptions, at each of which a checkpoint is saved and loaded into a fresh optimizer; it
must end with the same bits as the round that was not interrupted.

The resident memory after the warm-up (the first third, at most two minutes) and at the end may differ
by ALLOWANCE. Exit status 1 if it grows by more, or at the first mismatch, of which the seed and the
round are printed: with `--round` that round runs alone, since rounds do not depend on one another.

The engine builds without fused multiply-add are compared bit for bit too, with a reference that rounds
twice. Memory is measured on Linux only. Needs what the tests need: pip install "fastgd[test]".
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import gc
import hashlib
import itertools
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

import fastgd
from tests.cases import falling, wavy
from tests.checkpoint.objects import frozen
from tests.engine import fuzzing
from tests.engine.fork_scenarios import in_child
from tests.engine.fuzzing import Problem, Spec, Step, refilled
from tests.engine.test_fuzz import Run, surroundings
from tests.fma import Array
from tests.reference import OPTIMIZERS
from tests.support import bits, tame

ALLOWANCE = 32 * 2**20  # bytes: what fragmentation and caches of the interpreter may add
WARM_UP = 120.0  # seconds at most
PROGRESS = 10.0  # seconds between two lines
LARGE = [(262_145,), (300_001,), (520, 510), (2, 140_001), (1, 280_000, 1), (524_291,)]
KINDS = ("rounds", "steps", "checkpoints", "faults")
T = TypeVar("T")


# --- random problems ---


def pick(rng: np.random.Generator, values: Sequence[T]) -> T:
    """One of the values, as it is."""
    return values[int(rng.integers(len(values)))]


def hyperparameters(optimizer: str, rng: np.random.Generator) -> dict[str, Any]:
    """Any valid combination: special values and schedules, or numbers without a pattern."""
    ranges = fuzzing.RANGES[optimizer] | {"lr": fuzzing.LR, "maximize": [False, True]}
    ranges["weight_decay"] = fuzzing.WEIGHT_DECAY
    chosen = {name: pick(rng, values) for name, values in ranges.items()}
    anything = {
        "lr": float(10.0 ** rng.uniform(-4, 0)),
        "weight_decay": float(rng.uniform(0, 0.5)),
        "momentum": float(rng.uniform(0.01, 1)),
        "dampening": float(rng.uniform(-0.5, 1)),
        "betas": (float(rng.random()), float(1 - 10.0 ** rng.uniform(-4, 0))),
        "alpha": float(rng.random()),
        "eps": float(10.0 ** rng.uniform(-12, 0)),
    }
    chosen |= {name: x for name, x in anything.items() if name in chosen and rng.random() < 0.4}
    if chosen.get("nesterov"):
        chosen["momentum"], chosen["dampening"] = chosen["momentum"] or 0.9, 0
    return chosen


def random_spec(shapes: Sequence[tuple[int, ...]], rng: np.random.Generator) -> Spec:
    return Spec(
        pick(rng, shapes),
        pick(rng, ["float32", "float64"]),
        pick(rng, fuzzing.PARAMETER_LAYOUTS),
        pick(rng, [None] * 9 + list(fuzzing.REFUSED_LAYOUTS)),
    )


def random_groups(rng: np.random.Generator) -> list[list[Spec]]:
    sizes = rng.integers(1, 6, size=rng.integers(1, 4))
    groups = [[random_spec(fuzzing.SHAPES, rng) for _ in range(size)] for size in sizes]
    if rng.random() < 0.25:
        for _ in range(rng.integers(1, 3)):
            pick(rng, groups)[0] = random_spec(LARGE, rng)
    return groups


def random_step(rng: np.random.Generator) -> Step:
    return Step(
        dtype=pick(rng, fuzzing.GRADIENT_DTYPES),
        layout=pick(rng, fuzzing.GRADIENT_LAYOUTS),
        missing=pick(rng, [0.0, 0.0, 0.3, 1.0]),
        special=pick(rng, [None] * 10 + ["zero", "nan", "inf", "tiny", "huge"]),
        scale=pick(rng, [1.0, 1.0, 1, 0.5, -2.0, 0.0, 1e-3]),
        event=pick(rng, [None] * 6 + ["reload", "rebind", "assign"]),
    )


def random_problem(rng: np.random.Generator) -> Problem:
    optimizer = pick(rng, OPTIMIZERS)
    groups = random_groups(rng)
    return Problem(
        optimizer=optimizer,
        groups=groups,
        hyper=[hyperparameters(optimizer, rng) for _ in groups],
        nesting=int(rng.integers(4)),
        listed=bool(rng.integers(2)),
        options={
            "clip_norm": pick(rng, [None, None, 0.5, 100.0, wavy]),
            "clip_value": pick(rng, [None, None, 0.01, 2.0, falling]),
            "nonfinite": pick(rng, ["propagate", "raise", "skip"]),
        },
        steps=[random_step(rng) for _ in range(rng.integers(1, 7))],
        threads=int(rng.integers(5)),
        track=bool(rng.integers(2)),
        seed=int(rng.integers(2**32)),
    )


def snapshot(opt: Any) -> Any:
    """All of an optimizer, to be compared with ==; every NaN counts as the same one."""
    saved = opt.state_dict()
    saved["state"] = {
        name: {slot: bits(x) if isinstance(x, np.ndarray) else x for slot, x in entry.items()}
        for name, entry in saved["state"].items()
    }
    return frozen({**saved, "params": {name: bits(p) for name, p in opt.params.items()}})


def digest(opt: Any) -> str:
    return hashlib.sha256(repr(snapshot(opt)).encode()).hexdigest()


def present(run: Run) -> list[Array]:
    """The arrays that the optimizer has by now."""
    return run.arrays[: run.ends[run.present - 1]]


def structured(run: Run, leaves: list[Array]) -> Any:
    """Gradients as the optimizer takes them."""
    rest = list(leaves)
    trees = tuple(refilled(tree, rest) for tree in run.trees[: run.present])
    return trees if len(run.opt.param_groups) > 1 else trees[0]


# --- faults ---


@contextlib.contextmanager
def refused(opt: Any, *kinds: type[Exception]) -> Iterator[None]:
    """The block must raise one of these and change nothing."""
    before = snapshot(opt)
    try:
        yield
    except kinds:
        assert snapshot(opt) == before, "what was refused has changed something"
    else:
        raise AssertionError(f"not refused with one of {[kind.__name__ for kind in kinds]}")


def bad_gradient(run: Run, rng: np.random.Generator, path: Path) -> None:
    """Gradients of a wrong shape, dtype or structure, in the parameter's memory, or a NaN as scale."""
    leaves = [tame(rng, p.shape, p.dtype) for p in present(run)]
    i = int(rng.integers(len(leaves)))
    p = run.arrays[i]
    scale = 1.0
    kind = pick(rng, ["shape", "dtype", "byte order", "parameter", "structure", "scale"])
    if kind == "dtype":
        leaves[i] = np.ones(p.shape, np.int64)
    elif kind == "byte order":
        leaves[i] = np.ones(p.shape, p.dtype.newbyteorder())
    elif kind == "parameter" and p.size:
        leaves[i] = p
    elif kind == "scale":
        scale = float("nan")
    elif kind != "structure":
        leaves[i] = np.ones((*p.shape, 2), p.dtype)
    grads = structured(run, leaves)
    with refused(run.opt, TypeError, ValueError):
        run.opt.step({"absent": grads} if kind == "structure" else grads, scale)


def nonfinite_gradient(run: Run, rng: np.random.Generator, path: Path) -> None:
    """One NaN or infinity among all gradients, to be skipped or raised."""
    filled = [i for i, p in enumerate(present(run)) if p.size]
    if not filled:
        bad_gradient(run, rng, path)
        return
    leaves = [tame(rng, p.shape, p.dtype) for p in present(run)]
    leaf = leaves[pick(rng, filled)]
    leaf.flat[int(rng.integers(leaf.size))] = pick(rng, [np.nan, np.inf, -np.inf])
    grads, kept = structured(run, leaves), run.opt.nonfinite
    run.opt.nonfinite = "raise"
    with refused(run.opt, FloatingPointError):
        run.opt.step(grads)
    run.opt.nonfinite = "skip"
    before = snapshot(run.opt)
    assert run.opt.step(grads) is False, "a non-finite gradient was not skipped"
    assert snapshot(run.opt) == before, "a skipped step has changed something"
    run.opt.nonfinite = kept


def damaged_checkpoint(run: Run, rng: np.random.Generator, path: Path) -> None:
    """A checkpoint with one bit flipped, or cut off."""
    fastgd.save(path, run.opt)
    content = bytearray(path.read_bytes())
    at = int(rng.integers(len(content)))
    if rng.random() < 0.8:
        content[at] ^= 1 << int(rng.integers(8))
    else:
        del content[at:]
    path.write_bytes(content)
    with refused(run.opt, fastgd.CheckpointError):
        fastgd.load(path, run.opt)


def forked_child(run: Run, step: Step) -> str:
    """The digest after this step, taken by a fork of this process, in which it is compared as here."""

    def child() -> str:
        run.take(step)
        return digest(run.opt)

    return in_child(child, seconds=300)


FAULTS = (bad_gradient, nonfinite_gradient, damaged_checkpoint)


# --- a round ---


def restart(run: Run, path: Path) -> None:
    """Save, forget parameters, state and learning rates, and go on from the file."""
    fastgd.save(path, run.opt, metadata={"names": list(run.opt.params)})
    before, count = snapshot(run.opt), len(present(run))
    forgotten: list[Array] = [np.full_like(p, 7) for p in run.arrays[:count]]
    run.arrays = [*forgotten, *run.arrays[count:]]
    leaves = list(run.arrays)
    run.trees = [refilled(tree, leaves) for tree in run.trees]
    hyper = run.hyper
    run.hyper = [h if callable(h["lr"]) else {**h, "lr": 7.0} for h in hyper]
    run.opt = run.make()
    run.hyper = hyper
    loaded = fastgd.load(path, run.opt)
    assert loaded.metadata == {"names": list(run.opt.params)}
    assert snapshot(run.opt) == before, "loaded something else than was saved"


def play(
    problem: Problem, rng: np.random.Generator, path: Path, counts: Counter[str], interrupted: bool
) -> Any:
    """Take all steps, with interruptions or with faults between them; returns what comes out.

    Neither draws from the generator of the run, so both have the same gradients.
    """
    run = Run(problem)
    arrays, outside = run.arrays, surroundings(run.arrays)
    shared = any(isinstance(p, np.memmap) for p in arrays)  # a child would step the parent's
    run.compare()
    for step in problem.steps:
        run.event(step.event)
        in_fork = None
        if interrupted and rng.random() < 0.5:
            restart(run, path)
            counts["checkpoints"] += 1
        elif not interrupted and rng.random() < 0.1 and not shared:
            in_fork = forked_child(run, step)
            counts["faults"] += 1
        elif not interrupted and rng.random() < 0.5:
            pick(rng, FAULTS)(run, rng, path)
            counts["faults"] += 1
        run.take(step)
        counts["steps"] += 1
        assert in_fork in (None, digest(run.opt)), "a forked child has stepped to other bits"
        if run.present < len(run.trees):
            number = run.present
            run.opt.add_param_group({"params": run.trees[number], **run.hyper[number]})
            run.present += 1
    assert surroundings(arrays) == outside, "something beside the parameters was written"
    return snapshot(run.opt)


def play_round(seed: int, number: int, path: Path, counts: Counter[str]) -> None:
    rng = np.random.default_rng([seed, number])
    problem = random_problem(rng)
    with fastgd.num_threads(problem.threads or None):
        expected = play(problem, rng, path, counts, interrupted=False)
    if rng.random() < 0.5:
        with fastgd.num_threads(int(rng.integers(5)) or None):
            found = play(problem, rng, path, counts, interrupted=True)
        assert found == expected, "with interruptions the round ends otherwise"
    counts["rounds"] += 1


# --- the whole ---


def resident() -> int | None:
    """Bytes of this process in memory, garbage not counted; None where that cannot be known."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(seconds: float, seed: int, rounds: Iterable[int], path: Path) -> int:
    """Play rounds until the time is over; the exit status."""
    counts: Counter[str] = Counter()
    start = shown = time.monotonic()
    warm, elapsed = None, 0.0
    for number in rounds:
        try:
            play_round(seed, number, path, counts)
        except (Exception, pytest.fail.Exception):
            traceback.print_exc()
            print(f"mismatch: python -m bench.soak.soak --seed {seed} --round {number}")
            return 1
        now = time.monotonic()
        elapsed = now - start
        if warm is None and elapsed >= min(seconds / 3, WARM_UP):
            warm = resident()
        if sys.stderr.isatty() and now - shown >= PROGRESS:
            shown = now
            print(f"{elapsed:.0f} s: {dict(counts)}", file=sys.stderr)
        if elapsed >= seconds:
            break
    growth = None if warm is None else (resident() or 0) - warm
    return summary(f"soak of {elapsed:.0f} s, seed {seed}", counts, growth)


def summary(title: str, counts: Counter[str], growth: int | None) -> int:
    """Print the last line; the exit status."""
    memory = "not measured" if growth is None else f"{growth / 2**20:+.1f} MiB"
    done = ", ".join(f"{counts[name]} {name}" for name in KINDS)
    failed = growth is not None and growth > ALLOWANCE
    verdict = f"GROWN by more than {ALLOWANCE >> 20} MiB" if failed else "all as the reference"
    print(f"{title}: {done}, memory {memory}: {verdict}")
    return int(failed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=0, help="of all rounds")
    parser.add_argument("--round", type=int, help="only this one")
    arguments = parser.parse_args()
    if not __debug__:
        parser.error("the comparisons are assertions: start Python without -O")
    faulthandler.enable()
    warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
    rounds = itertools.count() if arguments.round is None else [arguments.round]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "soak.npz")
        return soak(arguments.seconds, arguments.seed, rounds, path)


if __name__ == "__main__":
    sys.exit(main())
