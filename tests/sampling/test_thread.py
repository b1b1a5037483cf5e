"""The background thread of mini-batches: it ends, keeps its distance and passes errors on."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd.sampling import _rows

N = 23
X = np.arange(N * 3, dtype=np.float32).reshape(N, 3)
Y = np.arange(N)


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fastgd-prefetch"]


def test_the_thread_ends_with_the_loop() -> None:
    batches = fastgd.MiniBatches(X, Y, batch_size=2, prefetch=2)
    for number, _ in enumerate(batches):
        assert len(prefetch_threads()) == 1 or number > 0
    assert not prefetch_threads()
    for _ in batches:
        break
    assert not prefetch_threads()

    def raising() -> None:
        for _ in batches:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        raising()
    assert not prefetch_threads()
    iterator = iter(batches)
    assert not prefetch_threads()  # it starts with the first batch
    next(iterator)
    assert len(prefetch_threads()) == 1
    del iterator
    assert not prefetch_threads()


def test_the_thread_ends_when_a_reference_cycle_is_collected() -> None:
    iterator = iter(fastgd.MiniBatches(X, Y, batch_size=2, prefetch=2))
    next(iterator)
    cycle: list[Any] = [iterator]
    cycle.append(cycle)
    del iterator, cycle
    gc.collect()
    assert not prefetch_threads()


def test_the_thread_keeps_its_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    take = _rows.DenseRows.take

    def counted(self: _rows.DenseRows, *arguments: Any) -> np.ndarray:
        made.append(arguments[0].size)
        return take(self, *arguments)

    monkeypatch.setattr(_rows.DenseRows, "take", counted)
    for number, _ in enumerate(fastgd.MiniBatches(X, batch_size=2, prefetch=3), start=1):
        assert number <= len(made) <= number + 3


def failing_take(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    real, calls = _rows.DenseRows.take, [0]

    def take(self: _rows.DenseRows, *arguments: Any) -> np.ndarray:
        calls[0] += 1
        if calls[0] == at:
            raise OSError("the disk is gone")
        return real(self, *arguments)

    monkeypatch.setattr(_rows.DenseRows, "take", take)


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_an_exception_reaches_the_loop_after_the_batches_before_it(
    monkeypatch: pytest.MonkeyPatch, prefetch: int
) -> None:
    batches = fastgd.MiniBatches(Y, batch_size=2, prefetch=prefetch)
    expected = batches.order().tolist()[:6]
    failing_take(monkeypatch, at=4)
    got: list[int] = []
    with pytest.raises(OSError, match="the disk is gone"):
        got.extend(i for (yb,) in batches for i in yb.tolist())
    assert got == expected
    assert not prefetch_threads()
    assert batches.state_dict()["position"] == 3


def test_python_exits_while_a_thread_waits() -> None:
    code = (
        "import numpy as np, fastgd\n"
        "it = iter(fastgd.MiniBatches(np.eye(100), batch_size=1, prefetch=2)); next(it)\n"
        "print('done')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_says_so_instead_of_hanging() -> None:
    code = (
        "import os, numpy as np, fastgd\n"
        "it = iter(fastgd.MiniBatches(np.eye(100), batch_size=1, prefetch=2)); next(it)\n"
        "pid = os.fork()\n"
        "try:\n"
        "    next(it)\n"
        "except RuntimeError as error:\n"
        "    assert pid == 0 and 'fork' in str(error)\n"
        "    os._exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
