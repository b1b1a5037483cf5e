"""Batches made by a background thread, a few ahead of the loop that uses them.

The thread lives inside the generator `prefetched`, whose `finally` ends it; Python runs that when
the loop has finished, breaks, raises or forgets the iterator. The thread knows its queues only,
never the generator, so it keeps nothing alive.

Forgetting may mean that the garbage collector ends the generator, in whatever line of whatever
thread it happens to run: in this very thread, too, in the middle of a queue operation. Hence two
`SimpleQueue`s, which allow that, and none of the classes built on locks, which would deadlock.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue

from fastgd.sampling._batches import Batch


@dataclass(frozen=True)
class _End:
    """The last thing to come out of the thread: why there are no more batches."""

    error: BaseException | None


class _Line:
    """The production line between the thread and its consumer."""

    def __init__(self, depth: int) -> None:
        self.ready: SimpleQueue[Batch | _End] = SimpleQueue()
        self.orders: SimpleQueue[None] = SimpleQueue()
        self.stopped = False
        for _ in range(depth):
            self.orders.put(None)

    def produce(self, batches: Iterator[Batch]) -> None:
        """Make one batch for each order, until there are no more of either."""
        try:
            while True:
                self.orders.get()
                if self.stopped:
                    return
                self.ready.put(next(batches))
        except StopIteration:
            self.ready.put(_End(None))
        except BaseException as error:  # whatever it is, the consumer's thread is to raise it
            self.ready.put(_End(error))


class _Worker:
    """A running thread, and what it takes to end it."""

    def __init__(self, batches: Iterator[Batch], depth: int) -> None:
        self._line = _Line(depth)
        self._pid = os.getpid()
        # A daemon: Python would wait for any other thread before `atexit` could stop it.
        self._thread = threading.Thread(
            target=self._line.produce, args=(batches,), name="fastgd-prefetch", daemon=True
        )
        _running.add(self)
        self._thread.start()

    def get(self) -> Batch | None:
        """Return the next batch, None after the last, and order another in its place."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                "this iterator's prefetch thread does not exist in a forked process: "
                "start a new iteration here"
            )
        item = self._line.ready.get()
        if not isinstance(item, _End):
            self._line.orders.put(None)
            return item
        try:
            if item.error is not None:
                raise item.error
            return None
        finally:
            del item  # the error's traceback holds this frame: no cycle, please

    def end(self) -> None:
        """End the thread, and wait for it unless it is the one that runs this."""
        if os.getpid() != self._pid:
            return
        self._line.stopped = True
        self._line.orders.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()


_running: weakref.WeakSet[_Worker] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """End the threads of iterators that still exist when Python exits."""
    for worker in list(_running):
        worker.end()


def prefetched(batches: Iterator[Batch], depth: int) -> Iterator[Batch]:
    """Yield the same batches, up to `depth` of them made ahead of time.

    An exception raised by `batches` is raised here, after the batches that preceded it.
    """
    worker = _Worker(batches, depth)
    try:
        while (batch := worker.get()) is not None:
            yield batch
            del batch  # or it would live on while the next one is awaited
    finally:
        worker.end()
