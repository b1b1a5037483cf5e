"""Pictures of training: loss curves, paths over contours, schedules, learning-rate sweeps.

Each function draws on the Axes given as `ax`, or on a new figure's, and returns it; matplotlib is
imported when it is called. Lines differ by colour, dashes and marker, those of later calls on the
same Axes too, so that they can be told apart in grey print and by every eye. Axis labels that are
there already stay.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgd._contours import View, clipped, contour_levels, evaluate, limits, view_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["history", "lr_sweep", "schedule", "trajectory"]

Floats: TypeAlias = NDArray[np.float64]

# Told apart by people with any colour-vision deficiency, the first four also by their grey.
_COLORS = ("#0B3C8C", "#E07B00", "#007A5A", "#000000", "#CC79A7", "#56B4E9")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (9, 3)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LOG_FROM = 30.0  # the ratio of largest to smallest value that a linear axis still shows well
_TITLES = {
    "loss": "loss",
    "grad_norm": "gradient norm",
    "update_norm": "update norm",
    "param_norm": "parameter norm",
    "lr": "learning rate",
    "validation_loss": "validation loss",
}


def history(
    result: Any,
    keys: str | Iterable[str] = "loss",
    *,
    ax: Axes | None = None,
    label: str | None = None,
    smooth: int | None = None,
    log: bool | None = None,
) -> Axes:
    """Draw what was recorded over the steps of a run: by default the loss, and the validation loss.

    Noisy values are drawn thin, with their mean over a window of steps on top. Where values are
    not finite the curve has a gap, and its label says from which step on.

    Args:
        result: What `fastgd.minimize` returned, its history, or any mapping or object with 1-D
            arrays of equal length under "step" (default 0, 1, 2, …) and under `keys`;
            "validation_loss" may have a "validation_step" of its own.
        keys: What to draw: "loss", "grad_norm", "update_norm", "param_norm", "lr" or any other
            name in the history; one name or several. With "loss" comes "validation_loss", if any.
        ax: Axes to draw on; None for a new figure's.
        label: Name of the run in the legend, to compare several on the same Axes.
        smooth: Steps per mean, >= 1; 1 for no mean. None for a fiftieth of the steps where there
            are 250 or more and the values go up and down.
        log: Whether the vertical axis is logarithmic; None to decide by the values.

    Returns:
        The Axes.

    Raises:
        TypeError, ValueError: an argument is not as described, or the history is empty.
        ImportError: matplotlib is missing.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> import numpy as np
        >>> from fastgd import plot
        >>> ax = plot.history({"loss": 0.9 ** np.arange(100)}, label="lr = 0.1")
        >>> ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()
        ('step', 'loss', 'log')
    """
    names = _names(keys)
    if smooth is not None:
        smooth = _positive("smooth", smooth)
    _optional("log", log, bool)
    _optional("label", label, str)
    curves = _curves(result, names, label, smooth)
    ax = _axes(ax)
    for curve in curves:
        curve.draw(ax)
    if log or (log is None and _spans_decades(ax)):
        ax.set_yscale("log")
    elif log is not None or ax.dataLim.y0 <= 0:
        ax.set_yscale("linear")
    return _finish(ax, "step", _TITLES.get(names[0], names[0]) if len(names) == 1 else "value")


def trajectory(
    fun: Callable[[Any, Any], Any],
    paths: Mapping[str, Any] | Any,
    *,
    ax: Axes | None = None,
    xlim: tuple[float, float] | None = None,
    ylim: tuple[float, float] | None = None,
    levels: int | Sequence[float] = 14,
    minimum: tuple[float, float] | None = None,
) -> Axes:
    """Draw the paths of optimizers over the contours of a function of two variables.

    The view holds every start, the minimum if given, and the paths that end no higher than they
    began; where that allows it also the first points of the others, which end at its border and
    are said in the legend to leave it. Both axes have the same scale unless the view is too narrow
    for it. The contours' values follow those of the function in the view.

    Args:
        fun: Function (x, y) -> value, of two numbers or, faster, of two arrays of the same shape.
        paths: Arrays of shape (points, 2) under their labels, or one such array. A row is the pair
            (x, y) after a step; the first is the start and finite.
        ax: Axes to draw on; None for a new figure's.
        xlim, ylim: Ends of the view, to set it yourself.
        levels: How many contours, >= 1, or their values, increasing.
        minimum: The point (x, y) to mark as the minimum.

    Returns:
        The Axes.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.
        ImportError: matplotlib is missing.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> import numpy as np
        >>> import fastgd
        >>> from fastgd import plot
        >>> def descend(lr):
        ...     theta, path = np.array([-4.0, 1.5]), []
        ...     opt = fastgd.SGD(theta, lr=lr)
        ...     for _ in range(20):
        ...         path.append(theta.copy())
        ...         _ = opt.step(theta * [1.0, 10.0])
        ...     return np.array(path)
        >>> paths = {f"lr = {lr}": descend(lr) for lr in [0.01, 0.15, 0.21]}
        >>> ax = plot.trajectory(lambda x, y: (x**2 + 10 * y**2) / 2, paths, minimum=(0, 0))
        >>> [text.get_text() for text in ax.get_legend().get_texts()][2]
        'lr = 0.21 (leaves the view)'
    """
    if not callable(fun):
        raise TypeError(f"fun must be a function of (x, y), got {type(fun).__name__}: {fun!r}")
    named = _paths(paths)
    lowest = None if minimum is None else limits("minimum", minimum, increasing=False)
    chosen = _levels(levels)
    ends = (
        None if xlim is None else limits("xlim", xlim),
        None if ylim is None else limits("ylim", ylim),
    )
    ratio = 1.4 if ax is None else _ratio(_axes(ax))
    view = view_of(fun, list(named.values()), lowest, ends, ratio)
    x, y, z = evaluate(fun, view)
    ax = _axes(ax)
    heights = contour_levels(z, chosen) if isinstance(chosen, int) else chosen
    if heights:
        ax.contour(x, y, z, levels=heights, colors="0.72", linewidths=0.7, zorder=0.5)
    for label, path in named.items():
        _draw_path(ax, label, path, view)
    starts = np.unique([path[0] for path in named.values()], axis=0)
    _draw_points(ax, starts, "start", marker="o", markersize=9, markerfacecolor="none")
    if lowest is not None:
        _draw_points(ax, np.array([lowest]), "minimum", marker="*", markersize=11)
    ax.set(xlim=view.x, ylim=view.y)
    if 0.4 <= view.width / view.height / ratio <= 2.5:
        ax.set_aspect("equal")  # or gradients would not look perpendicular to the contours
    return _finish(ax, "x", "y")


def schedule(
    *schedules: Callable[[int], float] | float,
    steps: int,
    labels: Sequence[str] | None = None,
    ylabel: str = "learning rate",
    log: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw the values of schedules at steps 0, …, steps - 1.

    Args:
        schedules: Functions step -> value, those of `fastgd.schedules` or others, or numbers.
        steps: How many steps, >= 1.
        labels: Names in the legend, one for each schedule; None for the functions' names, or the
            calls that make the schedules where the names would not do.
        ylabel: What the values are.
        log: Whether the vertical axis is logarithmic.
        ax: Axes to draw on; None for a new figure's.

    Returns:
        The Axes.

    Raises:
        TypeError, ValueError: an argument is not as described, or a value is not a finite number.
        ImportError: matplotlib is missing.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from fastgd import plot
        >>> ax = plot.schedule(lambda step: 0.9**step, 0.5, steps=50, labels=["decay", "constant"])
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['decay', 'constant']
    """
    if not schedules:
        raise TypeError("schedules: give one at least")
    steps = _positive("steps", steps)
    _optional("log", log, bool)
    _optional("ylabel", ylabel, str)
    names = _schedule_names(schedules) if labels is None else list(labels)
    if len(names) != len(schedules):
        raise ValueError(f"labels must be {len(schedules)}, one per schedule; got {len(names)}")
    values = [_scheduled(f"schedules[{i}]", s, steps) for i, s in enumerate(schedules)]
    ax = _axes(ax)
    for name, y in zip(names, values, strict=True):
        _line(ax, np.arange(steps), y, str(name))
    ax.set_yscale("log" if log else "linear")
    if not log:
        ax.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True)
    return _finish(ax, "step", ylabel)


def lr_sweep(sweep: Any, *, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Draw the loss over the learning rate of a range test, and the learning rate it suggests.

    The vertical axis ends a little above the highest loss before the lowest one: how far the loss
    rises where learning rates are too high is beside the point.

    Args:
        sweep: What `fastgd.find_lr` returned: an object with the 1-D arrays lrs and losses, and
            the number suggestion, or None where there is none.
        ax: Axes to draw on; None for a new figure's.
        label: Name of the curve in the legend.

    Returns:
        The Axes.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.
        ImportError: matplotlib is missing.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> from fastgd import plot
        >>> lrs = np.geomspace(1e-4, 1, 50)
        >>> sweep = SimpleNamespace(lrs=lrs, losses=(1 - 5 * lrs) ** 2, suggestion=0.05)
        >>> ax = plot.lr_sweep(sweep)
        >>> ax.get_xlabel(), ax.get_xscale()
        ('learning rate', 'log')
    """
    _optional("label", label, str)
    for name in ("lrs", "losses", "suggestion"):
        if not hasattr(sweep, name):
            raise TypeError(f"sweep must be a result of find_lr, but has no attribute {name!r}")
    lrs, losses = _array("sweep.lrs", sweep.lrs), _array("sweep.losses", sweep.losses)
    if lrs.shape != losses.shape:
        raise ValueError(f"sweep has {lrs.size} lrs, but {losses.size} losses")
    if not (np.isfinite(lrs).all() and (lrs > 0).all()):
        raise ValueError("sweep.lrs must be finite and greater than 0")
    suggestion = None if sweep.suggestion is None else float(sweep.suggestion)
    ax = _axes(ax)
    line = _line(ax, lrs, losses, label or "loss")
    _focus(ax, losses)
    ax.set_xscale("log")
    if suggestion is not None:
        ax.axvline(
            suggestion,
            color=line.get_color(),
            linestyle=(0, (4, 4)),
            linewidth=1.0,
            label=f"suggestion: {suggestion:.2g}",
        )
    return _finish(ax, "learning rate", "loss")


@dataclass(frozen=True)
class _Curve:
    """One recorded quantity."""

    x: Floats
    y: Floats
    label: str
    window: int  # steps per mean

    def draw(self, ax: Axes) -> None:
        y = self.y if self.window == 1 else _running_mean(self.y, self.window)
        line = _line(ax, self.x, y, self.label)
        if self.window > 1:
            ax.plot(self.x, self.y, color=line.get_color(), alpha=0.35, linewidth=0.6, zorder=1)


def _curves(result: Any, names: list[str], label: str | None, smooth: int | None) -> list[_Curve]:
    """The curves to draw, checked."""
    record = getattr(result, "history", result)
    if not isinstance(record, Mapping) and not any(hasattr(record, n) for n in ("step", *names)):
        raise TypeError(
            "result must be a Result, its history or a mapping of arrays, "
            f"got {type(result).__name__}: {result!r}"
        )
    curves = []
    for name in names:
        y = _column(record, name)
        if y is None:
            raise ValueError(f"keys: the history has no {name!r}")
        curves.append(_curve(record, "step", name, y, smooth, label, len(names) > 1))
        validation = _column(record, "validation_loss") if name == "loss" else None
        if validation is not None and "validation_loss" not in names:
            key = "step" if _column(record, "validation_step") is None else "validation_step"
            curves.append(_curve(record, key, "validation_loss", validation, 1, label, True))
    return curves


def _curve(
    record: Any,
    step_key: str,
    name: str,
    y: Floats,
    smooth: int | None,
    label: str | None,
    several: bool,
) -> _Curve:
    x = _column(record, step_key)
    if x is None:
        x = np.arange(y.size, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(
            f"the history has {y.size} values of {name!r}, but {x.size} of {step_key!r}"
        )
    window = _window(y) if smooth is None else min(smooth, y.size)
    title = _TITLES.get(name, name)
    text = title if label is None else f"{label}, {title}" if several else label
    notes = [f"mean of {window} steps"] if window > 1 else []
    if not np.isfinite(y).all():
        notes.append(f"not finite from step {x[np.argmin(np.isfinite(y))]:g}")
    return _Curve(x, y, f"{text} ({', '.join(notes)})" if notes else text, window)


def _column(record: Any, name: str) -> Floats | None:
    """An array of the history, None if it is absent or empty."""
    found = record.get(name) if isinstance(record, Mapping) else getattr(record, name, None)
    if found is None or np.size(found) == 0:
        return None
    return _array(f"history[{name!r}]", found)


def _window(y: Floats) -> int:
    """How many steps to take a mean of: 1 if the curve is short or mostly goes one way."""
    differences = np.diff(y[np.isfinite(y)])
    turns = np.sign(differences[1:]) * np.sign(differences[:-1]) < 0
    if y.size < 250 or np.mean(turns) < 0.25:
        return 1
    return y.size // 100 * 2 + 1


def _running_mean(y: Floats, window: int) -> Floats:
    """Means over the finite values of a centred window, which shrinks towards the ends."""
    known, middle = np.isfinite(y), slice((window - 1) // 2, (window - 1) // 2 + y.size)
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.convolve(np.where(known, y, 0.0), np.ones(window))[middle]
        count = np.convolve(known, np.ones(window))[middle]
        return np.where(known, total / count, np.nan)


def _paths(paths: Any) -> dict[str, Floats]:
    """The paths by label, checked."""
    named = paths if isinstance(paths, Mapping) else {"path": paths}
    if not named:
        raise ValueError("paths must hold one path at least")
    checked = {}
    for label, path in named.items():
        name = f"paths[{label!r}]" if named is paths else "paths"
        points = _array(name, path, dimensions=2)
        if points.shape[1] != 2:
            raise ValueError(f"{name} must have the shape (points, 2), got {points.shape}")
        if not np.isfinite(points[0]).all():
            raise ValueError(f"{name} must start at a finite point, got {points[0]}")
        checked[str(label)] = points
    return checked


def _levels(levels: Any) -> int | list[float]:
    if isinstance(levels, (int, np.integer)):
        return _positive("levels", levels)
    values = _array("levels", levels)
    if not (np.isfinite(values).all() and (np.diff(values) > 0).all()):
        raise ValueError(f"levels must be finite and increase, got {levels!r}")
    return [float(value) for value in values]


def _schedule_names(schedules: Sequence[Any]) -> list[str]:
    calls = [
        s.__name__.replace("<lambda>", f"schedule {i}") if hasattr(s, "__name__") else repr(s)
        for i, s in enumerate(schedules)
    ]
    short = [call.partition("(")[0] for call in calls]
    if len(set(short)) == len(short):
        return short
    return [textwrap.fill(call, 45, subsequent_indent="    ") for call in calls]


def _scheduled(name: str, schedule: Any, steps: int) -> Floats:
    """The values of a schedule, each a finite number."""
    values = [schedule(step) for step in range(steps)] if callable(schedule) else [schedule] * steps
    y = _array(name, values)
    if not np.isfinite(y).all():
        step = int(np.argmin(np.isfinite(y)))
        raise ValueError(f"{name} is {y[step]} at step {step}, expected a finite number")
    return y


def _array(name: str, value: Any, dimensions: int = 1) -> Floats:
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


def _names(keys: Any) -> list[str]:
    names = [keys] if isinstance(keys, str) else list(keys) if isinstance(keys, Iterable) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(f"keys must be a name or a list of names, got {keys!r}")
    return names


def _positive(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}")
    return number


def _optional(name: str, value: Any, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__}: {value!r}")


def _axes(ax: Axes | None) -> Axes:
    """The Axes to draw on."""
    try:
        from matplotlib import pyplot
        from matplotlib.axes import Axes
    except ImportError as error:
        raise ImportError('fastgd.plot needs matplotlib: pip install "fastgd[plot]"') from error
    if ax is None:
        _, ax = pyplot.subplots(figsize=(6.0, 4.0), layout="constrained")
        ax.spines[["top", "right"]].set_visible(False)
    elif not isinstance(ax, Axes):
        raise TypeError(f"ax must be a matplotlib Axes, got {type(ax).__name__}: {ax!r}")
    return ax


def _ratio(ax: Axes) -> float:
    """Width : height of the Axes."""
    box = ax.get_window_extent()
    return float(box.width / box.height)


def _line(ax: Axes, x: Any, y: Floats, label: str, **options: Any) -> Any:
    """Draw a line in the next style that the Axes does not have yet."""
    drawn = [line for line in ax.lines if not str(line.get_label()).startswith("_")]
    i = sum(line.get_linestyle() != "None" for line in drawn)
    every = max(1, -(-len(y) // 9))
    style: dict[str, Any] = {
        "color": _COLORS[i % len(_COLORS)],
        "linestyle": _DASHES[i % len(_DASHES)],
        "linewidth": 1.6,
        "marker": _MARKERS[i % len(_MARKERS)],
        "markersize": 4.5,
        # Where lines coincide their markers still do not.
        "markevery": (i * every // 4 % every, every),
    }
    return ax.plot(x, y, label=label, **{**style, **options})[0]


def _draw_path(ax: Axes, label: str, path: Floats, view: View) -> None:
    points, note = clipped(path, view)
    text = f"{label} ({note})" if note else label
    every: Any = 1 if len(points) <= 60 else (0.0, 0.05)  # the latter: evenly along the path
    _line(ax, points[:, 0], points[:, 1], text, linewidth=1.3, markevery=every, markersize=4)


def _draw_points(ax: Axes, points: Floats, label: str, **style: Any) -> None:
    ax.plot(*points.T, color="black", linestyle="none", label=label, zorder=3, **style)


def _spans_decades(ax: Axes) -> bool:
    low, high = float(ax.dataLim.y0), float(ax.dataLim.y1)
    return 0 < low < math.inf and high / low > _LOG_FROM


def _focus(ax: Axes, losses: Floats) -> None:
    """Choose the vertical axis for the losses up to the lowest."""
    known = losses[np.isfinite(losses)]
    if known.size == 0:
        return
    low, high = float(known.min()), float(known[: int(np.argmin(known)) + 1].max())
    if low > 0 and high / low > _LOG_FROM:
        ax.set_yscale("log")
        margin = (high / low) ** 0.1
        bottom, top = low / margin, high * margin**2
    elif high > low:
        bottom, top = low - 0.1 * (high - low), high + 0.25 * (high - low)
    else:
        return
    ax.set_ylim(bottom, top)


def _finish(ax: Axes, xlabel: str, ylabel: str) -> Axes:
    if not ax.get_xlabel():
        ax.set_xlabel(xlabel)
    if not ax.get_ylabel():
        ax.set_ylabel(ylabel)
    legend = ax.legend(
        loc="best", fontsize="small", handlelength=3.2, edgecolor="none", framealpha=0.85
    )
    legend.set_in_layout(False)  # it lies inside, and makes no room for itself in a small panel
    return ax
