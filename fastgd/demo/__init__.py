"""The demo, `python -m fastgd demo`: every variant of gradient descent on handwritten digits.

    network   a multi-layer perceptron and its gradients, in plain NumPy
    data      scikit-learn's digits, or IDX files read by `idx`
    runs      which runs there are, and the training loop that times them
    table     what the runs came to, as text
    picture   the figure of --plot

`fastgd.__main__` puts them together.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["DemoError", "optional"]


class DemoError(Exception):
    """Something that the user can put right; its message is one line that says how."""


def optional(module: str, extra: str = "demo") -> Any:
    """Import a module that only an extra brings.

    Raises:
        DemoError: it is not installed; names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        reason = (str(error).splitlines() or ["ImportError"])[0]
        raise DemoError(
            f'cannot import {module} ({reason}); pip install "fastgd[{extra}]"'
        ) from error
