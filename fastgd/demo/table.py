"""The demo's report: what the data and the network are, and one line per run, in plain ASCII."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastgd.demo.data import Dataset
from fastgd.demo.runs import STOCHASTIC_STEPS, Outcome, layer_sizes


@dataclass(frozen=True)
class _Column:
    """A column: the two lines of its heading, and its text for a run."""

    heading: tuple[str, str]
    text: Callable[[Outcome], str]


_COLUMNS = (
    _Column(("batch", "size"), lambda o: f"{o.run.batch_size:,}"),
    _Column(("learning", "rate"), lambda o: f"{o.run.lr:g}"),
    _Column(("test", "accuracy"), lambda o: f"{o.accuracy:.2%}"),
    _Column(("final", "loss"), lambda o: f"{o.loss:.5f}"),
    _Column(("", "epochs"), lambda o: f"{o.epochs:.3g}"),
    _Column(("", "steps"), lambda o: f"{o.run.steps:,}"),
)
_TIMING = (
    _Column(("", "steps/s"), lambda o: f"{o.run.steps / o.seconds:,.0f}"),
    _Column(("time in", "optimizer"), lambda o: f"{o.optimizer_seconds / o.seconds:.1%}"),
)
_GAP = "  "


def report(data: Dataset, seed: int, outcomes: Sequence[Outcome], *, timing: bool) -> str:
    """Describe the outcomes, the timing in the last columns, or left out.

    All but the timing is the same for the same data and seed.
    """
    sizes = "-".join(map(str, layer_sizes(data)))
    lines = [
        str(data),
        f"network: {sizes}, ReLU, softmax cross-entropy; seed {seed}",
        "",
        *_table(outcomes, _COLUMNS + (_TIMING if timing else ())),
        "",
        "learning rate: at the first step; it falls to 0 along half a cosine",
        "final loss: mean over all the training images; epochs: passes over them",
    ]
    if any(o.run.batch_size == 1 and o.run.steps == STOCHASTIC_STEPS for o in outcomes):
        lines.append(f"SGD, stochastic: limited to {STOCHASTIC_STEPS:,} steps of one image each")
    if timing:
        lines.append("steps/s, time in optimizer: measured, so different in every run of the demo")
    return "\n".join(lines)


def _table(outcomes: Sequence[Outcome], columns: Sequence[_Column]) -> list[str]:
    """Heading, rule and rows; the first column to the left, numbers to the right."""
    rows = [["", *(c.heading[0] for c in columns)], ["run", *(c.heading[1] for c in columns)]]
    rows += [[o.run.name, *(column.text(o) for column in columns)] for o in outcomes]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [
        _GAP.join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]).rstrip()
        for first, *rest in rows
    ]
    return [*lines[:2], _GAP.join("-" * width for width in widths), *lines[2:]]
