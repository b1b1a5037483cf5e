"""`minimize`: its arguments, and the run that is made of them."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from fastgd._arguments import choice, flag, integer, number
from fastgd.averaging import Average
from fastgd.history import RECORD_ALL_BELOW, STRIDE, History
from fastgd.optimizers import Optimizer
from fastgd.schedules import end_of
from fastgd.training._early_stopping import EarlyStopping
from fastgd.training._feed import Feed, batches_of, check_epochs
from fastgd.training._inputs import (
    OptimizerLike,
    make_average,
    make_metrics,
    make_optimizer,
    make_validation,
    prepare_params,
)
from fastgd.training._loop import Loop, Rules, StepInfo
from fastgd.training._objective import Objective
from fastgd.training._progress import make_progress
from fastgd.training._result import MESSAGES, Result

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastgd.training._hyperparameters import Hyperparameters

LOG = logging.getLogger("fastgd")
# How long a run is that nobody has said the length of; with tol it ends by itself.
STEPS, STEPS_WITH_TOL, EPOCHS = 1_000, 10_000, 10


def minimize(
    value_and_grad: Callable[..., Any],
    params: Any,
    *,
    data: Any = None,
    optimizer: OptimizerLike = "adam",
    batch_size: int | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    tol: float | None = None,
    has_aux: bool = False,
    callback: Callable[[StepInfo], Any] | None = None,
    validation: Any = None,
    metrics: Mapping[str, Callable[[Any], Any]] | Callable[[Any], Any] | None = None,
    validation_every: int | None = None,
    patience: int | EarlyStopping | None = None,
    monitor: str | None = None,
    mode: Literal["min", "max"] | None = None,
    min_delta: float | None = None,
    average: str | tuple[str, float] | Average | None = None,
    accumulate: int = 1,
    copy: bool = False,
    probe: bool = True,
    record_every: int | None = None,
    max_records: int = 10_000,
    progress: bool | None = None,
    seed: int = 0,
    on_interrupt: Literal["return", "raise"] = "return",
    comm: Any = None,
    **hyperparameters: Unpack[Hyperparameters],
) -> Result:
    """Minimize a function by gradient descent, in batches of data or without any.

    Works in place: the arrays in `params` are updated, as by an optimizer, and `result.params` is
    `params`. With copy=True they are left as they are and copies are trained.

    Args:
        value_and_grad: function (params, *batch) -> (loss, grads), the order of JAX and autograd.
            The loss is a number, grads has the structure of params (see `Optimizer.step`). A batch
            that is a tuple or list is unpacked into arguments; any other, such as a dict, is one.
            The gradients are of `params`, the arrays that it is given: with copy=True those are
            others than the ones passed in.
        params: an array, any nesting of list, tuple and dict of arrays, or a list of group dicts
            ({"params": …, "lr": …}), for which value_and_grad is given, and returns, a list with
            one tree for each group, or the one group's tree. Arrays are float32 or float64.
        data: None for a function of the parameters alone; a tuple of arrays of equal first
            dimension, one array, or a dict of arrays, of which `MiniBatches` are made; a
            `MiniBatches`; or any other iterable of batches.
        optimizer: the name of a class in `fastgd.optimizers`, in any case ("adam", "lion"); a class or
            function that makes an optimizer of the parameters; or an optimizer made with these very
            parameters, which continues from its step count.
        batch_size: samples per batch; None for all.
        epochs: passes over the data to make.
        steps: steps to take. With both, whichever comes first. With neither: 10 epochs of mini-batches
            (one of an iterator); without data, or with all of it in every step, 1,000 steps, and
            with `tol` 10,000.
        tol: stop when the gradient's norm is at most this. For functions without noise: without
            data, or with all of it in every step.
        has_aux: whether value_and_grad returns ((loss, aux), grads), as with JAX's option of this name;
            a callback finds aux in its `StepInfo`.
        callback: called with a `StepInfo` after each step. The run ends when it returns True or
            raises StopIteration.
        validation: a function of the parameters that returns a loss, or data as above for
            value_and_grad, whose mean over all samples counts (the gradient is ignored).
        metrics: functions of the parameters that return a number, by name, such as
            {"accuracy": accuracy}: called at each validation, and recorded in the history.
        validation_every: validate after every so many steps; None for after each epoch, which
            without data is each step. A `schedules.ReduceOnPlateau` among the hyperparameters is
            updated each time.
        patience: stop after so many validations in a row without a new best one; without
            `validation` or `metrics`, where there is no noise, after so many steps without a lower
            loss. The best parameters are restored, bit for bit, however the run ends. An
            `EarlyStopping` in place of the number remembers over several runs and can be saved.
        monitor: the metric that patience, a ReduceOnPlateau and `best_loss` go by; None for the
            validation's loss, without `validation` for the first metric.
        mode: "min", or "max" if more of what is monitored is better.
        min_delta: by how much a value must be better to be a new best one, 0 if not given.
        average: "ema" or ("ema", decay) for an exponential moving average of the parameters, decay
            0.999 if not given; "tail" or ("tail", fraction) for the mean over the last part of the
            steps, by default half; or an object of `fastgd.averaging` over these parameters.
            Validation looks at the average, and `result.params` is the average.
        accumulate: batches whose gradients are averaged for one step, each weighing as many times as
            it has samples (as its longest array has rows). Steps do not mix epochs: the last of an
            epoch has the batches that are left.
        copy: whether to train copies. Beside the parameters and the optimizer's state a run holds up to
            three more arrays of their size: the copy to go back to, the best ones (patience), an average;
            evaluating an average makes one for the time being.
        probe: whether to call value_and_grad again after a few steps (0, 1, 2, 4, 8, … and one in
            200) on the same batch, for `diagnose`. Where there is no noise no calls are needed.
        record_every: record the norms of one step in so many in the history after the first 32; None
            for every step of models of up to 8,192 elements and one in 31 of larger ones. Losses are
            recorded of every step.
        max_records: bound of the history's length; of longer runs every second entry is dropped.
        progress: True for a progress bar on a terminal or in a notebook, if tqdm is installed, elsewhere
            (a pipe, a log file) a line on stderr every five seconds: with epoch, loss, validation
            loss and learning rate. None for a bar, but no lines, on runs of more than two seconds.
        seed: of the order of batches made from arrays.
        on_interrupt: what Ctrl-C does: "return" the result so far, whose reason is "interrupted", and log
            a warning; or "raise" the KeyboardInterrupt once everything is put in order, for a sweep.
        comm: an mpi4py communicator: all of its ranks call minimize, with the same arguments and data, and
            train together. Arrays as data are dealt out to the ranks, of which each takes batches of
            `batch_size`; a MiniBatches must have shard=(comm.rank, comm.size), and other iterables are
            batches of this rank. Parameters, result and history are the same on all ranks; rank 0 shows
            the progress. What a callback decides it must decide on all ranks, and Ctrl-C ends all
            without a result.
        **hyperparameters: passed on to the optimizer: numbers or schedules such as
            lr=fastgd.schedules.cosine(…), and clip_norm, nonfinite and so on.

    Returns:
        A `Result`. A KeyboardInterrupt is no error: what was reached is returned.

    When the loss is not finite the run ends, without a step. Unless the batch itself is to blame, the
    parameters are put back to the last copy made when the loss was finite: to those before the last
    step for models of up to 16,384 elements, up to 32 steps back for larger ones. The optimizer's
    state is not put back: with nonfinite="raise" a gradient that is not finite ends the run before
    anything is changed, and with nonfinite="skip" its step is left out.

    A MiniBatches is left where the run ended: the next run begins with the batch that would have
    been next. (Copies of a state that a callback took are as exact.) So two runs of 50 steps with the
    same optimizer and the same MiniBatches are one of 100.

    Raises:
        TypeError, ValueError: an argument, or what value_and_grad returned, is not as described;
            names it. Arguments are refused before anything is changed.

    Example:
        >>> import numpy as np, fastgd
        >>> def rosenbrock(p):
        ...     x, y = p
        ...     loss = (1 - x) ** 2 + 100 * (y - x**2) ** 2
        ...     return loss, np.array([2 * (x - 1) - 400 * x * (y - x**2), 200 * (y - x**2)])
        >>> start = np.array([-1.0, 1.0])
        >>> result = fastgd.minimize(rosenbrock, start, lr=0.05, steps=5000, tol=1e-6, copy=True)
        >>> result.params.round(4).tolist(), result.reason, result.converged
        ([1.0, 1.0], 'tol', True)

        Mini-batches:

        >>> rng = np.random.default_rng(0)
        >>> X = rng.standard_normal((200, 3))
        >>> y = X @ [1.0, -2.0, 0.5]
        >>> def least_squares(w, X, y):
        ...     r = X @ w - y
        ...     return r @ r / len(y), 2 * X.T @ r / len(y)
        >>> result = fastgd.minimize(
        ...     least_squares, np.zeros(3), data=(X, y), optimizer="sgd", batch_size=20, epochs=20,
        ...     lr=0.1)
        >>> result.params.round(4).tolist(), result.nit, result.reason
        ([1.0, -2.0, 0.5], 200, 'epochs')

    References:
        Goodfellow et al. 2016, algorithm 7.1 (early stopping); Polyak & Juditsky 1992 (averaging).
    """
    ranks = shard = None
    if comm is not None:
        from fastgd.training import _across

        ranks = _across.Ranks(comm)
        shard = ranks.rank, ranks.size
    source = batches_of(data, batch_size, integer("seed", seed, 0), shard=shard)
    count = integer("accumulate", accumulate, 1)
    feed = Feed(source, count) if ranks is None else _across.SharedFeed(source, count, ranks)
    bound = _check_tol(tol, feed)
    limits = check_epochs(epochs, source), _optional("steps", steps)
    if limits == (None, None):
        limits = _default_limits(source, feed, bound)
    given, tree = prepare_params(params, flag("copy", copy))
    aux = flag("has_aux", has_aux)
    shared = None if ranks is None else _across.SharedObjective(value_and_grad, tree, aux, ranks)
    objective = shared or Objective(value_and_grad, tree, aux)
    watched = make_metrics(metrics)
    rules = Rules(
        steps=limits[1],
        epochs=limits[0],
        tol=bound,
        validation=make_validation(validation, data, objective),
        metrics=watched,
        monitor=_monitor(monitor, watched, validation),
        validation_every=_optional("validation_every", validation_every),
        stopping=_stopping(patience, mode, min_delta),
        callback=callback,
        probe=flag("probe", probe),
    )
    choice("on_interrupt", on_interrupt, ("return", "raise"))
    _check_rules(rules, feed, average)
    total = _total_steps(rules, feed)
    bar = make_progress(False if ranks is not None and ranks.rank > 0 else progress, total)
    made = make_optimizer(optimizer, given, copy, hyperparameters, minimize)
    if shared is not None:
        shared.step_with(made, comm)
    _warn_of_ends(made, total, rules.epochs, feed)
    loop = Loop(
        objective,
        made,
        tree,
        feed,
        _history(made, feed, _optional("record_every", record_every), max_records, watched),
        rules,
        make_average(average, tree, total),
        bar,
    )
    loop.run()
    if shared is not None:
        shared.close()
    if loop.reason == "interrupted":
        if on_interrupt == "raise":
            raise KeyboardInterrupt
        LOG.warning(
            "minimize was interrupted after %d steps; its result says so, and the run can go on",
            loop.steps_taken,
        )
    return Result(
        loop.params,
        loop.loss,
        loop.steps_taken,
        objective.calls,
        loop.converged,
        loop.converged or (bound is None and loop.reason in MESSAGES.keys() - {"interrupted"}),
        loop.reason,
        None if math.isnan(rules.stopping.best) else rules.stopping.best_step,
        rules.stopping.best,
        loop.history,
    )


def _optional(name: str, value: Any) -> int | None:
    """None, or an int of at least 1."""
    return None if value is None else integer(name, value, 1)


def _check_tol(tol: Any, feed: Feed) -> float | None:
    if tol is None:
        return None
    checked = number("tol", tol)
    if not feed.exact:
        raise ValueError(
            f"tol={tol!r} is for losses without noise, and the gradient of a mini-batch has some even "
            "at the minimum; use validation and patience, or a callback"
        )
    return checked


def _check_rules(rules: Rules, feed: Feed, average: Any) -> None:
    if rules.callback is not None and not callable(rules.callback):
        raise TypeError(f"callback must be a function, got {type(rules.callback).__name__}")
    if rules.validates:
        return
    if rules.validation_every is not None:
        raise ValueError("validation_every needs validation or metrics")
    if rules.stopping.mode == "max":
        raise ValueError('mode="max" needs validation or metrics: the loss itself is minimized')
    if rules.stopping.patience is not None and (not feed.exact or average is not None):
        raise ValueError(
            "patience needs validation, "
            + ("with an average" if feed.exact else "since the loss of a mini-batch is too noisy")
        )


def _default_limits(
    source: Iterable[Any] | None, feed: Feed, tol: float | None
) -> tuple[int | None, int | None]:
    """Epochs and steps of a run that was told neither."""
    if feed.exact:
        return None, STEPS if tol is None else STEPS_WITH_TOL
    return (1 if hasattr(source, "__next__") else EPOCHS), None


def _monitor(monitor: Any, metrics: Mapping[str, Any], validation: Any) -> str | None:
    """Which of the metrics is to be judged by, if one is."""
    if monitor is not None:
        if not metrics:
            raise ValueError(f"monitor={monitor!r} needs metrics, of which it names one")
        return choice("monitor", monitor, metrics)
    return next(iter(metrics)) if metrics and validation is None else None


def _stopping(patience: Any, mode: Any, min_delta: Any) -> EarlyStopping:
    """What `patience` and its like mean; without patience only the best value is noted."""
    options = {"mode": mode, "min_delta": min_delta}
    given = {name: value for name, value in options.items() if value is not None}
    if not isinstance(patience, EarlyStopping):
        return EarlyStopping(patience, **given)
    if given:
        raise ValueError(
            f"{', '.join(given)}: an EarlyStopping that is made already has its own; pass them to it"
        )
    return patience


def _total_steps(rules: Rules, feed: Feed) -> int | None:
    """At most how many steps there will be, None if not known."""
    per_epoch = feed.steps_per_epoch
    by_epochs = None if rules.epochs is None or per_epoch is None else rules.epochs * per_epoch
    bounds = [bound for bound in (rules.steps, by_epochs) if bound is not None]
    return min(bounds) if bounds else None


def _warn_of_ends(optimizer: Optimizer, total: int | None, epochs: int | None, feed: Feed) -> None:
    """Of schedules that end in the first half of the run, with their last value ever after."""
    if total is None:
        return
    for i, group in enumerate(optimizer.param_groups):
        for name, value in group.items():
            end = end_of(value)
            if end is None or end - optimizer.step_count >= total / 2:
                continue
            hint = "; total_steps counts steps"
            if end == epochs and feed.steps_per_epoch:
                hint += f", not epochs, of which each has {feed.steps_per_epoch}: pass {total}"
            warnings.warn(
                f"{name} of group {i}, {value!r}, ends long before this run of {total} steps does{hint}",
                stacklevel=3,
            )


def _history(
    optimizer: Optimizer,
    feed: Feed,
    record_every: int | None,
    max_records: int,
    metrics: Iterable[str],
) -> History:
    if record_every is None:
        elements = sum(array.size for array in optimizer.params.values())
        record_every = 1 if elements <= RECORD_ALL_BELOW else STRIDE
    return History(
        tuple(optimizer.params),
        optimizer=optimizer.declaration.name,
        batch_size=feed.batch_size,
        samples=feed.samples,
        steps_per_epoch=feed.steps_per_epoch,
        first_step=optimizer.step_count,
        max_records=max_records,
        record_every=record_every,
        metrics=tuple(metrics),
    )
