"""Helpers of the checkpoint tests: a run to save, and comparing all of it bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import fastgd
from tests.reference import SPECS
from tests.support import tame

DIGEST = 64  # hexadecimal digits at the end of a file


def frozen(value: Any) -> Any:
    """A value in which arrays are their dtype, shape and bytes, so that == compares bits.

    A NumPy scalar counts as the Python number of its value, as which a checkpoint returns it.
    """
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, Mapping):
        return {key: frozen(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(frozen(x) for x in value)
    value = value.item() if isinstance(value, np.generic) else value
    return float.__repr__(value) if isinstance(value, float) else value


def everything(optimizer: Any) -> Any:
    """Parameters and state_dict, to be compared with ==."""
    return frozen({"params": optimizer.params, **optimizer.state_dict()})


def parameters(
    rng: np.random.Generator, dtype: Any = np.float32, name: str = "Adam"
) -> dict[str, Any]:
    """A model with a bit of everything: nesting, both memory orders unless the optimizer of that name
    takes one only, no elements, no dimension.
    """
    order: Any = "C" if SPECS[name].row_wise else "F"
    return {
        "W": tame(rng, (5, 3), dtype),
        "F": np.array(tame(rng, (2, 4, 3), dtype), order=order),
        "layers": [tame(rng, 7, dtype), (tame(rng, (0, 2), dtype), np.array(0.5, dtype))],
    }


def gradients(optimizer: Any, rng: np.random.Generator) -> Any:
    """Of the structure of `parameters`, in their own dtype."""
    arrays = {name: tame(rng, p.shape, p.dtype) for name, p in optimizer.params.items()}
    return {
        "W": arrays["W"],
        "F": arrays["F"],
        "layers": [arrays["layers/0"], (arrays["layers/1/0"], arrays["layers/1/1"])],
    }


def trained(rng: np.random.Generator, name: str = "Adam", steps: int = 3, **kwargs: Any) -> Any:
    """An optimizer over `parameters` after some steps."""
    optimizer = getattr(fastgd, name)(parameters(rng, name=name), **kwargs)
    for _ in range(steps):
        optimizer.step(gradients(optimizer, rng))
    return optimizer


def like(optimizer: Any, **kwargs: Any) -> Any:
    """A new optimizer of the same class over other values."""
    return type(optimizer)(parameters(np.random.default_rng(99)), **kwargs)


class Box:
    """An object with a state of any kind."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def state_dict(self) -> Any:
        return self.value

    def load_state_dict(self, state: Any) -> None:
        if state == "refuse":
            raise ValueError("no such state")
        self.value = state


def signed(content: bytes) -> bytes:
    """The content with the checksum made right again, as somebody with bad intentions would."""
    body = content[:-DIGEST]
    return body + hashlib.sha256(body + b"0" * DIGEST).hexdigest().encode()


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())
