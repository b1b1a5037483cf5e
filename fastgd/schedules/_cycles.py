"""Schedules that rise and fall: cyclic and one-cycle."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

from fastgd._arguments import flag, integer
from fastgd.schedules._schedule import (
    Formula,
    NonNegative,
    Positive,
    Share,
    Steps,
    at_least,
    blend,
    half_cosine,
    one_of,
    schedule,
)

_CYCLIC_MODES = ("triangular", "triangular2", "exp_range")
_ANNEALING: dict[str, Callable[[float], float]] = {
    "cos": half_cosine,
    "linear": float,
}  # the identity


def _steps_or_none(name: str, value: Any) -> int | None:
    return None if value is None else integer(name, value, 1)


Annealing: TypeAlias = Annotated[Literal["cos", "linear"], one_of(_ANNEALING)]
Flag: TypeAlias = Annotated[bool, flag]
TwoSteps: TypeAlias = Annotated[int, at_least(2)]


@functools.partial(schedule, step_size_down="step_size_up")
def cyclic(
    base_lr: NonNegative,
    max_lr: NonNegative,
    *,
    step_size_up: Steps = 2000,
    step_size_down: Annotated[int | None, _steps_or_none] = None,
    mode: Annotated[
        Literal["triangular", "triangular2", "exp_range"], one_of(_CYCLIC_MODES)
    ] = "triangular",
    gamma: Positive = 1.0,
) -> Formula:
    """Triangles between two values (PyTorch's CyclicLR).

        value(t) = base_lr + (max_lr - base_lr) * triangle * scale
        triangle = x / step_size_up for x <= step_size_up, else (period - x) / step_size_down
        period   = step_size_up + step_size_down;    x = t mod period
        scale    = 1, 2 ** -floor(t / period) or gamma ** t
                   for mode "triangular", "triangular2" or "exp_range"

    Args:
        base_lr: Value at the start of each cycle, finite, >= 0.
        max_lr: Value at the tip of the first triangle, finite, >= 0. It may be less than base_lr:
            cyclic(max_momentum, base_momentum, ...) is the momentum that PyTorch cycles against lr.
        step_size_up: Steps from base_lr to max_lr, >= 1.
        step_size_down: Steps back, >= 1; None for as many.
        mode: How the triangles shrink: not, by half each cycle, or by gamma each step.
        gamma: Factor per step of mode "exp_range", > 0; the other modes do not use it.

    Returns:
        A `Schedule`; it has no end.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> from fastgd.schedules import cyclic
        >>> schedule = cyclic(0.5, 1.5, step_size_up=2, mode="triangular2")
        >>> [schedule(step) for step in range(9)]
        [0.5, 1.0, 1.5, 1.0, 0.5, 0.75, 1.0, 0.75, 0.5]

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks (2017), arXiv:1506.01186,
        section 3.1.
    """
    up, down = step_size_up, step_size_down
    assert down is not None

    def formula(t: int) -> float:
        cycle, x = divmod(t, up + down)
        triangle = x / up if x <= up else (up + down - x) / down
        if mode == "triangular2":
            triangle = math.ldexp(triangle, -cycle)
        elif mode == "exp_range":
            triangle *= gamma**t
        return blend(base_lr, max_lr, triangle)

    return formula


def _one_cycle_formula(
    points: tuple[float, float, float, float],
    total_steps: int,
    pct_start: float,
    anneal_strategy: str,
    three_phase: bool,
) -> Formula:
    """From `start` to `tip` to `end`, with three phases by way of `back`."""
    if three_phase and pct_start > 0.5:
        raise ValueError(
            f"pct_start must be at most 0.5 with three_phase, as the first two phases both take "
            f"that share of the steps; got {pct_start!r}"
        )
    start, tip, back, end = points
    last = total_steps - 1
    share = pct_start * total_steps  # PyTorch's: not rounded to whole steps
    weight = _ANNEALING[anneal_strategy]
    phases = [(0.0, share - 1, start, tip), (share - 1, last, tip, end)]
    if three_phase:
        phases[1:] = [(share - 1, 2 * share - 2, tip, back), (2 * share - 2, last, back, end)]

    def formula(t: int) -> float:
        t = min(t, last)
        begin, stop, left, right = next(phase for phase in phases if t <= phase[1])
        if begin >= stop:  # no step is within the phase
            return right
        return blend(left, right, weight((t - begin) / (stop - begin)))

    return formula


@schedule
def one_cycle(
    max_lr: NonNegative,
    *,
    total_steps: TwoSteps,
    pct_start: Share = 0.3,
    anneal_strategy: Annealing = "cos",
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
    three_phase: Flag = False,
) -> Formula:
    """One rise to max_lr and one fall far below the start (PyTorch's OneCycleLR).

        initial = max_lr / div_factor,    min = initial / final_div_factor
        value   = initial -> max_lr -> min               at steps 0, a, total_steps - 1
                  initial -> max_lr -> initial -> min    at steps 0, a, 2 * a, total_steps - 1,
                                                         with three_phase
        a       = pct_start * total_steps - 1

    and in between along half a cosine, or a straight line.

    Args:
        max_lr: Highest value, finite, >= 0.
        total_steps: Steps of the run, >= 2. The last one, step total_steps - 1, has the value min;
            the value stays there.
        pct_start: Share of the steps that rise, in [0, 1], with three_phase in [0, 0.5]. Of 1 the last
            step has the highest value and nothing falls, as in PyTorch.
        anneal_strategy: "cos" or "linear".
        div_factor: max_lr / initial, > 0.
        final_div_factor: initial / min, > 0.
        three_phase: Fall as slowly as it rose, then to min in the rest of the run, as in the paper.

    Returns:
        A `Schedule`.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Warning:
        PyTorch raises an error after the end. In optax's one-cycle schedules the phases end at
        whole steps, and min comes at total_steps.

    Example:
        >>> from fastgd.schedules import one_cycle
        >>> schedule = one_cycle(1.0, total_steps=10, div_factor=10, final_div_factor=10,
        ...                      anneal_strategy="linear")
        >>> [round(schedule(step), 3) for step in range(11)]
        [0.1, 0.55, 1.0, 0.859, 0.717, 0.576, 0.434, 0.293, 0.151, 0.01, 0.01]

    References:
        Smith and Topin, Super-Convergence (2018), arXiv:1708.07120;
        Smith, A Disciplined Approach to Neural Network Hyper-Parameters (2018), arXiv:1803.09820,
        section 4.1.
    """
    initial = max_lr / div_factor
    points = initial, max_lr, initial, initial / final_div_factor
    return _one_cycle_formula(points, total_steps, pct_start, anneal_strategy, three_phase)


@schedule
def one_cycle_momentum(
    base_momentum: Share = 0.85,
    max_momentum: Share = 0.95,
    *,
    total_steps: TwoSteps,
    pct_start: Share = 0.3,
    anneal_strategy: Annealing = "cos",
    three_phase: Flag = False,
) -> Formula:
    """The momentum to go with `one_cycle`: low where the learning rate is high.

        value = max_momentum -> base_momentum -> max_momentum    at steps 0, a, total_steps - 1
                max_momentum -> base_momentum -> max_momentum    at steps 0, a, 2 * a and after,
                                                                 with three_phase
        a     = pct_start * total_steps - 1

    Use it as momentum, or as the first of betas, with the options given to `one_cycle`.

    Args:
        base_momentum: Lowest value, in [0, 1].
        max_momentum: Highest value, in [0, 1].
        total_steps: As for `one_cycle`.
        pct_start: As for `one_cycle`.
        anneal_strategy: As for `one_cycle`.
        three_phase: As for `one_cycle`.

    Returns:
        A `Schedule`.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> from fastgd.schedules import one_cycle_momentum
        >>> schedule = one_cycle_momentum(total_steps=10, anneal_strategy="linear")
        >>> [round(schedule(step), 3) for step in (0, 1, 2, 9)]
        [0.95, 0.9, 0.85, 0.95]

    References:
        Smith, A Disciplined Approach to Neural Network Hyper-Parameters (2018), arXiv:1803.09820,
        section 4.3.
    """
    points = max_momentum, base_momentum, max_momentum, max_momentum
    return _one_cycle_formula(points, total_steps, pct_start, anneal_strategy, three_phase)
