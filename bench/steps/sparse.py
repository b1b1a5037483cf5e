r"""Gradients of some rows, factors, sums and other layouts against what else there is: ratios of medians
of alternating steps.

    python -m bench.steps.sparse [--threads 2]

Rows: a table of 1,000,000 x 64 float32, batches of 8,192 indices drawn from Zipf's distribution over
ranks 1 … 1,000,000 (exponent 1), 100 different ones, so that no cache holds the rows of the next.
Factors: a layer of 4,096 x 4,096, and one of 42,000 x 20 whose inputs are 64 documents of 100 words.
Sums: two gradients of 16.7 M elements, against adding them first. Turned: gradients in Fortran order of
parameters in C order, against those in C order. PyTorch takes part where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

import fastgd

Step: TypeAlias = Callable[[int], Any]
ROWS, WIDTH, INDICES, BATCHES = 1_000_000, 64, 8192, 100
LR = 0.01


def zipf(rng: np.random.Generator) -> Any:
    """Indices of one batch; which row has which rank is random."""
    ranks = np.exp(rng.random(INDICES) * np.log(ROWS)).astype(np.int64) - 1  # of density 1 / rank
    return ranks * 7_368_787 % ROWS


def medians(steps: dict[str, Step], rounds: int, batches: int = BATCHES) -> dict[str, float]:
    """Seconds of each, the steps of one number taken in turns, after a round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range((rounds + 1) * batches):
        for name, step in steps.items():
            begin = time.perf_counter()
            step(i % batches)
            if i >= batches:
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def rows(threads: int) -> None:
    rng = np.random.default_rng(0)
    batches = [zipf(rng) for _ in range(BATCHES)]
    values = rng.standard_normal((INDICES, WIDTH)).astype(np.float32)
    unique = statistics.mean(len(np.unique(batch)) for batch in batches)
    print(
        f"{ROWS:,} x {WIDTH} float32, {INDICES:,} indices of {unique:,.0f} rows, {threads} thread(s)"
    )
    for name, other, options in (
        ("Adam", "SparseAdam", {"eps_hat": True}),
        ("Adagrad", "Adagrad", {}),
        ("RowWiseAdagrad", "Adagrad", {}),
        ("SGD", "SGD", {}),
    ):
        steps = {"fastgd": ours(name, options, batches, values), "touching": touch(name, batches)}
        if importlib.util.find_spec("torch") is not None:
            steps["torch"] = theirs(other, threads, batches, values)
        found = medians(steps, 2)
        shown = ", ".join(
            f"{name} {seconds / found['fastgd']:.2f} ×"
            for name, seconds in found.items()
            if name != "fastgd"
        )
        print(f"  {name:<14} {found['fastgd'] * 1e6:7.0f} µs; {shown}")


def ours(name: str, options: dict[str, Any], batches: Sequence[Any], values: Any) -> Step:
    optimizer = getattr(fastgd, name)(np.ones((ROWS, WIDTH), np.float32), lr=LR, **options)
    return lambda i: optimizer.step(fastgd.Rows(batches[i], values))


def touch(name: str, batches: Sequence[Any]) -> Step:
    """NumPy's own gather and scatter of the rows of the table, without any arithmetic."""
    table = np.ones((ROWS, WIDTH), np.float32)
    unique = [np.unique(batch) for batch in batches]

    def step(i: int) -> None:
        table[unique[i]] = table[unique[i]]

    return step


def theirs(name: str, threads: int, batches: Sequence[Any], values: Any) -> Step:
    import torch

    torch.set_num_threads(threads)
    table = torch.ones(ROWS, WIDTH, requires_grad=True)
    optimizer = getattr(torch.optim, name)([table], lr=LR)
    indices = [torch.from_numpy(batch[np.newaxis]) for batch in batches]
    given = torch.from_numpy(values)

    def step(i: int) -> None:
        table.grad = torch.sparse_coo_tensor(
            indices[i], given, (ROWS, WIDTH), check_invariants=False
        )
        optimizer.step()

    return step


def factors(threads: int) -> None:
    rng = np.random.default_rng(0)
    for samples in (1, 32):
        left, right = (rng.standard_normal((samples, 4096)).astype(np.float32) for _ in range(2))
        one, other = (fastgd.SGD(np.ones((4096, 4096), np.float32), lr=LR) for _ in range(2))
        steps: dict[str, Step] = {
            "fastgd": lambda i, o=one, a=left, b=right: o.step(fastgd.Factors(a, b)),
            "product": lambda i, o=other, a=left, b=right: o.step(a.T @ b),
        }  # fmt: skip
        compared(f"factors, {samples} sample(s), 4,096 x 4,096, SGD", steps)
    if importlib.util.find_spec("scipy") is None:
        return
    from scipy import sparse

    words = [
        sparse.random(64, 42_000, density=100 / 42_000, format="csr", dtype=np.float32, rng=i)
        for i in range(BATCHES)
    ]
    right = rng.standard_normal((64, 20)).astype(np.float32)
    one, other = (fastgd.Adagrad(np.ones((42_000, 20), np.float32), lr=LR) for _ in range(2))
    compared(
        "factors in CSR, 64 documents, 42,000 x 20, Adagrad",
        {
            "fastgd": lambda i: one.step(fastgd.Factors(words[i], right)),
            "product": lambda i: other.step(words[i].T @ right),
        },
    )


def compared(title: str, steps: dict[str, Step]) -> None:
    found = medians(steps, 1)
    ratio = found["product"] / found["fastgd"]
    print(f"{title}: {found['fastgd'] * 1e6:.0f} µs; the product and the step {ratio:.2f} ×")


def layouts() -> None:
    """Large arrays, few of them: a hundred steps take as long as all batches above."""
    rng = np.random.default_rng(0)
    for shape in ((4096, 4096), (16_000, 1000), (1000, 16_000)):
        grad = rng.standard_normal(shape, np.float32)
        turned = np.asfortranarray(grad)
        for name in ("SGD", "AdamW"):
            straight, across, sums, added = (
                getattr(fastgd, name)(np.ones(shape, np.float32)) for _ in range(4)
            )
            steps: dict[str, Step] = {
                "straight": lambda i, o=straight, g=grad: o.step(g),
                "turned": lambda i, o=across, g=turned: o.step(g),
                "sum": lambda i, o=sums, g=grad: o.step(fastgd.Sum([g, g])),
                "added": lambda i, o=added, g=grad: o.step(g + g),
            }  # fmt: skip
            found = medians(steps, 1, 20)
            ratio = {key: seconds / found["straight"] for key, seconds in found.items()}
            print(
                f"{name} over {shape[0]:,} x {shape[1]:,}: {found['straight'] * 1e3:.1f} ms; "
                f"Fortran order {ratio['turned']:.2f} ×; "
                f"Sum of two {ratio['sum']:.2f} ×, added first {ratio['added']:.2f} ×"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps over gradients of some rows and factors.")
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    with fastgd.num_threads(threads):
        rows(threads)
        factors(threads)
        layouts()


if __name__ == "__main__":
    main()
