"""AdEMAMix and Adan: two averages of the gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import (
    Flag,
    NonNegative,
    Options,
    ThreeFractions,
    nonnegative,
    optional,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AdEMAMix(
    Optimizer,
    rule="ademamix",
    adaptive=True,
    kinds={"exp_avg_fast": "ratio exp_avg_sq", "exp_avg_slow": "sum", "exp_avg_sq": "square"},
):
    """AdamW with a second, slow average that remembers tens of thousands of steps.

        theta ← theta * (1 - lr * weight_decay)
        m1 ← beta1 * m1 + (1 - beta1) * g,  m2 ← beta3 * m2 + (1 - beta3) * g
        v ← beta2 * v + (1 - beta2) * g²
        theta ← theta - lr * (m1 / (1 - beta1^t) + alpha * m2) / (√v̂ + eps),  v̂ = v / (1 - beta2^t)

    Long runs start unstably at full alpha and beta3: the authors warm up both over all steps. alpha_warmup
    lets alpha rise linearly, beta3_warmup lets the half-life of the slow average rise linearly from
    beta1's. alpha is 2 in the authors' code, 5 in optax and bitsandbytes.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        betas: decay rates of m1, v and m2, three, each a number or a function step -> number, in
            [0, 1).
        alpha: weight of the slow average, a number or a function step -> number, at least 0.
        beta3_warmup, alpha_warmup: numbers of steps, at least 0, or None for no warm-up.
        eps: a number or a function step -> number, at least 0.
        weight_decay: a number or a function step -> number, at least 0.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: exp_avg_fast (m1), exp_avg_slow (m2), exp_avg_sq (v), each of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0])
        >>> opt = fastgd.AdEMAMix(theta, lr=0.1, alpha_warmup=100_000, beta3_warmup=100_000)
        >>> opt.step(np.array([5.0]))
        True
        >>> theta.round(6).tolist()
        [0.9]

    References:
        Pagliardini, Ablin & Grangier 2024, The AdEMAMix optimizer: better, faster, older, algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-3,
        betas: ThreeFractions = (0.9, 0.999, 0.9999),
        alpha: NonNegative = 2.0,
        beta3_warmup: Annotated[float | None, optional(nonnegative)] = None,
        alpha_warmup: Annotated[float | None, optional(nonnegative)] = None,
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0,
        **options: Unpack[Options],
    ) -> None: ...


class Adan(
    Optimizer,
    rule="adan",
    adaptive=True,
    kinds={
        "exp_avg": "ratio exp_avg_sq",
        "exp_avg_diff": "average",
        "exp_avg_sq": "square",
        "neg_pre_grad": "precise",
    },
):
    """Adaptive Nesterov momentum: an average of gradients and one of their differences.

        D = g - previous g (0 at first)
        m ← beta1 * m + (1 - beta1) * g,  d ← beta2 * d + (1 - beta2) * D
        n ← beta3 * n + (1 - beta3) * (g + beta2 * D)²
        u = (m̂ + beta2 * d̂) / (√n̂ + eps),  each corrected by 1 - beta^t
        theta ← (theta - lr * u) / (1 + lr * weight_decay)

    With no_prox=True the decay is AdamW's, theta * (1 - lr * weight_decay) - lr * u. The authors' code,
    not the paper, which writes 1 - beta for each beta. Their max_grad_norm is clip_norm. (optax 0.2.8 has
    1 - beta2 where the formula has beta2.)

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        betas: decay rates of m, d and n, three, each a number or a function step -> number, in [0, 1).
        eps: a number or a function step -> number, at least 0.
        weight_decay: a number or a function step -> number, at least 0.
        no_prox: True or False, see above.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: exp_avg (m), exp_avg_diff (d), exp_avg_sq (n), neg_pre_grad (minus the previous gradient, as
    it was after scaling and clipping), each of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0])
        >>> opt = fastgd.Adan(theta, lr=0.1)
        >>> opt.step(np.array([5.0]))
        True
        >>> theta.round(6).tolist()
        [0.9]

    References:
        Xie et al. 2022, Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models,
        algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-3,
        betas: ThreeFractions = (0.98, 0.92, 0.99),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0,
        no_prox: Flag = False,
        **options: Unpack[Options],
    ) -> None: ...
