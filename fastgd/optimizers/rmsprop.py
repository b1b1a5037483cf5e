"""RMSprop."""

from __future__ import annotations

from typing import Any, ClassVar

from fastgd._arguments import flag
from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import (
    Check,
    Values,
    epsilons,
    fraction,
    nonnegative,
)


class RMSprop(Optimizer):
    """Gradients divided by a running root mean square.

        g ← ∇L(theta) + weight_decay * theta
        v ← alpha * v + (1 - alpha) * g²
        centered: a ← alpha * a + (1 - alpha) * g, and max(v - a², 0) in v's place below
        d ← g / (√v + eps)
        theta ← theta - lr * d, or with momentum: buf ← momentum * buf + d, theta ← theta - lr * buf

    The usual choice for recurrent networks. Libraries disagree about epsilon: outside the root here, as
    in PyTorch; inside, √(v + eps), with eps_inside=True, as in optax, PennyLane and Keras. With
    lr_in_momentum=True the learning rate stands inside the buffer, buf ← momentum * buf + lr * d and
    theta ← theta - buf, as in Keras and in Graves 2013. The clamp at 0 keeps rounding in v - a²
    from giving a NaN.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        alpha: decay rate of the running averages, a number or a function step -> number, in [0, 1).
        eps: a number or a function step -> number, at least 0.
        weight_decay: L2 penalty, a number or a function step -> number, at least 0.
        momentum: a number or a function step -> number, at least 0; 0 keeps no buffer.
        centered: True divides by an estimate of the standard deviation.
        eps_inside, lr_in_momentum: True or False, see above.
        maximize, clip_norm, clip_value, nonfinite: see `SGD`.

    State: square_avg (v), momentum_buffer (with momentum), grad_avg (a, centered), each of the
    parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0])
        >>> opt = fastgd.RMSprop(theta, lr=0.01, alpha=0.75)
        >>> opt.step(np.array([3.0]))           # v = 9/4, so d = 3 / 1.5
        True
        >>> theta.round(6).tolist()
        [0.98]

    References:
        Tieleman & Hinton 2012, Neural networks for machine learning (Coursera), lecture 6.5: RMSprop.
        Graves 2013, Generating sequences with recurrent neural networks, equations 38 to 41
        (centered, momentum).
    """

    rule = "rmsprop"
    slots = ("square_avg", "momentum_buffer", "grad_avg")
    checks: ClassVar[dict[str, Check]] = {
        "lr": nonnegative,
        "alpha": fraction,
        "eps": nonnegative,
        "weight_decay": nonnegative,
        "momentum": nonnegative,
        "centered": flag,
        "eps_inside": flag,
        "lr_in_momentum": flag,
        "maximize": flag,
    }

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        alpha: Any = 0.99,
        eps: Any = 1e-8,
        weight_decay: Any = 0,
        momentum: Any = 0,
        centered: bool = False,
        *,
        eps_inside: bool = False,
        lr_in_momentum: bool = False,
        maximize: bool = False,
        clip_norm: Any = None,
        clip_value: Any = None,
        nonfinite: str = "propagate",
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "eps_inside": eps_inside,
            "lr_in_momentum": lr_in_momentum,
            "maximize": maximize,
        }
        super().__init__(
            params, defaults, clip_norm=clip_norm, clip_value=clip_value, nonfinite=nonfinite
        )

    @classmethod
    def uses(cls, values: Values) -> tuple[bool, ...]:
        return (True, values["momentum"] != 0, values["centered"])

    def coefficients(self, values: Values, t: int) -> tuple[float, ...]:
        lr, alpha = values["lr"], values["alpha"]
        outside, inside = (1.0, lr) if values["lr_in_momentum"] else (lr, 1.0)
        buffer = (values["momentum"], inside, outside)
        return (values["weight_decay"], lr, *buffer, alpha, 1.0 - alpha, *epsilons(values))
