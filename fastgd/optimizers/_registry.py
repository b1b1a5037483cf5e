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


def find(name: str) -> type[Optimizer]:
    """The class of that name, in upper or lower case.

    Raises: ValueError that names the others, and the nearest of them.
    """
    by_lower = {known.lower(): kind for known, kind in all_optimizers().items()}
    if name in _classes:
        return _classes[name]
    if name.lower() not in by_lower:
        names = all_optimizers()
        raise ValueError(
            f"there is no optimizer {name!r}; there are {', '.join(names)}{suggestion(name, names)}"
        )
    return by_lower[name.lower()]
