"""Nested containers of arrays: flattening into named leaves, and back.

A tree is an ndarray, or a list, tuple or dict of trees. A leaf's name is its path, keys and positions
joined by "/". A tree's spec tells the engine how to walk gradients of the same structure: None for a
leaf, (None, specs of the children) for a list or tuple, (keys, specs of the children) for a dict.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Spec: TypeAlias = Any  # recursive, see above
SOLE_NAME = "params"  # the name of a tree that is one array


def flatten(tree: Any, prefix: str = "") -> tuple[list[tuple[str, Any]], Spec]:
    """The named leaves of `tree` in order, and its spec. Any object but a container is a leaf.

    Raises: ValueError if a container contains itself, or thousands are nested.
    """
    leaves: list[tuple[str, Any]] = []
    try:
        return leaves, _walk(tree, prefix, leaves)
    except RecursionError:
        raise ValueError(
            "the containers of the arrays are nested too deeply, or one of them contains itself"
        ) from None


def _walk(node: Any, path: str, leaves: list[tuple[str, Any]]) -> Spec:
    """The spec of `node`, whose leaves are appended. (A closure would keep the arrays in a cycle.)"""
    if isinstance(node, dict):
        keys = tuple(node)
        children = (_walk(node[key], f"{path}/{key}" if path else str(key), leaves) for key in keys)
        return keys, tuple(children)
    if isinstance(node, (list, tuple)):
        paths = (f"{path}/{i}" if path else str(i) for i in range(len(node)))
        return None, tuple(
            _walk(child, name, leaves) for child, name in zip(node, paths, strict=True)
        )
    leaves.append((path or SOLE_NAME, node))
    return None


def leaves_like(spec: Spec, node: Any) -> list[Any]:
    """The leaves of gradients of this structure, in the order of the parameters."""
    if spec is None:
        return [node]
    keys, children = spec
    parts = (
        [node] * len(children) if node is None else node if keys is None else map(node.get, keys)
    )
    pairs = zip(children, parts, strict=True)
    return [leaf for child, part in pairs for leaf in leaves_like(child, part)]


def rebuild(tree: Any, replace: Callable[[Any], Any]) -> Any:
    """A tree of the same containers with every leaf replaced, in the order of `flatten`.

    A subclass of dict or list is copied and its items are replaced, so that it keeps what else it has.
    """
    if isinstance(tree, dict):
        items = {key: rebuild(child, replace) for key, child in tree.items()}
        if type(tree) is dict:
            return items
        twin = _twin(tree)
        for key, child in items.items():
            twin[key] = child
        return twin
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(rebuild(child, replace) for child in tree))
    if isinstance(tree, list) and type(tree) is not list:
        other = _twin(tree)
        other[:] = [rebuild(child, replace) for child in tree]
        return other
    if isinstance(tree, (list, tuple)):
        return type(tree)([rebuild(child, replace) for child in tree])
    return replace(tree)


def _twin(container: Any) -> Any:
    """A shallow copy; of its type and items alone where `__getattr__` keeps copy from asking for more."""
    try:
        return copy.copy(container)
    except Exception:
        return type(container)(container)


def check_parameter(name: str, array: Any) -> None:
    """Refuse what a step cannot update in place.

    Raises:
        TypeError: not an ndarray, or not native float32 or float64.
        ValueError: read-only, misaligned or not contiguous.
    """
    check_kind(name, array)
    if not array.flags.writeable:
        raise ValueError(f"parameter {name!r} is read-only, so it cannot be updated; pass a copy")
    if not array.flags.aligned:
        raise ValueError(f"parameter {name!r} is not aligned in memory; pass a copy")
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        raise ValueError(
            f"parameter {name!r} is not contiguous (strides {array.strides}); "
            "pass numpy.ascontiguousarray() of it, or the array that it is a view of"
        )


def check_kind(name: str, array: Any) -> None:
    """Refuse what not even a copy of could be a parameter.

    Raises:
        TypeError: not an ndarray, or not native float32 or float64.
    """
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"parameter {name!r} must be a numpy.ndarray, got "
            f"{type(array).__module__}.{type(array).__qualname__}{_hint(array)}"
        )
    if array.dtype not in (np.float32, np.float64) or not array.dtype.isnative:
        kind = "struct" if array.dtype.names is not None else array.dtype.str
        raise TypeError(
            f"parameter {name!r} has dtype {kind}; expected native float32 or float64: "
            f"{_dtype_hint(array.dtype)}"
        )


def _dtype_hint(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "c":
        return (
            "train the real and the imaginary parts as arrays of their own, z.real.copy() and "
            "z.imag.copy(); a cast would lose the imaginary part"
        )
    exact = dtype.kind in "biu" or dtype == np.float64
    return f"convert it with .astype(np.{'float64' if exact else 'float32'})"


def _hint(value: Any) -> str:
    """What to write instead of something that is no array."""
    if isinstance(value, np.ma.MaskedArray):
        return "; pass value.filled(0.0), or the array and its mask separately"
    if dataclasses.is_dataclass(value):
        return "; of a dataclass pass vars(value), which holds the same arrays"
    if isinstance(value, Mapping):
        return "; pass dict(value), which holds the same arrays"
    torch = (
        "of a PyTorch model pass {name: p.detach().numpy() for name, p in model.named_parameters()}, "
        "which shares its memory"
    )
    if type(value).__module__.partition(".")[0] == "torch":
        return f"; {torch}"
    if inspect.isgenerator(value):
        return f"; pass list(value) of arrays or groups; {torch}"
    if inspect.isroutine(value):
        return "; the function comes before the parameters"
    if isinstance(value, (int, float, complex)):
        return "; pass numpy.array([…], float) of the numbers"
    if isinstance(value, (Iterable, Sized)):
        return "; pass list(value) of the arrays"
    return ""


def check_disjoint(named: Sequence[tuple[str, Array]]) -> None:
    """Refuse parameters that share memory: one of the two updates would be lost.

    Raises: ValueError naming both.
    """
    spans = sorted(
        (array.ctypes.data, array.ctypes.data + array.nbytes, name)
        for name, array in named
        if array.nbytes
    )
    for (_, end, first), (begin, _, second) in itertools.pairwise(spans):
        if begin < end:
            raise ValueError(
                f"parameters {first!r} and {second!r} overlap in memory; "
                "list a shared array once, with the sum of its gradients"
            )


def is_groups(params: Any) -> bool:
    """Whether `params` is a list of group dicts and not a tree."""
    return (
        isinstance(params, (list, tuple))
        and len(params) > 0
        and all(isinstance(group, dict) and "params" in group for group in params)
    )


def check_groups(params: Any, options: Iterable[str]) -> None:
    """Refuse a list of dicts that has some of the options of groups, but not the arrays of each.

    Raises: TypeError naming the group.
    """
    if not isinstance(params, (list, tuple)) or is_groups(params):
        return
    for i, group in enumerate(params):
        if isinstance(group, dict) and "params" not in group:
            found = [
                key for key in options if key in group and not isinstance(group[key], np.ndarray)
            ]
            if found or any(isinstance(other, dict) and "params" in other for other in params):
                raise TypeError(
                    f'group {i} has {", ".join(map(repr, group))}, but no "params": a parameter group is '
                    'a dict {"params": arrays, …}'
                )
