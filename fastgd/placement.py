"""Arrays that lie in memory as a step likes them best.

NumPy's large arrays begin 16 bytes into a page, so that a vector of 64 bytes lies in two lines of the
cache, and streams at the same offset within the page wait for one another. Parameters and gradients
that begin at a line, apart within the page, and in huge pages, take 5 to 15 % off the step of a large
model (`bench.steps.placement`). The results are the same. State is always placed so.

Arrays of less than 256 KiB are NumPy's own: they stay in the cache, where it makes no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from fastgd._arrays.memory import placed
from fastgd._arrays.tree import Array, flatten, rebuild

Shape: TypeAlias = SupportsIndex | Sequence[SupportsIndex]


def zeros(shape: Shape, dtype: DTypeLike = np.float32, order: Literal["C", "F"] = "C") -> Array:
    """A parameter of zeros, as `numpy.zeros`, well placed.

    Args:
        shape: an integer or a sequence of such.
        dtype: any numeric one; float32, not NumPy's float64, where it is not given.
        order: "C" or "F", of the elements in memory.

    Raises: as `numpy.zeros`.

    Example:
        >>> import fastgd
        >>> W = fastgd.zeros((1024, 1024))
        >>> W.shape, W.dtype.name, W.ctypes.data % 64
        ((1024, 1024), 'float32', 0)
    """
    like = np.broadcast_to(np.zeros((), dtype), shape)  # type: ignore[arg-type]
    if order not in ("C", "F"):
        raise ValueError(f'order must be "C" or "F", got {order!r}')
    return placed(like.shape, like.dtype, fortran=order == "F")


def place(params: Any) -> Any:
    """Copies of parameters, well placed.

    Args:
        params: an array, or any nesting of lists, tuples and dicts of arrays.

    Returns:
        The same structure of new arrays, each of the dtype of its original, and contiguous: in Fortran's
        order where the original was, else in C's.

    Raises:
        TypeError: something else than an array is among them; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> params = fastgd.place({"W": np.ones((512, 512), np.float32), "b": np.zeros(512)})
        >>> grads = fastgd.empty_like(params)   # to be filled, as in np.matmul(x.T, e, out=grads["W"])
        >>> opt = fastgd.SGD(params, lr=0.1)
    """
    _check(params)
    return rebuild(params, _copy)


def empty_like(params: Any) -> Any:
    """Arrays for the gradients of parameters, well placed beside them; what is in them is arbitrary.

    Args:
        params: see `place`.

    Returns:
        The same structure of new arrays of the shapes, dtypes and memory orders of the parameters.

    Raises:
        TypeError: see `place`.

    Example:
        >>> import numpy as np, fastgd
        >>> grads = fastgd.empty_like([np.ones((512, 512)), np.ones(512)])
        >>> [grad.shape for grad in grads]
        [(512, 512), (512,)]
    """
    _check(params)
    return rebuild(params, lambda array: _like(array, beside=True))


def _check(params: Any) -> None:
    for name, array in flatten(params)[0]:
        if not isinstance(array, np.ndarray) or array.dtype.hasobject:
            raise TypeError(
                f"{name!r} must be a numpy.ndarray of numbers, got {type(array).__module__}."
                f"{type(array).__qualname__}{' of objects' if isinstance(array, np.ndarray) else ''}"
            )


def _like(array: Array, *, beside: bool = False) -> Array:
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    made = placed(array.shape, array.dtype, fortran=fortran, like=array if beside else None)
    return made if type(array) is np.ndarray else made.view(type(array))


def _copy(array: Array) -> Array:
    made = _like(array)
    np.copyto(made, array)
    return made
