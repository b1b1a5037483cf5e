"""An optimizer's state on its way from rank to rank."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastgd._arrays.tree import Array
from fastgd.optimizers import Optimizer, dump

TAGS = 16  # more than a rule has arrays of state


def flat_state(optimizer: Optimizer, *, decode: bool = False) -> Iterator[tuple[int, int, Array]]:
    """The state arrays that there are, flat, with the numbers of their parameter and of their slot.

    decode: those of a group with state in 8 bits as float32.
    """
    i = 0
    bound = optimizer._bound
    for settings, part in zip(bound.groups, bound.members, strict=True):
        for layout, slots in zip(part.layouts, part.slots, strict=True):
            flats: Any = slots
            if decode and settings.values["state_dtype"] == "8bit":
                flats = settings.decoded(layout, slots)
            for slot, flat in enumerate(flats):
                if flat is not None:
                    yield i, slot, np.ascontiguousarray(flat)
            i += 1


def slot_of(optimizer: Optimizer, i: int, slot: int) -> Array:
    flats = [slots for part in optimizer._bound.members for slots in part.slots][i]
    target = flats[slot]
    assert target is not None
    return target


def head_of(whole: Optimizer) -> tuple[dict[str, Any], list[tuple[int, int, int, str]]]:
    """What `dump` says of an optimizer but for its arrays, and what those are like."""
    saved = dump(whole, copied=False)
    state = {
        name: {key: value for key, value in entry.items() if not isinstance(value, np.ndarray)}
        for name, entry in saved["state"].items()
    }
    groups = [
        {key: _sent(value) for key, value in group.items()} for group in saved["param_groups"]
    ]
    options = {key: _sent(value) for key, value in saved["options"].items()}
    sizes = [(i, slot, flat.size, flat.dtype.str) for i, slot, flat in flat_state(whole)]
    return {**saved, "state": state, "param_groups": groups, "options": options}, sizes


class _Own:
    """In place of a function that cannot be sent: each rank has its own."""


def _sent(value: Any) -> Any:
    try:
        pickle.dumps(value)
    except Exception:
        return _Own()
    return value


def joined(own: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    """This rank's arrays with everything else of `head`."""

    def merged(mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
        return {
            key: mine.get(key) if isinstance(value, _Own) else value
            for key, value in theirs.items()
        }

    return {
        **head,
        "state": {name: {**entry, **head["state"][name]} for name, entry in own["state"].items()},
        "param_groups": [
            merged(*pair) for pair in zip(own["param_groups"], head["param_groups"], strict=True)
        ],
        "options": merged(own["options"], head["options"]),
    }
