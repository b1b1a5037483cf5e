r"""A step of several ranks against one rank's, and what the cost model says of more of them.

    mpiexec -n 2 python -m bench.distributed [--elements 16777216]
    mpiexec -n 2 python -m bench.distributed --model

Each contestant takes its turn in every round, all ranks together; the figures are medians over the rounds,
as multiples of one rank's plain step while the others wait.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI

import fastgd
from bench.distributed import model
from fastgd.distributed import DataParallel, Sharded, shared

COMM = MPI.COMM_WORLD
RANK, RANKS = COMM.rank, COMM.size


def medians(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds from the moment that all begin to the moment that all have ended."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 2):  # two to warm up
        for name, step in steps.items():
            COMM.Barrier()
            begin = time.perf_counter()
            step()
            COMM.Barrier()
            if number >= 2:
                taken[name].append(time.perf_counter() - begin)
    return {name: float(np.median(times)) for name, times in taken.items()}


def contestants(elements: int) -> dict[str, Callable[[], object]]:
    """AdamW over one array, which every rank has a gradient of."""
    start = np.random.default_rng(RANK).standard_normal(elements, np.float32)
    part = elements // RANKS
    mine = slice(RANK * part, (RANK + 1) * part)

    def placed(values: Any = 0) -> Any:
        array = fastgd.zeros(elements)
        array[...] = values
        return array

    grad = placed(start)
    plain, after_all = fastgd.AdamW(placed()), fastgd.AdamW(placed())
    total, shard, gathered = np.empty_like(grad), np.empty(part, np.float32), placed()
    by_hand = fastgd.AdamW(gathered[mine])

    def sharded(params: Any, **options: Any) -> Any:
        return Sharded(fastgd.AdamW, params, comm=COMM, **options)

    in_one = sharded(shared(start, COMM))
    copied = sharded(shared(start, COMM))
    sent = sharded(placed(), shared_memory=False)
    narrow = sharded(placed(), shared_memory=False, grad_dtype="bfloat16")
    parallel = DataParallel(fastgd.AdamW(placed()), COMM)
    parallel_sent = DataParallel(fastgd.AdamW(placed()), COMM, shared_memory=False)
    for opt in (in_one, parallel):
        opt.gradients[...] = grad

    def allreduce() -> None:
        COMM.Allreduce(grad, total, MPI.SUM)
        after_all.step(total, 1 / RANKS)

    def zero() -> None:
        COMM.Reduce_scatter_block(grad, shard, MPI.SUM)
        by_hand.step(shard, 1 / RANKS)
        COMM.Allgather(MPI.IN_PLACE, gathered)

    steps: dict[str, Callable[[], object]] = {
        "one rank alone": lambda: plain.step(grad) if RANK == 0 else None,
        "every rank by itself": lambda: plain.step(grad),
        "Sharded, shared memory": lambda: in_one.step(in_one.gradients),
        "Sharded, shared memory, gradients copied": lambda: copied.step(grad),
        "Sharded, messages": lambda: sent.step(grad),
        "Sharded, messages, gradients in bfloat16": lambda: narrow.step(grad),
        "DataParallel, shared memory": lambda: parallel.step(parallel.gradients),
        "DataParallel, messages": lambda: parallel_sent.step(grad),
        "Allreduce and step": allreduce,
    }
    if elements % RANKS == 0:
        steps["ZeRO-1 by MPI's collectives"] = zero
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--elements", type=int, default=1 << 24)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--model", action="store_true", help="measure this machine, and extrapolate"
    )
    options = parser.parse_args()
    fastgd.set_num_threads(1)
    if options.model:
        model.report(COMM)
        return
    times = medians(contestants(options.elements), options.rounds)
    if RANK == 0:
        print(f"{MPI.Get_library_version().splitlines()[0]}: {RANKS} ranks of one thread each,")
        print(f"AdamW over {options.elements:,} float32 parameters\n")
        one = times["one rank alone"]
        for name, seconds in times.items():
            print(f"{name:42}{seconds * 1e3:9.2f} ms{seconds / one:7.2f}")


main()
