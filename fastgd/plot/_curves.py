"""The curves of `plot.history`: out of the history, smoothed where they are noisy, named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgd._arguments import number
from fastgd.plot._drawing import draw_behind, draw_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats: TypeAlias = NDArray[np.float64]

TITLES = {
    "loss": "loss",
    "grad_norm": "gradient norm",
    "update_norm": "update norm",
    "param_norm": "parameter norm",
    "lr": "learning rate",
    "validation_loss": "validation loss",
}


@dataclass(frozen=True)
class Curve:
    """One recorded quantity."""

    x: Floats
    y: Floats
    label: str
    window: int  # steps per mean
    is_validation: bool = False  # of the curve before, whose colour it has

    def draw(self, ax: Axes, before: Any) -> Any:
        """The line; `before` is that of the curve before."""
        y = self.y if self.window == 1 else _running_mean(self.y, self.window)
        line = draw_line(ax, self.x, y, self.label, like=before if self.is_validation else None)
        if self.window > 1:
            draw_behind(ax, self.x, self.y, line)
        return line


def curves_of(
    result: Any, names: list[str], label: str | None, smooth: int | None, per_epoch: bool
) -> list[Curve]:
    """The curves to draw, checked."""
    record = getattr(result, "history", result)
    if not isinstance(record, Mapping) and not any(hasattr(record, n) for n in ("step", *names)):
        raise TypeError(
            "result must be a Result, its history or a mapping of arrays, "
            f"got {type(result).__name__}"
        )
    steps = _steps_per_epoch(record) if per_epoch else 1.0
    curves = []
    for name in names:
        y = _column(record, name)
        if y is None:
            raise ValueError(f"keys: the history has no {name!r}")
        curves.append(_curve(record, name, y, smooth, label, len(names) > 1, steps))
        validation = _column(record, "validation_loss") if name == "loss" else None
        if validation is not None and "validation_loss" not in names:
            curve = _curve(record, "validation_loss", validation, 1, label, True, steps)
            curves.append(replace(curve, is_validation=True))
    return curves


def _steps_per_epoch(record: Any) -> float:
    """Raises: ValueError if the history does not tell."""
    mapping = isinstance(record, Mapping)
    steps = record.get("steps_per_epoch") if mapping else getattr(record, "steps_per_epoch", None)
    if steps is None:
        raise ValueError('x="epoch": the history has no "steps_per_epoch"')
    return number("steps_per_epoch", steps, bounds="()")


def _curve(
    record: Any,
    name: str,
    y: Floats,
    smooth: int | None,
    label: str | None,
    several: bool,
    steps_per_epoch: float,
) -> Curve:
    kind = name.partition("_")[0]
    if name.endswith("_norm") or name == "grad_dot_update":
        kind = "norm"
    elif name in _metrics(record):
        kind = "validation"
    own = f"{kind}_step" if kind in ("validation", "probe", "norm") else "step"
    step_key = "step" if _column(record, own) is None else own
    x = _column(record, step_key)
    if x is None:
        x = np.arange(y.size, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(
            f"the history has {y.size} values of {name!r}, but {x.size} of {step_key!r}"
        )
    window = _window(y) if smooth is None else min(smooth, y.size)
    title = TITLES.get(name, name)
    text = title if label is None else f"{label}, {title}" if several else label
    notes = [f"mean of {window} steps"] if window > 1 else []
    if not np.isfinite(y).all():
        notes.append(f"not finite from step {x[np.argmin(np.isfinite(y))]:g}")
    return Curve(x / steps_per_epoch, y, f"{text} ({', '.join(notes)})" if notes else text, window)


def _column(record: Any, name: str) -> Floats | None:
    """An array of the history, None if it is absent or empty."""
    if isinstance(record, Mapping):
        found = record.get(name)
    elif name in _metrics(record):
        found = record[name]
    else:
        found = getattr(record, name, None)
    if found is None or np.size(found) == 0:
        return None
    return as_array(f"history[{name!r}]", found)


def _metrics(record: Any) -> Sequence[str]:
    """What a History has of validations besides their loss."""
    return getattr(record, "metrics", ()) if not isinstance(record, Mapping) else ()


def _window(y: Floats) -> int:
    """How many steps to take a mean of: 1 if the curve is short or has no noise.

    Of independent values two in three are turning points. What goes one way or swings has fewer, what
    overshoots with every step has more.
    """
    differences = np.diff(y[np.isfinite(y)])
    turns = np.sign(differences[1:]) * np.sign(differences[:-1]) < 0
    if y.size < 250 or not 0.5 <= turns.sum() / max(turns.size, 1) <= 0.85:
        return 1
    return y.size // 100 * 2 + 1


def _running_mean(y: Floats, window: int) -> Floats:
    """Means over the finite values of a centred window, which shrinks towards the ends."""
    known, middle = np.isfinite(y), slice((window - 1) // 2, (window - 1) // 2 + y.size)
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.convolve(np.where(known, y, 0.0), np.ones(window))[middle]
        count = np.convolve(known, np.ones(window))[middle]
        return np.where(known, total / count, np.nan)


def as_array(name: str, value: Any, dimensions: int = 1) -> Floats:
    """A non-empty array of real numbers, as float64."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "fiu" and array.size:
        raise TypeError(f"{name} must be numbers, got {type(value).__name__} of {array.dtype}")
    if array.ndim != dimensions or array.size == 0:
        raise ValueError(
            f"{name} must be a non-empty array of {dimensions} dimension"
            f"{'s' * (dimensions > 1)}, got the shape {array.shape}"
        )
    return array.astype(np.float64)
