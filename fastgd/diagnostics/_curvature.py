"""Secant curvature along the path of a run, and the largest stable learning rate that it implies.

For a step u from theta, with the loss L of one batch before and after it,

    kappa = 2 (L(theta + u) - L(theta) - g · u) / ‖u‖²

is the mean curvature along u, uᵀHu / ‖u‖² for a quadratic. On the parabola through these, a step c u
lowers the loss for 0 < c < 2 s, most at c = s, with the reach

    s = -g · u / (kappa ‖u‖²).

So 2 s times the learning rate is the largest that does not make the loss rise along that step. For
gradient descent it is 2 / kappa >= 2 / λmax: gradients contain every direction, and kappa is an average
of the eigenvalues of H. It is close to λmax early in a run, when the stiff directions are still to be
descended, and where the learning rate is too high, since these directions then grow; the smallest
value along the path therefore counts.

With momentum u is not along g. The reach then says what the momentum does more than what the learning
rate does, and for SGD 2 / kappa, the bound without momentum, takes its place: the true one is up to
1 + momentum times as high (Polyak 1964). For Adam it is many times higher than what the reach of its
steps says (Cohen et al. 2022).

A secant is a curvature only where the step stays within the parabola. Steps that are too long leave it: the
loss ends up nearly linear in their length, kappa falls as 1 / lr, and 2 / kappa follows the learning rate
of the run, whatever that is. It shows where losses cannot be negative: a parabola of so little curvature
would be, at its minimum. And negative curvature, near a saddle or a maximum, bounds no step, but does not
say either how long one may be once the saddle is left behind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastgd.diagnostics._run import TINY, Flags, Floats, Probes, Run

# Below this cosine between step and -gradient a step of SGD has momentum in it (or clipping by value).
PARALLEL = 0.98
# A secant is trusted when it exceeds the rounding errors of the losses by this factor.
RESOLVED = 4.0
# Batches differ in curvature: the lowest of many would be an extreme, so a quantile is taken.
LOW = 0.1
# Where the loss is so far above its first value, in units of it, the curvature is not that of any place
# where a run with a stable learning rate would come.
EXCURSION = 9.0
# The estimate is sure when so many probes agree with it to this factor, and most of them can be trusted.
AGREEING, AGREEMENT = 3, 1.5
MOST = 0.5
# Where rounding hides the curvature and the bound that is left is not this far above, nothing is known.
FAR_ABOVE = 10.0


@dataclass(frozen=True)
class Curvature:
    """What the probes of a run say.

    Attributes:
        probes: recorded ones, and without mini-batches also the steps between successive records.
        resolved: whether the secant exceeds rounding errors.
        limits: the largest stable learning rate by each probe; inf where the curvature along the
            step is not positive or not resolved.
        stable: the largest stable learning rate along the path, NaN where nothing is known.
        confidence: in it, "high", "low" or "none".
        concave: whether most of the curvatures resolved are negative: a few positive ones say little.
    """

    probes: Probes
    resolved: Flags
    limits: Floats
    stable: float
    confidence: str
    concave: bool


def curvature_of(run: Run) -> Curvature:
    """The curvature along a run."""
    probes = _all_probes(run)
    error = RESOLVED * run.rounding * np.maximum(np.abs(probes.before), np.abs(probes.after))
    parallel = _along_gradient(run, probes)
    with np.errstate(all="ignore"):
        secant = probes.change - probes.slope
        kappa = 2 * secant / probes.length**2
        resolved = np.abs(secant) > error
        limits = probes.lr * 2 * -probes.slope / (kappa * probes.length**2)
        if run.plain:
            limits = np.where(parallel, limits, 2 / kappa)
        # Where the secant is hidden, it is at most as large as what hides it.
        at_least = probes.lr * -probes.slope / np.maximum(error, TINY)
    limits = np.where(resolved & (kappa > 0), limits, np.inf)
    near = probes.before <= run.initial + EXCURSION * run.scale
    known = near & resolved
    concave = bool(known.any() and np.mean(kappa[known] <= 0) > MOST)
    chosen = near & np.isfinite(limits) & (limits > 0)
    if chosen.any():
        bounds = limits[chosen]
        stable = float(np.quantile(bounds, LOW) if run.stochastic else bounds.min())
        within = _within_parabola(run, probes, secant + error)[chosen]
        gradient_descent = run.plain and parallel.mean() > MOST
        sure = gradient_descent and not concave and _agreed(bounds, stable, within)
        return Curvature(probes, resolved, limits, stable, "high" if sure else "low", concave)
    hidden = at_least[~resolved & (at_least > FAR_ABOVE * probes.lr)]
    if hidden.size and not concave:
        return Curvature(probes, resolved, limits, float(np.median(hidden)), "low", concave)
    return Curvature(probes, resolved, limits, np.nan, "none", concave)


def _agreed(bounds: Floats, stable: float, within: Flags) -> bool:
    """Whether enough probes agree with it, most of them of steps within their parabola."""
    agree = (bounds <= stable * AGREEMENT) & (bounds >= stable / AGREEMENT)
    return bool(agree.sum() >= AGREEING and within[agree].mean() > MOST)


def _within_parabola(run: Run, probes: Probes, secant: Floats) -> Flags:
    """Whether the parabola of each probe stays above 0, as its loss does; yes if that is no bound."""
    if (run.loss < 0).any():
        return np.ones(probes.step.size, bool)
    with np.errstate(all="ignore"):
        return np.asarray(probes.slope**2 <= 4 * probes.before * secant)


def _all_probes(run: Run) -> Probes:
    """Those recorded, and without batches also every step between two records."""
    p = run.probes
    columns = np.stack([p.step, p.before, p.after, p.slope, p.length, p.lr])
    if not run.stochastic and run.loss.size > 1:
        i = np.flatnonzero(np.diff(run.step) == 1)
        i = i[~np.isin(run.step[i], p.step)]
        before, after, dot = run.loss[i], run.loss[i + 1], run.grad_dot_update[i]
        between = np.stack([run.step[i], before, after, dot, run.update_norm[i], run.lr[i]])
        columns = np.concatenate([columns, between], axis=1)
    usable = np.isfinite(columns).all(axis=0) & (columns[4] > 0) & (columns[5] > 0)
    columns = columns[:, usable]
    return Probes(*columns[:, np.argsort(columns[0], kind="stable")])


def _along_gradient(run: Run, probes: Probes) -> Flags:
    """Whether the step of each probe is along its gradient; yes where that is not recorded."""
    _, i, j = np.intersect1d(probes.step, run.step, return_indices=True)
    cosine = np.ones(probes.step.size)
    cosine[i] = -probes.slope[i] / np.maximum(run.grad_norm[j] * probes.length[i], TINY)
    return np.asarray((cosine > PARALLEL) | np.isnan(cosine))
