"""State in fewer bits in plain NumPy: the oracle of src_c/narrow.h, stochastic rounding included.

Reading it is fastgd/_arrays/formats.py, which is tested by itself; here is how a step writes it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tests.fma import Array
from tests.support import engine_multiply_add

BLOCK, WORDS, GROUP = 256, 64, 4096
STREAMS = 5  # MOST_STREAMS of the engine


def mix(x: int) -> int:
    x = ((x ^ x >> 16) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ x >> 15) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ x >> 16


NOISE = np.array([mix((i * 0x9E3779B1 + 12345) & 0xFFFFFFFF) for i in range(BLOCK)], np.uint32)


def seed(array: int, slot: int, step: int) -> int:
    """Of an array of the state; `step` of the parameter, before this one."""
    return mix((mix(array * STREAMS + slot) + step) & 0xFFFFFFFF)


def noise(seed_: int, blocks: int) -> Array:
    """(blocks, BLOCK) uint32."""
    hashes = np.array([mix((seed_ + block) & 0xFFFFFFFF) for block in range(blocks)], np.uint32)
    return NOISE ^ hashes[:, None]


def padded(x: Array, to: int) -> Array:
    """(blocks, BLOCK), with zeros up to a multiple of `to`."""
    flat = np.zeros(-(-x.size // to) * to, np.float32)
    flat[: x.size] = x
    return flat.reshape(-1, BLOCK)


def nearest16(x: Array) -> Array:
    bits = x.view(np.uint32)
    near_the_end = (bits & 0x7FFFFFFF) >= 0x7F7F0000
    carry = np.where(near_the_end, 0, 0x7FFF + (bits >> 16 & 1)).astype(np.uint32)
    return ((bits + carry) >> 16).astype(np.uint16)


def random16(x: Array, seed_: int) -> Array:
    bits = padded(x, BLOCK).view(np.uint32)
    near_the_end = (bits & 0x7FFFFFFF) >= 0x7F7F0000
    carry = np.where(near_the_end, 0, noise(seed_, len(bits)) >> 16).astype(np.uint32)
    return ((bits + carry) >> 16).astype(np.uint16).ravel()[: x.size]


def _floors(largest: Array) -> Array:
    binades = (largest.view(np.uint32) + (1 << 20) + 512) & 0x7F800000
    floors = np.where(binades > 15 << 23, binades - (15 << 23), 0).astype(np.uint32)
    return floors.view(np.float32)


def _lines(scales: Array, codes: Array, filled: int) -> Array:
    """Scales (blocks,) and codes (blocks, BLOCK) as they lie in memory; blocks from `filled` on are
    never written.
    """
    scales, codes = scales.copy(), codes.copy()
    scales[filled:], codes[filled:] = 0, 0
    words = codes.astype(np.uint8).reshape(-1, 4, WORDS).swapaxes(1, 2).reshape(-1, GROUP)
    head = scales.astype(np.float32).reshape(-1, 16).view(np.uint8)
    return np.concatenate([head, words], axis=1).ravel()


def _counted(sizes: Array, shift: int, seed_: int) -> tuple[Array, Array]:
    floors = _floors(sizes.max(1))
    steps = (sizes + floors[:, None]).view(np.uint32) - floors.view(np.uint32)[:, None]
    return floors, (steps + (noise(seed_, len(sizes)) >> (32 - shift))) >> shift


def root8(x: Array, seed_: int, *, squared: bool) -> Array:
    roots = padded(np.sqrt(x) if squared else x, GROUP)
    floors, codes = _counted(roots, 19, seed_)
    return _lines(floors, np.maximum(codes, roots > 0), -(-x.size // BLOCK))


def signed8(x: Array, seed_: int) -> Array:
    blocks = padded(x, GROUP)
    floors, codes = _counted(np.abs(blocks), 20, seed_)
    return _lines(floors, codes | np.signbit(blocks).astype(np.uint32) << 7, -(-x.size // BLOCK))


def ratio8(first: Array, second: Array, seed_: int) -> Array:
    ratios = padded(first, GROUP) / (np.sqrt(padded(second, GROUP)) + np.float32(1e-18))
    most = np.abs(ratios).max(1)
    scales = np.where(most < np.float32(1e-30), np.float32(0), most / np.float32(127))
    with np.errstate(divide="ignore"):
        inverse = np.where(scales > 0, np.float32(126.99997) / most, np.float32(0))
    shift = mix_of_blocks(seed_, len(ratios))
    bits = (NOISE >> 16) ^ shift[:, None] | np.uint32(0x43000000)
    moved = engine_multiply_add()(
        ratios, np.broadcast_to(inverse[:, None], ratios.shape), bits.view(np.float32)
    )
    return _lines(scales, np.maximum(moved, 1).astype(np.uint32), -(-first.size // BLOCK))


def mix_of_blocks(seed_: int, blocks: int) -> Array:
    return np.array([mix((seed_ + b) & 0xFFFFFFFF) >> 16 for b in range(blocks)], np.uint32)


def stored(
    state: Mapping[str, Array],
    kinds: Mapping[str, str],
    order: tuple[str, ...],
    state_dtype: str,
    array: int,
    step: int,
) -> dict[str, Array]:
    """What a step leaves in memory of flat float32 arrays: those of one parameter."""
    result = {}
    for name, x in state.items():
        kind, _, beside = kinds[name].partition(" ")
        own = seed(array, order.index(name), step)
        if state_dtype == "bfloat16":
            to_nearest = kind in ("average", "ratio", "precise")
            result[name] = nearest16(x) if to_nearest else random16(x, own)
        elif x.size < GROUP:
            result[name] = x
        elif kind == "ratio":
            result[name] = ratio8(x, state[beside], own)
        elif kind in ("square", "size"):
            result[name] = root8(x, own, squared=kind == "square")
        else:
            result[name] = signed8(x, own)
    return result
