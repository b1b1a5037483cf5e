"""Gradients that are given by something other than one array of the parameter's shape: some rows, sparse,
factors, sums.

A step touches only the rows, or the elements, that such a gradient names: the others, their state and
weight decay stay as they are ("lazy", as PyTorch's SparseAdam). `touched` is what the engine is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastgd._arrays.tree import Array


class Rows:
    """The gradient of some rows of a parameter, such as an embedding table's.

    Rows that are not named have none, and a step leaves them, their state and weight decay alone. The
    gradients of equal indices add up, in the order in which they come.

    Args:
        indices: (k,) integers of any dtype, in any order, each at least 0 and less than the parameter's
            number of rows; k may be 0.
        values: (k, …) of a floating-point dtype, a gradient for each index, of the shape of one row.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> table = np.zeros((1000, 2))
        >>> opt = fastgd.SGD(table, lr=1.0)
        >>> opt.step(fastgd.Rows([7, 3, 7], np.ones((3, 2))))
        True
        >>> table[7].tolist(), table[3].tolist()
        ([-2.0, -2.0], [-1.0, -1.0])
    """

    __slots__ = ("indices", "values")

    indices: Array
    values: Array

    def __init__(self, indices: Any, values: Any) -> None:
        numbers, rows = np.asarray(indices), np.asarray(values)
        if numbers.ndim != 1:
            raise ValueError(f"indices must have one dimension, got the shape {numbers.shape}")
        if numbers.size == 0 and numbers.dtype == np.float64:  # an empty list
            numbers = numbers.astype(np.int64)
        if numbers.dtype.kind not in "iu":
            raise TypeError(f"indices must be integers, got an array of {numbers.dtype}")
        if rows.ndim == 0 or len(rows) != len(numbers):
            raise ValueError(
                f"values must have a row for each of the {len(numbers)} indices, got the shape {rows.shape}"
            )
        self.indices, self.values = numbers, rows

    def __repr__(self) -> str:
        return f"Rows({len(self.indices)} indices, values of {self.values.shape[1:]} {self.values.dtype})"

    def toarray(self, shape: tuple[int, ...]) -> Array:
        """As a dense array of the parameter's shape.

        Example:
            >>> import fastgd
            >>> fastgd.Rows([1, 1], [1.0, 2.0]).toarray((3,)).tolist()
            [0.0, 3.0, 0.0]
        """
        if (self.indices < 0).any():  # which NumPy would count from the end
            raise ValueError(f"indices must be at least 0, got {self.indices.min()}")
        dense = np.zeros(shape, self.values.dtype)
        np.add.at(dense, self.indices, self.values)
        return dense


class Factors:
    """The gradient leftᵀ @ right of a parameter of two axes, which is never formed.

    Such is the gradient of a linear layer's weights: left the layer's inputs and right the gradient of
    its outputs. It is computed while the step reads it, so that nothing of the parameter's size is
    written. With `left` in CSR only the rows of columns that occur are touched, as with `Rows`: of text a
    few hundred of tens of thousands.

    Args:
        left: (B, n) array, or a SciPy sparse array or matrix; B is the number of samples.
        right: (B, m) array.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> W = np.zeros((3, 2))
        >>> opt = fastgd.SGD(W, lr=1.0)
        >>> opt.step(fastgd.Factors(np.array([[1.0, 0.0, 2.0]]), np.array([[1.0, 10.0]])))
        True
        >>> W.tolist()
        [[-1.0, -10.0], [0.0, 0.0], [-2.0, -20.0]]
    """

    __slots__ = ("left", "right")

    left: Any  # CSR or an array
    right: Array

    def __init__(self, left: Any, right: Any) -> None:
        sparse = is_sparse(left)
        self.left = left.tocsr() if sparse else np.asarray(left)
        self.right = np.asarray(right)
        for name, array in (("left", self.left), ("right", self.right)):
            if array.ndim != 2:
                raise ValueError(f"{name} must have two dimensions, got the shape {array.shape}")
            if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
                raise TypeError(f"{name} must be of a floating-point dtype, got {array.dtype}")
        if self.left.shape[0] != self.right.shape[0]:
            raise ValueError(
                "left and right must have as many rows, a sample each, got the shapes "
                f"{self.left.shape} and {self.right.shape}"
            )

    def __repr__(self) -> str:
        kind = "CSR" if is_sparse(self.left) else "dense"
        return f"Factors(left {kind} {self.left.shape}, right {self.right.shape})"

    def toarray(self) -> Array:
        """The product, formed."""
        return np.asarray(self.left.T @ self.right)


class Sum:
    """The sum of several gradients of one parameter, added while the step reads them.

    Such are the gradients of a weight that is used twice, of several batches, or of several processes in
    shared memory. Nothing of the parameter's size is written. The parts are added in their order, in the
    parameter's dtype, or in float64 if one of them is. If all of them are of some rows or elements, so is
    the sum.

    Args:
        parts: a list or tuple of at least one gradient: arrays of the parameter's shape, `Rows`, `Factors`,
            SciPy's sparse arrays, in any mixture.

    Raises:
        TypeError, ValueError: parts is not as described.

    Example:
        >>> import numpy as np, fastgd
        >>> table = np.zeros((3, 2))
        >>> opt = fastgd.SGD(table, lr=1.0)
        >>> opt.step(fastgd.Sum([np.ones((3, 2)), fastgd.Rows([1], [[10.0, 20.0]])]))
        True
        >>> table.tolist()
        [[-1.0, -1.0], [-11.0, -21.0], [-1.0, -1.0]]
    """

    __slots__ = ("parts",)

    parts: tuple[Any, ...]

    def __init__(self, parts: Any) -> None:
        if not isinstance(parts, (list, tuple)):
            raise TypeError(f"parts must be a list of gradients, got {type(parts).__name__}")
        flat: list[Any] = []
        for part in parts:
            flat.extend(part.parts if isinstance(part, Sum) else [part])
        if not flat:
            raise ValueError("parts must have at least one gradient, got none")
        for i, part in enumerate(flat):
            if part is None or isinstance(part, (list, tuple, dict)):
                raise TypeError(
                    f"part {i} must be a gradient of one parameter, got {type(part).__name__}; make a "
                    "Sum for each parameter, and leave out what has no gradient"
                )
        self.parts = tuple(flat)

    def __repr__(self) -> str:
        kinds = ", ".join(_kind(part) for part in self.parts)
        return f"Sum({len(self.parts)} gradients: {kinds})"

    def toarray(self, shape: tuple[int, ...]) -> Array:
        """As a dense array of the parameter's shape.

        Example:
            >>> import numpy as np, fastgd
            >>> fastgd.Sum([fastgd.Rows([1], [1.0]), np.array([0.5, 0.5])]).toarray((2,)).tolist()
            [0.5, 1.5]
        """
        total = np.array(dense(self.parts[0], shape))
        for part in self.parts[1:]:
            total = total + np.asarray(dense(part, shape))
        return total


def _kind(part: Any) -> str:
    return "sparse" if is_sparse(part) else type(part).__name__


class Touched(NamedTuple):
    """What a gradient is to the engine: row numbers[i], of `width` elements, has the sum of
    weights[j] * values[places[j]] over j in starts[i] … starts[i + 1] - 1.
    """

    values: Array
    numbers: Array  # ascending, each once
    starts: Array
    places: Array
    weights: Array | None  # float64; None: all are 1
    width: int
    is_product: bool = False  # of all rows and values: weights are a matrix of (rows, values)


def is_sparse(value: Any) -> bool:
    """Whether it is a SciPy sparse array or matrix."""
    return type(value).__module__.startswith("scipy.sparse") and hasattr(value, "tocoo")


def is_partial(grad: Any) -> bool:
    """Whether it is of one of these kinds."""
    return isinstance(grad, (Rows, Factors, Sum)) or is_sparse(grad)


def _gradients(grad: Any) -> tuple[Any, ...]:
    """Those of a sum; any other gradient by itself."""
    return grad.parts if isinstance(grad, Sum) else (grad,)


def parts_of_sum(grad: Any) -> tuple[Any, ...]:
    """The gradients of which an array is made up: one, unless it is a sum and one part is dense."""
    parts = _gradients(grad)
    return (grad,) if all(map(_is_lazy, parts)) else parts


def _is_lazy(grad: Any) -> bool:
    """Whether it touches only a part of its parameter."""
    return is_partial(grad) and not (isinstance(grad, Factors) and not is_sparse(grad.left))


def parts_of(value: Any) -> list[Any]:
    """The arrays that a gradient, or any sparse matrix, is made of; any other value is its own part."""
    if isinstance(value, Rows):
        return [value.values]
    if isinstance(value, Factors):
        return [*parts_of(value.left), value.right]
    if isinstance(value, Sum):
        return [array for part in value.parts for array in parts_of(part)]
    return [value.data if is_sparse(value) or hasattr(value, "indptr") else value]


def dense(grad: Any, shape: tuple[int, ...]) -> Any:
    """A gradient of one of these kinds as an array of its parameter's shape; any other as it is."""
    if isinstance(grad, (Rows, Sum)):
        return grad.toarray(shape)
    return grad.toarray() if is_partial(grad) else grad


def squares_of(grad: Any) -> float:
    """The sum of the squares of all elements of the gradient, dense or not."""
    with np.errstate(all="ignore"):
        if isinstance(grad, Rows):
            numbers, inverse = np.unique(grad.indices, return_inverse=True)
            sums = np.zeros((len(numbers), *grad.values.shape[1:]))
            np.add.at(sums, inverse, grad.values.astype(np.float64))
            return float(np.square(sums).sum())
        if isinstance(grad, Factors):
            return float(np.square(grad.toarray(), dtype=np.float64).sum())
        if isinstance(grad, Sum):
            return squares_of(_merged(grad))
        if is_sparse(grad):
            own = grad.tocoo(copy=True)
            own.sum_duplicates()
            return float(np.square(own.data, dtype=np.float64).sum())
        return float(np.square(np.asarray(grad, np.float64)).sum())


def weighted(grad: Any, weight: float) -> Any:
    """A gradient of one of these kinds times a number, as another one."""
    if isinstance(grad, Rows):
        return Rows(grad.indices, grad.values * grad.values.dtype.type(weight))
    if isinstance(grad, Factors):
        return Factors(grad.left, grad.right * grad.right.dtype.type(weight))
    if isinstance(grad, Sum):
        return Sum([weighted(part, weight) for part in grad.parts])
    return grad * weight


def added(total: Any, more: Any) -> Any:
    """The sum of two gradients, one of which at least is of one of these kinds; None if they do not fit."""
    try:
        if not all(map(is_partial, (*_gradients(total), *_gradients(more)))):
            shape = _shape_of(total) or _shape_of(more)
            if shape is not None and {_shape_of(total), _shape_of(more), None} == {shape, None}:
                return np.add(dense(total, shape), dense(more, shape))
            return None
        if isinstance(total, Rows) and isinstance(more, Rows):
            return _together([total, more])
        if isinstance(total, Factors) and isinstance(more, Factors):
            return Factors(
                _stacked(total.left, more.left), np.concatenate([total.right, more.right])
            )
        if is_sparse(total) and is_sparse(more):
            return total + more
    except (ValueError, IndexError):
        return None
    return Sum([total, more])


def _shape_of(grad: Any) -> tuple[int, ...] | None:
    """Of the parameter; None if the gradient does not tell."""
    if isinstance(grad, Rows):
        return None
    if isinstance(grad, Factors):
        return grad.left.shape[1], grad.right.shape[1]
    if isinstance(grad, Sum):
        return next(filter(None, map(_shape_of, grad.parts)), None)
    return tuple(np.shape(grad))


def _merged(grad: Sum) -> Any:
    """A sum as one gradient: of rows if all parts are, else an array."""
    shape = _shape_of(grad)
    return _together(grad.parts) if shape is None else grad.toarray(shape)


def _together(rows: Sequence[Rows]) -> Rows:
    """All of them, one after another."""
    return Rows(
        np.concatenate([each.indices for each in rows]),
        np.concatenate([each.values for each in rows]),
    )


def _stacked(above: Any, below: Any) -> Any:
    if not is_sparse(above):
        return np.concatenate([above, below])
    from scipy.sparse import vstack  # type: ignore[import-untyped]

    return vstack([above, below], format="csr")


def touched(name: str, grad: Any, param: Array) -> Touched | None:
    """What a gradient touches of its parameter; None of one that is dense.

    Raises: ValueError naming the gradient: its shape or an index does not fit the parameter.
    """
    if isinstance(grad, Rows):
        return _of_rows(name, grad, param)
    if isinstance(grad, Factors):
        return _of_factors(name, grad, param)
    if isinstance(grad, Sum):
        return _joined(name, [touched(name, part, param) for part in grad.parts], param)
    return _of_sparse(name, grad, param) if is_sparse(grad) else None


def _joined(name: str, parts: Sequence[Touched | None], param: Array) -> Touched:
    """The sum of gradients of some rows or elements; of elements, if one of them is."""
    each = [part for part in parts if part is not None]
    if not param.size:
        return each[0]  # which touches nothing, as they all do
    width = min(part.width for part in each)
    what = "row" if width == _width(param) else "element"
    each = [_narrowed(part, width) for part in each]
    counts = [np.diff(part.starts) for part in each]
    numbers = [np.repeat(part.numbers, count) for part, count in zip(each, counts, strict=True)]
    first = np.cumsum([0, *(len(part.values) for part in each)])
    places = [part.places + start for part, start in zip(each, first, strict=False)]
    weights = [np.ones(len(part.places)) if part.weights is None else part.weights for part in each]
    joined, starts, order = _segments(name, np.concatenate(numbers), param.size // width, what)
    dtype = np.result_type(*(_native(part.values) for part in each))
    plain = all(part.weights is None for part in each)
    return Touched(
        np.concatenate([part.values.astype(dtype, copy=False) for part in each]),
        joined,
        starts,
        np.concatenate(places)[order],
        None if plain else np.concatenate(weights)[order],
        width,
    )


def _native(values: Array) -> np.dtype[Any]:
    """A dtype that promotes: bfloat16 does not with all."""
    return np.dtype(np.float32) if values.dtype.itemsize < 4 else values.dtype


def _narrowed(part: Touched, width: int) -> Touched:
    """With each row as one of so many elements, or as that many single elements."""
    if part.width == width:
        return part._replace(values=part.values.reshape(len(part.values), width))
    column = np.arange(part.width)
    lengths = np.diff(part.starts)
    rows = np.repeat(np.arange(len(part.numbers)), lengths)
    # By row, then by column, then by place: all places of a row for its first column, and so on.
    order = np.lexsort(
        (
            np.tile(np.arange(len(rows)), part.width),
            np.repeat(column, len(rows)),
            np.tile(rows, part.width),
        )
    )
    places = (part.places[:, None] * part.width + column).T.reshape(-1)[order]
    weights = None if part.weights is None else np.tile(part.weights, part.width)[order]
    numbers = (part.numbers[:, None] * part.width + column).reshape(-1)
    starts = np.concatenate([[0], np.cumsum(np.repeat(lengths, part.width))])
    return Touched(part.values.reshape(-1, 1), numbers, starts, places, weights, 1)


def _of_rows(name: str, grad: Rows, param: Array) -> Touched:
    if param.ndim == 0 or grad.values.shape[1:] != param.shape[1:]:
        raise ValueError(
            f"gradient {name!r} has rows of the shape {grad.values.shape[1:]}, its parameter has the "
            f"shape {param.shape}"
        )
    _check_order(name, param)
    numbers, starts, places = _segments(name, grad.indices, len(param), "row")
    return Touched(grad.values, numbers, starts, places, None, _width(param))


def _of_sparse(name: str, grad: Any, param: Array) -> Touched:
    """Of a sparse array the elements are the rows."""
    _check_shape(name, grad.shape, param)
    _check_order(name, param)
    coordinates = grad.tocoo()
    axes = (
        coordinates.coords if hasattr(coordinates, "coords") else (coordinates.row, coordinates.col)
    )
    flat = np.ravel_multi_index(tuple(axes), grad.shape) if coordinates.nnz else np.empty(0, int)
    numbers, starts, places = _segments(name, flat, param.size, "element")
    return Touched(coordinates.data, numbers, starts, places, None, 1)


def _of_factors(name: str, grad: Factors, param: Array) -> Touched:
    left, right = grad.left, np.ascontiguousarray(grad.right, param.dtype)
    _check_shape(name, (left.shape[1], right.shape[1]), param)
    _check_order(name, param)
    samples, rows = left.shape
    if not is_sparse(left):
        return Touched(
            right,
            np.arange(rows),
            np.arange(rows + 1) * samples,
            np.tile(np.arange(samples), rows),
            np.ascontiguousarray(left.T, np.float64).reshape(-1),
            _width(param),
            is_product=samples > 1,
        )
    numbers, starts, places = _segments(name, left.indices, rows, "row")
    sample = np.repeat(np.arange(samples), np.diff(left.indptr))
    weights = np.asarray(left.data, np.float64)[places]
    return Touched(right, numbers, starts, sample[places], weights, _width(param))


def _width(param: Array) -> int:
    """Elements of a row."""
    return int(np.prod(param.shape[1:], dtype=np.int64))


def _segments(name: str, indices: Array, rows: int, what: str) -> tuple[Array, Array, Array]:
    from fastgd._engine import segments  # which needs `touched` itself

    try:
        return segments(np.ascontiguousarray(indices, np.int64), rows)
    except IndexError as error:
        raise ValueError(
            f"gradient {name!r} has {what} {error}, its parameter has {what}s 0 to {rows - 1}"
        ) from None


def _check_shape(name: str, shape: tuple[int, ...], param: Array) -> None:
    if tuple(shape) != param.shape:
        raise ValueError(
            f"gradient {name!r} has shape {tuple(shape)}, its parameter has {param.shape}"
        )


def _check_order(name: str, param: Array) -> None:
    if not param.flags.c_contiguous:
        raise ValueError(
            f"gradient {name!r} is of some rows, and those of its parameter, which is in Fortran order, "
            "are not contiguous; make the parameter of numpy.ascontiguousarray() of it"
        )
