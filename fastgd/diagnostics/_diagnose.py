"""`diagnose`: all rules asked, and their findings weighed."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgd.diagnostics._curvature import curvature_of
from fastgd.diagnostics._findings import DECISIVE, RECORDS, Finding
from fastgd.diagnostics._findings_data import nonfinite_data_or_loss, overfitting
from fastgd.diagnostics._findings_frozen import frozen_second_moment
from fastgd.diagnostics._findings_layers import (
    dead_initialization,
    exploding_gradients,
    vanishing_gradients,
)
from fastgd.diagnostics._findings_rate import learning_rate_too_high, learning_rate_too_low
from fastgd.diagnostics._findings_stalled import UNMOVED, noise_floor, plateau
from fastgd.diagnostics._run import Run, read_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# In the order of causes: what a rule finds may be a consequence of what one before it finds.
RULES = (
    nonfinite_data_or_loss,
    frozen_second_moment,
    dead_initialization,
    exploding_gradients,
    vanishing_gradients,
    learning_rate_too_high,
    learning_rate_too_low,
    overfitting,
    noise_floor,
    plateau,
)
# A gradient that fell to this part of its largest value has arrived somewhere.
CONVERGED = 1e-3


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What `diagnose` found; its repr is to be read.

    Attributes:
        verdict: a code, see `diagnose`.
        summary: the verdict in a sentence.
        evidence: the numbers behind it.
        advice: what to try, the most promising first.
        stable_lr: the largest stable learning rate of the first parameter group, None if not known.
        stable_lr_confidence: "high", "low" or "none".
        findings: everything found, the verdict's first, then by strength.
        history: what was looked at, as it was given.
        run: the arrays of it that the rules saw: at the steps whose norms were recorded.
    """

    verdict: str
    summary: str
    evidence: list[str]
    advice: list[str]
    stable_lr: float | None
    stable_lr_confidence: str
    findings: list[Finding]
    history: Any = None
    run: Any = None

    def plot(self, *, axes: Any = None) -> tuple[Axes, Axes]:
        """Draw the loss with what was found marked on it, and what is to blame: see
        `fastgd.plot.diagnosis`.
        """
        from fastgd.plot import diagnosis

        return diagnosis(self, axes=axes)

    def __repr__(self) -> str:
        lines = [f"{self.verdict}: {self.summary}"]
        lines += [_bullet("-", text) for text in self.evidence]
        if self.advice:
            lines += ["Try:", *(_bullet(f"{i}.", text) for i, text in enumerate(self.advice, 1))]
        if self.stable_lr is not None:
            sure = f"{self.stable_lr_confidence} confidence"
            lines.append(f"Largest stable learning rate: about {self.stable_lr:.2g} ({sure}).")
        others = [f for f in self.findings if f.verdict != self.verdict and f.strength >= DECISIVE]
        if others:
            lines.append("Also seen: " + ", ".join(f.verdict for f in others) + ".")
        return "\n".join(lines)


def diagnose(history: Any) -> Diagnosis:
    """Name the cause when a run went wrong, with its evidence and what to try.

    Rules look at the recorded losses and norms for one cause each, and grade it from 0 to 1. Of the
    causes that reach 0.5 the verdict is the first in this order, in which later ones can be the
    consequence of earlier ones:

        "nonfinite_data_or_loss"  NaN or infinity that no growth announced; the step and the arrays
        "frozen_second_moment"    one gradient whose square overflowed; its parameters stand still
        "dead_initialization"     zero or negligible gradients from the start: zero weights, units
                                  that are off or saturated, weights that are much too small
        "exploding_gradients"     gradients that at the start grow by orders of magnitude from layer
                                  to layer, or through time,
        "vanishing_gradients"     … or fall, so that layers are not trained
        "learning_rate_too_high"  divergence, a jump of the loss without recovery, oscillation, units
                                  that die on the way
        "learning_rate_too_low"   steady but tiny progress where the curvature allows far more
        "overfitting"             the validation loss rises again, the training loss does not
        "noise_floor"             the noise of mini-batches keeps the loss from falling further
        "plateau"                 no progress, without noise and not at a minimum: a saddle, or flat
                                  directions next to steep ones
        "no_progress"             none of these, but the loss hardly fell
        "healthy"                 nothing of the kind

    For a step u with the same loss before and after it, kappa = 2 (after - before - g · u) / ‖u‖² is
    the curvature along u, and lr * 2 * (-g · u) / (kappa ‖u‖²) the largest learning rate at which that step
    does not raise the loss, 2 / kappa for gradient descent. The smallest one along the path (a low
    quantile on mini-batches) is `stable_lr`. It can be too high if no step was along the steepest
    direction, and too low with momentum, which allows up to twice as much, and for adaptive methods; its
    confidence is "high" for SGD where several steps agree, unless most of them overshoot so far that the
    parabola would be negative, or most curvatures are, as near a saddle. Without probes
    (`minimize(probe=False)`) it is known for losses without noise only.

    Nothing but the history is looked at: not the model, whose units may all be equal for example, nor
    the data. A run that ended in a poor local minimum looks like one that ended in a good one. Losses of
    0 at best are assumed where a rule speaks of parts of the loss.

    Args:
        history: what `minimize` returned, its history, or a mapping or object with arrays of the same
            names (see `History`). "loss" is required; rules do without the others.

    Returns:
        A `Diagnosis`.

    Raises:
        TypeError, ValueError: there is no loss, or an array is not as `History` describes it.

    Example:
        >>> import numpy as np, fastgd
        >>> def loss(x):
        ...     return x @ ([1.0, 10.0] * x) / 2, [1.0, 10.0] * x
        >>> result = fastgd.minimize(
        ...     loss, np.ones(2), optimizer="sgd", lr=0.21, steps=100)
        >>> diagnosis = fastgd.diagnose(result)
        >>> diagnosis.verdict, round(diagnosis.stable_lr, 3), diagnosis.stable_lr_confidence
        ('learning_rate_too_high', 0.2, 'high')
        >>> print(diagnosis.advice[0])
        lr=0.1, half of the largest stable one

    References:
        Glorot & Bengio 2010 (gradients by layer); Pascanu, Mikolov & Bengio 2013 (exploding ones);
        LeCun, Simard & Pearlmutter 1993 (learning rate and curvature); Mandt, Hoffman & Blei 2017
        (the noise floor); Cohen et al. 2021 (the edge of stability); Goodfellow et al. 2016,
        sections 8.2 (plateaus, cliffs) and 11.5 (debugging).
    """
    run = read_run(history)
    with np.errstate(all="ignore"):  # losses that overflow are what this is about
        curvature = curvature_of(run)
        found = [finding for rule in RULES if (finding := rule(run, curvature)) is not None]
        first = next((f for f in found if f.strength >= DECISIVE), None) or _healthy(run)
    stable = None if curvature.confidence == "none" else curvature.stable
    others = sorted((f for f in found if f is not first and f.strength > 0), key=_weakness)
    return Diagnosis(
        first.verdict,
        first.summary,
        list(first.evidence),
        list(first.advice),
        stable,
        curvature.confidence,
        [first, *others],
        history,
        run,
    )


def _weakness(finding: Finding) -> float:
    return -finding.strength


def _healthy(run: Run) -> Finding:
    """Nothing found: whether the run has arrived, is under way, or was too short to tell."""
    path = f"the loss went from {run.initial:.4g} to {run.final:.4g} in {run.steps:.0f} steps"
    if run.known < RECORDS:
        summary = f"Nothing found, in {run.known} records, which are few."
        return Finding("healthy", 0.0, summary, (path,), ())
    grads = run.grad_norm[: run.known]
    if not run.stochastic and grads[-1] <= CONVERGED * grads.max():
        fell = f"the norm of the gradient fell from {grads.max():.2g} to {grads[-1]:.2g}"
        return Finding("healthy", 1.0, "The run converged.", (path, fell), ())
    gaining = run.late_gain > max(1e-3 * run.scale, 3 * run.uncertainty)
    if gaining:
        return Finding("healthy", 1.0, "The loss is still falling.", (path,), ("more steps",))
    if run.descent < UNMOVED * run.scale:
        advice = (
            "compare the loss with that of a constant prediction: there may be nothing to gain",
            "check the gradient (check_gradient), and measure the range of learning rates (find_lr)",
        )
        summary = "The loss hardly fell, and no cause was found."
        return Finding("no_progress", 0.0, summary, (path,), advice)
    return Finding("healthy", 1.0, "Nothing is wrong with the run.", (path,), ())


def _bullet(mark: str, text: str) -> str:
    width = len(mark) + 3
    return textwrap.fill(text, 96, initial_indent=f"  {mark} ", subsequent_indent=" " * width)
