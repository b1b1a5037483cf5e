"""State arenas: where the optimizer's own arrays lie in memory.

One arena holds one state slot of a set of parameters. It is fresh anonymous memory, which the kernel
zeroes and the threads of the first step touch first, in huge pages when it is large.

Loads and stores whose addresses agree in the low 12 bits are mistaken for one another by the CPU, and
the load waits. NumPy's large arrays all begin at the same offset in their page, so the state of a large
parameter is placed at offsets in the page that differ from its parameter's and from each other's.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgd._arrays.formats import stored_length

PAGE = 4096
LINE = 64
# Distance within the page between the streams of one parameter: parameter, slot 0, slot 1, slot 2.
STAGGER = 896
# A parameter of at least this size is worth up to a page of padding.
LARGE = 1 << 18
HUGE_PAGE = 1 << 21
# Distance of a gradient from its parameter: between two of the state, of which no step has all.
GRADIENT = 3136


def allocate(
    params: Sequence[NDArray[Any]],
    slot: int,
    dtypes: Sequence[np.dtype[Any]],
    directory: str | None = None,
) -> list[NDArray[Any]]:
    """Zeroed one-dimensional arrays of these dtypes, for state slot `slot` of `params`.

    directory: of the file in which they lie, if they do. It has no name, and is gone with the arrays.
    """
    sizes = [
        stored_length(dtype, param.size) * dtype.itemsize
        for param, dtype in zip(params, dtypes, strict=True)
    ]
    offsets = []
    end = 0
    for param, size in zip(params, sizes, strict=True):
        begin = -(-end // LINE) * LINE
        if size >= LARGE:
            wanted = (param.ctypes.data // LINE * LINE + STAGGER * (slot + 1)) % PAGE
            begin += (wanted - begin) % PAGE
        offsets.append(begin)
        end = begin + size
    arena = _anonymous_memory(end) if directory is None else _file(end, directory)
    return [
        arena[begin : begin + size].view(dtype)
        for begin, size, dtype in zip(offsets, sizes, dtypes, strict=True)
    ]


def placed(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    fortran: bool = False,
    like: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """A zeroed array: a parameter, or the gradient of the parameter `like`."""
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        return np.zeros(shape, dtype, "F" if fortran else "C")
    offset = 0 if like is None else (like.ctypes.data // LINE * LINE + GRADIENT) % PAGE
    flat = _anonymous_memory(offset + size)[offset:].view(dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def is_mapped(array: Any) -> bool:
    """Whether an array lies in a file, and what is written to it gets there.

    What is computed from a memmap, or a copy of it, is of its class too, but without a mode.
    """
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and array.mode is not None:
            return array.mode in ("r", "r+", "w+")
        array = array.base
    return False


def _file(size: int, directory: str) -> NDArray[np.uint8]:
    """Zeros in a file for which the disk has room.

    Raises: OSError if it has not.
    """
    with tempfile.TemporaryFile(prefix="fastgd-", suffix=".state", dir=directory) as file:
        file.truncate(max(size, 1))
        if hasattr(os, "posix_fallocate"):  # or a full disk would end the process in a step
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
        whole = np.memmap(file, np.uint8, "r+", shape=(max(size, 1),))
    return whole[:size].view(np.ndarray)


def _anonymous_memory(size: int) -> NDArray[np.uint8]:
    """Zeroed private memory, aligned to a page, or to a huge page when it has one."""
    if size < LARGE:  # NumPy's allocator is cheaper than a mapping of its own
        raw = np.zeros(size + PAGE, np.uint8)
        return raw[-raw.ctypes.data % PAGE :][:size]
    slack = HUGE_PAGE if size >= HUGE_PAGE else 0
    if hasattr(mmap, "MAP_PRIVATE"):
        mapping = mmap.mmap(-1, size + slack, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if slack and hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without transparent huge pages
                mapping.madvise(mmap.MADV_HUGEPAGE)
    else:
        mapping = mmap.mmap(-1, size + slack)
    raw = np.frombuffer(mapping, np.uint8)
    return raw[-raw.ctypes.data % HUGE_PAGE if slack else 0 :][:size]
