"""Rows of the data: a slice of them as a view, or any of them gathered into a new array.

One class per kind of storage; the batches above it know neither.
"""

from __future__ import annotations

import numbers
import sys
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastgd import _engine
from fastgd.sampling._samplers import Order

PAGE_BYTES = 4096


class Rows(Protocol):
    """What a batch needs of one array of the data."""

    n: int
    mapped_row_bytes: int  # bytes of a row that lie in a file, 0 for an array in memory

    def views(self, part: slice) -> Any:
        """Return rows to be sliced into batches without a copy, where the storage allows it."""

    def take(self, index: Order, out: NDArray[Any] | None, serial: bool = False) -> Any:
        """Return the rows `index`, in `out[:len(index)]` if a buffer is given.

        `serial` keeps a background thread from starting a team of its own.
        """

    def buffer(self, size: int) -> NDArray[Any] | None:
        """Return room for `size` rows, None if `take` cannot use it."""

    def touch(self, start: int, stop: int) -> None:
        """Have the system read the rows start … stop from their file, in file order."""


class DenseRows:
    """Rows of an ndarray: of any dtype and layout, in memory or mapped from a file."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.n = array.shape[0]
        # Views of this read-only one are read-only too: no batch can change the caller's data.
        self._source = array.view()
        self._source.flags.writeable = False
        contiguous = self._source[:1].flags.c_contiguous and array.size > 0
        self._gathers = contiguous and not array.dtype.hasobject
        self._row_shape = array.shape[1:]
        self._dtype = array.dtype
        row_bytes = array.dtype.itemsize * int(np.prod(self._row_shape, dtype=np.int64))
        self.mapped_row_bytes = row_bytes if self._gathers and is_mapped(array) else 0

    def views(self, part: slice) -> NDArray[Any]:
        """Return a read-only view of the rows `part`."""
        return self._source[part]

    def take(self, index: Order, out: NDArray[Any] | None, serial: bool = False) -> NDArray[Any]:
        """Return the rows `index`, C-contiguous unless the data's rows are not."""
        if not self._gathers:
            # Not np.take: it would first copy the whole of an array that is not C-contiguous.
            return self._source[index]
        if out is None:
            out = np.empty((index.size, *self._row_shape), self._dtype)
        elif out.shape[0] != index.size:
            out = out[: index.size]
        _engine.gather_rows(self._source, index, out, serial)
        return out

    def buffer(self, size: int) -> NDArray[Any] | None:
        """Return an array for `size` rows, None where NumPy does the gathering."""
        return np.empty((size, *self._row_shape), self._dtype) if self._gathers else None

    def touch(self, start: int, stop: int) -> None:
        """Read one byte of every page, so that page faults come in file order.

        Faults in random order make Linux give up reading ahead, and every row costs a seek.
        """
        block = self._source[start:stop]
        if self.mapped_row_bytes and block.flags.c_contiguous:
            octets = block.reshape(-1).view(np.uint8)
            np.add.reduce(octets[::PAGE_BYTES])
            np.add.reduce(octets[-1:])


class CsrRows:
    """Rows of a SciPy CSR matrix or array; batches are CSR of the same class and dtype."""

    mapped_row_bytes = 0

    def __init__(self, matrix: Any) -> None:
        self.n = int(matrix.shape[0])
        self._source = matrix

    def views(self, part: slice) -> Any:
        """Return the matrix itself if `part` is all of it, else a copy of its rows `part`."""
        return self._source if part == slice(0, self.n, 1) else self._source[part]

    def take(self, index: Order, out: NDArray[Any] | None, serial: bool = False) -> Any:
        """Return the rows `index`."""
        return self._source[index]

    def buffer(self, size: int) -> None:
        """Return None: the size of a batch is not known beforehand."""

    def touch(self, start: int, stop: int) -> None:
        """Do nothing: the matrix is in memory."""


def as_rows(name: str, data: Any) -> Rows:
    """Wrap an array that the caller gave.

    Raises:
        TypeError: it is not an array, or of a kind whose rows cannot be gathered.
        ValueError: it has no rows.
    """
    sparse = sys.modules.get("scipy.sparse")  # a sparse matrix cannot exist without it
    if sparse is not None and sparse.issparse(data):
        if data.format != "csr" or data.ndim != 2:
            raise TypeError(
                f"{name} is a {data.ndim}-d sparse matrix in {data.format!r} format; rows can be "
                "gathered from the CSR format only: pass array.tocsr()"
            )
        rows: Rows = CsrRows(data)
    else:
        rows = DenseRows(_as_ndarray(name, data))
    if rows.n == 0:
        raise ValueError(f"{name} has no samples: its first dimension is 0")
    return rows


def _as_ndarray(name: str, data: Any) -> NDArray[Any]:
    if isinstance(data, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask batches would lose; pass .filled()")
    if not isinstance(data, np.ndarray) and not hasattr(data, "__array__"):
        hint = ""
        if isinstance(data, (list, tuple)):
            hint = "; pass numpy.asarray(…) of it, and several arrays as separate arguments"
        elif isinstance(data, numbers.Integral):
            hint = f"; did you mean batch_size={data}?"
        raise TypeError(f"{name} must be an array, not {type(data).__name__}{hint}")
    array = np.asarray(data)
    if array.ndim == 0:
        raise ValueError(f"{name} has no dimension to take samples from: it is a single number")
    return array


def is_mapped(array: NDArray[Any]) -> bool:
    """Whether the array is an np.memmap, or a view of one, or a view of that."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if isinstance(owner, np.memmap):
            return True
        owner = owner.base
    return False
