"""How the pictures of `plot` look: the Axes, the cycle of line styles, marks and legend."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats: TypeAlias = NDArray[np.float64]

# Seven, so that with the ten colours of matplotlib's default style seventy lines differ, and seven in
# grey print.
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (6, 1.5, 1, 1.5)),
    (0, (9, 3)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2, 2)),
)
MARKED = 30  # points of a line that are each marked; of longer ones none is
DIVERGED = 3.0  # times as large as at first; up to SHOWN times it is in view
SHOWN = 1.5
HEADROOM = 0.04  # of the height of the Axes, between the highest curve and the legend
LOG_FROM = 30.0  # the ratio of largest to smallest value that a linear axis still shows well


def axes_to_draw_on(ax: Axes | None) -> Axes:
    """The Axes to draw on."""
    if ax is None:
        return new_axes(1, 4.0)[0]
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be a matplotlib Axes, got {type(ax).__name__}: {ax!r}")
    return ax


def new_axes(count: int, height: float) -> list[Axes]:
    """So many Axes of a new figure, each so many inches high, one above the other over the same steps."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError('fastgd.plot needs matplotlib: pip install "fastgd[plot]"') from error
    _, axes = pyplot.subplots(
        count, 1, figsize=(6.0, height * count), sharex=True, squeeze=False, layout="constrained"
    )
    for ax in axes[:, 0]:
        ax.spines[["top", "right"]].set_visible(False)
    return list(axes[:, 0])


def ratio_of(ax: Axes) -> float:
    """Width : height of the Axes."""
    box = ax.get_window_extent()
    return float(box.width / box.height)


def draw_line(ax: Axes, x: Any, y: Any, label: str, *, like: Any = None, **options: Any) -> Any:
    """Draw a line in the style's next colour and dashes that the Axes does not have yet; each point marked
    if they are few.

    `like` is a line whose colour it has.
    """
    from matplotlib import rcParams

    colors = rcParams["axes.prop_cycle"].by_key().get("color", ["C0"])
    i = sum(map(_is_labelled, ax.lines))
    style: dict[str, Any] = {
        "color": colors[i % len(colors)] if like is None else like.get_color(),
        "linestyle": DASHES[i % len(DASHES)],
        "linewidth": 1.6,
        "marker": "o" if len(y) <= MARKED else "none",
        "markersize": 4.0,
    }
    return ax.plot(x, y, label=label, **{**style, **options})[0]


def draw_behind(ax: Axes, x: Any, y: Any, line: Any) -> None:
    """The values of which `line` is the mean, thin, without a say in the limits."""
    from matplotlib.lines import Line2D

    ax.add_artist(
        Line2D(
            x, y, color=line.get_color(), alpha=0.35, linewidth=0.6, zorder=1, label="_nolegend_"
        )
    )


def ink() -> Any:
    """The colour of text in the style in use."""
    from matplotlib import rcParams

    return rcParams["text.color"]


def draw_point(ax: Axes, point: Any, text: str, **style: Any) -> None:
    """Mark a point and write beside it what it is."""
    from matplotlib.patheffects import withStroke

    ax.plot(*point, color=ink(), linestyle="none", zorder=3, **style)
    ax.annotate(
        text,
        point,
        xytext=(0, 8),
        textcoords="offset points",
        horizontalalignment="center",
        fontsize="small",
        path_effects=[withStroke(linewidth=3, foreground=ax.get_facecolor())],
        annotation_clip=True,
        zorder=4,
    )


def show_all(ax: Axes, log: bool | None) -> None:
    """Choose the vertical axis for the labelled lines: its scale, and limits that a diverging run does not
    decide, if another does not diverge. Limits that were set by hand stay.
    """
    by_hand = not ax.get_autoscaley_on()
    low, high = _extent(ax)
    if log is None:
        log = low > 0 and high / low > LOG_FROM
    ax.set_yscale("log" if log else "linear")
    if by_hand or not low <= high:
        return
    if log and low > 0:
        margin = (high / low) ** 0.05 if high > low else 2.0
        ax.set_ylim(low / margin, high * margin, auto=True)
    elif not log:
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        ax.set_ylim(low - margin, high + margin, auto=True)


def _extent(ax: Axes) -> tuple[float, float]:
    """The lowest and the highest value that are to be seen; inf and -inf if there is none."""
    curves = [np.asarray(line.get_ydata(), float) for line in ax.lines if _is_labelled(line)]
    known = [(curve, curve[np.isfinite(curve)]) for curve in curves]
    known = [(curve, finite) for curve, finite in known if finite.size]
    tame = [finite for curve, finite in known if not _diverges(curve, finite)]
    lows = [finite.min() for _, finite in known]
    highs = [finite.max() for finite in tame or [finite for _, finite in known]]
    if tame:
        highs += [finite[0] * SHOWN for curve, finite in known if _diverges(curve, finite)]
    return float(min(lows, default=math.inf)), float(max(highs, default=-math.inf))


def _diverges(curve: Floats, finite: Floats) -> bool:
    """Whether a curve of positive values ends far above its start, or where it is no longer finite."""
    above: bool = finite[0] > 0 and bool(finite.max() > DIVERGED * finite[0])
    return above and (not math.isfinite(curve[-1]) or finite[-1] > DIVERGED * finite[0])


def _is_labelled(line: Any) -> bool:
    return not str(line.get_label()).startswith("_")


def finish(ax: Axes, xlabel: str, ylabel: str) -> Axes:
    """Label the axes, unless they are labelled already, and draw the legend."""
    from matplotlib.ticker import ScalarFormatter

    if not ax.get_xlabel():
        ax.set_xlabel(xlabel)
    if not ax.get_ylabel():
        ax.set_ylabel(ylabel)
    for axis in (ax.xaxis, ax.yaxis):
        formatter = axis.get_major_formatter()
        if isinstance(formatter, ScalarFormatter):  # 3 ×10⁻⁴ rather than 0.00030
            formatter.set_powerlimits((-3, 5))
            formatter.set_useMathText(True)
    legend = ax.legend(
        loc="best", fontsize="small", handlelength=3.2, edgecolor="none", framealpha=0.85
    )
    legend.set_in_layout(False)  # it lies inside, and makes no room for itself in a small panel
    _make_room(ax, legend)
    return ax


def _make_room(ax: Axes, legend: Any) -> None:
    """Where the legend lies on a curve in every corner, raise the upper limit and put it above them."""
    if not ax.get_autoscaley_on():
        return
    whole: Any = ax.figure.figure  # of a panel of a SubFigure too
    whole.draw_without_rendering()
    box = legend.get_window_extent()
    lines = (line.get_path().transformed(line.get_transform()) for line in ax.lines)
    if not any(path.intersects_bbox(box, filled=False) for path in lines):
        return
    part = box.height / ax.get_window_extent().height + HEADROOM
    if part > 0.6:  # of a small panel: as good as it gets
        return
    scale = ax.yaxis.get_transform()
    low, high = scale.transform(np.array(ax.get_ylim()))
    top = scale.inverted().transform(np.array([low + (high - low) / (1 - part)]))[0]
    ax.set_ylim(top=top, auto=True)
    legend.set_loc("upper right")
