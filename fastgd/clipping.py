"""Stand-alone clipping and norms, for code that does not clip inside the step.

`clip_norm` and `clip_value` of an optimizer do the same inside the step, without writing the gradients
and without another pass over memory.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from fastgd import _engine
from fastgd._arguments import number
from fastgd._arrays.gradients import is_partial, squares_of
from fastgd._arrays.tree import Array, flatten

__all__ = ["clip_grad_norm_", "clip_grad_value_", "global_norm"]

FLOATS = (np.float16, np.float32, np.float64)  # besides bfloat16


def global_norm(grads: Any) -> float:
    """The Euclidean norm of all arrays of a tree taken as one vector.

    Exact to rounding: float64 accumulators, no overflow for finite input, the same bits at any number
    of threads. NaN or infinity where an array has one.

    Args:
        grads: an array or any nesting of list, tuple and dict of arrays of float16, bfloat16
            (ml_dtypes'), float32 or float64 in native byte order, of any shape and layout; or `Rows`,
            `Factors`, `Sum`, SciPy's sparse arrays. None leaves are left out.

    Returns:
        The norm; 0 of no arrays.

    Raises:
        TypeError: a leaf is not an array of one of these dtypes; names it.
        ValueError: the containers are nested too deeply, or one of them contains itself.

    Example:
        >>> import numpy as np, fastgd
        >>> fastgd.global_norm([np.array([3.0, 0.0]), {"b": np.array([4.0]), "c": None}])
        5.0
    """
    leaves, _ = flatten(grads)
    named = [(name, leaf) for name, leaf in leaves if leaf is not None]
    if not named:
        return 0.0
    partial = math.hypot(*(math.sqrt(squares_of(leaf)) for _, leaf in named if is_partial(leaf)))
    named = [(name, _engine.as_array(name, leaf)) for name, leaf in named if not is_partial(leaf)]
    if not named:
        return partial
    names, arrays = [name for name, _ in named], [array for _, array in named]
    spec = None, (None,) * len(named)
    norm = _engine.Binding(arrays, names, (spec,)).norm(arrays)
    return math.hypot(norm, partial) if partial else norm


def clip_grad_norm_(grads: Any, max_norm: float) -> float:
    """Multiply all gradients, in place, by min(1, max_norm / norm); returns the norm before.

    Args:
        grads: as in `global_norm`, writeable NumPy arrays. A NaN norm makes every gradient NaN.
            Elements of float16 and bfloat16 are multiplied in float32 and then rounded, so that the
            norm afterwards is max_norm to their precision only, and may be above it by that much.
        max_norm: a finite number greater than 0.

    Returns:
        The norm before, as `global_norm` gives it.

    Raises:
        TypeError: a leaf is not an array of one of these dtypes, or max_norm not a number.
        ValueError: a leaf is read-only, two arrays share elements, which would be clipped twice, the
            containers are nested too deeply, or max_norm is out of range.
        Nothing has changed then.

    Example:
        >>> import numpy as np, fastgd
        >>> g = np.array([3.0, 4.0])
        >>> fastgd.clip_grad_norm_(g, 1.0)
        5.0
        >>> g.tolist()
        [0.6000000000000001, 0.8]

    References:
        Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks,
        algorithm 1.
    """
    max_norm = number("max_norm", max_norm, bounds="()")
    named = _writeable(grads)
    norm = global_norm(grads)
    # Not `norm > max_norm`, so that a NaN norm is seen in the gradients.
    if not norm <= max_norm:
        for _, array in named:
            _scale(array, max_norm, norm)
    return norm


def clip_grad_value_(grads: Any, clip_value: float) -> None:
    """Clamp every element of every gradient, in place, to ±clip_value; a NaN stays.

    Args:
        grads: as in `clip_grad_norm_`.
        clip_value: a finite number greater than 0; it is rounded to each array's dtype, and to infinity
            beyond float16's range.

    Raises:
        TypeError, ValueError: as `clip_grad_norm_`. Nothing has changed then.

    Example:
        >>> import numpy as np, fastgd
        >>> g = np.array([-3.0, 0.5])
        >>> fastgd.clip_grad_value_(g, 1.0)
        >>> g.tolist()
        [-1.0, 0.5]
    """
    clip_value = number("clip_value", clip_value, bounds="()")
    for _, array in _writeable(grads):
        with np.errstate(all="ignore"):  # beyond float16 the bound is inf
            bound = array.dtype.type(clip_value)
        np.clip(array, -bound, bound, out=array)


def _scale(array: Array, max_norm: float, norm: float) -> None:
    """Multiply `array` by max_norm / norm in place, 16-bit elements in float32.

    In float16 the quotient itself would be rounded to 11 bits, or to 0, and so be far off for all
    elements alike.
    """
    working = np.float64 if array.dtype == np.float64 else np.float32
    factors: tuple[float, ...] = (max_norm / norm,)
    if factors[0] < np.finfo(working).smallest_normal and norm < math.inf:
        # It would lose bits that the products have: two factors of about its root keep them.
        (mantissa, exponent), (divisor, subtracted) = math.frexp(max_norm), math.frexp(norm)
        half, odd = divmod(exponent - subtracted, 2)
        factors = (math.ldexp(mantissa / divisor, half), math.ldexp(1.0, half + odd))
    with np.errstate(all="ignore"):
        for factor in factors:
            # NumPy converts in small blocks; bfloat16 back only under "unsafe".
            np.multiply(array, factor, out=array, dtype=working, casting="unsafe")


def _writeable(grads: Any) -> list[tuple[str, Array]]:
    leaves, _ = flatten(grads)
    named = [(name, leaf) for name, leaf in leaves if leaf is not None]
    for name, leaf in named:
        if (
            not isinstance(leaf, np.ndarray)
            or isinstance(leaf, np.ma.MaskedArray)
            or not (leaf.dtype in FLOATS or leaf.dtype.name == "bfloat16")
        ):
            raise TypeError(
                f"gradient {name!r} must be a NumPy array of float16, float32, float64 or bfloat16 in "
                f"native byte order to be clipped in place, got {_described(leaf)}"
            )
        if not leaf.flags.writeable:
            raise ValueError(
                f"gradient {name!r} is read-only, so it cannot be clipped in place; pass a copy"
            )
    _check_disjoint(named)
    return named


def _described(leaf: Any) -> str:
    kind = f"{type(leaf).__module__}.{type(leaf).__qualname__}"
    if isinstance(leaf, np.ndarray):
        return f"{kind} of dtype {leaf.dtype.str}"
    if kind.startswith("torch."):
        return f"{kind}; pass p.grad.numpy(), which shares its memory"
    return f"{kind}; pass numpy.asarray(…) of it"


def _check_disjoint(named: list[tuple[str, Array]]) -> None:
    """Refuse gradients that share elements: those would be clipped twice.

    Arrays may interleave, as two columns of one matrix do.
    """
    spans = sorted((*byte_bounds(array), i) for i, (_, array) in enumerate(named) if array.size)
    reaching: list[tuple[int, int]] = []  # end and index, of those that reach beyond `begin`
    for begin, end, j in spans:
        reaching = [span for span in reaching if span[0] > begin]
        for _, i in reaching:
            if _share_elements(named[i][1], named[j][1]):
                first, second = sorted((i, j))
                raise ValueError(
                    f"gradients {named[first][0]!r} and {named[second][0]!r} overlap in memory and "
                    "would be clipped twice; list a shared array once"
                )
        reaching.append((end, j))


def _share_elements(first: Array, second: Array) -> bool:
    try:
        return np.shares_memory(first, second, max_work=10_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:  # contrived strides
        return False


def __dir__() -> list[str]:
    return __all__
