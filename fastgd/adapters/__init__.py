"""Bridges to other libraries, one module for each, imported only when asked for.

from fastgd.adapters import torch        # needs pip install "fastgd[torch]"
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgd.adapters import autograd, jax, keras, scipy, sklearn, thinc, torch

__all__ = ["autograd", "jax", "keras", "scipy", "sklearn", "thinc", "torch"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'fastgd.adapters' has no attribute {name!r}")
        return import_module(f"fastgd.adapters.{name}")


def __dir__() -> list[str]:
    return __all__
