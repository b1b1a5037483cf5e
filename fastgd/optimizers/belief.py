"""AdaBelief, Yogi and ADOPT: other second moments than Adam's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import (
    Flag,
    Fractions,
    NonNegative,
    Options,
    Values,
    nonnegative,
    optional,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AdaBelief(
    Optimizer,
    rule="adabelief",
    adaptive=True,
    kinds={"exp_avg": "precise", "exp_avg_var": "square", "max_exp_avg_var": "square"},
):
    """Adam with the variance of the gradient around its average in place of its square.

        theta ← theta * (1 - lr * weight_decay)
        m ← beta1 * m + (1 - beta1) * g
        s ← beta2 * s + (1 - beta2) * (g - m)² + eps_root
        theta ← theta - lr * m̂ / (√ŝ + eps),  m̂ = m / (1 - beta1^t),  ŝ = s / (1 - beta2^t)

    Where gradients stay alike s falls and the steps grow. The defaults are optax'; rectify=True is the
    authors' default: as in `RAdam`, with eps on the uncorrected root, until then lr * m̂. nesterov=True
    looks ahead, beta1 * m / (1 - beta1^(t+1)) + (1 - beta1) * g / (1 - beta1^t), as in optax. The decay
    is decoupled, as in the authors' code. In float32 eps_root is lost beside s > 2e-9.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        betas: decay rates of the two moments, a pair, each a number or a function step -> number,
            in [0, 1).
        eps, eps_root: numbers or functions step -> number, at least 0.
        weight_decay: a number or a function step -> number, at least 0.
        amsgrad, rectify, nesterov: True or False; amsgrad as in `Adam`, else see above.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: exp_avg (m), exp_avg_var (s), max_exp_avg_var (with amsgrad), each of the parameter's shape
    and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0])
        >>> opt = fastgd.AdaBelief(theta, lr=0.09)
        >>> opt.step(np.array([5.0]))           # the first step is lr / beta1
        True
        >>> theta.round(6).tolist()
        [0.9]

    References:
        Zhuang et al. 2020, AdaBelief optimizer: adapting stepsizes by the belief in observed gradients,
        algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-3,
        betas: Fractions = (0.9, 0.999),
        eps: NonNegative = 1e-16,
        eps_root: NonNegative = 1e-16,
        weight_decay: NonNegative = 0,
        *,
        amsgrad: Flag = False,
        rectify: Flag = False,
        nesterov: Flag = False,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def unused(cls, values: Values) -> set[str]:
        return set() if values["amsgrad"] else {"max_exp_avg_var"}


class Yogi(
    Optimizer,
    rule="yogi",
    unpacked=("initial_accumulator_value", "initial_exp_avg"),
    adaptive=True,
    kinds={"exp_avg": "average", "exp_avg_sq": "square"},
):
    """Adam whose second moment changes by no more than the square of the gradient.

        g ← ∇L(theta) + weight_decay * theta
        m ← beta1 * m + (1 - beta1) * g
        v ← v - (1 - beta2) * sign(v - g²) * g²
        theta ← theta - lr * m̂ / (√v̂ + eps),  m̂ and v̂ as in `Adam`

    v falls slowly where gradients become small, so that the rate does not leap. m and v start at 1e-6
    as in optax; in TensorFlow Addons m starts at 0 and eps is on the uncorrected root (eps_hat=True).
    The paper has no correction of the bias.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        betas: decay rates of the two moments, a pair, each a number or a function step -> number,
            in [0, 1).
        eps: a number or a function step -> number, at least 0.
        weight_decay: L2 penalty, a number or a function step -> number, at least 0.
        initial_accumulator_value, initial_exp_avg: numbers that v and m start at, at least 0; read when
            the state is made.
        eps_hat: True or False, see above.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: exp_avg (m), exp_avg_sq (v), each of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0])
        >>> opt = fastgd.Yogi(theta, lr=0.1)
        >>> opt.step(np.array([5.0]))
        True
        >>> theta.round(3).tolist()
        [0.9]

    References:
        Zaheer et al. 2018, Adaptive methods for nonconvex optimization, algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-2,
        betas: Fractions = (0.9, 0.999),
        eps: NonNegative = 1e-3,
        weight_decay: NonNegative = 0,
        *,
        initial_accumulator_value: NonNegative = 1e-6,
        initial_exp_avg: NonNegative = 1e-6,
        eps_hat: Flag = False,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def check_together(cls, values: Values) -> None:
        for name in ("initial_accumulator_value", "initial_exp_avg"):
            if callable(values[name]):
                raise TypeError(f"{name} must be a number: it is read only once")

    @classmethod
    def first_values(cls, values: Values) -> dict[str, float]:
        return {
            "exp_avg": values["initial_exp_avg"],
            "exp_avg_sq": values["initial_accumulator_value"],
        }


class ADOPT(
    Optimizer, rule="adopt", adaptive=True, kinds={"exp_avg": "average", "exp_avg_sq": "square"}
):
    """Adam that converges with any beta2: the previous second moment divides, before the average.

        g ← ∇L(theta) + weight_decay * theta
        t = 1: v ← g², nothing else
        n = clip(g / max(√v, eps), ±(t - 1)^clip_exponent)
        m ← beta1 * m + (1 - beta1) * n
        theta ← theta - lr * m
        v ← beta2 * v + (1 - beta2) * g²

    The first step only looks. Nothing is corrected for a bias. The clipping is of the authors' later
    code; the paper's algorithm has none (clip_exponent=None), timm's exponent is 1/3.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        betas: decay rates of the two moments, a pair, each a number or a function step -> number,
            in [0, 1).
        eps: a number or a function step -> number, at least 0.
        weight_decay: L2 penalty, a number or a function step -> number, at least 0.
        decouple: True multiplies theta by 1 - lr * weight_decay instead, from the second step on.
        clip_exponent: a number or a function step -> number, at least 0, or None, see above.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: exp_avg (m), exp_avg_sq (v), each of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0])
        >>> opt = fastgd.ADOPT(theta, lr=0.1)
        >>> opt.step(np.array([5.0])), theta.tolist()
        (True, [1.0])
        >>> opt.step(np.array([5.0])), theta.round(6).tolist()
        (True, [0.99])

    References:
        Taniguchi et al. 2024, ADOPT: modified Adam can converge with any beta2 with the optimal rate,
        algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-3,
        betas: Fractions = (0.9, 0.9999),
        eps: NonNegative = 1e-6,
        weight_decay: NonNegative = 0,
        decouple: Flag = False,
        *,
        clip_exponent: Annotated[float | None, optional(nonnegative)] = 0.25,
        **options: Unpack[Options],
    ) -> None: ...
