"""Mini-batches of rows of 784 float32: fastgd against indexing, np.take and torch's DataLoader.

    pytest bench/sampling/bench_sampling.py --benchmark-group-by=param:size

One round is one batch out of a run of shuffled epochs. Every competitor is given the same order,
made beforehand, except the loaders, which make their own between epochs as they do in training.
`copy` is the floor: the same bytes, copied in one piece. The groups after that are the cost of
one-sample batches, of an epoch's order and of the table for weighted draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fastgd

SAMPLES, FEATURES = 65_536, 784  # 205 MB, well beyond the last-level cache
SIZES = [1, 32, 1024, 8192]
SEED_0_EPOCH_0 = np.random.SeedSequence(0, spawn_key=(0,))  # as MiniBatches draws it


@pytest.fixture(scope="module")
def data() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((SAMPLES, FEATURES), np.float32)


def forever(loader: Any) -> Iterator[Any]:
    """One epoch after another."""
    while True:
        yield from loader


def indices(size: int) -> Iterator[NDArray[np.int64]]:
    order = np.random.default_rng(SEED_0_EPOCH_0).permutation(SAMPLES)
    return forever([order[low : low + size] for low in range(0, SAMPLES, size)])


def straight_copy(data: NDArray[np.float32], size: int) -> Callable[[], Any]:
    lows = forever(range(0, SAMPLES, size))

    def batch() -> Any:
        low = next(lows)
        return data[low : low + size].copy()

    return batch


def fancy_indexing(data: NDArray[np.float32], size: int) -> Callable[[], Any]:
    index = indices(size)
    return lambda: data[next(index)]


def take(data: NDArray[np.float32], size: int) -> Callable[[], Any]:
    index = indices(size)
    return lambda: np.take(data, next(index), axis=0)


def take_into(data: NDArray[np.float32], size: int) -> Callable[[], Any]:
    # mode="clip", since with out= the default mode buffers the whole output.
    index, out = indices(size), np.empty((size, FEATURES), np.float32)
    return lambda: np.take(data, next(index), axis=0, out=out, mode="clip")


def mini_batches(**options: Any) -> Callable[[NDArray[np.float32], int], Callable[[], Any]]:
    def make(data: NDArray[np.float32], size: int) -> Callable[[], Any]:
        return forever(fastgd.MiniBatches(data, batch_size=size, **options)).__next__

    return make


def torch_loader(data: NDArray[np.float32], size: int) -> Callable[[], Any]:
    """As tutorials write it: samples are fetched one by one and stacked."""
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(data))
    return forever(torch.utils.data.DataLoader(dataset, batch_size=size, shuffle=True)).__next__


def torch_batch_sampler(data: NDArray[np.float32], size: int) -> Callable[[], Any]:
    """At its best: one indexing operation per batch."""
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(data))
    sampler = torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(dataset), size, False)
    return forever(torch.utils.data.DataLoader(dataset, sampler=sampler, batch_size=None)).__next__


COMPETITORS = {
    "copy": straight_copy,
    "fastgd": mini_batches(),
    "fastgd reuse": mini_batches(reuse=True),
    "fastgd prefetch": mini_batches(prefetch=2),
    "X[idx]": fancy_indexing,
    "np.take": take,
    "np.take out": take_into,
    "torch DataLoader": torch_loader,
    "torch BatchSampler": torch_batch_sampler,
}


@pytest.mark.parametrize("name", COMPETITORS)
@pytest.mark.parametrize("size", SIZES)
def test_batch(benchmark: Any, data: NDArray[np.float32], size: int, name: str) -> None:
    benchmark.extra_info["bytes"] = size * FEATURES * 4
    batch = COMPETITORS[name](data, size)
    batch()  # the order of the first epoch
    if size < 1024:
        # Few enough that no epoch ends inside: the mean is that of a batch.
        benchmark.pedantic(batch, rounds=30, iterations=1024 // size, warmup_rounds=2)
    else:
        benchmark.pedantic(batch, rounds=100, warmup_rounds=5)


@pytest.mark.parametrize("name", ["slices", "X[i:i+1]", "fastgd"])
def test_two_arrays_one_sample(benchmark: Any, data: NDArray[np.float32], name: str) -> None:
    """`X[i:i+1], y[i:i+1]` for a stretch of an epoch: the loop, then what fastgd adds to it."""
    labels = np.arange(SAMPLES)
    order = np.random.default_rng(SEED_0_EPOCH_0).permutation(SAMPLES)[:10_000]

    def slices() -> None:
        for i in order.tolist():
            _ = data[i : i + 1], labels[i : i + 1]

    def numpy_scalars() -> None:
        for i in order:
            _ = data[i : i + 1], labels[i : i + 1]

    part = fastgd.MiniBatches(data[:10_000], labels[:10_000], batch_size=1)

    def fastgd_loop() -> None:
        for _ in part:
            pass

    benchmark.extra_info["batches"] = 10_000
    loops = {"slices": slices, "X[i:i+1]": numpy_scalars, "fastgd": fastgd_loop}
    benchmark.pedantic(loops[name], rounds=30, warmup_rounds=2)


@pytest.mark.parametrize("name", ["permutation", "shuffled", "weighted", "stratified", "blocks"])
def test_order_of_a_million(benchmark: Any, name: str) -> None:
    n = 1_000_000
    samples = np.zeros(n, np.uint8)
    options: dict[str, dict[str, Any]] = {
        "shuffled": {},
        "weighted": {"weights": np.random.default_rng(1).random(n)},
        "stratified": {"stratify": np.arange(n) % 10},
        "blocks": {"block_size": 256},
    }
    if name == "permutation":
        benchmark(lambda: np.random.default_rng(SEED_0_EPOCH_0).permutation(n))
    else:
        batches = fastgd.MiniBatches(samples, batch_size=64, **options[name])
        benchmark(lambda: batches.order(0))


def test_alias_table_of_a_million(benchmark: Any) -> None:
    weights = np.random.default_rng(1).random(1_000_000)
    samples = np.zeros(weights.size, np.uint8)
    benchmark(lambda: fastgd.MiniBatches(samples, weights=weights, batch_size=64))
