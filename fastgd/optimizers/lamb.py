"""LAMB and LARS: steps in proportion to the norm of each array, for very large batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import MOMENTS, Flag, Fractions, NonNegative, Options, Values

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LAMB(Optimizer, rule="lamb", adaptive=True, kinds=MOMENTS):
    """Adam's direction, its length that of the parameter.

        m, v as in `Adam`
        u = m̂ / (√v̂ + eps) + weight_decay * theta
        q = ‖theta‖ / ‖u‖, or 1 where one of them is 0
        theta ← theta - lr * q * u

    The norms are those of each array. An array that starts at zero takes plain Adam steps until it has
    left it. The defaults are optax'. In the other form, of timm and apex, weight_decay=0.01, the
    gradients are clipped first (clip_norm=1.0), and q = 1 where there is no decay: always_adapt=False.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        betas: decay rates of the two moments, a pair, each a number or a function step -> number,
            in [0, 1).
        eps: a number or a function step -> number, at least 0.
        weight_decay: a number or a function step -> number, at least 0; part of u.
        bias_correction: False takes m and v as they are.
        grad_averaging: False makes m a sum, m ← beta1 * m + g.
        trust_clip: True keeps q at 1 at most.
        always_adapt: see above.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: exp_avg (m), exp_avg_sq (v), each of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([3.0, 4.0])
        >>> opt = fastgd.LAMB(theta, lr=0.1)
        >>> opt.step(np.array([1.0, 100.0]))
        True
        >>> bool(np.isclose(np.hypot(*(theta - [3, 4])), 0.1 * 5))  # lr times the norm
        True

    References:
        You et al. 2020, Large batch optimization for deep learning: training BERT in 76 minutes,
        algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-3,
        betas: Fractions = (0.9, 0.999),
        eps: NonNegative = 1e-6,
        weight_decay: NonNegative = 0,
        *,
        bias_correction: Flag = True,
        grad_averaging: Flag = True,
        trust_clip: Flag = False,
        always_adapt: Flag = True,
        **options: Unpack[Options],
    ) -> None: ...


class LARS(
    Optimizer, rule="lars", momentum="momentum", adaptive=True, kinds={"momentum_buffer": "sum"}
):
    """SGD with momentum whose rate is in proportion to ‖theta‖ / ‖g‖ of each array.

        g ← ∇L(theta) + weight_decay * theta
        q = trust_coefficient * ‖theta‖ / (‖g‖ + eps), or 1 where a norm is 0
        buf ← momentum * buf + lr * q * g
        theta ← theta - buf                      (nesterov: lr * q * g + momentum * buf)

    This is optax' form. In the paper and in timm ‖g‖ is taken before the decay and the denominator is
    ‖g‖ + weight_decay * ‖theta‖ + eps: decay_in_norm=True; timm also has lr outside the buffer
    (lr_in_momentum=False), eps=1e-8, and q = 1 without decay (always_adapt=False); its trust_clip=True
    is LARC, which keeps lr * q at lr at most. Arrays that start at zero take steps of lr * g: give
    biases a group with a smaller lr.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        momentum: a number or a function step -> number, at least 0.
        weight_decay: L2 penalty, a number or a function step -> number, at least 0.
        nesterov: True looks ahead along the momentum.
        trust_coefficient, eps: numbers or functions step -> number, at least 0.
        lr_in_momentum, trust_clip, decay_in_norm, always_adapt: True or False, see above.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: momentum_buffer, of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([3.0, 4.0])
        >>> opt = fastgd.LARS(theta, lr=10.0, trust_coefficient=0.01)
        >>> opt.step(np.array([0.0, 100.0]))
        True
        >>> theta.tolist()                      # 10 * 0.01 * 5 along the gradient
        [3.0, 3.5]

    References:
        You, Gitman & Ginsburg 2017, Large batch training of convolutional networks, algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1.0,
        momentum: NonNegative = 0.9,
        weight_decay: NonNegative = 0,
        nesterov: Flag = False,
        trust_coefficient: NonNegative = 0.001,
        eps: NonNegative = 0,
        *,
        lr_in_momentum: Flag = True,
        trust_clip: Flag = False,
        decay_in_norm: Flag = False,
        always_adapt: Flag = True,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def check_together(cls, values: Values) -> None:
        if values["trust_clip"] and values["lr_in_momentum"]:
            raise ValueError("trust_clip needs lr_in_momentum=False: it compares the ratio with lr")
