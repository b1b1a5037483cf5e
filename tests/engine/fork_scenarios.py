"""What test_processes.py runs about fork(): python fork_scenarios.py NAME; see process_scenarios.py."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.engine.process_scenarios import LARGE, digest


def in_child(work: Callable[[], Any], seconds: float = 30) -> str:
    """What `work` returns as text in a fork of this process; ends the child when it hangs."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(write, str(work()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    with open(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert status == 0, f"child ended with {status}: {text}"
    return text


def fork_by_os() -> None:
    import fastgd

    expected = digest()
    assert fastgd.get_num_threads() > 1
    p = np.ones(LARGE)
    opt = fastgd.RMSprop(p, lr=0.1, momentum=0.9)
    opt.step(p * 0.5)

    def go_on() -> str:
        opt.step(np.full(LARGE, 0.25))
        return hashlib.sha256(p.tobytes() + str(opt.step_count).encode()).hexdigest()

    def child() -> str:
        assert fastgd.get_num_threads() == 1
        assert digest() == expected
        assert in_child(digest) == expected  # and of a grandchild
        fastgd.set_num_threads(2)  # must not make it hang
        assert digest() == expected
        return go_on()

    of_child = in_child(child)
    assert of_child == go_on()
    assert digest() == expected
    assert fastgd.get_num_threads() > 1


def fork_by_multiprocessing() -> None:
    expected = digest()
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        assert pool.map_async(digest, range(4)).get(timeout=60) == [expected] * 4
    assert digest() == expected


def fork_by_joblib() -> None:
    from joblib import Parallel, delayed

    expected = digest()
    for backend in ("loky", "multiprocessing", "threading"):
        found = Parallel(n_jobs=2, backend=backend, timeout=100)(
            delayed(digest)() for _ in range(2)
        )
        assert list(found) == [expected] * 2, backend
    assert digest() == expected


def fork_by_torch() -> None:
    """A data loader's workers, in which somebody trains."""
    import torch

    class Dataset(torch.utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return 4

        def __getitem__(self, i: int) -> str:
            return digest()

    torch.ones(1000, 1000) @ torch.ones(1000, 1000)
    expected = digest()
    loader = torch.utils.data.DataLoader(Dataset(), num_workers=2, timeout=60, batch_size=2)
    assert [x for batch in loader for x in batch] == [expected] * 4
    assert digest() == expected


def is_refused(use: Callable[[], Any]) -> bool:
    """Whether an optimizer says that it was in use when this process was forked."""
    try:
        use()
    except RuntimeError as error:
        if "forked" in str(error):
            return True
        raise
    return False


def fork_in_the_middle() -> None:
    """Another thread is inside a step, held there by its schedule, when the process forks."""
    import fastgd

    inside, leave = threading.Event(), threading.Event()

    def slow(step: int) -> float:
        inside.set()
        assert leave.wait(60)
        return 0.5

    expected = digest()
    p = np.zeros(LARGE)
    opt = fastgd.SGD(p, lr=slow)
    thread = threading.Thread(target=lambda: opt.step(np.ones(LARGE)))
    thread.start()
    assert inside.wait(60)

    def child() -> str:
        leave.set()
        for use in (lambda: opt.step(p), opt.state_dict, lambda: opt.state):
            assert is_refused(use), "half a step was taken for a whole one"
        return digest()

    assert in_child(child) == expected
    leave.set()
    thread.join(60)
    assert (p == -0.5).all()
    assert opt.step_count == 1
    assert digest() == expected


def fork_at_random() -> None:
    """Many forks while another thread steps without a pause."""
    import fastgd

    stop = threading.Event()
    p = np.zeros(1_000_000, np.float32)
    opt = fastgd.SGD(p, lr=1.0)

    def work() -> None:
        while not stop.is_set():
            opt.step(np.ones_like(p))

    def child() -> str:
        is_refused(lambda: opt.step(np.ones_like(p)))  # or not, if it was between two steps
        q = np.zeros(1_000_000, np.float32)
        fastgd.SGD(q, lr=1.0).step(np.ones_like(q))
        return str(q.min() == q.max() == -1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            assert in_child(child) == "True"
    finally:
        stop.set()
        thread.join(60)
    assert (p == -opt.step_count).all()


def fork_in_a_schedule() -> None:
    """The fork happens inside the step, in the thread that takes it: both go on with it."""
    import fastgd

    answers: list[str] = []
    p = np.zeros(LARGE)

    def forking(step: int) -> float:
        if not answers:
            answers.append("")
            answers[0] = in_child(lambda: "child")
        return 0.5

    opt = fastgd.SGD(p, lr=forking)
    assert opt.step(np.ones(LARGE))
    assert answers == ["child"]
    assert (p == -0.5).all()


if __name__ == "__main__":
    globals()[f"fork_{sys.argv[1]}"](*sys.argv[2:])
    print("done")
