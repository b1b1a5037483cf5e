"""Gradient descent, with and without momentum."""

from __future__ import annotations

from typing import Any, ClassVar

from fastgd._arguments import flag
from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import (
    Check,
    Values,
    nonnegative,
    real,
)


class SGD(Optimizer):
    """(Stochastic) gradient descent, optionally with momentum.

        g ← ∇L(theta) + weight_decay * theta
        buf ← momentum * buf + (1 - dampening) * g      (undamped at a parameter's first step)
        theta ← theta - lr * buf                        (nesterov: lr * (g + momentum * buf))

    Without momentum theta ← theta - lr * g. Libraries disagree about where the learning rate stands:
    here, as in PyTorch, it multiplies the buffer, so a change of lr acts at once on the whole velocity.
    With lr_in_momentum=True it is inside, buf ← momentum * buf + lr * (1 - dampening) * g and
    theta ← theta - buf, as in Sutskever et al. and Keras; for a constant lr the two agree.

    Args:
        params: an array, a list, tuple or dict of such (nested at will), or a list of group dicts.
            Arrays are native float32 or float64, contiguous and writeable; updated in place.
        lr: learning rate, at least 0. As every number here, a number or a function step -> number of
            the steps taken so far (see `fastgd.schedules`), whose values pass the same checks.
        momentum: a number or a function step -> number, at least 0; 0 keeps no state.
        dampening: a number or a function step -> number: part of the gradient that is kept from the
            momentum buffer.
        weight_decay: L2 penalty, a number or a function step -> number, at least 0.
        nesterov: True looks ahead along the momentum; needs momentum > 0 and no dampening.
        lr_in_momentum: True or False, see above.
        maximize: True ascends instead of descending.
        clip_norm: the largest norm of all gradients taken as one vector, over all groups: if it is
            larger they are multiplied by clip_norm / norm. A number or a function step -> number,
            greater than 0; None for no such limit.
        clip_value: the largest magnitude of an element, to which larger ones are clamped, after
            clip_norm. A number or a function step -> number, greater than 0; None for no such limit.
        nonfinite: what a step does about a NaN or an infinity in a gradient: "propagate" it into the
            parameters, "raise" a FloatingPointError, or "skip" the step, which then returns False.
            The last two change nothing.

    State: momentum_buffer (with momentum), of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0, -2.0])
        >>> opt = fastgd.SGD(theta, lr=0.1, momentum=0.9)
        >>> for _ in range(200):
        ...     _ = opt.step(2 * theta)         # the gradient of theta·theta
        >>> bool(np.abs(theta).max() < 1e-3)
        True

    References:
        Robbins & Monro 1951, A stochastic approximation method.
        Polyak 1964, Some methods of speeding up the convergence of iteration methods (momentum).
        Sutskever, Martens, Dahl & Hinton 2013, On the importance of initialization and momentum in
        deep learning, section 2 (both kinds of momentum, lr inside).
        Goodfellow, Bengio & Courville 2016, Deep Learning, algorithms 8.1 to 8.3.
        Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks,
        algorithm 1 (clip_norm).
    """

    rule = "sgd"
    slots = ("momentum_buffer",)
    checks: ClassVar[dict[str, Check]] = {
        "lr": nonnegative,
        "momentum": nonnegative,
        "dampening": real,
        "weight_decay": nonnegative,
        "nesterov": flag,
        "lr_in_momentum": flag,
        "maximize": flag,
    }

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        momentum: Any = 0,
        dampening: Any = 0,
        weight_decay: Any = 0,
        nesterov: bool = False,
        *,
        lr_in_momentum: bool = False,
        maximize: bool = False,
        clip_norm: Any = None,
        clip_value: Any = None,
        nonfinite: str = "propagate",
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "lr_in_momentum": lr_in_momentum,
            "maximize": maximize,
        }
        super().__init__(
            params, defaults, clip_norm=clip_norm, clip_value=clip_value, nonfinite=nonfinite
        )

    @classmethod
    def check_together(cls, values: Values) -> None:
        if values["nesterov"] and (values["momentum"] == 0 or values["dampening"] != 0):
            raise ValueError(
                f"nesterov needs momentum > 0 and dampening 0, got momentum={values['momentum']!r} "
                f"and dampening={values['dampening']!r}"
            )

    @classmethod
    def uses(cls, values: Values) -> tuple[bool, ...]:
        return (values["momentum"] != 0,)

    def coefficients(self, values: Values, t: int) -> tuple[float, ...]:
        lr, nesterov = values["lr"], float(values["nesterov"])
        outside, inside = (1.0, lr) if values["lr_in_momentum"] else (lr, 1.0)
        inflow = inside if t == 1 else inside * (1.0 - values["dampening"])
        return (values["weight_decay"], lr, values["momentum"], inflow, outside, inside, nesterov)
