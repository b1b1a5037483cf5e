"""The pictures: arguments checked, lines drawn, axes labelled."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgd._arguments import choice, integer
from fastgd.plot._contours import View, clipped, contour_levels, evaluate, limits, view_of
from fastgd.plot._curves import TITLES, as_array, curves_of
from fastgd.plot._drawing import (
    LOG_FROM,
    axes_to_draw_on,
    draw_line,
    draw_point,
    finish,
    ink,
    ratio_of,
    show_all,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats: TypeAlias = NDArray[np.float64]


def history(
    result: Any,
    keys: str | Iterable[str] = "loss",
    *,
    ax: Axes | None = None,
    label: str | None = None,
    smooth: int | None = None,
    log: bool | None = None,
    x: Literal["step", "epoch"] = "step",
) -> Axes:
    """Draw what was recorded over the steps of a run: by default the loss, and the validation loss.

    Noisy values are drawn thin, with their mean over a window of steps on top; the means decide the
    limits, and of several runs on the same Axes not those that diverge. A validation loss has the colour
    of its run. Where values are not finite the curve has a gap, and its label says from which step on.
    A line of few points has each marked.

    Args:
        result: What `fastgd.minimize` returned, its history, or any mapping or object with 1-D
            arrays of equal length under "step" (default 0, 1, 2, …) and under `keys`;
            "validation_loss" may have a "validation_step" of its own.
        keys: What to draw: "loss", "grad_norm", "update_norm", "param_norm", "lr" or any other
            name in the history; one name or several. With "loss" comes "validation_loss", if any.
        ax: Axes to draw on; None for a new figure's.
        label: Name of the run in the legend, to compare several on the same Axes.
        smooth: Steps per mean, >= 1; 1 for no mean. None for a fiftieth of the steps where there
            are 250 or more and the values are noisy.
        log: Whether the vertical axis is logarithmic; None to decide by the values.
        x: "step", or "epoch" for passes over the data, if the history tells (steps_per_epoch).

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
        smooth = integer("smooth", smooth, 1)
    _optional("log", log, bool)
    _optional("label", label, str)
    choice("x", x, ("step", "epoch"))
    curves = curves_of(result, names, label, smooth, x == "epoch")
    ax = axes_to_draw_on(ax)
    line = None
    for curve in curves:
        line = curve.draw(ax, line)
    show_all(ax, log)
    return finish(ax, x, TITLES.get(names[0], names[0]) if len(names) == 1 else "value")


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
    began, wild excursions apart; where that leaves room also the first points of the others, which
    are drawn until they leave it for good. Both axes have the same scale unless the view is too
    narrow for it. The contours' values follow those of the function in the view.

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
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['lr = 0.01', 'lr = 0.15', 'lr = 0.21']
    """
    if not callable(fun):
        raise TypeError(f"fun must be a function of (x, y), got {type(fun).__name__}: {fun!r}")
    named = _paths(paths)
    lowest = None if minimum is None else limits("minimum", minimum, increasing=False)
    wanted = _levels(levels)
    ends = (
        None if xlim is None else limits("xlim", xlim),
        None if ylim is None else limits("ylim", ylim),
    )
    ratio = 1.4 if ax is None else ratio_of(axes_to_draw_on(ax))
    view = view_of(fun, list(named.values()), lowest, ends, ratio)
    x, y, z = evaluate(fun, view)
    ax = axes_to_draw_on(ax)
    if heights := contour_levels(z, wanted):
        ax.contour(x, y, z, levels=heights, colors=[ink()], alpha=0.3, linewidths=0.7, zorder=0.5)
    for label, path in named.items():
        _draw_path(ax, label, path, view)
    for start in np.unique([path[0] for path in named.values()], axis=0):
        draw_point(ax, start, "start", marker="o", markersize=9, markerfacecolor="none")
    if lowest is not None:
        draw_point(ax, lowest, "minimum", marker="*", markersize=11)
    ax.set(xlim=view.x, ylim=view.y)
    if 0.4 <= view.width / view.height / ratio <= 2.5:
        ax.set_aspect("equal")  # or gradients would not look perpendicular to the contours
    return finish(ax, "x", "y")


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
        labels: Names in the legend, one for each schedule. None for the functions' names, with
            the arguments in which schedules of the same name differ.
        ylabel: What the values are.
        log: Whether to make the vertical axis logarithmic.
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
    steps = integer("steps", steps, 1)
    _optional("log", log, bool)
    _optional("ylabel", ylabel, str)
    names = _schedule_names(schedules) if labels is None else list(labels)
    if len(names) != len(schedules):
        raise ValueError(f"labels must be {len(schedules)}, one per schedule; got {len(names)}")
    values = [_scheduled(f"schedules[{i}]", s, steps) for i, s in enumerate(schedules)]
    ax = axes_to_draw_on(ax)
    for name, y in zip(names, values, strict=True):
        draw_line(ax, np.arange(steps), y, str(name))
    if log:
        ax.set_yscale("log")
    return finish(ax, "step", ylabel)


def lr_sweep(sweep: Any, *, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Draw the loss over the learning rate of a range test, and the learning rate it suggests.

    The vertical axis ends a little above the highest loss before the lowest one, since how far the
    loss rises where learning rates are too high is beside the point. The first of several sweeps on
    the same Axes decides.

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
    lrs, losses = as_array("sweep.lrs", sweep.lrs), as_array("sweep.losses", sweep.losses)
    if lrs.shape != losses.shape:
        raise ValueError(f"sweep has {lrs.size} lrs, but {losses.size} losses")
    if not (np.isfinite(lrs).all() and (lrs > 0).all()):
        raise ValueError("sweep.lrs must be finite and greater than 0")
    suggestion = sweep.suggestion
    if suggestion is not None:
        suggestion = float(as_array("sweep.suggestion", [suggestion])[0])
        if not 0 < suggestion < np.inf:
            raise ValueError(f"sweep.suggestion must be finite and > 0, got {suggestion!r}")
    ax = axes_to_draw_on(ax)
    line = draw_line(ax, lrs, losses, label or "loss")
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
    return finish(ax, "learning rate", "loss")


def _paths(paths: Any) -> dict[str, Floats]:
    """The paths by label, checked."""
    named = paths if isinstance(paths, Mapping) else {"path": paths}
    if not named:
        raise ValueError("paths must hold one path at least")
    checked = {}
    for label, path in named.items():
        name = f"paths[{label!r}]" if named is paths else "paths"
        points = as_array(name, path, dimensions=2)
        if points.shape[1] != 2:
            raise ValueError(f"{name} must have the shape (points, 2), got {points.shape}")
        if not np.isfinite(points[0]).all():
            raise ValueError(f"{name} must start at a finite point, got {points[0]}")
        checked[str(label)] = points
    return checked


def _levels(levels: Any) -> int | list[float]:
    if isinstance(levels, (int, np.integer)):
        return integer("levels", levels, 1)
    values = as_array("levels", levels)
    if not (np.isfinite(values).all() and (np.diff(values) > 0).all()):
        raise ValueError(f"levels must be finite and increase, got {levels!r}")
    return [float(value) for value in values]


def _schedule_names(schedules: Sequence[Any]) -> list[str]:
    """The name of each function, with the arguments in which it differs from its namesakes."""
    calls = [_call(i, s) for i, s in enumerate(schedules)]
    names = []
    for i, (name, arguments) in enumerate(calls):
        namesakes = [other for j, (same, other) in enumerate(calls) if same == name and j != i]
        shown = [
            f"{key}={value}"
            for key, value in arguments.items()
            if any(other.get(key) != value for other in namesakes)
        ]
        names.append(f"{name}({', '.join(shown)})" if shown else name)
    return [textwrap.fill(name, 45, subsequent_indent="    ") for name in names]


def _call(i: int, schedule: Any) -> tuple[str, dict[str, str]]:
    """The function that makes a schedule and its arguments, as its repr tells."""
    if hasattr(schedule, "__name__"):
        return str(schedule.__name__).replace("<lambda>", f"schedule {i}"), {}
    try:
        tree = ast.parse(repr(schedule), mode="eval").body
    except SyntaxError:
        return f"schedule {i}", {}
    if not isinstance(tree, ast.Call):
        return ast.unparse(tree), {}
    arguments = {str(n): ast.unparse(value) for n, value in enumerate(tree.args)}
    arguments |= {str(keyword.arg): ast.unparse(keyword.value) for keyword in tree.keywords}
    return ast.unparse(tree.func), arguments


def _scheduled(name: str, schedule: Any, steps: int) -> Floats:
    """The values of a schedule, each a finite number."""
    values = [schedule(step) for step in range(steps)] if callable(schedule) else [schedule] * steps
    y = as_array(name, values)
    if not np.isfinite(y).all():
        step = int(np.argmin(np.isfinite(y)))
        raise ValueError(f"{name} is {y[step]} at step {step}, expected a finite number")
    return y


def _names(keys: Any) -> list[str]:
    names = [keys] if isinstance(keys, str) else list(keys) if isinstance(keys, Iterable) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(f"keys must be a name or a list of names, got {keys!r}")
    return names


def _optional(name: str, value: Any, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__}: {value!r}")


def _draw_path(ax: Axes, label: str, path: Floats, view: View) -> None:
    points = clipped(path, view)
    if not np.isfinite(path).all():
        label += f" (not finite from step {np.argmin(np.isfinite(path).all(axis=1))})"
    marker = "o" if len(points) <= 60 else "none"  # a step each
    draw_line(ax, points[:, 0], points[:, 1], label, linewidth=1.3, marker=marker, markersize=3)


def _focus(ax: Axes, losses: Floats) -> None:
    """Choose the vertical axis for the losses up to the lowest, unless other lines have done so."""
    known = losses[np.isfinite(losses)]
    if known.size == 0 or len(ax.lines) > 1:
        return
    low, high = float(known.min()), float(known[: int(np.argmin(known)) + 1].max())
    if low > 0 and high / low > LOG_FROM:
        ax.set_yscale("log")
        margin = (high / low) ** 0.1
        bottom, top = low / margin, high * margin**2
    elif high > low:
        bottom, top = low - 0.1 * (high - low), high + 0.25 * (high - low)
    else:
        return
    ax.set_ylim(bottom, top)
