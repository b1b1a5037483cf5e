"""What every schedule is, interpolations that several of them use, and checks of their arguments.

A factory such as `cosine` checks its arguments, defines its formula as a function of a checked
step, and returns Schedule(factory, formula, **arguments). A schedule is its factory and arguments:
printing, comparing and pickling use those, so a formula may be any closure. Dataclasses would say
each argument twice, in the class and in its factory, and take longer to import than all of this.

A check takes the argument's name and value and returns the value in its normal form, so that
schedules made from 1, 1.0 and numpy.float64(1) are equal, or raises TypeError or ValueError naming
the argument.
"""

from __future__ import annotations

import math
from operator import index

TYPE_CHECKING = False  # typing and collections.abc would take longer to import than everything here
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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


def blend(start: float, end: float, weight: float) -> float:
    """From `start` at weight 0 to `end` at weight 1, exact at both.

    start + weight * (end - start) would miss `end` by a rounding.
    """
    return (1.0 - weight) * start + weight * end


def half_cosine(fraction: float) -> float:
    """A weight that rises from 0 at fraction 0 to 1 at fraction 1, flat at both ends."""
    return 0.5 * (1.0 - math.cos(math.pi * fraction))


def as_float(expected: str, value: Any) -> float:
    """Any number as a float, infinite and NaN included; `expected` begins the message otherwise."""
    is_text = isinstance(
        value, (str, bytes, bytearray)
    )  # which float() would take, as it would bool
    is_bool = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
    try:
        if is_text or is_bool:
            raise TypeError
        return float(value)
    except OverflowError:
        raise ValueError(f"{expected}, got {value!r}") from None
    except (TypeError, ValueError):
        raise TypeError(f"{expected}, got {type(value).__name__}: {value!r}") from None


def number(
    name: str, value: Any, low: float = 0.0, high: float = math.inf, bounds: str = "[)"
) -> float:
    """A number in the interval from `low` to `high`, with `bounds` in the usual notation."""
    expected = f"{name} must be a number in {bounds[0]}{low:g}, {high:g}{bounds[1]}"
    result = as_float(expected, value)
    inside_low = low <= result if bounds[0] == "[" else low < result
    inside_high = result <= high if bounds[1] == "]" else result < high
    if not (inside_low and inside_high):  # in this form also true of NaN
        raise ValueError(f"{expected}, got {value!r}")
    return result


def integer(name: str, value: Any, least: int = 0) -> int:
    """An integer of at least `least`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        result = index(value)
    except TypeError:
        raise TypeError(
            f"{name} must be an integer, got {type(value).__name__}: {value!r}"
        ) from None
    if result < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    return result


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


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    """One of the strings `options`."""
    expected = f"{name} must be one of {', '.join(map(repr, options))}"
    if not isinstance(value, str):
        raise TypeError(f"{expected}, got {type(value).__name__}: {value!r}")
    if value not in options:
        raise ValueError(f"{expected}, got {value!r}")
    return value


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__}: {value!r}")
    return value
