"""Rows of test_bad_inputs.py: parameters, gradients and the trees that hold them."""

from __future__ import annotations

import array
import collections
import dataclasses
import importlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastgd
from tests.engine.bad_inputs import Row, World
from tests.fma import Array


@dataclasses.dataclass
class Layer:
    W: Array


class Broken:
    """Says that it is an array, and is not."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.problem = problem

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if self.problem is not None:
            raise self.problem
        return "no array"


def ones(*shape: int, dtype: Any = np.float32) -> Array:
    return np.ones(shape, dtype)


def frozen(x: Array) -> Array:
    x.flags.writeable = False
    return x


def misaligned(dtype: Any) -> Array:
    return np.zeros(49, np.uint8)[1:].view(dtype)


def mapped(world: World) -> Array:
    path = world.folder / "read-only.npy"
    np.save(path, ones(3))
    return np.asanyarray(np.load(path, mmap_mode="r"))


def cyclic_list() -> list[Any]:
    tree: list[Any] = []
    tree.append(tree)
    return tree


def extra(module: str, make: str) -> Any:
    """`make` evaluated with the optional library `module` as m; skips without it."""
    pytest.importorskip(module)
    return eval(make, {"m": importlib.import_module(module), "np": np})


# What no parameter can be, whatever holds it: (name, what, exception, message).
LEAVES: list[tuple[str, Callable[[World], Any], type[Exception], str]] = [
    ("read-only", lambda w: frozen(ones(3)), ValueError, "is read-only"),
    ("frombuffer", lambda w: np.frombuffer(b"12345678", "f4"), ValueError, "is read-only"),
    ("broadcast", lambda w: np.broadcast_to(np.float32(1), (3,)), ValueError, "is read-only"),
    ("memmap-r", mapped, ValueError, "is read-only"),
    ("strided", lambda w: ones(6)[::2], ValueError, "not contiguous"),
    ("reversed", lambda w: ones(6)[::-1], ValueError, "not contiguous"),
    ("column", lambda w: ones(4, 3)[:, 1], ValueError, "not contiguous"),
    ("rotated", lambda w: ones(2, 3, 4).transpose(1, 0, 2), ValueError, "not contiguous"),
    ("imaginary", lambda w: ones(3, dtype="c8").imag, ValueError, "not contiguous"),
    ("stride-0", lambda w: np.lib.stride_tricks.as_strided(ones(1), (3,), (0,)), ValueError,
     "not contiguous"),
    ("record-field", lambda w: np.ones(3, "f4,f8")["f1"], ValueError, "not (contiguous|aligned)"),
    ("misaligned-f4", lambda w: misaligned(np.float32), ValueError, "not aligned"),
    ("misaligned-f8", lambda w: misaligned(np.float64), ValueError, "not aligned"),
    *[
        (f"dtype-{dtype}", lambda w, dtype=dtype: np.ones(3, dtype), TypeError,  # type: ignore[misc]
         "expected native float32 or float64")
        for dtype in ("i1", "u2", "i4", "i8", "?", "f2", "g", "c8", "c16", "O", "U3", "S3", "M8[s]",
                      "m8[s]", ">f4", ">f8", "V4", "f4,f4", [("x", "f8")])
    ],
    ("bfloat16", lambda w: np.ones(3, extra("ml_dtypes", "m.bfloat16")), TypeError, "float32 or"),
    ("masked", lambda w: np.ma.masked_array(ones(3), [0, 1, 0]), TypeError, "MaskedArray"),
    *[
        (f"object-{type(leaf).__name__}", lambda w, leaf=leaf: leaf, TypeError,  # type: ignore[misc]
         f"must be a numpy.ndarray, got .*{type(leaf).__name__}")
        for leaf in (
            None, 1, 1.5, True, 1j, "W", b"W", np.float32(1), np.float64(1), bytearray(4), range(3),
            {1.0}, frozenset({1.0}), iter([1.0]), Layer(ones(3)), memoryview(ones(3)),
            array.array("f", [1.0]), collections.deque([1.0]), types.MappingProxyType({"a": 1}),
            np.ndarray, ones, Broken(), np.dtype("f4"),
        )
    ],
    ("torch", lambda w: extra("torch", "m.ones(3)"), TypeError, "got torch.Tensor"),
    ("jax", lambda w: extra("jax.numpy", "m.ones(3)"), TypeError, "ndarray, got jax"),
    ("sparse", lambda w: extra("scipy.sparse", "m.eye(3, format='csr')"), TypeError, "got scipy"),
]  # fmt: skip


def construct(world: World, tree: Any) -> Any:
    return fastgd.AdamW(tree)


def add_group(world: World, tree: Any) -> None:
    world.sgd.add_param_group({"params": tree})


def rebind(world: World, tree: Any) -> None:
    world.adam.rebind(tree)


def parameter_rows() -> Iterator[Row]:
    for name, make, exception, match in LEAVES:
        for use, path in ((construct, "bad"), (add_group, "2/bad")):
            yield Row(
                f"params-{name}-{use.__name__}",
                lambda w, make=make: {"good": ones(2), "bad": make(w)},  # type: ignore[misc]
                use, exception, f"parameter '{path}' .*{match}",
            )  # fmt: skip
    for name, make, exception, match in LEAVES[:-3:4]:
        yield Row(
            f"params-{name}-rebind",
            lambda w, make=make: {**w.params, "W": make(w)},  # type: ignore[misc]
            rebind, exception, f"parameter 'W' .*{match}",
        )  # fmt: skip
    for name, make, match in TREES:
        for use in (construct, add_group):
            yield Row(f"params-{name}-{use.__name__}", make, use, ValueError, match)
    for name, make, match in REBINDS:
        yield Row(f"rebind-{name}", make, rebind, ValueError, match)


EMPTY = "at least one parameter array"
# Trees that are wrong as a whole: (name, tree, message).
TREES: list[tuple[str, Callable[[World], Any], str]] = [
    ("same-twice", lambda w: [w.data, w.data], "'(2/)?0' and '(2/)?1' overlap"),
    ("same-twice-in-a-dict", lambda w: {"x": w.data, "y": w.data}, "'(2/)?x' and '(2/)?y' overlap"),
    ("overlapping", lambda w: [w.buffer[:9], w.buffer[8:]], "'(2/)?0' and '(2/)?1' overlap"),
    ("one-inside", lambda w: {"all": w.buffer, "part": w.buffer[5:6]}, "'(2/)?all' and '(2/)?part'"),
    ("other-dtype", lambda w: [w.data, w.data.view("f4")], "overlap"),
    ("reshaped", lambda w: [w.data, ones(2), w.data.reshape(-1)], "'(2/)?0' and '(2/)?2' overlap"),
    ("transposed", lambda w: [w.data.T, w.data], "overlap"),
    ("same-name", lambda w: {0: ones(1), "0": ones(2)}, r"same name: \['(2/)?0'\]"),
    ("same-path", lambda w: {"a/b": ones(1), "a": {"b": ones(1)}}, r"same name: \['(2/)?a/b'\]"),
    ("contains-itself", lambda w: cyclic_list(), "(contains itself|nested)"),
    ("contains-itself-deep", lambda w: {"a": [ones(2), {"b": cyclic_list()}]}, "(itself|nested)"),
]  # fmt: skip

REBINDS: list[tuple[str, Callable[[World], Any], str]] = [
    ("shape", lambda w: {**w.params, "W": ones(3, 4)}, "'W' has shape"),
    ("dtype", lambda w: {**w.params, "b": ones(3)}, "'b' has .*dtype"),
    ("order", lambda w: {**w.params, "W": np.asfortranarray(ones(4, 3))}, "'W' .*order"),
    ("structure", lambda w: w.params["W"], "structure"),
    ("missing", lambda w: {"W": w.params["W"]}, "structure"),
    ("none", lambda w: None, "structure"),
    ("other-key", lambda w: {"w" if k == "W" else k: v for k, v in w.params.items()}, "structure"),
    ("two-trees", lambda w: [{"params": w.params}, {"params": w.params}], "list of 1 trees"),
    ("overlap", lambda w: {**w.params, "W": w.params["b"].view("f4")[:0].reshape(0, 3), "none":
                           w.params["W"]}, "'W' has shape"),
]  # fmt: skip


def group_rows() -> Iterator[Row]:
    """Lists of parameter groups."""
    x, y = (lambda: ones(2)), (lambda: ones(3))
    for name, exception, match, make in [
        ("empty", ValueError, EMPTY, lambda w: []),
        ("empty-dict", ValueError, EMPTY, lambda w: {}),
        ("empty-nested", ValueError, EMPTY, lambda w: ([], {"a": ()})),
        ("empty-group", ValueError, EMPTY, lambda w: [{"params": []}]),
        ("lone-dict", TypeError, "'lr' must be", lambda w: {"params": x(), "lr": 0.1}),
        ("mixed", TypeError, "'0/lr' must be", lambda w: [{"params": x(), "lr": 0.1}, y()]),
        (
            "no-params",
            TypeError,
            "group 1 has 'lr', but no \"params\"",
            lambda w: [{"params": x()}, {"lr": 0.1}],
        ),
        ("params-none", TypeError, "'1' must be", lambda w: [{"params": x()}, {"params": None}]),
        ("unknown", ValueError, "hyperparameter 'beta'", lambda w: [{"params": x(), "beta": 1}]),
        (
            "option",
            ValueError,
            "hyperparameter 'clip_norm'",
            lambda w: [{"params": x(), "clip_norm": 1.0}],
        ),
        ("key-not-text", ValueError, "hyperparameter 3", lambda w: [{"params": x(), 3: 1}]),
        (
            "shared",
            ValueError,
            "'0' and '1/a' overlap",
            lambda w: [{"params": w.data}, {"params": {"a": w.data}}],
        ),
        ("lr", ValueError, "lr must be", lambda w: [{"params": x()}, {"params": y(), "lr": -1}]),
    ]:
        yield Row(f"groups-{name}", make, construct, exception, match)
    for name, exception, match, make in [
        ("none", TypeError, "parameter group .*'params'|\"params\"", lambda w: None),
        ("array", TypeError, "parameter group", lambda w: x()),
        ("list", TypeError, "parameter group", lambda w: [{"params": x()}]),
        ("no-params", TypeError, "parameter group", lambda w: {"lr": 0.1}),
        ("present", ValueError, "'0' and '2' overlap", lambda w: {"params": w.first}),
        ("unknown", ValueError, "hyperparameter 'eps'", lambda w: {"params": x(), "eps": 1}),
        ("nesterov", ValueError, "nesterov", lambda w: {"params": x(), "nesterov": True,
                                                        "dampening": 0.1}),
    ]:  # fmt: skip
        yield Row(
            f"add_param_group-{name}", make, lambda w, g: w.sgd.add_param_group(g), exception, match
        )


ROWS = [*parameter_rows(), *group_rows()]
