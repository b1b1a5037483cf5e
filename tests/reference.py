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
from tests.specs._spec import COMMON, Hyper, Item, State, number

# Which step with any arrays and nothing but gradients.
# Which step with any arrays and nothing but gradients.
OPTIMIZERS = tuple(
    name for name, spec in SPECS.items() if not spec.matrices and not spec.needs_loss
)


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
        self.spec: Any = spec
        self.keeps_squares = spec.keeps_squares
        self.fma = multiply_add
        self.options = {name: base.pop(name) for name in ("clip_norm", "clip_value", "nonfinite")}
        self.params = {name: p.copy() for name, p in params.items()}
        self.hyper = {name: {**base, **(overrides or {}).get(name, {})} for name in params}
        # An array with values of its own is a group of its own.
        self.groups = {name: name if overrides else "" for name in params}
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
        loss: float = math.nan,
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
            prepared = [(name, *self._prepared(name, g, factor)) for name, g in live.items()]
            for name, _, _ in prepared:
                self.steps[name] += 1
            if self.spec.joint:
                self._step_all(prepared, loss)
            else:
                for name, g, h in prepared:
                    old, state, t = self.params[name], self.state[name], self.steps[name]
                    new, self.state[name] = self.spec.rule(old, g, state, h, t, self.fma)
                    self.params[name] = np.asarray(new)
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

    def _prepared(self, name: str, g: Array, factor: float) -> tuple[Array, dict[str, Any]]:
        """The gradient as a rule takes it, and the hyperparameters of this step."""
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
        return g, h

    def _step_all(self, prepared: list[tuple[str, Array, dict[str, Any]]], loss: float) -> None:
        items = [
            Item(
                self.params[name],
                g,
                self.state[name],
                h,
                self.steps[name],
                -loss if h["maximize"] else loss,
            )
            for name, g, h in prepared
        ]
        results = self.spec.rule(items, self.fma)
        for (name, _, _), (new, state) in zip(prepared, results, strict=True):
            self.params[name], self.state[name] = np.asarray(new), state
        # What is kept is the same for all arrays of a group, those without a gradient too.
        for name in self.params.keys() - {name for name, _, _ in prepared}:
            for other, _, _ in prepared:
                if self.groups[other] == self.groups[name]:
                    numbers = {k: x for k, x in self.state[other].items() if isinstance(x, float)}
                    self.state[name] = {**self.state[name], **numbers}

    @property
    def ulps(self) -> int:
        """The budget of a step, see Spec."""
        whole = any(self.spec.whole(h) for h in self.hyper.values())
        return int(self.spec.ulps) if whole else 0


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
