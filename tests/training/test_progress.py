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


def test_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    assert "12/12" in progress_text(monkeypatch, True, True)
    assert "loss" in progress_text(monkeypatch, True, True)
    for is_terminal, progress in [(False, True), (False, None), (True, False)]:
        assert progress_text(monkeypatch, is_terminal, progress) == ""


def test_a_bar_appears_on_long_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    seconds = iter(np.arange(1000) * 0.25)
    monkeypatch.setattr("fastgd.training._progress.time.monotonic", lambda: next(seconds))
    assert "12/12" in progress_text(monkeypatch, True, None)
    monkeypatch.setattr("fastgd.training._progress.time.monotonic", lambda: 0.0)
    assert progress_text(monkeypatch, True, None) == ""


@pytest.mark.parametrize("is_terminal", [False, True])
def test_progress_without_tqdm(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"fastgd\[progress\]"):
        progress_text(monkeypatch, is_terminal, True)
    seconds = iter(np.arange(1000) * 0.25)
    monkeypatch.setattr("fastgd.training._progress.time.monotonic", lambda: next(seconds))
    assert progress_text(monkeypatch, is_terminal, None) == ""


@pytest.mark.parametrize(("is_terminal", "seconds"), [(False, 100.0), (True, 0.0)])
def test_tqdm_is_imported_only_for_a_bar(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, seconds: float
) -> None:
    """Not where nobody would see it, nor for a run of no time."""
    clock = iter(np.arange(1000) * seconds)
    monkeypatch.setattr("fastgd.training._progress.time.monotonic", lambda: next(clock))
    monkeypatch.delitem(sys.modules, "tqdm", raising=False)
    progress_text(monkeypatch, is_terminal, None)
    assert "tqdm" not in sys.modules
