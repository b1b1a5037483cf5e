"""Parameters that stopped although their gradients did not: a second moment that has overflowed."""

from __future__ import annotations

import numpy as np

from fastgd.diagnostics._curvature import Curvature
from fastgd.diagnostics._findings import Finding
from fastgd.diagnostics._run import Run

# A root of the largest float32 number: squares of larger gradients are infinite there.
OVERFLOW = 2.0**64
# Still: this part of an array's largest update is left, in this many records or more at the end.
STILL, RECORDS = 1e-12, 3
# Of one decay: the updates over lr and parameter differ by less.
SAME = 1e-3
# Not at a minimum: the gradient is at least this part of what it was at first.
ALIVE = 1e-3


def frozen_second_moment(run: Run, curvature: Curvature) -> Finding | None:
    """Updates that are nothing from some step on, at a rate and with gradients that are something."""
    if (
        run.layer_grad.size == 0
        or run.layer_update.size == 0
        or run.known < 2 * RECORDS
        or run.plain
    ):
        return None
    grads, updates = run.layer_grad[: run.known], run.layer_update[: run.known]
    largest = updates.max(axis=0)
    with np.errstate(all="ignore"):  # what is left may be decoupled decay: lr * decay * parameter
        decay = updates / (run.layer_param[: run.known] * run.lr[: run.known, None])
        still = (updates <= STILL * largest) | (np.abs(decay / decay[-1] - 1) < SAME)
    since = run.known - np.argmin(still[::-1], axis=0)  # the first record of the stillness
    spike = grads.max(axis=0) >= OVERFLOW
    moving_grads = grads[-1] >= ALIVE * grads[0]
    frozen = still[-1] & (run.known - since >= RECORDS) & spike & moving_grads & (largest > 0)
    if not frozen.any() or not run.lr[run.known - 1] > 0:
        return None
    first = int(np.flatnonzero(frozen)[0])
    at = int(np.argmax(grads[:, first]))
    names = ", ".join(repr(name) for name, x in zip(run.names, frozen, strict=True) if x)
    return Finding(
        "frozen_second_moment",
        1.0,
        "One gradient was so large that its square overflowed: its parameters have not moved since.",
        (
            f"the gradient of {run.names[first]!r} had the norm {grads[at, first]:.2g} at step "
            f"{int(run.step[at])}; a float32 second moment holds squares of up to 1.8e19",
            f"from about step {int(run.step[since[first]])} on nothing moves {names} but decay, if there "
            "is any; the gradients are not zero",
        ),
        (
            'nonfinite="skip" or "raise" looks at what a step would store as well, and keeps such a '
            "gradient out",
            "clip_norm, which shrinks it before it is squared",
            "go on from a checkpoint, or with a new optimizer: an infinite second moment never comes back",
        ),
    )
