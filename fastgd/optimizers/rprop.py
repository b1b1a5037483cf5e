"""Rprop and ASGD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastgd._arguments import number
from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import (
    NonNegative,
    Options,
    Positive,
    Values,
    fraction,
    ordered,
    positive,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _growth(name: str, value: Any) -> float:
    return number(name, value, 1.0, bounds="()")


class Rprop(Optimizer, rule="rprop", torch="Rprop", adaptive=True):
    """Steps of a length of each element's own, which grows while its gradient keeps its sign.

        a = sign(g * prev)
        s ← s * etas[1] where a > 0, s * etas[0] where a < 0, clamped to step_sizes;  g ← 0 where a < 0
        theta ← theta - s * sign(g);  prev ← g

    For gradients over all data: the noise of mini-batches changes signs. This is iRprop-, without going
    back after a change of sign. It has no decay, and lr is only the first s: changing it later does
    nothing.

    Args:
        params: see `SGD`.
        lr: the first length of a step, a number greater than 0; read when the state is made.
        etas: factors of shrinking, in (0, 1), and of growing, above 1: a pair of numbers.
        step_sizes: the least and the greatest length, a pair of numbers greater than 0.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: prev, step_size (s), each of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0])
        >>> opt = fastgd.Rprop(theta, lr=0.5)
        >>> opt.step(2 * theta), opt.step(2 * theta)
        (True, True)
        >>> theta.round(6).tolist()             # 1 - 0.5 - 0.6
        [-0.1]

    References:
        Riedmiller & Braun 1993, A direct adaptive method for faster backpropagation learning.
        Igel & Hüsken 2000, Improving the Rprop learning algorithm, algorithm iRprop-.
    """

    def __init__(
        self,
        params: Any,
        lr: Positive = 1e-2,
        etas: Annotated[tuple[float, float], ordered(fraction, _growth)] = (0.5, 1.2),
        step_sizes: Annotated[tuple[float, float], ordered(positive, positive)] = (1e-6, 50),
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def check_together(cls, values: Values) -> None:
        if callable(values["lr"]):
            raise TypeError("lr must be a number: it is read only once, as the first step size")

    @classmethod
    def first_values(cls, values: Values) -> dict[str, float]:
        return {"step_size": values["lr"]}


class ASGD(Optimizer, rule="asgd", torch="ASGD"):
    """SGD with a falling rate, and the average of where it has been.

        g ← ∇L(theta) + weight_decay * theta
        theta ← theta * (1 - lambd * eta) - eta * g
        ax ← theta while mu = 1, then ax + mu * (theta - ax)
        eta ← lr / (1 + lambd * lr * t)^alpha,  mu ← 1 / max(1, t - t0)      for the next step

    The parameters stay theta: the average is `optimizer.state[name]["ax"]`. With the default t0 it never
    begins. A change of lr acts one step late, as in PyTorch, which keeps eta and mu in its default
    dtype, so that its float64 runs differ by some 1e-7. For the average of any optimizer's iterates see
    `fastgd.averaging`.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        lambd, alpha: of the rate's fall, numbers or functions step -> number, at least 0.
        t0: the step from which the average is taken, a number or a function step -> number, at least 0.
        weight_decay: L2 penalty, a number or a function step -> number, at least 0.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: ax, of the parameter's shape and dtype; the numbers eta and mu.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0])
        >>> opt = fastgd.ASGD(theta, lr=0.5, t0=0)
        >>> for _ in range(3):
        ...     _ = opt.step(np.array([1.0]))
        >>> theta.round(3).tolist(), opt.state["params"]["ax"].round(3).tolist()
        ([-0.5], [-0.25])

    References:
        Polyak & Juditsky 1992, Acceleration of stochastic approximation by averaging.
        Xu 2011, Towards optimal one pass large scale learning with averaged stochastic gradient descent
        (the rate).
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-2,
        lambd: NonNegative = 1e-4,
        alpha: NonNegative = 0.75,
        t0: NonNegative = 1e6,
        weight_decay: NonNegative = 0,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def first_values(cls, values: Values) -> dict[str, float]:
        return {"eta": values["lr"], "mu": 1.0}
