"""`minimize` on several ranks: every rank's batch is a part of one, and all decide alike.

Loss and gradients become those of all ranks before the loop sees them, so that the loop is the same
program with the same numbers everywhere.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from fastgd._arrays.tree import rebuild
from fastgd.distributed import DataParallel
from fastgd.distributed import Ranks as Ranks
from fastgd.optimizers import Optimizer
from fastgd.sampling import MiniBatches
from fastgd.training._feed import Exhausted, Feed
from fastgd.training._objective import Arguments, Objective, ValueAndGrad, own, samples_of


class SharedFeed(Feed):
    """The batches of this rank, in steps that all ranks take: in the last ones it may have none."""

    def __init__(self, source: Iterable[Any] | None, accumulate: int, ranks: Ranks) -> None:
        mine = ranks.rank, ranks.size
        if isinstance(source, MiniBatches) and source._options.shard != mine:
            raise ValueError(
                f"data has shard={source._options.shard}, and this is rank {ranks.rank} of {ranks.size}: "
                "make the MiniBatches with shard=(comm.rank, comm.size), or pass the arrays"
            )
        super().__init__(source, accumulate)
        self._ranks = ranks
        steps = -1 if super().steps_per_epoch is None else super().steps_per_epoch
        told = self._ranks.gather(np.array([steps, self.exact], np.int64), "minimize")
        if np.ptp(told[:, 1]):
            raise ValueError(
                "data: some ranks have all of it in each step, and others mini-batches"
            )
        self._steps = None if (told[:, 0] < 0).any() else int(told[:, 0].max())

    @property
    def steps_per_epoch(self) -> int | None:
        return self._steps

    @property
    def batch_size(self) -> int | None:
        own_size = super().batch_size
        return (
            None if own_size is None else min(own_size * self._ranks.size, self.samples or own_size)
        )

    @property
    def samples(self) -> int | None:
        return self._source._options.n_samples if isinstance(self._source, MiniBatches) else None

    @property
    def at_end(self) -> bool:
        return self._ranks.agree(super().at_end)

    def epoch(self) -> Generator[list[Arguments], None, None]:
        if self.exact:
            yield [self._only]
            return
        count = 0
        with closing(super().epoch()) as groups:
            while True:
                try:
                    group = next(groups, [])
                except Exhausted:
                    group = []
                if self._ranks.agree(not group):
                    break
                count += 1
                yield group
        if count == 0:
            raise Exhausted


class SharedObjective(Objective):
    """Loss and gradients of the batches of all ranks, each weighing as many times as it has samples."""

    def __init__(
        self, value_and_grad: ValueAndGrad, params: Any, has_aux: bool, ranks: Ranks
    ) -> None:
        super().__init__(value_and_grad, params, has_aux)
        self._ranks = ranks
        self._parallel: DataParallel | None = None

    def step_with(self, optimizer: Optimizer, comm: Any) -> None:
        """Take the gradients' structure, and this rank's parameters, from an optimizer."""
        self._parallel = DataParallel(optimizer, comm)

    def close(self) -> None:
        """Give back what the ranks share."""
        if self._parallel is not None:
            self._parallel.close()

    def mean(self, batches: Sequence[Arguments]) -> tuple[float, Any, float]:
        loss, grads, scale = super().mean(batches) if batches else (0.0, None, 1.0)
        factors, mean = self._told(batches, loss, scale)
        factor = float(factors[self._ranks.rank])
        common = 1.0
        if np.ptp(factors) == 0:
            common = factor
        else:
            grads = rebuild(grads, lambda leaf: leaf if leaf is None else own(leaf, factor))
        assert self._parallel is not None
        what = f"step {self._parallel.step_count + 1}"
        return mean, self._parallel._collect(grads, 1.0, None, what).grads, common

    def loss(self, batches: Sequence[Arguments], params: Any = None) -> float:
        return self._told(batches, super().loss(batches, params) if batches else 0.0)[1]

    def _told(
        self, batches: Sequence[Arguments], loss: float, scale: float = 1.0
    ) -> tuple[Any, float]:
        """What makes of each rank's gradients its part of the mean, and the mean loss. No rank has
        gradients of another in use when it comes here.
        """
        samples = float(sum(map(samples_of, batches)))
        weighed = samples * loss if samples else 0.0
        told = self._ranks.gather(np.array([samples, samples * scale, weighed]), "loss")
        total = told[:, 0].sum()
        return told[:, 1] / total, float(told[:, 2].sum() / total)
