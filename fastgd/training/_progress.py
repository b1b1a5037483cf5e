"""What a long run shows of itself: a bar where people look on, lines in a log."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Status: TypeAlias = Callable[[], Mapping[str, str]]  # what to show, by name

PATIENCE = 2.0  # seconds that a run may last without a bar
INTERVAL = 0.2  # seconds between two updates of it
LINES = 5.0  # seconds between two lines


class Progress:
    """How far a run is, shown from time to time; cheap enough for every step.

    A subclass says how.
    """

    interval = INTERVAL

    def __init__(self, total: int | None, wait: float) -> None:
        self._total = total
        self._next = time.monotonic() + wait

    def update(self, steps: int, status: Status) -> None:
        """Show it if it is time to."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.interval
            self._show(steps, status())

    def close(self, steps: int, status: Status) -> None:
        """Leave it as it stands at the end."""
        raise NotImplementedError

    def _show(self, steps: int, status: Mapping[str, str]) -> None:
        raise NotImplementedError


class Bar(Progress):
    """A tqdm bar: on a terminal's stderr, or a notebook's widget."""

    def __init__(self, total: int | None, wait: float, module: str) -> None:
        super().__init__(total, wait)
        self._module = module
        self._bar: Any = None

    def close(self, steps: int, status: Status) -> None:
        if self._bar is not None:
            self._show(steps, status())
            self._bar.close()

    def _show(self, steps: int, status: Mapping[str, str]) -> None:
        if self._bar is None:
            kind = importlib.import_module(self._module).tqdm  # slower than most runs are long
            self._bar = kind(total=self._total, unit="step", file=sys.stderr, leave=True)
        self._bar.set_postfix_str(_listed(status), refresh=False)
        self._bar.update(steps - self._bar.n)


class Lines(Progress):
    """A line on stderr every few seconds, and one at the end: for pipes and log files."""

    interval = LINES

    def close(self, steps: int, status: Status) -> None:
        self._show(steps, status())

    def _show(self, steps: int, status: Mapping[str, str]) -> None:
        of = "" if self._total is None else f"/{self._total} ({steps / self._total:.0%})"
        if sys.stderr is not None:
            print(f"step {steps}{of}, {_listed(status)}", file=sys.stderr, flush=True)


def _listed(status: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in status.items())


def make_progress(wanted: bool | None, total: int | None) -> Progress | None:
    """What `progress` asks for: True or False, or None for a bar where somebody sees it.

    Raises:
        TypeError: it is something else.
    """
    if wanted is not None and not isinstance(wanted, bool):
        raise TypeError(f"progress must be True, False or None, got {wanted!r}")
    if wanted is False:
        return None
    module = None
    if _installed("tqdm"):
        if sys.stderr is not None and sys.stderr.isatty():
            module = "tqdm"
        elif _in_notebook():
            module = "tqdm.auto"
    if module is not None:
        return Bar(total, 0.0 if wanted else PATIENCE, module)
    return Lines(total, LINES) if wanted else None


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # it is hidden: sys.modules has None
        return False


def _in_notebook() -> bool:
    """Whether this is a kernel of Jupyter, whose stderr is shown to somebody."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"
