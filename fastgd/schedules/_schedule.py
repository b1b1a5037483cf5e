"""What every schedule is, what is in one, interpolations, and lists among the arguments of several.

A factory such as `cosine` checks its arguments, defines its formula as a function of a checked
step, and returns Schedule(factory, formula, **arguments). A schedule is its factory and arguments:
printing, comparing and pickling use those, so a formula may be any closure. Dataclasses would say
each argument twice, in the class and in its factory, and take longer to import than all of this.
"""

from __future__ import annotations

import math

from fastgd._arguments import integer

TYPE_CHECKING = False  # typing and collections.abc would take longer to import than everything here
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, SupportsIndex, TypeAlias

    Formula: TypeAlias = Callable[[int], float]


class Schedule:
    """A pure function of the step count, made by the functions of `fastgd.schedules`.

    Immutable; equal to every schedule that the same function made from equal arguments; hashable,
    picklable and copyable. Its repr is the call that makes it.

    Example:
        >>> from fastgd.schedules import linear
        >>> schedule = linear(0.5, total_steps=4, start_factor=0)
        >>> [schedule(step) for step in range(6)]
        [0.0, 0.125, 0.25, 0.375, 0.5, 0.5]
        >>> schedule
        linear(lr=0.5, total_steps=4, start_factor=0.0, end_factor=1.0)
    """

    __slots__ = ("_arguments", "_factory", "_formula")

    def __init__(
        self, factory: Callable[..., Schedule], formula: Formula, /, **arguments: Any
    ) -> None:
        self._factory = factory
        self._formula = formula
        self._arguments = arguments

    def __call__(self, step: SupportsIndex) -> float:
        """The value at `step`.

        Args:
            step: Number of steps taken before, an integer of at least 0. Where a schedule has an
                end, the value stays the final one after it.

        Raises:
            TypeError: `step` is not an integer.
            ValueError: `step` is negative.
            OverflowError: the value is beyond the range of a double.
        """
        count = integer("step", step)
        try:
            return self._formula(count)
        except OverflowError:
            raise OverflowError(f"{self!r} overflows at step {count}") from None

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self._arguments.items())
        return f"{self._factory.__name__}({arguments})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return self._factory is other._factory and self._arguments == other._arguments

    def __hash__(self) -> int:
        return hash((self._factory, *self._arguments.values()))

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self._factory, self._arguments)


def _make(factory: Callable[..., Schedule], arguments: dict[str, Any]) -> Schedule:
    return factory(**arguments)


def functions_in(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """All functions in a value that are not schedules of fastgd, each with where it stands."""
    if isinstance(value, Schedule):
        value = value._arguments
    if isinstance(value, dict):
        for key, x in value.items():
            yield from functions_in(x, f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        for i, x in enumerate(value):
            yield from functions_in(x, f"{path}/{i}")
    elif callable(value):
        yield path, value


def blend(start: float, end: float, weight: float) -> float:
    """From `start` at weight 0 to `end` at weight 1, exact at both.

    start + weight * (end - start) would miss `end` by a rounding.
    """
    return (1.0 - weight) * start + weight * end


def half_cosine(fraction: float) -> float:
    """A weight that rises from 0 at fraction 0 to 1 at fraction 1, flat at both ends."""
    return 0.5 * (1.0 - math.cos(math.pi * fraction))


def items(name: str, values: Any) -> tuple[Any, ...]:
    """The items of an iterable."""
    try:
        return tuple(values)
    except TypeError:
        raise TypeError(
            f"{name} must be a list or tuple, got {type(values).__name__}: {values!r}"
        ) from None


def increasing(name: str, values: Iterable[Any]) -> tuple[int, ...]:
    """Strictly increasing integers, the first at least 1."""
    result = tuple(integer(f"{name}[{i}]", x, 1) for i, x in enumerate(items(name, values)))
    for i in range(1, len(result)):
        if result[i] <= result[i - 1]:
            raise ValueError(
                f"{name} must increase, got {result[i - 1]} and then {result[i]} as {name}[{i}]"
            )
    return result
