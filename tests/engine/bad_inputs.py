"""What test_bad_inputs.py refuses, and how it knows that nothing changed.

A row is one bad input: `given` makes it (and may first do something behind an optimizer's back),
`use` hands it to the public interface. Every row runs in a `World` in mid-run, of which `snapshot`
takes every bit before and after. The rows themselves are in bad_arrays.py and bad_values.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastgd
from fastgd import _engine
from fastgd.optimizers._base import Optimizer
from fastgd.sampling import MiniBatches
from fastgd.schedules import ReduceOnPlateau, Schedule, cosine


class World:
    """Everything that a bad input must not touch: all of it is in the middle of a run.

    adam: a tree with a C- and an F-ordered array, both dtypes, a scalar and an empty array, with
        three state slots and every option. sgd: two groups, one with a schedule.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(11)
        self.buffer = rng.standard_normal(40).astype(np.float32)
        self.params: dict[str, Any] = {
            "W": self.buffer[8:20].reshape(4, 3),
            "b": rng.standard_normal(3),
            "layers": [np.asfortranarray(rng.standard_normal((2, 5)), np.float32), np.array(1.5)],
            "none": np.zeros((0, 3), np.float32),
        }
        self.adam = fastgd.Adam(
            self.params, 0.1, (0.8, cosine(0.5, total_steps=9)), weight_decay=0.1, amsgrad=True,
            clip_norm=2.0, clip_value=1.0, nonfinite="raise",
        )  # fmt: skip
        self.first, self.second = np.arange(6.0), {"v": np.ones((2, 2), np.float32)}
        self.sgd = fastgd.SGD(
            [{"params": self.first, "lr": cosine(0.5, total_steps=9)}, {"params": self.second}],
            momentum=0.9,
            weight_decay=0.1,
        )
        self.data = np.arange(22.0).reshape(11, 2)
        self.batches = MiniBatches(self.data, batch_size=2, seed=3)
        self.iterator = iter(self.batches)
        self.plateau = ReduceOnPlateau(0.5, factor=0.5, patience=1)
        self.rng = np.random.default_rng(5)
        self.taken: list[Any] = []
        self.advance()
        self.advance()

    def adam_grads(self, **replaced: Any) -> dict[str, Any]:
        """Gradients of `params`; `replaced` stands in for some of the leaves at the top."""
        k = self.adam.step_count + 1
        grads = {
            "W": np.linspace(-1, k, 12, dtype=np.float32).reshape(4, 3),
            "b": np.array([0.5, -k, 2.0]),
            "layers": [np.full((2, 5), 0.1 * k, np.float32), np.array(-0.3)],
            "none": np.zeros((0, 3), np.float32),
        }
        return {**grads, **replaced}

    def sgd_grads(self) -> list[Any]:
        k = self.sgd.step_count
        return [np.linspace(-k, 1, 6), {"v": np.full((2, 2), 0.5, np.float32)}]

    def advance(self) -> None:
        """Use everything once, as if nothing had ever been refused."""
        assert self.adam.step(self.adam_grads(), 0.5) is True
        assert self.sgd.step(self.sgd_grads()) is True
        self.plateau.update(1.0)
        self.taken.append((next(self.iterator), self.rng.standard_normal()))


def snapshot(x: Any) -> Any:
    """Every bit of `x` and of what is in it, in a form that compares with ==."""
    if isinstance(x, np.ndarray):
        kind = (type(x), x.dtype.str, x.shape, x.strides, x.flags.writeable)
        return kind, x.tolist() if x.dtype.hasobject else x.tobytes()
    if isinstance(x, World):
        skipped = ("folder", "iterator")  # the sampler's state tells where the iterator stands
        return {name: snapshot(x) for name, x in vars(x).items() if name not in skipped}, threads()
    if isinstance(x, Optimizer):
        return snapshot_of_optimizer(x)
    if isinstance(x, (MiniBatches, ReduceOnPlateau)):
        return snapshot(x.state_dict()), repr(x)
    if isinstance(x, np.random.Generator):
        return snapshot(x.bit_generator.state)
    if isinstance(x, Mapping):
        return type(x), [(key, snapshot(value)) for key, value in x.items()]
    if type(x) in (list, tuple):
        return ["itself" if item is x else snapshot(item) for item in x]
    if isinstance(x, (int, float, str, Schedule, type(None))):
        return type(x), repr(x)
    return id(x)


def snapshot_of_optimizer(opt: Optimizer) -> Any:
    """All that there is, also where a parameter was resized and `opt.state` has no shape for it."""
    slots = [snapshot(flat) for part in opt._bound.members for row in part.slots for flat in row]
    groups = [snapshot({**group, "params": None}) for group in opt.param_groups]
    counts = (opt.step_count, opt._bound.plan.steps.tolist())
    return list(opt.params), slots, groups, counts, snapshot(opt.options), repr(opt.grad_norm)


def threads() -> tuple[int, int | None]:
    return fastgd.get_num_threads(), _engine.get_chosen_threads()


def nothing(world: World, given: Any) -> None:
    """Most rows leave nothing to repair."""


@dataclass(frozen=True)
class Row:
    """One bad input: what it is, what is done with it, and the error that must come of it."""

    name: str
    given: Callable[[World], Any]
    use: Callable[[World, Any], Any]
    exception: type[Exception]
    match: str  # a regular expression that names the culprit
    repair: Callable[[World, Any], Any] = nothing

    def __str__(self) -> str:
        return self.name
