"""What every schedule is, what is in one, interpolations, and lists among the arguments of several.

A factory such as `cosine` is its signature, which names, types and checks its arguments, and a body
that makes a formula of the checked ones, a function of a checked step; `schedule` does the rest. A
schedule is its factory and arguments: printing, comparing and pickling use those, so a formula may be
any closure.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, ParamSpec, SupportsIndex, TypeAlias, get_args

from fastgd._arguments import choice, integer, number, suggestion

Formula: TypeAlias = Callable[[int], float]
P = ParamSpec("P")
# What other libraries call arguments.
OTHER_NAMES = {
    **dict.fromkeys(("t_max", "total_iters", "num_steps", "decay_steps", "steps"), "total_steps"),
    **dict.fromkeys(("num_training_steps", "num_iterations"), "total_steps"),
    **dict.fromkeys(("num_warmup_steps", "warmup", "warmup_iters"), "warmup_steps"),
    **dict.fromkeys(("eta_min", "min_lr", "end_value", "final_lr"), "final"),
    **dict.fromkeys(("base_lr", "learning_rate", "initial_lr", "init_value"), "lr"),
    **dict.fromkeys(("decay_rate", "factor", "decay"), "gamma"),
    "peak_value": "lr",
    "t_0": "period",
    "t_mult": "multiplier",
    "boundaries": "milestones",
}


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

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise AttributeError(
                f"a schedule cannot be changed: make another, "
                f"{self._factory.__name__}(…, {name}={value!r}), and assign it to the group"
            )
        super().__setattr__(name, value)

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

    @property
    def arguments(self) -> dict[str, Any]:
        """What it was made of, by name, as a copy."""
        return dict(self._arguments)

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


def schedule(define: Callable[P, Formula], **instead: str) -> Callable[P, Schedule]:
    """Make a factory of schedules of a function that takes checked arguments and returns the formula.

    Each argument's annotation is Annotated[type, check], where check(name, value) returns the value in
    its normal form or raises TypeError or ValueError naming it. `instead` names the argument whose
    value an argument has that is None.
    """
    signature = inspect.signature(define, eval_str=True)
    checks = {name: get_args(p.annotation)[1] for name, p in signature.parameters.items()}

    @functools.wraps(define)
    def factory(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{define.__name__}: {_explained(error, kwargs, signature)}") from None
        bound.apply_defaults()
        checked: Any = {name: checks[name](name, x) for name, x in bound.arguments.items()}
        for name, other in instead.items():
            checked[name] = checked[other] if checked[name] is None else checked[name]
        return Schedule(factory, define(**checked), **checked)  # type: ignore[call-arg]

    plain = [p.replace(annotation=get_args(p.annotation)[0]) for p in signature.parameters.values()]
    factory.__signature__ = inspect.Signature(plain, return_annotation=Schedule)  # type: ignore[attr-defined]
    return factory


def _explained(error: TypeError, given: Iterable[str], signature: inspect.Signature) -> str:
    """What is wrong with a call: the name that it got wrong, rather than the one that is missing."""
    known = signature.parameters
    for name in given:
        if name not in known:
            hint = suggestion(name, known, OTHER_NAMES)
            return f"got an unexpected argument {name!r}{hint or '; it has ' + ', '.join(known)}"
    return str(error)


def _make(factory: Callable[..., Schedule], arguments: dict[str, Any]) -> Schedule:
    return factory(**arguments)


def end_of(value: Any) -> int | None:
    """The step from which a schedule keeps its value; None if it has none, or is no schedule."""
    return value._arguments.get("total_steps") if isinstance(value, Schedule) else None


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


def levels(name: str, values: Any) -> tuple[float, ...]:
    """Numbers of at least 0."""
    return tuple(number(f"{name}[{i}]", x) for i, x in enumerate(items(name, values)))


def positive(name: str, value: Any) -> float:
    return number(name, value, bounds="()")


def share(name: str, value: Any) -> float:
    return number(name, value, 0.0, 1.0, "[]")


def at_least(least: int) -> Callable[[str, Any], int]:
    return lambda name, value: integer(name, value, least)


def one_of(options: Iterable[str]) -> Callable[[str, Any], str]:
    return lambda name, value: choice(name, value, options)


NonNegative: TypeAlias = Annotated[float, number]
Positive: TypeAlias = Annotated[float, positive]
Share: TypeAlias = Annotated[float, share]
Count: TypeAlias = Annotated[int, at_least(0)]
Steps: TypeAlias = Annotated[int, at_least(1)]
Increasing: TypeAlias = Annotated[Sequence[int], increasing]
Levels: TypeAlias = Annotated[Sequence[float], levels]
