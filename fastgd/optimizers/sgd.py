"""Gradient descent, with and without momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgd._arrays.tree import Array
from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import Flag, NonNegative, Options, Real, Values

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SGD(
    Optimizer,
    rule="sgd",
    variants={"centralize": "centralized sgd"},
    torch="SGD",
    momentum="momentum",
    kinds={"momentum_buffer": "sum"},
):
    """(Stochastic) gradient descent, optionally with momentum.

        g ← ∇L(theta) + weight_decay * theta
        buf ← momentum * buf + (1 - dampening) * g      (undamped at a parameter's first step)
        theta ← theta - lr * buf                        (nesterov: lr * (g + momentum * buf))

    Without momentum theta ← theta - lr * g. Libraries disagree about where the learning rate stands:
    here, as in PyTorch, it multiplies the buffer, so a change of lr acts at once on the whole velocity.
    With lr_in_momentum=True it is inside, buf ← momentum * buf + lr * (1 - dampening) * g and
    theta ← theta - buf, as in Sutskever et al. and Keras; for a constant lr the two agree.

    centralize=True takes from the gradient of an array of two or more axes, decay included, its mean
    over all axes but the first (the outputs in PyTorch's layout of weights), as in the authors' code.
    A step then has scratch of the arrays' size.

    Args:
        params: an array, a list, tuple or dict of such (nested at will), or a list of group dicts.
            Arrays are native float32 or float64, contiguous and writeable; updated in place.
        lr: learning rate, at least 0. As every number here, a number or a function step -> number of
            the steps taken so far (see `fastgd.schedules`), whose values pass the same checks.
        momentum: a number or a function step -> number, at least 0; 0 keeps no state.
        dampening: a number or a function step -> number: part of the gradient that is kept from the
            momentum buffer.
        weight_decay: L2 penalty, a number or a function step -> number, at least 0.
        nesterov: True looks ahead along the momentum, where there is one; needs dampening 0.
        lr_in_momentum, centralize: True or False, see above.
        maximize: True ascends instead of descending.
        state_dtype: how the state of float32 parameters is stored: "bfloat16" in 2 bytes for each element
            instead of 4, "8bit" in 1 and 1/64 (arrays of 4,096 elements or more, in C order); None in the
            parameter's dtype. What stays small or grows slowly is rounded stochastically, with a noise that
            depends only on array, element and step. Refused by name where an optimizer keeps something
            that would lose too much. Rows of a gradient need None or "bfloat16".
        state_dir: a directory; the state lies in a file there, without a name, not in memory, when it
            is made: see `fastgd.set_resident_bytes`. None for memory.
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
        Yong et al. 2020, Gradient centralization: a new optimization technique, equation 1.
        Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks,
        algorithm 1 (clip_norm).
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-3,
        momentum: NonNegative = 0,
        dampening: Real = 0,
        weight_decay: NonNegative = 0,
        nesterov: Flag = False,
        *,
        lr_in_momentum: Flag = False,
        centralize: Flag = False,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def check_together(cls, values: Values) -> None:
        if values["nesterov"] and values["dampening"] != 0:
            raise ValueError(f"nesterov needs dampening 0, got dampening={values['dampening']!r}")

    @classmethod
    def unused(cls, values: Values) -> set[str]:
        return {"momentum_buffer"} if values["momentum"] == 0 else set()

    @classmethod
    def direct(
        cls, direction: Array, param: Array, state: Mapping[str, Array], values: Values, t: int
    ) -> Mapping[str, Array]:
        """Centralize a gradient."""
        if direction.ndim > 1 and direction.size:
            with np.errstate(all="ignore"):  # a NaN or an infinity is the caller's to see
                direction -= direction.mean(axis=tuple(range(1, direction.ndim)), keepdims=True)
        return {}
