"""Schedules that pass through phases: those composed of others, cosine, and warmup-stable-decay."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from fastgd._arguments import number
from fastgd.schedules._elementary import constant
from fastgd.schedules._schedule import (
    Count,
    Formula,
    Increasing,
    NonNegative,
    Steps,
    blend,
    half_cosine,
    items,
    one_of,
)
from fastgd.schedules._schedule import schedule as factory

# Weight of the final value, by fraction of the decay that has passed; float is the identity.
_DECAYS: dict[str, Callable[[float], float]] = {
    "linear": float,
    "cosine": half_cosine,
    "1-sqrt": math.sqrt,
}


def _as_schedule(name: str, value: Any) -> Formula:
    """Numbers stand for constants here, as they do for a hyperparameter."""
    if callable(value):
        schedule: Formula = value
        return schedule
    return constant(number(f"{name}, unless a function of the step,", value))


def _warmed_up(formula: Formula, steps: int, start_factor: float = 0.0) -> Formula:
    """The formula of `warmup`, which schedules with a warmup of their own use too."""

    def warmed(t: int) -> float:
        if t >= steps:
            return formula(t - steps)
        return formula(0) * blend(start_factor, 1.0, t / steps)

    return warmed


def _as_schedules(name: str, values: Any) -> tuple[Formula, ...]:
    return tuple(_as_schedule(f"{name}[{i}]", x) for i, x in enumerate(items(name, values)))


OneSchedule: TypeAlias = Annotated[Callable[[int], float] | float, _as_schedule]
Schedules: TypeAlias = Annotated[Sequence[Callable[[int], float] | float], _as_schedules]


@factory
def warmup(schedule: OneSchedule, steps: Count, *, start_factor: NonNegative = 0.0) -> Formula:
    """Rise linearly to the first value of a schedule, then follow it.

        value(t) = schedule(0) * (start_factor + (1 - start_factor) * t / steps)    t < steps
                   schedule(t - steps)                                              t >= steps

    Args:
        schedule: A schedule, any other function step -> float, or a number for a constant. It sees
            its own step 0 when the warmup ends, so the whole takes `steps` steps more.
        steps: Length of the warmup, >= 0.
        start_factor: Share of schedule(0) at step 0, finite, >= 0.

    Returns:
        A `Schedule`; picklable and hashable if `schedule` is.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Warning:
        Libraries differ in the first value. With 0, as in Hugging Face's schedules, the first step
        has no effect; start_factor=1 / (steps + 1) is the line that would be 0 one step earlier.
        PyTorch's LinearLR starts at 1/3.

    Example:
        >>> from fastgd.schedules import exponential, warmup
        >>> schedule = warmup(exponential(1.0, gamma=0.5), 4)
        >>> [schedule(step) for step in range(7)]
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.5, 0.25]

    References:
        Goyal et al., Accurate, Large Minibatch SGD (2017), arXiv:1706.02677, section 2.2, "gradual
        warmup".
    """
    assert callable(schedule)
    return _warmed_up(schedule, steps, start_factor)


@factory
def join(schedules: Schedules, boundaries: Increasing) -> Formula:
    """One schedule after the other (PyTorch's SequentialLR).

        value(t) = schedules[i](t - start)    i = number of boundaries <= t,
                                              start = boundaries[i - 1], 0 for i = 0

    Args:
        schedules: Schedules, other functions step -> float, or numbers for constants: one more than
            boundaries. Each sees step 0 where it begins.
        boundaries: Strictly increasing step counts, >= 1: where the second and each later schedule
            begins.

    Returns:
        A `Schedule`; picklable and hashable if all of `schedules` are.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> from fastgd.schedules import join, linear
        >>> schedule = join([0.5, linear(1.0, total_steps=2, start_factor=0), 0.25], [2, 5])
        >>> [schedule(step) for step in range(7)]
        [0.5, 0.5, 0.0, 0.5, 1.0, 0.25, 0.25]
    """
    if len(schedules) != len(boundaries) + 1:
        raise ValueError(
            f"schedules must have one more item than boundaries, got {len(schedules)} schedules "
            f"and {len(boundaries)} boundaries"
        )
    parts, starts = [part for part in schedules if callable(part)], (0, *boundaries)

    def formula(t: int) -> float:
        i = bisect_right(boundaries, t)
        return parts[i](t - starts[i])

    return formula


@factory
def cosine(
    lr: NonNegative, *, total_steps: Steps, warmup_steps: Count = 0, final: NonNegative = 0.0
) -> Formula:
    """Half a cosine from lr to final (PyTorch's CosineAnnealingLR), after an optional warmup.

        value(t) = lr * t / warmup_steps                                    t < warmup_steps
                   final + (lr - final) / 2 * (1 + cos(pi * min(x, 1)))     otherwise
        x        = (t - warmup_steps) / (total_steps - warmup_steps)

    Args:
        lr: Highest value, finite, >= 0.
        total_steps: Step at which final is reached, warmup included, > warmup_steps (PyTorch's
            T_max); the value stays there.
        warmup_steps: Steps of the linear warmup from 0, >= 0. For another start, leave it out here
            and use `warmup`.
        final: Value at the end, finite, >= 0 (PyTorch's eta_min).

    Returns:
        A `Schedule`.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Warning:
        PyTorch's rises again after T_max, with period 2 * T_max. Keras's decay_steps do not include
        its warmup_steps; here, in optax and in Hugging Face's schedules the total does. Keras and
        optax's cosine_decay_schedule take alpha = final / lr.

    Example:
        >>> from fastgd.schedules import cosine
        >>> schedule = cosine(1.0, total_steps=6, warmup_steps=2, final=0.5)
        >>> [round(schedule(step), 3) for step in range(8)]
        [0.0, 0.5, 1.0, 0.927, 0.75, 0.573, 0.5, 0.5]

    References:
        Loshchilov and Hutter, SGDR (2017), arXiv:1608.03983, section 3, equation 5, here without
        restarts.
    """
    if warmup_steps >= total_steps:
        raise ValueError(
            f"warmup_steps must be less than total_steps, got warmup_steps={warmup_steps} "
            f"and total_steps={total_steps}"
        )
    length = total_steps - warmup_steps

    def formula(t: int) -> float:
        return blend(lr, final, half_cosine(min(t, length) / length))

    return _warmed_up(formula, warmup_steps)


@factory
def cosine_restarts(
    lr: NonNegative, *, period: Steps, multiplier: Steps = 1, final: NonNegative = 0.0
) -> Formula:
    """Cosine periods that start again at lr, each longer than the last (SGDR; PyTorch's
    CosineAnnealingWarmRestarts).

        value(t) = final + (lr - final) / 2 * (1 + cos(pi * T_cur / T_i))
        T_i      = period * multiplier ** i, the length of the period t is in, the first with i = 0
        T_cur    = steps since that period began, 0 ... T_i - 1

    Args:
        lr: Value at each restart, finite, >= 0.
        period: Length of the first period in steps, >= 1 (PyTorch's T_0).
        multiplier: Factor from one period's length to the next, an integer >= 1 (PyTorch's T_mult).
        final: Value that each period falls towards, finite, >= 0 (PyTorch's eta_min). The restart
            comes at the step that would reach it.

    Returns:
        A `Schedule`; it has no end.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> from fastgd.schedules import cosine_restarts
        >>> schedule = cosine_restarts(1.0, period=2, multiplier=2)
        >>> [round(schedule(step), 3) for step in range(7)]
        [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]

    References:
        Loshchilov and Hutter, SGDR (2017), arXiv:1608.03983, section 3, equation 5.
    """

    def formula(t: int) -> float:
        length = period
        if multiplier == 1:
            t %= length
        while t >= length:  # exact, where a logarithm could miss a restart by a rounding
            t -= length
            length *= multiplier
        return blend(lr, final, half_cosine(t / length))

    return formula


@factory
def warmup_stable_decay(
    lr: NonNegative,
    *,
    total_steps: Steps,
    warmup_steps: Count,
    decay_steps: Steps,
    final: NonNegative = 0.0,
    decay_type: Annotated[Literal["linear", "cosine", "1-sqrt"], one_of(_DECAYS)] = "linear",
) -> Formula:
    """Warm up, stay at lr for most of the run, decay at its end (WSD, "trapezoidal").

        value(t) = lr * t / warmup_steps              t < warmup_steps
                   lr + (final - lr) * w(min(x, 1))   otherwise
        x        = max(t - (total_steps - decay_steps), 0) / decay_steps
        w(x)     = x, (1 - cos(pi * x)) / 2 or sqrt(x)   for "linear", "cosine" or "1-sqrt"

    A run may be prolonged from any checkpoint of the constant part: values before the decay do not
    depend on total_steps.

    Args:
        lr: Highest value, finite, >= 0.
        total_steps: Step at which final is reached, >= warmup_steps + decay_steps; the value stays
            there.
        warmup_steps: Steps of the warmup from 0, >= 0.
        decay_steps: Steps of the decay, >= 1; 10 to 20 % of the total is usual.
        final: Value at the end, finite, >= 0.
        decay_type: Form of the decay.

    Returns:
        A `Schedule`.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Warning:
        The MiniCPM paper decays exponentially, which is
        join([warmup(lr, warmup_steps), exponential(lr, gamma=...)], [start of the decay]).

    Example:
        >>> from fastgd.schedules import warmup_stable_decay
        >>> schedule = warmup_stable_decay(1.0, total_steps=8, warmup_steps=2, decay_steps=4)
        >>> [schedule(step) for step in range(10)]
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]

    References:
        Hu et al., MiniCPM (2024), arXiv:2404.06395, section 4.2;
        Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations
        (2024), arXiv:2405.18392, section 3, for "1-sqrt".
    """
    if total_steps < warmup_steps + decay_steps:
        raise ValueError(
            f"total_steps must be at least warmup_steps + decay_steps, got total_steps={total_steps}, "
            f"warmup_steps={warmup_steps} and decay_steps={decay_steps}"
        )
    weight, stable = _DECAYS[decay_type], total_steps - warmup_steps - decay_steps

    def formula(t: int) -> float:
        return blend(lr, final, weight(min(max(t - stable, 0), decay_steps) / decay_steps))

    return _warmed_up(formula, warmup_steps)
