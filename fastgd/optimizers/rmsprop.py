"""RMSprop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import Flag, Fraction, NonNegative, Options, Values

if TYPE_CHECKING:
    from typing_extensions import Unpack


class RMSprop(
    Optimizer,
    rule="rmsprop",
    torch="RMSprop",
    momentum="momentum",
    adaptive=True,
    kinds={"square_avg": "square", "momentum_buffer": "sum"},
):
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
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

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

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-2,
        alpha: Fraction = 0.99,
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0,
        momentum: NonNegative = 0,
        centered: Flag = False,
        *,
        eps_inside: Flag = False,
        lr_in_momentum: Flag = False,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def unused(cls, values: Values) -> set[str]:
        without_momentum = {"momentum_buffer"} if values["momentum"] == 0 else set()
        return without_momentum if values["centered"] else without_momentum | {"grad_avg"}
