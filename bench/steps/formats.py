r"""State in fewer bits against float32, the memory's bound and other libraries: ratios of medians of
alternating steps.

    python -m bench.steps.formats [--elements 16777216] [--losses]

AdamW over one float32 array. The bound is that of float32 state: a plain C loop that moves 28 bytes for
each element over ideally placed buffers, by as many threads. bitsandbytes and torchao take part where they
are installed. --losses: final losses of the trainings in tests/optimizers/test_formats.py beside float32's.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

import fastgd
from bench.steps.bound import Bound
from bench.steps.sparse import medians

Step: TypeAlias = Callable[[int], Any]


def peers(elements: int, grad: Any) -> Iterator[tuple[str, Step]]:
    """Steps of other libraries over float32 parameters."""
    torch = importlib.import_module("torch")

    def made(make: Callable[[Any], Any]) -> Step:
        param = torch.nn.Parameter(torch.randn(elements))
        param.grad = torch.from_numpy(grad)
        optimizer = make([param])
        return lambda i: optimizer.step()

    yield "torch fused, float32", made(lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True))
    for name, module, kind in (
        ("bitsandbytes 8-bit", "bitsandbytes.optim", "AdamW8bit"),
        ("torchao 8-bit", "torchao.optim", "AdamW8bit"),
    ):
        try:
            cls = getattr(importlib.import_module(module), kind)
            step = made(lambda p, cls=cls: cls(p, lr=1e-3))
            step(0)
        except Exception as error:  # not installed, or not for this torch
            print(f"{name}: {type(error).__name__}: {error}"[:110])
        else:
            yield name, step


def speed(elements: int, threads: int) -> None:
    rng = np.random.default_rng(0)
    grad = rng.standard_normal(elements, np.float32)
    bound = Bound(elements, 2, False, threads)
    steps: dict[str, Step] = {"bound of float32": lambda i: bound.run(1)}
    with fastgd.num_threads(threads):
        for state_dtype in (None, "bfloat16", "8bit"):
            param = rng.standard_normal(elements, np.float32)
            opt = fastgd.AdamW(param, state_dtype=state_dtype)
            bytes_ = 12 + 2 * opt.nbytes / elements
            steps[f"{state_dtype or 'float32'}, {bytes_:.3g} bytes"] = lambda i, opt=opt: opt.step(
                grad
            )
        times = medians(steps, 5, 5)
        show(f"{elements:,} elements, {threads} thread(s)", times, "bound of float32")
        if threads == 2 and importlib.util.find_spec("torch"):
            importlib.import_module("torch").set_num_threads(threads)
            names = [*steps][2:]
            steps = {name: steps[name] for name in names} | dict(peers(elements, grad))
            show("the same, against others", medians(steps, 2, 2), names[-1])


def show(title: str, times: dict[str, float], unit: str) -> None:
    print(f"\n{title}: times the {unit}")
    for name, seconds in times.items():
        print(f"  {name:24} {seconds * 1e3:9.2f} ms  {seconds / times[unit]:7.2f}")


def losses() -> None:
    from tests.optimizers.test_formats import TRAININGS

    print("\nfinal loss, mean of 3 seeds; spread of float32's seeds; ratios to float32")
    for train, kind, kwargs in TRAININGS:
        full, *narrow = (
            [train(kind, state_dtype, seed, **kwargs) for seed in range(3)]
            for state_dtype in (None, "bfloat16", "8bit")
        )
        mean = statistics.mean(full)
        ratios = "  ".join(f"{statistics.mean(x) / mean:.4f}" for x in narrow)
        name = f"{train.__name__[8:]}{kwargs.get('enlarged', '')}"
        spread = (max(full) - min(full)) / mean
        print(f"  {name:9} {kind.__name__:10} {mean:8.4f}  {spread:6.1%}  {ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1 << 24)
    parser.add_argument("--losses", action="store_true")
    args = parser.parse_args()
    for threads in (1, 2):
        speed(args.elements, threads)
    if args.losses:
        losses()


if __name__ == "__main__":
    main()
