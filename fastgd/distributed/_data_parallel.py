"""Data parallel: every rank has all parameters and all state, and takes the same step."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgd._arrays.tree import Array
from fastgd.distributed._partition import Axis, partition
from fastgd.distributed._ranks import TIMEOUT, Ranks
from fastgd.distributed._state import flat_state, head_of, joined
from fastgd.distributed._step import DENSE, Distributed, Structure, check_options, check_same
from fastgd.optimizers import Optimizer, dump


class DataParallel(Distributed):
    """An optimizer on every rank, all with the same parameters and state, for gradients of a batch each.

    A step takes the mean of all ranks' gradients, on each rank: parameters and state stay equal, bit for
    bit, and are those of one process whose gradient is the `Sum` of the ranks' in their order, times
    1/ranks. So clipping, `nonfinite`, schedules and whatever else a step does is of all ranks' gradients.
    At the beginning parameters and state become rank 0's.

    On one machine gradients are read from memory that all ranks see; otherwise each rank adds up some
    rows of them, and sends all the sums. `Sharded` needs less memory and less time.

    Args:
        optimizer: any, over this rank's own arrays; not to be used by itself afterwards.
        comm: an mpi4py communicator.
        average: False for the sum of the gradients in place of their mean.
        shared_memory: None: where all ranks are on one machine; False: never.
        grad_dtype: "bfloat16": gradients travel in half of the bytes, rounded to nearest; not in shared
            memory.
        timeout: seconds that a rank waits for another before it gives up.

    Raises:
        ImportError: mpi4py is not there.
        TypeError, ValueError: an argument is not as described.
        RankError: ranks differ in optimizer, names, shapes, dtypes, hyperparameters or step count.

    Example:
        Two processes: `mpiexec -n 2 python train.py`.

        >>> from mpi4py import MPI
        >>> import numpy as np, fastgd
        >>> w = np.zeros(3)
        >>> opt = fastgd.distributed.DataParallel(fastgd.Adam(w, lr=0.1), MPI.COMM_WORLD)
        >>> opt.step(w - 1.0)
        True
        >>> w.round(3).tolist()
        [0.1, 0.1, 0.1]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        comm: Any,
        *,
        average: bool = True,
        shared_memory: bool | None = None,
        grad_dtype: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"DataParallel needs an optimizer, got {type(optimizer).__name__}: {optimizer!r}"
            )
        check_options(average, shared_memory)
        ranks = Ranks(comm, timeout)
        bound = optimizer._bound
        params = [np.asarray(array) for array in optimizer.params.values()]
        names = bound.plan.names
        check_same(ranks, optimizer, names, params)
        ranks.same("the step count", optimizer.step_count)
        structure = Structure(
            params, names, [m.tree for m in bound.members], [m.spec for m in bound.members]
        )
        axes = [Axis.of(array) for array in params]
        rows = partition(axes, [False] * len(axes), ranks.size)
        super().__init__(
            optimizer,
            ranks,
            structure,
            axes,
            rows,
            average=average,
            shared_memory=shared_memory,
            grad_dtype=grad_dtype,
        )
        self._totals: list[Array] | None = None
        self._take(optimizer)

    def _combined(self, leaves: Any, kinds: Array, what: str) -> list[Any]:
        if self._exchange.own is None and self.size > 1:
            self._add_up(kinds)
        return super()._combined(leaves, kinds, what)

    def _add_up(self, kinds: Array) -> None:
        """The sums of the dense gradients: of this rank's rows, then of all."""
        if self._totals is None:
            self._totals = [np.zeros_like(array) for array in self._structure.params]
        for i, total in enumerate(self._totals):
            begin, end = self._rows[i][self.rank]
            given = np.flatnonzero(kinds[:, i] == DENSE).tolist()
            mine = self._axes[i].cut(total, begin, end)
            if not given or not mine.size:
                continue
            first, *others = self._exchange.parts(i, given)
            with np.errstate(over="ignore", invalid="ignore"):
                np.copyto(mine, first, casting="unsafe")
                for part in others:
                    mine += part.astype(total.dtype, copy=False)
        self._exchange.publish(self._totals, np.flatnonzero((kinds == DENSE).any(0)))  # type: ignore[union-attr]

    def _dense_parts(self, i: int, given: list[int]) -> list[Array]:
        return [self._totals[i]] if self._totals is not None else self._exchange.parts(i, given)

    # --- what is saved ---

    def state_dict(self) -> dict[str, Any]:
        """See `Optimizer.state_dict`; the same on all ranks."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: Any, source: int = 0) -> None:
        """See `Optimizer.load_state_dict`. All ranks call it, and go on as rank `source` does, whose
        `state_dict` counts.
        """

        def load() -> None:
            if self.rank == source:
                self.optimizer.load_state_dict(state_dict)

        self._ranks.call("load_state_dict", load)
        self._take(self.optimizer, source)

    def norms(self) -> dict[str, Array]:
        """See `Optimizer.norms`."""
        return self.optimizer.norms()

    def _whole(self) -> Optimizer:
        return self.optimizer

    def _empty_whole(self) -> Optimizer:
        return self.optimizer

    def _take(self, whole: Optimizer | None, source: int = 0) -> None:
        head, _ = self._ranks.gather_objects(head_of(self.optimizer), "load")[source]

        def load() -> None:
            if self.rank != source:
                self.optimizer.load_state_dict(joined(dump(self.optimizer, copied=False), head))

        self._ranks.call("load", load)
        bound = self.optimizer._bound
        arrays = [*self._structure.params, *(flat for _, _, flat in flat_state(self.optimizer))]
        self._ranks.broadcast([*arrays, bound.plan.numbers, bound.plan.steps], source)
        self.optimizer._gate.call(self.optimizer._swap)
