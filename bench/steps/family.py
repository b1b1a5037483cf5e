"""Every optimizer of the registry against the time that its bytes take: python -m bench.steps.family

One array of 16.7 million float32, interleaved with a plain C loop over ideally placed buffers (bound.py;
for more bytes than its 28 an element, in proportion); the ratio of medians in one run. Element-wise
rules move 12 bytes an element and 8 for each array of state. A rule of two sweeps moves what its formula
needs at least: the first sweep reads the gradient, the parameter and what else its sums want, the
second what the update wants. Muon is compared with its matrix products alone, over NumPy's BLAS.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import fastgd
from bench.steps.bound import Bound
from fastgd.optimizers import Optimizer, all_optimizers

ELEMENTS = 1 << 24
# Bytes an element of a step in float32, where it is not one sweep over p, g and the state.
BYTES = {
    "LAMB": 40,
    "LARS": 28,
    "AdamW cautious": 40,
    "Lion cautious": 28,
    "SGD centralize": 24,
    "DoG": 24,
    "DoWG": 24,
    "PolyakSGD": 16,
    "Prodigy": 52,
    "Adafactor": 24,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "AdamW cautious": {"cautious": True},
    "Lion cautious": {"cautious": True},
    "SGD centralize": {"centralize": True, "momentum": 0.0},
}


def contestants() -> Iterable[tuple[str, type[Optimizer], dict[str, Any]]]:
    kinds = all_optimizers()
    for name in [*kinds, *(key for key in OPTIONS if " " in key)]:
        yield name, kinds[name.split()[0]], OPTIONS.get(name, {})


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratio(call: Callable[[], Any], other: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Of medians, interleaved; and the first's in milliseconds."""
    pairs = [(seconds(call), seconds(other)) for _ in range(rounds + 2)][2:]
    first, second = (statistics.median(times) for times in zip(*pairs, strict=True))
    return first / second, 1e3 * first


def measure(name: str, kind: type[Optimizer], options: dict[str, Any], rounds: int) -> str:
    rng = np.random.default_rng(0)
    p = rng.random((4096, ELEMENTS // 4096), np.float32) * 2 - 1
    g = (rng.random(p.shape, np.float32) - np.float32(0.5)) * np.float32(0.02)
    made: Any = kind
    opt = made(p, lr=1e-3, **options)
    state = [
        a for a in opt.state["params"].values() if isinstance(a, np.ndarray) and a.size == p.size
    ]
    loss = {"loss": 1.0} if kind.needs_loss else {}
    wanted = BYTES.get(name, 12 + 8 * len(state))
    streams = min(max((wanted - 12) // 8, 0), 2)
    bound = Bound(ELEMENTS, streams, False, fastgd.get_num_threads())
    found, milliseconds = ratio(lambda: opt.step(g, **loss), lambda: bound.run(1), rounds)
    found *= (12 + 8 * streams) / wanted
    return f"{name:18} {len(state)} arrays {wanted:3} B  {milliseconds:7.1f} ms  {found:5.2f} x the bound"


def muon(size: int, rounds: int) -> str:
    """Against the products of five iterations, over as good buffers."""
    rng = np.random.default_rng(0)
    p, g = (rng.standard_normal((size, size)).astype(np.float32) for _ in range(2))
    opt = fastgd.Muon(p)
    x, gram, square = (np.full((size, size), 1e-3, np.float32) for _ in range(3))

    def products() -> None:
        for _ in range(5):
            np.matmul(x, x.T, out=gram)
            np.matmul(gram, gram, out=square)
            np.matmul(square, x, out=gram)

    found, milliseconds = ratio(lambda: opt.step(g), products, rounds)
    return f"Muon {size} x {size}   {milliseconds:7.1f} ms  {found:5.2f} x its products"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("names", nargs="*", help="optimizers (default: all)")
    arguments = parser.parse_args()
    print(f"{ELEMENTS:,} float32, {fastgd.get_num_threads()} threads, {fastgd._engine.isa}")
    for name, kind, options in contestants():
        if arguments.names and name not in arguments.names:
            continue
        if name == "Muon":
            for size in (512, 1024, 2048):
                print(muon(size, arguments.rounds), flush=True)
        else:
            print(measure(name, kind, options, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
