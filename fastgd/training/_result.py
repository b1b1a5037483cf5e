"""What `minimize` returns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastgd.history import History

if TYPE_CHECKING:
    from fastgd.diagnostics import Diagnosis

MESSAGES = {
    "tol": "The norm of the gradient is at most tol.",
    "steps": "All steps were taken.",
    "epochs": "All epochs were gone through.",
    "patience": "Nothing better was found for as long as patience allows.",
    "callback": "The callback ended the run.",
    "exhausted": "The data ended.",
    "interrupted": "The run was interrupted.",
}


@dataclass(eq=False)
class Result:
    """What `minimize` reached.

    Attributes:
        params: the parameters, of the structure that value_and_grad was given: in place the very
            arrays passed in. With `average` new arrays, the average; those passed in hold what the
            last step left.
        loss: without data, or with all of it in every step, the loss at `params` (after an
            interruption the last one known). On mini-batches the mean over as many of the last
            steps as an epoch has, at most 1,000; over the last 100 if the data are an iterable
            without a length. Only finite losses count; NaN if there is none.
        nit: steps taken.
        nfev: calls of value_and_grad, those for probes and validation included.
        converged: whether the gradient's norm came down to `tol`.
        success: `converged`, or, without `tol`, whether the run came to its end: by steps, epochs,
            patience, the callback, or the end of the data.
        reason: "tol", "steps", "epochs", "patience", "callback", "exhausted" (an iterator of
            batches ended), "interrupted", or a sentence that begins with "nonfinite".
        best_step, best_loss: where the monitored value was best, and the value: the validation's loss or
            a metric, without them the loss where it has no noise. The steps are counted by the
            optimizer. None and NaN where nothing was monitored.
        history: what was recorded of the steps.

    SciPy's names are there too: `x` is params, `fun` is loss, `message` says the reason in a sentence.
    """

    params: Any
    loss: float
    nit: int
    nfev: int
    converged: bool
    success: bool
    reason: str
    best_step: int | None
    best_loss: float
    history: History

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """What went wrong, if anything: `fastgd.diagnose(result)`, made when first looked at."""
        from fastgd.diagnostics import diagnose

        return diagnose(self)

    @property
    def x(self) -> Any:
        """`params`."""
        return self.params

    @property
    def fun(self) -> float:
        """`loss`."""
        return self.loss

    @property
    def message(self) -> str:
        """Why it ended, as a sentence."""
        return MESSAGES.get(self.reason, self.reason)

    def __repr__(self) -> str:
        return (
            f"Result(loss={self.loss:.6g}, nit={self.nit}, nfev={self.nfev}, "
            f"success={self.success}, converged={self.converged}, reason={self.reason!r})"
        )
