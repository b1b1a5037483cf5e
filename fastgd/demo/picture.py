"""The figure of `demo --plot`: loss curves of all runs, and what a learning rate does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgd import plot
from fastgd.demo import DemoError, optional
from fastgd.demo.data import Dataset
from fastgd.demo.runs import Outcome
from fastgd.optimizers import SGD

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats: TypeAlias = NDArray[np.float64]

FORMATS = (".png", ".pdf", ".svg", ".jpg")
# Gradient descent on (x² + STEEP y²) / 2 is stable for learning rates below 2 / STEEP.
STEEP = 10.0
START = (-4.0, 1.5)
REGIMES = {"too small": 0.01, "right": 0.16, "too large": 0.21}
DESCENT_STEPS = 40


def check(path: Path) -> None:
    """Make sure, before any training, that the figure can be drawn and written.

    Raises:
        DemoError: matplotlib is missing, the file's name has none of the FORMATS, or it cannot be
            written where it is to be.
    """
    optional("matplotlib.figure", "plot")
    if path.suffix.lower() not in FORMATS:
        raise DemoError(f"--plot {path}: the name must end in {' or '.join(FORMATS)}")
    if os.path.isdir(path):
        raise DemoError(f"--plot {path}: is a directory")
    if not os.path.isdir(path.parent):
        raise DemoError(f"--plot {path}: there is no directory {path.parent}")
    if not os.access(path if os.path.exists(path) else path.parent, os.W_OK):
        raise DemoError(f"--plot {path}: permission denied")


def write(path: Path, data: Dataset, outcomes: Sequence[Outcome]) -> None:
    """Draw the figure and write it.

    Raises:
        DemoError: it cannot be written.
    """
    figure = optional("matplotlib.figure", "plot").Figure(figsize=(11, 8.5), layout="constrained")
    (kinds, optimizers), (paths, losses) = figure.subplots(2, 2)
    batch, stochastic, mini_batch, *others = outcomes
    # The one that both panels show comes first, and so looks the same in both.
    _draw_curves(
        kinds, [mini_batch, batch, stochastic], f"Batch, stochastic, mini-batch ({data.name})"
    )
    _draw_curves(optimizers, [mini_batch, *others], f"Optimizers, with mini-batches ({data.name})")
    _draw_regimes(paths, losses)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise DemoError(f"--plot {path}: cannot be written ({error.strerror or error})") from error


def _draw_curves(ax: Axes, outcomes: Sequence[Outcome], title: str) -> None:
    """Loss over epochs, both logarithmic: a batch step is an epoch, a stochastic one a sample."""
    ax.set(title=title, xlabel="passes over the training images", ylabel="training loss")
    for o in outcomes:
        epochs, loss = o.curve.T
        plot.history({"step": epochs, "loss": loss}, ax=ax, label=o.run.name, smooth=1, log=True)
    ax.set_xscale("log")


def _draw_regimes(paths: Axes, losses: Axes) -> None:
    """The same descent with three learning rates: the paths, and their losses."""
    descents = {f"{name}, lr = {lr:g}": _descend(lr) for name, lr in REGIMES.items()}
    plot.trajectory(_bowl, descents, ax=paths, minimum=(0.0, 0.0))
    paths.set_title(f"Learning rates, on f(x, y) = (x² + {STEEP:g} y²) / 2")
    legend = paths.get_legend()
    if legend is not None:
        legend.set_loc("lower left")  # where no path leads
    for name, path in descents.items():
        plot.history({"loss": _bowl(*path.T)}, ax=losses, label=name, smooth=1, log=True)
    losses.set(title=f"The same descents, stable for lr < 2 / {STEEP:g}", ylabel="f(x, y)")


def _bowl(x: Any, y: Any) -> Any:
    return (x**2 + STEEP * y**2) / 2


def _descend(lr: float) -> Floats:
    """The points that gradient descent visits, shape (DESCENT_STEPS + 1, 2)."""
    point = np.array(START)
    optimizer = SGD(point, lr=lr)
    visited = [point.copy()]
    for _ in range(DESCENT_STEPS):
        optimizer.step(point * [1.0, STEEP])
        visited.append(point.copy())
    return np.array(visited)
