"""`MiniBatches`: the epoch, the position in it, and the batches from there on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastgd._arguments import flag, integer, refuse_late
from fastgd.sampling._batches import Batch, Buffers, ReadAhead, gathered, singles, sliced
from fastgd.sampling._options import (
    Options,
    check_data,
    check_labels,
    check_shard,
    check_weights,
    checksum,
    make_sampler,
)
from fastgd.sampling._prefetch import prefetched
from fastgd.sampling._samplers import BlockShuffled, Order, Sequential

_ALL = "; None makes one batch of all samples"


@dataclass
class _Cursor:
    """Where an iteration stands: the batches of `epoch` before `position` have been handed out."""

    seed: int
    epoch: int
    position: int = 0
    running: bool = False

    def rng(self) -> np.random.Generator:
        """Return the generator of the epoch, in its first state."""
        # Not from [seed, epoch]: those words are joined, and seed + 2**32 began with epoch 1 of seed.
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(self.epoch,)))


class MiniBatches:
    r"""Iterate over the samples of arrays in batches, one epoch per `for` loop.

    With n samples, loss L(θ) = (1/n) Σᵢ Lᵢ(θ) and a batch B of k of them, a gradient step uses

        ∇L(θ) ≈ (1/k) Σ_{i ∈ B} ∇Lᵢ(θ),

    which is exact for k = n (`batch_size=None`, batch gradient descent), and otherwise has a
    standard error that falls as 1/√k only (Goodfellow et al. 2016, sec. 8.1.3): k = 1 is
    stochastic, k in between mini-batch gradient descent. By default an epoch visits every sample
    exactly once in a new random order, which converged faster than independent draws in Bottou's
    (2009) experiments.

    An epoch's order is `numpy.random.default_rng(sequence).permutation(n)` with `sequence =
    numpy.random.SeedSequence(seed, spawn_key=(epoch,))`. It, and the order of every other mode,
    depends on the number of samples, the options, the seed and the epoch only (and on NumPy's
    version, should NumPy change its generators).

    A batch is a tuple with one array per array given (a 1-tuple for one array), so that
    `value_and_grad(params, *batch)` fits, or a dict if the data came as one:

    - Shuffled batches are new arrays, yours to change; their rows are `X[index]` bit for bit.
    - Where rows need not move, batches are read-only views of the data, free of cost: one-sample
      batches, all batches with `shuffle=False`, and the one batch of `batch_size=None`, which has
      the samples in the data's order, as the order of a sum does not matter.
    - With `prefetch`, only the one batch of `batch_size=None` is a view.
    - Batches of a CSR matrix are always new CSR matrices, except that `batch_size=None` without
      `shard` hands out the matrix itself.

    Args:
        *data: Arrays of equal first dimension n, or one dict of them: ndarrays, np.memmap, anything
            with `__array__`, SciPy CSR matrices and arrays. Not copied.
        batch_size: Samples per batch; None for all of them. The last batch of an epoch has what is
            left.
        shuffle: False visits the samples in the data's order.
        seed: Non-negative integer of any size.
        drop_last: Leave a smaller last batch out. With `shard`, also give every rank equally many
            samples by leaving up to count - 1 of them out; other ones each epoch, if shuffled.
        replacement: Make an epoch n independent uniform draws.
        weights: Shape (n,), none negative: make an epoch n independent draws, sample i with
            probability weights[i] / Σ weights. Implies `replacement`. Vose's (1991) alias method:
            O(1) per draw, any n.
        stratify: Class labels, shape (n,). With a share p of the samples in a class, each batch of
            k contains ⌊k p⌋ or ⌈k p⌉ of that class. Every sample still comes once per epoch.
        shard: (rank, count), for `count` processes with the same data and options: together they
            visit every sample once per epoch, and their numbers of samples differ by one at most
            (so their numbers of batches may: see `drop_last`). The b-th batches of all ranks
            together are the b-th batch of size count * batch_size of a run without shards, unless
            `stratify`, which holds for each rank, or `block_size` is given.
        block_size: Shuffle in blocks of this many rows so that a file is read sequentially: blocks
            of successive rows are permuted, and the rows of each 64 successive blocks shuffled
            among each other (Xu et al. 2022). Chosen by itself, as 1 MiB of rows, when the data
            contain an np.memmap and no other mode is asked for; 1 is a full shuffle.
        prefetch: How many batches a background thread makes in advance; 0 for no thread. The thread
            ends with the loop, also when it breaks or raises.
        reuse: Gather into the same buffers again and again: a batch is valid only until the next
            one is taken. Saves the page faults of large new arrays.

    Raises:
        TypeError, ValueError: an array or option is wrong, or two options exclude each other.

    Example:
        >>> import numpy as np
        >>> import fastgd
        >>> X, y = np.arange(10.0).reshape(5, 2), np.arange(5)
        >>> batches = fastgd.MiniBatches(X, y, batch_size=2, seed=0)
        >>> len(batches), batches.order(epoch=0)
        (3, array([0, 3, 2, 1, 4]))
        >>> for xb, yb in batches:
        ...     print(xb[:, 0], yb)
        [0. 6.] [0 3]
        [4. 2.] [2 1]
        [8.] [4]
        >>> batches.epoch
        1

    References:
        Bottou (2009), Curiously fast convergence of some stochastic gradient descent algorithms.
        Goodfellow, Bengio and Courville (2016), Deep Learning, sec. 8.1.3.
        Hübschle-Schneider and Sanders (2022), Parallel weighted random sampling, ACM TOMS 48(3).
        Vose (1991), A linear algorithm for generating random numbers with a given distribution,
        IEEE Transactions on Software Engineering 17(9).
        Walker (1977), An efficient method for generating discrete random variables with general
        distributions, ACM TOMS 3(3).
        Xu et al. (2022), In-database machine learning with CorgiPile: stochastic gradient descent
        without full data shuffle, SIGMOD.
    """

    def __init__(
        self,
        *data: Any,
        batch_size: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        replacement: bool = False,
        weights: Any = None,
        stratify: Any = None,
        shard: tuple[int, int] | None = None,
        block_size: int | None = None,
        prefetch: int = 0,
        reuse: bool = False,
    ) -> None:
        self._keys, self._rows = check_data(data)
        n = self._rows[0].n
        checked_weights = None if weights is None else check_weights(weights, n)
        codes = None if stratify is None else check_labels(stratify, n)
        self._options = Options(
            n_samples=n,
            batch_size=None if batch_size is None else integer("batch_size", batch_size, 1, _ALL),
            shuffle=flag("shuffle", shuffle),
            drop_last=flag("drop_last", drop_last),
            replacement=flag("replacement", replacement) or weights is not None,
            weights=checksum(checked_weights),
            stratify=checksum(codes),
            shard=check_shard(shard, n),
            block_size=None if block_size is None else integer("block_size", block_size, 1),
        ).completed(self._rows)
        self._prefetch = integer("prefetch", prefetch, 0)
        self._reuse = flag("reuse", reuse)
        self._sampler = make_sampler(self._options, checked_weights, codes)
        # Whether the only batch is the data as they are.
        one_batch = self._options.batch_samples >= self._options.samples
        self._whole = one_batch and isinstance(self._sampler, Sequential)
        self._cursor = _Cursor(integer("seed", seed, 0), epoch=0)

    def __setattr__(self, name: str, value: Any) -> None:
        refuse_late(self, name, value)
        super().__setattr__(name, value)

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return self._options.batches

    def __repr__(self) -> str:
        """Return what it is and where it stands."""
        return (
            f"<MiniBatches: {self._options.samples} samples in {len(self)} batches of "
            f"{self._options.batch_samples}, epoch {self.epoch}>"
        )

    @property
    def epoch(self) -> int:
        """The epoch of the latest batch; once its loop has finished, the next one."""
        return self._cursor.epoch

    def __iter__(self) -> Iterator[Any]:
        """Start the next epoch: epoch 0, then 1, …, or what was set or loaded.

        An epoch whose loop was left early counts as over: the next `iter` starts another, so that
        loops which always end early see all of the data in time. (To go on with the same epoch
        instead, load the state that `state_dict` gives.) An older iterator still works, but
        `state_dict` and `epoch` tell of the youngest.
        """
        last = self._cursor
        if last.running:
            self._cursor = _Cursor(last.seed, last.epoch + 1, running=True)
        else:
            self._cursor = replace(last, running=True)
        return self._run(self._cursor)

    def set_epoch(self, epoch: int) -> None:
        """Make the next `iter` start this epoch, from its first batch."""
        self._cursor = _Cursor(self._cursor.seed, integer("epoch", epoch, 0))

    def order(self, epoch: int | None = None) -> Order:
        """Return which samples an epoch visits, in order.

        Args:
            epoch: Its number; None for the property `epoch`.

        Returns:
            int64 array of the indices that the epoch's batches consist of, shard and drop_last
            considered.
        """
        cursor = self._cursor
        if epoch is not None:
            cursor = _Cursor(cursor.seed, integer("epoch", epoch, 0))
        return self._order(cursor.rng())

    def state_dict(self) -> dict[str, Any]:
        """Return the state: ints, bools, None, and dicts and lists of them, as JSON takes them.

        It counts the batches that have been handed out, the one in use included, whatever has been
        prefetched: saved in a loop's body after the step, it resumes with the batch after.
        """
        return {
            "seed": self._cursor.seed,
            "epoch": self._cursor.epoch,
            "position": self._cursor.position,
            "options": self._options.as_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Make the next `iter` yield exactly the batches that remained when the state was saved.

        If that was after the last batch of an epoch but before its loop had ended, it is none. The
        seed becomes the saved one. The data must be the same, of which only the number is checked.

        Raises:
            TypeError: it is not a mapping, or a number in it is no integer.
            ValueError: it is not from a MiniBatches with the same options. Nothing has changed.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a dict, not {type(state_dict).__name__}")
        missing = [key for key in self.state_dict() if key not in state_dict]
        if missing:
            raise ValueError(f"this is no state_dict of a MiniBatches: it lacks {missing}")
        if not isinstance(state_dict["options"], Mapping):
            raise TypeError("state_dict['options'] must be a dict")
        difference = self._options.difference(state_dict["options"])
        if difference is not None:
            raise ValueError(
                f"the state_dict does not fit: {difference}. Make the MiniBatches as it was made "
                "when the state was saved"
            )
        seed, epoch, position = (
            integer(f"state_dict[{key!r}]", state_dict[key], 0)
            for key in ("seed", "epoch", "position")
        )
        if position > len(self):
            raise ValueError(
                f"state_dict['position'] is {position}, but an epoch has {len(self)} batches"
            )
        self._cursor = _Cursor(seed, epoch, position)

    def _order(self, rng: np.random.Generator) -> Order:
        return self._sampler.order(rng)[: len(self) * self._options.batch_samples]

    def _run(self, cursor: _Cursor) -> Iterator[Any]:
        """Hand out the batches from the cursor on, moving it along."""
        keys = self._keys
        batches = self._batches(replace(cursor))
        if self._prefetch and not self._whole:
            batches = prefetched(batches, self._prefetch)
        for batch in batches:
            cursor.position += 1
            yield batch if keys is None else dict(zip(keys, batch, strict=True))
            del batch  # or it would live on while the next one is made
        cursor.epoch, cursor.position, cursor.running = cursor.epoch + 1, 0, False

    def _batches(self, origin: _Cursor) -> Iterator[Batch]:
        """Make the batches of an epoch from an origin on, in whichever thread runs this."""
        size, samples = self._options.batch_samples, self._options.samples
        start, stop = origin.position * size, min(len(self) * size, samples)
        ordered = isinstance(self._sampler, Sequential)
        if start >= stop:
            return
        if self._whole or (ordered and not self._prefetch):
            part = self._options.part.strided(self._options.n_samples)
            views = [source.views(part) for source in self._rows]
            yield from [tuple(views)] if self._whole else sliced(views, size, start, stop)
            return
        order, ahead = self._order(origin.rng()), self._read_ahead(origin.rng(), start)
        if size == 1 and not self._prefetch:
            views = [source.views(slice(0, source.n, 1)) for source in self._rows]
            yield from singles(views, order, start, ahead)
        else:
            yield from gathered(
                self._rows, order, size, start, self._ring(), ahead, self._prefetch > 0
            )

    def _ring(self) -> list[Buffers]:
        """Return sets of buffers: one for the batch in use, one for each that may be in advance."""
        if not self._reuse:
            return [[None] * len(self._rows)]
        size = min(self._options.batch_samples, self._options.samples)
        return [[source.buffer(size) for source in self._rows] for _ in range(1 + self._prefetch)]

    def _read_ahead(self, rng: np.random.Generator, start: int) -> ReadAhead | None:
        if not isinstance(self._sampler, BlockShuffled):
            return None
        if not any(source.mapped_row_bytes for source in self._rows):
            return None
        return ReadAhead(self._rows, self._sampler.windows(rng), self._sampler.block_size, start)
