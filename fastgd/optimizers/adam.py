"""Adam and AdamW."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import MOMENTS, Flag, Fractions, NonNegative, Options, Values

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Adam(Optimizer, rule="adam", torch="Adam", adaptive=True, kinds=MOMENTS):
    """Adaptive moment estimation, weight decay as an L2 penalty.

        g ← ∇L(theta) + weight_decay * theta
        m ← beta1 * m + (1 - beta1) * g
        v ← beta2 * v + (1 - beta2) * g²
        theta ← theta - lr * m̂ / (√v̂ + eps),  m̂ = m / (1 - beta1^t),  v̂ = v / (1 - beta2^t)

    amsgrad=True puts the maximum of all v so far, before the bias correction, in v's place. Libraries
    disagree about epsilon: here, as in PyTorch and in the paper's algorithm 1, it is added to the
    corrected root. With eps_hat=True it is added to the uncorrected one, the "epsilon hat" form at the
    end of the paper's section 2, theta ← theta - lr √(1 - beta2^t) / (1 - beta1^t) * m / (√v + eps),
    as in scikit-learn, Keras, thinc and PennyLane.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        betas: decay rates of the two moments, a pair, each a number or a function step -> number,
            in [0, 1).
        eps: a number or a function step -> number, at least 0.
        weight_decay: L2 penalty, a number or a function step -> number, at least 0. It passes
            through the moments; see `AdamW`.
        amsgrad, eps_hat: True or False, see above.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: exp_avg (m), exp_avg_sq (v), max_exp_avg_sq (with amsgrad), each of the parameter's shape
    and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> params = {"W": np.ones((3, 2), np.float32), "b": np.zeros(2, np.float32)}
        >>> opt = fastgd.Adam(params, lr=0.1)
        >>> opt.step({"W": np.full((3, 2), 5.0), "b": None})
        True
        >>> params["W"][0].round(6).tolist()    # the first step has the length lr
        [0.8999999761581421, 0.8999999761581421]

    References:
        Kingma & Ba 2015, Adam: a method for stochastic optimization, algorithm 1.
        Reddi, Kale & Kumar 2018, On the convergence of Adam and beyond, algorithm 2 (amsgrad; without
        the correction of the bias).
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-3,
        betas: Fractions = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0,
        amsgrad: Flag = False,
        *,
        eps_hat: Flag = False,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def unused(cls, values: Values) -> set[str]:
        return set() if values["amsgrad"] else {"max_exp_avg_sq"}


class AdamW(
    Adam, rule="adamw", variants={"cautious": "cautious adamw"}, torch="AdamW", kinds=MOMENTS
):
    """Adam with decoupled weight decay.

        theta ← theta - lr * weight_decay * theta,  then Adam's step without an L2 penalty

    The decay acts on the parameters themselves, before the step, and not through the moments, so that
    its strength does not depend on the size of the gradients. As in PyTorch it is multiplied by lr;
    in the paper by a separate schedule eta only (pass weight_decay / lr for a constant decay).

    cautious=True moves only the elements whose direction agrees with their gradient, m * g > 0, and
    divides the rate by their share of the array (at least 0.001). The authors' code has eps = 1e-6 and
    eps_hat=True; timm's has neither. It takes a second sweep.

    Args:
        params, lr, betas, eps, amsgrad, eps_hat: see `Adam`.
        weight_decay: a number or a function step -> number, at least 0.
        cautious: True or False, see above.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: exp_avg, exp_avg_sq, max_exp_avg_sq (with amsgrad), each of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([2.0])
        >>> opt = fastgd.AdamW(theta, lr=0.1, weight_decay=0.5)
        >>> opt.step(np.array([0.0]))
        True
        >>> theta.tolist()                      # 2 * (1 - 0.1 * 0.5)
        [1.9]

    References:
        Loshchilov & Hutter 2019, Decoupled weight decay regularization, algorithm 2.
        Liang et al. 2024, Cautious optimizers: improving training with one line of code, algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-3,
        betas: Fractions = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 1e-2,
        amsgrad: Flag = False,
        *,
        eps_hat: Flag = False,
        cautious: Flag = False,
        **options: Unpack[Options],
    ) -> None: ...
