"""Which rows of which arrays belong to which rank.

A rank owns rows of an array, along the axis that its memory walks slowest: whatever is an array of the
parameter's shape, dense or sparse, is cut alike. Arrays that a rule looks at as a whole have one owner.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastgd._arrays.gradients import Factors, Rows, Sum, is_sparse
from fastgd._arrays.tree import Array

GROUP = 4096  # elements: rows are cut where state in 8 bits is, if these are few of all


class Axis(NamedTuple):
    """How an array is cut."""

    rows: int
    width: int  # elements of a row
    last: bool  # the rows are along the last axis, of an array in Fortran order

    @classmethod
    def of(cls, array: Array) -> Axis:
        plain = np.asarray(array)
        if plain.ndim == 0:
            return cls(1, 1, False)
        last = not plain.flags.c_contiguous
        rows = plain.shape[-1 if last else 0]
        return cls(rows, plain.size // max(rows, 1), last)

    def cut(self, grad: Any, begin: int, end: int) -> Any:
        """The rows of a parameter, or of its gradient of whatever form."""
        if (begin, end) == (0, self.rows):
            return grad
        if isinstance(grad, Rows):
            mine = (grad.indices >= begin) & (grad.indices < end)
            return Rows(grad.indices[mine].astype(np.int64) - begin, grad.values[mine])
        if isinstance(grad, Factors):
            return Factors(grad.left[:, begin:end], grad.right)
        if isinstance(grad, Sum):
            return Sum([self.cut(part, begin, end) for part in grad.parts])
        if is_sparse(grad):
            if grad.ndim == 1:
                places = grad.tocoo()
                return self.cut(Rows(places.coords[0], places.data), begin, end)
            return grad.tocsr()[begin:end]
        array = np.asarray(grad)
        if array.ndim == 0:
            return array.reshape(1)[begin:end]
        return array[..., begin:end] if self.last else array[begin:end]


def touched_rows(grad: Any) -> Array | None:
    """The rows that a gradient names, ascending; None for all."""
    if isinstance(grad, Rows):
        return np.unique(grad.indices)
    if isinstance(grad, Factors) and is_sparse(grad.left):
        return np.unique(grad.left.tocsr().indices)
    if is_sparse(grad):
        places = grad.tocoo()
        return np.unique(places.coords[0] if hasattr(places, "coords") else places.row)
    if isinstance(grad, Sum):
        parts = [touched_rows(part) for part in grad.parts]
        if all(part is not None for part in parts):
            return np.unique(np.concatenate(parts))  # type: ignore[arg-type]
    return None


def partition(
    axes: Sequence[Axis], whole: Sequence[bool], ranks: int
) -> list[list[tuple[int, int]]]:
    """For each array the rows of each rank, (begin, end); elements as evenly as rows allow.

    Args:
        axes: of the arrays.
        whole: those that are not cut.
        ranks: how many.
    """
    sizes = [axis.rows * axis.width for axis in axes]
    loads = [0] * ranks
    owner: dict[int, int] = {}
    for i in sorted(range(len(axes)), key=lambda i: -sizes[i]):
        if whole[i]:
            owner[i] = loads.index(min(loads))
            loads[owner[i]] += sizes[i]
    # What each rank may take of the others, one after another.
    fair = sum(sizes) / ranks
    room = [max(0.0, fair - load) for load in loads]
    free = sum(size for size, kept in zip(sizes, whole, strict=True) if not kept)
    scale = free / sum(room) if sum(room) > 0 else 0.0
    ends = np.cumsum([0.0, *(each * scale for each in room)])
    result, start = [], 0
    for i, axis in enumerate(axes):
        if whole[i]:
            rows = [(0, axis.rows) if r == owner[i] else (0, 0) for r in range(ranks)]
            result.append(rows)
            continue
        step = GROUP // math.gcd(GROUP, axis.width) if axis.width else 1
        if step * axis.width * ranks * 8 > sizes[i]:
            step = 1
        cuts = [_row_at(end - start, axis, step) for end in ends]
        cuts[0], cuts[-1] = 0, axis.rows
        result.append(list(itertools.pairwise(cuts)))
        start += sizes[i]
    return result


def _row_at(element: float, axis: Axis, step: int) -> int:
    """The nearest row at which the array may be cut."""
    if not axis.width:
        return 0
    row = round(element / axis.width / step) * step
    return min(max(row, 0), axis.rows)
