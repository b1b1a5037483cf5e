"""Compiles bound.c and places its streams ideally: the time that no optimizer can be expected to beat.

Bytes per element: SGD reads g and reads and writes p; momentum, Adagrad and RMSprop read and write one
array more, Adam and AdamW two. Streams lie 896 bytes apart within the page, so that no load waits for
a store with the same low address bits, and in huge pages.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.steps.workloads import Array

PAGE = 4096
HUGE_PAGE = 1 << 21
STAGGER = 896
FLAGS = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CC", "gcc"))


@functools.cache
def library() -> Any:
    """bound.c, compiled. Raises OSError or subprocess.CalledProcessError where that fails."""
    source = Path(__file__).with_name("bound.c")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "bound.so")
        command = [*compiler(), *FLAGS, str(source), "-o", str(target)]
        subprocess.run(command, check=True, capture_output=True)
        code = ctypes.CDLL(str(target))
    pointer, long, integer = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
    code.bound_run.argtypes = [pointer, integer, integer, long, integer, long]
    code.bound_run.restype = ctypes.c_float
    return code


class Bound:
    """A step over `elements` float32 of gradients, of parameters and of `state` arrays of state."""

    def __init__(self, elements: int, state: int, clip: bool, threads: int) -> None:
        code = library()
        self.streams = place_streams(elements, 2 + state)
        self._addresses = (ctypes.c_void_p * len(self.streams))(
            *(stream.ctypes.data for stream in self.streams)
        )
        shape = (len(self.streams), int(clip), elements, threads)
        # The calls are counted in C: from Python one costs as much as a step over 1,000 elements.
        self.run = functools.partial(code.bound_run, self._addresses, *shape)
        self.run(1)  # parameters and state are first touched by the threads that will use them
        for i, stream in enumerate(self.streams):
            stream[...] = 1.0 if i else 0.01


def place_streams(elements: int, count: int) -> list[Array]:
    room = -(-(elements * 4 + count * STAGGER) // PAGE) * PAGE
    mapping = mmap.mmap(-1, room * count + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without transparent huge pages
            mapping.madvise(mmap.MADV_HUGEPAGE)
    raw = np.frombuffer(mapping, np.uint8)
    raw = raw[-raw.ctypes.data % HUGE_PAGE :]
    starts = [(room + STAGGER) * i for i in range(count)]
    return [raw[start : start + elements * 4].view(np.float32) for start in starts]
