"""Lion, signSGD and Signum: every element moves by the learning rate or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import Flag, Fraction, Fractions, NonNegative, Options

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Lion(
    Optimizer,
    rule="lion",
    variants={"cautious": "cautious lion"},
    adaptive=True,
    kinds={"exp_avg": "average"},
):
    """Evolved sign momentum.

        theta ← theta - lr * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * theta)
        m ← beta2 * m + (1 - beta2) * g

    The momentum of before the step is in the sign. Half the state of Adam. Every step moves an element
    by lr or not at all, so lr is 3 to 10 times smaller than AdamW's and weight_decay as much larger.
    The decay is decoupled. Libraries agree on the formula and not on the defaults: lr and weight_decay
    are lion-pytorch's, timm's and bitsandbytes'; optax has weight_decay=1e-3, Keras lr=1e-3.

    cautious=True moves only the elements whose direction agrees with their gradient, and divides the
    rate by their share of the array (at least 0.001), as in timm. It takes a second sweep.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        betas: decay rates of the momentum in the direction and in itself, a pair, each a number or a
            function step -> number, in [0, 1).
        weight_decay: a number or a function step -> number, at least 0.
        cautious: True or False, see above.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: exp_avg (m), of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0, -2.0, 3.0])
        >>> opt = fastgd.Lion(theta, lr=0.25)
        >>> opt.step(np.array([10.0, -0.1, 0.0]))
        True
        >>> theta.tolist()
        [0.75, -1.75, 3.0]

    References:
        Chen et al. 2023, Symbolic discovery of optimization algorithms, algorithm 2 and section 5.
        Liang et al. 2024, Cautious optimizers: improving training with one line of code, algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-4,
        betas: Fractions = (0.9, 0.99),
        weight_decay: NonNegative = 0,
        *,
        cautious: Flag = False,
        **options: Unpack[Options],
    ) -> None: ...


class Signum(
    Optimizer, rule="signum", momentum="beta", adaptive=True, kinds={"exp_avg": "average"}
):
    """signSGD with momentum.

        m ← beta * m + (1 - beta) * g
        theta ← theta - lr * (sign(m) + weight_decay * theta)

    The decay is decoupled. The same as `Lion` with two equal betas, but that the new average decides.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        beta: decay rate of the average, a number or a function step -> number, in [0, 1).
        weight_decay: a number or a function step -> number, at least 0.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: exp_avg (m), of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0, 1.0])
        >>> opt = fastgd.Signum(theta, lr=0.25)
        >>> opt.step(np.array([4.0, -0.01])), opt.step(np.array([-0.01, -0.01]))
        (True, True)
        >>> theta.tolist()
        [0.5, 1.5]

    References:
        Bernstein et al. 2018, signSGD: compressed optimisation for non-convex problems, algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-3,
        beta: Fraction = 0.9,
        weight_decay: NonNegative = 0,
        **options: Unpack[Options],
    ) -> None: ...


class SignSGD(Optimizer, rule="sign_sgd", adaptive=True):
    """The sign of the gradient alone.

        theta ← theta - lr * (sign(g) + weight_decay * theta)

    The decay is decoupled. A gradient of zero does not move its element; that of a NaN is a NaN (in
    PyTorch sign(NaN) is 0, so that it goes unnoticed).

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        weight_decay: a number or a function step -> number, at least 0.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: none.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0, 1.0])
        >>> opt = fastgd.SignSGD(theta, lr=0.25)
        >>> opt.step(np.array([4.0, -0.01]))
        True
        >>> theta.tolist()
        [0.75, 1.25]

    References:
        Bernstein et al. 2018, signSGD: compressed optimisation for non-convex problems, algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-3,
        weight_decay: NonNegative = 0,
        **options: Unpack[Options],
    ) -> None: ...
