"""The two points between which the parameters of an optimizer that averages go back and forth.

A class with the trait `averages` takes its gradients at y = (1 - b) * z + b * x, which the parameters hold
while it trains; x is the average of the iterates z, to be evaluated and saved. z is the first slot of
its state, and the number "evaluating" tells for each array which of the two it holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from fastgd import _engine
from fastgd._arrays.layout import flat_view
from fastgd._arrays.tree import Array

if TYPE_CHECKING:
    from fastgd.optimizers._groups import Bound

NUMBER = "evaluating"
BLOCK = 65_536  # elements that are moved at a time


class Point(NamedTuple):
    """One array that goes back and forth."""

    param: Array  # one-dimensional, as z
    z: Array
    weight: float  # of x in y
    evaluating: Array  # its row's number, a view of one element

    def move(self, evaluate: bool) -> None:
        if bool(self.evaluating[0]) == evaluate:
            return
        factor = 1.0 - 1.0 / self.weight if evaluate else 1.0 - self.weight
        for start in range(0, self.param.size, BLOCK):
            part = slice(start, start + BLOCK)
            self.param[part] += (self.z[part] - self.param[part]) * self.param.dtype.type(factor)
        self.evaluating[0] = evaluate


def points(bound: Bound) -> Iterator[Point]:
    """Of the arrays of every group whose class averages."""
    rows = iter(bound.plan.numbers)
    for settings, part in zip(bound.groups, bound.members, strict=True):
        if not settings.kind.averages:
            for _ in part.params:
                next(rows)
            continue
        weight = settings.kind.weight_of_average(settings.at(bound.plan.step_count).values)
        column = settings.kind.declaration.numbers.index(NUMBER)
        for param, slots in zip(part.params, part.slots, strict=True):
            (z, *_), row = slots, next(rows)
            assert z is not None
            yield Point(flat_view(param), z, weight, row[column : column + 1])


def is_evaluating(bound: Bound) -> bool:
    return bound.averages and any(point.evaluating[0] for point in points(bound))


def move(bound: Bound, evaluate: bool) -> None:
    """Put x in the parameters, or y; where it is there already nothing happens."""
    if not bound.averages:
        return
    there = list(points(bound))

    def commit() -> None:
        for point in there:
            point.move(evaluate)

    _engine.uninterrupted(commit)
