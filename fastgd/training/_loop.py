"""The loop of `minimize`: steps, and everything that is done between them.

The way of a step is kept short; what is rare (a loss that is not finite, a validation, the end) is in
methods of its own. Whatever ends the loop is a `Stop` with a reason.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NoReturn

from fastgd import _engine
from fastgd._arrays.tree import flatten
from fastgd.averaging import Average
from fastgd.history import History
from fastgd.optimizers import Optimizer
from fastgd.schedules import ReduceOnPlateau, functions_in
from fastgd.training._early_stopping import EarlyStopping
from fastgd.training._feed import Exhausted, Feed
from fastgd.training._objective import (
    Arguments,
    Objective,
    all_leaves,
    blame,
    gradients_by_name,
    not_finite,
    sums_without_step,
)
from fastgd.training._observers import Guard, Prober
from fastgd.training._progress import Progress

MOST_SKIPPED = 100  # steps in a row, before the run is given up
MOST_LOSSES = 1000  # whose mean is the loss of a run on mini-batches


@dataclass(slots=True)
class StepInfo:
    """What a callback is given after each step.

    Attributes:
        step: steps that the optimizer has taken, this one included.
        epoch: epochs that this call of minimize has completed.
        loss: of the step's batch, before the step.
        aux: with has_aux what value_and_grad returned beside it; a list with one for each batch if
            several were accumulated.
        lr: the learning rate of the step, of the first parameter group.
        params: the parameters, live.
        optimizer: the optimizer.
        history: the record so far.
    """

    step: int
    epoch: int
    loss: float
    lr: float
    params: Any
    optimizer: Optimizer
    history: History
    aux: Any
    _grads: Any
    _scale: float

    @property
    def grad_norm(self) -> float:
        """Norm of the gradients of the step, before clipping. Computed when asked for, from the arrays
        that value_and_grad returned, so only while the callback runs.
        """
        known = self.optimizer.grad_norm
        return self.optimizer._norm(self._grads) * abs(self._scale) if known is None else known


@dataclass(frozen=True)
class Rules:
    """When to stop, and what to do between the steps."""

    steps: int | None
    epochs: int | None
    tol: float | None
    validation: Callable[[Any], float] | None
    metrics: Mapping[str, Callable[[Any], float]]
    monitor: str | None  # of the metrics; None for the validation, or else for the exact loss
    validation_every: int | None  # steps; None for epochs
    stopping: EarlyStopping
    callback: Callable[[StepInfo], Any] | None
    probe: bool

    @property
    def validates(self) -> bool:
        return self.validation is not None or bool(self.metrics)


class Stop(Exception):
    """The end of the loop."""

    def __init__(self, reason: str, converged: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.converged = converged


class Loop:
    """One run, and where it has come to.

    Attributes:
        params, loss: the outcome.
        reason, converged: why it ended.
        steps_taken: by this run.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer,
        params: Any,
        feed: Feed,
        history: History,
        rules: Rules,
        average: Average | None,
        progress: Progress | None,
    ) -> None:
        self.params = params
        self.loss = math.nan
        self.reason, self.converged = "", False
        self._objective, self._optimizer, self._feed = objective, optimizer, feed
        self.history, self._rules = history, rules
        self._average, self._progress = average, progress
        self._live = params
        self._first_step = optimizer.step_count
        self._epoch = self._attempts = self._skipped = 0
        self._losses: deque[float] = deque(maxlen=min(feed.steps_per_epoch or 100, MOST_LOSSES))
        self._here: float | None = None  # the loss where the parameters are, if exact and known
        arrays = list(optimizer.params.values())
        self._guard = Guard(arrays, self._first_step)
        self._best = rules.stopping
        self._best._begin(arrays)
        self._prober = Prober(history)
        self._validated_at = -1  # at which attempt
        self._validation: float | None = None  # and the loss there
        self._interrupted = self._chosen = False
        # Without a validation they follow the loss of all data, step by step; or what a callback says.
        fed = rules.validates or rules.callback is not None
        self._plateaus = [] if fed else _plateau_schedules(optimizer)
        if self._plateaus and not feed.exact:
            raise ValueError(
                "a ReduceOnPlateau needs something to follow: the loss of a mini-batch is too noisy, so "
                "pass validation, or call its update in a callback"
            )
        self._current = feed.used, self._first_step, 0  # the step under way, see _account

    @property
    def steps_taken(self) -> int:
        return self._optimizer.step_count - self._first_step

    def run(self) -> None:
        """Train, and leave everything as documented, whatever happens."""
        track_norms = self._optimizer.track_norms

        def leave() -> None:
            self._optimizer.track_norms = track_norms
            self._account()
            self._feed.settle()
            if self.reason == "interrupted":
                self._choose()
            elif not self._chosen and self._average is None and self._best.found:
                self._best._restore()
            if self._progress is not None:
                self._progress.close(self._attempts, self._status)

        _engine.ensure(self._run, leave)

    def _run(self) -> None:
        try:
            self._optimizer.train()
            self._until_stop(self._train)
            if not self.reason.startswith("nonfinite"):
                self._until_stop(self._conclude)
            self._choose()
            self._chosen = True
        except KeyboardInterrupt:
            self.reason, self.converged = "interrupted", False

    def _account(self) -> None:
        """Count the batches of a step that was taken, but interrupted before they were counted."""
        used, step, count = self._current
        if self._feed.used == used and self._optimizer.step_count > step:
            self._feed.used += count

    def _until_stop(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Stop as stop:
            self.reason, self.converged = stop.reason, stop.converged
        except Exhausted:
            if self._attempts == 0:
                raise ValueError("data has no batches") from None
            self.reason = "exhausted"

    def _train(self) -> NoReturn:
        rules = self._rules
        while self._epoch != rules.epochs:
            with closing(self._feed.epoch()) as groups:
                for batches in groups:
                    self._step(batches)
            self._epoch += 1
            if rules.validates and rules.validation_every is None:
                self._validate()
        raise Stop("epochs")

    # --- a step ---

    def _step(self, batches: list[Arguments]) -> None:
        optimizer, history, feed = self._optimizer, self.history, self._feed
        step = optimizer.step_count
        self._current = feed.used, step, len(batches)
        loss, grads, scale = self._objective.mean(batches)
        if not math.isfinite(loss) and (feed.exact or optimizer.nonfinite != "skip"):
            self._loss_not_finite(step, loss, batches, grads, scale)
        if feed.exact:
            self._at(loss, grads)
        self._guard.see(self._attempts, step, loss)
        due = history.due(step)
        probing = self._rules.probe and (due if feed.exact else self._prober.due(self._attempts))
        optimizer.track_norms = due or probing
        taken = self._take(step, loss, grads, scale)
        self._attempts += 1
        feed.used += len(batches)
        if self._attempts == 1 and taken and math.isfinite(loss):
            self._check_gradients(grads)
        lr = self._lr(step)
        if taken:
            self._skipped = 0
            self._here = None
            self._losses.append(loss)
            history.record(step, loss, lr, self._epoch)
            if due or probing:
                sums = optimizer._bound.plan.sums()
                assert sums is not None
                if due:
                    history.record_norms(step, loss, lr, sums, scale)
                if probing:
                    self._prober.open(step, loss, lr, sums, scale)
                    if not feed.exact:  # else the next step looks at it
                        self._prober.close(self._objective.loss(batches))
            if self._average is not None:
                self._average.update()
        else:
            self._skip(step, grads)
        self._between(loss, lr, grads, scale)

    def _check_gradients(self, grads: Any) -> None:
        """Refuse to go on with none at all."""
        if all(g is None for g in all_leaves(self._optimizer, grads)):
            raise ValueError(
                "value_and_grad returned None in place of every gradient, so nothing would be trained; "
                "return the loss and gradients of the parameters' structure"
            )

    def _take(self, step: int, loss: float, grads: Any, scale: float) -> bool:
        try:
            if self._optimizer._bound.needs_loss:
                return self._optimizer.step(grads, scale, loss=loss)
            return self._optimizer.step(grads, scale)
        except KeyboardInterrupt:
            if self._optimizer.step_count == step:
                raise
            self._interrupted = True  # too late to prevent the step, so see it through
            return True
        except FloatingPointError as error:
            if self._optimizer.nonfinite != "raise":
                raise
            self.loss = loss
            self._record_without_step(step, loss, grads, scale)
            raise Stop(f"nonfinite: {error}") from error

    def _record_without_step(self, step: int, loss: float, grads: Any, scale: float) -> None:
        lr, sums = self._lr(step), sums_without_step(self._optimizer, grads)
        self.history.record(step, loss, lr, self._epoch)
        self.history.record_norms(step, loss, lr, sums, scale)

    def _lr(self, step: int) -> float:
        """The learning rate of the first group."""
        lr = self._optimizer._bound.groups[0].values["lr"]
        return float(lr(step) if callable(lr) else lr)

    def _between(self, loss: float, lr: float, grads: Any, scale: float) -> None:
        """What comes after a step."""
        if self._interrupted:
            raise KeyboardInterrupt
        rules, optimizer = self._rules, self._optimizer
        if rules.callback is not None:
            info = StepInfo(
                optimizer.step_count,
                self._epoch,
                loss,
                lr,
                self._live,
                optimizer,
                self.history,
                self._objective.aux,
                grads,
                scale,
            )
            try:
                verdict = rules.callback(info)
            except StopIteration:
                verdict = True
            if _is_bool(verdict) and verdict:
                raise Stop("callback")
        if self._progress is not None:
            self._progress.update(self._attempts, self._status)
        if rules.validation_every is not None and self._attempts % rules.validation_every == 0:
            self._validate()
        if self._attempts == rules.steps:
            raise Stop("steps")

    # --- losses of the parameters as such: exact ones, validation ---

    def _at(self, loss: float, grads: Any) -> None:
        """The loss where the parameters are, all data considered."""
        rules = self._rules
        self._here = loss
        self._prober.close(loss)
        for schedule in self._plateaus:
            schedule.update(loss)
        if rules.tol is not None and self._optimizer._norm(grads) <= rules.tol:
            raise Stop("tol", converged=True)
        if not rules.validates and self._gives_up(loss):
            raise Stop("patience")

    def _candidate(self) -> Any:
        """The parameters that the run would return."""
        return self._live if self._average is None else self._average.params

    def _validate(self, out_of_turn: bool = False) -> None:
        rules, optimizer = self._rules, self._optimizer
        with optimizer.evaluation():
            candidate = self._candidate()
            loss = None if rules.validation is None else rules.validation(candidate)
            metrics = {name: function(candidate) for name, function in rules.metrics.items()}
            self._validated_at, self._validation = self._attempts, loss
            self.history.record_validation(optimizer.step_count, loss, metrics)
            judged = loss if rules.monitor is None else metrics[rules.monitor]
            assert judged is not None
            if not out_of_turn:
                for schedule in _plateau_schedules(optimizer):
                    schedule.update(judged)
            gives_up = self._gives_up(judged, candidate)
        if gives_up and not out_of_turn:
            raise Stop("patience")

    def _gives_up(self, value: float, candidate: Any = None) -> bool:
        """Note a value to be judged by; whether it is time to give up."""
        loss = self._here if self._feed.exact else _mean(self._losses)
        others = None
        if self._average is not None and self._best.patience is not None:
            others = [array for _, array in flatten(candidate)[0]]
        return self._best._note(value, self._optimizer.step_count, loss, others)

    def _status(self) -> dict[str, str]:
        """What a bar or a line of a log shows of the run, in words that are short."""
        step = max(self._optimizer.step_count - 1, 0)
        shown = {"loss": self._losses[-1] if self._losses else self.loss, "lr": self._lr(step)}
        if self._validation is not None:
            shown["validation"] = self._validation
        of = "" if self._rules.epochs is None else f"/{self._rules.epochs}"
        epoch = {} if self._feed.exact else {"epoch": f"{self._epoch}{of}"}
        return epoch | {name: f"{value:.4g}" for name, value in shown.items()}

    # --- what is not finite ---

    def _loss_not_finite(
        self, step: int, loss: float, batches: list[Arguments], grads: Any, scale: float
    ) -> NoReturn:
        """Record it, go back to parameters whose loss was finite, unless it is the data, and stop."""
        self._prober.close(loss)
        cause, is_data = blame(self._optimizer, batches, grads)
        self._record_without_step(step, loss, grads, scale)
        self.loss = loss
        reason = f"nonfinite: the loss is {loss} at step {step}{cause}"
        self._here = loss
        if self._attempts and not is_data:
            self._guard.restore()
            self._here = self._guard.loss
            reason += f"; the parameters were put back to those before step {self._guard.step}"
        raise Stop(reason)

    def _skip(self, step: int, grads: Any) -> None:
        """nonfinite="skip" left the step out: go on to other batches, but not for ever."""
        self._skipped += 1
        if self._feed.exact or self._skipped == MOST_SKIPPED:
            named = gradients_by_name(self._optimizer, grads).items()
            names = ", ".join(map(repr, not_finite(named)[:3]))
            what = f"gradient {names} has a NaN or an infinity"
            if not names:
                what = "a gradient is so large that its square is infinite"
            times = "" if self._feed.exact else f" for {self._skipped} batches in a row"
            raise Stop(f"nonfinite: {what}{times} at step {step}")

    # --- the end ---

    def _conclude(self) -> None:
        """Look at the last parameters as at all before."""
        if self.reason == "patience":
            return
        if self._feed.exact and self._here is None:
            batches = next(self._feed.epoch())
            loss, grads, scale = self._objective.mean(batches)
            if not math.isfinite(loss):
                step = self._optimizer.step_count
                self._loss_not_finite(step, loss, batches, grads, scale)
            try:
                self._at(loss, grads)
            except Stop as stop:
                if stop.converged:
                    self.reason, self.converged = stop.reason, True
        rules = self._rules
        if rules.validates and self._validated_at != self._attempts:
            self._validate(out_of_turn=rules.validation_every is not None or not self._feed.at_end)

    def _choose(self) -> None:
        """The parameters to return, and their loss."""
        exact, average = self._feed.exact, self._average
        if average is None:
            self._optimizer.eval()
            if self._optimizer.evaluating:
                self._here = None
        loss = self._here if exact else _mean(self._losses)
        if self._best.found:
            loss = self._best._loss
            if average is None:
                self._best._restore()
            else:
                self.params = self._best._params(self._live)
        elif average is not None and (average.finite or not self.reason.startswith("nonfinite")):
            self.params = average.params
            loss = None if exact else loss
        if loss is None and self.reason != "interrupted":
            loss = self._objective.loss(next(self._feed.epoch()), self.params)
        if loss is None:
            loss = self._losses[-1] if self._losses else math.nan
        if not math.isnan(loss):
            self.loss = loss


def _mean(losses: Sequence[float]) -> float:
    """Of the finite ones; NaN of none."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    return sum(finite) / len(finite) if finite else math.nan


def _is_bool(value: Any) -> bool:
    """Also an array of any library that holds one."""
    dtype = str(getattr(value, "dtype", type(value).__name__))
    return dtype.endswith("bool") and getattr(value, "shape", ()) == ()


def _plateau_schedules(optimizer: Optimizer) -> list[ReduceOnPlateau]:
    """Every ReduceOnPlateau among the hyperparameters, once."""
    values = [value for group in optimizer._bound.groups for value in group.values.values()]
    found = functions_in([*values, optimizer.clip_norm, optimizer.clip_value], "")
    return list({id(f): f for _, f in found if isinstance(f, ReduceOnPlateau)}.values())
