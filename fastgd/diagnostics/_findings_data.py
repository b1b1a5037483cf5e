"""Rules about numbers that are not finite, and about the validation loss."""

from __future__ import annotations

import numpy as np

from fastgd.diagnostics._curvature import Curvature
from fastgd.diagnostics._findings import Finding, ramp
from fastgd.diagnostics._run import TINY, Run

# A run that was diverging before it overflowed had lost this much by then: ten times its first loss …
GROWN = 10.0
# … or stepped so far that the loss should have changed by ten times itself.
OVERSHOT = 10.0
# The validation loss must rise again by this part of what it had fallen: less is noise, or not worth a
# change; a rise of a quarter is beyond doubt.
RISE, CLEAR_RISE = 0.05, 0.25
# Validations needed to see a minimum.
VALIDATIONS = 5


def diverged(run: Run) -> bool:
    """Whether the loss or the parameters had grown before the first number that is not finite."""
    n = run.known
    if n == 0 or n == run.loss.size:
        return False
    recent = run.loss[max(0, n - 20) : n]
    if recent.max() - run.initial > GROWN * max(abs(run.initial), run.noise):
        return True
    probes = run.probes
    before = probes.step < run.step[n]
    if before.any() and not probes.change[before][-1] <= GROWN * run.scale:
        return True
    predicted = np.abs(run.grad_dot_update[n - 1])
    return bool(predicted > OVERSHOT * max(abs(run.loss[n - 1]), run.scale))


def nonfinite_data_or_loss(run: Run, curvature: Curvature) -> Finding | None:
    """NaN or infinity out of the blue: in the data, or made by the loss or its gradient."""
    n = run.known
    if n == run.loss.size or diverged(run):
        return None
    step, loss = run.end, run.loss[n]
    bad = ~np.isfinite(run.layer_grad[n]) if run.layer_grad.size else np.zeros(0, bool)
    names = [name for name, is_bad in zip(run.names, bad, strict=True) if is_bad]
    finite = bool(np.isfinite(loss))
    evidence = [f"the loss at step {step} is {loss:.3g}" + (", which is finite" if finite else "")]
    if names:
        listed = ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
        where = "every array" if bad.all() else listed
        evidence.append(f"the gradient at step {step} is not finite in {where}")
    if n:
        evidence.append(
            f"nothing announced it: the loss was {run.loss[n - 1]:.3g} before, {run.initial:.3g} at first"
        )
    count = int(np.sum(~np.isfinite(run.loss)))
    if count > 1:
        evidence.append(f"{count} of {run.loss.size} recorded losses are not finite")
    source = "the loss" if not finite else listed if names and not bad.all() else "the gradient"
    return Finding(
        "nonfinite_data_or_loss",
        1.0,
        f"Not finite: {source} at step {step}, and not because the run diverged.",
        tuple(evidence),
        (
            "look for NaN and infinity in the data, numpy.isfinite(X).all(), first in that batch",
            "guard the loss and its gradient: log(0), 0/0 of a norm at zero, exp of a large number "
            "(numpy.logaddexp); check_gradient names the array",
            'nonfinite="raise" stops at the step and names the array, nonfinite="skip" leaves such '
            "steps out",
        ),
    )


def overfitting(run: Run, curvature: Curvature) -> Finding | None:
    """A validation loss that rises again while the training loss goes on falling."""
    finite = np.isfinite(run.validation_loss)
    loss, step = run.validation_loss[finite], run.validation_step[finite]
    if loss.size < VALIDATIONS or run.known == 0:
        return None
    at, end = int(np.argmin(loss)), float(np.median(loss[-3:]))
    rise, fallen = end - loss[at], loss[0] - loss[at]
    noise = float(np.median(np.abs(np.diff(loss[at:])))) if at + 2 < loss.size else np.inf
    then = np.searchsorted(run.step[: run.known], step[at])
    later = run.loss[min(int(then), run.known - 1) : run.known]
    half = max(1, later.size // 10)
    falls = np.median(later[-half:]) < np.median(later[:half])
    if at > loss.size - 3 or not falls or rise <= 2 * noise:
        return None
    share = rise / max(fallen, 0.1 * abs(loss[at]), TINY)
    return Finding(
        "overfitting",
        0.5 * ramp(share, 0, RISE) + 0.5 * ramp(share, RISE, CLEAR_RISE),
        f"Overfitting since about step {int(step[at])}.",
        (
            f"the validation loss was lowest at step {int(step[at])} ({loss[at]:.3g}) and is {end:.3g} at "
            f"the end: {share:.0%} of what it had gained is lost again",
            f"the training loss went on falling, to {run.final:.3g}",
        ),
        (
            "stop there: minimize(validation=…, patience=…) keeps the best parameters",
            "regularise (weight_decay, dropout, a smaller model) or get more data",
        ),
    )
