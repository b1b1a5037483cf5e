"""The optimizers: a class declares the hyperparameters in its signature, a rule does the work.

The rules are in fastgd/_engine/rules, one file for each family as here. Names, defaults and formulas are
PyTorch's where PyTorch has the optimizer; else optax' or those of its authors. `all_optimizers()` lists
them by name, `find` looks one up; `dump`, `prepare` and `Loaded` are what checkpoints are made with.

In the formulas theta is a parameter, g its gradient and t = 1, 2, … the number of the step. Every
hyperparameter can differ between parameter groups, and any number can be a function of the number of
steps taken (see `fastgd.schedules`). These keywords are common to all:

    maximize: ascend instead of descend.
    state_dtype: store the state in fewer bits, "bfloat16" or "8bit".
    state_dir: keep it in files in this directory.
    clip_norm: multiply all gradients by min(1, clip_norm / norm), the norm taken over all groups
        (Pascanu, Mikolov & Bengio 2013, algorithm 1).
    clip_value: then clamp every element to ±clip_value.
    nonfinite: what to do about a NaN or an infinity in a gradient: "propagate" it, "raise" a
        FloatingPointError, or "skip" the step; the last two change nothing.
"""

from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._base import named_norms as named_norms
from fastgd.optimizers._declaration import OTHER_NAMES as OTHER_NAMES
from fastgd.optimizers._fields import Number as Number
from fastgd.optimizers._fields import Options as Options
from fastgd.optimizers._groups import Members as Members
from fastgd.optimizers._groups import full_names as full_names
from fastgd.optimizers._memory import Memory as Memory
from fastgd.optimizers._memory import estimate_memory as estimate_memory
from fastgd.optimizers._registry import all_optimizers as all_optimizers
from fastgd.optimizers._registry import find as find
from fastgd.optimizers._state_dict import Loaded as Loaded
from fastgd.optimizers._state_dict import dump as dump
from fastgd.optimizers._state_dict import prepare as prepare
from fastgd.optimizers.adadelta import Adadelta, Adamax
from fastgd.optimizers.adafactor import Adafactor
from fastgd.optimizers.adagrad import Adagrad, RowWiseAdagrad
from fastgd.optimizers.adam import Adam, AdamW
from fastgd.optimizers.ademamix import Adan, AdEMAMix
from fastgd.optimizers.belief import ADOPT, AdaBelief, Yogi
from fastgd.optimizers.dog import DoG, DoWG, PolyakSGD, Prodigy
from fastgd.optimizers.ftrl import FTRL
from fastgd.optimizers.lamb import LAMB, LARS
from fastgd.optimizers.lion import Lion, SignSGD, Signum
from fastgd.optimizers.muon import Muon
from fastgd.optimizers.nadam import NAdam, NAdamW, RAdam
from fastgd.optimizers.rmsprop import RMSprop
from fastgd.optimizers.rprop import ASGD, Rprop
from fastgd.optimizers.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from fastgd.optimizers.sgd import SGD

__all__ = [
    "ADOPT",
    "ASGD",
    "FTRL",
    "LAMB",
    "LARS",
    "SGD",
    "AdEMAMix",
    "AdaBelief",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "DoG",
    "DoWG",
    "Lion",
    "Muon",
    "NAdam",
    "NAdamW",
    "Optimizer",
    "PolyakSGD",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "RowWiseAdagrad",
    "Rprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "SignSGD",
    "Signum",
    "Yogi",
]


def __dir__() -> list[str]:
    return [*__all__, "all_optimizers", "find"]
