"""`fastgd bench`: how long a step over arrays of the user's shapes takes here, and what others take."""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np

import fastgd
from fastgd._arrays.tree import Array
from fastgd.optimizers import Optimizer

Step: TypeAlias = Callable[[], Any]
Shapes: TypeAlias = Sequence[tuple[int, ...]]

SECONDS, FEWEST = 1.5, 5  # that each contestant is run for, and how often at least
PAUSE = 0.01  # seconds for the threads of the contestant before to stop spinning
POOLED = 32 * 2**20  # bytes from which waking threads is a small part of the bound
BATCH_SECONDS = 1e-3  # that one measurement lasts at least


def report(kinds: Sequence[type[Optimizer]], shapes: Shapes, dtype: Any, threads: int) -> str:
    """A table: a line for each optimizer, with its time and what the others take of it.

    The contestants of a line are run in turns, and medians compared. The bound is the time in which
    NumPy, on as many threads, reads and writes as many bytes as the step has to.
    """
    elements = sum(int(np.prod(shape)) for shape in shapes)
    lines = [
        f"{len(shapes)} array{'s' * (len(shapes) != 1)}, {elements:,} elements of {np.dtype(dtype)}, "
        f"{threads} thread{'s' * (threads != 1)}, fastgd {fastgd.__version__} ({fastgd._engine.isa})",
        "",
        f"{'':<18}{'fastgd':>12}{'over the':>11}{'PyTorch':>11}",
        f"{'':<18}{'µs a step':>12}{'bound':>11}{'fused':>11}",
    ]
    with fastgd.num_threads(threads), ThreadPoolExecutor(threads) as pool:
        for kind in kinds:
            step, read, written = _fastgd_step(kind, shapes, dtype)
            contestants = {"fastgd": step, "bound": _bound(read, written, threads, pool)}
            if _installed("torch"):
                peer = _torch_step(kind, shapes, dtype, threads)
                if peer is not None:
                    contestants["torch"] = peer
            times = medians(contestants)
            own = times["fastgd"]
            torch = f"{times['torch'] / own:.2f} ×" if "torch" in times else "–"
            lines.append(
                f"{kind.__name__:<18}{own * 1e6:>12,.1f}{own / times['bound']:>9.2f} ×{torch:>11}"
            )
    lines += [
        "",
        "over the bound: the time in which NumPy reads and writes as many bytes; steps over few elements",
        "  are bound by their arithmetic and calls instead",
        "PyTorch: how many times as long it takes"
        + ("" if _installed("torch") else " (not installed)"),
    ]
    return "\n".join(lines)


def medians(contestants: dict[str, Step]) -> dict[str, float]:
    """Seconds of each, measured in turns."""
    repeats = {}
    for name, step in contestants.items():
        step()
        begin = time.perf_counter()
        step()
        repeats[name] = max(1, int(BATCH_SECONDS / max(time.perf_counter() - begin, 1e-7)))
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    end = time.perf_counter() + SECONDS * len(contestants)
    while time.perf_counter() < end or len(seconds["fastgd"]) < FEWEST:
        for name, step in contestants.items():
            time.sleep(PAUSE)
            step()
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                step()
            seconds[name].append((time.perf_counter() - begin) / repeats[name])
    return {name: statistics.median(values) for name, values in seconds.items()}


def _arrays(shapes: Shapes, dtype: Any, scale: float) -> list[Array]:
    rng = np.random.default_rng(0)
    return [np.asarray(scale * rng.standard_normal(shape), dtype) for shape in shapes]


def _fastgd_step(kind: type[Optimizer], shapes: Shapes, dtype: Any) -> tuple[Step, int, int]:
    """The step, and the bytes that it has to read, of gradients, and to read and write, of all else."""
    made: Any = kind
    params, grads = _arrays(shapes, dtype, 1.0), _arrays(shapes, dtype, 1e-3)
    optimizer = made(params)
    state = [
        value
        for entry in optimizer.state.values()
        for value in entry.values()
        if isinstance(value, np.ndarray)
    ]
    written = sum(a.nbytes for a in (*params, *state))
    return lambda: optimizer.step(grads, loss=1.0), sum(g.nbytes for g in grads), written


def _bound(read: int, written: int, threads: int, pool: ThreadPoolExecutor) -> Step:
    """Read so many bytes, and read and write so many, each thread its part."""
    reads = np.array_split(np.ones(max(threads, read // 8)), threads)
    writes = np.array_split(np.ones(max(threads, written // 8)), threads)

    def move(i: int) -> None:
        reads[i].max()
        np.negative(writes[i], out=writes[i])

    if threads == 1 or read + written < POOLED:  # in the cores' own caches: none waits for another
        return lambda: move(0)
    return lambda: list(pool.map(move, range(threads)))


def _torch_step(kind: type[Optimizer], shapes: Shapes, dtype: Any, threads: int) -> Step | None:
    """PyTorch's optimizer of the same formula at its fastest; None if it has none."""
    if kind.torch is None:
        return None
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    tensors = [torch.from_numpy(p).requires_grad_() for p in _arrays(shapes, dtype, 1.0)]
    for tensor, grad in zip(tensors, _arrays(shapes, dtype, 1e-3), strict=True):
        tensor.grad = torch.from_numpy(grad)
    options = {"lr": kind.declaration.defaults["lr"]}
    for fastest in ({"fused": True}, {"foreach": True}, {}):
        try:
            optimizer = getattr(torch.optim, kind.torch)(tensors, **options, **fastest)
            optimizer.step()
        except (TypeError, RuntimeError):  # it has no such form
            continue
        return optimizer.step  # type: ignore[no-any-return]
    return None


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
