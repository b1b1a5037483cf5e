"""Values as JSON and arrays, and back: the contents of a checkpoint's header.

JSON stands for itself. What it lacks is a dict whose first key begins with "$":

    {"$array": member, "dtype": "<f4", "shape": [3, 2], "fortran_order": false}
    {"$float": "inf"}, "-inf" or "nan"
    {"$tuple": [...]}
    {"$dict": [[key, value], ...]}              keys that are no strings, or begin with "$"
    {"$schedule": "cosine", "arguments": {...}} the call of fastgd.schedules that makes it
    {"$function": "falling", "id": 0, ...}      any other function of the step

A function cannot be stored; its name is, and loading takes the function of that name which the live
optimizer has in the same place. One with state_dict() and load_state_dict() has its "state" stored
and loaded into the live one, whose owner updates it; for ReduceOnPlateau, which can also be made anew,
its "arguments" are stored too. Equal ids mean one object.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from fastgd import schedules
from fastgd.checkpoint._npz import DTYPE, Array, CheckpointError, StoredArray
from fastgd.schedules import ReduceOnPlateau, Schedule

FACTORIES: dict[str, Callable[..., Schedule]] = {
    name: getattr(schedules, name)
    for name in schedules.__all__
    if not isinstance(getattr(schedules, name), type)
}
LONGEST_NAME = 1000
DEEPEST = 100  # levels of containers, well below Python's own limit on either way
MOST_BITS = 13_000  # of an integer: Python reads 4,300 digits and no more


class UserFunction:
    """What `load` without an optimizer shows in place of a function that only has its name stored."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, step: int) -> float:
        raise RuntimeError(f"the checkpoint has the name of the function only: {self.name!r}")

    def __repr__(self) -> str:
        return f"<function {self.name!r}, not stored>"


class Encoder:
    """Turns values into JSON, setting arrays aside under the names of their members."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._ids: dict[int, int] = {}
        self._depth = 0

    def encode(self, value: Any, path: str, functions: bool = False) -> Any:
        """The value as JSON.

        Args:
            value: None, numbers, strings, schedules, arrays; and lists, tuples and dicts of them.
            path: where it stands, for messages and the names of arrays.
            functions: whether there may be functions, which `load` must then be given.

        Raises:
            TypeError: there is something else; the message says where.
            ValueError: containers are nested too deeply, or an integer has thousands of digits.
        """
        self._depth += 1
        try:
            if self._depth > DEEPEST:
                raise ValueError(
                    f"a checkpoint cannot store containers nested more than {DEEPEST} deep, or a "
                    f"container that contains itself: {path[:100]}…"
                )
            return self._encode(value, path, functions)
        finally:
            self._depth -= 1

    def _encode(self, value: Any, path: str, functions: bool) -> Any:
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise ValueError(f"a checkpoint cannot store {path}: an integer of over 4,000 digits")
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, np.ndarray):
            return self._array(value, path)
        if isinstance(value, (np.bool_, np.integer, np.float16, np.float32)):
            value = value.item()  # exact
            return value if isinstance(value, int) else self.encode(value, path)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
        if isinstance(value, (list, tuple)):
            items = [self.encode(x, f"{path}/{i}", functions) for i, x in enumerate(value)]
            return items if isinstance(value, list) else {"$tuple": items}
        if isinstance(value, Mapping):
            return self._mapping(value, path, functions)
        if isinstance(value, Schedule) and FACTORIES.get(_name(value._factory)) is value._factory:
            arguments = self._mapping(value._arguments, path, functions)
            return {"$schedule": _name(value._factory), "arguments": arguments}
        if callable(value) and functions:
            return self._function(value, path)
        raise TypeError(
            f"a checkpoint cannot store {path}: {type(value).__module__}.{type(value).__qualname__}; "
            "it takes None, numbers, strings, NumPy arrays, and lists, tuples and dicts of them"
        )

    def _mapping(self, value: Mapping[Any, Any], path: str, functions: bool) -> dict[str, Any]:
        items = {key: self.encode(x, f"{path}/{key}", functions) for key, x in value.items()}
        if all(isinstance(key, str) and not key.startswith("$") for key in items):
            return items
        keys = (self.encode(key, f"a key of {path}") for key in items)
        return {"$dict": [list(pair) for pair in zip(keys, items.values(), strict=True)]}

    def _array(self, array: Array, path: str) -> dict[str, Any]:
        if isinstance(array, np.ma.MaskedArray) or not DTYPE.fullmatch(array.dtype.str):
            kind = "a masked array" if isinstance(array, np.ma.MaskedArray) else repr(array.dtype)
            raise TypeError(
                f"a checkpoint cannot store {path}: {kind}; it takes arrays of bools, integers, "
                "floating-point and complex numbers"
            )
        base = name = member_name(path)
        count = 1
        while name in self.arrays:
            count += 1
            name = f"{base}~{count}"
        self.arrays[name] = array
        stored = StoredArray.of(name, array)
        return {
            "$array": name,
            "dtype": stored.dtype.str,
            "shape": list(stored.shape),
            "fortran_order": stored.fortran_order,
        }

    def _function(self, function: Any, path: str) -> dict[str, Any]:
        node = {
            "$function": _name(function),
            "id": self._ids.setdefault(id(function), len(self._ids)),
        }
        if has_state(function):
            node["state"] = self.encode(function.state_dict(), f"{path}/state")
        if type(function) is ReduceOnPlateau:
            node["arguments"] = _plateau_arguments(function)
        return node


class Decoder:
    """Turns JSON back into values, arrays into `StoredArray`.

    With `live`, the value that is to be replaced, functions come from there, and the states of those
    that have one are collected in `reloads`.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, StoredArray] = {}
        self.reloads: list[tuple[str, Any, Any]] = []  # where it stands, the function, its state
        self._functions: dict[int, Any] = {}

    def decode(self, node: Any, path: str, live: Any = None) -> Any:
        """The value.

        Raises:
            CheckpointError, KeyError, TypeError, ValueError, …: this is not what `Encoder` returns.
        """
        if isinstance(node, list):
            return self._items(node, path, live)
        if not isinstance(node, dict):
            return node
        tag = next(iter(node), "")
        if not tag.startswith("$"):
            return self._values(node, path, live if isinstance(live, Mapping) else {})
        return self._TAGGED[tag](self, node, path, live)

    def _items(self, nodes: Any, path: str, live: Any) -> list[Any]:
        if not isinstance(nodes, list):
            raise TypeError(f"{path} must be a list, got {nodes!r}")
        if not isinstance(live, (list, tuple)):
            live = ()
        return [
            self.decode(node, f"{path}/{i}", live[i] if i < len(live) else None)
            for i, node in enumerate(nodes)
        ]

    def _values(self, nodes: dict[str, Any], path: str, live: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self.decode(x, f"{path}/{key}", live.get(key)) for key, x in nodes.items()}

    def _array(self, node: dict[str, Any], path: str, live: Any) -> StoredArray:
        name, text, shape = node["$array"], node["dtype"], tuple(node["shape"])
        sizes_fit = all(type(n) is int and 0 <= n < 2**63 for n in shape) and len(shape) <= 64
        if not (DTYPE.fullmatch(text) and sizes_fit and np.dtype(text).str == text):
            raise ValueError(f"the array {path} has dtype {text!r} and shape {shape}")
        if name in self.arrays:
            raise ValueError(f"two arrays are {name!r}")
        stored = StoredArray(name, np.dtype(text), shape, node["fortran_order"] is True)
        self.arrays[name] = stored
        return stored

    def _float(self, node: dict[str, Any], path: str, live: Any) -> float:
        return float(node["$float"])

    def _tuple(self, node: dict[str, Any], path: str, live: Any) -> tuple[Any, ...]:
        return tuple(self._items(node["$tuple"], path, live))

    def _dict(self, node: dict[str, Any], path: str, live: Any) -> dict[Any, Any]:
        pairs = [(self.decode(key, path), x) for key, x in node["$dict"]]
        return {key: self.decode(x, f"{path}/{key}") for key, x in pairs}

    def _schedule(self, node: dict[str, Any], path: str, live: Any) -> Schedule:
        factory = FACTORIES[node["$schedule"]]
        same = isinstance(live, Schedule) and live._factory is factory
        arguments = self._values(node["arguments"], path, live._arguments if same else {})
        return factory(**arguments)

    def _function(self, node: dict[str, Any], path: str, live: Any) -> Any:
        name, number = node["$function"], node["id"]
        if callable(live) and _name(live) == name:
            self._reload(node, path, live)
        elif number in self._functions:
            return self._functions[number]
        elif "arguments" in node:
            live = ReduceOnPlateau(**node["arguments"])
            live.load_state_dict(self.decode(node["state"], path))
        else:
            live = UserFunction(name)
        self._functions[number] = live
        return live

    def _reload(self, node: dict[str, Any], path: str, live: Any) -> None:
        """Note that the live function takes over the stored one's state, if it can."""
        number = node["id"]
        known = [n for n, other in self._functions.items() if other is live]
        if self._functions.get(number, live) is not live or known not in ([], [number]):
            raise CheckpointError(
                f"{path} is one function shared between several hyperparameters, either in the file "
                "or here, and not in the other; share it in the same way"
            )
        if "arguments" in node and _plateau_arguments(live) != node["arguments"]:
            raise CheckpointError(
                f"{path} is {live!r}; it was made with other arguments when the file was saved: "
                f"{node['arguments']}"
            )
        if has_state(live) != ("state" in node):
            raise CheckpointError(
                f"{path} has a state_dict() either in the file or here, not in both"
            )
        if "state" in node and not known:
            self.reloads.append((path, live, self.decode(node["state"], path)))

    _TAGGED: Mapping[str, Callable[..., Any]] = {
        "$array": _array,
        "$float": _float,
        "$tuple": _tuple,
        "$dict": _dict,
        "$schedule": _schedule,
        "$function": _function,
    }


def has_state(thing: Any) -> bool:
    return hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")


def member_name(path: str) -> str:
    """A path as the name of a file: printable ASCII, and no way out of a directory."""
    parts = quote(path, errors="surrogatepass").split("/")
    return "/".join(p.replace(".", "%2E") if set(p) == {"."} else p for p in parts)[:LONGEST_NAME]


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _plateau_arguments(plateau: ReduceOnPlateau) -> dict[str, Any]:
    """The arguments it was made with."""
    names: Sequence[str] = list(inspect.signature(ReduceOnPlateau).parameters)
    return {name: getattr(plateau, "_initial_lr" if name == "lr" else f"_{name}") for name in names}
