"""What test_processes.py runs, each in a process of its own: python process_scenarios.py NAME.

A process of its own can be given an environment, may hang, and may end in any way. A scenario fails
by raising; it prints what its test compares with others.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

LARGE = 150_000  # enough elements for several threads


def digest(_: Any = None) -> str:
    """Of some steps that use every thread: norms, clipping, conversion, both dtypes."""
    import fastgd

    rng = np.random.default_rng(17)
    params = {
        "a": rng.standard_normal(LARGE).astype(np.float32),
        "b": rng.standard_normal((300, 200)),
        "c": [rng.standard_normal(7).astype(np.float32) for _ in range(30)],
    }
    opt = fastgd.AdamW(params, lr=0.1, clip_norm=1.0)
    result = hashlib.sha256()
    for _ in range(3):
        grads: Any = {
            "a": rng.standard_normal(LARGE).astype(np.float16),
            "b": rng.standard_normal((200, 300)).T,
            "c": [rng.standard_normal(7) for _ in range(30)],
        }
        opt.step(grads)
        result.update(repr(opt.grad_norm).encode())
    for array in (params["a"], params["b"], *params["c"], opt.state["a"]["exp_avg_sq"]):
        result.update(array.tobytes())
    return result.hexdigest()


# --- leaving ------------------------------------------------------------------------------------------


def exit_with_a_daemon() -> None:
    """The interpreter ends while a daemon thread is in the middle of a step."""
    import fastgd

    running = threading.Event()
    p = np.zeros(2_000_000, np.float32)
    opt = fastgd.Adam(p)
    g = np.ones_like(p)

    def work() -> None:
        while True:
            opt.step(g)
            running.set()

    threading.Thread(target=work, daemon=True).start()
    assert running.wait(60)
    print("leaving")


def exit_in_a_step() -> None:
    """sys.exit from within a step, by its schedule."""
    import fastgd

    def leaving(step: int) -> float:
        print("leaving", flush=True)
        sys.exit(0)

    opt = fastgd.SGD(np.zeros(LARGE), lr=leaving)
    opt.step(np.ones(LARGE))


def exit_with_a_last_step() -> None:
    """An atexit handler, when much of Python is gone, and objects that die with the interpreter."""
    import fastgd

    p = np.zeros(LARGE)
    opt = fastgd.Adam(p, lr=0.5, clip_norm=1.0)
    opt.step(np.ones(LARGE))

    def last() -> None:
        opt.step(np.ones(LARGE))
        assert opt.step_count == 2
        print("leaving", flush=True)

    atexit.register(last)
    globals()["kept"] = [opt, opt.state, opt.param_groups]


# --- signals ------------------------------------------------------------------------------------------


class Interrupt(Exception):
    """What the handler raises."""


def signals() -> None:
    """A handler that raises while a step runs leaves it taken or not taken, and the way free."""
    import fastgd

    def raising(*_: Any) -> None:
        raise Interrupt

    def schedule(step: int) -> float:
        for _ in range(2000):  # Python code, in which handlers run
            pass
        return 1.0

    single = np.zeros(1)
    reference = fastgd.SGD(single, lr=schedule, momentum=0.5)
    expected = [0.0]
    p = np.zeros(3_000_000)
    opt = fastgd.SGD(p, lr=schedule, momentum=0.5, nonfinite="raise")
    gradient = np.ones_like(p)
    signal.signal(signal.SIGALRM, raising)
    interrupted = 0
    for k in range(60):
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + 0.0007 * (k % 20))
            while True:
                opt.step(gradient)
        except Interrupt:
            interrupted += 1
        taken = opt.step_count
        while len(expected) <= taken:
            reference.step(np.ones(1))
            expected.append(float(single[0]))
        state = opt.state["params"]
        assert (p == expected[taken]).all(), f"half a step after interruption {k}"
        assert state["step"] == taken
        assert (state["momentum_buffer"] == state["momentum_buffer"][0]).all()
    assert interrupted == 60


# --- floating-point environment -----------------------------------------------------------------------


def control_words() -> tuple[int, int]:
    """Rounding, flush-to-zero and exception masks: of the x87 unit, and of SSE and AVX (MXCSR)."""
    environment = (ctypes.c_uint32 * 8)()  # fenv_t of glibc on x86-64: 28 bytes of x87, then MXCSR
    assert ctypes.CDLL("libm.so.6").fegetenv(environment) == 0
    return environment[0] & 0xFFFF, environment[7] & 0xFFC0  # without the sticky exception flags


@contextmanager
def mxcsr(bits: int) -> Iterator[None]:
    libm = ctypes.CDLL("libm.so.6")
    before, changed = (ctypes.c_uint32 * 8)(), (ctypes.c_uint32 * 8)()
    libm.fegetenv(before)
    libm.fegetenv(changed)
    changed[7] |= bits
    libm.fesetenv(changed)
    try:
        yield
    finally:
        libm.fesetenv(before)


def floating_point_modes() -> None:
    at_start = control_words()
    import fastgd

    assert control_words() == at_start
    sizes = (5, 10_000, 300_000)  # under the lock, without the lock, on several threads
    for mode in (0, 0x8000, 0x0040, 0x8040, 0x2000, 0x4000, 0x6000):  # FTZ, DAZ, both, roundings
        with mxcsr(mode):
            chosen = control_words()
            assert chosen[1] & mode == mode
            for size in sizes:
                for name in ("SGD", "Adam", "Adagrad", "RMSprop"):
                    p = np.ones(size, np.float32)
                    opt = getattr(fastgd, name)(p, clip_norm=1.0)
                    opt.step(np.full(size, 1e-3, np.float16))
                    assert control_words() == chosen, (name, size, hex(mode))
        assert control_words() == at_start


# --- other libraries ----------------------------------------------------------------------------------


def use_torch() -> None:
    import torch

    torch.set_num_threads(3)
    x = torch.ones(600, 600, requires_grad=True)
    ((x @ x) ** 2).sum().backward()
    optimizer = torch.optim.Adam([x])
    optimizer.step()


def use_sklearn() -> None:
    from sklearn.cluster import KMeans
    from sklearn.ensemble import HistGradientBoostingRegressor

    X = np.random.default_rng(0).standard_normal((2000, 5))
    KMeans(3, n_init=1, random_state=0).fit(X)
    HistGradientBoostingRegressor(max_iter=3).fit(X, X[:, 0])


def use_numba() -> None:
    import numba

    @numba.njit(parallel=True)  # type: ignore[untyped-decorator]
    def total(x: Any) -> Any:
        result = 0.0
        for i in numba.prange(x.size):
            result += x[i]
        return result

    assert total(np.ones(100_000)) == 100_000


def with_library(name: str, when: str) -> None:
    """`name` used before fastgd is imported, or after, with fastgd in use on both sides."""
    use = {"torch": use_torch, "sklearn": use_sklearn, "numba": use_numba}[name]
    if when == "before":
        use()
    first = digest()
    use()
    import fastgd

    with fastgd.num_threads(3):
        assert digest() == first
    use()
    assert digest() == first
    print(first)


# --- numbers of threads -------------------------------------------------------------------------------


def count() -> None:
    """The default number of threads, and whether it works."""
    import fastgd

    print(fastgd.get_num_threads(), digest())


def count_with_affinity(cpus: str) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cpus)])
    count()


def count_with_quota(quota: str) -> None:
    """As if the control group had a quota of so many CPUs."""
    import types

    fake: Any = types.ModuleType("fastgd._engine._cgroup")
    fake.cpu_quota = lambda *_: None if quota == "none" else int(quota)
    sys.modules["fastgd._engine._cgroup"] = fake
    count()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
    if sys.argv[1] in ("signals", "floating_point_modes"):
        print("done")
