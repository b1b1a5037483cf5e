"""Rules about runs that stand still: at the noise floor of their batches, or on a plateau."""

from __future__ import annotations

import numpy as np

from fastgd.diagnostics._curvature import Curvature
from fastgd.diagnostics._findings import RECORDS, Finding, graded, ramp
from fastgd.diagnostics._run import TINY, Run

# --- noise floor ---

# The part of the loss that noise keeps up and that is worth an effort; it shows in healthy runs too.
FLOOR = (0.0, 0.06, 0.15)
# Less than this part of what was gained is not worth one.
OF_DESCENT = 0.01
# More than there is: not at rest, or adaptive steps that the formula does not fit.
IMPOSSIBLE = 2.0
# At rest: the last quarter is lower than the third by less than this part of the excess, or by less than
# this many standard errors.
AT_REST, ERRORS = 0.2, 3.0

# --- plateau ---

# Flat: the last quarter is lower than the third by less than this part of all there was to gain.
FLAT = 0.01
# A run that lowered the loss by less has not got going; leaving a saddle, its gradient grows.
UNMOVED, GROWTH = 0.05, 2.0
# Far from a minimum: from the third to the last quarter the gradient falls by less than a tenth, so
# that the minimum is two runs like this away or more …
SLOWLY = 0.1
# … it falls in this part of the steps, and does not go up and down …
MOSTLY = 0.9
# … and this part of the loss is still to be gained.
REMAINING = (0.025, 0.05, 0.25)
# A gradient this small against the largest is a minimum's, and what is left of it rounding errors.
GONE = 1e-8


def noise_floor(run: Run, curvature: Curvature) -> Finding | None:
    """A level kept up by the noise of the batches.

    At rest, noise of covariance C in the gradients keeps SGD lr tr(C) / 4 above the minimum: for
    learning rates well below the stable one the covariance S of the parameters solves
    H S + S H = lr C, and the excess is tr(H S) / 2 (Mandt, Hoffman & Blei 2017, section 3.2). There
    -g · u = lr tr(C), so the excess is a quarter of it. Momentum m makes steps 1 / (1 - m) times as
    long in the mean, while only the share of g in them is along g: the excess is a quarter of
    -g · u / (1 - m), and m follows from cos(g, -u) = √(1 - m²).
    """
    if run.known < RECORDS or not run.stochastic:
        return None
    late = run.part(0.75, 1)
    lost = -run.grad_dot_update[late]
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = float(np.median(lost / (run.grad_norm[late] * run.update_norm[late])))
    if not 0 < cosine < 1.001:
        return None
    excess = float(np.mean(lost)) / (4 * (1 - _momentum(run, cosine)))
    of_loss = excess / max(abs(run.final), TINY)
    of_descent = excess / max(run.descent, 0.1 * abs(run.initial), TINY)
    moving = run.late_gain > max(AT_REST * min(excess, abs(run.final)), ERRORS * run.uncertainty)
    if moving or of_descent < OF_DESCENT or of_loss > IMPOSSIBLE:
        return None
    size = f"batches of {run.batch_size}" if run.batch_size else "the batches"
    return Finding(
        "noise_floor",
        graded(of_loss, *FLOOR),
        "The noise of the batches keeps the loss up.",
        (
            f"the loss stays at {run.final:.3g}: in the last quarter it is lower by "
            f"{run.late_gain:.1g} than in the third",
            f"the noise of {size} at this learning rate accounts for about {excess:.2g} of it",
        ),
        (
            "let the learning rate fall: schedules.cosine, inverse_time",
            "larger batches, or accumulate=: the excess falls as 1 / size",
            'average the parameters: minimize(average="tail")',
        ),
    )


def _momentum(run: Run, cosine: float) -> float:
    if run.first_moment is not None:
        return run.first_moment
    if not run.plain:
        return 0.0
    return min(float(np.sqrt(max(0.0, 1 - cosine**2))), 0.99)


def plateau(run: Run, curvature: Curvature) -> Finding | None:
    """No progress, though the gradient is not that of a minimum."""
    if run.known < RECORDS or run.stochastic:
        return None
    return _saddle(run, curvature) or _valley(run)


def _saddle(run: Run, curvature: Curvature) -> Finding | None:
    start = max(float(np.max(run.grad_norm[run.part(0, 0.1)])), TINY)
    growth = float(run.grad_norm[run.known - 1]) / start
    if run.descent > UNMOVED * run.scale or not (growth > GROWTH or curvature.concave):
        return None
    evidence: tuple[str, ...] = (
        f"in {run.steps:.0f} steps the loss fell by {max(run.descent, 0) / run.scale:.1g} of its value",
        f"the norm of the gradient grew {growth:.2g}-fold",
    )
    if curvature.concave:
        evidence += ("the curvature along most of the steps is negative",)
    return Finding(
        "plateau",
        0.5 + 0.5 * ramp(np.log10(growth), np.log10(GROWTH), 1),
        "A plateau: the start is close to a saddle or a maximum.",
        evidence,
        (
            "start further away: larger random values, see initializers",
            "give it more steps: the distance from a saddle grows exponentially",
            "momentum=, or Adam, whose steps do not shrink with the gradient",
            "a higher learning rate, in small factors: how high it may be once the saddle is left is not "
            "known here",
        ),
    )


def _valley(run: Run) -> Finding | None:
    """Little progress with a gradient that hardly falls.

    Along a direction of curvature kappa the gradient falls as (1 - lr kappa)^t, by a share delta per
    step, and what is left to gain is g² / (2 kappa) = -g · u / (2 delta).
    """
    third, last = (float(np.median(run.grad_norm[run.part(*q)])) for q in ((0.5, 0.75), (0.75, 1)))
    slope = float(np.median(-run.grad_dot_update[run.part(0.75, 1)]))
    if not (last > GONE * np.max(run.grad_norm[: run.known]) and slope > 0):
        return None
    fall = np.log(third / last)
    falling = np.diff(run.grad_norm[run.part(0.5, 1)]) < 0
    if not (0 < fall < SLOWLY and falling.mean() > MOSTLY):
        return None
    delta = fall / (run.steps / 4)
    left = slope / (2 * delta)
    if run.late_gain > FLAT * (max(run.descent, 0) + left):
        return None
    return Finding(
        "plateau",
        graded(left / run.scale, *REMAINING),
        "A plateau: hardly any progress is made, but this is no minimum.",
        (
            f"in the last quarter the loss is lower by {run.late_gain:.1g} than in the third",
            f"the norm of the gradient falls by {delta:.1g} of itself per step only: "
            f"about {left:.2g} more could be gained, in {1 / delta:.1g} steps",
        ),
        (
            "standardise the inputs, or rescale the parameters: steep directions keep the learning "
            "rate low, flat ones would need a higher one",
            "momentum=0.9, or Adam, RMSprop, Adagrad, which rescale by themselves",
        ),
    )
