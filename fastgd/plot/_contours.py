"""The geometry of `plot.trajectory`: which part of the plane, and the function's values on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Function: TypeAlias = Callable[[Any, Any], Any]
Limits: TypeAlias = tuple[float, float]

GRID = (201, 221)  # rows and columns: unequal, so that a function that mixes them up is noticed
MARGIN = 0.12  # around what the view has to hold, as a share of its size
FLATTEST = 10.0  # how much more one side than the other may be stretched for the sake of the ratio
FIRST_POINTS = 6  # of a path that leaves the view, to show how it begins
ROOM = 0.5  # by how many times its size the view may grow for them
EXCURSION = 3.0  # the same for the points between start and end of a path that stays
REACH = 100.0  # a path further outside than so many views is not coming back


@dataclass(frozen=True)
class View:
    """A rectangle of the plane."""

    x: Limits
    y: Limits

    @property
    def width(self) -> float:
        return self.x[1] - self.x[0]

    @property
    def height(self) -> float:
        return self.y[1] - self.y[0]

    def __contains__(self, point: Floats) -> bool:
        return bool(self.x[0] <= point[0] <= self.x[1] and self.y[0] <= point[1] <= self.y[1])


def call(fun: Function, x: Any, y: Any) -> Any:
    """fun(x, y) without complaints: overflow far from the minimum is no news."""
    with np.errstate(all="ignore"):
        try:
            return fun(x, y)
        except (OverflowError, ZeroDivisionError):  # Python's numbers raise where NumPy's do not
            return math.nan


def at_point(fun: Function, x: float, y: float) -> float:
    """The value at one point, refused unless it is one number."""
    value = np.asarray(call(fun, x, y))
    if value.size != 1 or value.dtype.kind not in "fiu":
        raise TypeError(
            f"fun must return one number for two, got {type(value).__name__} of shape "
            f"{value.shape} and dtype {value.dtype}"
        )
    return float(value.item())


def view_of(
    fun: Function,
    paths: list[Floats],
    lowest: Limits | None,
    ends: tuple[Limits | None, Limits | None],
    ratio: float,
) -> View:
    """The part of the plane to show: the limits given, or what the paths need.

    Width : height is `ratio` where nothing is given, unless that would flatten the paths.
    """
    xlim, ylim = ends
    if xlim is not None and ylim is not None:
        return View(xlim, ylim)
    settled = [path for path in paths if _settles(fun, path)]
    held = [path[:1] for path in paths] + [path[-1:] for path in settled]
    if lowest is not None:
        held.append(np.array([lowest]))
    near = _surroundings(held, ratio, EXCURSION)
    held += [path[[point in near for point in path]] for path in settled]
    near = _surroundings(held, ratio, ROOM)
    for path in paths:
        first = itertools.takewhile(near.__contains__, _finite_part(path[:FIRST_POINTS]))
        held.append(np.vstack([path[:1], *first]))
    low, high = _box(held)
    if (high == low).all():  # one point: show some of its surroundings
        around = 0.1 * max(1.0, float(np.abs(low).max()))
        low, high = low - around, high + around
    centre, half = low + (high - low) / 2, _enlarged(high - low, ratio) / 2
    (x0, y0), (x1, y1) = (centre - half).tolist(), (centre + half).tolist()
    return View(xlim or (x0, x1), ylim or (y0, y1))


def _surroundings(points: list[Floats], ratio: float, share: float) -> View:
    """The rectangle that extends beyond the points by so many times their view's size."""
    low, high = _box(points)
    room = share * _enlarged(high - low, ratio) if (high > low).any() else np.full(2, np.inf)
    (x0, y0), (x1, y1) = (low - room).tolist(), (high + room).tolist()
    return View((x0, x1), (y0, y1))


def _enlarged(size: Floats, ratio: float) -> Floats:
    """Width and height with the margin, and in the ratio unless that would flatten one of them."""
    width, height = (size * (1 + 2 * MARGIN)).tolist()
    if height == 0 or width / ratio <= FLATTEST * height:
        height = max(height, width / ratio)
    if width == 0 or height * ratio <= FLATTEST * width:
        width = max(width, height * ratio)
    return np.array([width, height])


def _box(points: list[Floats]) -> tuple[Floats, Floats]:
    every = np.vstack(points)
    return every.min(axis=0), every.max(axis=0)


def _finite_part(path: Floats) -> Floats:
    """The points before the first that is not finite."""
    finite = np.isfinite(path).all(axis=1)
    return path if finite.all() else path[: int(np.argmin(finite))]


def _settles(fun: Function, path: Floats) -> bool:
    """Whether a path stays finite and ends no higher than it began."""
    if not np.isfinite(path).all():
        return False
    return at_point(fun, *path[-1].tolist()) <= at_point(fun, *path[0].tolist())


def clipped(path: Floats, view: View) -> Floats:
    """The path until it leaves the view for good, or is not finite any more.

    Of what comes after the last point inside only the segment that leads out is kept: a path that
    swings ever further would fill the view with its crossings. Far outside, where coordinates would
    overflow in the renderer, that segment is shortened.
    """
    path = _finite_part(path)
    centre = np.array([sum(view.x) / 2, sum(view.y) / 2])
    reach = REACH * np.array([view.width, view.height]) + np.abs(path[0] - centre)
    lost = (np.abs(path - centre) > reach).any(axis=1)
    near = path[: int(np.argmax(lost))] if lost.any() else path
    inside = np.flatnonzero([point in view for point in near])
    last = int(inside[-1]) if inside.size else 0
    if last == len(path) - 1:
        return path
    start, step = path[last], path[last + 1] - path[last]
    share = np.min(reach / np.maximum(np.abs(step), reach))
    return np.vstack([path[: last + 1], start + share * step])


def evaluate(fun: Function, view: View) -> tuple[Floats, Floats, Floats]:
    """x, y and fun(x, y) on a grid over the view, the values that are not finite masked by NaN."""
    x, y = np.meshgrid(np.linspace(*view.x, GRID[1]), np.linspace(*view.y, GRID[0]))
    z = _all_at_once(fun, x, y)
    if z is None:
        values = [at_point(fun, *point) for point in zip(x.flat, y.flat, strict=True)]
        z = np.array(values).reshape(x.shape)
    return x, y, np.where(np.isfinite(z), z, np.nan)


def _all_at_once(fun: Function, x: Floats, y: Floats) -> Floats | None:
    """fun of whole arrays, None if it is not made for them."""
    try:
        z = np.asarray(call(fun, x, y), dtype=np.float64)
    except (TypeError, ValueError):  # math.exp of an array, `if` on an array, shapes that clash
        return None
    if z.shape != x.shape:
        return None
    for spot in [(0, 1), (GRID[0] // 3, GRID[1] // 2), (GRID[0] - 1, 0)]:
        alone = at_point(fun, float(x[spot]), float(y[spot]))
        if not math.isclose(z[spot], alone, rel_tol=1e-6, abs_tol=1e-9) and math.isfinite(alone):
            return None
    return z


def contour_levels(z: Floats, wanted: int | list[float]) -> list[float]:
    """The values that have contours, of those wanted or of as many well-chosen ones.

    Chosen are quantiles of the values in the view, which spreads the contours over it whatever the
    function's range. For a quadratic the area below a value grows like the value and the distance
    like its root, so quantiles at squares of equally spaced numbers give equal distances.
    """
    known = z[np.isfinite(z)]
    if known.size == 0:
        return []
    if isinstance(wanted, int):
        shares = (np.arange(1, wanted + 1) / (wanted + 1)) ** 2
        levels: list[float] = np.unique(np.quantile(known, shares)).tolist()
    else:
        levels = wanted
    return [level for level in levels if known.min() < level < known.max()]


def limits(name: str, value: Any, increasing: bool = True) -> Limits:
    """A pair of finite numbers, if wanted the second one larger."""
    try:
        low, high = map(float, value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a pair of numbers, got {value!r}") from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name} must be finite, got {value!r}")
    if increasing and not low < high:
        raise ValueError(f"{name} must increase, got {value!r}")
    return low, high
