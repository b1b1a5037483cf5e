"""Averages of the parameters over the steps, which are often better than the last ones.

An average is updated after a step and read whenever it is wanted; the parameters are not touched.
Sums are float64 whatever the parameters are: a float32 average would stop moving once its changes
fell below half a unit in the last place, which 1 - decay = 1e-4 brings about early.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgd._arguments import integer, number
from fastgd._arrays.layout import Layout, flat_view
from fastgd._arrays.tree import Array, check_parameter, flatten, rebuild

__all__ = ["Average", "ExponentialAverage", "TailAverage"]

Floats: TypeAlias = NDArray[np.float64]

BLOCK = 8192  # elements at a time, so that all of an update but reading stays in the cache


class Average:
    """What the averages share: sums, reading them, and their state. Not for use by itself.

    Attributes:
        count: updates made.
    """

    def __init__(self, params: Any) -> None:
        named, _ = flatten(params)
        for name, array in named:
            check_parameter(name, array)
        if not named:
            raise ValueError("an average needs at least one parameter array, got none")
        self._params = params
        self._names = [name for name, _ in named]
        self._arrays = [array for _, array in named]
        self._flat = [flat_view(array) for array in self._arrays]
        self._means: list[Floats] = [np.zeros(flat.size) for flat in self._flat]
        self._scratch = np.empty(min(BLOCK, max(flat.size for flat in self._flat)))
        self.count = 0

    def _weight(self) -> float:
        """The weight of the newest parameters in the average; 0 to leave them out."""
        raise NotImplementedError

    @property
    def empty(self) -> bool:
        """Whether nothing has been averaged yet."""
        return self.count == 0

    @property
    def finite(self) -> bool:
        """Whether no mean has a NaN or an infinity."""
        return all(bool(np.isfinite(mean).all()) for mean in self._means)

    @property
    def arrays(self) -> list[Array]:
        """The arrays that are averaged, in order: the live parameters themselves, not the average."""
        return list(self._arrays)

    def update(self) -> None:
        """Take the parameters as they are now into the average."""
        self.count += 1
        weight = self._weight()
        if weight:
            with np.errstate(all="ignore"):  # of parameters that have diverged, or nearly vanish
                for mean, flat in zip(self._means, self._flat, strict=True):
                    _move(mean, flat, weight, self._scratch)

    @property
    def params(self) -> Any:
        """The average: a tree of the parameters' structure, of new arrays of their dtypes and orders.

        Each access makes a copy of the whole model, so keep what it returns. As long as nothing has
        been averaged it is a copy of the parameters as they are.
        """
        values = iter(zip(self._arrays, self._flat, self._means, strict=True))

        def read(_: Any) -> Array:
            array, flat, mean = next(values)
            copy: Array = array.copy(order="K")
            with np.errstate(all="ignore"):  # as in update: a mean may be beyond float32's range
                flat_view(copy)[...] = flat if self.empty else mean
            return copy

        return rebuild(self._params, read)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"an {type(self).__name__} follows arrays and cannot be pickled or copied; make a new one "
            "over the new arrays and load_state_dict() into it"
        )

    def state_dict(self) -> dict[str, Any]:
        """What continuing needs: {"count": int, "means": {parameter name: float64 array}}, copies."""
        means = zip(self._names, self._arrays, self._means, strict=True)
        return {
            "count": self.count,
            "means": {
                name: Layout.of(array).shaped(mean).copy(order="K") for name, array, mean in means
            },
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a `state_dict()`.

        Raises:
            TypeError, ValueError: an entry is missing, unknown, or not of the parameter's shape.
                Nothing has changed then.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a dict, not {type(state_dict).__name__}")
        means = state_dict.get("means")
        if set(state_dict) != {"count", "means"} or not isinstance(means, Mapping):
            raise ValueError(
                "this is no state_dict of an average: it has 'count' and a dict 'means'"
            )
        if set(means) != set(self._names):
            odd = sorted(set(means) ^ set(self._names))
            raise ValueError(f"state_dict: only one side has the parameters {odd}")
        count = integer("state_dict['count']", state_dict["count"], 0)
        for name, array in zip(self._names, self._arrays, strict=True):
            mean = means[name]
            if not isinstance(mean, np.ndarray) or mean.dtype != np.float64:
                raise TypeError(f"state_dict: the mean of {name!r} must be a float64 array")
            if mean.shape != array.shape:
                raise ValueError(
                    f"state_dict: the mean of {name!r} has shape {mean.shape}, its parameter has "
                    f"{array.shape}"
                )
        for name, array, mean in zip(self._names, self._arrays, self._means, strict=True):
            Layout.of(array).shaped(mean)[...] = means[name]
        self.count = count


class ExponentialAverage(Average):
    """Exponential moving average, without the bias towards its start.

        m_t = decay * m_(t-1) + (1 - decay) * theta_t,  m_0 = 0;   average = m_t / (1 - decay^t)

    A weighted mean of the parameters so far, whose weights fall by `decay` per step back: about the
    last 1 / (1 - decay) steps count. Computed in the equal form

        average_t = average_(t-1) + w_t * (theta_t - average_(t-1)),  w_t = (1 - decay) / (1 - decay^t)

    Args:
        params: an array, or any nesting of list, tuple and dict of arrays, as for an optimizer. The
            average keeps to these arrays.
        decay: in [0, 1).

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> from fastgd.averaging import ExponentialAverage
        >>> theta = np.array([1.0])
        >>> average = ExponentialAverage(theta, decay=0.5)
        >>> for theta[0] in (4.0, 1.0):
        ...     average.update()
        >>> average.params.tolist()             # (0.5 * 4 + 1 * 1) / 1.5
        [2.0]

    References:
        Polyak & Juditsky 1992 (averaging); Kingma & Ba 2015, section 3 (the correction) and 7.2.
    """

    def __init__(self, params: Any, decay: float = 0.999) -> None:
        self.decay = number("decay", decay, 0, 1, "[)")
        super().__init__(params)

    def _weight(self) -> float:
        return float((1.0 - self.decay) / (1.0 - self.decay**self.count))


class TailAverage(Average):
    """The mean of the parameters after all steps but the first `start`.

    With start=0 Polyak and Juditsky's average over the whole run; leaving the beginning out spares
    it the distance from the starting point.

    Args:
        params: see `ExponentialAverage`.
        start: updates that are left out, at least 0.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> from fastgd.averaging import TailAverage
        >>> theta = np.array([1.0])
        >>> average = TailAverage(theta, start=1)
        >>> for theta[0] in (9.0, 2.0, 4.0):
        ...     average.update()
        >>> average.params.tolist()
        [3.0]

    References:
        Polyak & Juditsky 1992; Rakhlin, Shamir & Sridharan 2012, section 4 (the last part of a run);
        Jain, Kakade, Kidambi, Netrapalli & Sidford 2018 (tail averaging).
    """

    def __init__(self, params: Any, start: int = 0) -> None:
        self.start = integer("start", start, 0)
        super().__init__(params)

    @property
    def empty(self) -> bool:
        return self.count <= self.start

    def _weight(self) -> float:
        return 0.0 if self.empty else 1.0 / (self.count - self.start)


def _move(mean: Floats, flat: Array, weight: float, scratch: Floats) -> None:
    """mean += weight * (flat - mean)."""
    for low in range(0, flat.size, BLOCK):
        part = mean[low : low + BLOCK]
        change = scratch[: part.size]
        np.subtract(flat[low : low + BLOCK], part, out=change)
        change *= weight
        part += change


def __dir__() -> list[str]:
    return __all__
