"""The base class of the optimizers: parameter groups, step() and state_dict()."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np

from fastgd import _engine, _tree
from fastgd._engine._arena import allocate
from fastgd._hyperparameters import Check, ParamGroup, Values, evaluate, limit, real
from fastgd._tree import Array, Spec

Slots = tuple[Array | None, ...]  # one-dimensional, in the memory order of the parameter
NONFINITE = ("propagate", "raise", "skip")


class _Members:
    """The arrays of one group: names, state and gradient structure. Never changed in place."""

    def __init__(self, named: Sequence[tuple[str, Array]], spec: Spec, slots: list[Slots]) -> None:
        self.names = [name for name, _ in named]
        self.params = [array for _, array in named]
        self.spec = spec
        self.slots = slots


class Optimizer:
    """What all optimizers share. Not for use by itself: see the subclasses in `optimizers`.

    A subclass states its hyperparameters with their checks, its rule in the engine, the rule's state
    slots in order, which of them a group uses, and the coefficients of one step.
    """

    rule: ClassVar[str]
    slots: ClassVar[tuple[str, ...]]
    checks: ClassVar[Mapping[str, Check]]

    def __init__(
        self, params: Any, defaults: Values, *, clip_norm: Any, clip_value: Any, nonfinite: str
    ) -> None:
        self._gate = _engine.Gate()
        self._defaults = self._checked(defaults)
        self._set_options(clip_norm, clip_value, nonfinite)
        self._groups: list[ParamGroup] = []
        self._members: list[_Members] = []
        self._plan: Any = None
        self.track_norms = False
        if _tree.is_groups(params):
            self._extend([(f"{i}", group) for i, group in enumerate(params)])
        else:
            self._extend([("", {"params": params})])

    # --- what a subclass provides ---

    @classmethod
    def uses(cls, values: Values) -> tuple[bool, ...]:
        """Which of the slots a group with these hyperparameters needs."""
        return (True,) * len(cls.slots)

    @classmethod
    def check_together(cls, values: Values) -> None:
        """Refuse hyperparameters that are each valid but not together."""

    @classmethod
    def initial(cls, values: Values) -> float:
        """What the state is filled with at first."""
        return 0.0

    def coefficients(self, values: Values, t: int) -> tuple[float, ...]:
        """L2 weight decay and the rule's coefficients of an array's t-th step, in double precision."""
        raise NotImplementedError

    # --- the step ---

    def step(self, grads: Any, grad_scale: float = 1.0) -> bool:
        """Update the parameters in place with one set of gradients.

        Everything is validated before anything is written: after any exception parameters, state
        and step counts are as they were. Gradients are read where they lie, in any layout; they may
        be float16, float32, float64 or ml_dtypes' bfloat16, and are never written.

        Args:
            grads: the structure of the parameters (for a list of groups: a list with one tree for
                each group), each leaf an array of its parameter's shape. None skips a parameter,
                or a whole container, and leaves its state and its step count alone.
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
        scale = 1.0 if grad_scale == 1 else _number("grad_scale", grad_scale)
        outcome = _engine.retired
        while outcome == _engine.retired:  # unless another thread adds a group, once
            plan = self._plan
            clip_norm, clip_value = self._limits or self._limits_at(plan.step_count)
            outcome = plan.step(
                grads,
                self._groups,
                self.coefficients,
                scale,
                clip_norm,
                clip_value,
                self._nonfinite != "propagate",
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
        options = _checked_options(clip_norm, clip_value, nonfinite)
        self._clip_norm, self._clip_value, self._nonfinite = options
        scheduled = callable(self._clip_norm) or callable(self._clip_value)
        self._limits = None if scheduled else self._limits_at(0)

    # --- what can be looked at ---

    @property
    def step_count(self) -> int:
        """Steps taken; schedules are functions of it. Skipped and refused steps do not count."""
        return self._plan.step_count

    @property
    def grad_norm(self) -> float | None:
        """The global norm of the last step's gradients, times grad_scale, before clipping.

        None where it was not computed: it is with clip_norm and with nonfinite="raise" or "skip".
        """
        return self._plan.grad_norm

    def norms(self) -> dict[str, Array]:
        """Norms of every parameter's gradient, update and value in the last step.

        With `track_norms = True` a step sums them block by block while it updates, in the same pass
        over memory. The gradient is the caller's, before grad_scale and clipping.

        Returns:
            {"grad": …, "update": …, "param": …, "grad_dot_update": …}, each a float64 array with an
            element for each of `params` in order: three Euclidean norms, and the inner product
            of gradient and update (the loss changes by it, to first order).

        Raises:
            RuntimeError: no step has been taken with track_norms on.
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

    @property
    def param_groups(self) -> list[ParamGroup]:
        """The parameter groups; assigning `param_groups[i]["lr"]` takes effect at the next step."""
        return list(self._groups)

    @property
    def params(self) -> dict[str, Array]:
        """The parameters by name."""
        return dict(zip(self._plan.names, self._plan.params, strict=True))

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        """The state by parameter name: "step" and the live arrays of the slots in use."""
        with self._gate:
            return self._state()

    def _state(self) -> dict[str, dict[str, Any]]:
        result: dict[str, dict[str, Any]] = {}
        steps = iter(self._plan.steps.tolist())
        for members in self._members:
            for name, param, slots in zip(members.names, members.params, members.slots, strict=True):
                arrays = {
                    slot: _shaped_like(param, flat)
                    for slot, flat in zip(self.slots, slots, strict=True)
                    if flat is not None
                }
                result[name] = {"step": next(steps), **arrays}
        return result

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

    # --- groups ---

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with hyperparameters of their own.

        Args:
            group: a dict with "params" (a tree) and any hyperparameters that differ from the
                constructor's. From now on `step` takes a list with one tree for each group.

        Raises:
            TypeError, ValueError: as in the constructor. Nothing has changed then.
        """
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError('a parameter group must be a dict with the key "params"')
        with self._gate:
            self._extend([(f"{len(self._groups)}", group)])

    def rebind(self, params: Any) -> None:
        """Continue with other arrays of the same structure, shapes and dtypes, keeping the state.

        For hosts that hand over fresh arrays at every step. `params` has the structure given to the
        constructor; after add_param_group it is a list with one tree for each group.

        Raises:
            TypeError, ValueError: an array differs from the one it replaces or cannot be updated
                in place. The old arrays stay bound then.
        """
        with self._gate:
            trees = [params] if len(self._groups) == 1 and not _tree.is_groups(params) else params
            if not isinstance(trees, (list, tuple)) or len(trees) != len(self._groups):
                raise ValueError(f"rebind: expected a list of {len(self._groups)} trees, one for each group")
            fresh = []
            for old, tree in zip(self._members, trees, strict=True):
                leaves, spec = _tree.flatten(tree["params"] if _tree.is_groups(trees) else tree)
                if spec != old.spec:
                    raise ValueError(
                        f"rebind: the structure differs from that of the parameters {old.names}"
                    )
                named = [(name, array) for name, (_, array) in zip(old.names, leaves, strict=True)]
                for (name, array), before in zip(named, old.params, strict=True):
                    _tree.check_parameter(name, array)
                    if (array.shape, array.dtype) != (before.shape, before.dtype):
                        raise ValueError(
                            f"rebind: parameter {name!r} has shape {array.shape} and dtype {array.dtype}, "
                            f"expected {before.shape} and {before.dtype}"
                        )
                    if array.flags.c_contiguous != before.flags.c_contiguous:
                        raise ValueError(
                            f"rebind: parameter {name!r} is laid out in the other order (C or Fortran) "
                            "than the array that it replaces; pass a copy with order='K' of that one"
                        )
                fresh.append(_Members(named, spec, old.slots))
            self._commit(self._groups, fresh, self._plan.steps.tolist(), self._plan.step_count)

    def _extend(self, additions: list[tuple[str, Mapping[str, Any]]]) -> None:
        """Validate and add groups, each with the prefix of its names; all of them or none."""
        groups, members = list(self._groups), list(self._members)
        steps, count = (self._plan.steps.tolist(), self._plan.step_count) if groups else ([], 0)
        for prefix, group in additions:
            overrides = {key: value for key, value in group.items() if key != "params"}
            values = self._checked({**self._defaults, **overrides})
            named, spec = _tree.flatten(group["params"], prefix)
            for name, array in named:
                _tree.check_parameter(name, array)
            arrays = [array for _, array in named]
            slots = self._allocate(arrays, values, [(None,) * len(self.slots)] * len(arrays))
            members.append(_Members(named, spec, slots))
            groups.append(ParamGroup(arrays, values, self.checks, self._change))
            steps += [0] * len(arrays)
        if not any(part.params for part in members):
            raise ValueError("an optimizer needs at least one parameter array, got none")
        self._commit(groups, members, steps, count)

    def _commit(
        self, groups: list[ParamGroup], members: list[_Members], steps: list[int], step_count: int
    ) -> None:
        """Build the plan of new groups and members, then swap all three in."""
        named = [pair for part in members for pair in zip(part.names, part.params, strict=True)]
        names = [name for name, _ in named]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"two parameters have the same name: {twice}; rename the keys")
        _tree.check_disjoint(named)
        plan = _engine.Plan(
            [array for _, array in named],
            names,
            [i for i, part in enumerate(members) for _ in part.names],
            tuple(part.spec for part in members),
            self._gate,
            self.rule,
            [slots for part in members for slots in part.slots],
            steps,
            step_count,
        )
        for group, part in zip(groups, members, strict=True):
            group._params = part.params
        if self._plan is not None:
            self._plan.retired = True
        self._groups, self._members, self._plan = groups, members, plan

    def _change(self, group: ParamGroup, values: Values) -> None:
        """A hyperparameter was assigned: check, and adapt the slots if the group now needs others."""
        values = self._checked(values)
        with self._gate:
            if self.uses(values) != self.uses(group.constants):
                members = list(self._members)
                i = next(i for i, other in enumerate(self._groups) if other is group)
                old = members[i]
                slots = self._allocate(old.params, values, old.slots)
                named = list(zip(old.names, old.params, strict=True))
                members[i] = _Members(named, old.spec, slots)
                self._commit(self._groups, members, self._plan.steps.tolist(), self._plan.step_count)
            group.store(values)

    def _allocate(self, params: list[Array], values: Values, present: list[Slots]) -> list[Slots]:
        """The slots that `values` needs: those present are kept, the others are made."""
        columns: list[Sequence[Array | None]] = []
        for i, used in enumerate(self.uses(values)):
            column = [slots[i] for slots in present]
            if used and not all(flat is not None for flat in column):
                fresh = allocate(params, i)
                if self.initial(values) != 0:
                    for flat in fresh:
                        flat[...] = self.initial(values)
                columns.append(fresh)
            else:
                columns.append(column if used else [None] * len(params))
        return [tuple(column[j] for column in columns) for j in range(len(params))]

    def _checked(self, values: Mapping[str, Any]) -> Values:
        """The hyperparameters in their normal form, or TypeError or ValueError naming one."""
        for name in values:
            if name not in self.checks:
                raise ValueError(
                    f"{type(self).__name__} has no hyperparameter {name!r}; it has {', '.join(self.checks)}"
                )
        checked = {name: self.checks[name](name, value) for name, value in values.items()}
        self.check_together(checked)
        return checked

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
            return {
                "optimizer": type(self).__name__,
                "step_count": self._plan.step_count,
                "state": {
                    name: {key: _copied(value) for key, value in entry.items()}
                    for name, entry in self._state().items()
                },
                "param_groups": [
                    {"params": list(members.names), **group.constants}
                    for group, members in zip(self._groups, self._members, strict=True)
                ],
                "options": self._options(),
            }

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> list[str]:
        """Continue from what `state_dict` returned, for parameters of the same names.

        Args:
            state_dict: a dict as `state_dict` describes it. Its arrays are copied.
            strict: require the same groups and exactly the same parameter names. Otherwise only
                the state of names that both know is loaded, and hyperparameters stay as they are.

        Returns:
            The names that only one of the two has; always empty when strict.

        Raises:
            TypeError, ValueError: something is missing, or an array differs in shape or dtype from
                the state that it replaces. Nothing has changed then.
        """
        with self._gate:
            return self._load(state_dict, strict)

    def _load(self, saved: Mapping[str, Any], strict: bool) -> list[str]:
        if not isinstance(saved, Mapping):
            raise TypeError(f"load_state_dict: expected a dict, got {type(saved).__name__}")
        missing = {"optimizer", "step_count", "state", "param_groups", "options"} - set(saved)
        if missing:
            raise ValueError(f"load_state_dict: the dict lacks {sorted(missing)}")
        if saved["optimizer"] != type(self).__name__:
            raise ValueError(
                f"load_state_dict: the state is of {saved['optimizer']!r}, this is {type(self).__name__}"
            )
        count = _count("step_count", saved["step_count"])
        if not isinstance(saved["state"], Mapping):
            raise TypeError("load_state_dict: 'state' must be a dict of parameter names")
        differing = sorted(set(self._plan.names) ^ set(saved["state"]))
        if strict and differing:
            raise ValueError(f"load_state_dict: these parameters are only on one side: {differing}")
        values = [self._saved_values(i, saved) if strict else group.constants
                  for i, group in enumerate(self._groups)]
        options = {**self._options(), **(saved["options"] if strict else {})}
        _checked_options(**options)

        members, steps, copies = [], [], []
        old_steps = iter(self._plan.steps.tolist())
        for old, chosen in zip(self._members, values, strict=True):
            slots = self._allocate(old.params, chosen, old.slots)
            for name, param, flats in zip(old.names, old.params, slots, strict=True):
                step = next(old_steps)
                if name in saved["state"]:
                    entry = saved["state"][name]
                    step = _count(f"step of {name!r}", entry.get("step"))
                    for slot, flat in zip(self.slots, flats, strict=True):
                        if flat is not None:
                            copies.append((_shaped_like(param, flat), _saved_array(name, slot, entry, param)))
                steps.append(step)
            members.append(_Members(list(zip(old.names, old.params, strict=True)), old.spec, slots))

        self._commit(self._groups, members, steps, count)
        for target, source in copies:
            target[...] = source
        for group, chosen in zip(self._groups, values, strict=True):
            group.store(chosen)
        self._set_options(**options)
        return differing

    def _options(self) -> dict[str, Any]:
        return {
            "clip_norm": self._clip_norm,
            "clip_value": self._clip_value,
            "nonfinite": self._nonfinite,
        }

    def _saved_values(self, i: int, saved: Mapping[str, Any]) -> Values:
        """The hyperparameters of group i in a state dict, checked."""
        groups = saved["param_groups"]
        if not isinstance(groups, (list, tuple)) or len(groups) != len(self._groups):
            raise ValueError(
                f"load_state_dict: expected {len(self._groups)} parameter groups, got "
                f"{len(groups) if isinstance(groups, (list, tuple)) else type(groups).__name__}"
            )
        group = groups[i]
        if not isinstance(group, Mapping) or list(group.get("params", ())) != self._members[i].names:
            raise ValueError(f"load_state_dict: the parameters of group {i} differ: expected {self._members[i].names}")
        current = self._groups[i].constants
        values = {key: value for key, value in group.items() if key != "params"}
        if set(values) != set(current):
            raise ValueError(
                f"load_state_dict: group {i} must have the hyperparameters {sorted(current)}, got {sorted(values)}"
            )
        return self._checked({key: tuple(value) if isinstance(value, list) else value
                              for key, value in values.items()})


def _checked_options(clip_norm: Any, clip_value: Any, nonfinite: Any) -> tuple[Any, Any, str]:
    if nonfinite not in NONFINITE:
        raise ValueError(f'nonfinite must be "propagate", "raise" or "skip", got {nonfinite!r}')
    return limit("clip_norm", clip_norm), limit("clip_value", clip_value), nonfinite


def _number(name: str, value: Any) -> float:
    """A finite number, not a schedule."""
    value = real(name, value)
    if callable(value):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)


def _shaped_like(param: Array, flat: Array) -> Array:
    """A flat array in the parameter's memory order as a view of the parameter's shape."""
    if param.flags.c_contiguous:
        return flat.reshape(param.shape)
    return flat.reshape(param.shape[::-1]).T


def _copied(value: Any) -> Any:
    return value.copy(order="K") if isinstance(value, np.ndarray) else value


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ValueError(f"load_state_dict: {name} must be an int of at least 0, got {value!r}")
    return int(value)


def _saved_array(name: str, slot: str, entry: Mapping[str, Any], param: Array) -> Array:
    if slot not in entry:
        raise ValueError(f"load_state_dict: the state of parameter {name!r} lacks {slot!r}")
    array = entry[slot]
    if not isinstance(array, np.ndarray):
        raise TypeError(f"load_state_dict: {slot!r} of parameter {name!r} must be an array")
    if array.shape != param.shape or array.dtype != param.dtype:
        raise ValueError(
            f"load_state_dict: {slot!r} of parameter {name!r} has shape {array.shape} and dtype "
            f"{array.dtype}, expected {param.shape} and {param.dtype}"
        )
    return array
