"""The options of `MiniBatches`: checked, completed and turned into a sampler."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgd._arguments import integer
from fastgd.sampling._rows import Rows, as_rows
from fastgd.sampling._samplers import (
    BlockShuffled,
    Drawn,
    Sampler,
    Sequential,
    Shard,
    Shuffled,
    Stratified,
    Weighted,
)

BLOCK_BYTES = 2**20  # a disk seeks about as long as it reads this


@dataclass(frozen=True)
class Options:
    """What an epoch's order and its division into batches depend on, beside the seed."""

    n_samples: int
    batch_size: int | None
    shuffle: bool
    drop_last: bool
    replacement: bool
    weights: int | None  # a checksum, None without weights
    stratify: int | None  # the same
    shard: tuple[int, int]
    block_size: int | None

    @property
    def part(self) -> Shard:
        """This rank's part of the samples."""
        return Shard(*self.shard, even=self.drop_last)

    @property
    def samples(self) -> int:
        """Samples per epoch of this rank."""
        return self.part.size(self.n_samples)

    @property
    def batch_samples(self) -> int:
        """Samples per batch."""
        return self.samples if self.batch_size is None else self.batch_size

    @property
    def batches(self) -> int:
        """Batches per epoch."""
        full, left = divmod(self.samples, self.batch_samples)
        return full + (left > 0 and not self.drop_last)

    def completed(self, rows: tuple[Rows, ...]) -> Options:
        """Refuse options that contradict each other, and choose the block size of mapped files."""
        modes = {
            "shuffle=False": not self.shuffle,
            "weights": self.weights is not None,
            "replacement=True": self.replacement and self.weights is None,
            "stratify": self.stratify is not None,
            "block_size": self.block_size is not None,
        }
        asked = [mode for mode, wanted in modes.items() if wanted]
        if len(asked) > 1:
            raise ValueError(f"{' and '.join(asked)} exclude each other: choose one")
        if self.batches == 0:
            per_shard = " per shard" if self.shard[1] > 1 else ""
            raise ValueError(
                f"drop_last=True leaves no batch: batch_size is {self.batch_samples}, "
                f"and there are {self.samples} samples{per_shard}"
            )
        row_bytes = sum(array.mapped_row_bytes for array in rows)
        if row_bytes and not asked and self.batch_size is not None:
            return replace(self, block_size=max(1, BLOCK_BYTES // row_bytes))
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return them in a form that JSON gives back unchanged."""
        return {**asdict(self), "shard": list(self.shard)}

    def difference(self, saved: Mapping[str, Any]) -> str | None:
        """Say in which option a saved `as_dict()` differs, None if in none."""
        for name, mine in self.as_dict().items():
            if name not in saved:
                return f"it lacks the option {name!r}"
            theirs = list(saved[name]) if isinstance(saved[name], tuple) else saved[name]
            if theirs != mine:
                if name in ("weights", "stratify"):
                    return f"its {name} were not those of this MiniBatches"
                return f"its {name} is {theirs}, that of this MiniBatches is {mine}"
        return None


def make_sampler(
    options: Options, weights: NDArray[np.float64] | None, codes: NDArray[Any] | None
) -> Sampler:
    """Return the sampler that the options ask for."""
    n, part = options.n_samples, options.part
    if weights is not None:
        return Weighted.of(weights, part)
    if options.replacement:
        return Drawn(n, part)
    if codes is not None and (options.batch_size is not None or part.count > 1):
        return Stratified(codes, options.batch_samples, part)
    if options.batch_size is None:  # the order within the only batch does not matter
        return Sequential(n, part)
    if options.block_size is not None:
        return BlockShuffled(n, options.block_size, part)
    return Shuffled(n, part) if options.shuffle else Sequential(n, part)


def check_data(data: tuple[Any, ...]) -> tuple[tuple[Any, ...] | None, tuple[Rows, ...]]:
    """Return the keys, if the data are one dict, and the rows of each array."""
    keys: tuple[Any, ...] | None = None
    if any(isinstance(array, Mapping) for array in data):
        if len(data) > 1:
            raise TypeError("MiniBatches takes either arrays or one dict of arrays, not both")
        keys, data = tuple(data[0]), tuple(data[0].values())
    if not data:
        raise ValueError("MiniBatches needs at least one array")
    names = [f"array {key!r}" for key in (range(len(data)) if keys is None else keys)]
    rows = tuple(as_rows(name, array) for name, array in zip(names, data, strict=True))
    for name, other in zip(names, rows, strict=True):
        if other.n != rows[0].n:
            raise ValueError(
                f"{name} has {other.n} samples, but {names[0]} has {rows[0].n}: "
                "all arrays need the same first dimension"
            )
    return keys, rows


def check_shard(shard: Any, n_samples: int) -> tuple[int, int]:
    """Return (rank, count), which is (0, 1) for None."""
    if shard is None:
        return 0, 1
    if not isinstance(shard, (tuple, list)) or len(shard) != 2:
        raise TypeError(f"shard must be (rank, count) or None, not {shard!r}")
    rank, count = integer("shard's rank", shard[0], 0), integer("shard's count", shard[1], 1)
    if rank >= count:
        raise ValueError(f"shard's rank must be below its count, {count}, not {rank}")
    if count > n_samples:
        raise ValueError(f"{n_samples} samples are too few for {count} shards")
    return rank, count


def check_weights(weights: Any, n_samples: int) -> NDArray[np.float64]:
    """Return the weights in float64."""
    array = np.asarray(weights)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"weights must be real numbers, not of dtype {array.dtype}")
    _check_shape("weights", array, n_samples)
    array = array.astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if wrong.size:
        i = wrong[0]
        raise ValueError(f"weights must be finite and not negative, but weights[{i}] is {array[i]}")
    if not array.any():
        raise ValueError("weights are all zero: there is nothing to draw")
    return array


def check_labels(labels: Any, n_samples: int) -> NDArray[Any]:
    """Return each sample's class as a number from 0, in the smallest dtype."""
    array = np.asarray(labels)
    _check_shape("stratify", array, n_samples)
    try:
        classes, codes = np.unique(array, return_inverse=True)
    except TypeError as error:
        raise TypeError(f"stratify has labels that cannot be compared: {error}") from None
    return codes.astype(np.min_scalar_type(classes.size - 1))


def _check_shape(name: str, array: NDArray[Any], n_samples: int) -> None:
    if array.shape != (n_samples,):
        raise ValueError(
            f"{name} must be of shape ({n_samples},), one for each sample, not {array.shape}"
        )


def checksum(array: NDArray[Any] | None) -> int | None:
    """Return the CRC-32 of the array's bytes, None for None."""
    return None if array is None else zlib.crc32(np.ascontiguousarray(array).data)
