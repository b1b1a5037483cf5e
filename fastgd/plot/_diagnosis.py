"""The picture of a diagnosis: the loss with what was found marked on it, and beside it what is to blame."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgd.plot._drawing import (
    axes_to_draw_on,
    draw_line,
    draw_point,
    finish,
    new_axes,
    show_all,
)
from fastgd.plot._plots import history

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fastgd.diagnostics import Diagnosis

Floats: TypeAlias = NDArray[np.float64]

LAYERS = (
    "dead_initialization",
    "exploding_gradients",
    "vanishing_gradients",
    "frozen_second_moment",
)
MOST_LAYERS = 8  # whose norms one picture still shows
LOWEST = ("learning_rate_too_high", "overfitting")  # after which things went wrong


def diagnosis(found: Diagnosis, *, axes: Any = None) -> tuple[Axes, Axes]:
    """Draw what `fastgd.diagnose` looked at: above the loss, below what the verdict is about.

    The loss has the verdict as its title, and a mark where things began to go wrong: at the lowest loss
    before a divergence, the lowest validation loss before overfitting, or the first value that is not
    finite. Below are the gradient norms of the layers where layers are to blame (the eight that differ
    most), else the learning rate beside the largest stable one, or, where that is not known, the norm of
    the gradient.

    Args:
        found: a `Diagnosis`.
        axes: two Axes to draw on; None for a new figure's.

    Returns:
        The two Axes.

    Raises:
        TypeError: an argument is not as described.
        ImportError: matplotlib is missing.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> import numpy as np, fastgd
        >>> def loss(x):
        ...     return x @ ([1.0, 10.0] * x) / 2, [1.0, 10.0] * x
        >>> result = fastgd.minimize(loss, np.ones(2), optimizer="sgd", lr=0.21, steps=100)
        >>> above, below = fastgd.diagnose(result).plot()
        >>> below.get_ylabel()
        'learning rate'
    """
    from fastgd.diagnostics import Diagnosis

    if not isinstance(found, Diagnosis):
        raise TypeError(f"found must be a Diagnosis, got {type(found).__name__}")
    if axes is None:
        above, below = new_axes(2, 2.8)
    else:
        above, below = map(axes_to_draw_on, axes)
    run = found.run
    history(found.history, ax=above)
    above.set_title(textwrap.fill(found.summary, 64), fontsize="medium", loc="left")
    if axes is None:
        above.set_xlabel("")  # it is that of the one below
    _mark(above, found)
    if found.verdict in LAYERS and run.layer_grad.size:
        _draw_layers(below, run)
    elif found.stable_lr is not None and np.isfinite(run.lr).any():
        _draw_rates(below, found)
    elif np.isfinite(run.grad_norm).any():
        history({"step": run.step, "grad_norm": run.grad_norm}, "grad_norm", ax=below)
    else:
        below.set_axis_off()
    return above, below


def _mark(ax: Axes, found: Diagnosis) -> None:
    """Where it began."""
    run = found.run
    if found.verdict == "nonfinite_data_or_loss":
        bad = np.flatnonzero(~np.isfinite(run.loss))
        if bad.size and bad[0] > 0:
            at = bad[0] - 1
            draw_point(ax, (run.step[at], run.loss[at]), "the last finite loss", marker="X")
        return
    if found.verdict not in LOWEST:
        return
    step, loss = run.step, run.loss
    if found.verdict == "overfitting" and run.validation_loss.size:
        step, loss = run.validation_step, run.validation_loss
    if np.isfinite(loss).any():
        at = int(np.nanargmin(np.where(np.isfinite(loss), loss, np.nan)))
        draw_point(ax, (step[at], loss[at]), f"lowest, at step {step[at]:g}", marker="v")


def _draw_layers(ax: Axes, run: Any) -> None:
    """The gradient norms of the layers, those that differ most, in the order of the parameters."""
    norms = np.where(np.isfinite(run.layer_grad) & (run.layer_grad > 0), run.layer_grad, np.nan)
    seen: NDArray[np.bool_] = np.atleast_1d(np.isfinite(norms).any(0))
    middle = np.full(norms.shape[1], -np.inf)  # of layers without any gradient
    middle[seen] = np.nanmedian(np.log(norms[:, seen]), 0)
    order = np.argsort(middle, kind="stable")
    half = MOST_LAYERS // 2
    chosen = order if len(order) <= MOST_LAYERS else np.concatenate([order[:half], order[-half:]])
    for i in sorted(chosen):
        name = run.names[i] if seen[i] else f"{run.names[i]} (zero)"
        draw_line(ax, run.step, norms[:, i], name)
    show_all(ax, True)
    finish(ax, "step", "gradient norm")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small", handlelength=3.2)


def _draw_rates(ax: Axes, found: Diagnosis) -> None:
    run = found.run
    draw_line(ax, run.step, run.lr, "used")
    label = f"largest stable one ({found.stable_lr_confidence} confidence)"
    draw_line(ax, run.step[[0, -1]], [found.stable_lr] * 2, label, marker="none")
    show_all(ax, None)
    finish(ax, "step", "learning rate")
