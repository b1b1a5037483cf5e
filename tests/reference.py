"""Every optimizer rule in plain NumPy: the oracle of the tests.

The rules are in tests/specs, one file for each optimizer; `Reference` drives them over named arrays as
an optimizer object does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.fma import Array, MultiplyAdd, fused, rounded_twice
from tests.specs import SPECS
from tests.specs._spec import COMMON, Hyper, State, number

OPTIMIZERS = tuple(name for name, spec in SPECS.items() if not spec.matrices)  # of any shape


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
        spec = SPECS[optimizer]
        base = {**spec.defaults, **COMMON, **options}
        self.rule = spec.rule
        self.keeps_squares = spec.keeps_squares
        self.fma = multiply_add
        self.options = {name: base.pop(name) for name in ("clip_norm", "clip_value", "nonfinite")}
        self.params = {name: p.copy() for name, p in params.items()}
        self.hyper = {name: {**base, **(overrides or {}).get(name, {})} for name in params}
        self.steps = dict.fromkeys(params, 0)
        self.step_count = 0
        self.grad_norm: float | None = None
        self.state: dict[str, State] = {}
        for name, p in params.items():
            h = self.hyper[name]
            arrays = {slot: np.zeros_like(p) for slot in spec.state(h)}
            self.state[name] = {**arrays, **spec.first(p, h)}

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
            g = g.astype(p.dtype) * number(p, sign * factor)
        if self.options["clip_value"] is not None:
            limit = number(p, self.options["clip_value"])
            g = np.clip(g, -limit, limit)
        self.steps[name] += 1
        new, self.state[name] = self.rule(p, g, self.state[name], h, self.steps[name], self.fma)
        self.params[name] = np.asarray(new)


__all__ = [
    "COMMON",
    "OPTIMIZERS",
    "SPECS",
    "Reference",
    "at_step",
    "fused",
    "global_norm",
    "rounded_twice",
]
