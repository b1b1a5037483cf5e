"""The hyperparameters of a group: as steps take them, and as the mapping that users see."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from fastgd._arguments import suggestion
from fastgd._arrays.formats import decoded, stored_dtype
from fastgd._arrays.layout import Layout
from fastgd._arrays.tree import Array
from fastgd.optimizers._declaration import OTHER_NAMES
from fastgd.optimizers._fields import Values, evaluate, is_scheduled

if TYPE_CHECKING:
    from fastgd.optimizers._base import Optimizer


FREE = ("lr", "weight_decay")  # see Settings.with_number


class Settings:
    """One group's class and hyperparameters, checked. Never changed: an assignment makes another."""

    __slots__ = ("kind", "maximize", "packed", "rule", "scheduled", "values")

    def __init__(self, kind: type[Optimizer], values: Mapping[str, Any]) -> None:
        self.kind = kind
        self._take(kind.declaration.checked(values))

    def _take(self, values: Values) -> None:
        """Values that are checked one by one."""
        self.values = values
        self.kind.check_together(values)
        self._check_state_dtype()
        self.scheduled = tuple(key for key, value in values.items() if is_scheduled(value))
        self.maximize: bool = values["maximize"]
        self.rule = self.kind.declaration.rule_for(values)
        # What the engine reads; where something is scheduled, of what `at` returns.
        self.packed = None if self.scheduled else self.kind.declaration.packed(values)

    def _check_state_dtype(self) -> None:
        """Refuse to store in fewer bits what would lose too much in them."""
        state_dtype, kinds = self.values["state_dtype"], self.kind.kinds
        if state_dtype is None:
            return
        for slot in self.kind.declaration.state:
            if slot in self.kind.unused(self.values):
                continue
            if slot not in kinds or (state_dtype == "8bit" and kinds[slot] == "precise"):
                other = ' or "bfloat16"' if slot in kinds else ""
                raise ValueError(
                    f"state_dtype={state_dtype!r}: {self.kind.__name__} keeps {slot!r}, which would lose "
                    f"too much in so few bits; pass None{other}"
                )

    def stored_dtype(self, layout: Layout) -> np.dtype[Any]:
        """Of the state of a parameter."""
        return stored_dtype(self.values["state_dtype"], layout.dtype, math.prod(layout.shape))

    @property
    def kinds(self) -> list[tuple[Any, ...]]:
        """For each array of the state what the engine has to know: its kind, and the number of the one
        whose root it is a ratio to.
        """
        state = self.kind.declaration.state
        parts = [self.kind.kinds.get(slot, "").split() for slot in state]
        return [(*part[:1], *map(state.index, part[1:])) for part in parts]

    def at(self, step: int) -> Settings:
        """With every schedule evaluated at `step`, and checked."""
        if not self.scheduled:
            return self
        now: Settings = object.__new__(Settings)
        now.kind, now.maximize, now.scheduled, now.rule = self.kind, self.maximize, (), self.rule
        now.values = dict(self.values)
        checks = self.kind.declaration.checks
        for key in self.scheduled:
            now.values[key] = evaluate(checks[key], key, self.values[key], step)
        now.packed = self.kind.declaration.packed(now.values)
        return now

    def shaped(
        self, layout: Layout, slots: Sequence[Array | None], *, all_slots: bool = False
    ) -> dict[str, Any]:
        """The state of a parameter by name, as views of their shapes, which 8-bit codes have none of;
        without those that are None.
        """
        result: dict[str, Any] = {}
        for name, flat in zip(self.kind.declaration.state, slots, strict=True):
            if flat is not None:
                shape = self.kind.state_shape(name, layout.shape)
                codes = flat.dtype == np.uint8
                result[name] = flat if codes else layout.of_state(shape or ()).shaped(flat)
            elif all_slots:
                result[name] = None
        return result

    def decoded(self, layout: Layout, slots: Sequence[Array | None]) -> tuple[Array | None, ...]:
        """The flat state of a parameter as floats."""
        names, size = self.kind.declaration.state, math.prod(layout.shape)
        present = {name: flat for name, flat in zip(names, slots, strict=True) if flat is not None}
        full = decoded(present, self.kind.kinds, size)
        return tuple(full.get(name) for name in names)

    def changed(self, changes: Mapping[str, Any]) -> Settings:
        new: Settings = object.__new__(Settings)
        new.kind = self.kind
        new._take({**self.values, **self.kind.declaration.checked(changes)})
        return new

    def with_number(self, key: str, value: float) -> Settings | None:
        """With a number in another's place on which neither rule nor state depends, fast: hosts
        assign the rate with every step. None where the whole has to be checked.
        """
        if self.scheduled or key not in FREE or type(self.values.get(key)) is not float:
            return None
        declaration = self.kind.declaration
        new: Settings = object.__new__(Settings)
        new.kind, new.maximize, new.scheduled, new.rule = self.kind, self.maximize, (), self.rule
        new.values = values = self.values.copy()
        values[key] = declaration.checks[key](key, value)
        self.kind.check_together(values)
        new.packed = packed = self.packed.copy()  # type: ignore[union-attr]
        packed[declaration.places[key]] = value
        return new

    def direct(
        self, direction: Array, param: Array, slots: Sequence[Array | None], t: int
    ) -> list[tuple[Array, Array]]:
        """What the class makes of a matrix rule's direction, in place; pairs of state and its new value."""
        state = {
            name: array
            for name, array in zip(self.kind.declaration.state, slots, strict=True)
            if array is not None
        }
        changes = self.kind.direct(direction, np.asarray(param), state, self.values, t)
        return [(state[name], np.asarray(value)) for name, value in changes.items()]


class ParamGroup(MutableMapping[str, Any]):
    """One parameter group: its arrays under "params", and its hyperparameters.

    Assigning a hyperparameter, `group["lr"] = 0.01`, checks it at once and takes effect at the next
    step. Keys cannot be added or removed, and the arrays change through the optimizer only. Two groups
    are equal if they are the same one of the same optimizer: what is in them are arrays, which have no
    one truth value.
    """

    __slots__ = ("_index", "_optimizer")

    def __init__(self, optimizer: Optimizer, index: int) -> None:
        object.__setattr__(self, "_optimizer", optimizer)
        object.__setattr__(self, "_index", index)

    @property
    def _settings(self) -> Settings:
        return self._optimizer._bound.groups[self._index]

    @property
    def optimizer(self) -> type[Optimizer]:
        """The class whose rule updates the group."""
        return self._settings.kind

    @property
    def current(self) -> Values:
        """The hyperparameters as the next step takes them: schedules evaluated at its step count."""
        return dict(self._settings.at(self._optimizer.step_count).values)

    def __getitem__(self, key: str) -> Any:
        if key == "params":
            return list(self._optimizer._bound.members[self._index].params)
        return self._settings.values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if type(value) is not float or not self._optimizer._assign_number(self._index, key, value):
            self.update({key: value})

    def update(self, other: Any = (), /, **values: Any) -> None:
        """Assign several hyperparameters at once, checked together: all of them or none."""
        changes = dict(other, **values)
        if "params" in changes:
            raise TypeError(
                "the arrays of a group cannot be assigned; use rebind() or add_param_group()"
            )
        self._optimizer._assign(self._index, changes)

    def __delitem__(self, key: str) -> NoReturn:
        raise TypeError(f"a parameter group always has {key!r}; assign it another value instead")

    def __iter__(self) -> Iterator[str]:
        return iter(("params", *self._settings.values))

    def __len__(self) -> int:
        return 1 + len(self._settings.values)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        known = self._settings.values
        if name in known:
            raise AttributeError(f"assign a hyperparameter as an item: group[{name!r}] = {value!r}")
        raise AttributeError(
            f"a parameter group has no attribute {name!r}{suggestion(name, known, OTHER_NAMES)}"
        )

    def __getattr__(self, name: str) -> NoReturn:
        if not name.startswith("_") and name in self._settings.values:
            raise AttributeError(f"a hyperparameter is an item of the group: group[{name!r}]")
        raise AttributeError(f"a parameter group has no attribute {name!r}")

    def __reduce__(self) -> Any:
        return ParamGroup, (self._optimizer, self._index)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ParamGroup):
            return NotImplemented
        return self._optimizer is other._optimizer and self._index == other._index

    def __hash__(self) -> int:
        return hash((id(self._optimizer), self._index))

    def __repr__(self) -> str:
        return f"ParamGroup({dict(self)!r})"
