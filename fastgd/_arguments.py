"""Checks of arguments: a number, an integer, a flag, one of a few strings.

A check takes the argument's name and value and returns the value in its normal form, so that things
made from 1, 1.0 and numpy.float64(1) are equal, or raises TypeError or ValueError naming the argument.
(What else a hyperparameter may be, such as a schedule, stands in _hyperparameters.)
"""

from __future__ import annotations

import math
from operator import index

import numpy as np

TYPE_CHECKING = False  # typing and collections.abc would take longer to import than everything here
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def as_float(expected: str, value: Any) -> float:
    """Any number as a float, infinite and NaN included; `expected` begins the message otherwise."""
    # All of these float() would take.
    is_text = isinstance(value, (str, bytes, bytearray))
    is_bool = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
    is_array = getattr(value, "ndim", 0) > 0
    try:
        if is_text or is_bool or is_array:
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


def integer(name: str, value: Any, least: int = 0, hint: str = "") -> int:
    """An integer of at least `least`; `hint` ends the message otherwise."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        result = index(value)
    except TypeError:
        raise TypeError(
            f"{name} must be an integer, got {type(value).__name__}: {value!r}{hint}"
        ) from None
    if result < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}{hint}")
    return result


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__}: {value!r}")
    return bool(value)


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    """One of the strings `options`."""
    expected = f"{name} must be one of {', '.join(map(repr, options))}"
    if not isinstance(value, str):
        raise TypeError(f"{expected}, got {type(value).__name__}: {value!r}")
    if value not in options:
        raise ValueError(f"{expected}, got {value!r}")
    return value
