"""How optimizer state is stored in fewer bits, and what is lost on the way there and back.

Steps read and write it with src_c/narrow.h, where the codes are described; here state changes its format
as a whole, rounded to nearest. A bfloat16 array has the dtype uint16 and its parameter's shape. One of
8-bit codes has the dtype uint8: lines of GROUP_BYTES for each GROUP elements, in C order, scales first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastgd._arrays.tree import Array

NARROW = (np.dtype(np.uint16), np.dtype(np.uint8))  # the dtypes of state in fewer bits
STATE_DTYPES = (None, "bfloat16", "8bit")
# What an array of the state may be, and so how it is rounded:
#   average    of gradients                       to nearest, or signed codes
#   ratio X    average, bounded by the root of X  to nearest, or codes of that ratio
#   precise    of which small differences matter  to nearest; not in 8 bits
#   sum        slow, or growing, of either sign   stochastically, or signed codes
#   square     an average or a sum of squares     stochastically, or codes of the root
#   size       at least 0                         stochastically, or codes

WORDS = 64
CODED = 4 * WORDS  # elements of a block
BLOCKS = 16  # of a group
GROUP = BLOCKS * CODED  # elements; smaller arrays are not coded
GROUP_BYTES = GROUP + 4 * BLOCKS
ROOT_SHIFT, SIGNED_SHIFT = 19, 20
BINADES = 15


def stored_dtype(state_dtype: str | None, dtype: np.dtype[Any], size: int) -> np.dtype[Any]:
    """Of the state of a parameter of so many elements."""
    if state_dtype == "bfloat16":
        return np.dtype(np.uint16)
    if state_dtype == "8bit" and size >= GROUP:
        return np.dtype(np.uint8)
    return dtype


def stored_length(dtype: np.dtype[Any], size: int) -> int:
    """Of the flat array."""
    return -(-size // GROUP) * GROUP_BYTES if dtype == np.uint8 else size


def decoded(arrays: Mapping[str, Array], kinds: Mapping[str, str], size: int) -> dict[str, Array]:
    """Flat arrays of a parameter's state as floats; those that are not stored in fewer bits as they are."""
    result = {}
    for name, array in arrays.items():
        if array.dtype == np.uint16:
            wide = array.astype(np.uint32)
            wide <<= 16
            result[name] = wide.view(np.float32)
        elif array.dtype == np.uint8:
            scales, codes = _taken_apart(array)
            kind, _, beside = kinds[name].partition(" ")
            if kind == "ratio":
                values = (codes.astype(np.float32) - 128) * scales
                floors, roots = _taken_apart(arrays[beside])
                values *= _above_floor(roots, floors, ROOT_SHIFT)
            elif kind in ("square", "size"):
                values = _above_floor(codes, scales, ROOT_SHIFT)
                values = values * values if kind == "square" else values
            else:
                values = _above_floor(codes & 127, scales, SIGNED_SHIFT)
                values = np.where(codes & 128, -values, values)
            result[name] = values.ravel()[:size]
        else:
            result[name] = array
    return result


def encoded(
    values: Mapping[str, Array], kinds: Mapping[str, str], dtypes: Mapping[str, np.dtype[Any]]
) -> dict[str, Array]:
    """The way back, into flat arrays of these dtypes."""
    result = {}
    for name, array in values.items():
        if dtypes[name] == np.uint16:
            result[name] = _bfloat16(array.astype(np.float32))
        elif dtypes[name] == np.uint8:
            kind, _, beside = kinds[name].partition(" ")
            blocks = _blocks(array)
            if kind == "ratio":
                roots = np.sqrt(_blocks(values[beside]))
                result[name] = _put_together(*_ratios(blocks / (roots + np.float32(1e-18))))
            elif kind in ("square", "size"):
                roots = np.sqrt(blocks) if kind == "square" else blocks
                scales, codes = _steps_above(roots, ROOT_SHIFT)
                result[name] = _put_together(scales, np.maximum(codes, roots > 0))
            else:
                scales, codes = _steps_above(np.abs(blocks), SIGNED_SHIFT)
                result[name] = _put_together(
                    scales, codes | np.signbit(blocks).astype(np.uint32) << 7
                )
        else:
            result[name] = array.astype(dtypes[name])
    return result


def _bfloat16(x: Array) -> Array:
    """The nearest of even last digit."""
    result = np.empty(x.shape, np.uint16)
    for at in range(0, len(x), GROUP):  # what stays in the cache
        part = x[at : at + GROUP]
        bits = part.view(np.uint32)
        finite = (bits & 0x7FFFFFFF) < 0x7F7F0000
        rounded = bits + finite * (0x7FFF + (bits >> 16 & 1))
        result[at : at + GROUP] = (rounded | np.isnan(part) * np.uint32(0x00400000)) >> 16
    return result


def _taken_apart(array: Array) -> tuple[Array, Array]:
    """Scales (blocks, 1) and codes (blocks, CODED) in order."""
    lines = np.ascontiguousarray(array).reshape(-1, GROUP_BYTES)
    scales = lines[:, : 4 * BLOCKS].copy().view(np.float32).reshape(-1, 1)
    codes = lines[:, 4 * BLOCKS :].reshape(-1, WORDS, 4).swapaxes(1, 2).reshape(-1, CODED)
    return scales, codes.astype(np.uint32)


def _put_together(scales: Array, codes: Array) -> Array:
    lines = np.empty((len(scales) // BLOCKS, GROUP_BYTES), np.uint8)
    lines[:, : 4 * BLOCKS] = scales.astype(np.float32).reshape(-1, BLOCKS).view(np.uint8)
    words = codes.astype(np.uint8).reshape(-1, 4, WORDS).swapaxes(1, 2)
    lines[:, 4 * BLOCKS :] = words.reshape(-1, GROUP)
    return lines.ravel()


def _blocks(array: Array) -> Array:
    """(blocks, CODED) float32, whole groups of them, with zeros at the end."""
    flat = np.zeros(-(-array.size // GROUP) * GROUP, np.float32)
    flat[: array.size] = array
    return flat.reshape(-1, CODED)


def _above_floor(codes: Array, floors: Array, shift: int) -> Array:
    return ((codes << shift) + floors.view(np.uint32)).view(np.float32) - floors


def _steps_above(sizes: Array, shift: int) -> tuple[Array, Array]:
    """Floors (blocks, 1), and codes of numbers of at least 0."""
    largest = sizes.max(1, keepdims=True)
    binades = (largest.view(np.uint32) + (1 << SIGNED_SHIFT) + 512) & 0x7F800000
    down = BINADES << 23
    floors = np.where(binades > down, binades - down, 0).astype(np.uint32).view(np.float32)
    floors = np.where(np.isfinite(largest), floors, np.float32(np.nan))
    steps = (sizes + floors).view(np.uint32) - floors.view(np.uint32) + np.uint32(1 << (shift - 1))
    return floors, np.where(np.isfinite(largest), steps >> shift, 0)


def _ratios(ratios: Array) -> tuple[Array, Array]:
    most = np.abs(ratios).max(1, keepdims=True)
    scales = np.where(most < 1e-30, 0, most / np.float32(127)).astype(np.float32)
    scales = np.where(np.isfinite(most), scales, np.float32(np.nan))
    with np.errstate(invalid="ignore", divide="ignore"):
        codes = np.rint(ratios / scales) + 128
    return scales, np.where(scales > 0, codes, 128).astype(np.uint32)


def changed(
    arrays: Mapping[str, Array],
    kinds: Mapping[str, str],
    dtypes: Mapping[str, np.dtype[Any]],
    size: int,
) -> dict[str, Array]:
    """Flat arrays of a parameter's state in other dtypes."""
    if all(array.dtype == dtypes[name] for name, array in arrays.items()):
        return dict(arrays)
    return encoded(decoded(arrays, kinds, size), kinds, dtypes)


def lost(before: Sequence[Array], after: Sequence[Array]) -> float:
    """The largest relative change of arrays, each in the Euclidean norm; 0 for those that are 0."""
    most = 0.0
    for old, new in zip(before, after, strict=True):
        norm = float(np.linalg.norm(old.astype(np.float64)))
        if norm > 0:
            most = max(most, float(np.linalg.norm(new - old.astype(np.float64))) / norm)
    return most
