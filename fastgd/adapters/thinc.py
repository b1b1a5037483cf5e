"""thinc, and spaCy through it: optimizers of fastgd behind thinc's `Optimizer`.

    from fastgd.adapters.thinc import Adam
    model.finish_update(Adam(0.001))

    [training.optimizer]                 # in a config of spaCy's
    @optimizers = "fastgd.Adam.v1"
    learn_rate = 0.001

`Adam` and `SGD` have the arguments, formulas and results of thinc's. Every other optimizer of fastgd is
here, and registered as "fastgd.<name>.v1", with `learn_rate` in place of `lr`, thinc's `L2`, `grad_clip`
and `use_averages`, and its own hyperparameters. A learning rate may be any schedule of thinc's.

Needs `pip install "fastgd[thinc]"`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastgd import optimizers
from fastgd._arrays.tree import Array
from fastgd.optimizers import all_optimizers

try:
    theirs: Any = importlib.import_module("thinc.optimizers")
except ImportError as error:
    raise ImportError('fastgd.adapters.thinc needs thinc: pip install "fastgd[thinc]"') from error

Key = tuple[int, str]


class Optimizer(theirs.Optimizer):  # type: ignore[misc]
    """A `thinc.optimizers.Optimizer` whose steps are fastgd's. Use `Adam`, `SGD` or another of this module.

    Arrays that are not NumPy's, such as CuPy's, take thinc's own way.

    Args:
        learn_rate, L2, beta1, beta2, eps, grad_clip, use_averages, L2_is_weight_decay: as thinc's.
        kind: of fastgd's classes, with its hyperparameters; None for thinc's own two formulas.

    Raises: ValueError, TypeError for hyperparameters out of range, with the first update.
    """

    def __init__(
        self,
        learn_rate: Any,
        *,
        kind: type[optimizers.Optimizer] | None = None,
        hyperparameters: Mapping[str, Any] = {},
        **options: Any,
    ) -> None:
        super().__init__(learn_rate, **options)
        self._kind, self._hyperparameters = kind, dict(hyperparameters)
        self._parts: dict[Key, _Part] = {}

    def __call__(
        self, key: Key, weights: Any, gradient: Any, *, lr_scale: float = 1.0
    ) -> tuple[Any, Any]:
        """Update the weights in place, and set the gradient to zero.

        Args:
            key: of the array: its node's id, and its name.
            weights, gradient: of one shape, float32 or float64. The array may be another with every call.
            lr_scale: multiplies the learning rate.

        Returns: both.
        """
        if type(weights) is not np.ndarray and self._kind is None:
            return super().__call__(key, weights, gradient, lr_scale=lr_scale)  # type: ignore[no-any-return]
        if len(gradient) < 1:
            return weights, gradient
        step, context = self.step, self._schedule_args(key)
        rate = lr_scale * self.learn_rate(step, **context)
        decay = self.L2(step, **context)
        clip = self.grad_clip(step, **context) or None
        kind, values = self._kind, self._hyperparameters
        if kind is None:
            betas = self.b1(step, **context), self.b2(step, **context)
            kind, values = optimizers.SGD, {}
            if betas[1] > 0.0:
                if betas[0] <= 0.0:
                    raise NotImplementedError("thinc's formulas have no beta2 without beta1")
                kind = optimizers.Adam
                values = {"betas": betas, "eps": self.eps(step, **context), "eps_hat": True}
        part = self._parts.get(key)
        if part is None or part.kind is not kind:
            part = self._parts[key] = _Part(kind, weights, rate, values, clip)
            self._show(key, part.optimizer)
        part.set(rate, values, clip)
        if decay and not self.L2_is_weight_decay:
            gradient += decay * weights
        part.optimizer.step(gradient, params=weights)
        gradient.fill(0.0)
        if decay and self.L2_is_weight_decay:
            weights -= rate * decay * weights
        self.nr_update[key] += 1
        if self.averages is not None:
            self._average(key, weights)
        return weights, gradient

    def _show(self, key: Key, optimizer: optimizers.Optimizer) -> None:
        """The moments where thinc has them."""
        (entry,) = optimizer.state.values()
        for name, place in (("exp_avg", self.mom1), ("exp_avg_sq", self.mom2)):
            if name in entry:
                place[key] = entry[name].reshape(-1)

    def _average(self, key: Key, weights: Array) -> None:
        """thinc's moving average of the weights, without its three temporaries."""
        average = self.averages.get(key)
        if average is None:
            average = self.averages[key] = np.zeros(weights.shape, np.float32)
        count = self.nr_update[key]
        decay = min((1.0 + count) / (10.0 + count), 0.9999)
        change = average - weights
        change *= 1.0 - decay
        average -= change


class _Part:
    """One array's optimizer, and what it was last told."""

    def __init__(
        self,
        kind: type[optimizers.Optimizer],
        weights: Array,
        rate: float,
        values: Mapping[str, Any],
        clip: float | None,
    ) -> None:
        self.kind = kind
        self.optimizer = kind(weights, lr=rate, **values, clip_norm=clip)
        self._rate, self._values, self._clip = rate, values, clip

    def set(self, rate: float, values: Mapping[str, Any], clip: float | None) -> None:
        if values != self._values:
            self.optimizer.param_groups[0].update(lr=rate, **values)
            self._rate, self._values = rate, values
        if rate != self._rate:
            self.optimizer.param_groups[0]["lr"] = rate
            self._rate = rate
        if clip != self._clip:
            self.optimizer.clip_norm = self._clip = clip


def Adam(
    learn_rate: Any = theirs.ADAM_DEFAULTS["learn_rate"],
    *,
    L2: Any = theirs.ADAM_DEFAULTS["L2"],
    beta1: Any = theirs.ADAM_DEFAULTS["beta1"],
    beta2: Any = theirs.ADAM_DEFAULTS["beta2"],
    eps: Any = theirs.ADAM_DEFAULTS["eps"],
    grad_clip: Any = theirs.ADAM_DEFAULTS["grad_clip"],
    L2_is_weight_decay: bool = theirs.ADAM_DEFAULTS["L2_is_weight_decay"],
    use_averages: bool = True,
) -> Optimizer:
    """`thinc.optimizers.Adam`: its arguments, its formula (epsilon is added before the bias correction)."""
    return Optimizer(
        learn_rate,
        L2=L2,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        grad_clip=grad_clip,
        L2_is_weight_decay=L2_is_weight_decay,
        use_averages=use_averages,
    )


def SGD(
    learn_rate: Any,
    *,
    L2: Any = theirs.SGD_DEFAULTS["L2"],
    grad_clip: Any = theirs.SGD_DEFAULTS["grad_clip"],
    L2_is_weight_decay: bool = theirs.SGD_DEFAULTS["L2_is_weight_decay"],
    use_averages: bool = True,
) -> Optimizer:
    """`thinc.optimizers.SGD`: its arguments, its formula."""
    return Optimizer(
        learn_rate,
        L2=L2,
        beta1=0.0,
        beta2=0.0,
        grad_clip=grad_clip,
        L2_is_weight_decay=L2_is_weight_decay,
        use_averages=use_averages,
    )


def _factory(name: str, kind: type[optimizers.Optimizer]) -> Callable[..., Optimizer]:
    """For one of fastgd's optimizers, with a signature that a config can be checked against."""
    host: dict[str, Any] = {
        key: theirs.SGD_DEFAULTS[key] for key in ("L2", "grad_clip", "L2_is_weight_decay")
    }
    own = {key: x for key, x in kind.declaration.defaults.items() if key != "lr"}
    named = {**host, "use_averages": True, **own}

    def make(learn_rate: Any = kind.declaration.defaults["lr"], **given: Any) -> Optimizer:
        unknown = sorted(set(given) - set(named))
        if unknown:
            raise TypeError(f"{name} got an unexpected argument {unknown[0]!r}")
        return Optimizer(
            learn_rate,
            kind=kind,
            hyperparameters={key: given.pop(key) for key in own if key in given},
            **given,
        )

    first, _ = inspect.signature(make).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    rest = [inspect.Parameter(key, keyword, default=x) for key, x in named.items()]
    make.__signature__ = inspect.Signature([first.replace(annotation=Any), *rest])  # type: ignore[attr-defined]
    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"`fastgd.{name}` behind thinc's `Optimizer`; see fastgd for the formula."
    return make


FACTORIES: dict[str, Callable[..., Optimizer]] = {
    name: _factory(name, kind)
    for name, kind in all_optimizers().items()
    if "lr" in kind.declaration.defaults and not kind.needs_loss
} | {"Adam": Adam, "SGD": SGD}

__all__ = ["Optimizer", *FACTORIES]

globals().update(FACTORIES)


def __getattr__(name: str) -> Any:  # for type checkers, which do not see what is made above
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
