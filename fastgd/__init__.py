"""fastgd: gradient descent for NumPy at the speed of the memory bus."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastgd._arguments import suggestion
from fastgd._arrays.gradients import Factors, Rows, Sum
from fastgd._config import num_threads, set_num_threads, set_resident_bytes, show_config
from fastgd._engine import get_num_threads
from fastgd.clipping import clip_grad_norm_, clip_grad_value_, global_norm
from fastgd.optimizers import *  # noqa: F403  their names stand there once
from fastgd.optimizers import __all__ as _optimizers
from fastgd.optimizers import estimate_memory
from fastgd.placement import empty_like, place, zeros

if TYPE_CHECKING:
    from fastgd import adapters, averaging, distributed, initializers, optimizers, plot, schedules
    from fastgd.checkpoint import Checkpoint, CheckpointError, load, save
    from fastgd.diagnostics import Diagnosis, diagnose
    from fastgd.history import History
    from fastgd.sampling import MiniBatches
    from fastgd.training import (
        EarlyStopping,
        GradientReport,
        LRSweep,
        Result,
        StepInfo,
        check_gradient,
        find_lr,
        minimize,
    )

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Diagnosis",
    "EarlyStopping",
    "Factors",
    "GradientReport",
    "History",
    "LRSweep",
    "MiniBatches",
    "Result",
    "Rows",
    "StepInfo",
    "Sum",
    "__version__",
    "adapters",
    "averaging",
    "check_gradient",
    "clip_grad_norm_",
    "clip_grad_value_",
    "diagnose",
    "distributed",
    "empty_like",
    "estimate_memory",
    "find_lr",
    "get_num_threads",
    "global_norm",
    "initializers",
    "load",
    "minimize",
    "num_threads",
    "optimizers",
    "place",
    "plot",
    "save",
    "schedules",
    "set_num_threads",
    "set_resident_bytes",
    "show_config",
    "zeros",
]
__all__ += _optimizers

# Imported at first use, so that who wants an optimizer only does not wait for the rest. The module
# of each name; a module's own name stands for the module.
_MODULES = {
    "Checkpoint": "checkpoint",
    "CheckpointError": "checkpoint",
    "Diagnosis": "diagnostics",
    "EarlyStopping": "training",
    "GradientReport": "training",
    "History": "history",
    "LRSweep": "training",
    "MiniBatches": "sampling",
    "Result": "training",
    "StepInfo": "training",
    "adapters": "adapters",
    "averaging": "averaging",
    "check_gradient": "training",
    "diagnose": "diagnostics",
    "distributed": "distributed",
    "find_lr": "training",
    "initializers": "initializers",
    "load": "checkpoint",
    "minimize": "training",
    "plot": "plot",
    "save": "checkpoint",
    "schedules": "schedules",
}


if not TYPE_CHECKING:  # or every name would be one to a type checker

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            hint = suggestion(name, __all__)
            raise AttributeError(f"module 'fastgd' has no attribute {name!r}{hint}")
        module = import_module(f"fastgd.{_MODULES[name]}")
        value = module if name == _MODULES[name] else getattr(module, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
