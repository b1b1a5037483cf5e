"""The table of optimizers in README.md, from the registry: `python docs/tables.py` writes it anew."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from fastgd.optimizers import Optimizer, all_optimizers
from fastgd.optimizers._declaration import GROUP_OPTIONS

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- the optimizers, from docs/tables.py -->", "<!-- end -->"


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


def updated(text: str) -> str:
    """The README's text with the table as it is now."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
