"""Checkpoints of several ranks: one file, as a single process writes it, that any number of ranks loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastgd import checkpoint
from fastgd.checkpoint import Checkpoint, FilePath
from fastgd.distributed._step import Distributed
from fastgd.sampling import MiniBatches


def save(
    path: FilePath,
    optimizer: Distributed,
    *,
    metadata: Mapping[str, Any] | None = None,
    **objects: Any,
) -> None:
    """Write a checkpoint of all ranks: `fastgd.save`, by all ranks together.

    Rank 0 writes the file, for which it holds the state of all for a while. The file is complete or not
    there, whichever process ends when; it does not say how many ranks there were, and `fastgd.load` reads
    it in one process. State in 8 bits is saved decoded.

    Args:
        path: the file, where rank 0 can write.
        optimizer: `DataParallel` or `Sharded`.
        metadata: rank 0's counts; see `fastgd.save`.
        **objects: see `fastgd.save`; rank 0's are saved. A `MiniBatches` with a `shard` is saved as the
            one that goes through the data in one process, with the batches of all ranks together.

    Raises: as `fastgd.save`, on all ranks.
    """
    whole = optimizer._whole()
    things = {name: _portable(thing) for name, thing in objects.items()}

    def write() -> None:
        if whole is not None and optimizer.rank == 0:
            checkpoint.save(path, whole, metadata=metadata, **things)

    optimizer._ranks.call("save", write)


def load(
    path: FilePath,
    optimizer: Distributed,
    *,
    strict: bool = True,
    keep_hyperparameters: bool = False,
    **objects: Any,
) -> Checkpoint:
    """Continue from a file that `save` here, or `fastgd.save`, wrote, with any number of ranks.

    Args:
        path: the file, where rank 0 can read.
        optimizer, strict, keep_hyperparameters, **objects: see `fastgd.load`; on every rank.

    Returns:
        The `Checkpoint`, on every rank.

    Raises: as `fastgd.load`, on all ranks.
    """
    things = {name: _portable(thing) for name, thing in objects.items()}

    def read() -> tuple[Any, Checkpoint | None]:
        if optimizer.rank != 0:
            return None, None
        whole = optimizer._empty_whole()
        found = checkpoint.load(
            path, whole, strict=strict, keep_hyperparameters=keep_hyperparameters, **things
        )
        return whole, found

    ranks = optimizer._ranks
    whole, found = ranks.call("load", read)
    optimizer._take(whole)
    states = {name: _state(thing) for name, thing in things.items()} if optimizer.rank == 0 else {}
    found, states = ranks.gather_objects((found, states), "load")[0]

    def take() -> None:
        for name, state in states.items():
            _give(things[name], state)

    ranks.call("load", take)
    assert isinstance(found, Checkpoint)
    return found


class _AllBatches:
    """The state of the MiniBatches of all ranks: of one, without ranks."""

    def __init__(self, batches: MiniBatches) -> None:
        self._batches = batches

    def state_dict(self) -> dict[str, Any]:
        state = self._batches.state_dict()
        options = dict(state["options"])
        _, count = options["shard"]
        if options["batch_size"] is not None:
            options["batch_size"] *= count
        return {**state, "options": {**options, "shard": [0, 1]}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        mine = self._batches.state_dict()["options"]
        if state["options"] != self.state_dict()["options"]:
            raise ValueError(
                f"the state is of MiniBatches with {state['options']}, that of all ranks here together has "
                f"{self.state_dict()['options']}"
            )
        self._batches.load_state_dict({**state, "options": mine})


def _portable(thing: Any) -> Any:
    return _AllBatches(thing) if isinstance(thing, MiniBatches) else thing


def _state(thing: Any) -> Any:
    if isinstance(thing, np.random.Generator):
        return thing.bit_generator.state
    return thing.get_state() if isinstance(thing, np.random.RandomState) else thing.state_dict()


def _give(thing: Any, state: Any) -> None:
    if isinstance(thing, np.random.Generator):
        thing.bit_generator.state = state
    elif isinstance(thing, np.random.RandomState):
        thing.set_state(state)
    else:
        thing.load_state_dict(state)
