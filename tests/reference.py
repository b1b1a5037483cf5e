"""Every optimizer rule in plain NumPy: the oracle of the tests.

A rule is a function (p, g, state, h, t, fma) -> (new p, new state): one parameter array, its
gradient in the same dtype, its state slots, the hyperparameters as numbers, and the number of
this step for this array (1 at the first). Nothing is changed in place. Coefficients are Python
floats, rounded once to the parameter's dtype by `_number`; everything else is computed in that
dtype, rounding where the documentation of the optimizers says so. `Reference` drives the rules
over named arrays as an optimizer object does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from tests.fma import Array, MultiplyAdd, fused, rounded_twice

State: TypeAlias = dict[str, Array]
Hyper: TypeAlias = Mapping[str, Any]
Rule: TypeAlias = Callable[[Array, Array, State, Hyper, int, MultiplyAdd], tuple[Array, State]]

DEFAULTS: dict[str, dict[str, Any]] = {
    "SGD": {
        "lr": 1e-3,
        "momentum": 0,
        "dampening": 0,
        "weight_decay": 0,
        "nesterov": False,
        "lr_in_momentum": False,
    },
    "Adam": {
        "lr": 1e-3,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0,
        "amsgrad": False,
        "eps_hat": False,
    },
    "AdamW": {
        "lr": 1e-3,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 1e-2,
        "amsgrad": False,
        "eps_hat": False,
    },
    "Adagrad": {
        "lr": 1e-2,
        "lr_decay": 0,
        "weight_decay": 0,
        "initial_accumulator_value": 0,
        "eps": 1e-10,
        "eps_inside": False,
    },
    "RMSprop": {
        "lr": 1e-2,
        "alpha": 0.99,
        "eps": 1e-8,
        "weight_decay": 0,
        "momentum": 0,
        "centered": False,
        "eps_inside": False,
        "lr_in_momentum": False,
    },
}
COMMON: dict[str, Any] = {
    "maximize": False,
    "clip_norm": None,
    "clip_value": None,
    "nonfinite": "propagate",
}
OPTIMIZERS = tuple(DEFAULTS)


def _number(p: Array, coefficient: float) -> Any:
    return p.dtype.type(coefficient)


def lerp(start: Array, end: Array, keep: float, p: Array, fma: MultiplyAdd) -> Array:
    """keep * start + (1 - keep) * end from the nearer end, as torch.lerp."""
    weight = 1.0 - keep
    if _number(p, weight) < 0.5:
        return fma(_number(p, weight), end - start, start)
    return fma(_number(p, keep), start - end, end)


def l2(p: Array, g: Array, h: Hyper, fma: MultiplyAdd) -> Array:
    """The gradient with the L2 penalty's: g + weight_decay * p."""
    return fma(_number(p, h["weight_decay"]), p, g) if h["weight_decay"] else g


def sgd(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    g = l2(p, g, h, fma)
    if "momentum_buffer" not in state:
        return fma(_number(p, -h["lr"]), g, p), {}
    inside, outside = (h["lr"], 1.0) if h["lr_in_momentum"] else (1.0, h["lr"])
    undamped = 1.0 if t == 1 else 1.0 - h["dampening"]
    momentum = _number(p, h["momentum"])
    buffer = fma(momentum, state["momentum_buffer"], _number(p, undamped * inside) * g)
    direction = fma(momentum, buffer, _number(p, inside) * g) if h["nesterov"] else buffer
    return fma(_number(p, -outside), direction, p), {"momentum_buffer": buffer}


def adam(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    return _adam(p, l2(p, g, h, fma), state, h, t, fma)


def adamw(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    decayed = p * _number(p, 1.0 - h["lr"] * h["weight_decay"])
    return _adam(decayed, g, state, h, t, fma)


def _adam(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    beta1, beta2 = h["betas"]
    root = math.sqrt(1.0 - beta2**t)
    eps = h["eps"] / root if h["eps_hat"] else h["eps"]
    m = lerp(state["exp_avg"], g, beta1, p, fma)
    v = fma(_number(p, beta2), state["exp_avg_sq"], _number(p, 1.0 - beta2) * g * g)
    new = {"exp_avg": m, "exp_avg_sq": v}
    if h["amsgrad"]:
        v = new["max_exp_avg_sq"] = np.maximum(state["max_exp_avg_sq"], v)
    denominator = fma(np.sqrt(v), _number(p, 1.0 / root), _number(p, eps))
    return fma(_number(p, -(h["lr"] / (1.0 - beta1**t))), m / denominator, p), new


def _rooted(p: Array, square: Array, h: Hyper) -> Array:
    """The denominator with epsilon outside the root (the default) or inside it."""
    inside, outside = (h["eps"], 0.0) if h["eps_inside"] else (0.0, h["eps"])
    return np.asarray(np.sqrt(square + _number(p, inside)) + _number(p, outside))


def adagrad(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    g = l2(p, g, h, fma)
    total = fma(g, g, state["sum"])
    lr = h["lr"] / (1.0 + (t - 1) * h["lr_decay"])
    return fma(_number(p, -lr), g / _rooted(p, total, h), p), {"sum": total}


def rmsprop(
    p: Array, g: Array, state: State, h: Hyper, t: int, fma: MultiplyAdd
) -> tuple[Array, State]:
    g = l2(p, g, h, fma)
    alpha = h["alpha"]
    v = fma(_number(p, alpha), state["square_avg"], _number(p, 1.0 - alpha) * g * g)
    new = {"square_avg": v}
    if h["centered"]:
        a = lerp(state["grad_avg"], g, alpha, p, fma)
        new["grad_avg"] = a
        v = np.maximum(fma(-a, a, v), _number(p, 0.0))
    direction = g / _rooted(p, v, h)
    if "momentum_buffer" not in state:
        return fma(_number(p, -h["lr"]), direction, p), new
    inside, outside = (h["lr"], 1.0) if h["lr_in_momentum"] else (1.0, h["lr"])
    buffer = fma(
        _number(p, h["momentum"]), state["momentum_buffer"], _number(p, inside) * direction
    )
    new["momentum_buffer"] = buffer
    return fma(_number(p, -outside), buffer, p), new


RULES: dict[str, Rule] = {
    "SGD": sgd,
    "Adam": adam,
    "AdamW": adamw,
    "Adagrad": adagrad,
    "RMSprop": rmsprop,
}


def slots(optimizer: str, h: Hyper) -> tuple[str, ...]:
    """The state arrays of a rule, in PyTorch's names; `h` may hold schedules."""
    momentum = ("momentum_buffer",) if h.get("momentum") else ()
    if optimizer == "SGD":
        return momentum
    if optimizer == "Adagrad":
        return ("sum",)
    if optimizer == "RMSprop":
        return ("square_avg", *momentum, *(("grad_avg",) if h["centered"] else ()))
    return ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if h["amsgrad"] else ()))


def at_step(h: Hyper, step: int) -> dict[str, Any]:
    """Hyperparameters as numbers: every schedule evaluated after `step` steps."""

    def value(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(map(value, x))
        return x(step) if callable(x) else x

    return {name: value(x) for name, x in h.items()}


def global_norm(gradients: list[Array]) -> float:
    """The square root of the sum of all squares, that sum exact before it is rounded."""
    squares = [np.square(g.ravel(), dtype=np.float64) for g in gradients]
    return math.sqrt(math.fsum(x for square in squares for x in square.tolist()))


class Reference:
    """One optimizer over named arrays; `overrides` holds a group's own values, by array name.

    `params` and `state` map names to the current arrays, which are replaced, never written.
    `multiply_add` is `fused`, or `rounded_twice` for an engine build without fma.
    """

    def __init__(
        self,
        optimizer: str,
        params: Mapping[str, Array],
        *,
        overrides: Mapping[str, Hyper] | None = None,
        multiply_add: MultiplyAdd = fused,
        **options: Any,
    ) -> None:
        base = {**DEFAULTS[optimizer], **COMMON, **options}
        self.rule = RULES[optimizer]
        self.keeps_squares = optimizer != "SGD"
        self.fma = multiply_add
        self.options = {name: base.pop(name) for name in ("clip_norm", "clip_value", "nonfinite")}
        self.params = {name: p.copy() for name, p in params.items()}
        self.hyper = {name: {**base, **(overrides or {}).get(name, {})} for name in params}
        self.steps = dict.fromkeys(params, 0)
        self.step_count = 0
        self.grad_norm: float | None = None
        self.state: dict[str, State] = {}
        for name, p in params.items():
            initial = self.hyper[name].get("initial_accumulator_value", 0)
            names = slots(optimizer, self.hyper[name])
            self.state[name] = {slot: np.full_like(p, initial) for slot in names}

    def step(
        self,
        grads: Mapping[str, Array | None],
        grad_scale: float = 1.0,
        *,
        norm: float | None = None,
    ) -> bool:
        """One step. `norm`, when given, stands for the exact global norm.

        The order in which an engine adds the squares is its own; a test compares the norm that
        it reports with `global_norm` first, and then passes it here to compare the rest exactly.
        """
        with np.errstate(all="ignore"):
            live = {name: np.asarray(g) for name, g in grads.items() if g is not None}
            factor = grad_scale * self._clip_coefficient(live, grad_scale, norm)
            if self._refused(live, factor):
                return False
            for name, g in live.items():
                self._step_one(name, g, factor)
        self.step_count += 1
        return True

    def _refused(self, live: Mapping[str, Array], factor: float) -> bool:
        if self.options["nonfinite"] == "propagate":
            return False
        bad = [name for name, g in live.items() if not self._is_usable(name, g, factor)]
        if bad and self.options["nonfinite"] == "raise":
            raise FloatingPointError(bad[0])
        return bool(bad)

    def _is_usable(self, name: str, g: Array, factor: float) -> bool:
        """Finite as the rule takes it; and so is its square, where the rule keeps such."""
        size = global_norm([g])
        scaled = size * (abs(factor) if math.isfinite(factor) else 1.0)
        info = np.finfo(self.params[name].dtype)
        largest = 2.0 ** (info.maxexp // 2) if self.keeps_squares else float(info.max)
        limit = self.options["clip_value"]
        return size < math.inf and min(scaled, math.inf if limit is None else limit) <= largest

    def _clip_coefficient(
        self, live: Mapping[str, Array], grad_scale: float, norm: float | None
    ) -> float:
        self.grad_norm = None
        if self.options["clip_norm"] is None and self.options["nonfinite"] == "propagate":
            return 1.0
        self.grad_norm = (
            abs(grad_scale) * global_norm(list(live.values())) if norm is None else norm
        )
        if self.options["clip_norm"] is None or self.grad_norm == 0:
            return 1.0
        return min(1.0, float(self.options["clip_norm"]) / self.grad_norm)

    def _step_one(self, name: str, g: Array, factor: float) -> None:
        p = self.params[name]
        h = at_step(self.hyper[name], self.step_count)
        sign = -1.0 if h["maximize"] else 1.0
        if g.dtype == np.float64 or not 2.0**-100 < abs(factor) < 2.0**100:
            g = (g.astype(np.float64) * (sign * factor)).astype(p.dtype)
        else:
            g = g.astype(p.dtype) * _number(p, sign * factor)
        if self.options["clip_value"] is not None:
            limit = _number(p, self.options["clip_value"])
            g = np.clip(g, -limit, limit)
        self.steps[name] += 1
        new, self.state[name] = self.rule(p, g, self.state[name], h, self.steps[name], self.fma)
        self.params[name] = np.asarray(new)


__all__ = [
    "COMMON",
    "DEFAULTS",
    "OPTIMIZERS",
    "RULES",
    "Reference",
    "at_step",
    "fused",
    "global_norm",
    "rounded_twice",
    "slots",
]
