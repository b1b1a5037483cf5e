"""Adafactor: the second moment of a matrix as a row times a column."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np

from fastgd._arrays.layout import flat_view
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

BLOCK = 32_768  # elements worked on at a time


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
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

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
            changes = _divide(direction, state, values, t)
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
    """Summed in double, block by block, so that no squares leave the range and none the cache."""
    flat = flat_view(array)
    total = 0.0
    for start in range(0, flat.size, BLOCK):
        part = flat[start : start + BLOCK].astype(np.float64)
        total += float(np.dot(part, part))
    return math.sqrt(total / flat.size)


def _divide(g: Array, state: Mapping[str, Array], values: Values, t: int) -> dict[str, Array]:
    """Divide a gradient by the root of its second moment, in place; the new moments by name."""
    first = values["eps"][0]
    least = float(np.finfo(g.dtype).eps) if first is None else first
    moment = _Moment(
        g.dtype.type(t ** values["beta2_decay"]),
        g.dtype.type(least if values["eps_added"] else 0.0),
        g.dtype.type(0.0 if values["eps_added"] else least),
    )
    if g.ndim <= 1:
        return {"variance": moment.of_vector(g, state["variance"])}
    rows, columns = state["row_var"].copy(), state["col_var"].copy()
    for index in np.ndindex(g.shape[:-2]):
        moment.of_matrix(g[index], rows[index][:, 0], columns[index][0])
    return {"row_var": rows, "col_var": columns}


class _Moment(NamedTuple):
    """The second moment, and what is added to it or what it is at least."""

    weight: Any
    added: Any
    least: Any

    def of_vector(self, g: Array, variance: Array) -> Array:
        square = np.square(g, out=np.empty_like(g)) + self.added
        result = np.asarray(variance + self.weight * (square - variance))
        np.divide(g, np.sqrt(np.maximum(result, self.least * self.least)), out=g)
        return result

    def of_matrix(self, g: Array, row: Array, column: Array) -> None:
        """Both moments anew, and g over their root, in blocks of rows that stay in cache."""
        count = max(1, BLOCK // g.shape[1])
        blocks = [slice(start, start + count) for start in range(0, len(g), count)]
        total = np.zeros(g.shape[1], np.float64)
        for block in blocks:
            square = np.square(g[block])
            square += self.added
            row[block] += self.weight * (square.mean(axis=1) - row[block])
            total += square.sum(axis=0)
        column += self.weight * ((total / len(g)).astype(g.dtype) - column)
        scale = max(row.mean(), self.least)
        for block in blocks:
            second = (row[block] / scale)[:, None] * column
            np.maximum(second, self.least * self.least, out=second)
            np.sqrt(second, out=second)
            np.divide(g[block], second, out=g[block])
