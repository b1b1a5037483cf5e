"""state_dict() and load_state_dict(): an optimizer as a dict, and back.

Loading checks everything it was given before it changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgd._arguments import integer
from fastgd._arrays.layout import Layout
from fastgd._arrays.tree import Array
from fastgd.optimizers._fields import Values

if TYPE_CHECKING:
    from fastgd.optimizers._base import Optimizer

KEYS = ("optimizer", "step_count", "state", "param_groups", "options")
MOST_STEPS = 2**62  # which none has taken, and the counters can hold


def dump(optimizer: Optimizer, *, copied: bool) -> dict[str, Any]:
    """The optimizer as `Optimizer.state_dict` describes it, with its live arrays or copies of them.

    Does not wait for a step to end: whoever copies holds the optimizer's gate.
    """
    state = optimizer._state()
    if copied:
        state = {
            name: {key: _copied(value) for key, value in entry.items()}
            for name, entry in state.items()
        }
    return {
        "optimizer": type(optimizer).__name__,
        "step_count": optimizer.step_count,
        "state": state,
        "param_groups": [
            {"params": list(members.names), **group.constants}
            for group, members in zip(optimizer._groups, optimizer._members, strict=True)
        ],
        "options": optimizer.options,
    }


def load(optimizer: Optimizer, saved: Mapping[str, Any], strict: bool) -> list[str]:
    """Load `saved`; the names that only one side knows."""
    differing = _check_head(optimizer, saved, strict)
    groups = optimizer._groups
    values = [
        _group_values(optimizer, i, saved) if strict else g.constants for i, g in enumerate(groups)
    ]
    options = _options(optimizer, saved) if strict else optimizer.options

    members, steps, copies = [], [], {}
    old_steps = iter(optimizer._plan.steps.tolist())
    for old, chosen in zip(optimizer._members, values, strict=True):
        slots = optimizer._allocate(old.params, chosen, old.slots)
        for name, layout, flats in zip(old.names, old.layouts, slots, strict=True):
            step = next(old_steps)
            if name in saved["state"]:
                entry = saved["state"][name]
                step = _count(f"the step of {name!r}", _item(entry, "step", name))
                for slot, flat in zip(optimizer.slots, flats, strict=True):
                    if flat is not None:
                        source = _array(entry, slot, name, layout)
                        copies[_address(flat)] = (layout.shaped(flat), source)
            steps.append(step)
        members.append(old.with_slots(slots))

    # What was given may be the live arrays of this optimizer: in their own place they stay, in
    # another's they are needed when that has been overwritten.
    moves = [
        (target, source.copy() if _address(source) in copies else source)
        for address, (target, source) in copies.items()
        if _address(source) != address
    ]
    see_through(
        [
            partial(optimizer._commit, groups, members, steps, saved["step_count"]),
            *(partial(np.copyto, target, source) for target, source in moves),
            *(partial(group.store, chosen) for group, chosen in zip(groups, values, strict=True)),
            partial(optimizer._set_options, **options),
        ]
    )
    return differing


def see_through(steps: Sequence[Callable[[], object]]) -> None:
    """Take all steps; an interrupt such as Ctrl-C repeats the one that it hits, and is raised last.

    Where half of the steps would leave a mixture, and what was there before is overwritten.
    """
    interrupt, done = None, 0
    while done < len(steps):
        try:
            while done < len(steps):
                steps[done]()
                done += 1
        except Exception:
            raise
        except BaseException as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


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
    differing = sorted(set(optimizer._plan.names) ^ set(saved["state"]), key=str)
    if strict and differing:
        raise ValueError(f"load_state_dict: only one side has these parameters: {differing}")
    return differing


def _group_values(optimizer: Optimizer, i: int, saved: Mapping[str, Any]) -> Values:
    """The hyperparameters of group i, checked."""
    groups, names = saved["param_groups"], optimizer._members[i].names
    if not isinstance(groups, (list, tuple)) or len(groups) != len(optimizer._groups):
        raise ValueError(
            f"load_state_dict: 'param_groups' must be a list of {len(optimizer._groups)} groups"
        )
    if not isinstance(groups[i], Mapping) or not _are_names(groups[i].get("params"), names):
        raise ValueError(f"load_state_dict: group {i} must have the parameters {names}")
    values = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in groups[i].items()
        if key != "params"
    }
    if set(values) != set(optimizer.checks):
        raise ValueError(
            f"load_state_dict: group {i} must have the hyperparameters {sorted(optimizer.checks)}, "
            f"got {sorted(values, key=str)}"
        )
    return optimizer._checked(values)


def _options(optimizer: Optimizer, saved: Mapping[str, Any]) -> dict[str, Any]:
    options = saved["options"]
    if not isinstance(options, Mapping) or set(options) != set(optimizer.options):
        raise ValueError(
            f"load_state_dict: 'options' must be a dict of {sorted(optimizer.options)}"
        )
    optimizer.check_options(**options)
    return dict(options)


def _item(entry: Any, key: str, name: str) -> Any:
    if not isinstance(entry, Mapping) or key not in entry:
        raise ValueError(f"load_state_dict: the state of parameter {name!r} lacks {key!r}")
    return entry[key]


def _are_names(params: Any, names: list[str]) -> bool:
    return isinstance(params, (list, tuple)) and list(params) == names


def _array(entry: Any, slot: str, name: str, layout: Layout) -> Array:
    array = _item(entry, slot, name)
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"load_state_dict: {slot!r} of parameter {name!r} must be an array")
    if array.shape != layout.shape or array.dtype != layout.dtype:
        raise ValueError(
            f"load_state_dict: {slot!r} of parameter {name!r} has shape {array.shape} and dtype "
            f"{array.dtype}, expected {layout.shape} and {layout.dtype}"
        )
    return array


def _count(name: str, value: Any) -> int:
    count = integer(f"load_state_dict: {name}", value)
    if count > MOST_STEPS:
        raise ValueError(f"load_state_dict: {name} must be at most {MOST_STEPS}, got {value!r}")
    return count


def _copied(value: Any) -> Any:
    return value.copy(order="K") if isinstance(value, np.ndarray) else value
