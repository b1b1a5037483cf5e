"""What a checkpoint holds of an optimizer, a random generator or any other object, and its return.

Returning is a transaction. Each object checks the state that it is given and takes it over; if one of
them refuses, those before it get their old state back. The large arrays, parameters and optimizer state,
come last, straight from the file, when everything that could be refused has been.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastgd import _engine
from fastgd._arrays.formats import NARROW
from fastgd._arrays.tree import check_parameter
from fastgd.checkpoint._codec import Decoder, UserFunction, has_state
from fastgd.checkpoint._npz import Archive, Array, StoredArray
from fastgd.optimizers import Loaded, Optimizer, dump, prepare
from fastgd.schedules import end_of, functions_in

OPTIMIZER, RANDOM, OTHER = "optimizer", "random", "state_dict"
KINDS = {
    OPTIMIZER: "an optimizer",
    RANDOM: "a random generator",
    OTHER: "an object with state_dict()",
}
Random = (np.random.Generator, np.random.RandomState)


def kind_of(name: str, thing: Any) -> str:
    """Which of the kinds of things a checkpoint can hold it is.

    Raises:
        TypeError: none.
    """
    if isinstance(thing, Optimizer):
        return OPTIMIZER
    if isinstance(thing, Random):
        return RANDOM
    if has_state(thing) and not isinstance(thing, type):
        return OTHER
    raise TypeError(
        f"{name} must be an optimizer, a numpy.random.Generator or an object with state_dict() and "
        f"load_state_dict(), got {type(thing).__module__}.{type(thing).__qualname__}; values of your "
        "own go into metadata"
    )


def state_of(thing: Any) -> Any:
    """What a checkpoint holds of it; an optimizer's arrays as they are, not copies."""
    if isinstance(thing, Optimizer):
        return {"params": thing.params, **dump(thing, copied=False)}
    if isinstance(thing, Random):
        return _random_state(thing)
    return thing.state_dict()


def adjusted(optimizer: Optimizer, state: Mapping[str, Any], keep: bool) -> dict[str, Any]:
    """A decoded state with the optimizer's present hyperparameters and options, if these are kept;
    otherwise as it is, with a warning of schedules that have ended.
    """
    live = dump(optimizer, copied=False)
    saved = state.get("param_groups")
    if not isinstance(saved, (list, tuple)) or len(saved) != len(live["param_groups"]):
        return dict(state)  # which is refused elsewhere
    if keep:
        groups = [
            {**ours, "params": theirs.get("params")}
            for ours, theirs in zip(live["param_groups"], saved, strict=True)
        ]
        return {**state, "param_groups": groups, "options": live["options"]}
    for ours, theirs in zip(live["param_groups"], saved, strict=True):
        for name, value in theirs.items():
            end = end_of(value)
            if end is not None and end <= state["step_count"] and value != ours.get(name):
                warnings.warn(
                    f"{name} becomes the saved {value!r}, which has ended at step "
                    f"{state['step_count']}; pass keep_hyperparameters=True to go on with "
                    f"{ours.get(name)!r}",
                    stacklevel=3,
                )
    return dict(state)


def restore(things: Iterable[tuple[str, Any, Any]], archive: Archive) -> None:
    """Give things the states that `Decoder` returned, and fill the optimizers' arrays from the file.

    Args:
        things: names, for messages, things and their states.
        archive: where the arrays are.

    Raises:
        CheckpointError: one of them refuses; all are as they were.
    """
    things = list(things)
    _engine.together(
        [thing._gate for _, thing, _ in things if isinstance(thing, Optimizer)],
        lambda: _restore(things, archive),
    )


def _restore(things: list[tuple[str, Any, Any]], archive: Archive) -> None:
    """Check everything that can be checked, then change everything, whatever signals come."""
    optimizers, others = [], []
    for name, thing, state in things:
        with refusals(archive, name):
            if isinstance(thing, Optimizer):
                optimizers.append((_prepared(thing, state, archive), state))
            else:
                others.append((name, thing, loaded(state, archive)))

    def commit() -> None:
        undo: list[Callable[[], object]] = []
        try:
            for name, thing, state in others:
                with refusals(archive, name):
                    undo.append(_apply(thing, state))
            try:
                for prepared, state in optimizers:
                    _read(prepared, state, archive)
            except Exception as error:
                raise archive.error(
                    f"could be read once, but not a second time: {error!r}. Part of the arrays are "
                    "those of the file now"
                ) from error
        except BaseException:
            for step in reversed(undo):
                step()
            raise
        for prepared, _ in optimizers:
            prepared.assign()

    _engine.uninterrupted(commit)


def decode_optimizer(decoder: Decoder, node: Any, name: str, optimizer: Optimizer) -> Any:
    """An optimizer's stored state, with the functions that the live optimizer has.

    Raises:
        ValueError: a function that the file names is not there, or one with a state is there that
            would no longer be used.
    """
    live = dump(optimizer, copied=False)
    state = decoder.decode(node, name, live)
    used = dict(functions_in({key: state.get(key) for key in ("param_groups", "options")}, name))
    for path, function in used.items():
        if isinstance(function, UserFunction):
            raise ValueError(
                f"{path} was the function {function.name!r}, which the file cannot hold; make the "
                "optimizer with it before loading"
            )
    for path, function in functions_in(live, name):
        if has_state(function) and not any(function is other for other in used.values()):
            raise ValueError(
                f"{path} is {function!r} here and something else in the file; it would no longer be "
                "used, so make the optimizer as it was made when the file was saved"
            )
    return state


def loaded(value: Any, archive: Archive) -> Any:
    """A decoded value with all arrays read."""
    if isinstance(value, StoredArray):
        return archive.read(value)
    if isinstance(value, dict):
        return {key: loaded(x, archive) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([loaded(x, archive) for x in value])
    return value


@contextmanager
def refusals(archive: Archive, name: str) -> Iterator[None]:
    """Turn what an object raises about its state into a CheckpointError that names both."""
    try:
        yield
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise archive.error(f"does not fit {name!r}, and nothing was loaded: {error}") from error


# --- random generators and others ---


def _apply(thing: Any, state: Any) -> Callable[[], object]:
    """Give a thing that is no optimizer its state; what undoes that."""
    if isinstance(thing, Random):
        before = _random_state(thing)
        _set_random_state(thing, _checked_random_state(state))
        return lambda: _set_random_state(thing, before)
    before = copy.deepcopy(thing.state_dict())  # it may be live
    try:
        thing.load_state_dict(state)
    except BaseException:
        thing.load_state_dict(before)
        raise
    return lambda: thing.load_state_dict(before)


def _random_state(rng: Any) -> Any:
    if isinstance(rng, np.random.Generator):
        return rng.bit_generator.state
    return rng.get_state(legacy=False)


def _set_random_state(rng: Any, state: Any) -> None:
    if isinstance(rng, np.random.Generator):
        rng.bit_generator.state = state
    else:
        rng.set_state(state)


def _checked_random_state(state: Any) -> Any:
    """The state, if its position is within its buffer: NumPy would read outside."""
    if not isinstance(state, dict):
        raise TypeError(f"the state of a random generator must be a dict, got {state!r}")
    if state.get("bit_generator") == "MT19937":
        _check_position("pos", state["state"]["pos"], 624)
    if state.get("bit_generator") == "Philox":
        _check_position("buffer_pos", state["buffer_pos"], 4)
    return state


def _check_position(name: str, value: Any, most: int) -> None:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name} must be an integer in [0, {most}], got {value!r}")


# --- optimizers ---


def _prepared(optimizer: Optimizer, state: Any, archive: Archive) -> Loaded:
    """Check parameters and state; the optimizer as it will be, but for what is in the arrays."""
    for name, param in optimizer.params.items():
        check_parameter(name, param)  # that it is still writeable
    _check_params(optimizer.params, state["params"])
    live = dump(optimizer, copied=False)
    stand_ins = _stand_ins(live, state["state"], archive)
    return prepare(optimizer, {**state, "state": stand_ins}, strict=True)


def _check_params(params: Mapping[str, Array], stored: Any) -> None:
    differing = sorted(set(params) ^ set(stored))
    if differing:
        raise ValueError(f"only one of file and optimizer has these parameters: {differing}")
    for name, param in params.items():
        if not isinstance(stored[name], StoredArray) or not _fits(stored[name], param):
            raise ValueError(
                f"parameter {name!r} has shape {param.shape} and dtype {param.dtype}, and in the file "
                f"shape {stored[name].shape} and dtype {stored[name].dtype.newbyteorder('=')}"
            )


def _stand_ins(
    before: Mapping[str, Any], stored: Mapping[str, Any], archive: Archive
) -> dict[str, Any]:
    """A state in which every array is the live one already; or, for want of one, a scalar in disguise.

    So loading it checks all and copies nothing, but for state that is stored in other bits here: that is
    read.
    """

    def stand_in(value: Any, live: Any) -> Any:
        if not isinstance(value, StoredArray):
            return value
        if isinstance(live, np.ndarray) and _fits(value, live):
            return live
        if isinstance(live, np.ndarray) and _is_converted(value, live):
            return archive.read(value)
        return np.broadcast_to(np.zeros((), value.dtype.newbyteorder("=")), value.shape)

    return {
        name: {key: stand_in(x, before["state"].get(name, {}).get(key)) for key, x in entry.items()}
        for name, entry in stored.items()
    }


def _fits(stored: StoredArray, array: Array) -> bool:
    return stored.shape == array.shape and stored.dtype.newbyteorder("=") == array.dtype


def _is_converted(stored: StoredArray, live: Array) -> bool:
    """Whether an array of the state has another `state_dtype` in the file."""
    dtype = stored.dtype.newbyteorder("=")
    return dtype != live.dtype and not {dtype, live.dtype}.isdisjoint(NARROW)


def _read(prepared: Loaded, stored: Any, archive: Archive) -> None:
    """Parameters and state, from the file into their arrays."""
    prepared.copy()
    for name, param in prepared.optimizer.params.items():
        archive.read_into(stored["params"][name], param)
    for name, entry in prepared.bound.shaped_state(copied=False).items():
        for slot, array in entry.items():
            if isinstance(array, np.ndarray) and not _is_converted(
                stored["state"][name][slot], array
            ):
                archive.read_into(stored["state"][name][slot], array)
