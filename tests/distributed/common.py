"""What the programs of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mpi4py import MPI

import fastgd
from fastgd.distributed import DataParallel, Sharded, shared

COMM = MPI.COMM_WORLD
RANK, RANKS = COMM.rank, COMM.size
TIMEOUT = 60.0  # seconds, of a machine that is busy


def ways(
    kind: str, params: Any, *, in_one: bool = True, **kwargs: Any
) -> Iterator[tuple[str, Any]]:
    """An optimizer over copies of `params` in every way that ranks can share the work.

    in_one: also with the parameters in shared memory.
    """
    options = {key: kwargs.pop(key) for key in ("average", "grad_dtype") if key in kwargs}
    options["timeout"] = TIMEOUT
    make = fastgd.optimizers.find(kind)
    for memory in (True, False):
        mine = fastgd.place(params)
        opt: Any = DataParallel(make(mine, **kwargs), COMM, shared_memory=memory, **options)
        yield f"data parallel, {memory}", opt
        opt.close()
        mine = fastgd.place(params)
        opt = Sharded(kind, mine, comm=COMM, shared_memory=memory, **options, **kwargs)
        yield f"sharded, {memory}", opt
        opt.close()
    if in_one:
        opt = Sharded(kind, shared(params, COMM), comm=COMM, **options, **kwargs)
        yield "sharded, parameters shared", opt
        opt.close()


def added(trees: list[Any]) -> Any:
    """The gradients of all ranks as one process is given them."""
    first = next((tree for tree in trees if tree is not None), None)
    if isinstance(first, dict):
        return {key: added([tree[key] for tree in trees]) for key in first}
    if isinstance(first, list):
        return [added([tree[i] for tree in trees]) for i in range(len(first))]
    given = [leaf for leaf in trees if leaf is not None]
    return None if not given else given[0] if len(given) == 1 else fastgd.Sum(given)


def assert_equal_everywhere(opt: Any) -> None:
    for name, array in opt.params.items():
        everybody = COMM.allgather(array.tobytes())
        assert all(other == everybody[0] for other in everybody), f"{name} differs between ranks"


def distance(opt: Any, reference: Any) -> float:
    """The largest difference of a parameter from the reference's, relative to its largest element."""
    return max(
        float(np.abs(a - b).max(initial=0)) / max(float(np.abs(b).max(initial=0)), 1e-30)
        for a, b in zip(opt.params.values(), reference.params.values(), strict=True)
    )


def normal(seed: int, *shape: int, dtype: Any = np.float32, order: Any = "C") -> Any:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), dtype, order)
