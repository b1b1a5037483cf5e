"""The progress bar of minimize: on long runs, on terminals, with tqdm."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from fastgd.training import minimize
from tests.training.problems import X, Y, regression, zeros


def train(progress: bool | None) -> Any:
    return minimize(regression, zeros(), data=(X, Y), batch_size=10, epochs=3, progress=progress)


class Terminal:
    """A stderr that says whether it is a terminal, and keeps what is written."""

    def __init__(self, is_terminal: bool) -> None:
        self.encoding = "utf-8"
        self.text = ""
        self._is_terminal = is_terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return self._is_terminal

    def fileno(self) -> int:
        raise OSError


def progress_text(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, progress: bool | None) -> str:
    terminal = Terminal(is_terminal)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        train(progress)
    return terminal.text


def clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let so many seconds pass between two looks at the clock."""
    times = iter(np.arange(1000) * seconds)
    monkeypatch.setattr("fastgd.training._progress.time.monotonic", lambda: next(times))


def test_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    text = progress_text(monkeypatch, True, True)
    for part in ("12/12", "loss ", "epoch 3/3", "lr 0.001"):
        assert part in text
    for is_terminal, progress in [(False, None), (True, False), (False, False)]:
        assert progress_text(monkeypatch, is_terminal, progress) == ""


def test_a_bar_appears_on_long_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    clock(monkeypatch, 0.25)
    assert "12/12" in progress_text(monkeypatch, True, None)
    clock(monkeypatch, 0.0)
    assert progress_text(monkeypatch, True, None) == ""


def test_lines_where_nobody_looks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe or a log file: one every five seconds, without any carriage return, and the last."""
    clock(monkeypatch, 1.0)
    text = progress_text(monkeypatch, False, True)
    assert "\r" not in text
    lines = text.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "step 5/12 (42%)",
        "step 10/12 (83%)",
        "step 12/12 (100%)",
    ]
    assert lines[0].startswith("step 5/12 (42%), epoch 1/3, loss ")
    assert "lr 0.001" in lines[0]


def test_a_line_has_the_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(False)
    monkeypatch.setattr(sys, "stderr", terminal)
    minimize(regression, zeros(), data=(X, Y), batch_size=10, epochs=3, progress=True,
             validation=lambda w: 0.625)  # fmt: skip
    assert "validation 0.625" in terminal.text


@pytest.mark.parametrize("is_terminal", [False, True])
def test_progress_without_tqdm(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    """Lines, where progress was asked for."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert progress_text(monkeypatch, is_terminal, True).startswith("step 12/12")
    clock(monkeypatch, 0.25)
    assert progress_text(monkeypatch, is_terminal, None) == ""


@pytest.mark.parametrize(("is_terminal", "seconds"), [(False, 100.0), (True, 0.0)])
def test_tqdm_is_imported_only_for_a_bar(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, seconds: float
) -> None:
    """Not where nobody would see it, nor for a run of no time."""
    clock(monkeypatch, seconds)
    monkeypatch.delitem(sys.modules, "tqdm", raising=False)
    progress_text(monkeypatch, is_terminal, None)
    assert "tqdm" not in sys.modules
