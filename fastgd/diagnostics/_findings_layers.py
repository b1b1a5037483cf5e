"""Rules about the gradients of single arrays: vanishing, exploding, dead from the start.

They look at the first steps, before the learning rate has had a say, and ask whether it mattered. What
died later, `died`, is for the rules of the learning rate to explain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastgd.diagnostics._curvature import Curvature
from fastgd.diagnostics._findings import Finding, ramp
from fastgd.diagnostics._run import ROUNDING, TINY, Flags, Floats, Run

# The gradients of arrays of a kind in a healthy network lie within a decade of each other. Deep sigmoid
# networks pass at most a quarter of a gradient through each layer: two decades over four, three over five.
DECADES = 2.0
# Fewer arrays of a kind show no trend with depth.
LAYERS = 3
# Share of neighbouring layers whose gradients must differ in the same direction.
MONOTONE = 0.7
# elasticity = ‖g‖ ‖theta‖ / loss, the relative change of the loss per relative change of an array. For
# well-scaled networks it is of the order of the depth or less; from STEEP on gradients that differ from
# layer to layer are too large at one end rather than too small at the other.
STEEP, VERY_STEEP = 10.0, 300.0
NEGLIGIBLE = 1e-6
# Arrays that moved by less than this part of their norm in the whole run have not been trained.
UNTRAINED = 0.05
# A run that removed this much of its loss did not fail, whatever its gradients look like. Arrays without a
# gradient that did not start at zero may be frozen on purpose, and half is enough there.
SUCCESS, SUCCESS_OF_THE_REST = 0.9, 0.5
# Share of the records (of the last quarter, if it died) in which a dead array's gradient is exactly zero.
DEAD = 0.9


def dead_initialization(run: Run, curvature: Curvature) -> Finding | None:
    """Gradients that are exactly zero from the first step on, or negligible everywhere."""
    if run.layer_grad.size == 0 or run.known == 0 or _succeeded(run, SUCCESS):
        return None
    grads = run.layer_grad[: run.known]
    dead = (grads[0] == 0) & ((grads == 0).mean(axis=0) >= DEAD)
    if dead.any() and _started_at_zero(run)[dead].all():
        return _dead(run, dead)
    if _succeeded(run, SUCCESS_OF_THE_REST):
        return None
    if dead.any():
        return _dead(run, dead)
    return _zero_start(run) or _negligible(run, curvature) or _too_small(run)


def _dead(run: Run, dead: Flags) -> Finding:
    names = "every array" if dead.all() else _names(run, dead)
    share = float((run.layer_grad[: run.known][:, dead] == 0).mean())
    often = "all steps" if share == 1 else f"{share:.0%} of the steps, from the first on"
    evidence = [f"the gradient of {names} is exactly zero in {often}"]
    zeros = _started_at_zero(run)
    if zeros.any():
        evidence.append(f"{_names(run, zeros)} started at zero")
    return Finding(
        "dead_initialization",
        1.0,
        f"Dead from the start: no gradient reaches {names}.",
        tuple(evidence),
        (
            "start the weights at random: initializers.he_normal for ReLU, glorot_uniform for tanh "
            "and sigmoid; only biases start at zero",
            "if they are random, units are off for every sample: start biases at 0, standardise the "
            "inputs, use an activation that is not flat on one side",
            "leave an array that is frozen on purpose out of the parameters",
        ),
    )


def _zero_start(run: Run) -> Finding | None:
    """All arrays were zero, and some got no gradient: the units of a layer stay copies of each other."""
    zeros, idle = _started_at_zero(run), run.layer_grad[0] == 0
    if not (zeros.all() and idle.any() and idle.size >= LAYERS):
        return None
    return Finding(
        "dead_initialization",
        1.0,
        "All parameters started at zero, which keeps all units of a layer equal.",
        (
            f"every array was zero before the first step, in which {_names(run, idle)} got no gradient",
        ),
        ("start the weights at random, see initializers; only biases start at zero",),
    )


def _negligible(run: Run, curvature: Curvature) -> Finding | None:
    """Negligible gradients in every array that do not grow, as they do when a saddle is left."""
    steep = float(elasticity_of(run).max())
    start, end = run.grad_norm[0], run.grad_norm[run.known - 1]
    if _started_at_zero(run).all() or not steep < NEGLIGIBLE or not end < 2 * start:
        return None
    if abs(run.descent) > NEGLIGIBLE * run.scale or curvature.resolved.any():
        return None
    return Finding(
        "dead_initialization",
        0.9,
        "Dead from the start: the gradient is negligible everywhere.",
        (
            f"at the first step, a change of the parameters by 1 % would change the loss by {steep:.1g} %",
            f"the norm of the gradient was {start:.2g} then and is {end:.2g} at the end",
        ),
        (
            "scale weights and biases to the sizes of the layers (initializers) and standardise the "
            "inputs: units saturate where they are too large, signals die where they are too small",
            "use a loss that does not saturate together with the output: cross-entropy of logits "
            "instead of squares of a sigmoid",
        ),
    )


def _too_small(run: Run) -> Finding | None:
    """Only one array, the last bias, has a gradient: tiny weights let no signal through."""
    grads = run.layer_grad[0]
    if grads.size <= LAYERS or elasticity_of(run).max() > 1:
        return None
    first, second = np.sort(grads)[[-1, -2]]
    decades = float(np.log10(first / max(second, TINY)))
    if decades < DECADES or movement_of(run)[np.argsort(grads)[:-1]].min() > UNTRAINED:
        return None
    name = run.names[int(np.argmax(grads))]
    return Finding(
        "dead_initialization",
        0.5 + 0.4 * ramp(decades, DECADES, DECADES + 1),
        f"Badly scaled initialization: hardly any gradient reaches an array but {name}.",
        (
            f"at the first step the gradient of {name} is 10^{decades:.1f} times as large as that of "
            "any other array",
        ),
        ("start with larger weights: initializers scale them by the sizes of the layers",),
    )


def died(run: Run) -> str:
    """The names of the arrays whose gradient became exactly zero, in a run that did not succeed.

    Not of those whose gradient faded into rounding errors first, as it does at a minimum, nor where no
    array has one any more: a minimum may be reached exactly.
    """
    if run.layer_grad.size == 0 or run.known == 0 or _succeeded(run, SUCCESS_OF_THE_REST):
        return ""
    grads = run.layer_grad[: run.known]
    idle = (grads[run.part(0.75, 1)] == 0).mean(axis=0) >= DEAD
    smallest = np.where(grads > 0, grads, np.inf).min(axis=0)
    sudden = smallest > run.rounding / ROUNDING * grads.max(axis=0)
    return "" if idle.all() else _names(run, idle & sudden & (grads[0] > 0))


def vanishing_gradients(run: Run, curvature: Curvature) -> Finding | None:
    """Gradients that fall from layer to layer by orders of magnitude, and layers that do not train."""
    trend = _steepest(run)
    if trend is None or elasticity_of(run).max() >= STEEP or _succeeded(run, SUCCESS):
        return None
    movement = movement_of(run)
    still = int(np.argmin(movement))
    if not movement[still] <= UNTRAINED:
        return None
    small, large = trend.ends
    return Finding(
        "vanishing_gradients",
        ramp(trend.decades, DECADES - 1, DECADES + 1),
        f"Gradients vanish towards {run.names[small]}, where layers are not trained.",
        (
            f"at the first step the gradient of {run.names[small]} is 10^-{trend.decades:.1f} of that of "
            f"{run.names[large]}: {1 / trend.factor:.2g} per layer over {len(trend.members)} layers",
            f"in the whole run {run.names[still]} moved by {movement[still]:.1g} of its norm at most",
        ),
        (
            "scale the initial weights to the activation: initializers, with gain=",
            "use an activation that passes gradients on (ReLU and its relatives, not sigmoid), residual "
            "connections or normalisation layers",
            "use Adam, whose steps do not depend on the scale of a gradient",
        ),
    )


def exploding_gradients(run: Run, curvature: Curvature) -> Finding | None:
    """Gradients that grow from layer to layer, or through time, by orders of magnitude."""
    if run.known == 0 or run.layer_grad.shape[1] < LAYERS or _recovered(run):
        return None
    elasticity, trend = elasticity_of(run), _steepest(run)
    steep, at = float(elasticity.max()), int(elasticity.argmax())
    layers = ramp(trend.decades, DECADES - 1, DECADES) if trend else 0.0
    layers *= ramp(np.log10(steep), np.log10(STEEP) - 0.5, np.log10(STEEP))
    time = ramp(_spread(run), DECADES, DECADES + 2)
    time *= ramp(np.log10(steep), np.log10(VERY_STEEP) - 0.5, np.log10(VERY_STEEP))
    if max(layers, time) == 0:
        return None
    grads = run.layer_grad[0]
    low = int(np.argmin(np.where(grads > 0, grads, np.inf)))
    evidence = [
        f"at the first step the gradient of {run.names[at]} is {grads[at]:.2g}, that of "
        f"{run.names[low]} {grads[low]:.2g}",
        f"a change of {run.names[at]} by 1 % would change the loss by about {steep:.2g} %",
    ]
    if trend and layers:
        evidence.append(f"from layer to layer they grow by a factor of {trend.factor:.2g}")
    return Finding(
        "exploding_gradients",
        max(layers, time),
        f"Gradients explode towards {run.names[at]}.",
        tuple(evidence),
        (
            "scale the initial weights down: initializers; orthogonal for recurrent ones",
            "clip_norm=1.0, or a little above the norm of the gradient in good steps",
            "normalisation layers, residual connections; gates (LSTM, GRU) or shorter sequences "
            "in recurrent networks",
        ),
    )


# --- measures ---


def _succeeded(run: Run, share: float) -> bool:
    return run.known == run.loss.size and run.descent >= share * abs(run.initial)


def _recovered(run: Run) -> bool:
    """Success, and at the end all arrays have gradients of a similar size."""
    end = run.layer_grad[run.known - 1]
    return _succeeded(run, SUCCESS) and bool((end > 10**-DECADES * end.max()).all())


def elasticity_of(run: Run) -> Floats:
    return np.asarray(run.layer_grad[0] * run.layer_param[0] / run.scale)


def _started_at_zero(run: Run) -> Flags:
    """Norms are taken after the step, where a parameter that was zero is the update itself."""
    update, param = run.layer_update[0], run.layer_param[0]
    return np.asarray(np.abs(param - update) <= 1e-5 * param)


def movement_of(run: Run) -> Floats:
    """An upper bound of how far each array moved, in units of its norm."""
    path = run.mean(run.layer_update) * run.steps
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(_started_at_zero(run), np.inf, path / run.layer_param[0]))


def _families(run: Run) -> Iterator[list[int]]:
    """Arrays of a kind in the order of the layers: their names are equal but for numbers.

    "0/W", "1/W", … are one family, "0/b", "1/b", … another; W1, W2, … a third. In a plain list
    weights alternate with biases, and are told apart by whether they started at zero.
    """
    zero = _started_at_zero(run)
    families: dict[tuple[str, bool], list[int]] = {}
    for i, name in enumerate(run.names):
        kind = re.sub(r"\d+", "#", name)
        families.setdefault((kind, kind == "#" and bool(zero[i])), []).append(i)
    for members in families.values():
        if len(members) >= LAYERS:
            yield sorted(members, key=lambda i: [int(n) for n in re.findall(r"\d+", run.names[i])])


@dataclass(frozen=True)
class Trend:
    """How the gradients of a family differ from its first to its last member."""

    members: list[int]
    grads: Floats

    @property
    def decades(self) -> float:
        return float(abs(np.log10(self.grads[-1] / self.grads[0])))

    @property
    def factor(self) -> float:
        """From a layer to the next, at least 1."""
        return float(10 ** (self.decades / (len(self.members) - 1)))

    @property
    def ends(self) -> tuple[int, int]:
        """The arrays with the smaller and with the larger gradient."""
        ends = self.members[0], self.members[-1]
        return ends if self.grads[0] < self.grads[-1] else ends[::-1]

    @property
    def monotone(self) -> bool:
        steps = np.diff(np.log(self.grads))
        return bool(np.mean(np.sign(steps) == np.sign(steps.sum())) >= MONOTONE)


def _steepest(run: Run) -> Trend | None:
    """The family whose gradients change most with depth at the first step."""
    if run.layer_grad.size == 0 or run.known == 0:
        return None
    trends = [Trend(members, run.layer_grad[0][members]) for members in _families(run)]
    clear = [t for t in trends if (t.grads > 0).all() and np.isfinite(t.grads).all() and t.monotone]
    return max(clear, key=lambda trend: trend.decades, default=None)


def _spread(run: Run) -> float:
    """Decades between the largest and the smallest gradient at the first step, of those not zero."""
    grads = run.layer_grad[0]
    grads = grads[(grads > 0) & np.isfinite(grads)]
    return float(np.log10(grads.max() / grads.min())) if grads.size else 0.0


def _names(run: Run, chosen: Flags) -> str:
    names = [name for name, is_chosen in zip(run.names, chosen, strict=True) if is_chosen]
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return ", ".join(names)
