"""Every case of every optimizer takes the steps of one process that is given the sum of the gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cases import CASES
from tests.distributed.common import (
    RANK,
    RANKS,
    added,
    assert_equal_everywhere,
    distance,
    normal,
    ways,
)
from tests.support import optimizer


def tree(seed: int, dtype: Any, matrices: bool) -> dict[str, Any]:
    arrays = {"W": normal(seed, 13, 7, dtype=dtype), "big": normal(seed + 1, 190, 50, dtype=dtype)}
    if not matrices:
        arrays["b"] = normal(seed + 2, 5, dtype=dtype)
        arrays["scale"] = normal(seed + 3, dtype=dtype)
        arrays["empty"] = np.zeros((0, 3), dtype)
    return arrays


def main() -> None:
    count = 0
    for number, case in enumerate(CASES):
        if number % max(1, RANKS - 1):  # all on two ranks, on more some of them
            continue
        matrices = case.optimizer == "muon"
        for dtype in (np.float32, np.float64):
            if (number + (dtype is np.float64)) % 2:  # each with one of the two
                continue
            in_one = number % 8 == 0  # an MPI has not memory windows for all
            start = tree(0, dtype, matrices)
            for way, opt in ways(case.optimizer, start, in_one=in_one, **case.kwargs):
                reference = optimizer(case.optimizer, tree(0, dtype, matrices), **case.kwargs)
                for step in range(3):
                    grads = [
                        tree(100 + 10 * (RANKS * step + r), dtype, matrices) for r in range(RANKS)
                    ]
                    losses = [1.0 + r + step for r in range(RANKS)]
                    assert opt.step(grads[RANK], loss=losses[RANK])
                    reference.step(added(grads), 1 / RANKS, loss=sum(losses) / RANKS)
                off = distance(opt, reference)
                # Sums over an array are taken in parts, one for each rank.
                sums = case.whole or case.clips_norm
                bound = (2e-6 if dtype is np.float32 else 1e-13) if sums else 0.0
                assert off <= bound, f"{case} {dtype.__name__} {way}: {off}"
                assert_equal_everywhere(opt)
                count += 1
    if RANK == 0:
        print(f"{count} runs agree")


main()
