"""A run that was interrupted and resumed gives the bits of the run that was not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd import schedules
from fastgd.averaging import ExponentialAverage, TailAverage
from tests.cases import CASES, Case
from tests.checkpoint.objects import everything, frozen
from tests.reference import OPTIMIZERS, SPECS
from tests.specs._spec import POSITIVE
from tests.support import child_environment
from tests.support import optimizer as make_optimizer

X = np.random.default_rng(1).standard_normal((50, 6))
Y = np.sin(X @ np.arange(6.0))
SAMPLERS: dict[str, dict[str, Any]] = {
    "shuffled": {},
    "prefetched": {"prefetch": 2},
    "weighted": {"weights": np.arange(50) % 5},
    "stratified": {"stratify": np.arange(50) % 3},
    "blocks": {"block_size": 4},
}


@dataclass
class Run:
    """All that a training run consists of. Any seed but 0 is another start, to be overwritten."""

    optimizer: Any
    sampler: fastgd.MiniBatches
    rng: np.random.Generator
    average: Any

    @classmethod
    def start(cls, name: str, make: Any, average: Any, sampling: dict[str, Any], seed: int) -> Run:
        rng = np.random.default_rng(seed)
        order: Any = "C" if SPECS[name].row_wise else "F"
        W = np.array(rng.standard_normal((6, 4)), order=order)
        params = {"W": W, "v": rng.standard_normal(4)}
        sampler = fastgd.MiniBatches(X, Y, batch_size=8, seed=seed, **sampling)
        return cls(make(params), sampler, rng, average(params))

    @property
    def objects(self) -> dict[str, Any]:
        return {"sampler": self.sampler, "rng": self.rng, "average": self.average}

    def steps(self) -> Iterator[int]:
        """Take step after step, epoch after epoch."""
        while True:
            for xb, yb in self.sampler:
                self.step(xb, yb)
                yield self.optimizer.step_count

    def step(self, xb: np.ndarray, yb: np.ndarray) -> None:
        """A small network with dropout, whose gradients are sometimes missing."""
        W, v = self.optimizer.params["W"], self.optimizer.params["v"]
        keep = self.rng.random(4) < 0.8
        hidden = np.tanh(xb @ W) * keep
        error = (hidden @ v - yb) / len(yb)
        back = np.outer(error, v * keep) * (1 - hidden**2)
        skip = self.rng.random() < 0.1
        self.optimizer.step({"W": xb.T @ back, "v": None if skip else hidden.T @ error})
        self.average.update()
        lr = self.optimizer.param_groups[0]["lr"]
        if isinstance(lr, schedules.ReduceOnPlateau):
            lr.update(float(error @ error))

    def result(self) -> Any:
        return (
            everything(self.optimizer),
            frozen(self.average.state_dict()),
            self.sampler.state_dict(),
            self.rng.bit_generator.state,
        )


def take(run: Run, count: int) -> None:
    steps = run.steps()
    for _ in range(count):
        next(steps)


def assert_resumes(start: Any, path: Path, first: int = 17, then: int = 20) -> None:
    """An epoch has 7 steps, so 17 is in the middle of the third and 37 of the sixth."""
    uninterrupted, interrupted, resumed = start(0), start(0), start(1)
    take(uninterrupted, first + then)
    take(interrupted, first)
    fastgd.save(path, interrupted.optimizer, **interrupted.objects)
    take(interrupted, 3)  # which are lost
    del interrupted
    fastgd.load(path, resumed.optimizer, **resumed.objects)
    take(resumed, then)
    assert resumed.result() == comparable(uninterrupted, resumed)


def comparable(run: Run, other: Run) -> Any:
    """The result, in which a plateau, compared by identity, is that of the other."""
    state, *rest = run.result()
    ours, theirs = run.optimizer.param_groups[0]["lr"], other.optimizer.param_groups[0]["lr"]
    if isinstance(ours, schedules.ReduceOnPlateau):
        assert ours.state_dict() == theirs.state_dict()
        state["param_groups"][0]["lr"] = theirs
    return (state, *rest)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_option(case: Case, tmp_path: Path) -> None:
    def start(seed: int) -> Run:
        return Run.start(
            case.optimizer,
            lambda params: make_optimizer(case.optimizer, params, **case.kwargs),
            lambda params: ExponentialAverage(params, 0.9),
            {},
            seed,
        )

    assert_resumes(start, tmp_path / "run.npz")


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_everything_on(name: str, sampler: str, tmp_path: Path) -> None:
    """Schedules, clipping, another sampler, and the average of the tail."""
    warmup = 0 if SPECS[name].hyper["lr"].kind == POSITIVE else 5  # it begins at 0
    options: dict[str, Any] = {
        **SPECS[name].having(
            lr=schedules.cosine(0.1, total_steps=40, warmup_steps=warmup, final=1e-3),
            weight_decay=schedules.warmup(0.01, 20, start_factor=0.5),
            momentum=schedules.one_cycle_momentum(total_steps=40),
        ),
        "clip_norm": schedules.exponential(1.0, gamma=0.98),
        "clip_value": 0.3,
        "nonfinite": "skip",
    }

    def start(seed: int) -> Run:
        return Run.start(
            name,
            lambda params: make_optimizer(name, params, **options),
            lambda params: TailAverage(params, start=11),
            SAMPLERS[sampler],
            seed,
        )

    assert_resumes(start, tmp_path / "run.npz")


@pytest.mark.parametrize("first", [0, 1, 6, 7, 8, 14])
def test_at_the_ends_of_epochs(first: int, tmp_path: Path) -> None:
    def start(seed: int) -> Run:
        return Run.start("Adam", fastgd.Adam, ExponentialAverage, {}, seed)

    assert_resumes(start, tmp_path / "run.npz", first)


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if SPECS[n].having(lr=1)])
def test_plateau(name: str, tmp_path: Path) -> None:
    def start(seed: int) -> Run:
        lr = schedules.ReduceOnPlateau(0.1, patience=1, factor=0.5, cooldown=2)
        return Run.start(
            name, lambda params: make_optimizer(name, params, lr=lr), ExponentialAverage, {}, seed
        )

    assert_resumes(start, tmp_path / "run.npz")


@pytest.mark.parametrize("dtype", [np.float16, np.float32], ids=str)
def test_gradients_of_another_dtype(dtype: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    gradients = rng.standard_normal((30, 5)).astype(dtype)
    opt, other = (fastgd.AdamW(np.full(5, x, np.float32), clip_norm=1.0) for x in (1, 2))
    for g in gradients[:13]:
        opt.step(g)
    fastgd.save(tmp_path / "run.npz", opt)
    fastgd.load(tmp_path / "run.npz", other)
    for optimizer in (opt, other):
        for g in gradients[13:]:
            optimizer.step(g)
    assert everything(other) == everything(opt)


PROGRAM = """
import hashlib, sys
from tests.optimizers import test_resume as here
from fastgd.averaging import ExponentialAverage
import fastgd

path, until, resume = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "resume"
lr = fastgd.schedules.cosine(0.1, total_steps=40)
run = here.Run.start(
    "Adam",
    lambda params: fastgd.Adam(params, lr=lr, clip_norm=1.0), ExponentialAverage, {}, 5 * resume
)
if resume:
    fastgd.load(path, run.optimizer, **run.objects)
here.take(run, until - run.optimizer.step_count)
fastgd.save(path, run.optimizer, **run.objects)
print(hashlib.sha256(open(path, "rb").read()).hexdigest())
"""


def program(path: Path, until: int, mode: str, threads: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(until), mode],
        capture_output=True,
        text=True,
        env=child_environment(OMP_NUM_THREADS=str(threads)),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_in_another_process(tmp_path: Path) -> None:
    """With another number of threads, too: the final checkpoints are the same file."""
    whole = program(tmp_path / "whole.npz", 33, "start", threads=1)
    program(tmp_path / "parts.npz", 17, "start", threads=2)
    assert program(tmp_path / "parts.npz", 33, "resume", threads=1) == whole
