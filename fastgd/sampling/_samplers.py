"""In which order an epoch visits the samples.

Each sampler below is one rule; `order(rng)` applies it. The generator is the only source of
randomness, so the order is a function of (seed, epoch) and of nothing else: not of the previous
epochs, not of the number of threads, not of how far an interrupted run had come.

A sampler also knows its share of the data. All ranks draw the same order of the whole data set and
each keeps its part, so that the parts are disjoint and together complete without a word exchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Order = NDArray[np.int64]

# Blocks that are mixed with each other: more of them mix better, fewer keep less in memory.
BLOCKS_PER_WINDOW = 64


@dataclass(frozen=True)
class Shard:
    """The part of an epoch that belongs to one of several ranks.

    Parts differ by one sample at most; `even` drops that sample, so that all ranks take the same
    number of steps and none waits for the others in a collective operation.
    """

    rank: int = 0
    count: int = 1
    even: bool = False

    def size(self, n: int) -> int:
        """How many of n samples this rank has."""
        return n // self.count if self.even else len(range(self.rank, n, self.count))

    def strided(self, n: int) -> slice:
        """Every count-th: the b-th batches of all ranks make up the b-th batch of one big run."""
        return slice(self.rank, self.rank + self.size(n) * self.count, self.count)

    def contiguous(self, n: int) -> slice:
        """One piece: a rank reads blocks that no other rank reads."""
        each, extra = divmod(n, self.count)
        start = self.rank * each + (0 if self.even else min(self.rank, extra))
        return slice(start, start + self.size(n))


class Sampler(Protocol):
    """Gives the order of one epoch."""

    def order(self, rng: np.random.Generator) -> Order:
        """Return the samples of this rank in the order of their visit, shape (samples,)."""


def permutation(n: int, rng: np.random.Generator) -> Order:
    """`rng.permutation(n)`, int64 on every platform."""
    order = np.arange(n, dtype=np.int64)
    rng.shuffle(order)
    return order


@dataclass(frozen=True)
class Sequential:
    """0, 1, 2, …"""

    n: int
    shard: Shard

    def order(self, rng: np.random.Generator) -> Order:
        """Return the samples in the order of the data."""
        return np.ascontiguousarray(np.arange(self.n, dtype=np.int64)[self.shard.strided(self.n)])


@dataclass(frozen=True)
class Shuffled:
    """A uniformly random permutation."""

    n: int
    shard: Shard

    def order(self, rng: np.random.Generator) -> Order:
        """Return every sample once."""
        return np.ascontiguousarray(permutation(self.n, rng)[self.shard.strided(self.n)])


@dataclass(frozen=True)
class Drawn:
    """n independent uniform draws with replacement."""

    n: int
    shard: Shard

    def order(self, rng: np.random.Generator) -> Order:
        """Return n draws, of which some samples have several and others none."""
        draws = rng.integers(self.n, size=self.n, dtype=np.int64)
        return np.ascontiguousarray(draws[self.shard.strided(self.n)])


@dataclass(frozen=True, eq=False)
class Weighted:
    """n independent draws with replacement, sample i with probability weights[i] / sum(weights)."""

    threshold: NDArray[np.float64]
    alias: Order
    shard: Shard

    @classmethod
    def of(cls, weights: NDArray[np.float64], shard: Shard) -> Weighted:
        """Build the table for weights that have been checked."""
        return cls(*alias_table(weights), shard)

    def order(self, rng: np.random.Generator) -> Order:
        """Return n draws, O(1) each: pick a column, then its owner or its alias."""
        n = self.alias.size
        column = rng.integers(n, size=n, dtype=np.int64)
        draws = np.where(rng.random(n) < self.threshold[column], column, self.alias[column])
        return np.ascontiguousarray(draws[self.shard.strided(n)])


def alias_table(weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], Order]:
    """Build the table of Vose's alias method (Walker 1977; Vose 1991).

    Scaled to mean 1, each weight is a column of that height. A column below 1 (light) is filled up
    to 1 from one column above 1 (heavy), its alias; a heavy column that has given so much that it
    is below 1 is filled by the next heavy one. Afterwards a uniformly drawn column i belongs to i
    with probability threshold[i] and to alias[i] otherwise.

    Vose moves columns between two stacks, one at a time. Served in index order, the k-th light
    column is filled by the first heavy column whose total excess, its own and that of the heavy
    ones before it, covers the deficits of the light columns before k. That is two running sums and
    a search in each (compare the parallel construction of Hübschle-Schneider and Sanders, 2022).
    The running sums round off by a relative n·2⁻⁵³ at most, which only heavy columns notice: a
    light one keeps exactly its own weight, so weight 0 is never drawn.

    Args:
        weights: float64, shape (n,), finite, none negative, not all zero.

    Returns:
        (threshold, alias), each of shape (n,).
    """
    n = weights.size
    height = weights / weights.max()  # first, so that the sum cannot overflow
    height *= n / height.sum()
    threshold = np.minimum(height, 1.0)
    alias = np.arange(n, dtype=np.int64)
    light = np.flatnonzero(height < 1.0)
    heavy = np.flatnonzero(height >= 1.0)
    if light.size == 0 or heavy.size == 0:  # equal weights, or equal but for rounding
        threshold[:] = 1.0
        return threshold, alias
    deficit = np.cumsum(1.0 - height[light])
    excess = np.cumsum(height[heavy] - 1.0)
    before = np.concatenate([[0.0], deficit[:-1]])
    donor = np.minimum(np.searchsorted(excess, before, side="left"), heavy.size - 1)
    alias[light] = heavy[donor]
    # The light column that takes a heavy one below 1; none for those that end at exactly 1.
    breaker = np.searchsorted(deficit, excess[:-1], side="right")
    broken = np.flatnonzero(breaker < light.size)
    left = 1.0 + excess[broken] - deficit[breaker[broken]]
    threshold[heavy[broken]] = np.maximum(left, 0.0)
    alias[heavy[broken]] = heavy[broken + 1]
    return threshold, alias


@dataclass(frozen=True, eq=False)
class Stratified:
    """Random batches that all have the class proportions of the data.

    With class j making up a share p_j of this rank's samples, each batch of k holds ⌊k p_j⌋ or
    ⌈k p_j⌉ of it, and so does the shorter last one with its own k: the closest that whole samples
    allow. The samples, shuffled and grouped by class, are dealt to the batches in turn like cards,
    after every (n/k)-th has been put aside for the last batch (systematic sampling).
    """

    codes: NDArray[Any]  # each sample's class, unsigned, from 0
    batch_size: int
    shard: Shard

    def order(self, rng: np.random.Generator) -> Order:
        """Return every sample once."""
        n = self.codes.size
        shuffled = permutation(n, rng)
        # The dealing starts with a random class, lest one always be the first to be rounded up.
        rank = permutation(int(self.codes.max()) + 1, rng).astype(self.codes.dtype)
        grouped = shuffled[np.argsort(rank[self.codes[shuffled]], kind="stable")]
        mine = grouped[self.shard.strided(n)]
        n_full, n_left = divmod(mine.size, self.batch_size)
        aside = np.zeros(mine.size, dtype=bool)
        if n_left:
            ticks = np.arange(n_left, dtype=np.int64) * mine.size + rng.integers(mine.size)
            aside[ticks // n_left] = True
        hands = mine[~aside].reshape(self.batch_size, n_full).T
        hands = rng.permuted(hands, axis=1)[rng.permutation(n_full)]
        return np.concatenate([hands.ravel(), rng.permutation(mine[aside])])


@dataclass(frozen=True)
class BlockShuffled:
    """Every sample once, in an order that reads a file block by block.

    The file's blocks of `block_size` successive rows are permuted, and the rows are shuffled
    within windows of `BLOCKS_PER_WINDOW` successive blocks of that permutation, the two levels of
    shuffling of CorgiPile (Xu et al. 2022). Data of one window or less, and blocks of one row, are
    fully shuffled.
    """

    n: int
    block_size: int
    shard: Shard

    def order(self, rng: np.random.Generator) -> Order:
        """Return every sample once."""
        starts, ends = self._layout(rng)
        order = (starts[:, np.newaxis] + np.arange(self.block_size, dtype=np.int64)).ravel()
        order = order[order < self.n]  # the file's last block may be short
        if self.block_size > 1:
            low = 0
            for high in ends:
                rng.shuffle(order[low:high])
                low = high
        return order[self.shard.contiguous(self.n)]

    def windows(self, rng: np.random.Generator) -> Iterator[tuple[int, Order]]:
        """Yield, for each window of this rank, its end in `order` and its blocks' first rows.

        Give it a generator in the state that `order` had it in.
        """
        starts, ends = self._layout(rng)
        part = self.shard.contiguous(self.n)
        low = 0
        for number, high in enumerate(ends):
            if low < part.stop and high > part.start:
                first = number * BLOCKS_PER_WINDOW
                yield high - part.start, np.sort(starts[first : first + BLOCKS_PER_WINDOW])
            low = high

    def _layout(self, rng: np.random.Generator) -> tuple[Order, list[int]]:
        """Return the blocks' first rows in the order of their visit, and the windows' ends."""
        starts = permutation(-(-self.n // self.block_size), rng) * self.block_size
        sizes = np.minimum(self.block_size, self.n - starts)
        ends: list[int] = np.cumsum(sizes)[BLOCKS_PER_WINDOW - 1 :: BLOCKS_PER_WINDOW].tolist()
        if not ends or ends[-1] < self.n:
            ends.append(self.n)
        return starts, ends
