"""An epoch's order, cut into batches.

Three ways, since a lean one is often enough: slices of the data for successive rows, slices of one
row for single samples, gathered rows for all else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from fastgd.sampling._rows import Rows
from fastgd.sampling._samplers import Order

Batch = tuple[Any, ...]
Buffers = Sequence[NDArray[Any] | None]

SINGLES_PER_STRETCH = 4096  # indices turned into Python's ints at a time


class ReadAhead:
    """Reads each window of a block-shuffled file, block after block, before its first use."""

    def __init__(
        self,
        rows: Sequence[Rows],
        windows: Iterator[tuple[int, Order]],
        block_size: int,
        start: int,
    ) -> None:
        """Begin at position `start` of the epoch; windows are as from `BlockShuffled.windows`."""
        self._rows = [source for source in rows if source.mapped_row_bytes]
        self._windows = windows
        self._block_size = block_size
        self._start = start
        self._reached = 0

    def reach(self, stop: int) -> None:
        """Make sure that the samples before position `stop` of the epoch have been read."""
        while self._reached < stop:
            self._reached, block_starts = next(self._windows)
            if self._reached > self._start:
                for rows in self._rows:
                    for row in block_starts.tolist():
                        rows.touch(row, row + self._block_size)


def sliced(views: Sequence[Any], batch_size: int, start: int, stop: int) -> Iterator[Batch]:
    """Yield successive rows of the views, from row `start` up to row `stop`."""
    for low in range(start, stop, batch_size):
        high = low + batch_size
        yield tuple([view[low:high] for view in views])


def singles(
    views: Sequence[Any], order: Order, start: int, ahead: ReadAhead | None
) -> Iterator[Batch]:
    """Yield one row at a time, those of `order[start:]`."""
    for low in range(start, order.size, SINGLES_PER_STRETCH):
        stretch = order[low : low + SINGLES_PER_STRETCH]
        if ahead is not None:
            ahead.reach(low + stretch.size)
        for row in stretch.tolist():
            end = row + 1
            yield tuple([view[row:end] for view in views])


def gathered(
    rows: Sequence[Rows],
    order: Order,
    batch_size: int,
    start: int,
    ring: Sequence[Buffers],
    ahead: ReadAhead | None,
    serial: bool,
) -> Iterator[Batch]:
    """Yield the rows `order[start:]`, gathered into the ring's buffers in turn.

    A buffer of None stands for a new array; `serial` is for a background thread.
    """
    for number, low in enumerate(range(start, order.size, batch_size)):
        index = order[low : low + batch_size]
        if ahead is not None:
            ahead.reach(low + index.size)
        buffers = ring[number % len(ring)]
        yield tuple(
            [source.take(index, out, serial) for source, out in zip(rows, buffers, strict=True)]
        )
