"""What fastgd sets out to reach, and whether a report's figures reach it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bench.steps.measure import ARRAY_COUNTS, UNCLIPPED
from bench.steps.peers import BOUND, FASTGD, PEERS
from bench.steps.workloads import RULES, on_threads

Results = dict[str, Any]


@dataclass(frozen=True)
class Target:
    what: str
    limit: float
    figure: float | None
    at_least: bool = False
    unit: str = "x"

    @property
    def wanted(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}{self.unit}"

    @property
    def measured(self) -> str:
        return "-" if self.figure is None else f"{self.figure:.2f}{self.unit}"

    @property
    def verdict(self) -> str:
        if self.figure is None:
            return "not measured"
        figure = round(self.figure, 2)
        met = figure >= self.limit if self.at_least else figure <= self.limit
        return "met" if met else "NOT MET"

    def as_dict(self) -> Results:
        return {**asdict(self), "verdict": self.verdict}


class Figures:
    """Medians by case."""

    def __init__(self, groups: list[Results]) -> None:
        self.groups = {(g["threads"], g["rule"], g["shape"], g["clip"]): g for g in groups}
        self.threads = sorted({g["threads"] for g in groups})

    def median(self, case: tuple[int, str, str, bool], name: str) -> float | None:
        group = self.groups.get(case)
        timing = group["timings"].get(name) if group else None
        return timing["median"] if timing else None

    def ratio(self, case: tuple[int, str, str, bool], over: str, under: str) -> float | None:
        a, b = self.median(case, over), self.median(case, under)
        return None if a is None or b is None else a / b

    def best(self, case: tuple[int, str, str, bool], prefix: str = "") -> float | None:
        """The fastest peer's time over fastgd's."""
        ratios = [self.ratio(case, name, FASTGD) for name in PEERS if name.startswith(prefix)]
        return min((ratio for ratio in ratios if ratio is not None), default=None)


def evaluate(results: Results) -> list[Target]:
    figures = Figures(results["groups"])
    targets: list[Target] = []
    for threads in figures.threads:
        targets += large_arrays(figures, threads)
        targets += small_arrays(figures, threads)
        targets += clipping(figures, threads)
    targets += itself(results)
    targets += footprint(results)
    return targets


def large_arrays(figures: Figures, threads: int) -> Iterator[Target]:
    at = f"1x16.7M, {on_threads(threads)}"
    for rule in RULES:
        case = (threads, rule, "1x16.7M", False)
        yield Target(f"{rule}, {at}: over the bound", 1.15, figures.ratio(case, FASTGD, BOUND))
    adamw, rmsprop = ((threads, rule, "1x16.7M", False) for rule in ("AdamW", "RMSprop"))
    fused = figures.ratio(adamw, "torch fused", FASTGD)
    yield Target(f"AdamW, {at}: faster than torch fused", 1.3, fused, at_least=True)
    deepspeed = figures.ratio(adamw, "DeepSpeed", FASTGD)
    yield Target(f"AdamW, {at}: against DeepSpeed's CPUAdam", 1, deepspeed, at_least=True)
    torch = figures.best(rmsprop, "torch")
    yield Target(f"RMSprop, {at}: faster than torch's best", 4, torch, at_least=True)


def small_arrays(figures: Figures, threads: int) -> Iterator[Target]:
    for shape, best, fused in (("100x1k", 12, 20), ("10x100", 30, None)):
        case = (threads, "AdamW", shape, False)
        at = f"AdamW, {shape}, {on_threads(threads)}"
        yield Target(f"{at}: faster than the best peer", best, figures.best(case), at_least=True)
        if fused:
            ratio = figures.ratio(case, "torch fused", FASTGD)
            yield Target(f"{at}: faster than torch fused", fused, ratio, at_least=True)
    seconds = figures.median((threads, "AdamW", "10x100", False), FASTGD)
    micro = None if seconds is None else seconds * 1e6
    yield Target(f"AdamW, 10x100, {on_threads(threads)}: a step", 2, micro, unit=" µs")


def clipping(figures: Figures, threads: int) -> Iterator[Target]:
    for shape, price, fused in (("1x16.7M", 1.35, 1.8), ("100x1k", 1.3, 20)):
        case = (threads, "AdamW", shape, True)
        at = f"AdamW clip, {shape}, {on_threads(threads)}"
        yield Target(f"{at}: over no clip", price, figures.ratio(case, FASTGD, UNCLIPPED))
        ratio = figures.ratio(case, "torch fused", FASTGD)
        yield Target(f"{at}: faster than torch clip + fused", fused, ratio, at_least=True)


def itself(results: Results) -> Iterator[Target]:
    few, many = ARRAY_COUNTS
    for row in results["arrays"]:
        per_array = [row["timings"][str(n)]["median"] / n for n in ARRAY_COUNTS]
        what = f"AdamW, arrays of {row['size']}, {on_threads(row['threads'])}: cost of each"
        yield Target(f"{what}, {many:,} over {few}", 1, per_array[1] / per_array[0])
    for row in results["denormals"]:
        medians = {name: timing["median"] for name, timing in row["timings"].items()}
        what = f"{row['rule']}, {on_threads(row['threads'])}: denormal gradients over normal ones"
        yield Target(what, 1.5, medians["denormal"] / medians["normal"])


def footprint(results: Results) -> Iterator[Target]:
    rows = results["memory"]
    if rows:
        grown = max(max(r["step_traced"], r["step_rss"]) / r["model_bytes"] for r in rows)
        yield Target("allocated in a step, part of the model", 0.01, grown, unit="")
        surplus = max(abs(r["state_bytes"] - r["formula_bytes"]) / r["model_bytes"] for r in rows)
        yield Target("state beyond what the formula needs", 0, surplus, unit="")
    if results["import"]:
        milli = results["import"]["fastgd"] * 1e3
        yield Target("import fastgd over import numpy", 30, milli, unit=" ms")
