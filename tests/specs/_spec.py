"""What a file of this folder says about one optimizer, and the arithmetic that its reference shares.

A reference rule is a function (p, g, state, h, t, fma) -> (new p, new state): one parameter array, its
gradient in the same dtype, its state (arrays, and the numbers that the rule keeps), the hyperparameters
as numbers, and the number of this step for this array (1 at the first). Nothing is changed in place.
Coefficients are Python floats, rounded once to the parameter's dtype by `number`; everything else is
computed in that dtype, rounding where the documentation of the optimizers says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tests.fma import Array, MultiplyAdd

State: TypeAlias = dict[str, Any]
Hyper: TypeAlias = Mapping[str, Any]
Rule: TypeAlias = Callable[[Array, Array, State, Hyper, int, MultiplyAdd], tuple[Array, State]]


class Item(NamedTuple):
    """An array of a rule whose sums run over all arrays."""

    p: Array
    g: Array
    state: State
    h: Hyper
    t: int
    loss: float


JointRule: TypeAlias = Callable[[list[Item], MultiplyAdd], list[tuple[Array, State]]]

COMMON: dict[str, Any] = {
    "maximize": False,
    "state_dtype": None,
    "state_dir": None,
    "clip_norm": None,
    "clip_value": None,
    "nonfinite": "propagate",
}

# --- arithmetic ---


def number(p: Array, coefficient: float) -> Any:
    return p.dtype.type(coefficient)


def lerp(start: Array, end: Array, keep: float, p: Array, fma: MultiplyAdd) -> Array:
    """keep * start + (1 - keep) * end from the nearer end, as torch.lerp."""
    weight = 1.0 - keep
    if number(p, weight) < 0.5:
        return fma(number(p, weight), end - start, start)
    return fma(number(p, keep), start - end, end)


def mean_square(average: Array, g: Array, keep: float, p: Array, fma: MultiplyAdd) -> Array:
    """keep * average + (1 - keep) * g²."""
    return fma(number(p, keep), average, number(p, 1.0 - keep) * g * g)


def l2(p: Array, g: Array, h: Hyper, fma: MultiplyAdd) -> Array:
    """The gradient with the L2 penalty's: g + weight_decay * p."""
    return fma(number(p, h["weight_decay"]), p, g) if h["weight_decay"] else g


def decayed(p: Array, g: Array, h: Hyper, decoupled: bool, fma: MultiplyAdd) -> tuple[Array, Array]:
    """Parameter and gradient after weight decay of either kind."""
    if decoupled:
        return p * number(p, 1.0 - h["lr"] * h["weight_decay"]), g
    return p, l2(p, g, h, fma)


def at_zero(value: Any) -> Any:
    """A hyperparameter at the first step."""
    return value(0) if callable(value) else value


def total(x: Array, y: Array | None = None) -> float:
    """The sum of x * y, or of x, exact before it is rounded."""
    wide = np.asarray(x, np.float64).ravel()
    return math.fsum((wide if y is None else wide * np.asarray(y, np.float64).ravel()).tolist())


# --- hyperparameters ---

_NAN, _INF = math.nan, math.inf


class Kind(NamedTuple):
    """What a hyperparameter may be: numbers that are refused, and how many numbers it is."""

    refused: tuple[float, ...]
    count: int = 1


REAL = Kind((_NAN, _INF))
NONNEGATIVE = Kind((-0.5, _NAN, _INF))
POSITIVE = Kind((-0.5, 0.0, _NAN, _INF))
FRACTION = Kind((-0.5, 1.0, 1.5, _NAN, _INF))
CLOSED_FRACTION = Kind((-0.5, 1.5, _NAN, _INF))  # [0, 1]
PAIR = Kind(FRACTION.refused, 2)
TRIPLE = Kind(FRACTION.refused, 3)
FLAG = Kind((), 0)
OTHER = Kind((), -1)  # a kind of its own, whose errors the file lists


class H(NamedTuple):
    """A hyperparameter as documented."""

    default: Any
    kind: Kind
    ours: bool = False  # keyword-only: PyTorch does not have it
    once: bool = False  # read when the state is made only


# --- schedules: functions of the number of steps taken, whose values are not round on purpose ---


def falling(step: int) -> float:
    return 0.05 / (1.0 + 0.3 * step)


def wavy(step: int) -> float:
    return 0.02 * (1.5 + math.sin(step))


def rising_beta(step: int) -> float:
    return 1.0 - 0.6 / (2.0 + step)


def fading_decay(step: int) -> float:
    return 0.1 * 0.7**step


def shrinking_eps(step: int) -> float:
    return 1e-3 * 0.5**step


# --- an optimizer ---


@dataclass(frozen=True)
class ErrorCase:
    """Constructor arguments that must be refused; the message must match every pattern."""

    name: str
    kwargs: Mapping[str, Any]
    exception: type[Exception]
    matches: tuple[str, ...]
    optimizer: str = ""

    def __str__(self) -> str:
        return self.name


def no_state(h: Hyper) -> tuple[str, ...]:
    return ()


def never(h: Hyper) -> bool:
    return False


def always(h: Hyper) -> bool:
    return True


def zeros(p: Array, h: Hyper) -> State:
    return {}


@dataclass(frozen=True)
class Spec:
    """An optimizer as its documentation describes it."""

    hyper: Mapping[str, H]  # in the order of the signature
    rule: Rule | JointRule
    state: Callable[[Hyper], tuple[str, ...]]  # names of its arrays; `h` may hold schedules
    cases: Mapping[str, Mapping[str, Any]]  # every option once, alone and together
    overrides: Sequence[Mapping[str, Any]]  # four groups that differ in everything
    first: Callable[[Array, Hyper], State] = zeros  # numbers; arrays that do not start at 0
    errors: Sequence[ErrorCase] = ()  # what is refused beside single values out of range
    # Entries of golden.json, with what their cases need beside the hyperparameters given there.
    golden: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # Cases of it that are told apart by other names: the arguments, or why there is none.
    golden_cases: Mapping[str, Mapping[str, Any] | str] = field(default_factory=dict)
    valid: Callable[[dict[str, Any]], dict[str, Any]] = (
        dict  # makes any values ones that go together
    )
    torch: str | None = None  # the class of torch.optim
    keeps_squares: bool = True
    whole: Callable[[Hyper], bool] = (
        never  # whether an element's step depends on the array's others
    )
    # Where it depends on sums whose order is the engine's own: the error of a step in units in the last
    # place of the largest element. 0: the bits are the reference's.
    ulps: int = 0
    joint: bool = False  # `rule` is a JointRule
    needs_loss: bool = False
    matrices: bool = False  # it updates arrays of two axes only
    row_wise: bool = False  # it keeps a number for each row, and updates arrays in C order only

    def having(self, **values: Any) -> dict[str, Any]:
        """Those of the hyperparameters that it has and that may change."""
        return {k: v for k, v in values.items() if k in self.hyper and not self.hyper[k].once}

    @property
    def defaults(self) -> dict[str, Any]:
        return {name: h.default for name, h in self.hyper.items()}
