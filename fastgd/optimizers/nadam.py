"""NAdam, NAdamW and RAdam: Adam with Nesterov's look-ahead; Adam that waits for its second moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import MOMENTS, Flag, Fractions, NonNegative, Options, Values

if TYPE_CHECKING:
    from typing_extensions import Unpack


class NAdam(Optimizer, rule="nadam", torch="NAdam", adaptive=True, kinds=MOMENTS):
    """Adam with Nesterov momentum.

        g ← ∇L(theta) + weight_decay * theta
        mu(t) = beta1 * (1 - 0.96^(t * momentum_decay) / 2),  P ← P * mu(t)
        m, v as in `Adam`
        theta ← theta - lr / (√v̂ + eps) * (mu(t+1) / (1 - P mu(t+1)) * m + (1 - mu(t)) / (1 - P) * g)

    momentum_decay=1 and eps=1e-7 is Keras' form. With constant_momentum=True mu(t) = beta1 as in
    optax' nadam, beta1 * m / (1 - beta1^(t+1)) + (1 - beta1) * g / (1 - beta1^t); then momentum_decay
    does nothing. Of a third form, MLCommons', see `NAdamW`. PyTorch keeps P in its default dtype,
    so that its float64 runs drift by some 1e-9; here it is a double.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        betas: decay rates of the two moments, a pair, each a number or a function step -> number,
            in [0, 1).
        eps: a number or a function step -> number, at least 0.
        weight_decay: L2 penalty, a number or a function step -> number, at least 0.
        momentum_decay: a number or a function step -> number, at least 0: how soon mu reaches beta1.
        decoupled_weight_decay: True multiplies theta by 1 - lr * weight_decay instead, as AdamW.
        constant_momentum: True or False, see above.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: exp_avg (m), exp_avg_sq (v), each of the parameter's shape and dtype; the number
    mu_product (P).

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0])
        >>> opt = fastgd.NAdam(theta, lr=0.1)
        >>> opt.step(np.array([5.0]))           # the first step is 1.0564 times as long as Adam's
        True
        >>> theta.round(6).tolist()
        [0.894355]

    References:
        Dozat 2016, Incorporating Nesterov momentum into Adam, algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 2e-3,
        betas: Fractions = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0,
        momentum_decay: NonNegative = 4e-3,
        decoupled_weight_decay: Flag = False,
        *,
        constant_momentum: Flag = False,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def first_values(cls, values: Values) -> dict[str, float]:
        return {"mu_product": 1.0}


class NAdamW(Optimizer, rule="nadamw", adaptive=True, kinds=MOMENTS):
    """AdamW with Nesterov momentum, as in MLCommons' AlgoPerf.

        theta ← theta * (1 - lr * weight_decay)
        m, v as in `Adam`
        theta ← theta - lr / (√v̂ + eps) * (beta1 * m + (1 - beta1) * g) / (1 - beta1^t)

    One correction for both parts, so that the first steps are longer than Adam's (1.9 lr at first). For
    Dozat's form with decoupled decay see NAdam(decoupled_weight_decay=True).

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        betas: decay rates of the two moments, a pair, each a number or a function step -> number,
            in [0, 1).
        eps: a number or a function step -> number, at least 0.
        weight_decay: a number or a function step -> number, at least 0.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: exp_avg (m), exp_avg_sq (v), each of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0])
        >>> opt = fastgd.NAdamW(theta, lr=0.1, weight_decay=0)
        >>> opt.step(np.array([5.0]))
        True
        >>> theta.round(6).tolist()             # 1 - 1.9 * 0.1
        [0.81]

    References:
        Dozat 2016, Incorporating Nesterov momentum into Adam.
        Dahl et al. 2023, Benchmarking neural network training algorithms (the form).
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-3,
        betas: Fractions = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 1e-2,
        **options: Unpack[Options],
    ) -> None: ...


class RAdam(Optimizer, rule="radam", torch="RAdam", adaptive=True, kinds=MOMENTS):
    """Adam whose first steps are momentum steps, until the second moment can be trusted.

        g ← ∇L(theta) + weight_decay * theta
        m, v as in `Adam`;  R = 2 / (1 - beta2) - 1,  r = R - 2 t beta2^t / (1 - beta2^t)
        r > 5: theta ← theta - lr √((r-4)(r-2)R / ((R-4)(R-2)r)) √(1 - beta2^t) m̂ / (√v + eps)
        else:  theta ← theta - lr * m̂

    With beta2 = 0.999 the first five steps are lr * m̂, whose length is the gradient's: large gradients
    give large steps. degenerated_to_sgd=False leaves the parameters where they are until then, an
    option of the authors' code. Libraries disagree about epsilon: on the uncorrected root as in PyTorch
    and the authors' code; eps_hat=False puts it on the corrected one, as in optax and TensorFlow
    Addons. The paper has r > 4.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        betas: decay rates of the two moments, a pair, each a number or a function step -> number,
            in [0, 1).
        eps: a number or a function step -> number, at least 0.
        weight_decay: L2 penalty, a number or a function step -> number, at least 0.
        decoupled_weight_decay: True multiplies theta by 1 - lr * weight_decay instead, as AdamW.
        eps_hat, degenerated_to_sgd: True or False, see above.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: exp_avg (m), exp_avg_sq (v), each of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0])
        >>> opt = fastgd.RAdam(theta, lr=0.1)
        >>> opt.step(np.array([2.0]))
        True
        >>> theta.round(6).tolist()             # 1 - 0.1 * 2
        [0.8]

    References:
        Liu et al. 2020, On the variance of the adaptive learning rate and beyond, algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-3,
        betas: Fractions = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0,
        decoupled_weight_decay: Flag = False,
        *,
        eps_hat: Flag = True,
        degenerated_to_sgd: Flag = True,
        **options: Unpack[Options],
    ) -> None: ...
