"""Train for some steps, from a checkpoint if there is one, and write another.

Twelve workers have a batch of each step, and each rank is as many of them as there are: so any number of
ranks takes the same steps.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np

import fastgd
from fastgd import distributed
from tests.distributed.common import COMM, RANK, RANKS, TIMEOUT, assert_equal_everywhere, normal

WORKERS = 12


def start() -> dict[str, Any]:
    return {
        "W": normal(1, 300, 64),
        "F": np.asfortranarray(normal(2, 40, 30)),
        "b": normal(3, 70, dtype=np.float64),
        "s": normal(4),
    }


def gradients(worker: int, step: int) -> dict[str, Any]:
    params = start()
    return {
        name: normal(1000 * step + 10 * worker + i, *array.shape, dtype=array.dtype)
        for i, (name, array) in enumerate(params.items())
    }


def mean(workers: range, step: int) -> dict[str, Any]:
    each = [gradients(worker, step) for worker in workers]
    return {name: sum(g[name].astype(float) for g in each) / len(each) for name in each[0]}


def train(path: Path, kind: str, way: str, steps: int, state_dtype: str | None) -> None:
    schedule = fastgd.schedules.cosine(0.05, total_steps=40)
    params = {name: p for name, p in start().items() if state_dtype is None or name != "b"}
    if state_dtype == "8bit":
        del params["F"]
    options: dict[str, Any] = {"lr": schedule, "state_dtype": state_dtype}
    if way == "parallel":
        make = fastgd.optimizers.find(kind)
        opt: Any = distributed.DataParallel(make(params, **options), COMM, timeout=TIMEOUT)
    else:
        if way == "shared":
            params = distributed.shared(params, COMM)
        opt = distributed.Sharded(kind, params, comm=COMM, timeout=TIMEOUT, **options)
    data = np.arange(240.0)
    batches = fastgd.MiniBatches(data, batch_size=WORKERS // RANKS, seed=5, shard=(RANK, RANKS))
    rng = np.random.default_rng(7)
    if path.exists():
        found = distributed.load(path, opt, batches=batches, rng=rng)
        assert found.metadata["steps"] == opt.step_count
    seen = []
    iterator = iter(batches)
    for _ in range(steps):
        share = WORKERS // RANKS
        workers = range(RANK * share, (RANK + 1) * share)
        grads = mean(workers, opt.step_count)
        opt.step({name: grads[name].astype(p.dtype) for name, p in params.items()})
        (batch,) = next(iterator)
        seen += sorted(np.concatenate(COMM.allgather(batch)).tolist())
        rng.random(3)
    assert_equal_everywhere(opt)
    metadata = {"steps": opt.step_count, "seen": seen, "draw": float(copy.deepcopy(rng).random())}
    distributed.save(path, opt, batches=batches, rng=rng, metadata=metadata)
    whole = opt.state_dict()
    if RANK == 0:
        assert whole["step_count"] == opt.step_count
        assert set(whole["state"]) == set(params)


if __name__ == "__main__":
    where, kind, way, steps, *rest = sys.argv[1:]
    train(Path(where), kind, way, int(steps), rest[0] if rest else None)
