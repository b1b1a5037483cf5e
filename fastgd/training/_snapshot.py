"""Copies of the parameters to go back to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from fastgd import _engine
from fastgd._arrays.tree import Array

T = TypeVar("T")


class Snapshot:
    """A copy of arrays to go back to. An interruption while it is made leaves the one before."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        self._arrays = arrays
        self._copies: list[Array] | None = None
        self._spare: list[Array] | None = None

    def save(self) -> None:
        spare = self._spare or [np.empty_like(array) for array in self._arrays]
        for copy, array in zip(spare, self._arrays, strict=True):
            np.copyto(copy, array)
        self._copies, self._spare = spare, self._copies

    def restore(self) -> None:
        """Go back, whatever signals come."""
        _engine.uninterrupted(self._copy_back)

    def _copy_back(self) -> None:
        for copy, array in zip(self._copies or (), self._arrays, strict=False):
            np.copyto(array, copy)


def restored(arrays: Sequence[Array], body: Callable[[], T]) -> T:
    """body(), and the arrays put back to their present bits in the end, whatever happens."""
    before = [array.copy(order="K") for array in arrays]

    def put_back() -> None:
        for array, old in zip(arrays, before, strict=True):
            array[...] = old

    return _engine.ensure(body, put_back)
