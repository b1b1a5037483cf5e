"""Copies of the parameters to go back to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from fastgd import _engine
from fastgd._arrays.tree import Array

T = TypeVar("T")


class Snapshot:
    """Copies of arrays to go back to. An interruption while they are made leaves those before.

    Attributes:
        copies: None before there are any.
    """

    def __init__(self, copies: list[Array] | None = None) -> None:
        self.copies = copies
        self._spare: list[Array] | None = None

    def save(self, arrays: Sequence[Array]) -> None:
        """Of the same shapes as before."""
        spare = self._spare or [np.empty_like(array) for array in arrays]
        for copy, array in zip(spare, arrays, strict=True):
            np.copyto(copy, array)
        self.copies, self._spare = spare, self.copies

    def restore(self, arrays: Sequence[Array]) -> None:
        """Copy them back, whatever signals come; nothing if there are none."""

        def copy_back() -> None:
            for copy, array in zip(self.copies or (), arrays, strict=False):
                np.copyto(array, copy)

        _engine.uninterrupted(copy_back)


def restored(arrays: Sequence[Array], body: Callable[[], T]) -> T:
    """body(), and the arrays put back to their present bits in the end, whatever happens."""
    before = [array.copy(order="K") for array in arrays]

    def put_back() -> None:
        for array, old in zip(arrays, before, strict=True):
            array[...] = old

    return _engine.ensure(body, put_back)
