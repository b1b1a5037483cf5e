"""Which batches the steps of `minimize` see, and how far they have come."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sized
from copy import deepcopy
from typing import Any

from fastgd._arguments import integer
from fastgd.sampling import MiniBatches
from fastgd.training._objective import Arguments


class Exhausted(Exception):
    """An iterator that cannot start again has no more batches."""


class Feed:
    """The batches of one step after another, in epochs.

    Attributes:
        accumulate: batches per step; the last step of an epoch has what is left.
        exact: whether every step sees all the data, so that the loss is a function of the parameters.
        used: batches of this epoch (of all, if exact) that went into steps; who takes them counts.
    """

    def __init__(self, source: Iterable[Any] | None, accumulate: int) -> None:
        self._source = source
        self.accumulate = accumulate
        self.exact = source is None or (isinstance(source, MiniBatches) and source._whole)
        self.used = 0
        self._origin: dict[str, Any] | None = None  # state of a MiniBatches where `used` was 0
        if self.exact and accumulate > 1:
            raise ValueError(
                f"accumulate={accumulate} needs mini-batches: pass data and a batch_size, or leave "
                "it out, since each step sees all the data anyway"
            )
        self._only: Arguments = ()
        self._first_epoch = 0
        if isinstance(source, MiniBatches):
            state = source.state_dict()
            if state["position"] == len(source):  # nothing is left of this epoch
                source.set_epoch(state["epoch"] + 1)
            if self.exact:
                self._first_epoch = source.epoch
                self._only = as_arguments(next(iter(source)))
                source.set_epoch(self._first_epoch)

    @property
    def steps_per_epoch(self) -> int | None:
        """None if not known."""
        if self._source is None:
            return 1
        if not isinstance(self._source, Sized):
            return None
        return -(-len(self._source) // self.accumulate)

    @property
    def batch_size(self) -> int | None:
        """Samples per step; None for all of them, or if not known."""
        if not isinstance(self._source, MiniBatches) or self.exact:
            return None
        options = self._source._options
        return min(options.samples, options.batch_samples * self.accumulate)

    @property
    def samples(self) -> int | None:
        """Samples per epoch, None if not known."""
        return self._source._options.samples if isinstance(self._source, MiniBatches) else None

    @property
    def at_end(self) -> bool:
        """Whether the last step was the last of an epoch, as far as can be known."""
        if self.exact or not isinstance(self._source, Sized):
            return self.exact
        begun = 0 if self._origin is None else self._origin["position"]
        return bool(begun + self.used >= len(self._source))

    def epoch(self) -> Generator[list[Arguments], None, None]:
        """The batches of each step of an epoch.

        Raises:
            Exhausted: there are none, and will be none.
        """
        if self.exact:
            yield [self._only]
            return
        source: Any = self._source
        self.used = 0
        if isinstance(source, MiniBatches):
            self._origin = source.state_dict()  # before it begins, or an interrupt could lose it
        iterator = iter(source)
        try:
            count = yield from self._grouped(iterator)
        finally:
            if iterator is not source and hasattr(iterator, "close"):
                iterator.close()  # or its thread would go on
        self._origin = None
        if count == 0:
            raise Exhausted

    def _grouped(self, iterator: Iterator[Any]) -> Generator[list[Arguments], None, int]:
        """The batches in groups; returns how many there were."""
        count = 0
        group: list[Arguments] = []
        overwritten = isinstance(self._source, MiniBatches) and self._source._reuse
        for batch in iterator:
            count += 1
            arguments = as_arguments(batch)
            group.append(deepcopy(arguments) if overwritten and self.accumulate > 1 else arguments)
            if len(group) == self.accumulate:
                yield group
                group = []
        if group:
            yield group
        return count

    def settle(self) -> None:
        """Leave a MiniBatches where the batch after the last used one comes next."""
        source, origin = self._source, self._origin
        if isinstance(source, MiniBatches) and self.exact:
            source.set_epoch(self._first_epoch + self.used)
        if origin is None or not isinstance(source, MiniBatches):
            return
        position = origin["position"] + self.used
        if position < len(source):
            source.load_state_dict({**origin, "position": position})
        else:
            source.set_epoch(origin["epoch"] + 1)
        self._origin = None


def as_arguments(batch: Any) -> Arguments:
    """What value_and_grad takes of a batch: its members if it is a tuple or list, else itself."""
    return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)


def batches_of(
    data: Any,
    batch_size: int | None,
    seed: int,
    name: str = "data",
    shard: tuple[int, int] | None = None,
) -> Iterable[Any] | None:
    """The batches that minimize's `data`, or what else is called `name`, means; of arrays those of a shard.

    Raises:
        TypeError, ValueError: it is none of the possible things, or batch_size does not apply.
    """
    if isinstance(data, tuple):
        return MiniBatches(*data, batch_size=batch_size, seed=seed, shard=shard)
    if isinstance(data, Mapping) or hasattr(data, "__array__") or hasattr(data, "indptr"):
        return MiniBatches(data, batch_size=batch_size, seed=seed, shard=shard)
    if isinstance(data, list) and not all(isinstance(batch, (tuple, dict)) for batch in data):
        raise TypeError(
            f"{name} is a list, but not one of batches (tuples or dicts): pass the arrays as a tuple, "
            f"{name}=(X, y)"
        )
    if batch_size is not None:
        what = "data" if data is None else "arrays as data: these batches have their size already"
        raise ValueError(f"batch_size={batch_size!r} needs {what}")
    if data is None:
        return None
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        also = "a function of the parameters, " if name == "validation" else ""
        raise TypeError(
            f"{name} must be {also}a tuple of arrays, an array, a dict of arrays, a MiniBatches or "
            f"another iterable of batches, got {type(data).__name__}: {data!r}{_split_hint(name, data)}"
        )
    if isinstance(data, list) and not data:
        raise ValueError(f"{name} is empty: it has no batch")
    return data


def _split_hint(name: str, value: Any) -> str:
    if name == "validation" and isinstance(value, float):
        return "; a part of the data is not set aside here: split them, and pass validation=(X, y)"
    return ""


def check_epochs(epochs: Any, source: Iterable[Any] | None) -> int | None:
    """epochs as an int, or None."""
    if epochs is None:
        return None
    number = integer("epochs", epochs, 1)
    if source is None:
        raise ValueError(f"epochs={number} needs data; without any, say how many steps to take")
    if number > 1 and hasattr(source, "__next__"):
        raise ValueError(
            f"epochs={number}, but data is an iterator, which ends for good; pass what it was made "
            "from, or count in steps"
        )
    return number
