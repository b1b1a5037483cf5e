"""The configuration of this process: threads, and what was built."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator

from fastgd import _engine
from fastgd._arguments import integer


def set_num_threads(n: int | None) -> None:
    """Use `n` threads in large steps from now on, in the whole process.

    Args:
        n: an integer in 1 … 4096, or None for the default: up to as many as OMP_NUM_THREADS, CPU
            affinity and the cgroup's CPU quota allow, or one where that turns out to be faster,
            such as beside another library's busy threads. Results do not depend on it.

    The number is kept by a child that `os.fork` makes (multiprocessing's "fork", a preloading server),
    but there each step runs on one thread, whatever the number, and `get_num_threads` says 1: OpenMP's
    threads do not survive a fork. A process made by "spawn" or "forkserver" begins with the default and
    has its own threads; several at once share the cores, so give each its part.

    Raises:
        TypeError: `n` is not an integer.
        ValueError: `n` is not in 1 … 4096.

    Example:
        >>> import fastgd
        >>> fastgd.set_num_threads(1)
        >>> fastgd.get_num_threads()
        1
        >>> fastgd.set_num_threads(None)
    """
    if n is not None:
        n = integer("the number of threads", n, 1, "; None stands for the default")
    _engine.set_num_threads(n)


@contextlib.contextmanager
def num_threads(n: int | None) -> Iterator[None]:
    """Use `n` threads inside a with block, in the whole process; afterwards as many as before.

    Args:
        n: as `set_num_threads` takes it.

    Raises:
        TypeError, ValueError: as `set_num_threads`; at the block's begin, which is not entered.

    Example:
        >>> import fastgd
        >>> with fastgd.num_threads(1):
        ...     fastgd.get_num_threads()
        1
    """
    before = _engine.get_chosen_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


def set_resident_bytes(n: int | None) -> None:
    """How much memory a step may take for arrays that lie in files, from now on, in the whole process.

    Where parameters are a `numpy.memmap`, or an optimizer's state is in files (`state_dir`), a step goes
    over them a part at a time: while one is updated the next is read, and the one before is written and let
    go. The results are the same bits. Gradients that are a `numpy.memmap` are let go likewise; rules that
    work on matrices (`Muon`, `Adafactor`) need memory of the parameters' size besides, and of rows of a
    gradient the pages that a step touches stay until its end.

    Args:
        n: bytes; None for the default, 1 GiB.

    Raises:
        TypeError: `n` is not an integer.
        ValueError: `n` is less than 1 MiB.

    Example:
        >>> import tempfile, numpy as np, fastgd
        >>> fastgd.set_resident_bytes(64 << 20)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     W = np.memmap(f"{folder}/W", np.float32, "w+", shape=(1000, 50))
        ...     opt = fastgd.AdamW(W, state_dir=folder)
        ...     opt.step(np.ones((1000, 50), np.float32))
        True
        >>> fastgd.set_resident_bytes(None)
    """
    wanted = 1 << 30 if n is None else integer("the number of bytes", n, 1 << 20)
    _engine.set_resident_bytes(wanted)


def show_config() -> None:
    """Print the version, the engine's build, what the CPU offers, OpenMP and the threads in use."""
    import numpy as np

    import fastgd

    openmp = (
        str(_engine.openmp_version) if _engine.openmp_version else "none: steps run on one thread"
    )
    rows = {
        "fastgd": fastgd.__version__,
        "engine build": f"{_engine.isa} ({'with' if _engine.has_fma else 'without'} fused multiply-add)",
        "builds this CPU can run": ", ".join(_engine.available_isas()),
        "OpenMP": openmp,
        "threads": str(_engine.get_num_threads()),
        "NumPy": np.__version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
