"""FTRL-Proximal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgd._arrays.tree import Array
from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import Flag, NonNegative, Options, Positive, Values

if TYPE_CHECKING:
    from typing_extensions import Unpack


class FTRL(
    Optimizer, rule="ftrl", unpacked=("initial_accumulator_value", "keep_start"), adaptive=True
):
    """Follow the regularized leader: Adagrad's rates, and parameters that l1 makes exactly zero.

        n' = n + g²
        z ← z + g + 2 * l2_shrinkage * theta - ((√n' + beta) / lr - (√n + beta) / lr') * theta;  n ← n'
        theta ← 0 where |z| <= l1, else -(z - l1 * sign(z)) / ((√n + beta) / lr + 2 * l2)

    lr' is the rate of the step before, so that a rate that changes does not by itself move theta; other
    libraries take the present rate in both places, and a falling one then draws theta to 0.

    The method for sparse data of many dimensions, click-through rates above all. theta is made anew of z
    at every step. z starts so that the theta that is given stays where its gradient is zero; with
    keep_start=False it starts at 0, as in TensorFlow and Keras, and the first step throws the given
    theta away. McMahan's alpha is lr, his beta 1, lambda1 = l1, lambda2 = 2 * l2, and his n starts at
    0. Of Keras' learning_rate_power there is -0.5 only.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, greater than 0.
        initial_accumulator_value: a number that n starts at, at least 0; read when the state is made.
        l1, l2, l2_shrinkage, beta: numbers or functions step -> number, at least 0.
        keep_start: True or False, see above; read when the state is made.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: accumulator (n), linear (z), each of the parameter's shape and dtype; the number last_lr.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.zeros(2)
        >>> opt = fastgd.FTRL(theta, lr=0.5, l1=1.0)
        >>> for t in range(50):                 # the second gradient is noise, which comes to nothing
        ...     _ = opt.step(np.array([4 * (theta[0] - 1), 0.9 * (-1) ** t]))
        >>> bool(theta[0] > 0.9), float(theta[1])
        (True, 0.0)

    References:
        McMahan et al. 2013, Ad click prediction: a view from the trenches, algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: Positive = 1e-3,
        initial_accumulator_value: NonNegative = 0.1,
        l1: NonNegative = 0,
        l2: NonNegative = 0,
        l2_shrinkage: NonNegative = 0,
        beta: NonNegative = 0,
        *,
        keep_start: Flag = True,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def check_together(cls, values: Values) -> None:
        if callable(values["initial_accumulator_value"]):
            raise TypeError("initial_accumulator_value must be a number: it is read only once")

    @classmethod
    def first_values(cls, values: Values) -> dict[str, float | Callable[[Array], Any]]:
        accumulator: float = values["initial_accumulator_value"]
        quadratic = (accumulator**0.5 + values["beta"]) / values["lr"] + 2 * values["l2"]

        def linear(theta: Array) -> Array:
            penalty = theta.dtype.type(values["l1"]) * np.sign(theta)
            return np.asarray(-theta * theta.dtype.type(quadratic) - penalty)

        return {
            "accumulator": accumulator,
            "linear": linear if values["keep_start"] else 0.0,
            "last_lr": values["lr"],
        }
