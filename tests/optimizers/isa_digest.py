"""Prints a digest of what every case computes; run in a subprocess under each FASTGD_ISA.

python isa_digest.py digest     every case, both dtypes: one line with a SHA-256
python isa_digest.py reference  every case against the reference, bit for bit
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np

import fastgd
from tests.cases import CASES, Case
from tests.fma import rounded_twice
from tests.reference import Reference
from tests.support import assert_matches, optimizer, tame, wide

SIZES = (1, 5, 16, 63, 1000, 4097, 40_003)


def digest() -> str:
    """Parameters, state and norm after four steps of every case."""
    sha = hashlib.sha256()
    rng = np.random.default_rng(7)
    gradients = {n: [wide(rng, n, np.float64), *(tame(rng, n, t) for t in "efd")] for n in SIZES}
    starts = {n: wide(rng, n, np.float64) for n in SIZES}
    for case in CASES:
        for dtype in (np.float32, np.float64):
            params = [starts[n].astype(dtype) for n in SIZES]
            opt = optimizer(case.optimizer, params, **case.kwargs)
            for step in range(4):
                opt.step([gradients[n][step] for n in SIZES], grad_scale=0.75)
            for i, p in enumerate(params):
                sha.update(p.tobytes())
                for slot in case.slots:
                    sha.update(opt.state[str(i)][slot].tobytes())
            sha.update(repr(opt.grad_norm).encode())
    return sha.hexdigest()


def check_unfused(case: Case, dtype: type[np.floating]) -> None:
    """A build without fma rounds every product and every sum."""
    rng = np.random.default_rng(8)
    start = wide(rng, 1000, dtype)
    p = start.copy()
    opt = optimizer(case.optimizer, p, **case.kwargs)
    ref = Reference(case.optimizer, {"p": start}, multiply_add=rounded_twice, **case.kwargs)
    for _ in range(5):
        g = wide(rng, 1000, dtype)
        opt.step(g)
        ref.step({"p": g}, norm=opt.grad_norm)
    assert_matches(p, ref.params["p"], 5 * case.ulps, f"{case} {dtype}")


def main() -> None:
    print(fastgd._engine.isa)
    if sys.argv[1] == "digest":
        print(digest())
        return
    for case in CASES:
        for dtype in (np.float32, np.float64):
            check_unfused(case, dtype)
    print("equal")


if __name__ == "__main__":
    main()
