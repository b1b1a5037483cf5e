"""Adadelta and Adamax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import Flag, Fractions, FractionUpToOne, NonNegative, Options

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Adadelta(
    Optimizer,
    rule="adadelta",
    torch="Adadelta",
    adaptive=True,
    kinds={"square_avg": "square", "acc_delta": "square"},
):
    """Steps in the units of the parameter: gradients over their RMS, times the RMS of past steps.

        g ← ∇L(theta) + weight_decay * theta
        v ← rho * v + (1 - rho) * g²
        d = g √(u + eps) / √(v + eps)
        u ← rho * u + (1 - rho) * d²
        theta ← theta - lr * d

    The first steps are tiny whatever lr, √(eps / (1 - rho)) for any gradient: eps sets the speed of the
    start. Libraries disagree about the rate: 1 in PyTorch, none in the paper, and Keras has lr=1e-3,
    rho=0.95, eps=1e-7 and decoupled decay.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        rho: decay rate of the averages, a number or a function step -> number, in [0, 1].
        eps: a number or a function step -> number, at least 0.
        weight_decay: L2 penalty, a number or a function step -> number, at least 0.
        decoupled_weight_decay: True multiplies theta by 1 - lr * weight_decay instead.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: square_avg (v), acc_delta (u), each of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0, 1.0])
        >>> opt = fastgd.Adadelta(theta)
        >>> opt.step(np.array([100.0, 0.1]))
        True
        >>> theta.round(4).tolist()
        [0.9968, 0.9968]

    References:
        Zeiler 2012, ADADELTA: an adaptive learning rate method, algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1.0,
        rho: FractionUpToOne = 0.9,
        eps: NonNegative = 1e-6,
        weight_decay: NonNegative = 0,
        *,
        decoupled_weight_decay: Flag = False,
        **options: Unpack[Options],
    ) -> None: ...


class Adamax(
    Optimizer,
    rule="adamax",
    torch="Adamax",
    adaptive=True,
    kinds={"exp_avg": "average", "exp_inf": "size"},
):
    """Adam with the largest recent gradient in place of the root mean square.

        g ← ∇L(theta) + weight_decay * theta
        m ← beta1 * m + (1 - beta1) * g
        u ← max(beta2 * u, |g| + eps)
        theta ← theta - lr / (1 - beta1^t) * m / u

    With eps_outside=True u ← max(beta2 * u, |g|) and the step divides by u + eps, as in Keras. The
    paper has no epsilon.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        betas: decay rates of the two moments, a pair, each a number or a function step -> number,
            in [0, 1).
        eps: a number or a function step -> number, at least 0.
        weight_decay: L2 penalty, a number or a function step -> number, at least 0.
        decoupled_weight_decay: True multiplies theta by 1 - lr * weight_decay instead (optax' adamaxw).
        eps_outside: True or False, see above.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: exp_avg (m), exp_inf (u), each of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0])
        >>> opt = fastgd.Adamax(theta, lr=0.1)
        >>> opt.step(np.array([5.0]))
        True
        >>> theta.round(6).tolist()
        [0.9]

    References:
        Kingma & Ba 2015, Adam: a method for stochastic optimization, algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 2e-3,
        betas: Fractions = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0,
        *,
        decoupled_weight_decay: Flag = False,
        eps_outside: Flag = False,
        **options: Unpack[Options],
    ) -> None: ...
