"""The one schedule with a state: it follows a metric instead of the step count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, SupportsFloat, SupportsIndex

from fastgd._arguments import as_float, choice, integer, number, refuse_late


class ReduceOnPlateau:
    """Reduce the value when a metric has stopped improving (PyTorch's ReduceLROnPlateau).

    Use it in place of a number like any schedule, and call `update(metric)` after each evaluation,
    usually once per epoch. When more than `patience` successive updates bring no better metric, the
    value becomes

        max(value * factor, min_lr)

    provided this is a fall of more than eps. A metric is better than the best so far when it is

        metric < best * (1 - threshold)    mode "min", threshold_mode "rel"
        metric < best - threshold          mode "min", threshold_mode "abs"
        metric > best * (1 + threshold)    mode "max", threshold_mode "rel"
        metric > best + threshold          mode "max", threshold_mode "abs"

    Unlike the other schedules, resuming needs `state_dict()`, two groups that share one change
    together, and it is compared by identity.

    Args:
        lr: Value at the start, finite, >= 0.
        mode: "min" for a metric such as a loss, "max" for one such as an accuracy.
        factor: Factor of a reduction, in (0, 1).
        patience: Updates without a better metric that are tolerated, >= 0.
        threshold: How much better counts as better, finite, >= 0; less than 1 if "rel".
        threshold_mode: "rel" or "abs".
        cooldown: Updates after a reduction that do not count as bad ones, >= 0.
        min_lr: Least value, in [0, lr].
        eps: Least reduction, finite, >= 0. A smaller one is not made.

    Attributes:
        lr: The value now.
        best: The best metric so far; inf or -inf before the first.
        num_bad_epochs: Updates since then, or since the last reduction, without a better one.
        cooldown_counter: Updates of cooldown that are left.
        last_epoch: Number of updates.

    Raises:
        TypeError, ValueError: an argument is not as described; names it.

    Warning:
        As in PyTorch, a NaN metric is not better, so that many in a row reduce the value; and "rel"
        is a share of the best metric, whatever its sign: where metrics may be negative, a slightly
        worse one would pass as better, so use "abs".

    Example:
        >>> from fastgd.schedules import ReduceOnPlateau
        >>> lr = ReduceOnPlateau(0.5, factor=0.5, patience=1)
        >>> [lr.update(loss) for loss in (3.0, 2.0, 2.5, 2.1, 1.9)]
        [False, False, False, True, False]
        >>> lr(step=100)
        0.25
        >>> resumed = ReduceOnPlateau(0.5, factor=0.5, patience=1)
        >>> resumed.load_state_dict(lr.state_dict())
        >>> resumed.lr, resumed.best
        (0.25, 1.9)

    References:
        PyTorch's documentation of torch.optim.lr_scheduler.ReduceLROnPlateau.
    """

    def __init__(
        self,
        lr: SupportsFloat,
        *,
        mode: Literal["min", "max"] = "min",
        factor: SupportsFloat = 0.1,
        patience: SupportsIndex = 10,
        threshold: SupportsFloat = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: SupportsIndex = 0,
        min_lr: SupportsFloat = 0.0,
        eps: SupportsFloat = 1e-8,
    ) -> None:
        self.lr = self._initial_lr = number("lr", lr)
        self._mode = choice("mode", mode, ("min", "max"))
        self._factor = number("factor", factor, 0.0, 1.0, "()")
        self._patience = integer("patience", patience)
        self._threshold_mode = choice("threshold_mode", threshold_mode, ("rel", "abs"))
        self._threshold = number(
            "threshold", threshold, 0.0, 1.0 if threshold_mode == "rel" else math.inf
        )
        self._cooldown = integer("cooldown", cooldown)
        self._min_lr = number("min_lr", min_lr, 0.0, self.lr, "[]")
        self._eps = number("eps", eps)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.last_epoch = 0

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("lr", "best", "num_bad_epochs", "cooldown_counter", "last_epoch"):
            refuse_late(self, name, value)
        super().__setattr__(name, value)

    def __call__(self, step: SupportsIndex) -> float:
        """The value now, whatever the step."""
        integer("step", step)
        return self.lr

    def update(self, metric: SupportsFloat) -> bool:
        """Take note of a metric; True if the value was reduced.

        Raises:
            TypeError: `metric` is not a number; nothing has changed.
        """
        value = as_float("metric must be a number", metric)
        self.last_epoch += 1
        if self._is_better(value):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs <= self._patience:
            return False
        self.num_bad_epochs = 0
        self.cooldown_counter = self._cooldown  # even if the reduction below is too small to make
        return self._reduce()

    def _is_better(self, metric: float) -> bool:
        sign = 1.0 if self._mode == "max" else -1.0
        if self._threshold_mode == "rel":
            bar = self.best * (1.0 + sign * self._threshold)
        else:
            bar = self.best + sign * self._threshold
        return metric > bar if self._mode == "max" else metric < bar

    def _reduce(self) -> bool:
        reduced = max(self.lr * self._factor, self._min_lr)
        if self.lr - reduced <= self._eps:
            return False
        self.lr = reduced
        return True

    def state_dict(self) -> dict[str, float]:
        """The attributes above, all numbers, for `load_state_dict`. Options are not in it."""
        return {
            "lr": self.lr,
            "best": self.best,
            "num_bad_epochs": self.num_bad_epochs,
            "cooldown_counter": self.cooldown_counter,
            "last_epoch": self.last_epoch,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a `state_dict()`.

        Raises:
            TypeError, ValueError: an entry is missing, unknown or wrong; nothing has changed.
        """
        try:
            state = dict(state_dict)
        except (TypeError, ValueError):
            raise TypeError(
                f"state_dict must be a mapping, got {type(state_dict).__name__}: {state_dict!r}"
            ) from None
        if set(state) != set(self.state_dict()):
            raise ValueError(
                f"state_dict must have the keys {', '.join(self.state_dict())}; "
                f"got {', '.join(map(str, state)) or 'none'}"
            )
        best = as_float("state_dict['best'] must be a number", state["best"])
        if math.isnan(best):
            raise ValueError(f"state_dict['best'] must not be NaN, got {state['best']!r}")
        lr = number("state_dict['lr']", state["lr"])
        counts = {
            key: integer(f"state_dict[{key!r}]", state[key])
            for key in ("num_bad_epochs", "cooldown_counter", "last_epoch")
        }
        self.lr, self.best = lr, best
        self.num_bad_epochs = counts["num_bad_epochs"]
        self.cooldown_counter = counts["cooldown_counter"]
        self.last_epoch = counts["last_epoch"]

    def __repr__(self) -> str:
        return (
            f"ReduceOnPlateau({self._initial_lr!r}, mode={self._mode!r}, factor={self._factor!r}, "
            f"patience={self._patience!r}, threshold={self._threshold!r}, "
            f"threshold_mode={self._threshold_mode!r}, cooldown={self._cooldown!r}, "
            f"min_lr={self._min_lr!r}, eps={self._eps!r})"
        )
