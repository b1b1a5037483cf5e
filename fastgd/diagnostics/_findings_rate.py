"""Rules about the learning rate: too high, too low."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from fastgd.diagnostics._curvature import Curvature
from fastgd.diagnostics._findings import RECORDS, Finding, graded, ramp
from fastgd.diagnostics._findings_data import diverged
from fastgd.diagnostics._findings_layers import died, elasticity_of, movement_of
from fastgd.diagnostics._run import TINY, Run

# --- too high ---

# The loss rose by this part of its first value, or a fifth of what had been gained is lost again: runs
# at the edge of stability lose a few per cent at times (Cohen et al. 2021).
RISEN, LOST = 0.1, 0.2
# A level that differs from another by less than this many standard errors has not changed.
ERRORS = 4.0
# A batch at the start was good by chance if this part of those at the end are as good.
COMMON = 0.05
# A blow-up: one step multiplies the loss by this; it is not made up for by a descent of half the loss.
BLOWN_UP, RECOVERED = 5.0, 0.5
# Losses of single batches so many times the first, or the noise, above it are none if there are several.
OUTBURST, SEVERAL = 25.0, 3
# The loss oscillates: this part of the steps raise it (in the mini-batch case: of the few steps looked
# at), being longer than is stable …
OFTEN, OFTEN_OF_BATCHES, UNSTABLE = 0.3, 0.4, 1.1
SOME_PROBES = 4
# The steps of Adam are stable far beyond what their reach says; by what factor depends on the problem.
ADAM_LIMIT = 3.0
# … a step changes it by this part of what was gained, and the last quarter gains less than this part.
SWING, PROGRESS = 0.02, 0.1
# change / (gradient · update) of a step in the direction of the gradient instead of against it.
WRONG_SIGN = (-1.1, -0.9)

# --- too low ---

# The largest stable learning rate is so many times the run's.
ROOM = (10.0, 20.0, 100.0)
# All steps together are worth so many at that rate, by which not even a well-conditioned problem is solved.
WORTH = (20.0, 2.0)
# Steady: a step of the second half gains at least this part of what one of the first gains.
STEADY = 0.5
# A schedule has ended a run before its time where the rate came down to this part of the mean, and the
# gradient is still as large as before.
DECAYED = 0.1
# Without a word from the curvature: no array moved by more than the first part of its norm, by the second
# for sure, though the gradient says that moving by all of it would change this part of the loss.
MOVED, SENSITIVE = (0.1, 0.02), 0.1
LITTLE = (0.1, 0.3)  # and the loss fell by less than these parts
# Not tiny: a descent by the first part of the loss begins to count against it, by the second it is out.
DESCENT = (0.25, 0.75)

Found: TypeAlias = tuple[float, str, tuple[str, ...]]  # strength, what, evidence


def learning_rate_too_high(run: Run, curvature: Curvature) -> Finding | None:
    """Divergence, a blow-up without recovery, oscillation without progress, or units that die."""
    if run.known == 0:
        return None
    ways = (
        _divergence(run, curvature),
        _blow_up(run),
        _outbursts(run, curvature),
        _oscillation(run, curvature),
        _death(run),
    )
    strength, what, evidence = max((way for way in ways if way), default=(0.0, "", ()))
    if strength == 0:
        return None
    lr = _highest(run)
    if curvature.stable < lr:
        evidence += (
            f"the curvature along the path allows a learning rate of at most {curvature.stable:.2g}, "
            f"this is {lr:.2g}",
        )
        first = f"lr={curvature.stable / 2:.1g}, half of the largest stable one"
    else:
        first = f"lr={lr / 10:.1g}, a tenth" if lr > 0 else "a lower learning rate"
    advice = [
        first,
        "measure the range: find_lr",
        "let it rise from 0 in the first steps (schedules.warmup), or clip_norm= against rare spikes",
    ]
    if _wrong_sign(curvature):
        evidence += ("the loss changes by minus what its gradient predicts",)
        advice.insert(0, "check the sign of the gradient: check_gradient")
    summary = f"The learning rate is too high: {what}."
    return Finding("learning_rate_too_high", strength, summary, evidence, tuple(advice))


def _divergence(run: Run, curvature: Curvature) -> Found | None:
    if diverged(run):
        grew = f"the loss grew from {run.initial:.3g} to {run.loss[: run.known].max():.3g}"
        return 1.0, "the run diverged", (f"{grew} before it overflowed at step {run.end}",)
    if _batches_differ(run, curvature):
        return None
    rise, lost = -run.descent, run.final - run.best
    noise = ERRORS * (run.noise / np.sqrt(run.first_records) + run.uncertainty)
    noise = max(noise, 1e-3 * run.scale)
    strength = 0.0
    risen = rise > noise or (rise > BLOWN_UP * abs(run.initial) and run.first_records == 1)
    never_again = run.loss[run.part(0.5, 1)].min() > run.initial
    if never_again or (risen and not _lucky_first(run, curvature)):
        strength = ramp(rise / max(abs(run.initial), TINY), 0, 2 * RISEN)
    if run.best < run.initial and lost > noise:
        strength = max(strength, ramp(lost / (run.initial - run.best), 0, 2 * LOST))
    if strength == 0:
        return None
    path = f"{run.initial:.3g} at the start, {run.best:.3g} at best and {run.final:.3g} at the end"
    return strength, "the loss rose", (f"the loss was {path}",)


def _blow_up(run: Run) -> Found | None:
    """The loss jumped once to many times its value, and the run has not recovered what that cost."""
    top, before = float(np.max(run.loss[: run.known])), run.probes.before
    times = run.probes.after / np.maximum(before, run.scale)
    jump = float(np.max(times, initial=0.0))
    share = jump if run.stochastic else max(jump, top / run.scale)
    if share < BLOWN_UP or run.initial - run.late_mean > RECOVERED * abs(run.initial):
        return None
    what = (
        f"one step multiplied the loss by {jump:.2g}"
        if jump >= BLOWN_UP
        else f"the loss went up from {run.initial:.3g} to {top:.3g}"
    )
    strength = ramp(np.log10(share), 0, 2 * np.log10(BLOWN_UP))
    return strength, "the loss jumped and did not recover", (what, f"it ends at {run.final:.3g}")


def _lucky_first(run: Run, curvature: Curvature) -> bool:
    """Whether the first batch was a good one by chance: such are not rare at the end either.

    Where steps are longer than is stable they are to blame all the same.
    """
    late = run.loss[run.part(0.9, 1)]
    common = np.mean(late <= run.initial) > COMMON
    return bool(common) and not curvature.stable < _highest(run)


def _batches_differ(run: Run, curvature: Curvature) -> bool:
    """Whether far longer steps would lower the loss of their own batch.

    Then the loss of a batch far above that of another is in the data: outliers, a rare class.
    """
    return run.stochastic and curvature.stable >= ROOM[0] * _highest(run)


def _highest(run: Run) -> float:
    return float(np.max(run.lr[: run.known]))


def _outbursts(run: Run, curvature: Curvature) -> Found | None:
    """Small batches whose loss is far above the first again and again, while most are not."""
    late = run.loss[run.part(0.5, 1)]
    times = int(np.sum(late - run.initial > OUTBURST * max(run.scale, run.noise)))
    if not run.stochastic or times < SEVERAL or _batches_differ(run, curvature):
        return None
    worst = f"the worst to {late.max():.3g} from {run.initial:.3g} at the start"
    return 1.0, "the loss of some batches explodes", (f"{times} did in the second half, {worst}",)


def _oscillation(run: Run, curvature: Curvature) -> Found | None:
    if run.known < RECORDS:
        return None
    late = run.part(0.5, 1)
    # On mini-batches only one step in many is probed.
    since = run.step[run.part(0.1, 1).start if run.stochastic else late.start]
    probes = curvature.probes.step >= since
    up = curvature.probes.change[probes] > 0
    own = ADAM_LIMIT if run.first_moment is not None else 1.0
    beyond = own * curvature.limits[probes] < UNSTABLE * curvature.probes.lr[probes]
    often = OFTEN_OF_BATCHES if run.stochastic else OFTEN
    if up.size < SOME_PROBES or not (up.mean() >= often and beyond.mean() >= often):
        return None
    gained = max(run.initial - run.best, TINY)
    # Of each step's own batch: successive losses also differ because batches do.
    swing = float(np.median(np.abs(curvature.probes.change[probes])))
    if swing < SWING * gained or run.late_gain > PROGRESS * gained:
        return None
    evidence = (
        f"{up.mean():.0%} of the steps looked at raised the loss of their own batch",
        f"a step changes it by {swing:.2g}, and the loss was lowered by {run.late_gain:.2g} from the "
        "third quarter of the run to the last",
    )
    return 0.5 + 0.5 * ramp(float(up.mean()), often, 0.5), "the loss oscillates", evidence


def _death(run: Run) -> Found | None:
    """Steps so long that units were switched off for every sample, which no gradient undoes."""
    names = died(run)
    if not names:
        return None
    evidence = f"the gradient of {names}, not zero at first, is exactly zero in the last quarter"
    return 1.0, "units died during the run", (evidence,)


def _wrong_sign(curvature: Curvature) -> bool:
    probes = curvature.probes
    down = probes.slope < 0
    if not down.any():
        return False
    ratio = np.median(probes.change[down] / probes.slope[down])
    return bool(WRONG_SIGN[0] < ratio < WRONG_SIGN[1])


def learning_rate_too_low(run: Run, curvature: Curvature) -> Finding | None:
    """Steady but tiny progress, where the curvature allows far longer steps, or no movement at all."""
    if run.known < RECORDS or run.known < run.loss.size:  # cut short, it may have been fast enough
        return None
    found = [_room_for_more(run, curvature), _barely_moved(run, curvature)]
    return max((f for f in found if f is not None), key=lambda f: f.strength, default=None)


def _barely_moved(run: Run, curvature: Curvature) -> Finding | None:
    """Parameters that stay where they were, although the gradient is large there."""
    lr = float(run.mean(run.lr))
    if lr == 0:
        summary = "The learning rate is too low: it is 0, and nothing moves."
        return Finding("learning_rate_too_low", 1.0, summary, (), ("measure the range: find_lr",))
    close = curvature.confidence == "high" and curvature.stable < ROOM[0] * lr
    if not run.layer_param.size or close:  # or far from the numbers' own scale, but at full speed
        return None
    moved, sensitive = movement_of(run), elasticity_of(run)
    from_somewhere = np.isfinite(moved)
    if not from_somewhere.any() or sensitive[from_somewhere].sum() < SENSITIVE:
        return None
    most = float(moved[from_somewhere].max())
    decayed = run.lr[run.known - 1] < DECAYED * lr
    if not (decayed or _steady(run)) or not _gradient_stays(run):
        return None
    strength = ramp(-np.log10(max(most, TINY)), *-np.log10(MOVED))
    fall = run.level(0, 0.1) - run.final  # the first batch alone may be an easy or a hard one
    strength *= 1 - ramp(fall / run.scale, *LITTLE)
    return Finding(
        "learning_rate_too_low",
        strength,
        "The learning rate is too low: the parameters hardly moved.",
        (
            f"the loss went from {run.initial:.4g} to {run.final:.4g} in {run.steps:.0f} steps",
            f"all steps together moved no array by more than {most:.1%} of its norm",
            f"the gradient at the end is as large as at the start, {run.grad_norm[0]:.2g}",
        ),
        (
            f"lr={lr * min(0.5 / max(most, TINY), 1000):.1g}",
            "measure the range: find_lr",
            "where a schedule has lowered it: later, or more slowly",
        ),
    )


def _room_for_more(run: Run, curvature: Curvature) -> Finding | None:
    """Steady but tiny progress, where the curvature allows far longer steps."""
    if curvature.concave:  # how long steps may be is not known where they lead
        return None
    lr = float(run.mean(run.lr))
    room = curvature.stable / lr if lr > 0 else np.nan
    if not ROOM[0] <= room < np.inf or run.steps / room > WORTH[0]:
        return None
    worth = run.steps / room
    decayed = run.lr[run.known - 1] < DECAYED * lr
    if not (_gradient_stays(run) if decayed else _steady(run)):
        return None
    pace = "while its learning rate decayed" if decayed else "as fast at the end as before"
    if run.descent < ERRORS * (run.noise + run.uncertainty):
        pace = "which is little against the noise of a batch"
    strength = graded(np.log10(room), *np.log10(ROOM))
    strength *= ramp(-np.log10(worth), *-np.log10(WORTH))
    strength *= 1 - ramp(run.descent / run.scale, *DESCENT)
    return Finding(
        "learning_rate_too_low",
        strength,
        "The learning rate is too low: steady but tiny progress.",
        (
            f"the loss went from {run.initial:.4g} to {run.final:.4g}, {pace}",
            f"the curvature along the path allows a learning rate of about {curvature.stable:.2g}, "
            f"{room:.2g} times the {lr:.2g} of this run",
            f"its {run.steps:.0f} steps are worth {worth:.2g} at that rate",
        ),
        (
            f"lr={min(curvature.stable / 2, 1000 * lr):.1g}",
            "measure the range: find_lr",
            "where a schedule has lowered it: later, or more slowly",
        ),
    )


def _steady(run: Run) -> bool:
    """Whether the second half gains about as much as the first."""
    first = run.level(0, 0.25) - run.level(0.5, 0.75)
    second = run.level(0.25, 0.5) - run.level(0.75, 1)
    return second >= STEADY * first - ERRORS * run.uncertainty


def _gradient_stays(run: Run) -> bool:
    """Whether the gradient is not much smaller at the end: that would be another reason to stop."""
    first, last = (np.median(run.grad_norm[run.part(*q)]) for q in ((0, 0.25), (0.75, 1)))
    return bool(last >= STEADY * first)
