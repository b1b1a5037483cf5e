"""The rows over which every generic test runs: each option of each optimizer, and errors.

They come from the files in tests/specs, one for each optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.specs import SPECS
from tests.specs._spec import (
    COMMON,
    ErrorCase,
    Spec,
    fading_decay,
    falling,
    rising_beta,
    shrinking_eps,
    wavy,
)


@dataclass(frozen=True)
class Case:
    """One way to make one optimizer."""

    name: str
    optimizer: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        return SPECS[self.optimizer]

    @property
    def hyper(self) -> dict[str, Any]:
        return {**self.spec.defaults, **COMMON, **self.kwargs}

    @property
    def slots(self) -> tuple[str, ...]:
        """The arrays of the state."""
        return self.spec.state(self.hyper)

    @property
    def clips_norm(self) -> bool:
        return "clip_norm" in self.kwargs

    @property
    def whole(self) -> bool:
        """Whether an element of a step depends on others of its array, apart from clipping."""
        return self.spec.whole(self.hyper)

    @property
    def ulps(self) -> int:
        """The budget of a step: 0 for the bits of the reference."""
        return self.spec.ulps if self.whole else 0

    @property
    def elementwise(self) -> bool:
        """Whether an element of a step depends on no other."""
        return not self.whole and not self.clips_norm

    @property
    def in_torch(self) -> bool:
        """Whether torch.optim has the same rule; it adds 1e-6 to the norm when it clips."""
        ours = {name for name, h in self.spec.hyper.items() if h.ours}
        ours |= {"clip_norm", "clip_value", "nonfinite"}
        return self.spec.torch is not None and ours.isdisjoint(self.kwargs)

    def __str__(self) -> str:
        return self.name


ALL_CASES = [
    Case(f"{optimizer}-{name}", optimizer, kwargs)
    for optimizer, spec in SPECS.items()
    for name, kwargs in spec.cases.items()
]
# For arrays of any shape, with nothing but gradients.
CASES = [case for case in ALL_CASES if not case.spec.matrices and not case.spec.needs_loss]

NAN = math.nan
# What belongs to an optimizer as a whole.
OPTION_ERRORS = [
    *(
        ErrorCase(f"{name}={value}", {name: value}, ValueError, (rf"\b{name}\b",))
        for name in ("clip_norm", "clip_value")
        for value in (-0.5, 0.0, NAN)
    ),
    ErrorCase(
        "nonfinite=ignore",
        {"nonfinite": "ignore"},
        ValueError,
        (r"\bnonfinite\b", "ignore", "propagate", "raise", "skip"),
    ),
    ErrorCase("unknown", {"rate": 0.1}, TypeError, (r"\brate\b",)),
    ErrorCase("clip_norm-text", {"clip_norm": "1"}, TypeError, ("clip_norm",)),
]


def _pattern(value: float) -> str:
    return str(value).replace(".", r"\.").removesuffix(r"\.0")


def _single(name: str, refused: tuple[float, ...]) -> Iterator[ErrorCase]:
    """Numbers outside the documented range: the message names the argument and the value."""
    for value in refused:
        matches = (rf"\b{name}\b", _pattern(value))
        yield ErrorCase(f"{name}={value}", {name: value}, ValueError, matches)
    for text in ("0.1", None, [0.1], 1j):
        yield ErrorCase(f"{name}={text!r}", {name: text}, TypeError, (rf"\b{name}\b",))


def _several(
    name: str, refused: tuple[float, ...], default: tuple[Any, ...]
) -> Iterator[ErrorCase]:
    for i in range(len(default)):
        for value in refused:
            values = (*default[:i], value, *default[i + 1 :])
            matches = (rf"\b{name}\b", _pattern(value))
            yield ErrorCase(f"{name}[{i}]={value}", {name: values}, ValueError, matches)
    for given, exception in (
        (default[:1], ValueError),
        ((*default, 0.5), ValueError),
        (0.9, TypeError),
        (("0.9", *default[1:]), TypeError),
    ):
        yield ErrorCase(f"{name}={given!r}", {name: given}, exception, (rf"\b{name}\b",))


def _errors(spec: Spec) -> Iterator[ErrorCase]:
    for name, h in spec.hyper.items():
        if h.kind.count == 1:
            yield from _single(name, h.kind.refused)
        elif h.kind.count > 1:
            yield from _several(name, h.kind.refused, h.default)
    yield from OPTION_ERRORS
    yield from spec.errors


ERROR_CASES = [
    replace(case, name=f"{optimizer}-{case.name}", optimizer=optimizer)
    for optimizer, spec in SPECS.items()
    for case in _errors(spec)
]

__all__ = [
    "ALL_CASES",
    "CASES",
    "ERROR_CASES",
    "Case",
    "ErrorCase",
    "fading_decay",
    "falling",
    "rising_beta",
    "shrinking_eps",
    "wavy",
]
