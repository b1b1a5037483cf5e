"""Checks of arguments: a number, an integer, a flag, one of a few strings.

A check takes the argument's name and value and returns the value in its normal form, so that things
made from 1, 1.0 and numpy.float64(1) are equal, or raises TypeError or ValueError naming the argument.
(What else a hyperparameter may be, such as a schedule, stands in _hyperparameters.)
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping
from operator import index
from typing import Any

import numpy as np

NO_NUMBERS = ("bool", "complex", "time", "<U", ">U", "|S")  # in the names of dtypes


def as_float(expected: str, value: Any) -> float:
    """Any number as a float, infinite and NaN included; `expected` begins the message otherwise."""
    try:
        return _converted(value)
    except OverflowError:
        raise ValueError(f"{expected}, got a number beyond a double's range") from None
    except (TypeError, ValueError):
        raise TypeError(f"{expected}, got {type(value).__name__}: {value!r}") from None


def number(
    name: str,
    value: Any,
    low: float = 0.0,
    high: float = math.inf,
    bounds: str = "[)",
    also: str = "",
) -> float:
    """A number in the interval from `low` to `high`, with `bounds` in the usual notation.

    `also` says in the message what else the argument may be, which the caller has looked for.
    """
    try:
        result = _converted(value)
        above = low <= result if bounds[0] == "[" else low < result
        below = result <= high if bounds[1] == "]" else result < high
        if above and below:  # neither is true of NaN
            return result
    except (TypeError, ValueError, OverflowError):
        pass
    expected = f"{name} must be a number in {bounds[0]}{low:g}, {high:g}{bounds[1]}{also}"
    as_float(expected, value)
    raise ValueError(f"{expected}, got {value!r}")


def _converted(value: Any) -> float:
    """float(value), but of numbers only."""
    if type(value) is float:
        return value
    # All of these float() would take, of complex numbers the real part.
    kind = str(getattr(value, "dtype", ""))
    if (
        isinstance(value, (str, bytes, bytearray, bool))
        or getattr(value, "ndim", 0) > 0
        or any(other in kind for other in NO_NUMBERS)
    ):
        raise TypeError
    return float(value)


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


def suggestion(
    name: Any, known: Iterable[str], other_names: Mapping[str, str] | None = None
) -> str:
    """'; did you mean …?' for a name that is not known, or nothing.

    `other_names` says what elsewhere is called otherwise.
    """
    by_lower = {other.lower(): other for other in known}
    lower = str(name).lower()
    same = (other_names or {}).get(lower)
    close = [same] if same in by_lower else difflib.get_close_matches(lower, by_lower, 1, 0.65)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


def refuse_late(thing: Any, name: str, value: Any) -> None:
    """Refuse to assign an argument of a thing's constructor, which would do nothing.

    Raises: AttributeError that says what to do.
    """
    kind = type(thing)
    if name.startswith("_") or hasattr(kind, name) or name in vars(thing):
        return
    known = inspect.signature(kind.__init__).parameters.keys() - {"self"}
    hint = suggestion(name, known)
    if name in known or hint:
        raise AttributeError(
            f"{kind.__name__} has no attribute {name!r} to assign: it is decided when the object is "
            f"made, {kind.__name__}(…, {name}={value!r}){'' if name in known else hint}"
        )


def describe(value: Any) -> str:
    """What was given instead of a tree or an array, in a few words."""
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of length {len(value)}"
    if isinstance(value, dict):
        return f"a dict with the keys {list(value)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return f"{type(value).__module__}.{type(value).__qualname__}"
