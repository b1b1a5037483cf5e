"""Whether gradients are right: `check_gradient`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgd._arguments import integer, number
from fastgd._arrays.gradients import dense
from fastgd._arrays.tree import Array, flatten
from fastgd.training._inputs import prepare_params
from fastgd.training._objective import Objective
from fastgd.training._snapshot import restored

__all__ = ["GradientReport", "LeafError", "check_gradient"]

# A slope is right when it differs by less than this part of the larger one. Truncation and rounding leave
# eps_machine^(2/3), 4e-11 and 2e-5, of a well-scaled problem; a forgotten factor leaves 1e-2 and more.
TOLERANCE = {np.dtype(np.float64): 1e-5, np.dtype(np.float32): 2e-2}
# How far a loss can be off through rounding, in units in its last place, when it is a mean of many terms.
ULPS = 8.0
# Where rounding could hide an error, and where truncation or a kink could feign one, other steps are tried.
LONGER, SHORTER = (10.0, 100.0, 1000.0), (0.1, 0.01)
# … up to this relative step.
LONGEST = 0.1
# Two factors are the same to within this part: what a slope is known to.
SAME = 0.02
# Below everything that occurs: for quotients of zero by zero.
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class LeafError:
    """How well the gradient of one array fits.

    Attributes:
        name: of the array.
        error: largest relative error over the directions: |predicted - measured| in excess of what
            rounding can do, over the largest of the two, of ‖gradient‖ / √size, which a slope along
            a random direction is of the order of, and of the slopes to either side.
        predicted: gradient · direction, where the error is largest.
        measured: the slope of the loss along it, by central differences.
        step: length of the step to either side.
        noise: how far rounding of the loss can put `measured` off.
        factor: predicted / measured, if it is the same along all directions, else NaN.
        unseen: how wrong, relatively, the gradient could be along all directions without being called so:
            the tolerance and what rounding of the loss hides.
    """

    name: str
    error: float
    predicted: float
    measured: float
    step: float
    noise: float
    factor: float = math.nan
    unseen: float = 0.0


@dataclass(frozen=True, repr=False)
class GradientReport:
    """What `check_gradient` found; print it to read it. True if the gradients are right.

    Attributes:
        ok: whether every error is within `tol`.
        worst: name of the array with the largest error.
        error: that error.
        tol: the largest relative error allowed.
        loss: at the parameters.
        leaves: a `LeafError` for each array, by name.
        joint: one for directions in the space of all arrays together, named "all".
        hint: what a factor common to all directions may be due to; "" if there is none.
        single: whether an array is float32, which hides small errors.
    """

    ok: bool
    worst: str
    error: float
    tol: float
    loss: float
    leaves: dict[str, LeafError]
    joint: LeafError
    hint: str = ""
    single: bool = False

    def __bool__(self) -> bool:
        return self.ok

    @property
    def errors(self) -> dict[str, float]:
        """The errors by name."""
        return {name: leaf.error for name, leaf in self.leaves.items()}

    @property
    def unseen(self) -> float:
        """The largest error that could have gone unseen in an array, see `LeafError`."""
        return max(leaf.unseen for leaf in self.leaves.values())

    def __repr__(self) -> str:
        head = "right" if self.ok else f"wrong, most of all that of {self.worst!r}"
        lines = [f"Gradients {head} (relative error {self.error:.2g}, allowed {self.tol:.2g})"]
        if self.hint:
            lines.append(self.hint)
        if self.single and self.ok:
            lines.append(
                f"In float32 an error of less than {self.unseen:.1%} does not show. Parameters, data and "
                f"loss in float64 would show {TOLERANCE[np.dtype(np.float64)]:.3%}."
            )
        width = max(len(name) for name in (*self.leaves, self.joint.name, "array"))
        lines.append(f"  {'array':{width}}  {'predicted':>11}  {'measured':>11}  {'error':>8}")
        for leaf in (*self.leaves.values(), self.joint):
            mark = "" if leaf.error <= self.tol else "  <- wrong"
            lines.append(
                f"  {leaf.name:{width}}  {leaf.predicted:11.4g}  {leaf.measured:11.4g}  "
                f"{leaf.error:8.1g}{mark}"
            )
        return "\n".join(lines)


def check_gradient(
    value_and_grad: Callable[..., Any],
    params: Any,
    *batch: Any,
    eps: float | None = None,
    directions: int = 3,
    tol: float | None = None,
    seed: int = 0,
) -> GradientReport:
    """Compare gradients with differences of the loss along random directions.

    For a direction v with ‖v‖ = 1, in the space of one array at a time and then of all,

        predicted = g · v,    measured = (L(theta + h v) - L(theta - h v)) / (2 h).

    The two agree to h² L'''(v, v, v) / 6, and to the rounding errors of L over h, best for steps of
    about eps_machine^(1/3) times the scale of theta. Elements move up or down at random, by 0.5 to 1.5
    times eps (1 + rms(theta)); where rounding could hide an error by ten, a hundred and a thousand times as
    much, and where there is an error by a tenth and a hundredth too, in case that there is a kink
    (ReLU, absolute values) in between. An array is right if it is for one of them. In float32, where
    steps must be long, it also is right if its slope is between those to either side.

    In float32 an error of a per cent or two does not show, and the report says so: check copies of
    parameters and data in float64, where a thousandth of a per cent does.

    A single wrong element among n changes a slope by about 1/√n of itself: of large arrays with few wrong
    elements check parts, or more directions with a smaller tol. Parameters are moved in place, and put
    back bit for bit, also when value_and_grad raises or is interrupted.

    Args:
        value_and_grad: function (params, *batch) -> (loss, grads). It must return the same for the
            same parameters: no dropout, no new noise.
        params: an array or any nesting of lists, tuples and dicts of float32 or float64 arrays.
        *batch: what else it is called with; data in float64 makes the check sharper.
        eps: step, relative to 1 + rms(theta), instead of those; None for the cube root of the
            machine epsilon of each array's dtype.
        directions: how many for each array, and for all together; at least 1.
        tol: the largest relative error that counts as right; None for 1e-5, or 2e-2 if an array is
            float32.
        seed: of the directions.

    Returns:
        A `GradientReport`, true if all is well. A None gradient counts as zero.

    Raises:
        TypeError, ValueError: an argument is not as described, a gradient has not its parameter's
            shape, or the loss differs from call to call; names it. Nothing has changed then.
        FloatingPointError: the loss or a gradient is not finite at the parameters given.

    Example:
        >>> import numpy as np, fastgd
        >>> X, y = np.eye(3), np.array([1.0, 2.0, 3.0])
        >>> def half_squares(p, X, y):
        ...     r = X @ p["w"] + p["b"] - y
        ...     return r @ r / 6, {"w": X.T @ r / 3, "b": r.sum(keepdims=True)}   # not / 3
        >>> params = {"w": np.zeros(3), "b": np.zeros(1)}
        >>> report = fastgd.check_gradient(half_squares, params, X, y)
        >>> report.ok, report.worst
        (False, 'b')
        >>> print(report.hint)
        The gradient of 'b' is 3 times what it should be: sum or mean over the batch?

    References:
        Goodfellow et al. 2016, section 11.5; Nocedal & Wright 2006, section 8.1 (the step).
    """
    _, tree = prepare_params(params, copy=False)
    named = _named(tree)
    eps = None if eps is None else number("eps", eps, bounds="()")
    if tol is None:
        tol = max(TOLERANCE[array.dtype] for _, array in named)
    tol = number("tol", tol, bounds="()")
    count = integer("directions", directions, 1)
    rng = np.random.default_rng(integer("seed", seed, 0))
    objective = Objective(value_and_grad, tree)
    arrays, errors = [array for _, array in named], np.geterr()

    def evaluate(batch: tuple[Any, ...]) -> tuple[float, Any]:
        with np.errstate(**errors):  # what the caller wants of functions of their own
            return objective(batch)

    def measured() -> tuple[float, dict[str, LeafError], LeafError]:
        loss, grads = evaluate(batch)
        slopes = _slopes(named, grads)
        _require_repeatable(loss, evaluate(batch)[0])
        line = _Line(evaluate, batch, arrays, slopes, loss, eps, tol, rng)
        leaves = {name: line.worst(name, [i], count) for i, (name, _) in enumerate(named)}
        return loss, leaves, line.worst("all", list(range(len(named))), count)

    with np.errstate(all="ignore"):
        loss, leaves, joint = restored(arrays, measured)
    worst = max(leaves.values(), key=lambda leaf: leaf.error)
    error = max(worst.error, joint.error)
    single = any(array.dtype == np.float32 for array in arrays)
    return GradientReport(
        ok=error <= tol,
        worst=worst.name,
        error=error,
        tol=tol,
        loss=loss,
        leaves=leaves,
        joint=joint,
        hint=_hint(leaves, tol),
        single=single,
    )


@dataclass(frozen=True)
class _Line:
    """The loss along lines through the parameters."""

    objective: Callable[[tuple[Any, ...]], tuple[float, Any]]
    batch: tuple[Any, ...]
    arrays: list[Array]
    slopes: list[Array]
    loss: float
    eps: float | None
    tol: float
    rng: np.random.Generator

    def worst(self, name: str, chosen: list[int], count: int) -> LeafError:
        """The worst of `count` directions in the space of the chosen arrays."""
        chosen = [i for i in chosen if self.arrays[i].size]
        if not chosen:
            return LeafError(name, 0.0, 0.0, 0.0, 0.0, 0.0)
        found = [self._along(name, chosen) for _ in range(count)]
        ratios = np.array([leaf.predicted / (leaf.measured or math.nan) for leaf in found])
        worst = max(found, key=lambda leaf: leaf.error)
        unseen = min(leaf.unseen for leaf in found)
        return replace(worst, factor=_common(ratios), unseen=unseen)

    def _along(self, name: str, chosen: list[int]) -> LeafError:
        """One direction, with several steps if one of the usual length does not tell."""
        moves = {i: self._move(i) for i in chosen}
        size = sum(self.arrays[i].size for i in chosen)
        norm = math.sqrt(sum(float(np.sum(self.slopes[i] ** 2)) for i in chosen))
        typical = norm / math.sqrt(size)
        found, sharp = self._slope(name, moves, 1.0, typical)
        if self.eps is not None:
            return found
        for times in LONGER:
            if sharp or times * max(self._step(i) for i in chosen) > LONGEST:
                break
            found, sharp = self._slope(name, moves, times, typical)
        for times in LONGER[:1] + SHORTER:
            if found.error <= self.tol:
                break
            other, sharp = self._slope(name, moves, times, typical)
            if sharp and other.error < found.error:
                found = other
        for times in SHORTER:
            # Right for lying between the slopes to either side: those of a smooth loss come closer.
            if found.error > self.tol or self._central(found, typical):
                break
            other, sharp = self._slope(name, moves, times, typical)
            if not sharp:
                break
            found = other
        return found

    def _central(self, leaf: LeafError, typical: float) -> bool:
        """Whether the slope is right by the difference across both sides, too."""
        scale = max(abs(leaf.predicted), abs(leaf.measured), typical)
        return abs(leaf.predicted - leaf.measured) - leaf.noise <= self.tol * scale

    def _move(self, i: int) -> Array:
        start = self.arrays[i]
        rms = math.sqrt(float(np.mean(np.square(start, dtype=np.float64))))
        sizes = self.rng.choice([-1.0, 1.0], start.shape) * self.rng.uniform(0.5, 1.5, start.shape)
        return np.asarray(self._step(i) * (1 + rms) * sizes)

    def _step(self, i: int) -> float:
        return self.eps or float(np.finfo(self.arrays[i].dtype).eps) ** (1 / 3)

    def _slope(
        self, name: str, moves: dict[int, Array], times: float, typical: float
    ) -> tuple[LeafError, bool]:
        """The slope by a step to either side, and whether rounding leaves it exact enough."""
        arrays = [self.arrays[i] for i in moves]
        losses: list[float] = []
        sides: list[list[Array]] = []

        def to_either_side() -> None:
            starts = [array.astype(np.float64) for array in arrays]
            for sign in (times, -times):
                for array, start, move in zip(arrays, starts, moves.values(), strict=True):
                    array[...] = start + sign * move
                sides.append([array.astype(np.float64) for array in arrays])
                losses.append(self.objective(self.batch)[0])

        restored(arrays, to_either_side)
        # The slope is predicted for what was really moved, after rounding.
        moved = [up - down for up, down in zip(*sides, strict=True)]
        length = math.sqrt(sum(float(np.sum(m * m)) for m in moved))
        pairs = zip(moves, moved, strict=True)
        predicted = sum(float(np.sum(self.slopes[i] * m)) for i, m in pairs) / length
        measured = (losses[0] - losses[1]) / length
        noise = self._rounding(arrays, losses) / length
        above, below = ((loss - self.loss) * 2 / length for loss in losses)
        scale = max(abs(predicted), abs(measured), typical, abs(above), abs(below), TINY)
        off = abs(predicted - measured) - noise
        coarse = any(array.dtype == np.float32 for array in arrays)
        if off > self.tol * scale and (coarse or times < 1):
            # At a kink the slope is between those to either side. Of a smooth function these differ
            # by little, unless the steps are as long as float32 needs them.
            off = max(min(above, -below) - predicted, predicted - max(above, -below)) - 2 * noise
        error = max(off, 0.0) / scale if math.isfinite(measured) else math.inf
        exact = noise <= self.tol * scale
        unseen = self.tol + noise / scale
        leaf = LeafError(name, error, predicted, measured, length / 2, noise, unseen=unseen)
        return leaf, exact

    def _rounding(self, arrays: Sequence[Array], losses: list[float]) -> float:
        """How far the difference of two losses can be off: those of float32 parameters are as exact
        as these, and so are those that are float32 numbers.
        """
        with np.errstate(over="ignore"):
            single = all(float(np.float32(loss)) == loss for loss in losses)
        single = single or any(array.dtype == np.float32 for array in arrays)
        eps = np.finfo(np.float32 if single else np.float64).eps
        return ULPS * float(eps) * max(abs(self.loss), *map(abs, losses))


def _hint(leaves: dict[str, LeafError], tol: float) -> str:
    """What a factor between gradient and slope that all wrong arrays have in common points to."""
    wrong = [leaf for leaf in leaves.values() if leaf.error > 10 * tol]
    ratio = _common(np.array([leaf.factor for leaf in wrong]))
    names = ", ".join(repr(leaf.name) for leaf in wrong)
    which = "Every gradient" if len(wrong) == len(leaves) > 1 else f"The gradient of {names}"
    if ratio == 0:
        return f"{which} is zero where the loss is not flat: forgotten, or put in another place?"
    if abs(ratio + 1) < SAME:
        return f"{which} has the wrong sign."
    if not ratio > 0 or abs(ratio - 1) < SAME:
        return ""
    of_batch = any(abs(r - round(r)) < SAME and r > 1.5 for r in (ratio, 1 / ratio))
    why = ": sum or mean over the batch?" if of_batch else "."
    return f"{which} is {ratio:.3g} times what it should be{why}"


def _common(ratios: NDArray[np.float64]) -> float:
    """The value of all ratios if they are the same, else NaN."""
    if ratios.size and (np.abs(ratios - ratios[0]) <= SAME * np.abs(ratios[0])).all():
        return float(ratios[0])
    return math.nan


def _require_repeatable(first: float, second: float) -> None:
    if not math.isfinite(first):
        raise FloatingPointError(f"the loss is {first} at the parameters given")
    if abs(first - second) > 1e-6 * abs(first):
        raise ValueError(
            f"value_and_grad returned the losses {first!r} and {second!r} for the same parameters: "
            "turn dropout and other noise off, or seed it anew in each call"
        )


# --- arguments ---


def _named(tree: Any) -> list[tuple[str, Array]]:
    named, _ = flatten(tree)
    names = [name for name, _ in named]
    if not named:
        raise ValueError("params has no arrays")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"two parameters have the same name: {twice[0]!r}; rename the keys")
    return named


def _slopes(named: list[tuple[str, Array]], grads: Any) -> list[Array]:
    """Copies of the gradients as float64: of the parameters' structure and shapes, and finite."""
    by_name = dict(flatten(grads)[0])
    absent = [name for name, grad in by_name.items() if grad is None]
    slopes = []
    for name, array in named:
        if any(name == missing or name.startswith(f"{missing}/") for missing in absent):
            slopes.append(np.zeros(array.shape))
            continue
        if name not in by_name:
            raise ValueError(
                f"value_and_grad returned no gradient {name!r}, but {', '.join(by_name) or 'none'}"
            )
        slope = np.array(dense(by_name.pop(name), array.shape), dtype=np.float64)
        if slope.shape != array.shape:
            raise ValueError(
                f"gradient {name!r} has shape {slope.shape}, but its parameter {array.shape}"
            )
        if not np.isfinite(slope).all():
            raise FloatingPointError(f"gradient {name!r} has a NaN or an infinity")
        slopes.append(slope)
    strangers = [name for name in by_name if name not in absent]
    if strangers:
        raise ValueError(
            f"value_and_grad returned gradients of no parameter: {', '.join(strangers)}"
        )
    return slopes
