"""state_dict() and load_state_dict(): an optimizer as a dict, and back.

Loading checks everything it was given before it changes anything.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastgd import _engine
from fastgd._arguments import as_float, integer
from fastgd._arrays.formats import NARROW, decoded, encoded, lost, stored_length
from fastgd._arrays.layout import Layout
from fastgd._arrays.tree import Array
from fastgd.optimizers._groups import Bound, allocated
from fastgd.optimizers._settings import Settings

if TYPE_CHECKING:
    from fastgd.optimizers._base import Optimizer, StepOptions

KEYS = ("optimizer", "step_count", "state", "param_groups", "options")
MOST_STEPS = 2**62  # which none has taken, and the counters can hold


def dump(optimizer: Optimizer, *, copied: bool, decoded: bool = False) -> dict[str, Any]:
    """The optimizer as `Optimizer.state_dict` describes it, with its live arrays or copies of them.

    Does not wait for a step to end: whoever copies holds the optimizer's gate.
    """
    bound = optimizer._bound
    names = iter(bound.plan.names)
    groups = []
    for settings, members in zip(bound.groups, bound.members, strict=True):
        other = settings.kind is not type(optimizer)
        groups.append(
            {
                "params": [next(names) for _ in members.params],
                **({"optimizer": settings.kind.__name__} if other else {}),
                **settings.values,
            }
        )
    return {
        "optimizer": type(optimizer).__name__,
        "step_count": optimizer.step_count,
        "state": bound.shaped_state(copied=copied, decoded=decoded),
        "param_groups": groups,
        "options": optimizer.options,
    }


class Loaded(NamedTuple):
    """What a load will do, checked: nothing of it can fail any more."""

    optimizer: Optimizer
    bound: Bound
    copies: list[tuple[Array, Array]]  # (into, from)
    differing: list[str]  # names that only one side knows

    def copy(self) -> None:
        for target, source in self.copies:
            np.copyto(target, source)

    def assign(self) -> None:
        self.optimizer._bound = self.bound


def load(optimizer: Optimizer, saved: Mapping[str, Any], strict: bool) -> list[str]:
    """Load `saved`; the names that only one side knows."""
    loaded = prepare(optimizer, saved, strict)

    def commit() -> None:
        loaded.copy()
        loaded.assign()

    _engine.uninterrupted(commit)
    return loaded.differing


def prepare(optimizer: Optimizer, saved: Mapping[str, Any], strict: bool) -> Loaded:
    """Check `saved`, and make everything that loading it needs; the optimizer stays as it is."""
    differing = _check_head(optimizer, saved, strict)
    old = optimizer._bound
    groups, options = list(old.groups), old.options
    if strict:
        groups = [_settings(optimizer, i, saved) for i in range(len(groups))]
        options = _options(optimizer, saved)
    steps, numbers = old.plan.steps.tolist(), old.plan.numbers.copy()
    members, copies, at = [], {}, 0
    for settings, part in zip(groups, old.members, strict=True):
        slots = allocated(settings, part, saved["step_count"])
        members.append(part._replace(slots=slots))
        for layout, flats in zip(part.layouts, slots, strict=True):
            name = old.plan.names[at]
            if name in saved["state"]:
                entry, declaration = saved["state"][name], settings.kind.declaration
                steps[at] = _count(f"the step of {name!r}", _item(entry, "step", name))
                for i, key in enumerate(declaration.numbers):
                    numbers[at, i] = _number(entry, key, name)
                targets = settings.shaped(layout, flats)
                kinds = settings.kind.kinds
                sources = {
                    slot: _array(entry, slot, name, target, layout if slot in kinds else None)
                    for slot, target in targets.items()
                }
                for slot, source in _in_format(settings, layout, name, sources, targets).items():
                    copies[_address(targets[slot])] = (targets[slot], source)
            at += 1

    # What was given may be the live arrays of this optimizer: in their own place they stay, in
    # another's they are needed when that has been overwritten.
    moves = [
        (target, source.copy() if _address(source) in copies else source)
        for address, (target, source) in copies.items()
        if _address(source) != address
    ]
    bound = optimizer._bound_with(
        groups=groups,
        members=members,
        options=options,
        steps=steps,
        numbers=numbers,
        step_count=saved["step_count"],
    )
    return Loaded(optimizer, bound, moves, differing)


def _address(array: Array) -> int:
    """Of the first element; an empty array's is of no use to anybody."""
    return array.ctypes.data if array.size else id(array)


def _check_head(optimizer: Optimizer, saved: Mapping[str, Any], strict: bool) -> list[str]:
    if not isinstance(saved, Mapping):
        raise TypeError(f"load_state_dict: expected a dict, got {type(saved).__name__}")
    missing = [key for key in KEYS if key not in saved]
    if missing:
        raise ValueError(f"load_state_dict: the dict lacks {missing}")
    kind = type(optimizer).__name__
    if not isinstance(saved["optimizer"], str) or saved["optimizer"] != kind:
        raise ValueError(
            f"load_state_dict: the state is of {saved['optimizer']!r}, this is {kind!r}"
        )
    _count("step_count", saved["step_count"])
    if not isinstance(saved["state"], Mapping):
        raise TypeError("load_state_dict: 'state' must be a dict with an entry for each parameter")
    differing = sorted(set(optimizer._bound.plan.names) ^ set(saved["state"]), key=str)
    if strict and differing:
        raise ValueError(f"load_state_dict: only one side has these parameters: {differing}")
    return differing


def _settings(optimizer: Optimizer, i: int, saved: Mapping[str, Any]) -> Settings:
    """The hyperparameters of group i, checked."""
    groups, bound = saved["param_groups"], optimizer._bound
    before = sum(len(part.params) for part in bound.members[:i])
    names = bound.plan.names[before : before + len(bound.members[i].params)]
    kind = bound.groups[i].kind
    if not isinstance(groups, (list, tuple)) or len(groups) != len(bound.groups):
        raise ValueError(
            f"load_state_dict: 'param_groups' must be a list of {len(bound.groups)} groups"
        )
    if not isinstance(groups[i], Mapping) or not _are_names(groups[i].get("params"), names):
        raise ValueError(f"load_state_dict: group {i} must have the parameters {names}")
    if groups[i].get("optimizer", saved["optimizer"]) != kind.__name__:
        raise ValueError(
            f"load_state_dict: group {i} is of {groups[i].get('optimizer', saved['optimizer'])!r}, "
            f"this one of {kind.__name__!r}"
        )
    values = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in groups[i].items()
        if key not in ("params", "optimizer")
    }
    for key, default in kind.declaration.forms.items():
        values.setdefault(key, default)  # an older version may not have had it
    for key in ("state_dtype", "state_dir"):  # how state is stored is this optimizer's own matter
        values[key] = bound.groups[i].values[key]
    if set(values) != set(kind.declaration.checks):
        raise ValueError(
            f"load_state_dict: group {i} must have the hyperparameters "
            f"{sorted(kind.declaration.checks)}, got {sorted(values, key=str)}"
        )
    return Settings(kind, {key: values[key] for key in kind.declaration.checks})


def _options(optimizer: Optimizer, saved: Mapping[str, Any]) -> StepOptions:
    options = saved["options"]
    if not isinstance(options, Mapping) or set(options) != set(optimizer.options):
        raise ValueError(
            f"load_state_dict: 'options' must be a dict of {sorted(optimizer.options)}"
        )
    return type(optimizer._bound.options).checked(**options)


def _item(entry: Any, key: str, name: str) -> Any:
    if not isinstance(entry, Mapping) or key not in entry:
        raise ValueError(f"load_state_dict: the state of parameter {name!r} lacks {key!r}")
    return entry[key]


def _are_names(params: Any, names: list[str]) -> bool:
    return isinstance(params, (list, tuple)) and list(params) == names


def _number(entry: Any, key: str, name: str) -> float:
    value = _item(entry, key, name)
    return as_float(f"load_state_dict: {key!r} of parameter {name!r} must be a number", value)


def _array(entry: Any, slot: str, name: str, target: Array, layout: Layout | None) -> Array:
    """Of the target's dtype; with the layout of its parameter, also of another that state can have."""
    array = _item(entry, slot, name)
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"load_state_dict: {slot!r} of parameter {name!r} must be an array")
    shape, dtypes = target.shape, [target.dtype]
    if layout is not None and layout.dtype == np.float32 and array.dtype != target.dtype:
        codes = (stored_length(np.dtype(np.uint8), math.prod(layout.shape)),)
        shape = codes if array.dtype == np.uint8 else layout.shape
        dtypes = [layout.dtype, *NARROW]
    if array.shape != shape or array.dtype not in dtypes:
        raise ValueError(
            f"load_state_dict: {slot!r} of parameter {name!r} has shape {array.shape} and dtype "
            f"{array.dtype}, expected {target.shape} and {target.dtype}"
        )
    return array


def _in_format(
    settings: Settings,
    layout: Layout,
    name: str,
    sources: Mapping[str, Array],
    targets: Mapping[str, Array],
) -> Mapping[str, Array]:
    """One parameter's state in the formats of the arrays that will hold it; warns of what is lost."""
    dtypes = {slot: target.dtype for slot, target in targets.items()}
    if all(array.dtype == dtypes[slot] for slot, array in sources.items()):
        return sources
    kinds, size = settings.kind.kinds, math.prod(layout.shape)
    flats = {
        slot: array
        if array.dtype == np.uint8
        else array.ravel(order="C" if layout.c_contiguous else "F")
        for slot, array in sources.items()
    }
    full = decoded(flats, kinds, size)
    made = encoded(full, kinds, dtypes)
    again = decoded(made, kinds, size)
    loss = lost(list(full.values()), [again[slot] for slot in full])
    if loss > 0:
        warnings.warn(
            f"load_state_dict: the state of parameter {name!r} is stored in fewer bits here than where it "
            f"comes from; rounding changed an array of it by {loss:.1e} of its norm",
            stacklevel=5,
        )
    return {
        slot: flat if flat.dtype == np.uint8 else layout.shaped(flat) for slot, flat in made.items()
    }


def _count(name: str, value: Any) -> int:
    count = integer(f"load_state_dict: {name}", value)
    if count > MOST_STEPS:
        raise ValueError(f"load_state_dict: {name} must be at most {MOST_STEPS}, got {value!r}")
    return count
