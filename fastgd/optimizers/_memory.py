"""What an optimizer will take, before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from fastgd._arrays.formats import stored_length
from fastgd._arrays.layout import Layout
from fastgd.optimizers._groups import check_storable
from fastgd.optimizers._registry import find
from fastgd.optimizers._settings import Settings

if TYPE_CHECKING:
    from fastgd.optimizers._base import Optimizer


class Memory(NamedTuple):
    """Bytes, see `estimate_memory`."""

    params: int
    grads: int  # dense ones, of the parameters' dtype
    state: int
    scratch: int  # of a rule with matrix products, while it exists

    @property
    def total(self) -> int:
        return sum(self)


def estimate_memory(
    shapes: Mapping[Any, Any] | Iterable[Any],
    optimizer: str | type[Optimizer] = "AdamW",
    dtype: DTypeLike = np.float32,
    **hyperparameters: Any,
) -> Memory:
    """Bytes that parameters, gradients and state will take; nothing is allocated.

    Padding between arrays (less than a page for each) and what a program holds beside them are not counted.

    Args:
        shapes: of the parameters, a list or a dict of them: (n, m), or n for a vector.
        optimizer: a class, or its name in any case.
        dtype: of the parameters, float32 or float64.
        hyperparameters: those on which state depends, such as momentum, amsgrad or state_dtype.

    Returns:
        A named tuple of params, grads, state and scratch, with their `total`.

    Raises:
        TypeError, ValueError: as the optimizer's constructor.

    Example:
        >>> import fastgd
        >>> need = fastgd.estimate_memory({"W": (50_000, 40_000)}, "adamw", state_dtype="8bit")
        >>> round(need.state / 2_000_000_000, 3)    # bytes for each of two billion parameters
        2.031
    """
    kind = find(optimizer)
    _, values, _ = kind.declaration.bind((None,), hyperparameters)
    settings = Settings(kind, values)
    unused, real = kind.unused(settings.values), np.dtype(dtype)
    if real not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {real}")
    named = shapes.items() if isinstance(shapes, Mapping) else enumerate(shapes)
    sizes = state = 0
    for name, shape in named:
        layout = Layout(np.broadcast_shapes(shape), real, True)
        check_storable(settings, str(name), layout)
        size = math.prod(layout.shape)
        sizes += size
        for slot in kind.declaration.state:
            own = None if slot in unused else kind.state_shape(slot, layout.shape)
            if own == layout.shape:
                stored = settings.stored_dtype(layout)
                state += stored_length(stored, size) * stored.itemsize
            elif own is not None:
                state += math.prod(own) * real.itemsize
    scratch = sizes * real.itemsize if settings.rule["matrix"] else 0
    return Memory(sizes * real.itemsize, sizes * real.itemsize, state, scratch)
