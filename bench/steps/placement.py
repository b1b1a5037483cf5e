r"""What it is worth to have parameters and gradients lie well: `fastgd.place` and `fastgd.empty_like`
against NumPy's own arrays, ratios of medians of alternating steps.

    python -m bench.steps.placement [--elements 16777216]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import fastgd
from bench.steps.bound import Bound
from bench.steps.sparse import medians

STATE = {"SGD": 0, "RMSprop": 1, "Adagrad": 1, "AdamW": 2}


def measure(name: str, elements: int, threads: int) -> str:
    rng = np.random.default_rng(0)
    bound = Bound(elements, STATE[name], False, threads)
    steps: dict[str, Any] = {"bound": lambda i: bound.run(1)}
    for label in ("NumPy's", "placed"):
        param = np.ones(elements, np.float32)
        grad = rng.standard_normal(elements, np.float32)
        if label == "placed":
            param = fastgd.place(param)
            given, grad = grad, fastgd.empty_like(param)
            grad[...] = given
        opt = getattr(fastgd, name)(param, lr=1e-6)
        steps[label] = lambda i, opt=opt, grad=grad: opt.step(grad)
    with fastgd.num_threads(threads):
        times = medians(steps, 5, 5)
    cells = "".join(f"{times[label] / times['bound']:10.2f}" for label in ("NumPy's", "placed"))
    ratio = times["placed"] / times["NumPy's"]
    return f"{name:10}{threads:8}{cells}{ratio:10.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1 << 24)
    args = parser.parse_args()
    print("           threads   NumPy's    placed     ratio   (the first two: times the bound)")
    for name in STATE:
        for threads in (1, 2):
            print(measure(name, args.elements, threads))


if __name__ == "__main__":
    main()
