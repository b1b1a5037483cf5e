"""The optimizers: hyperparameters, state slots and the coefficients of one step.

Each class computes in double precision what is the same for all elements of a step; the engine's rule
of the same name (fastgd/_engine/_rules.pxd) does the rest. Names, defaults and formulas are PyTorch's.

In the formulas theta is a parameter, g its gradient and t = 1, 2, … the number of the step. Every
hyperparameter can differ between parameter groups, and any number can be a function of the number of
steps taken (see `fastgd.schedules`). These keywords are common to all:

    maximize: ascend instead of descend.
    clip_norm: multiply all gradients by min(1, clip_norm / norm), the norm taken over all groups
        (Pascanu, Mikolov & Bengio 2013, algorithm 1).
    clip_value: then clamp every element to ±clip_value.
    nonfinite: what to do about a NaN or an infinity in a gradient: "propagate" it, "raise" a
        FloatingPointError, or "skip" the step; the last two change nothing.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, ClassVar

from fastgd._arguments import flag
from fastgd._hyperparameters import Check, Values, fraction, fractions, nonnegative, real
from fastgd._optimizer import Optimizer


class SGD(Optimizer):
    """(Stochastic) gradient descent, optionally with momentum.

        g ← ∇L(theta) + weight_decay * theta
        buf ← momentum * buf + (1 - dampening) * g      (undamped at a parameter's first step)
        theta ← theta - lr * buf                        (nesterov: lr * (g + momentum * buf))

    Without momentum theta ← theta - lr * g. Libraries disagree about where the learning rate stands:
    here, as in PyTorch, it multiplies the buffer, so a change of lr acts at once on the whole velocity.
    With lr_in_momentum=True it is inside, buf ← momentum * buf + lr * (1 - dampening) * g and
    theta ← theta - buf, as in Sutskever et al. and Keras; for a constant lr the two agree.

    Args:
        params: an array, a list, tuple or dict of such (nested at will), or a list of group dicts.
            Arrays are native float32 or float64, contiguous and writeable; updated in place.
        lr: learning rate, at least 0. As every number here, a number or a function step -> number of
            the steps taken so far (see `fastgd.schedules`), whose values pass the same checks.
        momentum: a number or a function step -> number, at least 0; 0 keeps no state.
        dampening: a number or a function step -> number: part of the gradient that is kept from the
            momentum buffer.
        weight_decay: L2 penalty, a number or a function step -> number, at least 0.
        nesterov: True looks ahead along the momentum; needs momentum > 0 and no dampening.
        lr_in_momentum: True or False, see above.
        maximize: True ascends instead of descending.
        clip_norm: the largest norm of all gradients taken as one vector, over all groups: if it is
            larger they are multiplied by clip_norm / norm. A number or a function step -> number,
            greater than 0; None for no such limit.
        clip_value: the largest magnitude of an element, to which larger ones are clamped, after
            clip_norm. A number or a function step -> number, greater than 0; None for no such limit.
        nonfinite: what a step does about a NaN or an infinity in a gradient: "propagate" it into the
            parameters, "raise" a FloatingPointError, or "skip" the step, which then returns False.
            The last two change nothing.

    State: momentum_buffer (with momentum), of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0, -2.0])
        >>> opt = fastgd.SGD(theta, lr=0.1, momentum=0.9)
        >>> for _ in range(200):
        ...     _ = opt.step(2 * theta)         # the gradient of theta·theta
        >>> bool(np.abs(theta).max() < 1e-3)
        True

    References:
        Robbins & Monro 1951, A stochastic approximation method.
        Polyak 1964, Some methods of speeding up the convergence of iteration methods (momentum).
        Sutskever, Martens, Dahl & Hinton 2013, On the importance of initialization and momentum in
        deep learning, section 2 (both kinds of momentum, lr inside).
        Goodfellow, Bengio & Courville 2016, Deep Learning, algorithms 8.1 to 8.3.
        Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks,
        algorithm 1 (clip_norm).
    """

    rule = "sgd"
    slots = ("momentum_buffer",)
    checks: ClassVar[dict[str, Check]] = {
        "lr": nonnegative,
        "momentum": nonnegative,
        "dampening": real,
        "weight_decay": nonnegative,
        "nesterov": flag,
        "lr_in_momentum": flag,
        "maximize": flag,
    }

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        momentum: Any = 0,
        dampening: Any = 0,
        weight_decay: Any = 0,
        nesterov: bool = False,
        *,
        lr_in_momentum: bool = False,
        maximize: bool = False,
        clip_norm: Any = None,
        clip_value: Any = None,
        nonfinite: str = "propagate",
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "lr_in_momentum": lr_in_momentum,
            "maximize": maximize,
        }
        super().__init__(
            params, defaults, clip_norm=clip_norm, clip_value=clip_value, nonfinite=nonfinite
        )

    @classmethod
    def check_together(cls, values: Values) -> None:
        if values["nesterov"] and (values["momentum"] == 0 or values["dampening"] != 0):
            raise ValueError(
                f"nesterov needs momentum > 0 and dampening 0, got momentum={values['momentum']!r} "
                f"and dampening={values['dampening']!r}"
            )

    @classmethod
    def uses(cls, values: Values) -> tuple[bool, ...]:
        return (values["momentum"] != 0,)

    def coefficients(self, values: Values, t: int) -> tuple[float, ...]:
        lr, nesterov = values["lr"], float(values["nesterov"])
        outside, inside = (1.0, lr) if values["lr_in_momentum"] else (lr, 1.0)
        inflow = inside if t == 1 else inside * (1.0 - values["dampening"])
        return (values["weight_decay"], lr, values["momentum"], inflow, outside, inside, nesterov)


class Adam(Optimizer):
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
        maximize, clip_norm, clip_value, nonfinite: see `SGD`.

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

    rule = "adam"
    decoupled = False  # whether weight_decay acts on the parameter and not on the gradient
    slots = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    checks: ClassVar[dict[str, Check]] = {
        "lr": nonnegative,
        "betas": fractions,
        "eps": nonnegative,
        "weight_decay": nonnegative,
        "amsgrad": flag,
        "eps_hat": flag,
        "maximize": flag,
    }

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[Any, Any] = (0.9, 0.999),
        eps: Any = 1e-8,
        weight_decay: Any = 0,
        amsgrad: bool = False,
        *,
        eps_hat: bool = False,
        maximize: bool = False,
        clip_norm: Any = None,
        clip_value: Any = None,
        nonfinite: str = "propagate",
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "eps_hat": eps_hat,
            "maximize": maximize,
        }
        super().__init__(
            params, defaults, clip_norm=clip_norm, clip_value=clip_value, nonfinite=nonfinite
        )

    @classmethod
    def uses(cls, values: Values) -> tuple[bool, ...]:
        return (True, True, values["amsgrad"])

    def coefficients(self, values: Values, t: int) -> tuple[float, ...]:
        lr, eps, l2, (beta1, beta2) = (
            values["lr"],
            values["eps"],
            values["weight_decay"],
            values["betas"],
        )
        root, keep = sqrt(1.0 - beta2**t), 1.0
        if values["eps_hat"]:
            eps /= root
        if self.decoupled:
            l2, keep = 0.0, 1.0 - lr * l2
        step_size = lr / (1.0 - beta1**t)
        return (l2, step_size, keep, beta1, 1.0 - beta1, beta2, 1.0 - beta2, 1.0 / root, eps)


class AdamW(Adam):
    """Adam with decoupled weight decay.

        theta ← theta - lr * weight_decay * theta,  then Adam's step without an L2 penalty

    The decay acts on the parameters themselves, before the step, and not through the moments, so that
    its strength does not depend on the size of the gradients. As in PyTorch it is multiplied by lr;
    in the paper by a separate schedule eta only (pass weight_decay / lr for a constant decay).

    Args:
        params, lr, betas, eps, amsgrad, eps_hat: see `Adam`.
        weight_decay: a number or a function step -> number, at least 0.
        maximize, clip_norm, clip_value, nonfinite: see `SGD`.

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
    """

    decoupled = True

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[Any, Any] = (0.9, 0.999),
        eps: Any = 1e-8,
        weight_decay: Any = 1e-2,
        amsgrad: bool = False,
        *,
        eps_hat: bool = False,
        maximize: bool = False,
        clip_norm: Any = None,
        clip_value: Any = None,
        nonfinite: str = "propagate",
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            eps_hat=eps_hat,
            maximize=maximize,
            clip_norm=clip_norm,
            clip_value=clip_value,
            nonfinite=nonfinite,
        )


class Adagrad(Optimizer):
    """Per-parameter learning rates from the sum of all squared gradients.

        g ← ∇L(theta) + weight_decay * theta
        s ← s + g²                              (s starts at initial_accumulator_value)
        theta ← theta - lr / (1 + (t - 1) * lr_decay) * g / (√s + eps)

    A parameter whose gradient is rarely non-zero keeps a large rate: the method for sparse data.
    Libraries disagree about epsilon: outside the root here, as in PyTorch; inside, √(s + eps), with
    eps_inside=True, as in optax, PennyLane and Keras.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        lr_decay: a number or a function step -> number, at least 0.
        weight_decay: L2 penalty, a number or a function step -> number, at least 0.
        initial_accumulator_value: a number, at least 0; read when the state is made.
        eps: a number or a function step -> number, at least 0.
        eps_inside: True or False, see above.
        maximize, clip_norm, clip_value, nonfinite: see `SGD`.

    State: sum, of the parameter's shape and dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0, 1.0])
        >>> opt = fastgd.Adagrad(theta, lr=0.5)
        >>> opt.step(np.array([4.0, 0.01]))     # every coordinate moves by lr at first
        True
        >>> theta.round(6).tolist()
        [0.5, 0.5]

    References:
        Duchi, Hazan & Singer 2011, Adaptive subgradient methods for online learning and stochastic
        optimization, section 1.1 with the diagonal matrix.
    """

    rule = "adagrad"
    slots = ("sum",)
    checks: ClassVar[dict[str, Check]] = {
        "lr": nonnegative,
        "lr_decay": nonnegative,
        "weight_decay": nonnegative,
        "initial_accumulator_value": nonnegative,
        "eps": nonnegative,
        "eps_inside": flag,
        "maximize": flag,
    }

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        lr_decay: Any = 0,
        weight_decay: Any = 0,
        initial_accumulator_value: float = 0,
        eps: Any = 1e-10,
        *,
        eps_inside: bool = False,
        maximize: bool = False,
        clip_norm: Any = None,
        clip_value: Any = None,
        nonfinite: str = "propagate",
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
            "eps_inside": eps_inside,
            "maximize": maximize,
        }
        super().__init__(
            params, defaults, clip_norm=clip_norm, clip_value=clip_value, nonfinite=nonfinite
        )

    @classmethod
    def check_together(cls, values: Values) -> None:
        if callable(values["initial_accumulator_value"]):
            raise TypeError("initial_accumulator_value must be a number: it is read only once")

    @classmethod
    def initial(cls, values: Values) -> float:
        return float(values["initial_accumulator_value"])

    def coefficients(self, values: Values, t: int) -> tuple[float, ...]:
        lr = values["lr"] / (1.0 + (t - 1) * values["lr_decay"])
        return (values["weight_decay"], lr, *_epsilons(values))


class RMSprop(Optimizer):
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
        maximize, clip_norm, clip_value, nonfinite: see `SGD`.

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

    rule = "rmsprop"
    slots = ("square_avg", "momentum_buffer", "grad_avg")
    checks: ClassVar[dict[str, Check]] = {
        "lr": nonnegative,
        "alpha": fraction,
        "eps": nonnegative,
        "weight_decay": nonnegative,
        "momentum": nonnegative,
        "centered": flag,
        "eps_inside": flag,
        "lr_in_momentum": flag,
        "maximize": flag,
    }

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        alpha: Any = 0.99,
        eps: Any = 1e-8,
        weight_decay: Any = 0,
        momentum: Any = 0,
        centered: bool = False,
        *,
        eps_inside: bool = False,
        lr_in_momentum: bool = False,
        maximize: bool = False,
        clip_norm: Any = None,
        clip_value: Any = None,
        nonfinite: str = "propagate",
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "eps_inside": eps_inside,
            "lr_in_momentum": lr_in_momentum,
            "maximize": maximize,
        }
        super().__init__(
            params, defaults, clip_norm=clip_norm, clip_value=clip_value, nonfinite=nonfinite
        )

    @classmethod
    def uses(cls, values: Values) -> tuple[bool, ...]:
        return (True, values["momentum"] != 0, values["centered"])

    def coefficients(self, values: Values, t: int) -> tuple[float, ...]:
        lr, alpha = values["lr"], values["alpha"]
        outside, inside = (1.0, lr) if values["lr_in_momentum"] else (lr, 1.0)
        buffer = (values["momentum"], inside, outside)
        return (values["weight_decay"], lr, *buffer, alpha, 1.0 - alpha, *_epsilons(values))


def _epsilons(values: Values) -> tuple[float, float]:
    """(inside the root, outside it)."""
    return (values["eps"], 0.0) if values["eps_inside"] else (0.0, values["eps"])
