"""Ranks on one machine: memory that all of them see.

Gradients lie there side by side, and whoever needs their sum adds them while it reads them. Parameters
may lie there too, once for all ranks.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastgd._arrays.layout import Layout
from fastgd._arrays.memory import GRADIENT, LARGE, LINE, PAGE
from fastgd._arrays.tree import Array, check_parameter, flatten, rebuild
from fastgd.distributed._ranks import TIMEOUT, Ranks

APART = 320  # bytes within the page between the gradients of two ranks, see _arrays/memory.py

_shared: weakref.WeakValueDictionary[int, Array] = weakref.WeakValueDictionary()


def is_shared(array: Array) -> bool:
    """Whether it was made by `shared`; an array without elements lies anywhere."""
    return array.size == 0 or _shared.get(array.ctypes.data) is array


def shared(params: Any, comm: Any, *, timeout: float = TIMEOUT) -> Any:
    """Copies of parameters in memory that all ranks of a machine share: one copy on each machine.

    `Sharded` has nothing to send between ranks whose parameters lie there, and they take a rank's part of
    the memory. All ranks call it. What one writes the others see: between steps all of them only read.

    Args:
        params: an array, or any nesting of lists, tuples and dicts of arrays; shapes and dtypes are the
            same on all ranks, the values are taken from rank 0.
        comm: an mpi4py communicator.
        timeout: seconds that a rank waits for another.

    Returns:
        The same structure of new arrays.

    Raises:
        TypeError, ValueError: a leaf is no array that can be trained.
        RankError: shapes or dtypes differ between ranks.

    Example:
        >>> from mpi4py import MPI
        >>> import numpy as np, fastgd
        >>> params = fastgd.distributed.shared({"W": np.ones((3, 2))}, MPI.COMM_WORLD)
        >>> opt = fastgd.distributed.Sharded(fastgd.Adam, params, lr=0.1, comm=MPI.COMM_WORLD)
        >>> opt.step({"W": np.ones((3, 2))})
        True
    """
    ranks = Ranks(comm, timeout)
    named = flatten(params)[0]

    def check() -> None:
        for name, array in named:
            check_parameter(name, array)

    ranks.call("shared", check)
    ranks.same("the parameters", [describe(name, array) for name, array in named])
    arrays = [np.asarray(array) for _, array in named]
    made = window(ranks, arrays, [0] * len(arrays), by_all=False)[0][0]
    leaders = ranks.comm.Split(0 if ranks.machine.rank == 0 else ranks.mpi.UNDEFINED, ranks.rank)
    if ranks.machine.rank == 0:
        if ranks.rank == 0:
            for target, source in zip(made, arrays, strict=True):
                np.copyto(target, source)
        ranks.broadcast(made, comm=leaders)
    ranks.together(None, "shared")
    _shared.update({array.ctypes.data: array for array in made})
    copies = iter(made)
    return rebuild(params, lambda array: next(copies))


def describe(name: str, array: Array) -> tuple[Any, ...]:
    """What must be the same of a parameter on all ranks."""
    plain = np.asarray(array)
    return name, plain.shape, plain.dtype.str, "C" if plain.flags.c_contiguous else "F"


def window(
    ranks: Ranks, arrays: Sequence[Array], places: Sequence[int], *, by_all: bool
) -> tuple[list[list[Array]], Any]:
    """Arrays of these shapes, dtypes and orders in shared memory: those of each rank of the machine, or of
    its first alone; and what they lie in.

    places: where large ones begin within a page, beside APART for each rank.
    """
    mpi, machine = ranks.mpi, ranks.machine
    count = machine.size if by_all else 1
    ends, begins = 0, []
    for array, place in zip(arrays, places, strict=True):
        begin = -(-ends // LINE) * LINE
        if array.nbytes >= LARGE:
            begin += (place - begin) % PAGE
        begins.append(begin)
        ends = begin + array.nbytes
    # What follows begins at a page, and may be moved within one.
    size = -(-max(ends, 1) // PAGE) * PAGE + PAGE
    own = size if by_all or machine.rank == 0 else 0
    memory = mpi.Win.Allocate_shared(own, 1, comm=machine)
    result = []
    for rank in range(count):
        raw = np.frombuffer(memory.Shared_query(rank)[0], np.uint8)
        raw = raw[(-raw.ctypes.data + rank * APART) % PAGE :]
        result.append(
            [
                Layout.of(a).shaped(raw[b : b + a.nbytes].view(a.dtype))
                for b, a in zip(begins, arrays, strict=True)
            ]
        )
    return result, memory


class Windows:
    """Gradients of all ranks of one machine.

    Attributes:
        own: arrays of this rank, which gradients are written into, or copied.
    """

    def __init__(self, ranks: Ranks, params: Sequence[Array]) -> None:
        places = np.array([p.ctypes.data // LINE * LINE + GRADIENT for p in params]) % PAGE
        places = ranks.gather(places, "constructor")[0]  # they see each other's at the same ones
        self._all, self._memory = window(ranks, params, places, by_all=True)
        self.own = self._all[ranks.machine.rank]

    def put(self, i: int, array: Array) -> None:
        """Hand over this rank's gradient of parameter i."""
        if array is not self.own[i]:
            with np.errstate(over="ignore"):
                np.copyto(self.own[i], array, casting="unsafe")

    def finish(self) -> None:
        """Nothing is under way."""

    def release(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Give the memory back, all ranks together."""
        self._all, self.own = [], []
        self._memory.Free()

    def parts(self, i: int, given: Sequence[int]) -> list[Array]:
        """The gradients of parameter i of these ranks."""
        return [self._all[rank][i] for rank in given]
