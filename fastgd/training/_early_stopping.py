"""Early stopping: the best value so far, the parameters that had it, and when to give up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastgd._arguments import choice, integer, number
from fastgd._arrays.tree import Array, rebuild
from fastgd.training._snapshot import Snapshot


class EarlyStopping:
    """Ends a run of `minimize` that gets no better, and goes back to its best parameters.

    minimize(…, patience=5) makes one. Made beforehand and passed as `patience`, it remembers over
    several runs, and checkpoints take it as any object with a state: `fastgd.save(path, optimizer,
    stopping=stopping)`.

    Args:
        patience: validations in a row without a new best value after which the run ends; None for never,
            and then no parameters are kept.
        mode: whether the "min" or the "max" of the value is best.
        min_delta: by how much a value must be better than the best one to count, at least 0.

    Attributes:
        best: the best value, NaN before there is one.
        best_step: the steps that the optimizer had taken then.
        bad: values in a row that were no better.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> def value_and_grad(w):
        ...     return float(w @ w), 2 * w
        >>> stopping = fastgd.EarlyStopping(patience=3)
        >>> for lr in (0.1, 2.0):               # the second run diverges, and so goes back
        ...     result = fastgd.minimize(value_and_grad, np.ones(2) if lr == 0.1 else result.params,
        ...                              lr=lr, optimizer="sgd", steps=10, patience=stopping)
        >>> result.reason, f"{result.fun:.3f}", stopping.best_step
        ('patience', '0.023', 10)

    References:
        Goodfellow et al. 2016, algorithm 7.1.
    """

    def __init__(
        self, patience: int | None = 10, *, mode: str = "min", min_delta: float = 0.0
    ) -> None:
        self.patience = None if patience is None else integer("patience", patience, 1)
        self.mode = choice("mode", mode, ("min", "max"))
        self.min_delta = number("min_delta", min_delta)
        self.best, self.best_step, self.bad = math.nan, 0, 0
        self._last_step = -1  # of the values; a run begins where another has looked already
        self._loss: float | None = None  # what the run reports of the best parameters
        self._arrays: Sequence[Array] = ()
        self._snapshot = Snapshot()

    def __repr__(self) -> str:
        return (
            f"EarlyStopping(patience={self.patience}, mode={self.mode!r}, min_delta={self.min_delta:g}): "
            f"best {self.best:.6g} after {self.best_step} steps, then {self.bad} no better"
        )

    @property
    def found(self) -> bool:
        """Whether there are parameters to go back to."""
        return self._snapshot.copies is not None

    # --- what a run does ---

    def _begin(self, arrays: Sequence[Array]) -> None:
        """Of a run of these parameters: what is known of others of their shapes still counts.

        Raises: ValueError if the parameters that were best have other shapes.
        """
        if self._snapshot.copies is not None:
            kept = [(a.shape, a.dtype) for a in self._snapshot.copies]
            if kept != [(a.shape, a.dtype) for a in arrays]:
                raise ValueError(
                    "patience: this EarlyStopping has the best parameters of another model, of other "
                    "shapes; make a new one"
                )
        self._arrays = arrays
        if self.patience is not None and self.bad >= self.patience:
            self.bad = 0  # it ended a run, and the next is to have its chance

    def _note(
        self, value: float, step: int, loss: float | None, candidate: Sequence[Array] | None
    ) -> bool:
        """Note a value; whether too many in a row were no better than the best.

        Args:
            value: to be judged by.
            step: steps taken.
            loss: to be reported if it is the best.
            candidate: parameters that are not the live ones, such as an average, else None.
        """
        better = value - self.best if self.mode == "max" else self.best - value
        if math.isfinite(value) and (math.isnan(self.best) or better > self.min_delta):
            if self.patience is not None:
                self._snapshot.save(self._arrays if candidate is None else candidate)
            self.best, self.best_step, self.bad, self._loss = value, step, 0, loss
        elif step != self._last_step:
            self.bad += 1
        self._last_step = step
        return self.patience is not None and self.bad >= self.patience

    def _restore(self) -> None:
        """Go back to the best parameters, whatever signals come."""
        self._snapshot.restore(self._arrays)

    def _params(self, tree: Any) -> Any:
        """The best ones as copies, in the structure of `tree`."""
        copies = iter(self._snapshot.copies or ())
        return rebuild(tree, lambda _: next(copies).copy(order="K"))

    # --- checkpoints ---

    def state_dict(self) -> dict[str, Any]:
        """What continuing needs: the attributes above, and the best parameters as a list of copies."""
        copies = self._snapshot.copies
        return {
            "best": self.best,
            "best_step": self.best_step,
            "bad": self.bad,
            "last_step": self._last_step,
            "loss": self._loss,
            "params": None if copies is None else [array.copy(order="K") for array in copies],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a `state_dict()`; patience, mode and min_delta stay as they are.

        Raises:
            TypeError, ValueError: an entry is missing or not as `state_dict` gives it. Nothing has
                changed then.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a dict, not {type(state_dict).__name__}")
        missing = {"best", "best_step", "bad", "last_step", "loss", "params"} - set(state_dict)
        if missing:
            raise ValueError(f"state_dict has no {sorted(missing)[0]!r}")
        best, loss, params = (state_dict[key] for key in ("best", "loss", "params"))
        for name, value in (("best", best), ("loss", loss)):
            if not isinstance(value, (float, int)) and not (name == "loss" and value is None):
                raise TypeError(f"state_dict[{name!r}] must be a number, got {value!r}")
        copies = None if params is None else [np.array(array, order="K") for array in params]
        if copies is not None and any(array.dtype.kind != "f" for array in copies):
            raise TypeError("state_dict['params'] must be arrays of float32 or float64")
        step = integer("state_dict['best_step']", state_dict["best_step"])
        bad = integer("state_dict['bad']", state_dict["bad"])
        last = integer("state_dict['last_step']", state_dict["last_step"], -1)
        self.best, self.best_step, self.bad, self._last_step = float(best), step, bad, last
        self._loss = None if loss is None else float(loss)
        self._snapshot = Snapshot(copies)
