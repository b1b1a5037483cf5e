"""Training: gradient descent as one call.

`minimize` (_minimize) puts a run together: `_inputs` and `_feed` say what its arguments mean,
`_objective` calls value_and_grad, `_loop` is the loop with its `_observers` and `_early_stopping`, and
`_result` is what comes of it. Beside it stand the learning-rate finder
(_lr_finder) and the check of gradients (_gradient_check).
"""

from fastgd.training._early_stopping import EarlyStopping
from fastgd.training._gradient_check import GradientReport, LeafError, check_gradient
from fastgd.training._loop import StepInfo
from fastgd.training._lr_finder import LRSweep, find_lr
from fastgd.training._minimize import minimize
from fastgd.training._result import Result

__all__ = [
    "EarlyStopping",
    "GradientReport",
    "LRSweep",
    "LeafError",
    "Result",
    "StepInfo",
    "check_gradient",
    "find_lr",
    "minimize",
]
