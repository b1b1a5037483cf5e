"""DoG, DoWG, Polyak's step size and Prodigy: steps whose length is found out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastgd._arguments import number
from fastgd._arrays.tree import Array
from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import (
    Flag,
    Fractions,
    NonNegative,
    Options,
    Positive,
    Real,
    Values,
    fraction,
    nonnegative,
    optional,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _itself(param: Array) -> Array:
    return param


class DoG(Optimizer, rule="dog", variants={"layerwise": "ldog"}, adaptive=True):
    """Distance over gradients: SGD without a learning rate to tune.

        g ← ∇L(theta) + weight_decay * theta
        rbar ← max(rbar, ‖theta - theta0‖), at first reps_rel * (1 + ‖theta0‖)
        G ← G + ‖g‖² (from eps)
        theta ← theta - lr * rbar / √G * g

    The norms run over all arrays of all groups; with layerwise=True over each array (LDoG). The iterates
    are meant to be averaged, see `fastgd.averaging`. An array without a gradient counts in no norm.

    Args:
        params: see `SGD`; theta0 is what they hold when the optimizer is made.
        lr: factor of the steps, a number or a function step -> number, at least 0.
        reps_rel: relative length of the first step, a number or a function step -> number, at least 0;
            the paper has 1e-4 for networks with batch normalization.
        weight_decay: L2 penalty, a number or a function step -> number, at least 0.
        eps: a number, at least 0; read when the state is made.
        init_eta: rate of the first step, a number, in place of reps_rel; or None.
        layerwise: True or False, see above.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: init_buffer (theta0), of the parameter's shape and dtype; the numbers rbar and G.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([3.0, -4.0])
        >>> opt = fastgd.DoG(theta)
        >>> for _ in range(500):
        ...     _ = opt.step(2 * theta)
        >>> bool(np.linalg.norm(theta) < 0.01)
        True

    References:
        Ivgi, Hinder & Carmon 2023, DoG is SGD's best friend: a parameter-free dynamic step size
        schedule, equation 1 and section 4.1.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1.0,
        reps_rel: NonNegative = 1e-6,
        weight_decay: NonNegative = 0,
        eps: NonNegative = 1e-8,
        init_eta: Annotated[float | None, optional(nonnegative)] = None,
        *,
        layerwise: Flag = False,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def check_together(cls, values: Values) -> None:
        if callable(values["eps"]):
            raise TypeError("eps must be a number: it is read only once")

    @classmethod
    def first_values(cls, values: Values) -> dict[str, float | Callable[[Array], Any]]:
        return {"init_buffer": _itself, "G": values["eps"]}


class DoWG(Optimizer, rule="dowg", adaptive=True):
    """Distance over weighted gradients.

        r² ← max(r², ‖theta - theta0‖²) (from eps)
        V ← V + r² ‖g‖²
        theta ← theta - lr * r² / (√V + eps) * g

    The norms run over all arrays of all groups.

    Args:
        params: see `SGD`; theta0 is what they hold when the optimizer is made.
        lr: factor of the steps, a number or a function step -> number, at least 0.
        eps: a number, at least 0.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: init_buffer (theta0), of the parameter's shape and dtype; the numbers r_squared and v.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([3.0, -4.0])
        >>> opt = fastgd.DoWG(theta)
        >>> for _ in range(500):
        ...     _ = opt.step(2 * theta)
        >>> bool(np.linalg.norm(theta) < 0.01)
        True

    References:
        Khaled, Mishchenko & Jin 2023, DoWG unleashed: an efficient universal parameter-free gradient
        descent method, algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1.0,
        eps: NonNegative = 1e-4,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def check_together(cls, values: Values) -> None:
        if callable(values["eps"]):
            raise TypeError("eps must be a number: it is read when the state is made, too")

    @classmethod
    def first_values(cls, values: Values) -> dict[str, float | Callable[[Array], Any]]:
        return {"init_buffer": _itself, "r_squared": values["eps"]}


class PolyakSGD(Optimizer, rule="polyak", needs_loss=True, adaptive=True):
    """SGD whose rate is the gap of the loss over the squared gradient.

        rate = min((loss - f_min) / (‖scaling * g‖² + eps), lr), 0 where the denominator is
        theta ← theta - rate * scaling * g

    The norm runs over all arrays of all groups. `step` needs the loss: `opt.step(grads, loss=value)`,
    which `minimize` passes. With clamp=False a loss below f_min takes a step uphill, as in optax'
    variant "sps"; the default is its "sps+".

    Args:
        params: see `SGD`.
        lr: the largest rate, a number or a function step -> number, at least 0.
        scaling: factor of the gradient, a number or a function step -> number, at least 0; that of 1/2
            gives the step of Loizou et al. with c = 1/2, and halves the largest rate.
        f_min: the loss at the minimum, or a lower bound, a number or a function step -> number.
        eps: a number or a function step -> number, at least 0.
        clamp: True or False, see above.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: none.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([3.0, -4.0])
        >>> opt = fastgd.PolyakSGD(theta)
        >>> opt.step(2 * theta, loss=25.0)      # half way to the minimum of theta·theta
        True
        >>> theta.tolist()
        [1.5, -2.0]

    References:
        Polyak 1987, Introduction to optimization, section 5.3.
        Loizou et al. 2021, Stochastic Polyak step-size for SGD, equation 4.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1.0,
        scaling: NonNegative = 1.0,
        f_min: Real = 0.0,
        eps: NonNegative = 0.0,
        *,
        clamp: Flag = True,
        **options: Unpack[Options],
    ) -> None: ...


def _growth(name: str, value: Any) -> float:
    return number(name, value, 1.0, bounds="[]")


class Prodigy(Optimizer, rule="prodigy", adaptive=True):
    """AdamW that finds its learning rate: an estimate d of the distance to the solution.

        D = d * lr
        N ← beta3 * N + (d / d0) * D * Σ g·(p0 - theta)
        m ← beta1 * m + (1 - beta1) * d * g,  v ← beta2 * v + (1 - beta2) * d² * g²
        s ← beta3 * s + (d / d0) * D * g
        d ← max(d, d_coef * N / Σ|s|), at most growth_rate times as large
        theta ← theta * (1 - weight_decay * D) - D * m / (√v + d * eps)

    The sums run over all arrays of all groups. lr stays 1, or is a schedule that starts at 1. Until a
    gradient is other than zero, nothing moves. The authors' slice_p is not there: s and p0 are whole.
    optax' form has use_bias_correction=True always.

    Args:
        params: see `SGD`; p0 is what they hold when the optimizer is made.
        lr: factor of the steps, a number or a function step -> number, at least 0.
        betas: decay rates of the two moments, a pair, each a number or a function step -> number,
            in [0, 1).
        beta3: decay rate of N and s, a number or a function step -> number, in [0, 1); None for √beta2.
        eps: a number or a function step -> number, at least 0.
        weight_decay: a number or a function step -> number, at least 0.
        decouple: False makes it an L2 penalty.
        use_bias_correction: True multiplies D by Adam's √(1 - beta2^t) / (1 - beta1^t).
        safeguard_warmup: True leaves lr out of s, for long warm-ups.
        d0: the first d, a number greater than 0.
        d_coef: factor of the estimate, a number or a function step -> number, greater than 0.
        growth_rate: the largest factor of d in a step, a number of at least 1, inf for none.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: exp_avg (m), exp_avg_sq (v), s, p0, each of the parameter's shape and dtype; the numbers d,
    d_max and d_numerator (N), the same for all arrays.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([3.0, -4.0])
        >>> opt = fastgd.Prodigy(theta)
        >>> for _ in range(1000):
        ...     _ = opt.step(2 * theta)
        >>> bool(np.linalg.norm(theta) < 0.01), opt.state["params"]["d"] > 0.1
        (True, True)

    References:
        Mishchenko & Defazio 2023, Prodigy: an expeditiously adaptive parameter-free learner,
        algorithm 4.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1.0,
        betas: Fractions = (0.9, 0.999),
        beta3: Annotated[float | None, optional(fraction)] = None,
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0,
        decouple: Flag = True,
        use_bias_correction: Flag = False,
        safeguard_warmup: Flag = False,
        d0: Positive = 1e-6,
        d_coef: Positive = 1.0,
        growth_rate: Annotated[float, _growth] = math.inf,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def check_together(cls, values: Values) -> None:
        if callable(values["d0"]):
            raise TypeError("d0 must be a number: it is read when the state is made, too")

    @classmethod
    def first_values(cls, values: Values) -> dict[str, float | Callable[[Array], Any]]:
        return {"p0": _itself, "d": values["d0"], "d_max": values["d0"]}
