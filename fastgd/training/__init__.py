"""Training: gradient descent as one call.

`minimize` (_minimize) puts a run together: `_inputs` and `_feed` say what its arguments mean,
`_objective` calls value_and_grad, and `_loop` is the loop.
"""

from fastgd.training._loop import StepInfo
from fastgd.training._minimize import Result, minimize

__all__ = ["Result", "StepInfo", "minimize"]
