"""Rows of test_bad_inputs.py: what step() and the clipping functions must refuse."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastgd
from tests.engine.bad_arrays import Broken, Layer, cyclic_list, extra, frozen, misaligned, ones
from tests.engine.bad_inputs import Row, World

Make = Callable[[World], Any]
NAN, INF = math.nan, math.inf


def step(world: World, grads: Any) -> None:
    world.adam.step(grads)


def step_groups(world: World, grads: Any) -> None:
    world.sgd.step(grads)


# In place of the gradient of W, float32 of shape (4, 3).
SHAPES = [(3, 4), (12,), (4,), (3,), (), (1, 3), (4, 1), (4, 3, 1), (1, 4, 3), (0, 3), (5, 3), (0,)]
DTYPES = ("i1", "i4", "u8", "?", "g", "c8", "c16", "O", "U3", "S3", "M8[s]", "m8[s]", ">f2", ">f4",
          ">f8", "V4", "f4,f4", [("x", "f4")])  # fmt: skip
OBJECTS = (1, True, 1j, "W", b"W", {1.0}, range(4), Layer(ones(3)), ones, object(),
           [[1.0] * 3] * 4, (ones(3),) * 4, {"W": ones(4, 3)})  # fmt: skip
NOT_AN_ARRAY = "gradient 'W' .*(must be an array|could not|cannot)"
LEAVES: list[tuple[str, Make, type[Exception], str]] = [
    ("float", lambda w: 1.5, ValueError, r"gradient 'W' has shape \(\)"),
    ("numpy-int", lambda w: np.int64(1), ValueError, r"gradient 'W' has shape \(\)"),
    ("masked", lambda w: np.ma.masked_array(ones(4, 3), ones(4, 3) > 2), TypeError,
     "gradient 'W' is a masked"),
    ("sparse", lambda w: extra("scipy.sparse", "m.eye(4, 4, format='csr')"), ValueError,
     r"gradient 'W' has shape \(4, 4\), its parameter has \(4, 3\)"),
    ("rows-shape", lambda w: fastgd.Rows([0], ones(1, 4)), ValueError, "gradient 'W' has rows of the"),
    ("rows-high", lambda w: fastgd.Rows([4], ones(1, 3)), ValueError, "gradient 'W' has row 4, its"),
    ("rows-negative", lambda w: fastgd.Rows([0, -1], ones(2, 3)), ValueError, "gradient 'W' has row -1"),
    ("rows-int", lambda w: fastgd.Rows([0], np.ones((1, 3), int)), TypeError, "gradient 'W' has dtype"),
    ("rows-overlap", lambda w: fastgd.Rows([0], w.params["W"][1:2]), ValueError, "overlaps the memory"),
    ("factors-shape", lambda w: fastgd.Factors(ones(2, 3), ones(2, 4)), ValueError, "gradient 'W' has sh"),
    ("torch-grad", lambda w: extra("torch", "m.ones(4, 3, requires_grad=True)"), TypeError,
     "gradient 'W'"),
    ("torch-bfloat16", lambda w: extra("torch", "m.ones(4, 3, dtype=m.bfloat16)"), TypeError,
     "gradient 'W'"),
    ("torch-int", lambda w: extra("torch", "m.ones(4, 3, dtype=m.int32)"), TypeError,
     "gradient 'W' has dtype"),
    ("jax-int", lambda w: extra("jax.numpy", "m.ones((4, 3), int)"), TypeError,
     "gradient 'W' has dtype"),
    ("broken", lambda w: Broken(), TypeError, "gradient 'W'"),
    ("broken-key", lambda w: Broken(KeyError("W")), TypeError, "gradient 'W'"),
    ("misaligned-int", lambda w: misaligned("i4").reshape(4, 3), TypeError, "'W' has dtype"),
    ("the-parameter", lambda w: w.params["W"], ValueError, "'W' overlaps .*parameter 'W'"),
    ("reversed", lambda w: w.params["W"][::-1], ValueError, "'W' overlaps .*parameter 'W'"),
    ("shifted", lambda w: w.buffer[19:31].reshape(4, 3), ValueError, "'W' overlaps .*'W'"),
    ("spread", lambda w: w.buffer[0:36:3].reshape(4, 3), ValueError, "'W' overlaps .*'W'"),
    ("another", lambda w: np.lib.stride_tricks.as_strided(w.params["b"], (4, 3), (0, 8)),
     ValueError, "'W' overlaps .*parameter 'b'"),
    ("read-only-view", lambda w: frozen(w.params["W"].view()), ValueError, "'W' overlaps .*'W'"),
    ("half", lambda w: w.params["W"].view("f2")[:, ::2], ValueError, "'W' overlaps .*'W'"),
    ("the-state", lambda w: w.adam.state["W"]["exp_avg"], ValueError, "'W' overlaps .*(exp_avg|state)"),
]  # fmt: skip


def leaf_rows() -> Iterator[Row]:
    for shape in SHAPES:
        for dtype in ("f4", "f2") if len(shape) == 2 else ("f4",):
            yield Row(
                f"grads-shape-{shape}-{dtype}",
                lambda w, shape=shape, dtype=dtype: w.adam_grads(W=np.ones(shape, dtype)),  # type: ignore[misc]
                step, ValueError, r"gradient 'W' has shape .*\(4, 3\)",
            )  # fmt: skip
    for dtype in DTYPES:
        yield Row(
            f"grads-dtype-{dtype}",
            lambda w, dtype=dtype: w.adam_grads(W=np.ones((4, 3), dtype)),  # type: ignore[misc]
            step, TypeError, "gradient 'W' has dtype .*; expected float16, float32",
        )  # fmt: skip
    for leaf in OBJECTS:
        yield Row(
            f"grads-object-{type(leaf).__name__}",
            lambda w, leaf=leaf: w.adam_grads(W=leaf),  # type: ignore[misc]
            step, TypeError, NOT_AN_ARRAY,
        )  # fmt: skip
    for name, make, exception, match in LEAVES:
        yield Row(
            f"grads-{name}",
            lambda w, make=make: w.adam_grads(W=make(w)),  # type: ignore[misc]
            step, exception, match,
        )  # fmt: skip
    yield Row(
        "grads-scalar-shape",
        lambda w: w.adam_grads(layers=[np.zeros((2, 5)), np.zeros(1)]),
        step, ValueError, r"gradient 'layers/1' has shape \(1,\).*\(\)",
    )  # fmt: skip
    yield Row(
        "grads-empty-shape",
        lambda w: w.adam_grads(none=np.zeros((3, 0))),
        step, ValueError, r"gradient 'none' has shape \(3, 0\)",
    )  # fmt: skip


def less(world: World, key: str) -> dict[str, Any]:
    grads = world.adam_grads()
    del grads[key]
    return grads


AROUND = "gradients: the structure differs .*"
STRUCTURES: list[tuple[str, Make, str]] = [
    ("array", lambda w: ones(4, 3), AROUND + "dict with the keys .*got an array"),
    ("list", lambda w: list(w.adam_grads().values()), AROUND + "got a list"),
    ("text", lambda w: "W", AROUND + "got builtins.str"),
    ("generator", lambda w: (g for g in w.adam_grads().values()), AROUND + "generator"),
    ("missing", lambda w: less(w, "W"), AROUND + "'W'"),
    ("missing-last", lambda w: less(w, "none"), AROUND + "'none'"),
    ("surplus", lambda w: w.adam_grads(c=None), AROUND + "'c'"),
    ("renamed", lambda w: {**less(w, "W"), "w": ones(4, 3)}, AROUND + "'W'"),
    ("empty", lambda w: {}, AROUND + "dict"),
    ("short-list", lambda w: w.adam_grads(layers=[ones(2, 5)]), AROUND + "'layers/0'.*length 2"),
    ("long-list", lambda w: w.adam_grads(layers=[None] * 3), AROUND + "'layers/0'.*length 3"),
    ("dict-for-list", lambda w: w.adam_grads(layers={0: None, 1: None}), AROUND + "'layers/0'"),
    ("array-for-list", lambda w: w.adam_grads(layers=ones(2, 5)), AROUND + "'layers/0'"),
    ("stack-for-list", lambda w: w.adam_grads(layers=ones(2, 2, 5)), AROUND + "'layers/0'"),
    ("text-for-list", lambda w: w.adam_grads(layers="ab"), AROUND + "'layers/0'"),
]  # fmt: skip
GROUPS: list[tuple[str, Make, str]] = [
    ("one-tree", lambda w: w.sgd_grads()[0], "list of 2 trees"),
    ("too-few", lambda w: w.sgd_grads()[:1], "list of 2 trees"),
    ("too-many", lambda w: [*w.sgd_grads(), None], "list of 2 trees"),
    ("none", lambda w: None, "list of 2 trees"),
    ("dict", lambda w: dict(enumerate(w.sgd_grads())), "list of 2 trees"),
    ("generator", lambda w: (g for g in w.sgd_grads()), "list of 2 trees"),
    ("swapped", lambda w: w.sgd_grads()[::-1], "gradient '0'"),
    ("group-dicts", lambda w: [{"params": g} for g in w.sgd_grads()], "gradient '0'"),
    ("second", lambda w: [w.sgd_grads()[0], ones(2, 2)], AROUND + "'1/v'"),
    ("second-shape", lambda w: [w.sgd_grads()[0], {"v": ones(4)}], "gradient '1/v' has shape"),
    ("of-the-other", lambda w: [np.resize(w.second["v"], 6) * 0, {"v": w.first[:4].reshape(2, 2)}],
     "gradient '1/v' overlaps .*parameter '0'"),
]  # fmt: skip
NONFINITE: list[tuple[str, Make, str]] = [
    ("nan", lambda w: w.adam_grads(W=np.full((4, 3), NAN)), "'W'"),
    ("last-nan", lambda w: w.adam_grads(b=np.array([0, 0, NAN])), "'b'"),
    ("inf", lambda w: w.adam_grads(b=np.array([0, INF, 0])), "'b'"),
    ("minus-inf", lambda w: w.adam_grads(layers=[None, np.array(-INF)]), "'layers/1'"),
    ("half-nan", lambda w: w.adam_grads(layers=[np.full((2, 5), NAN, "f2"), None]), "'layers/0'"),
    ("first-of-two", lambda w: w.adam_grads(W=ones(4, 3) * INF, b=ones(3) * NAN), "'W'"),
]  # fmt: skip
SCALES: list[tuple[Any, type[Exception]]] = [
    *((x, ValueError) for x in (NAN, INF, -INF, 10**400, np.float32(INF))),
    *((x, TypeError) for x in (
        None, "1", b"1", 1j, 1 + 0j, True, False, np.True_, [1.0], (1.0,), {}, np.ones(1),
        np.ones(2), lambda step: 1.0, object(),
    )),
]  # fmt: skip


def step_rows() -> Iterator[Row]:
    for name, make, match in STRUCTURES:
        yield Row(f"grads-structure-{name}", make, step, ValueError, match)
    for name, make, match in GROUPS:
        exception = TypeError if name in ("group-dicts", "swapped") else ValueError
        yield Row(f"grads-groups-{name}", make, step_groups, exception, match)
    for name, make, match in NONFINITE:
        yield Row(f"grads-{name}", make, step, FloatingPointError, f"gradient {match}")
    for scale, error in SCALES:
        yield Row(
            f"grad_scale-{type(scale).__module__}.{type(scale).__name__}-{str(scale)[:10]}",
            lambda w, scale=scale: scale,  # type: ignore[misc]
            lambda w, scale: w.adam.step(w.adam_grads(), scale),
            error, "^grad_scale must be",
        )  # fmt: skip


# --- behind the optimizer's back ---------------------------------------------------------------------


def resized(*shape: int) -> Make:
    def make(world: World) -> Any:
        world.params["b"].resize(shape, refcheck=False)
        return world.adam_grads()

    return make


def saved(world: World) -> dict[str, Any]:
    return World(world.folder).adam.state_dict()


def unfreeze(world: World, given: Any) -> None:
    world.params["b"].flags.writeable = True


def put_back(world: World, given: Any) -> None:
    """What the message says: rebind to arrays of the original shapes."""
    world.params["b"] = World(world.folder).params["b"]
    world.adam.rebind(world.params)


def freeze(world: World) -> Any:
    world.params["b"].flags.writeable = False
    return world.adam_grads()


def relabel(array: np.ndarray, dtype: Any) -> None:
    """NumPy deprecates it, but it still works."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        array.dtype = dtype


def relabelled(dtype: str) -> Make:
    def make(world: World) -> Any:
        relabel(world.params["b"], dtype)
        return world.adam_grads()

    return make


def label_again(world: World, given: Any) -> None:
    relabel(world.params["b"], np.float64)


def behind_rows() -> Iterator[Row]:
    for name, shape in (("larger", (300,)), ("much-larger", (10**6,)), ("smaller", (2,)),
                        ("empty", (0,)), ("reshaped", (3, 2))):  # fmt: skip
        yield Row(
            f"behind-resized-{name}", resized(*shape), step, ValueError, "'b' was resized", put_back
        )
    uses: dict[str, Callable[[World, Any], None]] = {
        "add_param_group": lambda w, g: w.adam.add_param_group({"params": ones(3)}),
        "assign": lambda w, g: w.adam.param_groups[0].update(amsgrad=False),
        "load_state_dict": lambda w, g: w.adam.load_state_dict(saved(w)),
        "rebind": lambda w, g: w.adam.rebind(w.params),
    }
    for name, use in uses.items():  # none of them may bless the new size, for which is no state
        for size in (1, 300):
            match = "parameter '(0/)?b' (was resized|has shape)"
            yield Row(f"behind-{name}-{size}", resized(size), use, ValueError, match, put_back)
    yield Row(
        "behind-same-size", resized(3, 1), step, ValueError, "gradient 'b' has shape", put_back
    )
    yield Row("behind-read-only", freeze, step, ValueError, "'b' has become read-only", unfreeze)
    for dtype in ("i8", ">f8", "c8", "M8[s]"):
        yield Row(f"behind-dtype-{dtype}", relabelled(dtype), step, ValueError, "'b'", label_again)


# --- clipping ----------------------------------------------------------------------------------------

NAMED = "gradient '1'"
CLIPPED: list[tuple[str, Make, type[Exception], str]] = [
    ("int", lambda w: [w.data, np.ones(2, int)], TypeError, NAMED),
    ("complex", lambda w: [w.data, np.ones(2, complex)], TypeError, NAMED),
    ("object", lambda w: [w.data, np.ones(2, object)], TypeError, NAMED),
    ("swapped", lambda w: [w.data, np.ones(2, ">f4")], TypeError, NAMED),
    ("longdouble", lambda w: [w.data, np.ones(2, "g")], TypeError, NAMED),
    ("text", lambda w: [w.data, "x"], TypeError, NAMED),
    ("bool", lambda w: [w.data, True], TypeError, NAMED),
    ("masked", lambda w: [w.data, np.ma.masked_array(ones(2), [0, 1])], TypeError, NAMED),
    ("generator", lambda w: (x for x in [w.data]), TypeError, "gradient 'params'"),
    ("itself", lambda w: [w.data, cyclic_list()], ValueError, "(itself|nested)"),
]  # fmt: skip
IN_PLACE: list[tuple[str, Make, type[Exception], str]] = [
    ("read-only", lambda w: [w.data, frozen(ones(2))], ValueError, NAMED + " is read-only"),
    ("float", lambda w: [w.data, 1.5], TypeError, NAMED),
    ("same-twice", lambda w: [w.data, w.data], ValueError, "'0' and '1' overlap"),
    ("overlapping", lambda w: [w.buffer[:9], w.buffer[8:]], ValueError, "'0' and '1' overlap"),
]  # fmt: skip


def clipping_rows() -> Iterator[Row]:
    functions: dict[str, Callable[[World, Any], Any]] = {
        "global_norm": lambda w, g: fastgd.global_norm(g),
        "clip_grad_norm_": lambda w, g: fastgd.clip_grad_norm_(g, 0.1),
        "clip_grad_value_": lambda w, g: fastgd.clip_grad_value_(g, 0.1),
    }
    for function, use in functions.items():
        for name, make, exception, match in [*CLIPPED, *IN_PLACE]:
            if function != "global_norm" or name not in {row[0] for row in IN_PLACE}:
                yield Row(f"{function}-{name}", make, use, exception, match)
    for limit, error in [(x, ValueError) for x in (NAN, INF, -1.0, 0, 10**400)] + [
        (x, TypeError) for x in (None, "1", True, 1j, [1.0], np.ones(2), len)
    ]:
        yield Row(f"max_norm-{limit!r:.10}", lambda w, x=limit: x,  # type: ignore[misc]
                  lambda w, x: fastgd.clip_grad_norm_(w.data, x), error, "^max_norm must")  # fmt: skip
        yield Row(f"clip_value-{limit!r:.10}", lambda w, x=limit: x,  # type: ignore[misc]
                  lambda w, x: fastgd.clip_grad_value_(w.data, x), error, "^clip_value must")  # fmt: skip


ROWS = [*leaf_rows(), *step_rows(), *behind_rows(), *clipping_rows()]
