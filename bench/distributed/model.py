"""What a step over several machines takes: latency, bandwidth, bytes (Hockney 1994).

A message of n bytes takes alpha + n beta. With R ranks and P bytes of parameters:

  DataParallel  each rank sends (R - 1) / R P of gradients to the owners of their rows, and as much of
                sums: 2 (R - 1) alpha + 2 (R - 1) / R P beta; it adds up its rows, which moves 3 P
                bytes of memory, then takes a step over all rows, 7 P for AdamW
  Sharded       the same, of gradients and of parameters; a step over 1 / R of the rows, which reads the
                R gradients of them
  both          small messages to all before and after: 2 log2(R) alpha
"""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import numpy as np

import fastgd
from fastgd.distributed import DataParallel, Sharded

STEP_BYTES = 28 / 4  # that AdamW moves for each byte of float32 parameters


class Machine(NamedTuple):
    """alpha: seconds of a message; beta: seconds for a byte of one; gamma: of memory in a step."""

    alpha: float
    beta: float
    gamma: float


def ping(comm: Any, nbytes: int, rounds: int) -> float:
    """Seconds in which each rank gives the next so many bytes."""
    out, into = np.zeros(nbytes, np.uint8), np.zeros(nbytes, np.uint8)
    after, before = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    taken = []
    for _ in range(rounds):
        comm.Barrier()
        begin = time.perf_counter()
        comm.Sendrecv(out, after, 0, into, before, 0)
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken))


def stepping(comm: Any, opt: Any, grad: Any) -> float:
    taken = []
    for _ in range(9):
        comm.Barrier()
        begin = time.perf_counter()
        opt.step(grad)
        comm.Barrier()
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken[2:]))


def measured(comm: Any, elements: int) -> Machine:
    """This machine; all ranks step at once, as they do in training."""
    alpha = ping(comm, 1, 500)
    beta = (ping(comm, 1 << 25, 9) - alpha) / (1 << 25)
    grad = np.zeros(elements, np.float32)
    alone = stepping(comm, fastgd.AdamW(np.zeros(elements, np.float32)), grad)
    return Machine(alpha, beta, alone / (4 * elements * STEP_BYTES))


def predicted(machine: Machine, way: str, ranks: int, nbytes: float) -> float:
    """Seconds of a step."""
    small = 2 * math.log2(ranks) * machine.alpha if ranks > 1 else 0.0
    sent = 2 * (ranks - 1) * (machine.alpha + nbytes / ranks * machine.beta)
    moved = (
        STEP_BYTES + 3 * (ranks > 1) if way == "DataParallel" else (STEP_BYTES + ranks - 1) / ranks
    )
    return small + sent + moved * nbytes * machine.gamma


def report(comm: Any) -> None:
    """Measured beside predicted here, then predictions for a cluster."""
    elements = 1 << 24
    machine = measured(comm, elements)
    grad = np.zeros(elements, np.float32)
    ways: dict[str, Any] = {
        "DataParallel": DataParallel(
            fastgd.AdamW(np.zeros(elements, np.float32)), comm, shared_memory=False
        ),
        "Sharded": Sharded(
            fastgd.AdamW, np.zeros(elements, np.float32), comm=comm, shared_memory=False
        ),
    }
    times = {way: stepping(comm, opt, grad) for way, opt in ways.items()}
    if comm.rank:
        return
    print(
        f"alpha {machine.alpha * 1e6:.1f} us, 1/beta {1e-9 / machine.beta:.1f} GB/s, "
        f"memory {1e-9 / machine.gamma:.0f} GB/s for each of {comm.size} ranks\n"
    )
    print(
        f"messages between {comm.size} ranks here, {elements:,} parameters: measured, predicted (ms)"
    )
    for way, seconds in times.items():
        model = predicted(machine, way, comm.size, 4.0 * elements)
        print(f"  {way:14}{seconds * 1e3:9.1f}{model * 1e3:9.1f}{seconds / model:8.2f}")
    print(
        "\n1e9 parameters, a machine for each rank, 2 us and 12.5 GB/s (100 Gbit/s), memory 100 GB/s (s)"
    )
    cluster = Machine(2e-6, 1 / 12.5e9, 1 / 100e9)
    print(f"  {'ranks':>6}{'DataParallel':>15}{'Sharded':>10}{'state of each rank, GB':>25}")
    for ranks in (1, 2, 4, 16, 64, 256, 1024):
        row = [predicted(cluster, way, ranks, 4e9) for way in ("DataParallel", "Sharded")]
        print(f"  {ranks:6}{row[0]:15.3f}{row[1]:10.3f}{8 / ranks:25.3f}")
