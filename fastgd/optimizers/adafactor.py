"""Adafactor: the second moment of a matrix as a row times a column."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from fastgd._arrays.tree import Array
from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import (
    Flag,
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


def _epsilons(name: str, value: Any) -> tuple[float | None, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must be a pair, of a number or None and a number, got {value!r}")
    first, second = value
    return optional(nonnegative)(f"{name}[0]", first), nonnegative(f"{name}[1]", second)


class Adafactor(
    Optimizer,
    rule="adafactor",
    unpacked=(
        "beta2_decay",
        "eps",
        "d",
        "relative_step",
        "scale_parameter",
        "eps_added",
        "beta1",
    ),
    torch="Adafactor",
    adaptive=True,
):
    """Adam's second moment in the memory of one row and one column, for large models.

        w = t^beta2_decay,  rho = min(lr, 1 / √t),  A = max(eps[1], rms(theta)) * rho
        matrices: R ← R + w * (mean of g² along rows - R),  C likewise along columns
                  V = R * C / max(mean(R), eps[0])
        others:   V ← V + w * (g² - V)
        u = g / √max(V, eps[0]²)
        theta ← theta * (1 - lr * weight_decay) - A / max(1, rms(u) / d) * u

    An array of more than two axes is a stack of matrices over the last two. The defaults are PyTorch's;
    eps[0] = None is the machine epsilon of the array's dtype. Other libraries' forms: relative_step=False
    takes rho = lr, scale_parameter=False A = rho (Hugging Face, fairseq); eps_added=True adds eps[0] to
    g² instead of the two maxima (they and optax, with eps=(1e-30, 1e-3)); beta1 averages the step
    A / max(…) * u, without a correction. A step works on scratch of the arrays' size, made at the first.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        beta2_decay: a number or a function step -> number; below 0.
        eps: a pair, the first a number or None, both at least 0.
        d: the largest RMS of u, a number or a function step -> number, greater than 0.
        weight_decay: decoupled, a number or a function step -> number, at least 0.
        relative_step, scale_parameter, eps_added: True or False, see above.
        beta1: a number or a function step -> number, in [0, 1), or None for no average.
        maximize, clip_norm, clip_value, nonfinite: see `SGD`.

    State: row_var (…, n, 1) and col_var (…, 1, m) for arrays of two or more axes, variance for others;
    exp_avg with beta1, of the parameter's shape; all of its dtype.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> W = np.ones((1000, 500), np.float32)
        >>> opt = fastgd.Adafactor(W)
        >>> opt.step(np.ones_like(W))
        True
        >>> {name: array.shape for name, array in opt.state["params"].items() if name != "step"}
        {'row_var': (1000, 1), 'col_var': (1, 500)}

    References:
        Shazeer & Stern 2018, Adafactor: adaptive learning rates with sublinear memory cost,
        algorithms 4 to 6.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-2,
        beta2_decay: Real = -0.8,
        eps: Annotated[tuple[float | None, float], _epsilons] = (None, 1e-3),
        d: Positive = 1.0,
        weight_decay: NonNegative = 0.0,
        *,
        relative_step: Flag = True,
        scale_parameter: Flag = True,
        eps_added: Flag = False,
        beta1: Annotated[float | None, optional(fraction)] = None,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def unused(cls, values: Values) -> set[str]:
        return {"exp_avg"} if values["beta1"] is None else set()

    @classmethod
    def state_shape(cls, slot: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        if slot == "row_var":
            return (*shape[:-1], 1) if len(shape) > 1 else None
        if slot == "col_var":
            return (*shape[:-2], 1, shape[-1]) if len(shape) > 1 else None
        if slot == "variance":
            return shape if len(shape) <= 1 else None
        return shape

    @classmethod
    def direct(
        cls, direction: Array, param: Array, state: Mapping[str, Array], values: Values, t: int
    ) -> Mapping[str, Array]:
        if not direction.size:
            return {}
        with np.errstate(all="ignore"):  # a NaN or an infinity is the caller's to see
            changes = _divided(direction, state, values, t)
            rho = min(values["lr"], 1.0 / math.sqrt(t)) if values["relative_step"] else values["lr"]
            if values["scale_parameter"]:
                rho *= max(values["eps"][1], _rms(param))
            rho /= max(1.0, _rms(direction) / values["d"])
            direction *= direction.dtype.type(rho)
            if values["beta1"] is not None:
                keep = direction.dtype.type(values["beta1"])
                direction *= 1 - keep
                direction += keep * state["exp_avg"]
                changes["exp_avg"] = direction
        return changes


def _rms(array: Array) -> float:
    flat = array.ravel(order="K")
    if array.dtype == np.float32:  # whose squares could leave its range, and whose sums are poor
        return math.sqrt(float(np.square(flat, dtype=np.float64).mean()))
    return math.sqrt(float(np.dot(flat, flat)) / flat.size)


def _divided(g: Array, state: Mapping[str, Array], values: Values, t: int) -> dict[str, Array]:
    """Divide a gradient by the root of its second moment, in place; the new moments by name."""
    kind = g.dtype.type
    first = values["eps"][0]
    least = float(np.finfo(g.dtype).eps) if first is None else first
    weight = kind(t ** values["beta2_decay"])
    square = np.square(g, out=np.empty_like(g))  # an array, even of no axes
    if values["eps_added"]:
        square += kind(least)
        least = 0.0
    if g.ndim <= 1:
        variance = np.asarray(state["variance"] + weight * (square - state["variance"]))
        np.maximum(variance, kind(least * least), out=square)
        changes = {"variance": variance}
    else:
        row, column = state["row_var"], state["col_var"]
        row = row + weight * (square.mean(axis=-1, keepdims=True) - row)
        column = column + weight * (square.mean(axis=-2, keepdims=True) - column)
        scale = np.maximum(row.mean(axis=-2, keepdims=True), kind(least))
        np.multiply(row / scale, column, out=square)
        np.maximum(square, kind(least * least), out=square)
        changes = {"row_var": row, "col_var": column}
    np.sqrt(square, out=square)
    np.divide(g, square, out=g)
    return changes
