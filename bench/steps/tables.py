"""The report as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.steps.measure import UNCLIPPED
from bench.steps.peers import BOUND, FASTGD, PEERS
from bench.steps.targets import Target
from bench.steps.workloads import RULES, SHAPES, on_threads

Results = dict[str, Any]
ROWS = [BOUND, FASTGD, UNCLIPPED, *PEERS]
NAME, CELL = 16, 16
ONE_CORE = 1.25  # CPU time over elapsed time, with room for what others leave running


def duration(seconds: float) -> str:
    """Three significant digits: "1.23 µs"."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{significant(seconds / size)} {unit}"
    return f"{significant(seconds / 1e-9)} ns"


def significant(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def heading(threads: int, shape: str, clip: bool) -> str:
    count, size = SHAPES[shape]
    arrays = "1 array" if count == 1 else f"{count} arrays"
    clipped = ", clip_norm" if clip else ""
    return f"{arrays} of {size:,} float32, {on_threads(threads)}{clipped}"


def tables(groups: list[Results]) -> list[str]:
    """A table for each number of threads, shape and clipping: contestants by optimizers."""
    lines: list[str] = []
    for key in dict.fromkeys((g["threads"], g["shape"], g["clip"]) for g in groups):
        members = [g for g in groups if (g["threads"], g["shape"], g["clip"]) == key]
        lines += ["", heading(*key), *table(members)]
    return lines


def table(groups: list[Results]) -> list[str]:
    by_rule = {g["rule"]: g["timings"] for g in groups}
    rules = [rule for rule in RULES if rule in by_rule]
    lines = [" " * NAME + "".join(f"{rule:>{CELL}}" for rule in rules) + "  spread"]
    for name in ROWS:
        present = [by_rule[rule][name] for rule in rules if name in by_rule[rule]]
        if present:
            cells = "".join(f"{cell(by_rule[rule], name):>{CELL}}" for rule in rules)
            worst = max(timing["spread"] for timing in present)
            lines.append(f"{name:<{NAME}}{cells}{worst:>8.0%}")
    bounded = [over_bound(by_rule[rule]) for rule in rules]
    if any(bounded):
        cells = "".join(f"{text:>{CELL}}" for text in bounded)
        lines.append(f"{'fastgd / bound':<{NAME}}{cells}")
    return lines


def cell(timings: Results, name: str) -> str:
    """The median and how many times fastgd's it is."""
    if name not in timings:
        return "-"
    median = timings[name]["median"]
    return f"{duration(median)} {significant(median / timings[FASTGD]['median']):>6}"


def over_bound(timings: Results) -> str:
    if BOUND not in timings:
        return ""
    return f"{timings[FASTGD]['median'] / timings[BOUND]['median']:.2f}"


def remarks(groups: list[Results]) -> list[str]:
    """Notes on contestants, and why some did not take part, each reason once."""
    lines = []
    for title, kind in (("notes", "notes"), ("not measured", "missing")):
        reasons: dict[tuple[str, str], int] = {}
        for g in groups:
            for entry in g[kind].items():
                reasons[entry] = reasons.get(entry, 0) + 1
        entries = [f"  {name}: {why} (cases: {count})" for (name, why), count in reasons.items()]
        entries += beyond_one_core(groups) if kind == "notes" else []
        lines += ["", f"{title}:", *entries] if entries else []
    return lines


def beyond_one_core(groups: list[Results]) -> list[str]:
    """Contestants whose work went on in other threads although they were told to use one."""
    lines = []
    single = [g["timings"] for g in groups if g["threads"] == 1]
    for name in ROWS:
        cores = [timings[name]["cores"] for timings in single if name in timings]
        more = [used for used in cores if used > ONE_CORE]
        if more:
            lines.append(
                f"  {name}: could not be held to one thread: up to {max(more):.1f} cores, "
                f"more than {ONE_CORE} in {len(more)} of {len(cores)} cases"
            )
    return lines


def losses(groups: list[Results]) -> list[str]:
    """Every case in which a peer was faster."""
    found = []
    for g in groups:
        mine = g["timings"][FASTGD]["median"]
        for name in PEERS:
            theirs = g["timings"].get(name)
            if theirs and theirs["median"] < mine:
                where = f"{g['rule']}, {heading(g['threads'], g['shape'], g['clip'])}"
                found.append(
                    f"  {name} takes {theirs['median'] / mine:.2f} of fastgd's time: {where}"
                )
    return ["", "losses:", *(found or ["  none: no peer was faster in any case measured"])]


def pairs(title: str, rows: Iterable[Results], label: str, names: tuple[str, str]) -> list[str]:
    """fastgd against itself."""
    lines = []
    for row in rows:
        first, second = (row["timings"][name]["median"] for name in names)
        lines.append(
            f"  {row[label]!s:<14}{on_threads(row['threads']):<9}  {names[0]} {duration(first)}, "
            f"{names[1]} {duration(second)}, ratio {second / first:.2f}"
        )
    return ["", title, *lines] if lines else []


def memory(rows: list[Results]) -> list[str]:
    lines = [
        f"  {row['rule'] + (' clip' if row['clip'] else ''):<20}"
        f"traced {row['step_traced']:>8,} B   peak grows by {row['step_rss']:>10,} B   "
        f"state {row['state_bytes'] / row['model_bytes']:.2f} x parameters"
        for row in rows
    ]
    title = "memory: what further steps over one array of 16,777,216 float32 (67 MB) allocate"
    return ["", title, *lines] if lines else []


def imports(result: Results | None) -> list[str]:
    if not result:
        return []
    first, then = duration(result["numpy"]), duration(result["fastgd"])
    return ["", f"import in a new process: numpy {first}, then fastgd {then}"]


def summary(targets: list[Target], partial: bool) -> list[str]:
    """All targets; of a partial run only those that it has measured."""
    shown = [t for t in targets if t.figure is not None or not partial]
    width = max((len(target.what) for target in shown), default=0)
    lines = [f"  {t.what:<{width}}  {t.wanted:>10}  {t.measured:>10}  {t.verdict}" for t in shown]
    if len(shown) < len(targets):
        lines.append(f"  ({len(targets) - len(shown)} targets are outside of this selection)")
    head = f"  {'target':<{width}}  {'wanted':>10}  {'measured':>10}"
    return ["", "summary:", head, *lines]
