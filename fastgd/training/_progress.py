"""The progress bar of long runs."""

from __future__ import annotations

import importlib
import math
import sys
import time
from typing import Any

PATIENCE = 2.0  # seconds that a run may last without a bar
INTERVAL = 0.2  # seconds between two updates of it


class Progress:
    """A tqdm bar on stderr, shown once the run has lasted for a while, or from the start."""

    def __init__(self, total: int | None, at_once: bool) -> None:
        self._total = total
        self._bar: Any = None
        self._next = time.monotonic() + (0.0 if at_once else PATIENCE)

    def update(self, steps: int, loss: float) -> None:
        """Show how far the run is; cheap enough for every step."""
        if time.monotonic() < self._next:
            return
        if self._bar is None:
            try:
                self._bar = _tqdm()(total=self._total, unit="step", file=sys.stderr, leave=True)
            except ImportError:
                self._next = math.inf  # nobody has asked for a bar in particular
                return
        self._show(steps, loss)
        self._next = time.monotonic() + INTERVAL

    def close(self, steps: int, loss: float) -> None:
        """Leave the bar as it stands at the end."""
        if self._bar is not None:
            self._show(steps, loss)
            self._bar.close()

    def _show(self, steps: int, loss: float) -> None:
        self._bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
        self._bar.update(steps - self._bar.n)


def make_progress(wanted: bool | None, total: int | None) -> Progress | None:
    """The bar that `progress` asks for: None, True or False; none where nobody would see it.

    Raises:
        TypeError: it is something else.
        ImportError: True, but tqdm is not installed.
    """
    if wanted is not None and not isinstance(wanted, bool):
        raise TypeError(f"progress must be True, False or None, got {wanted!r}")
    if wanted is False:
        return None
    if wanted:
        try:
            _tqdm()
        except ImportError:
            raise ImportError('progress=True needs tqdm: pip install "fastgd[progress]"') from None
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return Progress(total, at_once=bool(wanted)) if terminal else None


def _tqdm() -> Any:
    """The class, imported when a bar is made: it takes longer than most short runs."""
    return importlib.import_module("tqdm").tqdm
