"""Schedules with one elementary formula: jumps, lines, powers, exponentials, inverses of time."""

from __future__ import annotations

import math
from bisect import bisect_right

from fastgd.schedules._schedule import (
    Formula,
    Increasing,
    Levels,
    NonNegative,
    Positive,
    Steps,
    blend,
    schedule,
)


@schedule
def constant(value: NonNegative) -> Formula:
    """The same value at every step, for use within `warmup` and `join`.

    Args:
        value: Finite, >= 0.

    Returns:
        A `Schedule`.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> from fastgd.schedules import constant, join, linear
        >>> hold_then_decay = join([constant(0.5), linear(0.5, total_steps=2, start_factor=1,
        ...                                               end_factor=0)], boundaries=[2])
        >>> [hold_then_decay(step) for step in range(5)]
        [0.5, 0.5, 0.5, 0.25, 0.0]
    """
    return lambda t: value


@schedule
def step(lr: NonNegative, *, step_size: Steps, gamma: Positive = 0.1) -> Formula:
    """Multiply by gamma every step_size steps (PyTorch's StepLR).

        value(t) = lr * gamma ** floor(t / step_size)

    Args:
        lr: Value at step 0, finite, >= 0.
        step_size: Steps between two jumps, >= 1.
        gamma: Factor of a jump, > 0.

    Returns:
        A `Schedule`.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> from fastgd.schedules import step
        >>> schedule = step(1.0, step_size=2, gamma=0.5)
        >>> [schedule(t) for t in range(6)]
        [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]

    References:
        Szegedy et al., Going Deeper with Convolutions (2015), section 6: a fall of 4 % every 8
        epochs.
    """
    return lambda t: lr * gamma ** (t // step_size)


@schedule
def multi_step(lr: NonNegative, *, milestones: Increasing, gamma: Positive = 0.1) -> Formula:
    """Multiply by gamma at each milestone (PyTorch's MultiStepLR).

        value(t) = lr * gamma ** (number of milestones <= t)

    Args:
        lr: Value at step 0, finite, >= 0.
        milestones: Strictly increasing step counts, >= 1. The step with a milestone's number is the
            first with the new value.
        gamma: Factor of a jump, > 0.

    Returns:
        A `Schedule`.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> from fastgd.schedules import multi_step
        >>> schedule = multi_step(1.0, milestones=[2, 5], gamma=0.5)
        >>> [schedule(step) for step in range(7)]
        [1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]

    References:
        He et al., Deep Residual Learning for Image Recognition (2016), section 4.2: a tenth at
        32,000 and again at 48,000 iterations.
    """
    return lambda t: lr * gamma ** bisect_right(milestones, t)


@schedule
def piecewise_constant(values: Levels, *, boundaries: Increasing) -> Formula:
    """Given values between given steps.

        value(t) = values[number of boundaries <= t]

    Args:
        values: One more than boundaries; each finite, >= 0.
        boundaries: Strictly increasing step counts, >= 1. The step with a boundary's number is the
            first with the next value.

    Returns:
        A `Schedule`.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Warning:
        At a boundary Keras's PiecewiseConstantDecay still has the earlier value. This has the later
        one, like PyTorch's MultiStepLR and optax.

    Example:
        >>> from fastgd.schedules import piecewise_constant
        >>> schedule = piecewise_constant([0.5, 0.1, 0.3], boundaries=[2, 4])
        >>> [schedule(step) for step in range(6)]
        [0.5, 0.5, 0.1, 0.1, 0.3, 0.3]
    """
    if len(values) != len(boundaries) + 1:
        raise ValueError(
            f"values must have one more item than boundaries, got {len(values)} values "
            f"and {len(boundaries)} boundaries"
        )
    return lambda t: values[bisect_right(boundaries, t)]


@schedule
def linear(
    lr: NonNegative,
    *,
    total_steps: Steps,
    start_factor: NonNegative = 1 / 3,
    end_factor: NonNegative = 1.0,
) -> Formula:
    """A straight line between two multiples of lr (PyTorch's LinearLR).

        value(t) = lr * (start_factor + (end_factor - start_factor) * min(t / total_steps, 1))

    Args:
        lr: Value that the factors multiply, finite, >= 0.
        total_steps: Step at which end_factor is reached, >= 1 (PyTorch's total_iters); the value
            stays there.
        start_factor: Factor at step 0, finite, >= 0. The default is PyTorch's, for a warmup.
        end_factor: Factor at the end, finite, >= 0.

    Returns:
        A `Schedule`.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> from fastgd.schedules import linear
        >>> decay = linear(1.0, total_steps=4, start_factor=1, end_factor=0)
        >>> [decay(step) for step in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]

    References:
        Defazio et al., When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement
        (2023), arXiv:2310.07831: why linear decay to zero.
    """
    return lambda t: lr * blend(start_factor, end_factor, min(t, total_steps) / total_steps)


@schedule
def polynomial(
    lr: NonNegative, *, total_steps: Steps, power: Positive = 1.0, final: NonNegative = 0.0
) -> Formula:
    """A power of the share of steps that is left (PyTorch's PolynomialLR; "poly").

        value(t) = final + (lr - final) * (1 - min(t / total_steps, 1)) ** power

    Args:
        lr: Value at step 0, finite, >= 0.
        total_steps: Step at which final is reached, >= 1 (PyTorch's total_iters); the value stays
            there.
        power: Exponent, finite, > 0; 1 is a linear decay.
        final: Value at the end, finite, >= 0. PyTorch has 0 only.

    Returns:
        A `Schedule`.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> from fastgd.schedules import polynomial
        >>> schedule = polynomial(1.0, total_steps=4, power=2)
        >>> [schedule(step) for step in range(6)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]

    References:
        Chen et al., DeepLab (2017), arXiv:1606.00915, section 4.1, with power 0.9.
    """
    return lambda t: blend(final, lr, (1.0 - min(t, total_steps) / total_steps) ** power)


@schedule
def exponential(lr: NonNegative, *, gamma: Positive) -> Formula:
    """Multiply by gamma at each step (PyTorch's ExponentialLR).

        value(t) = lr * gamma ** t

    Args:
        lr: Value at step 0, finite, >= 0.
        gamma: Factor per step, finite, > 0. To divide by 10 in n steps, 0.1 ** (1 / n); above 1 for
            a learning-rate sweep.

    Returns:
        A `Schedule`.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Warning:
        Keras and optax give the factor per decay_steps or transition_steps: their rate r over n
        steps is gamma = r ** (1 / n).

    Example:
        >>> from fastgd.schedules import exponential
        >>> schedule = exponential(1.0, gamma=0.5)
        >>> [schedule(step) for step in range(4)]
        [1.0, 0.5, 0.25, 0.125]

    References:
        Senior et al., An Empirical Study of Learning Rates in Deep Neural Networks for Speech
        Recognition (2013).
    """
    return lambda t: lr * gamma**t


@schedule
def inverse_time(lr: NonNegative, *, decay_rate: NonNegative, decay_steps: Steps = 1) -> Formula:
    """Fall as 1 / t, with which SGD converges on strongly convex functions.

        value(t) = lr / (1 + decay_rate * t / decay_steps)

    Args:
        lr: Value at step 0, finite, >= 0.
        decay_rate: Speed of the decay, finite, >= 0: lr is halved after decay_steps / decay_rate
            steps. Bottou's is lr times the coefficient of L2 regularization.
        decay_steps: Unit in which decay_rate counts steps, >= 1.

    Returns:
        A `Schedule`.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Warning:
        scikit-learn's learning_rate="invscaling" is another formula, eta0 / t ** power_t.

    Example:
        >>> from fastgd.schedules import inverse_time
        >>> schedule = inverse_time(1.0, decay_rate=0.5)
        >>> [schedule(step) for step in (0, 2, 6, 14)]
        [1.0, 0.5, 0.25, 0.125]

    References:
        Robbins and Monro, A Stochastic Approximation Method (1951);
        Bottou, Stochastic Gradient Descent Tricks (2012), section 5.2.
    """
    return lambda t: lr / (1.0 + decay_rate * (t / decay_steps))


@schedule
def inverse_sqrt(lr: NonNegative, *, warmup_steps: Steps) -> Formula:
    """Linear warmup, then decay with the root of the step count ("Noam").

        value(t) = lr * min(s / warmup_steps, sqrt(warmup_steps / s)),    s = t + 1

    Args:
        lr: Highest value, that of step warmup_steps - 1; finite, >= 0. The paper's is
            (d_model * warmup_steps) ** -0.5, with d_model the width of the model.
        warmup_steps: Steps of the warmup, >= 1.

    Returns:
        A `Schedule`; it has no end.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Warning:
        As in the paper, the first step has s = 1. Hugging Face's and fairseq's schedules count from
        0, so that their first value is 0 and the highest comes one step later.

    Example:
        >>> from fastgd.schedules import inverse_sqrt
        >>> schedule = inverse_sqrt(1.0, warmup_steps=4)
        >>> [schedule(step) for step in (0, 1, 2, 3, 15, 63)]
        [0.25, 0.5, 0.75, 1.0, 0.5, 0.25]

    References:
        Vaswani et al., Attention Is All You Need (2017), arXiv:1706.03762, section 5.3, equation 3.
    """

    def formula(t: int) -> float:
        s = t + 1
        return lr * (s / warmup_steps if s < warmup_steps else math.sqrt(warmup_steps / s))

    return formula
