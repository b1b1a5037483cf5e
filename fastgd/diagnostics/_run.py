"""What `diagnose` knows about a run: the arrays of a History, checked, and measures taken from them.

Arrays that were not recorded are NaN, or have no rows, so that a rule that needs them finds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgd.optimizers import all_optimizers

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

TINY = float(np.finfo(np.float64).tiny)

SERIES = ("loss", "lr", "grad_norm", "update_norm", "param_norm", "grad_dot_update")
LAYERS = ("layer_grad_norm", "layer_update_norm", "layer_param_norm")
PROBES = ("loss_before", "loss_after", "grad_dot_update", "update_norm", "lr")

OTHERS = ("names", "optimizer", "batch_size", "samples", "validation_step", "validation_loss")

# How exactly a loss is known, in units in the last place: a mean over many terms loses a few bits.
ROUNDING = 64
# A single batch smaller than this says too little about the loss at the start: these many do.
SMALL_BATCH = 8
FIRST = 10


@dataclass(frozen=True)
class Probes:
    """Steps with the loss of the same batch before and after them."""

    step: Floats
    before: Floats
    after: Floats
    slope: Floats  # gradient · update: the change of the loss to first order
    length: Floats  # of the update
    lr: Floats

    @property
    def change(self) -> Floats:
        return self.after - self.before


@dataclass(frozen=True)
class Run:
    """A History's arrays. `known` counts the records before the first that is not finite."""

    step: Floats
    loss: Floats
    lr: Floats
    grad_norm: Floats
    update_norm: Floats
    param_norm: Floats
    grad_dot_update: Floats
    layer_grad: Floats  # [records, arrays], as the two others
    layer_update: Floats
    layer_param: Floats
    names: tuple[str, ...]
    validation_step: Floats
    validation_loss: Floats
    probes: Probes
    batch_size: int | None
    samples: int | None
    optimizer: str
    recorded: frozenset[str]  # which of SERIES

    @cached_property
    def plain(self) -> bool:
        """Whether a step is the learning rate times the gradient, momentum apart, as of SGD."""
        kind = all_optimizers().get(self.optimizer)
        return kind is not None and not kind.adaptive

    @cached_property
    def first_moment(self) -> float | None:
        """The default decay rate of the optimizer's average of gradients, if it has one: the run's own is
        not in a history.
        """
        kind = all_optimizers().get(self.optimizer)
        betas = kind.declaration.defaults.get("betas") if kind is not None else None
        return None if betas is None else float(betas[0])

    @cached_property
    def known(self) -> int:
        finite = np.isfinite(self.loss)
        if "grad_norm" in self.recorded:  # updates that overflow are a consequence
            finite &= np.isfinite(self.grad_norm)
        return int(np.argmin(finite)) if not finite.all() else finite.size

    @cached_property
    def end(self) -> int:
        """The step of the first record that is not finite, or of the last record."""
        return int(self.step[min(self.known, self.step.size - 1)])

    @cached_property
    def steps(self) -> float:
        """Steps from the first record to the last finite one."""
        return float(self.step[self.known - 1] - self.step[0] + 1) if self.known else 0.0

    @cached_property
    def rounding(self) -> float:
        """Relative error to be expected of a loss: whether they are float32 numbers shows."""
        loss = self.loss[: self.known]
        with np.errstate(over="ignore"):
            single = np.array_equal(loss, loss.astype(np.float32))
        return ROUNDING * float(np.finfo(np.float32 if single else np.float64).eps)

    @cached_property
    def stochastic(self) -> bool:
        """Whether steps see different batches.

        Without data, or with all of them in each step, the loss after a step must be the loss
        before the next one; where it is not, the function itself is random.
        """
        if self.batch_size is not None and (self.samples is None or self.batch_size < self.samples):
            return True
        _, mine, next_ = np.intersect1d(self.probes.step + 1, self.step, return_indices=True)
        after, then = self.probes.after[mine], self.loss[next_]
        with np.errstate(invalid="ignore"):
            off = np.abs(after - then) > 1e3 * self.rounding * np.maximum(
                np.abs(after), np.abs(then)
            )
        return bool(off.mean() > 0.5) if off.size else False

    @cached_property
    def first_records(self) -> int:
        """How many records the loss at the start is the mean of."""
        small = self.stochastic and (self.batch_size or 1) < SMALL_BATCH
        return min(FIRST if small else 1, max(self.known, 1))

    @cached_property
    def initial(self) -> float:
        """The loss at the start; of the first few batches if they are very small."""
        return float(np.mean(self.loss[: self.first_records]))

    def part(self, begin: float, end: float) -> slice:
        """The finite records of a part of the steps, given as fractions of them; one at least.

        Records need not be equally spaced: a History keeps all of the first steps.
        """
        low, high = self.step[0] + self.steps * np.array([begin, end])
        first, stop = np.searchsorted(self.step[: self.known], [low, high])
        first = min(int(first), self.known - 1)
        return slice(first, max(int(stop), first + 1))

    def level(self, begin: float, end: float) -> float:
        """The median loss over a part of the run."""
        return float(np.median(self.loss[self.part(begin, end)]))

    def mean(self, values: Floats) -> Any:
        """The mean over the steps of the finite records, each standing for the steps up to the next."""
        steps = self.step[: self.known]
        weights = np.diff(steps, append=steps[-1] + 1)
        return np.average(values[: self.known], axis=0, weights=weights)

    @cached_property
    def final(self) -> float:
        return self.level(0.9, 1.0)

    @cached_property
    def late_mean(self) -> float:
        """As `final`, but of the batches that are rare and bad too: what the loss is to be expected."""
        return float(np.mean(self.loss[self.part(0.9, 1.0)]))

    @cached_property
    def best(self) -> float:
        """The lowest level of any tenth of the run: `final` at most, that being one of them."""
        return min(self.level(i / 20, i / 20 + 0.1) for i in range(19))

    @cached_property
    def descent(self) -> float:
        return self.initial - self.final

    @cached_property
    def scale(self) -> float:
        """What a change of the loss is large or small against."""
        return max(abs(self.initial), self.descent, TINY) if self.known else 1.0

    @cached_property
    def noise(self) -> float:
        """Standard deviation of a batch's loss about the trend in the second half; 0 without batches.

        From the median of the successive differences, which a trend or a few spikes do not move.
        """
        late = self.loss[self.part(0.5, 1)] if self.known else np.empty(0)
        if not self.stochastic or late.size < 3:
            return 0.0
        return _spread_of_differences(late)

    @cached_property
    def uncertainty(self) -> float:
        """Standard error of a level over a quarter of the run.

        The larger of two: from the noise of single batches, and from levels of sixteenths, whose
        differences also have the slow wandering of the parameters in them.
        """
        if not self.stochastic or not self.known:
            return 0.0
        quarter = self.part(0.75, 1)
        alone = 1.25 * self.noise / np.sqrt(quarter.stop - quarter.start)  # of a median
        if self.known < 64:
            return float(alone)
        parts = [self.level(i / 16, (i + 1) / 16) for i in range(8, 16)]
        return float(max(alone, _spread_of_differences(parts) / np.sqrt(4)))

    @cached_property
    def late_gain(self) -> float:
        """By how much the level fell from the third to the last quarter."""
        return self.level(0.5, 0.75) - self.level(0.75, 1.0)


def _spread_of_differences(values: Any) -> float:
    """The standard deviation of independent values about a trend, from successive differences."""
    differences = np.diff(values)
    return float(np.median(np.abs(differences - np.median(differences))) / 0.6745 / np.sqrt(2))


def read_run(history: Any) -> Run:
    """The arrays of a History, a Result, or a mapping or object with arrays of the same names.

    Raises:
        TypeError: no loss, or something that is not an array of numbers.
        ValueError: no records, or arrays of different lengths.
    """
    record = _get(history, "history", None)
    record = history if record is None else record
    record = _where_norms_are(record)
    loss = _array(record, "loss")
    if loss is None:
        raise TypeError(
            "diagnose: expected a Result of minimize(), its History, or a mapping with the array "
            f"'loss', got {type(history).__name__}"
        )
    n = loss.size
    if n == 0:
        raise ValueError("diagnose: the history has no records; train at least one step")
    series = {name: _column(record, name, n) for name in SERIES}
    step = _array(record, "step")
    steps = np.arange(n, dtype=np.float64) if step is None else _of_size("step", step, n)
    if (np.diff(steps) <= 0).any():
        raise ValueError("diagnose: step must increase from record to record")
    names, layers = _layers(record, n)
    return Run(
        steps,
        **series,
        layer_grad=layers[0],
        layer_update=layers[1],
        layer_param=layers[2],
        names=names,
        **_validations(record),
        probes=_probes(record),
        batch_size=_get(record, "batch_size", None),
        samples=_get(record, "samples", None),
        optimizer=str(_get(record, "optimizer", "")),
        recorded=frozenset(name for name in SERIES if _get(record, name, None) is not None),
    )


def _where_norms_are(record: Any) -> Any:
    """A record whose losses are known of more steps than its norms, with those of the norms alone."""
    alone = {name: _get(record, f"norm_{name}", None) for name in ("step", "loss", "lr")}
    if any(value is None for value in alone.values()):
        return record
    others = (*SERIES, *LAYERS, *(f"probe_{name}" for name in ("step", *PROBES)), *OTHERS)
    found = {name: _get(record, name, None) for name in others} | alone
    return {name: value for name, value in found.items() if value is not None}


def _get(record: Any, name: str, default: Any) -> Any:
    if isinstance(record, Mapping):
        return record.get(name, default)
    return getattr(record, name, default)


def _array(record: Any, name: str, dimensions: int = 1) -> Floats | None:
    value = _get(record, name, None)
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"diagnose: {name} must be an array of numbers, got dtype {array.dtype}")
    if array.ndim != dimensions:
        raise ValueError(
            f"diagnose: {name} must have {dimensions} dimension(s), got the shape {array.shape}"
        )
    return array.astype(np.float64)


def _of_size(name: str, array: Floats, n: int) -> Floats:
    if array.size != n:
        raise ValueError(f"diagnose: {name} has {array.size} elements, expected {n}")
    return array


def _column(record: Any, name: str, n: int) -> Floats:
    array = _array(record, name)
    return np.full(n, np.nan) if array is None else _of_size(name, array, n)


def _layers(record: Any, rows: int) -> tuple[tuple[str, ...], list[Floats]]:
    """The names of the arrays, and three tables of their norms; no columns if one is missing."""
    tables = [table for name in LAYERS if (table := _array(record, name, 2)) is not None]
    if len(tables) < len(LAYERS):
        return (), [np.empty((rows, 0))] * len(LAYERS)
    names = _get(record, "names", None)
    names = tuple(map(str, range(tables[0].shape[1]) if names is None else names))
    for key, table in zip(LAYERS, tables, strict=True):
        if table.shape != (rows, len(names)):
            raise ValueError(
                f"diagnose: {key} has the shape {table.shape}, expected {(rows, len(names))}: "
                "one row per record and one column per name"
            )
    return names, tables


def _validations(record: Any) -> dict[str, Floats]:
    loss = _array(record, "validation_loss")
    if loss is None:
        loss = np.empty(0)
    step = _array(record, "validation_step")
    if step is None:
        step = np.arange(loss.size, dtype=np.float64)
    return {
        "validation_loss": loss,
        "validation_step": _of_size("validation_step", step, loss.size),
    }


def _probes(record: Any) -> Probes:
    step = _array(record, "probe_step")
    if step is None:
        return Probes(*[np.empty(0) for _ in range(6)])
    return Probes(step, *(_column(record, f"probe_{name}", step.size) for name in PROBES))
