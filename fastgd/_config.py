"""The configuration of this process: threads, and what was built."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator

from fastgd import _engine


@contextlib.contextmanager
def num_threads(n: int | None) -> Iterator[None]:
    """Use `n` threads inside a with block, in the whole process; see `set_num_threads`.

    Example:
        >>> import fastgd
        >>> with fastgd.num_threads(1):
        ...     fastgd.get_num_threads()
        1
    """
    before = _engine.get_chosen_threads()
    _engine.set_num_threads(n)
    try:
        yield
    finally:
        _engine.set_num_threads(before)


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
