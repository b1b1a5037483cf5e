"""What the arguments of `minimize` mean: parameters, optimizer, validation, average."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from fastgd._arguments import number, suggestion
from fastgd._arrays.tree import (
    check_disjoint,
    check_groups,
    check_kind,
    check_parameter,
    flatten,
    is_groups,
)
from fastgd.averaging import Average, ExponentialAverage, TailAverage
from fastgd.history import SERIES
from fastgd.optimizers import OTHER_NAMES, Optimizer, all_optimizers, find
from fastgd.placement import place
from fastgd.sampling import MiniBatches
from fastgd.training._feed import as_arguments, batches_of
from fastgd.training._objective import Objective, as_number, samples_of

OptimizerLike: TypeAlias = str | Optimizer | Callable[..., Optimizer]

# What other libraries call arguments of minimize.
ELSEWHERE = {
    **dict.fromkeys(("maxiter", "max_iter", "n_iter", "num_iters", "iterations"), "steps"),
    **dict.fromkeys(("n_steps", "num_steps", "max_steps", "total_steps", "nit"), "steps"),
    **dict.fromkeys(("n_epochs", "num_epochs", "max_epochs", "nb_epoch"), "epochs"),
    **dict.fromkeys(("gtol", "ftol", "tolerance"), "tol"),
    **dict.fromkeys(("validation_data", "validation_split", "val", "val_data"), "validation"),
    **dict.fromkeys(("early_stopping", "n_iter_no_change"), "patience"),
    **dict.fromkeys(("verbose", "disp"), "progress"),
    **dict.fromkeys(("random_state", "rng"), "seed"),
    **dict.fromkeys(("accumulation_steps", "gradient_accumulation_steps"), "accumulate"),
    **dict.fromkeys(("max_grad_norm", "gradient_clip_val", "grad_clip"), "clip_norm"),
    "x0": "params",
    "fun": "value_and_grad",
    "jac": "value_and_grad",
    "method": "optimizer",
    "callbacks": "callback",
}
OPTIONS = ("lr", "weight_decay", "optimizer")  # that groups have most often
DECAY, TAIL = 0.999, 0.5  # of average="ema" and average="tail"


# --- parameters ---


def prepare_params(params: Any, copy: bool) -> tuple[Any, Any]:
    """What the optimizer takes, and what value_and_grad does: the same, but for a list of groups.

    Raises:
        TypeError, ValueError: a leaf cannot be trained; names it.
    """
    check_groups(params, OPTIONS)
    groups = is_groups(params)
    trees = [group["params"] for group in params] if groups else [params]
    named = [
        leaf for i, tree in enumerate(trees) for leaf in flatten(tree, f"{i}" if groups else "")[0]
    ]
    for name, array in named:
        _check_leaf(name, array, copy)
    check_disjoint(named)  # or the copies of one array would be two
    if copy:
        trees = [place(tree) for tree in trees]
    if not groups:
        return trees[0], trees[0]
    pairs = zip(params, trees, strict=True)
    # An optimizer with a single group takes gradients of that group's tree.
    return [{**group, "params": tree} for group, tree in pairs], (
        trees if len(trees) > 1 else trees[0]
    )


def _check_leaf(name: str, array: Any, copy: bool) -> None:
    if isinstance(array, numbers.Number):
        raise TypeError(
            f"parameter {name!r} is the number {array!r}, which cannot be updated in place; pass "
            "numpy arrays of float32 or float64, for example numpy.array([1.0, 2.0])"
        )
    if copy and isinstance(array, np.ndarray) and not array.flags.writeable:
        check_kind(name, array)  # the copy will be writeable
    else:
        check_parameter(name, array)


# --- optimizer ---


def make_optimizer(
    optimizer: Any,
    params: Any,
    copied: bool,
    options: Mapping[str, Any],
    caller: Callable[..., Any],
) -> Optimizer:
    """The optimizer over `params` that was asked for by name, as a factory or as such.

    `caller` is the function that got the options, whose own arguments one of them may have meant.

    Raises:
        TypeError, ValueError: there is no such optimizer or hyperparameter, or it updates others.
    """
    if isinstance(optimizer, str):
        made: Any = _named(optimizer, options, caller)(params, **options)
    elif isinstance(optimizer, Optimizer):
        if options:
            raise TypeError(
                f"{', '.join(options)}: an optimizer that is made already has its hyperparameters; "
                'assign optimizer.param_groups[0]["lr"] and the like, or pass a name or a class'
            )
        if copied:
            raise ValueError(
                "copy=True, but an optimizer that is made already updates its own arrays"
            )
        made = optimizer
    elif callable(optimizer):
        made = optimizer(params, **options)
    else:
        raise TypeError(
            f"optimizer must be one of {', '.join(all_optimizers())}, an optimizer, or a "
            f"function of the parameters that makes one; got {optimizer!r}"
        )
    if not isinstance(made, Optimizer):
        raise TypeError(f"the optimizer factory returned {type(made).__name__}, not an optimizer")
    _check_optimizer(made, params)
    return made


def _named(name: str, options: Mapping[str, Any], caller: Callable[..., Any]) -> type[Optimizer]:
    kind = find(name)
    known = [key for key in inspect.signature(kind).parameters if key != "params"]
    for option in options:
        if option not in known:
            own = inspect.signature(caller).parameters
            hint = suggestion(option, [*known, *own], OTHER_NAMES | ELSEWHERE)
            raise TypeError(
                f"{caller.__name__}() has no argument {option!r}"
                + (hint or f", nor has {kind.__name__}, which takes {', '.join(known)}")
            )
    return kind


def _check_optimizer(optimizer: Optimizer, params: Any) -> None:
    groups = is_groups(params)
    trees = [group["params"] for group in params] if groups else params
    leaves, _ = flatten(trees)
    mine = list(optimizer.params.values())
    if len(leaves) != len(mine) or any(
        leaf is not array for (_, leaf), array in zip(leaves, mine, strict=False)
    ):
        raise ValueError(
            "params are not the arrays that the optimizer updates: pass the very arrays that it was "
            "made with, a list with one tree for each group if it has several"
        )
    if all(group["maximize"] for group in optimizer.param_groups):
        raise ValueError(
            "maximize=True: minimize() looks for a minimum; let value_and_grad return the negative "
            "of the function and of its gradient"
        )


# --- validation ---


def make_validation(
    validation: Any, data: Any, objective: Objective
) -> Callable[[Any], float] | None:
    """The function params -> loss that `validation` means.

    Raises:
        TypeError, ValueError: it is neither a function nor data.
    """
    if validation is None:
        return None
    if callable(validation):
        return lambda params: as_number("what validation returns", validation(params))
    in_use = validation is data and isinstance(data, MiniBatches)
    if in_use or hasattr(validation, "__next__"):
        raise ValueError(
            "validation must be a function of the parameters, or data of its own that can be gone "
            "through again and again; pass the arrays, or another MiniBatches of them"
        )
    batches = batches_of(validation, None, 0, "validation")
    assert batches is not None
    return lambda params: _mean_loss(objective, params, batches)


def _mean_loss(objective: Objective, params: Any, batches: Iterable[Any]) -> float:
    """The mean over all samples."""
    total = samples = 0.0
    for batch in map(as_arguments, batches):
        rows = samples_of(batch)
        total += rows * objective.at(params, batch)[0]
        samples += rows
    if samples == 0:
        raise ValueError("validation has no samples")
    return total / samples


def make_metrics(metrics: Any) -> dict[str, Callable[[Any], float]]:
    """Functions params -> number by name, as `metrics` has them.

    Raises:
        TypeError, ValueError: it is no such mapping, or a name stands for something else in a history.
    """
    if metrics is None:
        return {}
    if callable(metrics):
        metrics = {getattr(metrics, "__name__", "metric").strip("<>"): metrics}
    if not isinstance(metrics, Mapping):
        raise TypeError(
            "metrics must be a dict of functions of the parameters by name, such as "
            f'{{"accuracy": accuracy}}, got {type(metrics).__name__}'
        )
    checked = {}
    for name, function in metrics.items():
        if not isinstance(name, str) or not callable(function):
            raise TypeError(f"metrics[{name!r}] must be a function of the parameters, by a name")
        if name in SERIES:
            raise ValueError(f"metrics: {name!r} is something else in a history; take another name")
        checked[name] = _metric(name, function)
    return checked


def _metric(name: str, function: Callable[[Any], Any]) -> Callable[[Any], float]:
    return lambda params: as_number(f"what metric {name!r} returns", function(params))


# --- averaging ---


def make_average(average: Any, params: Any, total_steps: int | None) -> Average | None:
    """The average that `average` means: None, a name, (name, number) or an Average.

    Raises:
        TypeError, ValueError: it is something else, or is of other arrays.
    """
    if average is None:
        return None
    if isinstance(average, Average):
        mine = [array for _, array in flatten(params)[0]]
        theirs = average.arrays
        if len(mine) != len(theirs) or any(a is not b for a, b in zip(mine, theirs, strict=True)):
            raise ValueError("average is of other arrays than those that are trained")
        return average
    kind, value = average if isinstance(average, tuple) and len(average) == 2 else (average, None)
    if kind == "ema":
        return ExponentialAverage(params, DECAY if value is None else value)
    if kind == "tail":
        return TailAverage(params, _tail_start(TAIL if value is None else value, total_steps))
    raise ValueError(
        'average must be None, "ema", ("ema", decay), "tail", ("tail", fraction) or an object of '
        f"fastgd.averaging, got {average!r}"
    )


def _tail_start(fraction: Any, total_steps: int | None) -> int:
    part = number('the fraction of average=("tail", fraction)', fraction, 0, 1, "(]")
    if total_steps is None:
        raise ValueError(
            'average="tail" needs to know how long the run is: give steps, or data with a length; '
            "or pass fastgd.averaging.TailAverage(params, start)"
        )
    return total_steps - max(1, round(part * total_steps))
