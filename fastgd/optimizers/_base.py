"""The base class of the optimizers: the step, its options, and state_dict()."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from fastgd import _engine
from fastgd._arguments import number
from fastgd._arrays.tree import Array
from fastgd.optimizers import _state_dict
from fastgd.optimizers._fields import Values, evaluate, limit
from fastgd.optimizers._groups import GroupedParameters

NONFINITE = ("propagate", "raise", "skip")


class Optimizer(GroupedParameters):
    """What all optimizers share. Not for use by itself: see the subclasses in `optimizers`.

    Attributes:
        track_norms: sum the squares of gradients, updates and parameters in each step, for `norms`.
    """

    def __init__(
        self, params: Any, defaults: Values, *, clip_norm: Any, clip_value: Any, nonfinite: str
    ) -> None:
        self.track_norms = False
        self._set_options(clip_norm, clip_value, nonfinite)
        super().__init__(params, defaults)

    # --- the step ---

    def step(self, grads: Any, grad_scale: float = 1.0) -> bool:
        """Update the parameters in place with one set of gradients.

        Everything is validated before anything is written: after any exception parameters, state
        and step counts are as they were. Gradients are read where they lie, in any layout; they may
        be float16, float32, float64 or ml_dtypes' bfloat16, and are never written.

        Args:
            grads: the structure of the parameters (for several groups: a list with one tree for
                each; for one group its tree), each leaf an array of its parameter's shape. None
                skips a parameter, or a whole container, and leaves its state and its step count alone.
            grad_scale: multiplies every gradient before anything else, for example the inverse of a
                loss scale or of the number of accumulated batches.

        Returns:
            True if the step was taken, False if nonfinite="skip" kept it from being taken.

        Raises:
            TypeError: a gradient is not an array of a floating-point dtype.
            ValueError: structure, shape or layout differ from the parameters', a gradient overlaps
                a parameter, or a schedule returned a value out of range.
            FloatingPointError: with nonfinite="raise", a gradient has a NaN or an infinity.
        """
        if type(grad_scale) is not float or not math.isfinite(grad_scale):
            grad_scale = number("grad_scale", grad_scale, -math.inf, bounds="()")
        outcome = _engine.retired
        while outcome == _engine.retired:  # unless another thread adds a group, once
            plan = self._plan
            outcome = plan.step(
                grads,
                self._groups,
                self.coefficients,
                grad_scale,
                self._limits or self._limits_at,
                self._finite_only,
                self.track_norms,
            )
        if outcome == _engine.taken:
            return True
        if self._nonfinite == "raise":
            raise FloatingPointError(
                f"gradient {plan.names[outcome]!r} has a NaN or an infinity at step "
                f"{plan.step_count}; no parameter was changed. Look for a learning rate that is too "
                'large, a division by zero or an overflow in the loss, or pass nonfinite="skip"'
            )
        return False

    def _limits_at(self, step: int) -> tuple[float, float]:
        """clip_norm and clip_value as the engine takes them: inf for none."""
        norm, value = (
            None if given is None else evaluate(limit, name, given, step)
            for name, given in (("clip_norm", self._clip_norm), ("clip_value", self._clip_value))
        )
        return math.inf if norm is None else norm, math.inf if value is None else value

    # --- options of the optimizer as a whole ---

    @property
    def clip_norm(self) -> Any:
        """Largest global norm of the gradients, over all groups: they are multiplied by
        min(1, clip_norm / norm). A positive number, a schedule, or None for no clipping.
        """
        return self._clip_norm

    @clip_norm.setter
    def clip_norm(self, value: Any) -> None:
        self._set_options(value, self._clip_value, self._nonfinite)

    @property
    def clip_value(self) -> Any:
        """Largest magnitude of an element of a gradient, applied after clip_norm; None for none."""
        return self._clip_value

    @clip_value.setter
    def clip_value(self, value: Any) -> None:
        self._set_options(self._clip_norm, value, self._nonfinite)

    @property
    def nonfinite(self) -> str:
        """What a step does about a NaN or infinity in a gradient: "propagate", "raise" or "skip"."""
        return self._nonfinite

    @nonfinite.setter
    def nonfinite(self, value: str) -> None:
        self._set_options(self._clip_norm, self._clip_value, value)

    def _set_options(self, clip_norm: Any, clip_value: Any, nonfinite: Any) -> None:
        """Check all three, then set them and what a step derives from them."""
        options = self.check_options(clip_norm, clip_value, nonfinite)
        self._clip_norm, self._clip_value, self._nonfinite = options
        self._finite_only = nonfinite != "propagate"
        scheduled = callable(self._clip_norm) or callable(self._clip_value)
        self._limits = None if scheduled else self._limits_at(0)

    @staticmethod
    def check_options(clip_norm: Any, clip_value: Any, nonfinite: Any) -> tuple[Any, Any, str]:
        """The three in their normal form, or TypeError or ValueError naming one."""
        if not isinstance(nonfinite, str) or nonfinite not in NONFINITE:
            raise ValueError(f'nonfinite must be "propagate", "raise" or "skip", got {nonfinite!r}')
        return limit("clip_norm", clip_norm), limit("clip_value", clip_value), nonfinite

    @property
    def options(self) -> dict[str, Any]:
        """clip_norm, clip_value and nonfinite by name."""
        return {
            "clip_norm": self._clip_norm,
            "clip_value": self._clip_value,
            "nonfinite": self._nonfinite,
        }

    # --- what can be looked at ---

    @property
    def step_count(self) -> int:
        """Steps taken; schedules are functions of it. Skipped and refused steps do not count."""
        return self._plan.step_count

    @property
    def grad_norm(self) -> float | None:
        """The global norm of the gradients of the last step taken, times grad_scale, before clipping.

        None where it was not computed (it is with clip_norm and with nonfinite="raise" or "skip"), and
        after rebind() or another change of the arrays. Steps skipped or refused leave it as it is.
        """
        return self._plan.grad_norm

    def norms(self) -> dict[str, Array]:
        """Norms of every parameter's gradient, update and value in the last step taken.

        With `track_norms = True` a step sums them block by block while it updates, in the same pass
        over memory. The gradient is the caller's, before grad_scale and clipping. A norm whose square
        is beyond a double's range is inf.

        Returns:
            {"grad": …, "update": …, "param": …, "grad_dot_update": …}, each a float64 array with an
            element for each of `params` in order: three Euclidean norms, and the inner product
            of gradient and update (the loss changes by it, to first order).

        Raises:
            RuntimeError: the last step was taken without track_norms, or none was since the optimizer
                was made, rebound or given other arrays.
        """
        squares = self._plan.sums()
        if squares is None:
            raise RuntimeError("norms() needs a step taken with track_norms = True")
        return {
            "grad": np.sqrt(squares[0]),
            "update": np.sqrt(squares[1]),
            "param": np.sqrt(squares[2]),
            "grad_dot_update": squares[3],
        }

    def __repr__(self) -> str:
        groups = ", ".join(
            f"{{{len(members.names)} arrays, "
            + ", ".join(f"{key}={value!r}" for key, value in group.items() if key != "params")
            + "}"
            for group, members in zip(self._groups, self._members, strict=True)
        )
        return f"{type(self).__name__}(step_count={self.step_count}, groups=[{groups}])"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"an {type(self).__name__} updates arrays in place and cannot be pickled or copied; "
            "make a new one over the new arrays and load_state_dict() into it"
        )

    # --- state_dict ---

    def state_dict(self) -> dict[str, Any]:
        """Everything that continuing needs besides the parameters, as copies.

        Returns:
            {"optimizer": class name, "step_count": int,
            "state": {parameter name: {"step": int, slot name: array, …}},
            "param_groups": [{"params": [parameter names], hyperparameters …}],
            "options": {"clip_norm": …, "clip_value": …, "nonfinite": …}}. Schedules are in it as
            the functions that they are.
        """
        with self._gate:
            return _state_dict.dump(self, copied=True)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> list[str]:
        """Continue from what `state_dict` returned, for parameters of the same names.

        Args:
            state_dict: a dict as `state_dict` describes it. Its arrays are copied.
            strict: require the same groups and exactly the same parameter names. Otherwise only
                the state of names that both know is loaded, with their own step counts, and
                `step_count`, on which schedules depend; hyperparameters, options and the state of
                other names stay as they are.

        Returns:
            The names that only one of the two has; always empty when strict.

        Raises:
            TypeError, ValueError: something is missing, or an array differs in shape or dtype from
                the state that it replaces. Nothing has changed then.
        """
        with self._gate:
            return _state_dict.load(self, state_dict, strict)
