"""Which learning rate to begin with: `find_lr`."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgd import _engine
from fastgd._arguments import integer, number
from fastgd.optimizers import Optimizer
from fastgd.sampling import MiniBatches
from fastgd.training._feed import Exhausted, Feed, batches_of
from fastgd.training._inputs import OptimizerLike, make_optimizer, prepare_params
from fastgd.training._objective import Arguments, Objective
from fastgd.training._snapshot import restored

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from typing_extensions import Unpack

    from fastgd.training._hyperparameters import Hyperparameters

__all__ = ["LRSweep", "find_lr"]

Floats: TypeAlias = NDArray[np.float64]

FEWEST_STEPS = 10
# Without trials the suggestion is at most this part of the rate with the lowest loss: in the sweep, rates
# are high for a few steps only, too few to diverge while they are less than about ten times too high.
BELOW_LOWEST = 0.1
# Trials begin at this part of that rate, and go on by so much as long as the loss gets lower; each has this
# part of the sweep's steps, and the mean over this part of its end counts.
FIRST_TRIAL, FACTOR = 1 / 3, math.sqrt(10.0)
TRIAL, TRIAL_END = 0.6, 0.25
# On mini-batches two trials are as good as each other that differ by less than this part of what the better
# one gained; and none must lose more than that when it trains for so many times longer: a rate that is a
# little too high for the steepest direction lowers the loss along the others first.
SLACK, LONGER = 0.03, 3
# The sweep ends when the loss has risen above its first value by this many times what it fell below, or
# by that part of its first value if that is more, three times in a row.
RISE, LEAST_RISE, IN_A_ROW = 1.0, 0.1, 3
# Standard deviation of the Gaussian that smooths losses of mini-batches, in parts of the sweep, and how
# many standard errors of what is left of their noise a fall of the loss must exceed.
WIDTH, ERRORS = 0.025, 4.0
# The loss must fall by this part of itself.
FALL = 1e-6


@dataclass(frozen=True, eq=False)
class LRSweep:
    """What `find_lr` found.

    Attributes:
        lrs: the learning rates tried, increasing.
        losses: after the step with each, on the batch of the next.
        smoothed: the losses without the differences between batches, and smoothed; the losses
            themselves if there are no mini-batches.
        suggestion: a learning rate to train with, None if the sweep shows none.
        reason: how the suggestion was found, or why there is none; and how the sweep ended.
        trials: by how much each rate that was tried lowered the loss in a short training, negative numbers;
            infinity where it rose.
    """

    lrs: Floats
    losses: Floats
    smoothed: Floats
    suggestion: float | None
    reason: str
    trials: Mapping[float, float] = field(default_factory=dict)

    def plot(self, *, ax: Axes | None = None, label: str | None = None) -> Axes:
        """Draw it, see `fastgd.plot.lr_sweep`."""
        from fastgd.plot import lr_sweep

        return lr_sweep(self, ax=ax, label=label)

    def __repr__(self) -> str:
        ends = f", {self.lrs[0]:.2g} to {self.lrs[-1]:.2g}" if self.lrs.size else ""
        suggestion = None if self.suggestion is None else f"{self.suggestion:.2g}"
        return f"LRSweep({self.lrs.size} rates{ends}; suggestion={suggestion}: {self.reason})"


def find_lr(
    value_and_grad: Callable[..., Any],
    params: Any,
    data: Any = None,
    optimizer: OptimizerLike = "adam",
    *,
    lr_min: float = 1e-7,
    lr_max: float = 10.0,
    steps: int = 100,
    trial_steps: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    **hyperparameters: Unpack[Hyperparameters],
) -> LRSweep:
    """Sweep the learning rate from low to high, a step each, and suggest one.

        lr_i = lr_min (lr_max / lr_min)^(i / (steps - 1)),    i = 0, …, steps - 1

    Too low rates leave the loss as it is, good ones lower it, too high ones raise it again. The sweep ends
    when the loss is not finite, or as far above its first value as it was below.

    A rate of the sweep acts for a step only, so a few rates about the third of that with the lowest loss
    then train from the start, each a bit longer; the suggestion is the one that lowers the loss most, on
    mini-batches the lowest that does nearly so. It is good for about so many steps: a much longer training
    wants a lower one in the end, see `schedules`.
    Without such trials it is the rate at which the loss, smoothed and over log lr, falls most steeply, or a
    tenth of the rate with the lowest loss if that is less.

    On mini-batches, the loss of each batch is also taken at the first parameters: what the steps have
    changed is far less noisy than the losses, which differ from batch to batch anyway.

    Parameters, the optimizer's state and hyperparameters and the position of a MiniBatches are put
    back bit for bit, also after an exception or an interruption.

    Args:
        value_and_grad, params, data, optimizer, batch_size, **hyperparameters: as in `minimize`. An
            optimizer that exists already is swept from its present state. With several groups, the
            rates of the others keep their ratio to the first one's. Batches taken from an iterator
            are gone.
        lr_min, lr_max: ends of the sweep, 0 < lr_min < lr_max.
        steps: how many rates; at least 10.
        trial_steps: of each trial, of which there are three or four mostly; None for 0.6 times `steps`,
            0 for no trials.
        seed: of the order of batches made from arrays.

    Returns:
        An `LRSweep`.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.
        FloatingPointError: the loss is not finite before the first step.

    Example:
        >>> import numpy as np, fastgd
        >>> def loss(x):                                         # stable for lr < 2 / 10
        ...     return x @ ([1.0, 10.0] * x) / 2, [1.0, 10.0] * x
        >>> sweep = fastgd.find_lr(loss, np.ones(2), optimizer="sgd")
        >>> 0.05 < sweep.suggestion < 0.2
        True

    References:
        Smith 2017, Cyclical learning rates for training neural networks, section 3.3.
    """
    low, high = number("lr_min", lr_min, bounds="()"), number("lr_max", lr_max, bounds="()")
    if low >= high:
        raise ValueError(f"lr_min={low} must be less than lr_max={high}")
    rates = np.geomspace(low, high, integer("steps", steps, FEWEST_STEPS))
    length = round(TRIAL * steps) if trial_steps is None else integer("trial_steps", trial_steps, 0)
    if "lr" in hyperparameters:
        raise TypeError("find_lr() sweeps lr: give lr_min and lr_max instead")
    source = batches_of(data, batch_size, integer("seed", seed, 0))
    given, tree = prepare_params(params, copy=False)
    objective = Objective(value_and_grad, tree)
    made = make_optimizer(optimizer, given, False, hyperparameters, find_lr)
    sweep = _Sweep(objective, made, Feed(source, 1))
    found: list[LRSweep] = []

    def run() -> None:
        with closing(sweep):
            sweep.run(rates)
            found.append(_suggestion(sweep, rates[: len(sweep.losses)]))
            if length > 0 and found[0].suggestion is not None:
                found.append(_tried(sweep, found[0], length, rates))

    _put_back(made, sweep.state, source, run)
    return found[-1]


def _put_back(
    optimizer: Optimizer, state: dict[str, Any], source: Any, body: Callable[[], None]
) -> None:
    """body(), and parameters, optimizer, whose state this is, and the position in the data as they were in
    the end.
    """
    position = source.state_dict() if isinstance(source, MiniBatches) else None

    def others() -> None:
        optimizer.load_state_dict(state)
        if position is not None:
            source.load_state_dict(position)

    _engine.ensure(lambda: restored(list(optimizer.params.values()), body), others)


class _Sweep:
    """The losses of a sweep.

    Attributes:
        losses: after each step.
        starts: the losses of the same batches at the first parameters.
        end: how the sweep ended before its time, "" if it did not.
        state: the optimizer's before the sweep.
    """

    def __init__(self, objective: Objective, optimizer: Optimizer, feed: Feed) -> None:
        self.losses: list[float] = []
        self.starts: list[float] = []
        self.end = ""
        self.exact = feed.exact
        self.first = math.nan
        self._objective, self._optimizer, self._feed = objective, optimizer, feed
        self._params = list(optimizer.params.values())
        self._start = [array.copy(order="K") for array in self._params]
        self.state = optimizer.state_dict()
        self._ratios = _ratios(optimizer)
        self._batches = self._all_batches()

    @property
    def changes(self) -> Floats:
        return np.asarray(np.subtract(self.losses, self.starts))

    def close(self) -> None:
        self._batches.close()

    def _set(self, rate: float) -> None:
        for group, ratio in zip(self._optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = float(rate * ratio)

    def run(self, rates: Floats) -> None:
        self.first, grads = loss, _ = self._objective(next(self._batches))
        if not math.isfinite(self.first):
            raise FloatingPointError(f"the loss is {self.first} before the first step")
        for rate in rates:
            self._set(rate)
            try:
                self._optimizer.step(grads, loss=loss)
                batch = next(self._batches)
            except FloatingPointError:  # with nonfinite="raise"
                if not self.losses:
                    raise
                self.end = f"ended at {rate:.2g}, where a gradient was not finite"
                return
            except Exhausted:
                self.end = f"ended at {rate:.2g}, as the data did"
                return
            start = self.first if self.exact else self._at_start(batch)
            loss, grads = self._objective(batch)
            if not math.isfinite(loss):
                self.end = f"ended at {rate:.2g}, where the loss was {loss}"
                return
            self.losses.append(loss)
            self.starts.append(start)
            if self._risen():
                self.end = f"ended at {rate:.2g}, where the loss had risen"
                return

    def trial(self, rate: float, steps: int) -> float:
        """By how much so many steps from the start change the loss, infinity where it rises.

        Raises: Exhausted, as the data is.
        """
        for array, first in zip(self._params, self._start, strict=True):
            array[...] = first
        self._optimizer.load_state_dict(self.state)
        self._set(rate)
        changes: list[float] = []
        for step in range(steps + 1):
            batch = next(self._batches)
            start = self.first if self.exact else self._at_start(batch)
            loss, grads = self._objective(batch)
            changes.append(loss - start)
            if not math.isfinite(loss) or min(changes[-IN_A_ROW:]) > abs(self.first):
                return math.inf
            if step < steps:
                try:
                    self._optimizer.step(grads, loss=loss)
                except FloatingPointError:  # with nonfinite="raise"
                    return math.inf
        return float(np.mean(changes[-max(1, round(TRIAL_END * steps)) :]))

    def _all_batches(self) -> Generator[Arguments, None, None]:
        """Batch after batch, over as many epochs as it takes."""
        while True:
            with closing(self._feed.epoch()) as groups:
                for group in groups:
                    yield group[0]

    def _at_start(self, batch: Arguments) -> float:
        """The loss of a batch at the first parameters."""

        def there() -> float:
            for array, start in zip(self._params, self._start, strict=True):
                array[...] = start
            return self._objective(batch)[0]

        return restored(self._params, there)

    def _risen(self) -> bool:
        changes = self.changes
        limit = max(-RISE * float(changes.min()), LEAST_RISE * abs(self.first))
        return changes.size >= IN_A_ROW and bool(changes[-IN_A_ROW:].min() > limit)


def _ratios(optimizer: Optimizer) -> list[float]:
    """The learning rates of the groups over the first one's."""
    step = optimizer.step_count
    rates = [lr(step) if callable(lr) else lr for lr in (g["lr"] for g in optimizer.param_groups)]
    return [rate / rates[0] if rates[0] > 0 else 1.0 for rate in rates]


def _suggestion(sweep: _Sweep, lrs: Floats) -> LRSweep:
    """The outcome of a sweep."""
    losses, changes = np.array(sweep.losses), sweep.changes
    ending = f"; the sweep {sweep.end}" if sweep.end else ""
    if lrs.size < IN_A_ROW + 1:
        why = "too few batches" if "data" in sweep.end else "the loss rose at once: lower lr_min"
        return LRSweep(lrs, losses, losses, None, why + ending)
    kernel = _kernel(1 if sweep.exact else lrs.size)
    smoothed = _smooth(changes, kernel)
    lowest, base = int(np.argmin(smoothed)), float(np.mean(sweep.starts))
    error = _noise(changes, lowest) * math.sqrt(float(np.sum(kernel**2)))
    found = LRSweep(lrs, losses, losses if sweep.exact else base + smoothed, None, "")
    if -smoothed[lowest] <= max(0 if sweep.exact else ERRORS * error, FALL * abs(base)):
        return replace(found, reason="the loss did not fall at any rate" + ending)
    if "data" in sweep.end and lowest >= lrs.size - 2:
        more = ": pass data that can be gone through again, or fewer steps"
        return replace(found, reason="the loss was still falling" + ending + more)
    steepest = float(lrs[int(np.argmin(np.diff(smoothed[: lowest + 1], prepend=0.0)))])
    most = BELOW_LOWEST * float(lrs[lowest])
    if steepest <= most:
        suggestion, reason = steepest, "the loss falls most steeply there"
    else:
        suggestion, reason = most, f"a tenth of {lrs[lowest]:.2g}, where the loss is lowest"
    return replace(found, suggestion=suggestion, reason=reason + _ending(sweep, found))


def _tried(sweep: _Sweep, found: LRSweep, steps: int, rates: Floats) -> LRSweep:
    """With the best rate in trials: up from the first one while the loss gets lower, then down while it is
    as low, or on mini-batches nearly so.
    """
    first = FIRST_TRIAL * float(found.lrs[int(np.argmin(found.smoothed))])
    trials: dict[float, float] = {}
    slack = 0.0 if sweep.exact else SLACK

    def change(k: int) -> float:
        """Of trial k, whose rate is that many factors above the first one's."""
        rate = first * FACTOR**k
        if not rates[0] <= rate <= rates[-1]:
            return math.inf
        trials[rate] = sweep.trial(rate, steps)
        return trials[rate]

    try:
        lowest, k = change(0), 1
        while (now := change(k)) < lowest:
            lowest, k = now, k + 1
        k = -1
        while math.isfinite(now := change(k)) and now <= (1 - slack) * lowest:
            lowest, k = min(lowest, now), k - 1
    except Exhausted:
        pass
    if not trials or min(trials.values()) >= 0:
        return replace(found, trials=trials)
    enough = (1 - slack) * min(trials.values())
    best = min(rate for rate, now in trials.items() if now <= enough)
    plural = "s" if len(trials) > 1 else ""
    reason = f"the best of {len(trials)} trial{plural} of {steps} steps"
    try:
        if sweep.trial(best, LONGER * steps) > (1 - SLACK) * trials[best]:
            best, reason = best / FACTOR, f"{reason}, {best:.2g}, is too high for more steps"
    except Exhausted:
        pass
    return replace(found, suggestion=best, reason=reason + _ending(sweep, found), trials=trials)


def _ending(sweep: _Sweep, found: LRSweep) -> str:
    """How a sweep ended that shows a rate."""
    if not sweep.end and int(np.argmin(found.smoothed)) >= found.lrs.size - 2:
        return "; the loss still falls at lr_max: raise it to see more"
    return f"; the sweep {sweep.end}" if sweep.end else ""


def _kernel(size: int) -> Floats:
    """Weights of a Gaussian, of which there is one where size is 1."""
    sigma = WIDTH * size
    reach = math.ceil(3 * sigma) if size > 1 else 0
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def _smooth(values: Floats, kernel: Floats) -> Floats:
    """Means over the part of the kernel that the values fill: without a lag to either side."""
    reach = kernel.size // 2
    middle = slice(reach, reach + values.size)
    total = np.convolve(values, kernel)[middle]
    return np.asarray(total / np.convolve(np.ones(values.size), kernel)[middle])


def _noise(changes: Floats, at: int) -> float:
    """Standard deviation of the changes about a trend up to `at`, from successive differences."""
    differences = np.diff(changes[max(0, at - 20) : at + 2])
    return float(np.median(np.abs(differences - np.median(differences))) / 0.6745 / math.sqrt(2))
