"""How the pictures of `plot` look: the Axes, the cycle of line styles, marks and legend."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats: TypeAlias = NDArray[np.float64]

# Told apart by people with any colour-vision deficiency, the first four also by their grey.
COLORS = ("#0B3C8C", "#E07B00", "#007A5A", "#000000", "#CC79A7", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (9, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LOG_FROM = 30.0  # the ratio of largest to smallest value that a linear axis still shows well


def axes_to_draw_on(ax: Axes | None) -> Axes:
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


def ratio_of(ax: Axes) -> float:
    """Width : height of the Axes."""
    box = ax.get_window_extent()
    return float(box.width / box.height)


def draw_line(ax: Axes, x: Any, y: Floats, label: str, **options: Any) -> Any:
    """Draw a line in the next style that the Axes does not have yet."""
    i = sum(not str(line.get_label()).startswith("_") for line in ax.lines)
    every = max(1, -(-len(y) // 9))
    style: dict[str, Any] = {
        "color": COLORS[i % len(COLORS)],
        "linestyle": DASHES[i % len(DASHES)],
        "linewidth": 1.6,
        "marker": MARKERS[i % len(MARKERS)],
        "markersize": 4.5,
        # Where lines coincide their markers still do not.
        "markevery": (i * every // 4 % every, every),
    }
    return ax.plot(x, y, label=label, **{**style, **options})[0]


def draw_point(ax: Axes, point: Any, text: str, **style: Any) -> None:
    """Mark a point and write beside it what it is."""
    from matplotlib.patheffects import withStroke

    ax.plot(*point, color="black", linestyle="none", zorder=3, **style)
    ax.annotate(
        text,
        point,
        xytext=(0, 8),
        textcoords="offset points",
        horizontalalignment="center",
        fontsize="small",
        path_effects=[withStroke(linewidth=3, foreground="white")],
        annotation_clip=True,
        zorder=4,
    )


def spans_decades(ax: Axes) -> bool:
    low, high = float(ax.dataLim.y0), float(ax.dataLim.y1)
    return 0 < low < math.inf and high / low > LOG_FROM


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
    return ax
