"""The optimizers: a class declares the hyperparameters in its signature, a rule does the work.

The rules are in fastgd/_engine/rules, one file for each family as here. Names, defaults and formulas are
PyTorch's where PyTorch has the optimizer.

In the formulas theta is a parameter, g its gradient and t = 1, 2, … the number of the step. Every
hyperparameter can differ between parameter groups, and any number can be a function of the number of
steps taken (see `fastgd.schedules`). These keywords are common to all:

    maximize: ascend instead of descend.
    clip_norm: multiply all gradients by min(1, clip_norm / norm), the norm taken over all groups
        (Pascanu, Mikolov & Bengio 2013, algorithm 1).
    clip_value: then clamp every element to ±clip_value.
    nonfinite: what to do about a NaN or an infinity in a gradient: "propagate" it, "raise" a
        FloatingPointError, or "skip" the step; the last two change nothing.
"""

from fastgd.optimizers.adagrad import Adagrad
from fastgd.optimizers.adam import Adam, AdamW
from fastgd.optimizers.rmsprop import RMSprop
from fastgd.optimizers.sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "RMSprop"]
