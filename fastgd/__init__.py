"""fastgd: gradient descent for NumPy at the speed of the memory bus."""

from __future__ import annotations

from fastgd import averaging, initializers, plot, schedules
from fastgd._config import num_threads, show_config
from fastgd._engine import get_num_threads, set_num_threads
from fastgd.checkpoint import Checkpoint, CheckpointError, load, save
from fastgd.clipping import clip_grad_norm_, clip_grad_value_, global_norm
from fastgd.diagnostics import Diagnosis, diagnose
from fastgd.gradient_check import GradientReport, check_gradient
from fastgd.history import History
from fastgd.lr_finder import LRSweep, find_lr
from fastgd.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop
from fastgd.sampling import MiniBatches
from fastgd.training import Result, StepInfo, minimize

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Checkpoint",
    "CheckpointError",
    "Diagnosis",
    "GradientReport",
    "History",
    "LRSweep",
    "MiniBatches",
    "RMSprop",
    "Result",
    "StepInfo",
    "__version__",
    "averaging",
    "check_gradient",
    "clip_grad_norm_",
    "clip_grad_value_",
    "diagnose",
    "find_lr",
    "get_num_threads",
    "global_norm",
    "initializers",
    "load",
    "minimize",
    "num_threads",
    "plot",
    "save",
    "schedules",
    "set_num_threads",
    "show_config",
]
