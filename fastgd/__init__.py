"""fastgd: gradient descent for NumPy at the speed of the memory bus."""

from __future__ import annotations

from fastgd._config import num_threads, show_config
from fastgd._engine import get_num_threads, set_num_threads
from fastgd.clipping import clip_grad_norm_, clip_grad_value_, global_norm
from fastgd.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "RMSprop",
    "__version__",
    "clip_grad_norm_",
    "clip_grad_value_",
    "get_num_threads",
    "global_norm",
    "num_threads",
    "set_num_threads",
    "show_config",
]
