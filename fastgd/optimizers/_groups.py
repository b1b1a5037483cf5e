"""Parameter groups: the arrays of an optimizer, their hyperparameters and their state.

Every change builds a new plan over all groups first and swaps it in last, so that one that is refused
leaves nothing behind.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, cast

import numpy as np

from fastgd import _engine
from fastgd._arrays.layout import Layout
from fastgd._arrays.memory import allocate
from fastgd._arrays.tree import Array, Spec, check_disjoint, check_parameter, flatten, is_groups
from fastgd.optimizers._fields import Check, ParamGroup, Values

Slots = tuple[Array | None, ...]  # one-dimensional, in the memory order of the parameter


class Members:
    """The arrays of one group: names, state and gradient structure. Never changed in place."""

    def __init__(self, named: Sequence[tuple[str, Array]], spec: Spec, slots: list[Slots]) -> None:
        self.names = [name for name, _ in named]
        self.params = [array for _, array in named]
        self.layouts = [Layout.of(array) for array in self.params]
        self.spec = spec
        self.slots = slots

    def with_slots(self, slots: list[Slots]) -> Members:
        """The same arrays with other state."""
        other = copy(self)
        other.slots = slots
        return other

    def check_unchanged(self) -> None:
        """Refuse an array that no longer fits its state, whose end a step would write beyond.

        Raises: ValueError naming it.
        """
        for name, array, layout in zip(self.names, self.params, self.layouts, strict=True):
            plain = np.asarray(array)
            if plain.size != math.prod(layout.shape) or plain.dtype != layout.dtype:
                raise ValueError(
                    f"parameter {name!r} was resized since the optimizer was made: it has shape "
                    f"{plain.shape} and dtype {plain.dtype}, expected {layout.shape} and "
                    f"{layout.dtype}; call rebind() with arrays of the original shapes"
                )


class GroupedParameters:
    """What an optimizer holds, and what a kind of optimizer says about it.

    A subclass states its hyperparameters with their checks, its rule in the engine, the rule's state
    slots in order, which of them a group uses, and the coefficients of one step.
    """

    rule: ClassVar[str]
    slots: ClassVar[tuple[str, ...]]
    checks: ClassVar[Mapping[str, Check]]

    def __init__(self, params: Any, defaults: Values) -> None:
        self._gate = _engine.Gate()
        self._plan: _engine.Plan = cast(Any, None)  # until _extend
        self._groups: list[ParamGroup] = []
        self._members: list[Members] = []
        self._defaults = self._checked(defaults)
        if is_groups(params):
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

    # --- what can be looked at ---

    @property
    def param_groups(self) -> tuple[ParamGroup, ...]:
        """The parameter groups; assigning `param_groups[i]["lr"]` takes effect at the next step."""
        return tuple(self._groups)

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
            for name, layout, slots in zip(
                members.names, members.layouts, members.slots, strict=True
            ):
                arrays = {
                    slot: layout.shaped(flat)
                    for slot, flat in zip(self.slots, slots, strict=True)
                    if flat is not None
                }
                result[name] = {"step": next(steps), **arrays}
        return result

    # --- changing them ---

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with hyperparameters of their own.

        Args:
            group: a dict with "params" (a tree) and any hyperparameters that differ from the
                constructor's. From now on `step` takes a list with one tree for each group.
                Its arrays are named after the group's number, "1/W", or "group1/W" if that name
                is taken, for example by a list of layers given to the constructor.

        Raises:
            TypeError, ValueError: as in the constructor. Nothing has changed then.
        """
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError('a parameter group must be a dict with the key "params"')
        with self._gate:
            number = f"{len(self._groups)}"
            names = {name for name, _ in flatten(group["params"], number)[0]}
            free = names.isdisjoint(self._plan.names)
            self._extend([(number if free else f"group{number}", group)])

    def rebind(self, params: Any) -> None:
        """Continue with other arrays of the same structure, shapes and dtypes, keeping the state.

        For hosts that hand over fresh arrays at every step. Each call checks all arrays and makes a new
        plan of the step, which takes time in proportion to their number (not to their sizes), and drops
        `grad_norm` and `norms()` of the last step.

        Args:
            params: of the structure given to the constructor; after add_param_group a list with one
                tree for each group.

        Raises:
            TypeError, ValueError: an array differs from the one it replaces or cannot be updated
                in place. The old arrays stay bound then.
        """
        with self._gate:
            trees = [params] if len(self._groups) == 1 and not is_groups(params) else params
            if not isinstance(trees, (list, tuple)) or len(trees) != len(self._groups):
                raise ValueError(
                    f"rebind: expected a list of {len(self._groups)} trees, one for each group"
                )
            for tree in trees if is_groups(trees) else ():
                if set(tree) != {"params"}:
                    raise ValueError(
                        f"rebind takes arrays only, got a group with {sorted(set(tree) - {'params'})}; "
                        "assign hyperparameters in param_groups"
                    )
            fresh = []
            for old, tree in zip(self._members, trees, strict=True):
                leaves, spec = flatten(tree["params"] if is_groups(trees) else tree)
                if spec != old.spec:
                    raise ValueError(
                        f"rebind: the structure differs from that of the parameters {old.names}"
                    )
                named = [(name, array) for name, (_, array) in zip(old.names, leaves, strict=True)]
                for (name, array), before in zip(named, old.layouts, strict=True):
                    check_parameter(name, array)
                    if (array.shape, array.dtype) != (before.shape, before.dtype):
                        raise ValueError(
                            f"rebind: parameter {name!r} has shape {array.shape} and dtype {array.dtype}, "
                            f"expected {before.shape} and {before.dtype}"
                        )
                    if array.flags.c_contiguous != before.c_contiguous:
                        raise ValueError(
                            f"rebind: parameter {name!r} is laid out in the other order (C or Fortran) "
                            "than the array that it replaces; pass a copy with order='K' of that one"
                        )
                fresh.append(Members(named, spec, old.slots))
            self._commit(self._groups, fresh, self._plan.steps.tolist(), self._plan.step_count)

    def _extend(self, additions: list[tuple[str, Mapping[str, Any]]]) -> None:
        """Validate and add groups, each with the prefix of its names; all of them or none."""
        groups, members = list(self._groups), list(self._members)
        steps, count = (self._plan.steps.tolist(), self._plan.step_count) if groups else ([], 0)
        for prefix, group in additions:
            overrides = {key: value for key, value in group.items() if key != "params"}
            values = self._checked({**self._defaults, **overrides})
            named, spec = flatten(group["params"], prefix)
            for name, array in named:
                check_parameter(name, array)
            arrays = [array for _, array in named]
            slots = self._allocate(arrays, values, [(None,) * len(self.slots)] * len(arrays))
            members.append(Members(named, spec, slots))
            groups.append(ParamGroup(arrays, values, self.checks, self._change))
            steps += [0] * len(arrays)
        if not any(part.params for part in members):
            raise ValueError("an optimizer needs at least one parameter array, got none")
        self._commit(groups, members, steps, count)

    def _commit(
        self, groups: list[ParamGroup], members: list[Members], steps: list[int], step_count: int
    ) -> None:
        """Build the plan of new groups and members, then swap all three in."""
        named = [pair for part in members for pair in zip(part.names, part.params, strict=True)]
        names = [name for name, _ in named]
        if len(set(names)) != len(names):
            twice = [name for name, count in Counter(names).items() if count > 1]
            raise ValueError(f"two parameters have the same name: {twice}; rename the keys")
        for part in members:
            part.check_unchanged()
        check_disjoint(named)
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
        if self._groups:
            self._plan.retired = True
        self._groups, self._members, self._plan = groups, members, plan

    def _change(self, group: ParamGroup, changes: Values) -> None:
        """Hyperparameters were assigned: check, and adapt the slots if the group now needs others."""
        with self._gate:  # two threads may assign two of them
            values = self._checked({**group.constants, **changes})
            if self.uses(values) != self.uses(group.constants):
                members = list(self._members)
                i = next(i for i, other in enumerate(self._groups) if other is group)
                old = members[i]
                members[i] = old.with_slots(self._allocate(old.params, values, old.slots))
                self._commit(
                    self._groups, members, self._plan.steps.tolist(), self._plan.step_count
                )
            group.store(values)

    def _allocate(self, params: list[Array], values: Values, present: list[Slots]) -> list[Slots]:
        """The slots that `values` needs: those present are kept, the others are made."""
        columns: list[Sequence[Array | None]] = []
        for i, used in enumerate(self.uses(values)):
            column = [slots[i] for slots in present]
            if used and not all(flat is not None for flat in column):
                fresh = allocate([np.asarray(param) for param in params], i)
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
