"""What a hyperparameter may be: one check for each kind, and the annotation that declares it.

A check takes (name, value) and returns the value in its normal form, or raises TypeError or ValueError
naming the hyperparameter. A signature carries it beside the type: `lr: NonNegative = 1e-3`. Any number
may instead be a schedule, a function of the step count; its values pass the same check when used.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

from fastgd._arguments import flag, number
from fastgd._arrays.formats import STATE_DTYPES

Check: TypeAlias = Callable[[str, Any], Any]
Values: TypeAlias = dict[str, Any]
Number: TypeAlias = float | Callable[[int], float]  # or a schedule

# What the state of Adam's kind is, see _arrays/formats.py.
MOMENTS = {"exp_avg": "ratio exp_avg_sq", "exp_avg_sq": "square", "max_exp_avg_sq": "square"}

SCHEDULE = " or a function of the step"  # what else a number may be


def _schedule(name: str, value: Any) -> Any:
    """A function that can be called with the step; one that makes schedules is not meant.

    Raises: TypeError naming the hyperparameter.
    """
    if isinstance(value, type):
        raise TypeError(f"{name} must be a number{SCHEDULE}, got the class {value.__name__}")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # such as of a ufunc: a step will tell
        return value
    made = getattr(signature.return_annotation, "__name__", "") == "Schedule"
    try:
        signature.bind(0)
    except TypeError as error:
        problem = str(error)
    else:
        if not made:
            return value
        problem = "it makes schedules"
    call = getattr(value, "__name__", repr(value))
    fix = f"{call}(…)" if made else "lambda step: …"
    raise TypeError(
        f"{name} must be a number{SCHEDULE}: {call} cannot be called with the step alone ({problem}); "
        f"pass {fix}"
    )


def real(name: str, value: Any) -> Any:
    """A finite number as a float, or a schedule as it is."""
    if callable(value):
        return _schedule(name, value)
    return number(name, value, -math.inf, bounds="()", also=SCHEDULE)


def nonnegative(name: str, value: Any) -> Any:
    """A finite number of at least 0, or a schedule."""
    if type(value) is float and 0.0 <= value < math.inf:  # a schedule's, on the way of every step
        return value
    return _schedule(name, value) if callable(value) else number(name, value, also=SCHEDULE)


def fraction(name: str, value: Any) -> Any:
    """A number in [0, 1), or a schedule."""
    if type(value) is float and 0.0 <= value < 1.0:  # as in nonnegative
        return value
    return (
        _schedule(name, value) if callable(value) else number(name, value, 0.0, 1.0, also=SCHEDULE)
    )


def fraction_up_to_one(name: str, value: Any) -> Any:
    """A number in [0, 1], or a schedule."""
    return (
        _schedule(name, value)
        if callable(value)
        else number(name, value, 0.0, 1.0, "[]", also=SCHEDULE)
    )


def _members(name: str, value: Any, expected: str) -> tuple[Any, ...]:
    """Of a sequence or an array of one dimension."""
    is_text = isinstance(value, (str, bytes, bytearray))
    if (isinstance(value, Sequence) and not is_text) or getattr(value, "ndim", 0) == 1:
        return tuple(value)
    raise TypeError(f"{name} must be {expected}, got {value!r}")


def several(count: int) -> Check:
    """So many fractions, each a number or a schedule."""
    words = {2: "a pair of", 3: "three"}[count]

    def check(name: str, value: Any) -> Any:
        value = _members(name, value, f"{words} numbers in [0, 1)")
        if len(value) != count:
            raise ValueError(f"{name} must be {words} numbers in [0, 1), got {value!r}")
        return tuple(fraction(f"{name}[{i}]", part) for i, part in enumerate(value))

    return check


def positive(name: str, value: Any) -> Any:
    """A finite number greater than 0, or a schedule."""
    return (
        _schedule(name, value)
        if callable(value)
        else number(name, value, bounds="()", also=SCHEDULE)
    )


def optional(check: Check) -> Check:
    """The same, or None."""

    def checked(name: str, value: Any) -> Any:
        return None if value is None else check(name, value)

    return checked


def ordered(first: Check, second: Check) -> Check:
    """A number of each of these kinds, the second no smaller; no schedules."""

    def check(name: str, value: Any) -> Any:
        value = _members(name, value, "a pair of numbers")
        if len(value) != 2:
            raise ValueError(f"{name} must be a pair of numbers, got {value!r}")
        if callable(value[0]) or callable(value[1]):
            raise TypeError(f"{name} must be a pair of numbers, got {value!r}")
        low, high = first(f"{name}[0]", value[0]), second(f"{name}[1]", value[1])
        if low > high:
            raise ValueError(f"{name} must be a pair of numbers in order, got {value!r}")
        return low, high

    return check


def limit(name: str, value: Any) -> Any:
    """A positive number, a schedule, or None for no limit."""
    if value is None or callable(value):
        return value if value is None else _schedule(name, value)
    return number(name, value, bounds="()", also=f"{SCHEDULE}, or None for no clipping")


Real: TypeAlias = Annotated[Number, real]
NonNegative: TypeAlias = Annotated[Number, nonnegative]
Positive: TypeAlias = Annotated[Number, positive]
Fraction: TypeAlias = Annotated[Number, fraction]
FractionUpToOne: TypeAlias = Annotated[Number, fraction_up_to_one]
Fractions: TypeAlias = Annotated[tuple[Number, Number], several(2)]
ThreeFractions: TypeAlias = Annotated[tuple[Number, Number, Number], several(3)]
Flag: TypeAlias = Annotated[bool, flag]


def state_dtype(name: str, value: Any) -> Any:
    """One of the formats in which state can be stored."""
    if value not in STATE_DTYPES or not (value is None or isinstance(value, str)):
        raise ValueError(f"{name} must be {', '.join(map(repr, STATE_DTYPES))}, got {value!r}")
    return value


def directory(name: str, value: Any) -> Any:
    """None, or the path of a directory in which files can be made, as a string."""
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be the path of a directory or None, got {value!r}")
    path = os.fsdecode(value)
    if not os.path.isdir(path):
        raise ValueError(f"{name}: there is no directory {path!r}; make it first")
    return path


class Options(TypedDict, total=False):
    """What every optimizer takes besides its own hyperparameters, by keyword."""

    maximize: bool
    state_dtype: Literal["bfloat16", "8bit"] | None
    state_dir: str | os.PathLike[str] | None
    clip_norm: Number | None
    clip_value: Number | None
    nonfinite: Literal["propagate", "raise", "skip"]


def is_scheduled(value: Any) -> bool:
    return callable(value) or (isinstance(value, tuple) and any(map(callable, value)))


def evaluate(check: Check, name: str, value: Any, step: int) -> Any:
    """The value at `step`, checked."""
    if isinstance(value, tuple):
        value = tuple(part(step) if callable(part) else part for part in value)
    elif callable(value):
        value = value(step)
    value = check(name, value)
    if is_scheduled(value):
        raise TypeError(
            f"{name}: the schedule returned a function at step {step}, expected a number"
        )
    return value
