"""What test_fuzz.py generates: an optimizer, its arrays in some layout and tree, and a few steps.

Hypothesis draws the structure of a problem and a seed; the numbers in the arrays come from the seed,
since drawing and shrinking them one by one would be slow and tell little.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.cases import fading_decay, falling, rising_beta, shrinking_eps, wavy
from tests.fma import Array
from tests.reference import OPTIMIZERS, SPECS
from tests.specs._spec import (
    CLOSED_FRACTION,
    FLAG,
    FRACTION,
    NONNEGATIVE,
    OTHER,
    PAIR,
    POSITIVE,
    REAL,
    TRIPLE,
    H,
    Kind,
)
from tests.support import tame, wide

# --- arrays --------------------------------------------------------------------------------------------

SHAPES = [
    (), (0,), (1,), (2,), (3,), (7,), (8,), (17,), (33,), (64,), (100,), (0, 3), (3, 0, 2), (1, 1),
    (1, 5), (5, 1), (2, 3), (4, 4), (9, 14), (3, 1, 2), (2, 3, 4), (2, 2, 2, 2), (1, 3, 1, 2, 1),
    (1023,), (4095,), (4096,), (4097,), (64, 65), (9001,),
]  # fmt: skip
PARAMETER_LAYOUTS = ("C", "F", "inside", "memmap", "subclass")
REFUSED_LAYOUTS = ("strided", "misaligned", "read-only")
GRADIENT_LAYOUTS = ("C", "F", "strided", "misaligned", "read-only", "broadcast",
                    "memmap-r", "subclass")  # fmt: skip
GRADIENT_DTYPES = ("same", "float16", "float32", "float64", "bfloat16")


class Tagged(np.ndarray):
    """An ndarray of another class, as hosts have them."""


def memmap(values: Array, order: str, mode: str) -> Array:
    """The values in a file that is gone when the array is."""
    with tempfile.TemporaryFile() as file:
        file.write(values.tobytes(order=order))  # type: ignore[arg-type]
        file.flush()
        return np.memmap(file, values.dtype, mode, shape=values.shape, order=order)  # type: ignore


def strided(values: Array, rng: np.random.Generator, misalign: bool = False) -> Array:
    """The values with gaps, axes in any order in memory and in any direction, anywhere in a buffer."""
    steps = rng.integers(1, 4, values.ndim) * rng.choice([-1, 1], values.ndim)
    strides, extent = [0] * values.ndim, values.itemsize
    for axis in rng.permutation(values.ndim):
        strides[axis] = extent * int(steps[axis])
        extent *= abs(int(steps[axis])) * max(values.shape[axis], 1)
    back = sum(-s * (n - 1) for s, n in zip(strides, values.shape, strict=True) if s < 0 and n)
    offset = back + (int(rng.integers(1, values.itemsize)) if misalign else 0)
    buffer = np.zeros(extent + back + offset + values.itemsize, np.uint8)
    out: Array = np.ndarray(values.shape, values.dtype, buffer.data, offset, strides)
    out[...] = values
    return out


def laid_out(values: Array, layout: str, rng: np.random.Generator) -> Array:
    """The same values in another layout. Without change where the shape or dtype has no such layout."""
    if layout == "C":
        return values.copy(order="C")
    if layout == "F":
        return values.copy(order="F")
    if layout == "inside":  # a contiguous part of something larger
        around = np.full(values.size + 11, 77, values.dtype)
        view = around[5 : 5 + values.size].reshape(values.shape)
        view[...] = values
        return view
    if layout == "strided" or (layout == "misaligned" and values.itemsize > 1):
        return strided(values, rng, layout == "misaligned")
    if layout == "broadcast":  # stride 0 along some axes
        kept = values[tuple(slice(0, int(rng.choice([1, n + 1]))) for n in values.shape)]
        return np.asarray(np.broadcast_to(kept, values.shape)) if values.size else values
    if layout.startswith("memmap") and values.size and values.dtype.kind == "f":
        return memmap(values, str(rng.choice(["C", "F"])), "r" if layout == "memmap-r" else "r+")
    if layout == "subclass":
        return values.copy(order="K").view(Tagged)
    values = values.copy()
    values.flags.writeable = layout != "read-only"
    return values


# --- options -------------------------------------------------------------------------------------------


def from_zero(step: int) -> float:
    """A momentum that is warmed up."""
    return min(0.25 * step, 0.75)


LR = [0.0, 1e-3, 0.05, 1, np.float32(0.3), falling, wavy]
WEIGHT_DECAY = [0, 0.1, 0.5, fading_decay]
MOMENTUM = [0, 0, 0.5, 0.9, 1.0, rising_beta, from_zero]
EPS = [1e-10, 1e-8, 1e-3, 0.1, shrinking_eps]
FRACTIONS = [0.0, 0.3, 0.5, 0.9, 0.999, rising_beta]
BY_NAME: dict[str, list[Any]] = {
    "lr": LR,
    "weight_decay": WEIGHT_DECAY,
    "momentum": MOMENTUM,
    "eps": EPS,
}
BY_KIND: dict[Kind, list[Any]] = {
    REAL: [0.3, -0.2, 1.0, fading_decay],
    NONNEGATIVE: [0, 0.1, fading_decay],
    POSITIVE: [0.3, 2.0],
    FRACTION: FRACTIONS,
    CLOSED_FRACTION: [*FRACTIONS, 1.0],
    PAIR: [(a, b) for a in FRACTIONS for b in FRACTIONS],
    TRIPLE: [(a, b, c) for a in FRACTIONS for b in FRACTIONS for c in FRACTIONS],
    FLAG: [False, True],
    OTHER: [],
}
# Whose bits are the reference's.
EXACT = [n for n in OPTIMIZERS if SPECS[n].ulps == 0 or not SPECS[n].whole(SPECS[n].defaults)]


def choices(name: str, h: H) -> list[Any]:
    found = [h.default, h.default, *(BY_NAME.get(name) or BY_KIND[h.kind])]
    return [x for x in found if not callable(x)] if h.once else found


@st.composite
def hyperparameters(draw: st.DrawFn, optimizer: str) -> dict[str, Any]:
    """Any valid combination."""
    spec = SPECS[optimizer]
    ranges = {name: choices(name, h) for name, h in spec.hyper.items()}
    ranges["maximize"] = [False, True]
    return spec.valid({name: draw(st.sampled_from(values)) for name, values in ranges.items()})


# --- problems ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    """One parameter, and whether a layout is tried first that must be refused."""

    shape: tuple[int, ...]
    dtype: str
    layout: str
    refused: str | None


@dataclass(frozen=True)
class Step:
    """One step. `missing` and `special` are shares of the arrays; `event` comes before it."""

    dtype: str
    layout: str
    missing: float
    special: str | None  # values that some array gets
    scale: float
    event: str | None


@dataclass(frozen=True)
class Problem:
    """Everything but the numbers."""

    optimizer: str
    groups: list[list[Spec]]
    hyper: list[dict[str, Any]]  # of each group
    nesting: int
    listed: bool  # a list of groups from the beginning, or one tree to which groups are added
    options: Mapping[str, Any]
    steps: list[Step]
    threads: int
    track: bool  # norms of every array
    seed: int


SEEDS = st.integers(0, 2**32 - 1)
ARRAYS = st.builds(
    Spec,
    st.sampled_from(SHAPES),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from(PARAMETER_LAYOUTS),
    st.sampled_from([None] * 9 + list(REFUSED_LAYOUTS)),
)
STEPS = st.builds(
    Step,
    st.sampled_from(GRADIENT_DTYPES),
    st.sampled_from(GRADIENT_LAYOUTS),
    st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    st.sampled_from([None] * 6 + ["zero", "nan", "inf", "tiny", "huge"]),
    st.sampled_from([1.0, 1.0, 1, 0.5, -2.0, 0.0, 1e-3]),
    st.sampled_from([None] * 6 + ["reload", "rebind", "assign"]),
)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    optimizer = draw(st.sampled_from(EXACT))
    groups = draw(st.lists(st.lists(ARRAYS, min_size=1, max_size=5), min_size=1, max_size=3))
    return Problem(
        optimizer,
        groups,
        [draw(hyperparameters(optimizer)) for _ in groups],
        draw(st.integers(0, 3)),
        draw(st.booleans()),
        {
            "clip_norm": draw(st.sampled_from([None, None, 0.5, 100.0, wavy])),
            "clip_value": draw(st.sampled_from([None, None, 0.01, 2.0, falling])),
            "nonfinite": draw(st.sampled_from(["propagate", "raise", "skip"])),
        },
        draw(st.lists(STEPS, min_size=1, max_size=4)),
        draw(st.sampled_from([1, 2, 3])),
        draw(st.booleans()),
        draw(SEEDS),
    )


# --- numbers and trees ---------------------------------------------------------------------------------


def gradient_values(shape: tuple[int, ...], step: Step, rng: np.random.Generator) -> Array:
    """float64 values, of which float16 has a fair share."""
    values = wide(rng, shape, np.float64) if rng.random() < 0.5 else tame(rng, shape, np.float64)
    if step.special == "zero":
        return np.zeros_like(values)
    if step.special in ("nan", "inf") and values.size and rng.random() < 0.3:
        at = tuple(int(rng.integers(n)) for n in shape)
        values[at] = np.nan if step.special == "nan" else rng.choice([-np.inf, np.inf])
    return np.asarray(values * {"tiny": 1e-30, "huge": 1e15}.get(step.special or "", 1.0))


def nested(leaves: list[Any], depth: int, rng: np.random.Generator) -> tuple[Any, list[str]]:
    """The leaves in a tree of lists, tuples and dicts, and the path of each."""
    kind = int(rng.integers(3))
    if depth == 0 or len(leaves) == 1:
        parts: list[tuple[Any, list[str]]] = [(leaf, [""]) for leaf in leaves]
    else:
        cut = int(rng.integers(1, len(leaves)))
        parts = [nested(part, depth - 1, rng) for part in (leaves[:cut], leaves[cut:])]
        parts.insert(int(rng.integers(3)), ([{}, [], ()][kind], []))
    keys = [f"k{i}" if kind == 0 else str(i) for i in range(len(parts))]
    paths = [
        f"{key}/{path}" if path else key
        for key, (_, paths) in zip(keys, parts, strict=True)
        for path in paths
    ]
    trees = [tree for tree, _ in parts]
    return [dict(zip(keys, trees, strict=True)), trees, tuple(trees)][kind], paths


def refilled(tree: Any, leaves: list[Any], rng: np.random.Generator | None = None) -> Any:
    """The tree with other leaves (taken from the front of the list); `rng` may reverse its dicts."""
    if isinstance(tree, dict):
        pairs = [(key, refilled(child, leaves, rng)) for key, child in tree.items()]
        return dict(pairs if rng is None else pairs[:: rng.choice([-1, 1])])
    if isinstance(tree, (list, tuple)):
        return type(tree)([refilled(child, leaves, rng) for child in tree])
    return leaves.pop(0)
