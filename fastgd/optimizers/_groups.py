"""Parameter groups: the arrays of an optimizer, their hyperparameters and their state.

Everything that a step uses is one record, `Bound`. A change builds another and assigns it last: one
that is refused leaves nothing behind, and whatever interrupts it finds the old record or the new one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

import numpy as np

from fastgd import _engine
from fastgd._arrays import formats
from fastgd._arrays.layout import Layout, flat_view
from fastgd._arrays.memory import allocate
from fastgd._arrays.tree import (
    SOLE_NAME,
    Array,
    Spec,
    check_disjoint,
    check_parameter,
    flatten,
    is_groups,
)
from fastgd.optimizers import _registry
from fastgd.optimizers._declaration import Declaration
from fastgd.optimizers._fields import Values
from fastgd.optimizers._settings import ParamGroup, Settings

if TYPE_CHECKING:
    from fastgd.optimizers._base import Optimizer, StepOptions

Slots: TypeAlias = tuple[Array | None, ...]  # one-dimensional, in the memory order of the parameter


class Members(NamedTuple):
    """The arrays of one group, and their state."""

    tree: Any
    spec: Spec
    paths: tuple[str, ...]  # of the arrays within the tree
    params: tuple[Array, ...]
    layouts: tuple[Layout, ...]
    slots: tuple[Slots, ...]  # for each array, in the order in which the rule names them

    @classmethod
    def of(cls, tree: Any, prefix: str, slots: Sequence[Slots] = ()) -> Members:
        """`prefix` is what the names in messages begin with."""
        named, spec = flatten(tree)
        paths = ("",) if spec is None else tuple(path for path, _ in named)
        params = tuple(array for _, array in named)
        for path, array in zip(paths, params, strict=True):
            check_parameter(full_name(prefix, path), array)
        return cls(tree, spec, paths, params, tuple(map(Layout.of, params)), tuple(slots))


class Bound(NamedTuple):
    """An optimizer as steps use it."""

    plan: _engine.Plan
    groups: tuple[Settings, ...]
    members: tuple[Members, ...]
    options: StepOptions
    needs_loss: bool = False  # whether a group's class does
    averages: bool = False  # likewise

    def following(self, params: Sequence[Array], trees: Sequence[Any]) -> Bound:
        """The same over other arrays, which the plan has taken already."""
        members, start = [], 0
        for part, tree in zip(self.members, trees, strict=True):
            end = start + len(part.params)
            members.append(part._replace(tree=tree, params=tuple(params[start:end])))
            start = end
        return self._replace(members=tuple(members))

    def shaped_state(self, *, copied: bool, decoded: bool = False) -> dict[str, dict[str, Any]]:
        """By parameter name: "step", the numbers that the rule keeps, and its arrays or copies.

        decoded: float32 arrays in place of those that are stored in fewer bits.
        """
        result: dict[str, dict[str, Any]] = {}
        steps, numbers = iter(self.plan.steps.tolist()), iter(self.plan.numbers.tolist())
        names = iter(self.plan.names)
        for settings, members in zip(self.groups, self.members, strict=True):
            declaration = settings.kind.declaration
            for layout, slots in zip(members.layouts, members.slots, strict=True):
                kept = dict(zip(declaration.numbers, next(numbers), strict=False))
                entry = {"step": next(steps), **kept}
                if decoded:
                    slots = settings.decoded(layout, slots)
                for slot, array in settings.shaped(layout, slots).items():
                    entry[slot] = array.copy(order="K") if copied else array
                result[next(names)] = entry
        return result


def full_name(prefix: str, path: str) -> str:
    return "/".join(filter(None, (prefix, path))) or SOLE_NAME


def prefixes(count: int) -> list[str]:
    """What the names of so many groups begin with: their numbers, unless there is one group only."""
    return [f"{i}" for i in range(count)] if count > 1 else [""] * count


def full_names(members: Sequence[Members]) -> list[str]:
    """The names of all arrays."""
    names = [
        full_name(prefix, path)
        for prefix, part in zip(prefixes(len(members)), members, strict=True)
        for path in part.paths
    ]
    if len(set(names)) != len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise ValueError(f"two parameters have the same name: {twice}; rename the keys")
    return names


class GroupedParameters:
    """What an optimizer holds, and what its class says about it beside the signature."""

    declaration: ClassVar[Declaration]
    _gate: _engine.Gate
    _bound: Bound
    _defaults: Values
    _spread: Any = None  # of an optimizer of parts of arrays, see Plan

    # --- what a class provides where its rule needs it ---

    @classmethod
    def check_together(cls, values: Values) -> None:
        """Refuse hyperparameters that are each valid but not together."""

    @classmethod
    def check_array(cls, name: str, array: Array, values: Values) -> None:
        """Refuse an array that the rule cannot update."""

    @classmethod
    def unused(cls, values: Values) -> set[str]:
        """The state that a group with these hyperparameters does not need."""
        return set()

    @classmethod
    def state_shape(cls, slot: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Of an array of the state of a parameter of `shape`; None if it has none. A shape other than
        the parameter's is for what only `direct` uses.
        """
        return shape

    @classmethod
    def first_values(cls, values: Values) -> Mapping[str, float | Callable[[Array], Any]]:
        """What state and numbers begin with where it is not 0; a function's argument is the parameter.
        In `values` schedules are evaluated.
        """
        return {}

    @classmethod
    def direct(
        cls, direction: Array, param: Array, state: Mapping[str, Array], values: Values, t: int
    ) -> Mapping[str, Array]:
        """For a matrix rule: turn what its first sweep made into what its last one takes, in place.

        Args:
            direction: of the parameter's shape.
            param, state: as they are before the step, not to be written.
            t: the number of the step.

        Returns: what arrays of the state that the rule does not update will hold after the step.
        """
        raise NotImplementedError

    @classmethod
    def weight_of_average(cls, values: Values) -> float:
        """For a class that averages: of x in y, see `_average`. In `values` schedules are evaluated."""
        raise NotImplementedError

    # --- what can be looked at ---

    @property
    def param_groups(self) -> tuple[ParamGroup, ...]:
        """The parameter groups; assigning `param_groups[i]["lr"]` takes effect at the next step."""
        return tuple(ParamGroup(self._self(), i) for i in range(len(self._bound.groups)))

    @property
    def params(self) -> dict[str, Array]:
        """The parameters by name."""
        plan = self._bound.plan
        return dict(zip(plan.names, plan.params, strict=True))

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        """The state by parameter name: "step", numbers, and the live arrays in use."""
        return self._gate.read(lambda: self._bound.shaped_state(copied=False))

    def _self(self) -> Optimizer:
        return self  # type: ignore[return-value]

    # --- changing them ---

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with hyperparameters of their own.

        Args:
            group: a dict with "params" (a tree) and any hyperparameters that differ from the
                constructor's; "optimizer", a class, gives the group another rule, with that class's
                own defaults. From now on `step` takes a list with one tree for each group, and the
                names of all arrays begin with their group's number, as if all groups had been given
                to the constructor: "0/W", "1/W".

        Raises:
            TypeError, ValueError: as in the constructor. Nothing has changed then.
        """
        self._gate.call(self._extend, [group])

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
        self._gate.call(self._rebind, params)

    def _rebind(self, params: Any) -> None:
        bound = self._bound
        fresh = []
        trees = zip(prefixes(len(bound.members)), bound.members, self._trees(params), strict=True)
        for prefix, old, tree in trees:
            if flatten(tree)[1] != old.spec:
                raise ValueError(
                    f"rebind: the structure differs from that of the parameters {list(old.paths)}"
                )
            new = Members.of(tree, prefix, old.slots)
            for path, layout, before in zip(old.paths, new.layouts, old.layouts, strict=True):
                name = full_name(prefix, path)
                if layout[:2] != before[:2]:
                    raise ValueError(
                        f"rebind: parameter {name!r} has shape {layout.shape} and dtype {layout.dtype}, "
                        f"expected {before.shape} and {before.dtype}"
                    )
                if layout != before:
                    raise ValueError(
                        f"rebind: parameter {name!r} is laid out in the other order (C or Fortran) "
                        "than the array that it replaces; pass a copy with order='K' of that one"
                    )
            fresh.append(new)
        self._swap(members=fresh)

    def _trees(self, params: Any) -> Sequence[Any]:
        """One tree for each group, out of what rebind was given."""
        count = len(self._bound.members)
        trees = [params] if count == 1 and not is_groups(params) else params
        if not isinstance(trees, (list, tuple)) or len(trees) != count:
            raise ValueError(f"rebind: expected a list of {count} trees, one for each group")
        if not is_groups(trees):
            return trees
        for tree in trees:
            if set(tree) != {"params"}:
                raise ValueError(
                    f"rebind takes arrays only, got a group with {sorted(set(tree) - {'params'})}; "
                    "assign hyperparameters in param_groups"
                )
        return [tree["params"] for tree in trees]

    def _extend(self, additions: Sequence[Mapping[str, Any]]) -> None:
        """Add groups; all of them or none."""
        bound = self._bound
        groups, members = list(bound.groups), list(bound.members)
        numbers = [bound.plan.numbers] if groups else []
        for prefix, group in zip(
            prefixes(len(groups) + len(additions))[len(groups) :], additions, strict=True
        ):
            if not isinstance(group, Mapping) or "params" not in group:
                raise TypeError('a parameter group must be a dict with the key "params"')
            settings = self._settings(group)
            part = Members.of(group["params"], prefix)
            for path, array in zip(part.paths, part.params, strict=True):
                settings.kind.check_array(full_name(prefix, path), array, settings.values)
            step = bound.plan.step_count if bound.groups else 0
            members.append(part._replace(slots=allocated(settings, part, step)))
            groups.append(settings)
            numbers.append(first_numbers(settings, len(part.params), step))
        if not any(part.params for part in members):
            raise ValueError("an optimizer needs at least one parameter array, got none")
        steps = bound.plan.steps.tolist() if bound.groups else []
        steps += [0] * (sum(len(part.params) for part in members) - len(steps))
        self._swap(groups=groups, members=members, steps=steps, numbers=np.concatenate(numbers))

    def _settings(self, group: Mapping[str, Any]) -> Settings:
        """Of a group that is added: its own, over its class's defaults or this optimizer's."""
        kind = _registry.find(group.get("optimizer", type(self)))
        if not isinstance(kind, type) or not issubclass(kind, GroupedParameters):
            raise TypeError(f"a group's optimizer must be an optimizer's class, got {kind!r}")
        own = {key: value for key, value in group.items() if key not in ("params", "optimizer")}
        inherited = self._defaults
        if kind is not type(self):
            inherited = {**kind.declaration.defaults, "maximize": self._defaults["maximize"]}
        return Settings(kind, {**inherited, **own})

    def _assign(self, i: int, changes: Mapping[str, Any]) -> None:
        """Hyperparameters of a group were assigned: check, and adapt the state it now needs."""

        def change() -> None:  # two threads may assign two of them
            bound = self._bound
            settings = bound.groups[i].changed(changes)
            groups = [*bound.groups[:i], settings, *bound.groups[i + 1 :]]
            before = bound.groups[i]
            same_state = (
                settings.kind.unused(settings.values) == before.kind.unused(before.values)
                and settings.values["state_dtype"] == before.values["state_dtype"]
            )
            if same_state and settings.rule is before.rule:
                self._bound = bound._replace(groups=tuple(groups))
                return
            members = list(bound.members)
            slots = allocated(settings, members[i], bound.plan.step_count)
            members[i] = members[i]._replace(slots=slots)
            self._swap(groups=groups, members=members)

        self._gate.call(change)

    def _assign_number(self, i: int, key: str, value: float) -> bool:
        """The same for one number, if it is one that needs nothing else; whether it was."""
        return self._gate.call(self._replace_number, i, key, value)

    def _replace_number(self, i: int, key: str, value: float) -> bool:
        bound = self._bound
        groups = bound.groups
        settings = groups[i].with_number(key, value)
        if settings is None:
            return False
        groups = (*groups[:i], settings, *groups[i + 1 :])
        self.__dict__["_bound"] = Bound._make((bound[0], groups, *bound[2:]))
        return True

    def _swap(self, **changes: Any) -> None:
        self._bound = self._bound_with(**changes)

    def _bound_with(
        self,
        *,
        groups: Sequence[Settings] | None = None,
        members: Sequence[Members] | None = None,
        options: StepOptions | None = None,
        steps: list[int] | None = None,
        numbers: Array | None = None,
        step_count: int | None = None,
    ) -> Bound:
        """The record with a new plan and whatever of this is given; nothing has changed yet."""
        bound = self._bound
        groups, members = groups or bound.groups, members or bound.members
        names = full_names(members)
        params = [array for part in members for array in part.params]
        named = list(zip(names, params, strict=True))
        check_unchanged(names, params, [layout for part in members for layout in part.layouts])
        check_disjoint(named)
        plan = _engine.Plan(
            params,
            names,
            tuple(part.spec for part in members),
            self._gate,
            [i for i, part in enumerate(members) for _ in part.params],
            [{**settings.rule, "kinds": settings.kinds} for settings in groups],
            [
                list(settings.shaped(*each, all_slots=True).values())
                if settings.rule["matrix"]
                else each[1]
                for settings, part in zip(groups, members, strict=True)
                for each in zip(part.layouts, part.slots, strict=True)
            ],
            bound.plan.numbers if numbers is None else numbers,
            bound.plan.steps.tolist() if steps is None else steps,
            bound.plan.step_count if step_count is None and bound.groups else step_count or 0,
            tuple(part.tree for part in members),
            self._spread,
        )
        return Bound(
            plan,
            tuple(groups),
            tuple(members),
            options or bound.options,
            needs_loss=any(settings.kind.needs_loss for settings in groups),
            averages=any(settings.kind.averages for settings in groups),
        )


def check_unchanged(names: list[str], params: list[Array], layouts: list[Layout]) -> None:
    """Refuse an array that no longer fits its state, whose end a step would write beyond.

    Raises: ValueError naming it.
    """
    for name, array, layout in zip(names, params, layouts, strict=True):
        plain = np.asarray(array)
        if plain.size != math.prod(layout.shape) or plain.dtype != layout.dtype:
            raise ValueError(
                f"parameter {name!r} was resized since the optimizer was made: it has shape "
                f"{plain.shape} and dtype {plain.dtype}, expected {layout.shape} and "
                f"{layout.dtype}; call rebind() with arrays of the original shapes"
            )


def allocated(settings: Settings, members: Members, step: int) -> tuple[Slots, ...]:
    """The state that a group with these settings needs: what is there is kept, the rest is made."""
    kind = settings.kind
    members = _in_format(settings, members)
    unused = kind.unused(settings.values)
    first: Mapping[str, Any] | None = None  # which asks schedules, so only where it is needed
    rows: list[list[Array | None]] = [[] for _ in members.params]
    for i, slot in enumerate(kind.declaration.state):
        shapes = [kind.state_shape(slot, layout.shape) for layout in members.layouts]
        if slot in unused:
            shapes = [None] * len(shapes)
        column = [slots[i] for slots in members.slots] or [None] * len(shapes)
        if any(
            (flat is None) != (shape is None) for flat, shape in zip(column, shapes, strict=True)
        ):
            first = _first_values(settings, step) if first is None else first
            column = _fresh(settings, members, i, shapes, first.get(slot, 0.0))
        for row, flat in zip(rows, column, strict=True):
            row.append(flat)
    return tuple(map(tuple, rows))


def _first_values(settings: Settings, step: int) -> Mapping[str, Any]:
    """See GroupedParameters.first_values; no schedule is evaluated for a class that has none."""
    default = GroupedParameters.first_values.__func__  # type: ignore[attr-defined]
    if settings.kind.first_values.__func__ is default:  # type: ignore[attr-defined]
        return {}
    return settings.kind.first_values(settings.at(step).values)


def check_storable(settings: Settings, name: str, layout: Layout) -> None:
    """Refuse a parameter whose state cannot be stored as the settings ask for."""
    state_dtype, stored = settings.values["state_dtype"], settings.stored_dtype(layout)
    if stored != layout.dtype and layout.dtype != np.float32:
        raise ValueError(
            f"parameter {name!r} is {layout.dtype}; state_dtype={state_dtype!r} is for float32 "
            "parameters: convert it, or give it a group with state_dtype=None"
        )
    if stored == np.uint8 and not layout.c_contiguous:
        raise ValueError(
            f"parameter {name!r} is in Fortran order, and state_dtype={state_dtype!r} for arrays in C "
            "order; pass numpy.ascontiguousarray() of it"
        )


def _in_format(settings: Settings, members: Members) -> Members:
    """With the state that is there in the format that the settings ask for.

    Raises: ValueError naming a parameter whose state cannot be.
    """
    names = settings.kind.declaration.state
    for path, layout in zip(members.paths, members.layouts, strict=True):
        check_storable(settings, full_name("", path), layout)
    rows = []
    for layout, slots in zip(members.layouts, members.slots, strict=False):
        present = {name: flat for name, flat in zip(names, slots, strict=True) if flat is not None}
        dtypes = dict.fromkeys(present, settings.stored_dtype(layout))
        made = formats.changed(present, settings.kind.kinds, dtypes, math.prod(layout.shape))
        rows.append(tuple(made.get(name) for name in names))
    return members._replace(slots=tuple(rows))


def _fresh(
    settings: Settings,
    members: Members,
    slot: int,
    shapes: Sequence[tuple[int, ...] | None],
    value: Any,
) -> list[Array | None]:
    """State arrays of these shapes, each element `value` or what it says of its parameter."""
    whole = [
        np.asarray(param)
        for param, layout, shape in zip(members.params, members.layouts, shapes, strict=True)
        if shape == layout.shape
    ]
    dtypes = [
        settings.stored_dtype(layout)
        for layout, shape in zip(members.layouts, shapes, strict=True)
        if shape == layout.shape
    ]
    directory = settings.values["state_dir"]
    arena = iter(allocate(whole, slot, dtypes, directory) if whole else [])
    column: list[Array | None] = []
    for param, layout, shape in zip(members.params, members.layouts, shapes, strict=True):
        if shape is None:
            column.append(None)
            continue
        like = layout.of_state(shape)
        flat = next(arena) if like is layout else np.zeros(math.prod(shape), layout.dtype)
        if callable(value) or value != 0.0:
            first = value(np.asarray(param)) if callable(value) else value
            if flat.dtype == layout.dtype:
                like.shaped(flat)[...] = first
            else:
                name = settings.kind.declaration.state[slot]
                full = flat_view(np.broadcast_to(first, shape).astype(layout.dtype))
                kinds = {name: settings.kind.kinds[name]}
                flat[...] = formats.encoded({name: full}, kinds, {name: flat.dtype})[name]
        column.append(flat)
    return column


def first_numbers(settings: Settings, count: int, step: int) -> Array:
    """(count, most numbers of a rule) float64: what the rule keeps for each array at first."""
    numbers = np.zeros((count, _engine.most_numbers))
    names = settings.kind.declaration.numbers
    first = _first_values(settings, step) if names else {}
    for i, name in enumerate(names):
        numbers[:, i] = float(first.get(name, 0.0))
    return numbers
