"""Muon: momentum whose singular values are made nearly equal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from fastgd._arguments import as_float, choice, integer
from fastgd._arrays.tree import Array
from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import Flag, Fraction, NonNegative, Options, Values

if TYPE_CHECKING:
    from typing_extensions import Unpack

FORMS = ("original", "match_rms_adamw")
FLATTEN = "flatten=True takes the other axes together, as for filters (out, in, height, width)"


def _form(name: str, value: Any) -> str | None:
    return None if value is None else choice(name, value, FORMS)


def _coefficients(name: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise TypeError(f"{name} must be three numbers, got {value!r}")
    return tuple(as_float(f"{name} must be three numbers", part) for part in value)


class Muon(
    Optimizer,
    rule="muon",
    unpacked=("ns_coefficients", "eps", "ns_steps", "adjust_lr_fn", "flatten"),
    torch="Muon",
    momentum="momentum",
    adaptive=True,
    kinds={"momentum_buffer": "sum"},
):
    """Momentum, orthogonalised by Newton-Schulz iterations; for matrices.

        b ← momentum * b + (1 - momentum) * g
        u = momentum * b + (1 - momentum) * g, or b without nesterov
        X = u / max(‖u‖, eps);  ns_steps times: X ← a X + (b' A + c A²) X with A = X Xᵀ
        theta ← theta * (1 - lr * weight_decay) - lr * f * X

    The singular values of X end between about 0.7 and 1.2. f is √max(1, rows / columns), or with
    adjust_lr_fn="match_rms_adamw" 0.2 √max(rows, columns), for which AdamW's rates and decay fit. The
    iteration runs in the parameter's dtype; PyTorch's runs in bfloat16, which differs by some 3e-3.

    Arrays must have two axes; give the rest a group with another rule, as in the example.
    With flatten=True an array of more axes counts as the matrix (first axis, all others).

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        weight_decay: decoupled, a number or a function step -> number, at least 0.
        momentum: a number or a function step -> number, in [0, 1).
        nesterov: False takes the average itself.
        ns_coefficients: a, b' and c.
        eps: a number, at least 0; of the norm.
        ns_steps: number of iterations, an integer.
        adjust_lr_fn: "original" (or None) or "match_rms_adamw", see above.
        flatten: True or False, see above.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: momentum_buffer, of the parameter's shape and dtype. A step has scratch of the parameters'
    size, made at the first.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> W, b = np.eye(2), np.zeros(2)
        >>> opt = fastgd.Muon([
        ...     {"params": W},
        ...     {"params": b, "optimizer": fastgd.AdamW, "lr": 1e-3},
        ... ], lr=0.1, weight_decay=0)
        >>> opt.step([np.array([[0.0, 2.0], [1.0, 0.0]]), np.ones(2)])
        True
        >>> bool((np.abs(W - [[1, -0.1], [-0.1, 1]]) < 0.04).all())  # 2 and 1 have become equal, nearly
        True

    References:
        Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks.
        Bernstein & Newhouse 2024, Old optimizer, new norm: an anthology (the iteration).
        Liu et al. 2025, Muon is scalable for LLM training, section 2.2 (match_rms_adamw).
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.1,
        momentum: Fraction = 0.95,
        nesterov: Flag = True,
        ns_coefficients: Annotated[tuple[float, float, float], _coefficients] = (
            3.4445,
            -4.775,
            2.0315,
        ),
        eps: NonNegative = 1e-7,
        ns_steps: Annotated[int, integer] = 5,
        adjust_lr_fn: Annotated[str | None, _form] = None,
        *,
        flatten: Flag = False,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def check_array(cls, name: str, array: Array, values: Values) -> None:
        axes = np.asarray(array).ndim
        if axes == 2 or (axes > 2 and values["flatten"]):
            return
        hint = f"; {FLATTEN}" if axes > 2 else ""
        raise ValueError(
            f"parameter {name!r} has {axes} axes, and Muon updates matrices{hint}. Give it a group of "
            'its own with another rule: {"params": …, "optimizer": fastgd.AdamW}'
        )

    @classmethod
    def direct(
        cls, direction: Array, param: Array, state: Mapping[str, Array], values: Values, t: int
    ) -> Mapping[str, Array]:
        if direction.size:
            matrix = direction.reshape(len(direction), -1)
            scale = _adjustment(*matrix.shape, values["adjust_lr_fn"])
            with np.errstate(all="ignore"):  # a NaN or an infinity is the caller's to see
                result = orthogonalised(
                    matrix, values["ns_coefficients"], values["ns_steps"], values["eps"]
                )
                result *= result.dtype.type(scale)
            direction[...] = result.reshape(direction.shape)
        return {}


def _adjustment(rows: int, columns: int, form: str | None) -> float:
    if form == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))


def orthogonalised(
    matrix: Array, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Array:
    """Newton-Schulz iterations towards the nearest matrix with orthonormal rows or columns.

    Args:
        matrix: (rows, columns) float32 or float64; not written.
        coefficients, steps, eps: see `Muon`.

    Returns: a new array of its shape and dtype.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = np.array(matrix if wide else matrix.T, order="C")
    a, b, c = (x.dtype.type(value) for value in coefficients)
    largest = float(np.abs(x).max())
    if largest > 0:
        x /= x.dtype.type(largest)  # or the squares could leave the dtype's range
        x /= x.dtype.type(max(float(np.linalg.norm(x)), eps / largest))
    gram = np.empty((len(x), len(x)), x.dtype)
    square, product = np.empty_like(gram), np.empty_like(x)
    for _ in range(steps):
        np.matmul(x, x.T, out=gram)
        np.matmul(gram, gram, out=square)
        np.multiply(square, c, out=square)
        np.multiply(gram, b, out=gram)
        np.add(gram, square, out=gram)
        gram.flat[:: len(x) + 1] += a
        np.matmul(gram, x, out=product)
        x, product = product, x
    return x if wide else x.T
