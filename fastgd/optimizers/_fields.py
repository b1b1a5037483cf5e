"""What a hyperparameter may be: one check for each kind, and the mapping that holds a group's.

A check takes (name, value) and returns the value in its normal form, or raises TypeError or ValueError
naming the hyperparameter. Any number may instead be a schedule, a function of the step count; its
values pass the same check when they are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, NoReturn, TypeAlias
from weakref import WeakMethod

from fastgd._arguments import number

Check: TypeAlias = Callable[[str, Any], Any]
Values: TypeAlias = dict[str, Any]

SCHEDULE = " or a function of the step"  # what else a number may be


def real(name: str, value: Any) -> Any:
    """A finite number as a float, or a schedule as it is."""
    if callable(value):
        return value
    return number(name, value, -math.inf, bounds="()", also=SCHEDULE)


def nonnegative(name: str, value: Any) -> Any:
    """A finite number of at least 0, or a schedule."""
    if type(value) is float and 0.0 <= value < math.inf:  # a schedule's, on the way of every step
        return value
    return value if callable(value) else number(name, value, also=SCHEDULE)


def fraction(name: str, value: Any) -> Any:
    """A number in [0, 1), or a schedule."""
    if type(value) is float and 0.0 <= value < 1.0:  # as in nonnegative
        return value
    return value if callable(value) else number(name, value, 0.0, 1.0, also=SCHEDULE)


def fractions(name: str, value: Any) -> Any:
    """A pair, each a fraction or a schedule of fractions."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be a pair of numbers in [0, 1), got {value!r}")
    if len(value) != 2:
        raise ValueError(f"{name} must be a pair of numbers in [0, 1), got {value!r}")
    return (fraction(f"{name}[0]", value[0]), fraction(f"{name}[1]", value[1]))


def limit(name: str, value: Any) -> Any:
    """A positive number, a schedule, or None for no limit."""
    if value is None or callable(value):
        return value
    return number(name, value, bounds="()", also=f"{SCHEDULE}, or None for no clipping")


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


class ParamGroup(MutableMapping[str, Any]):
    """One parameter group: its arrays under "params" and its hyperparameters.

    Assigning a hyperparameter checks it at once and takes effect at the next step. Keys cannot be
    added or removed, and the arrays change through the optimizer only. Two groups are equal if they
    are the same object: what is in them are arrays, which have no one truth value.
    """

    def __init__(
        self,
        params: list[Any],
        values: Values,
        checks: Mapping[str, Check],
        assign: Callable[[ParamGroup, Values], None],
    ) -> None:
        self._params = params
        self._checks = checks
        # Weak, or an optimizer and its state would stay until the garbage collector comes round.
        self._assign = WeakMethod(assign)
        self.store(values)

    def store(self, values: Values) -> None:
        """Replace the hyperparameters by others, already checked."""
        self.constants = values  # what a step reads, as long as nothing is scheduled
        self.scheduled = tuple(key for key, value in values.items() if is_scheduled(value))

    def values_at(self, step: int) -> Values:
        """The hyperparameters with every schedule evaluated at `step`, and checked."""
        values = dict(self.constants)
        for key in self.scheduled:
            values[key] = evaluate(self._checks[key], key, values[key], step)
        return values

    def __getitem__(self, key: str) -> Any:
        return list(self._params) if key == "params" else self.constants[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def update(self, other: Any = (), /, **values: Any) -> None:
        """Assign several hyperparameters at once, checked together: all of them or none."""
        changes = dict(other, **values)
        if "params" in changes:
            raise TypeError(
                "the arrays of a group cannot be assigned; use rebind() or add_param_group()"
            )
        assign = self._assign()
        if assign is None:
            raise ReferenceError("the optimizer of this parameter group no longer exists")
        assign(self, changes)

    def __delitem__(self, key: str) -> None:
        raise TypeError(f"a parameter group always has {key!r}; assign it another value instead")

    def __iter__(self) -> Iterator[str]:
        return iter(("params", *self.constants))

    def __len__(self) -> int:
        return 1 + len(self.constants)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a parameter group belongs to its optimizer and cannot be pickled or copied; dict(group) "
            "has what is in it"
        )

    # Mapping's compares as dicts do.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"ParamGroup({dict(self)!r})"


def epsilons(values: Values) -> tuple[float, float]:
    """(inside the root, outside it)."""
    return (values["eps"], 0.0) if values["eps_inside"] else (0.0, values["eps"])
