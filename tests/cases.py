"""The registry of what every generic test runs over: each option of each optimizer, and errors.

Adding an optimizer means adding its rows here and its rule to reference.py; the tests follow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Schedules: functions of the number of steps taken. The values are not round numbers on purpose.


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


# Options that PyTorch does not have, or defines otherwise (it adds 1e-6 to the norm).
_NOT_IN_TORCH = frozenset(
    {"lr_in_momentum", "eps_hat", "eps_inside", "clip_norm", "clip_value", "nonfinite"}
)


@dataclass(frozen=True)
class Case:
    """One way to make one optimizer, and the state that it must have."""

    name: str
    optimizer: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    slots: tuple[str, ...] = ()

    @property
    def clips_norm(self) -> bool:
        """Whether the arrays of a step depend on one another."""
        return "clip_norm" in self.kwargs

    @property
    def in_torch(self) -> bool:
        """Whether torch.optim has the same rule."""
        return _NOT_IN_TORCH.isdisjoint(self.kwargs)

    def __str__(self) -> str:
        return self.name


def _sgd(name: str, **kwargs: Any) -> Case:
    slots = ("momentum_buffer",) if "momentum" in kwargs else ()
    return Case(f"SGD-{name}", "SGD", {"lr": 0.05, **kwargs}, slots)


def _adam(optimizer: str, name: str, **kwargs: Any) -> Case:
    slots = ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if "amsgrad" in kwargs else ()))
    return Case(f"{optimizer}-{name}", optimizer, {"lr": 0.02, **kwargs}, slots)


def _adagrad(name: str, **kwargs: Any) -> Case:
    return Case(f"Adagrad-{name}", "Adagrad", {"lr": 0.1, **kwargs}, ("sum",))


def _rmsprop(name: str, **kwargs: Any) -> Case:
    momentum = ("momentum_buffer",) if "momentum" in kwargs else ()
    centered = ("grad_avg",) if "centered" in kwargs else ()
    return Case(
        f"RMSprop-{name}", "RMSprop", {"lr": 0.02, **kwargs}, ("square_avg", *momentum, *centered)
    )


SGD_CASES = [
    Case("SGD-defaults", "SGD"),
    _sgd("plain"),
    _sgd("lr-zero", lr=0.0),
    _sgd("weight_decay", weight_decay=0.1),
    _sgd("maximize", maximize=True),
    _sgd("maximize-weight_decay", maximize=True, weight_decay=0.1),
    _sgd("momentum", momentum=0.9),
    _sgd("momentum-weight_decay", momentum=0.9, weight_decay=0.1),
    _sgd("momentum-maximize", momentum=0.9, maximize=True),
    _sgd("dampening", momentum=0.9, dampening=0.3),
    _sgd("dampening-one", momentum=0.5, dampening=1.0),
    _sgd("dampening-negative", momentum=0.7, dampening=-0.3),
    _sgd("nesterov", momentum=0.9, nesterov=True),
    _sgd("nesterov-weight_decay", momentum=0.9, nesterov=True, weight_decay=0.1, maximize=True),
    _sgd("lr_in_momentum", momentum=0.9, lr=falling, lr_in_momentum=True),
    _sgd("lr_in_momentum-dampening", momentum=0.9, dampening=0.3, lr=wavy, lr_in_momentum=True),
    _sgd("lr_in_momentum-nesterov", momentum=0.9, nesterov=True, lr=falling, lr_in_momentum=True),
    _sgd("lr_in_momentum-unused", lr=falling, lr_in_momentum=True),
    _sgd("schedules", lr=falling, weight_decay=fading_decay),
    _sgd("schedules-momentum", lr=wavy, momentum=rising_beta, dampening=fading_decay),
    _sgd("clip_norm", clip_norm=0.5, momentum=0.9),
    _sgd("clip_value", clip_value=0.5),
    _sgd("clip_both", clip_norm=5.0, clip_value=0.2, weight_decay=0.1, maximize=True),
]

ADAM_CASES = [
    case
    for name in ("Adam", "AdamW")
    for case in (
        Case(f"{name}-defaults", name, {}, ("exp_avg", "exp_avg_sq")),
        _adam(name, "lr"),
        _adam(name, "betas", betas=(0.6, 0.8)),
        _adam(name, "betas-zero", betas=(0.0, 0.0)),
        _adam(name, "eps", eps=0.1),
        _adam(name, "weight_decay", weight_decay=0.3),
        _adam(name, "weight_decay-zero", weight_decay=0.0),
        _adam(name, "amsgrad", amsgrad=True, betas=(0.9, 0.7)),
        _adam(name, "eps_hat", eps=1e-3, eps_hat=True),
        _adam(name, "eps_hat-amsgrad", eps=1e-3, eps_hat=True, amsgrad=True, weight_decay=0.3),
        _adam(name, "maximize", maximize=True, weight_decay=0.3),
        _adam(name, "schedules", lr=falling, eps=shrinking_eps, weight_decay=fading_decay),
        _adam(name, "schedule-beta1", betas=(rising_beta, 0.99)),
        _adam(name, "schedule-betas", betas=(0.9, rising_beta), amsgrad=True),
        _adam(name, "clip_norm", clip_norm=0.5),
        _adam(name, "clip_both", clip_norm=5.0, clip_value=0.2, maximize=True),
    )
]

ADAGRAD_CASES = [
    Case("Adagrad-defaults", "Adagrad", {}, ("sum",)),
    _adagrad("lr"),
    _adagrad("lr_decay", lr_decay=0.1),
    _adagrad("weight_decay", weight_decay=0.1),
    _adagrad("initial_accumulator_value", initial_accumulator_value=0.3),
    _adagrad("eps", eps=0.1),
    _adagrad("eps_inside", eps=1e-3, eps_inside=True),
    _adagrad("maximize", maximize=True, weight_decay=0.1),
    _adagrad("all", lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.3, eps=1e-3),
    _adagrad("schedules", lr=falling, lr_decay=fading_decay, eps=shrinking_eps),
    _adagrad("clip_norm", clip_norm=0.5),
    _adagrad("clip_both", clip_norm=5.0, clip_value=0.2, eps_inside=True),
]

RMSPROP_CASES = [
    Case("RMSprop-defaults", "RMSprop", {}, ("square_avg",)),
    _rmsprop("lr"),
    _rmsprop("alpha", alpha=0.6),
    _rmsprop("alpha-zero", alpha=0.0),
    _rmsprop("eps", eps=0.1),
    _rmsprop("eps_inside", eps=1e-3, eps_inside=True),
    _rmsprop("weight_decay", weight_decay=0.1),
    _rmsprop("maximize", maximize=True, weight_decay=0.1),
    _rmsprop("momentum", momentum=0.9),
    _rmsprop("momentum-lr_in_momentum", momentum=0.9, lr=falling, lr_in_momentum=True),
    _rmsprop("lr_in_momentum-unused", lr=falling, lr_in_momentum=True),
    _rmsprop("centered", centered=True, alpha=0.9),
    _rmsprop("centered-eps_inside", centered=True, alpha=0.9, eps=1e-3, eps_inside=True),
    _rmsprop("centered-momentum", centered=True, alpha=0.9, momentum=0.8, weight_decay=0.1),
    _rmsprop(
        "all",
        centered=True,
        momentum=0.8,
        eps=1e-3,
        eps_inside=True,
        lr_in_momentum=True,
        lr=wavy,
        maximize=True,
    ),
    _rmsprop("schedules", lr=wavy, alpha=rising_beta, eps=shrinking_eps, weight_decay=fading_decay),
    _rmsprop("schedules-momentum", lr=falling, momentum=rising_beta),
    _rmsprop("clip_norm", clip_norm=0.5, momentum=0.9),
    _rmsprop("clip_both", clip_norm=5.0, clip_value=0.2, centered=True),
]

CASES = [*SGD_CASES, *ADAM_CASES, *ADAGRAD_CASES, *RMSPROP_CASES]


@dataclass(frozen=True)
class ErrorCase:
    """Constructor arguments that must be refused; the message must match every pattern."""

    name: str
    optimizer: str
    kwargs: Mapping[str, Any]
    exception: type[Exception]
    matches: tuple[str, ...]

    def __str__(self) -> str:
        return self.name


def _out_of_range(optimizer: str, hyperparameter: str, *values: float) -> list[ErrorCase]:
    """Numbers outside the documented range: the message names the argument and the value."""
    return [
        ErrorCase(
            f"{optimizer}-{hyperparameter}={value}",
            optimizer,
            {hyperparameter: value},
            ValueError,
            (rf"\b{hyperparameter}\b", _pattern(value)),
        )
        for value in values
    ]


def _pattern(value: float) -> str:
    return str(value).replace(".", r"\.").removesuffix(r"\.0")


def _not_a_number(optimizer: str, hyperparameter: str) -> list[ErrorCase]:
    return [
        ErrorCase(
            f"{optimizer}-{hyperparameter}={value!r}",
            optimizer,
            {hyperparameter: value},
            TypeError,
            (rf"\b{hyperparameter}\b",),
        )
        for value in ("0.1", None, [0.1], 1j)
    ]


_NAN, _INF = math.nan, math.inf
_RANGES: dict[str, dict[str, tuple[float, ...]]] = {
    "SGD": {
        "lr": (-0.5, _NAN, _INF),
        "momentum": (-0.5, _NAN, _INF),
        "dampening": (_NAN, _INF),
        "weight_decay": (-0.5, _NAN, _INF),
    },
    "Adam": {
        "lr": (-0.5, _NAN, _INF),
        "eps": (-0.5, _NAN, _INF),
        "weight_decay": (-0.5, _NAN, _INF),
    },
    "AdamW": {
        "lr": (-0.5, _NAN, _INF),
        "eps": (-0.5, _NAN, _INF),
        "weight_decay": (-0.5, _NAN, _INF),
    },
    "Adagrad": {
        "lr": (-0.5, _NAN, _INF),
        "lr_decay": (-0.5, _NAN, _INF),
        "eps": (-0.5, _NAN, _INF),
        "weight_decay": (-0.5, _NAN, _INF),
        "initial_accumulator_value": (-0.5, _NAN, _INF),
    },
    "RMSprop": {
        "lr": (-0.5, _NAN, _INF),
        "alpha": (-0.5, 1.0, 1.5, _NAN, _INF),
        "eps": (-0.5, _NAN, _INF),
        "weight_decay": (-0.5, _NAN, _INF),
        "momentum": (-0.5, _NAN, _INF),
    },
}


def _common_errors(optimizer: str) -> list[ErrorCase]:
    return [
        *_out_of_range(optimizer, "clip_norm", -0.5, 0.0, _NAN),
        *_out_of_range(optimizer, "clip_value", -0.5, 0.0, _NAN),
        ErrorCase(
            f"{optimizer}-nonfinite=ignore",
            optimizer,
            {"nonfinite": "ignore"},
            ValueError,
            (r"\bnonfinite\b", "ignore", "propagate", "raise", "skip"),
        ),
        ErrorCase(f"{optimizer}-unknown", optimizer, {"rate": 0.1}, TypeError, (r"\brate\b",)),
        ErrorCase(
            f"{optimizer}-clip_norm-text", optimizer, {"clip_norm": "1"}, TypeError, ("clip_norm",)
        ),
    ]


def _betas_errors(optimizer: str) -> list[ErrorCase]:
    def error(name: str, betas: Any, exception: type[Exception], *matches: str) -> ErrorCase:
        kwargs = {"betas": betas}
        return ErrorCase(f"{optimizer}-{name}", optimizer, kwargs, exception, ("betas", *matches))

    return [
        error("beta1-one", (1.0, 0.9), ValueError, "1"),
        error("beta1-negative", (-0.5, 0.9), ValueError, r"-0\.5"),
        error("beta1-nan", (_NAN, 0.9), ValueError, "nan"),
        error("beta2-one", (0.9, 1.0), ValueError, "1"),
        error("beta2-negative", (0.9, -0.5), ValueError, r"-0\.5"),
        error("beta2-inf", (0.9, _INF), ValueError, "inf"),
        error("betas-one", (0.9,), ValueError),
        error("betas-three", (0.9, 0.99, 0.999), ValueError),
        error("betas-number", 0.9, TypeError),
        error("betas-text", ("0.9", 0.999), TypeError),
    ]


_NESTEROV = (r"\bnesterov\b", r"\bmomentum\b")

ERROR_CASES = [
    *(
        case
        for optimizer, ranges in _RANGES.items()
        for name, values in ranges.items()
        for case in (*_out_of_range(optimizer, name, *values), *_not_a_number(optimizer, name))
    ),
    *(case for optimizer in _RANGES for case in _common_errors(optimizer)),
    *_betas_errors("Adam"),
    *_betas_errors("AdamW"),
    ErrorCase("SGD-nesterov-alone", "SGD", {"nesterov": True}, ValueError, _NESTEROV),
    ErrorCase(
        "SGD-nesterov-dampening",
        "SGD",
        {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
        ValueError,
        (r"\bnesterov\b", r"\bdampening\b"),
    ),
]
