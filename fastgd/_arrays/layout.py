"""What the memory of a parameter is like, and so that of its state."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastgd._arrays.tree import Array


def flat_view(array: Array) -> Array:
    """A one-dimensional view of a contiguous array, in the order of its memory."""
    plain = np.asarray(array)
    return plain.reshape(-1) if plain.flags.c_contiguous else plain.T.reshape(-1)


class Layout(NamedTuple):
    """What the state of a parameter was made for; the array itself may be resized since."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    c_contiguous: bool

    @classmethod
    def of(cls, array: Array) -> Layout:
        plain = np.asarray(array)  # a subclass may have attributes of its own mind
        return cls(plain.shape, plain.dtype, plain.flags.c_contiguous)

    def of_state(self, shape: tuple[int, ...]) -> Layout:
        """Of an array of the state; one of another shape is C-contiguous."""
        return self if shape == self.shape else Layout(shape, self.dtype, True)

    def shaped(self, flat: Array) -> Array:
        """A flat array in the parameter's memory order as a view of the parameter's shape."""
        return flat.reshape(self.shape) if self.c_contiguous else flat.reshape(self.shape[::-1]).T
