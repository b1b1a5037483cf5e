"""The optimizers by name, entered when their classes are defined."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastgd._arguments import suggestion

if TYPE_CHECKING:
    from fastgd.optimizers._base import Optimizer

_classes: dict[str, type[Optimizer]] = {}


def enter(kind: type[Optimizer]) -> None:
    """Add a class; the first of a name stays."""
    _classes.setdefault(kind.__name__, kind)


def all_optimizers() -> dict[str, type[Optimizer]]:
    """Every optimizer class by name, in alphabetical order whatever their case."""
    return dict(sorted(_classes.items(), key=lambda item: item[0].lower()))


def find(name: str | type[Optimizer]) -> type[Optimizer]:
    """The class of that name, in upper or lower case, with "-" or "_" between its parts or without; a
    class is its own.

    Raises: ValueError that names the nearest of the others, and all of them.
    """
    if not isinstance(name, str):
        return name
    if name in _classes:
        return _classes[name]
    wanted = name.lower().replace("-", "").replace("_", "")
    names = all_optimizers()
    for known, kind in names.items():
        if known.lower() == wanted:
            return kind
    hint = suggestion(name, names) or "."
    raise ValueError(f"there is no optimizer {name!r}{hint} There are {', '.join(names)}")
