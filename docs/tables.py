"""The tables of optimizers in README.md, from the registry: `python docs/tables.py` writes them anew."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path

import numpy as np

from fastgd._arrays.formats import STATE_DTYPES
from fastgd.optimizers import Optimizer, all_optimizers
from fastgd.optimizers._declaration import GROUP_OPTIONS

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- the optimizers, from docs/tables.py -->", "<!-- end -->"
BYTES, END_OF_BYTES = "<!-- bytes of state, from docs/tables.py -->", "<!-- end of bytes -->"


def _row(kind: type[Optimizer]) -> str:
    text = inspect.getdoc(kind) or ""
    references = re.split(r"\n(?! )", text.split("References:\n")[1])[0]
    sources = re.findall(r"^ {4}(\S.*?\b\d{4}[a-z]?)\b", references, re.MULTILINE)
    declaration = kind.declaration
    unused, shape = kind.unused(declaration.defaults), (3, 2)
    shapes = [kind.state_shape(slot, shape) for slot in declaration.state if slot not in unused]
    state = f"{shapes.count(shape)}{' and vectors' if set(shapes) - {shape, None} else ''}"
    forms = [
        f"`{p.name}`"
        for p in declaration.signature.parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.name in declaration.checks and p.name not in GROUP_OPTIONS
    ]
    return (
        f"| `{kind.__name__}` | {text.splitlines()[0]} | {state} | {'yes' if kind.torch else ''} "
        f"| {', '.join(forms)} | {'; '.join(dict.fromkeys(sources))} |"
    )


def table() -> str:
    """One row for each class: its first line, arrays of state, keyword-only forms, sources."""
    head = "| class | | state | torch.optim has it | forms of other libraries, options | source |"
    rows = [_row(kind) for kind in all_optimizers().values()]
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])


def bytes_of_state() -> str:
    """Of each optimizer in each format, for each element of a float32 matrix; those alike in one row."""
    size, rows = (512, 1024), {}
    for name, kind in all_optimizers().items():
        options = {"momentum": 0.9} if kind.momentum == "momentum" else {}
        cells = []
        for state_dtype in STATE_DTYPES:
            try:
                opt = kind(np.zeros(size, np.float32), state_dtype=state_dtype, **options)
            except ValueError:
                cells.append("-")
            else:
                cells.append(f"{opt.nbytes / math.prod(size):.3g}")
        label = f"`{name}`" + (" with momentum" if name in ("SGD", "RMSprop") else "")
        rows.setdefault(tuple(cells), []).append(label)
    lines = [f"| {', '.join(names)} | {' | '.join(cells)} |" for cells, names in rows.items()]
    return "\n".join(["| | None | bfloat16 | 8bit |", "|---|---|---|---|", *lines])


def updated(text: str) -> str:
    """The README's text with the tables as they are now."""
    for begin, end, made in ((BEGIN, END, table()), (BYTES, END_OF_BYTES, bytes_of_state())):
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{made}\n{end}{rest.split(end, 1)[1]}"
    return text


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
