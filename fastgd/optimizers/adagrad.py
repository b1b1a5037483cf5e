"""Adagrad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgd._arrays.tree import Array
from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import Flag, NonNegative, Options, Values

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Adagrad(
    Optimizer,
    rule="adagrad",
    unpacked=("initial_accumulator_value",),
    torch="Adagrad",
    adaptive=True,
    kinds={"sum": "square"},
):
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
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

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

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-2,
        lr_decay: NonNegative = 0,
        weight_decay: NonNegative = 0,
        initial_accumulator_value: NonNegative = 0,
        eps: NonNegative = 1e-10,
        *,
        eps_inside: Flag = False,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def check_together(cls, values: Values) -> None:
        if callable(values["initial_accumulator_value"]):
            raise TypeError("initial_accumulator_value must be a number: it is read only once")

    @classmethod
    def first_values(cls, values: Values) -> dict[str, float]:
        return {"sum": values["initial_accumulator_value"]}


class RowWiseAdagrad(
    Adagrad,
    rule="row-wise adagrad",
    unpacked=("initial_accumulator_value",),
    torch=None,
    kinds={},
):
    """Adagrad with one number for each row in place of one for each element: for large embedding tables.

        g ← ∇L(theta) + weight_decay * theta
        s_r ← s_r + mean of g² over row r           (s starts at initial_accumulator_value)
        theta_r ← theta_r - lr / (1 + (t - 1) * lr_decay) * g_r / (√s_r + eps)

    The state of a table of 64 columns takes a 64th of Adagrad's. With gradients given as `Rows` only the
    rows that they name are touched. A parameter of one axis has rows of one element, which is Adagrad.

    Args:
        params: see `SGD`; in C order, so that a row's elements lie together.
        lr, lr_decay, weight_decay, initial_accumulator_value, eps, eps_inside: see `Adagrad`.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: sum, of shape (number of rows,) and the parameter's dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> table = np.ones((1000, 2))
        >>> opt = fastgd.RowWiseAdagrad(table, lr=0.5)
        >>> opt.step(fastgd.Rows([7], [[3.0, 4.0]]))    # the mean of the squares is 12.5
        True
        >>> table[7].round(4).tolist(), opt.state["params"]["sum"].shape
        ([0.5757, 0.4343], (1000,))

    References:
        Duchi, Hazan & Singer 2011; Mudigere et al. 2022, Software-hardware co-design for fast and scalable
        training of deep learning recommendation models, section 4.1.4.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-2,
        lr_decay: NonNegative = 0,
        weight_decay: NonNegative = 0,
        initial_accumulator_value: NonNegative = 0,
        eps: NonNegative = 1e-10,
        *,
        eps_inside: Flag = False,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def state_shape(cls, slot: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[:1]

    @classmethod
    def check_array(cls, name: str, array: Array, values: Values) -> None:
        if not array.flags.c_contiguous:
            raise ValueError(
                f"parameter {name!r} is in Fortran order, and RowWiseAdagrad keeps a number for each row, "
                "whose elements must lie together; make it of numpy.ascontiguousarray()"
            )
