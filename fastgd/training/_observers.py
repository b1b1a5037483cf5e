"""What watches a run of `minimize`: the way back from a loss that is not finite, and probes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastgd._arrays.tree import Array
from fastgd.history import Floats, History
from fastgd.training._snapshot import Snapshot

# A copy of the parameters to go back to is made every so many steps, or before each if that is cheap.
GUARD_EVERY, SMALL_ELEMENTS, SMALL_ARRAYS = 32, 16_384, 16
PROBE_EVERY = 200  # steps, after the first few


class Guard:
    """Parameters to go back to when the loss is no longer finite.

    Attributes:
        step, loss: of the copy.
    """

    def __init__(self, arrays: Sequence[Array], step: int) -> None:
        self.step, self.loss = step, math.nan
        self._arrays, self._snapshot = arrays, Snapshot()
        small = sum(a.size for a in arrays) <= SMALL_ELEMENTS and len(arrays) <= SMALL_ARRAYS
        self._every = 1 if small else GUARD_EVERY

    def see(self, attempt: int, step: int, loss: float) -> None:
        """Before a step: make a copy where one is due."""
        if attempt % self._every == 0:
            self._snapshot.save(self._arrays)
            self.step, self.loss = step, loss

    def restore(self) -> None:
        self._snapshot.restore(self._arrays)


class Prober:
    """The loss on the same batches before and after a step, for the curvature along it."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._open: tuple[int, float, float, float, float] | None = None

    @staticmethod
    def due(attempt: int) -> bool:
        """At steps 0, 1, 2, 4, 8, … and then at one in PROBE_EVERY."""
        early = attempt & (attempt - 1) == 0 and attempt < PROBE_EVERY
        return early or attempt % PROBE_EVERY == 0

    def open(self, step: int, loss: float, lr: float, sums: Floats, scale: float) -> None:
        """After a step: what is known of it, but for the loss that it led to."""
        with np.errstate(over="ignore", invalid="ignore"):
            product, update = float(sums[3].sum()) * scale, math.sqrt(sums[1].sum())
        self._open = (step, loss, product, update, lr)

    def close(self, after: float) -> None:
        """The loss after it, if one was opened."""
        if self._open is not None:
            step, before, product, update, lr = self._open
            self._history.record_probe(step, before, after, product, update, lr)
            self._open = None
