r"""More elements than 2^31 in one array: AdamW with 8-bit state and bfloat16 gradients, checked.

    python -m bench.steps.billions [--elements 2200000000] [--steps 3]

Prints what it took beside what `fastgd.estimate_memory` said before, and compares sampled elements, those
beyond the 2^31st among them, with AdamW whose state is float32.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import ml_dtypes
import numpy as np

import fastgd

TILE = 1 << 20  # gradients repeat after so many elements


def peak() -> int:
    (line,) = [
        x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")
    ]
    return int(line.split()[1]) << 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--elements", type=int, default=2_200_000_000)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    n = options.elements
    need = fastgd.estimate_memory([n], "adamw", state_dtype="8bit")
    expected = need.params + need.state + 2 * n  # gradients of 2 bytes
    print(f"{n:,} parameters: {expected / 2**30:.2f} GiB expected")

    rng = np.random.default_rng(0)
    tiles = [rng.standard_normal(TILE).astype(ml_dtypes.bfloat16) for _ in range(options.steps)]
    params, grads = fastgd.zeros(n), np.empty(n, ml_dtypes.bfloat16)
    opt = fastgd.AdamW(params, lr=1e-3, state_dtype="8bit")
    seconds = 0.0
    for tile in tiles:
        for at in range(0, n, TILE):
            grads[at : at + TILE] = tile[: min(TILE, n - at)]
        begin = time.perf_counter()
        assert opt.step(grads)
        seconds += time.perf_counter() - begin
    assert opt.step_count == options.steps
    assert opt.nbytes == need.state

    places = np.unique(
        np.concatenate([rng.integers(0, n, 20_000), [0, n - 1, 2**31 - 1, 2**31, n - 257]])
    )
    places = places[places < n]
    exact = np.zeros(len(places), np.float32)
    check = fastgd.AdamW(exact, lr=1e-3)
    for tile in tiles:
        check.step(tile[places % TILE].astype(np.float32))
    off = np.abs(params[places] - exact) / 1e-3  # in steps
    high = off[places >= 2**31]
    print(
        f"took {peak() / 2**30:.2f} GiB; a step {seconds / options.steps:.2f} s, "
        f"{n * options.steps / seconds / 1e9:.2f} billion elements a second"
    )
    print(
        f"{len(places):,} sampled elements differ from float32 state by {off.mean():.4f} steps on average, "
        f"{off.max():.3f} at most; the {len(high):,} beyond 2^31 by {high.mean() if high.size else 0:.4f}"
    )
    assert off.mean() < 0.02 * options.steps
    assert off.max() < 0.5 * options.steps
    assert (params[places] != 0).mean() > 0.99


if __name__ == "__main__":
    main()
