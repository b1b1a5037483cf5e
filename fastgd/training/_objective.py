"""Calls of the user's value_and_grad: its results checked, summed over batches, searched for NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any, TypeAlias

import numpy as np

from fastgd._arrays.gradients import added, is_partial, parts_of, squares_of, weighted
from fastgd._arrays.tree import SOLE_NAME, Array, leaves_like, rebuild
from fastgd._engine import only_tree
from fastgd.optimizers import Optimizer

Arguments: TypeAlias = tuple[Any, ...]  # of value_and_grad, after the parameters
ValueAndGrad: TypeAlias = Callable[..., Any]

HINT = "; it must return (loss, grads), in this order, the loss being for example a mean"


class Objective:
    """value_and_grad at the parameters being trained.

    Attributes:
        calls: how often it has been called.
        aux: with has_aux what it returned last besides loss and gradients.
    """

    def __init__(self, value_and_grad: ValueAndGrad, params: Any, has_aux: bool = False) -> None:
        if not callable(value_and_grad):
            raise TypeError(
                "value_and_grad must be a function (params, *batch) -> (loss, grads), got "
                f"{type(value_and_grad).__name__}"
            )
        self._value_and_grad = value_and_grad
        self._params = params
        self._has_aux = has_aux
        self.calls = 0
        self.aux: Any = None

    def __call__(self, batch: Arguments) -> tuple[float, Any]:
        """Loss and gradients of one batch."""
        return self.at(self._params, batch)

    def at(self, params: Any, batch: Arguments) -> tuple[float, Any]:
        """Loss and gradients of one batch, at other parameters of the same structure."""
        self.calls += 1
        try:
            result = self._value_and_grad(params, *batch)
        except OverflowError:  # of Python's own numbers, where NumPy's would be infinite
            return math.inf, rebuild(self._params, lambda array: None)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise TypeError(
                f"value_and_grad must return (loss, grads), a pair; it returned {_describe(result)}"
            )
        loss, grads = result
        pair = isinstance(loss, (tuple, list)) and len(loss) == 2
        if self._has_aux:
            if not pair:
                raise TypeError(
                    "has_aux=True: value_and_grad must return ((loss, aux), grads); instead of the pair "
                    f"(loss, aux) it returned {_describe(loss)}"
                )
            loss, self.aux = loss
        elif pair:
            raise TypeError(
                "the loss that value_and_grad returns must be a single number, got a pair; if it is "
                "(loss, aux), as of JAX with has_aux=True, pass has_aux=True to minimize too"
            )
        if type(loss) is not float:
            loss = as_number("the loss that value_and_grad returns", loss, HINT)
        return loss, grads

    def mean(self, batches: Sequence[Arguments]) -> tuple[float, Any, float]:
        """Mean loss of several batches, sum of their gradients, and the factor that makes it a mean.

        A batch weighs as many times as it has samples, if not all have as many.
        """
        loss, grads = self(batches[0])
        if len(batches) == 1:
            return loss, grads, 1.0
        auxiliary = [self.aux]
        first, *others = weights_of(batches)
        loss *= first
        grads = rebuild(grads, lambda leaf: own(leaf, first))
        for batch, weight in zip(batches[1:], others, strict=True):
            further, more = self(batch)
            auxiliary.append(self.aux)
            loss += weight * further
            grads = _add(grads, more, weight, "")
        self.aux = auxiliary if self._has_aux else None
        total = first + sum(others)
        return loss / total, grads, 1.0 / total

    def loss(self, batches: Sequence[Arguments], params: Any = None) -> float:
        """Mean loss alone, weighted likewise; at other parameters, if there are any."""
        weights, aux = weights_of(batches), self.aux
        where = self._params if params is None else params
        total = sum(
            weight * self.at(where, batch)[0]
            for weight, batch in zip(weights, batches, strict=True)
        )
        self.aux = aux
        return total / sum(weights)


def weights_of(batches: Sequence[Arguments]) -> list[float]:
    """What each batch weighs in a mean over samples: 1 where all weigh the same."""
    rows = [samples_of(batch) for batch in batches]
    return [1.0] * len(rows) if len(set(rows)) == 1 else [float(count) for count in rows]


def samples_of(batch: Arguments) -> int:
    """How many samples a batch has: as long as its longest member is, since the first may be a key or a
    mask; 1 where nothing has a length.
    """
    members = [
        x for value in batch for x in (value.values() if isinstance(value, Mapping) else [value])
    ]
    lengths = [
        int(x.shape[0]) if getattr(x, "shape", ()) else len(x)
        for x in members
        if getattr(x, "shape", ()) or (isinstance(x, Sized) and not hasattr(x, "shape"))
    ]
    return max(lengths, default=1)


def as_number(what: str, value: Any, hint: str = "") -> float:
    """A real number as a float.

    Raises: TypeError saying `what` it is that is none, and the hint.
    """
    try:
        array = np.asarray(value)
    except Exception as error:  # such as of a torch tensor that requires a gradient
        raise TypeError(f"{what} cannot be read as a number: {error}{hint}") from error
    if array.shape != ():
        raise TypeError(
            f"{what} must be a single number, got an array of shape {array.shape}{hint}"
        )
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise TypeError(f"{what} must be a real number, got {_describe(value)}{hint}")
    return float(array)


def _describe(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of length {len(value)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return f"{type(value).__module__}.{type(value).__qualname__}"


# --- summing gradients ---


def own(leaf: Any, weight: float) -> Any:
    """A weighted copy to add to, in float32 at least; what is no gradient stays, for `step`."""
    if is_partial(leaf):
        return leaf if weight == 1.0 else weighted(leaf, weight)
    if not (isinstance(leaf, float) or hasattr(leaf, "__array__")):
        return leaf
    array = np.array(leaf, subok=True, order="K")
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        array = array.astype(np.promote_types(array.dtype, np.float32), copy=False)
        if weight != 1.0:
            array *= weight
    return array


def _add(total: Any, grads: Any, weight: float, path: str) -> Any:
    """Add weighted gradients to a sum of the same structure, in place; None adds nothing."""
    if grads is None:
        return total
    if total is None:
        return rebuild(grads, lambda leaf: own(leaf, weight))
    if isinstance(total, dict):
        if not isinstance(grads, dict) or grads.keys() != total.keys():
            raise _differs(path, total, grads)
        return {key: _add(part, grads[key], weight, f"{path}/{key}") for key, part in total.items()}
    if isinstance(total, (list, tuple)):
        if not isinstance(grads, (list, tuple)) or len(grads) != len(total):
            raise _differs(path, total, grads)
        parts = zip(total, grads, strict=True)
        return [_add(part, more, weight, f"{path}/{i}") for i, (part, more) in enumerate(parts)]
    if is_partial(total) or is_partial(grads):
        sum_ = added(total, grads if weight == 1.0 else weighted(grads, weight))
        if sum_ is None:
            raise _differs(path, total, grads)
        return sum_
    if not isinstance(total, np.ndarray):
        return total  # which `step` will refuse
    more = np.asarray(grads)
    if more.shape != total.shape:
        raise _differs(path, total, more)
    total += more if weight == 1.0 else more * total.dtype.type(weight)
    return total


def _differs(path: str, total: Any, grads: Any) -> ValueError:
    return ValueError(
        f"gradient {path.lstrip('/') or SOLE_NAME!r}: value_and_grad returned "
        f"{_describe(total)} for one batch and {_describe(grads)} for another"
    )


# --- what is not finite ---


def gradients_by_name(optimizer: Optimizer, grads: Any) -> dict[str, Any]:
    """The gradients by parameter name.

    Raises: TypeError, ValueError as `Optimizer.step`.
    """
    optimizer._norm(grads)  # which refuses what is not of the parameters' structure
    return dict(zip(optimizer._bound.plan.names, all_leaves(optimizer, grads), strict=True))


def all_leaves(optimizer: Optimizer, grads: Any) -> list[Any]:
    """The gradients in the order of the parameters, of whose structure they are."""
    specs = [members.spec for members in optimizer._bound.members]
    if len(specs) == 1:
        return leaves_like(specs[0], only_tree(specs[0], grads))
    return leaves_like((None, tuple(specs)), grads)


def sums_without_step(optimizer: Optimizer, grads: Any) -> Array:
    """What `History.record` takes of a step that was not taken: no update."""
    sums = np.zeros((4, len(optimizer._bound.plan.names)))
    named = gradients_by_name(optimizer, grads)
    with np.errstate(all="ignore"):
        for i, (grad, param) in enumerate(
            zip(named.values(), optimizer._bound.plan.params, strict=True)
        ):
            sums[0, i] = 0.0 if grad is None else squares_of(grad)
            sums[2, i] = np.square(param, dtype=np.float64).sum()
    return sums


def not_finite(named: Iterable[tuple[str, Any]]) -> list[str]:
    """The names of the arrays of floating-point numbers that have a NaN or an infinity."""
    found = []
    for name, value in named:
        try:
            arrays = [np.asarray(part) for part in parts_of(value)]
        except Exception:  # a ragged list, a random generator's key: no array, and so without a NaN
            continue
        for array in arrays:
            is_float = array.dtype.kind in "fc" or array.dtype.name == "bfloat16"
            if is_float and not np.isfinite(array).all():
                found.append(name)
                break
    return found


def blame(optimizer: Optimizer, batches: Sequence[Arguments], grads: Any) -> tuple[str, bool]:
    """What else is not finite where the loss is not, in words that may be none.

    The likely cause first: the data, the parameters, the gradients. Also returns whether it is the data.
    """
    data = [
        (f"array {key!r}", array)
        for batch in batches
        for i, value in enumerate(batch)
        for key, array in (value.items() if isinstance(value, dict) else [(i, value)])
    ]
    params = [(f"parameter {name!r}", array) for name, array in optimizer.params.items()]
    gradients = [
        (f"gradient {name!r}", grad) for name, grad in gradients_by_name(optimizer, grads).items()
    ]
    for place, named in (("the batch's ", data), ("", params), ("", gradients)):
        found = not_finite(named)
        if found:
            listed = ", ".join(found[:3]) + (" …" if len(found) > 3 else "")
            verb = "has" if len(found) == 1 else "have"
            return f"; {place}{listed} {verb} a NaN or an infinity", named is data
    return "", False
