"""`save` and `load`: a checkpoint's header, and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastgd import _engine
from fastgd.checkpoint import _npz
from fastgd.checkpoint._codec import Decoder, Encoder
from fastgd.checkpoint._npz import Archive, Array, CheckpointError
from fastgd.checkpoint._objects import (
    KINDS,
    OPTIMIZER,
    adjusted,
    decode_optimizer,
    kind_of,
    loaded,
    refusals,
    restore,
    state_of,
)
from fastgd.optimizers import Optimizer

FORMAT = "fastgd checkpoint"
VERSION = 1  # of the header; a change that an older fastgd would misread needs the next number
# How to make a header of version n one of version n + 1, so that all older ones can be read.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

FilePath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]


@dataclass(frozen=True, eq=False, repr=False)
class Checkpoint:
    """What `load` found in a file.

    Attributes:
        metadata: what was given to `save`.
        objects: without an optimizer given to `load`, the state of everything in the file by name, as
            dicts with arrays of their own; that of an optimizer is its `state_dict` and "params".
            Otherwise empty.
        fastgd_version: of the fastgd that wrote the file.
        format_version: of the file.
    """

    metadata: dict[str, Any]
    objects: dict[str, Any]
    fastgd_version: str
    format_version: int

    @property
    def parameters(self) -> dict[str, Array]:
        """The optimizer's parameters by name, as in `Optimizer.params`."""
        parameters: dict[str, Array] = self.objects["optimizer"]["params"] if self.objects else {}
        return parameters

    def __repr__(self) -> str:
        return (
            f"<Checkpoint by fastgd {self.fastgd_version}: objects {list(self.objects)}, "
            f"metadata {self.metadata!r}>"
        )


def save(
    path: FilePath,
    optimizer: Optimizer,
    *,
    metadata: Mapping[str, Any] | None = None,
    **objects: Any,
) -> None:
    """Write parameters, optimizer state and whatever else a run consists of to one file.

    The file is complete or not there: it is written under another name in the same directory, forced
    to the disk, and renamed. Until then an older checkpoint of that name stays as it is, whatever
    happens; a signal, Ctrl-C among them, is handled when the file is complete. A process killed
    meanwhile leaves a file `.name.*.tmp`, which the next `save` of that name removes. Parameters and
    optimizer state are written from where they lie, without a copy; steps of this optimizer in other
    threads wait.

    Schedules made by `fastgd.schedules` are stored by the call that makes them. Of any other function
    the name is stored: `load` takes the function itself from the optimizer that it is given.

    The file is an uncompressed NumPy .npz without pickled objects: `numpy.load(path)` shows its
    arrays, and `unzip -p path header.json` the rest. It has no dates: the same state gives the same file.

    Args:
        path: the file. No extension is added.
        optimizer: its parameters, state, step counts, hyperparameters and options are saved.
        metadata: anything of your own: a dict of None, numbers, strings, arrays, and lists, tuples and
            dicts of them.
        **objects: what else to save, by a name that `load` must be given too: a
            `numpy.random.Generator` (or RandomState), another optimizer with its parameters, or
            anything that has state_dict() and load_state_dict(), such as `MiniBatches`.

    Raises:
        TypeError: something is of a kind that cannot be saved; the message says where it is.
        ValueError: containers nested over 100 deep, or an integer of thousands of digits.
        OSError: the file could not be written. An older one is as it was, and usable.

    Example:
        >>> import os, tempfile
        >>> import numpy as np, fastgd
        >>> def run():
        ...     W, rng = np.zeros(3), np.random.default_rng(0)
        ...     return W, fastgd.Adam(W, lr=fastgd.schedules.cosine(0.1, total_steps=9)), rng
        >>> W, opt, rng = run()
        >>> for _ in range(4):
        ...     _ = opt.step(W - rng.normal(size=3))
        >>> path = os.path.join(tempfile.mkdtemp(), "run.npz")
        >>> fastgd.save(path, opt, rng=rng, metadata={"data": "v2"})
        >>> resumed, resumed_opt, resumed_rng = run()          # perhaps in another process
        >>> fastgd.load(path, resumed_opt, rng=resumed_rng).metadata
        {'data': 'v2'}
        >>> for params, o, r in ((W, opt, rng), (resumed, resumed_opt, resumed_rng)):
        ...     _ = o.step(params - r.normal(size=3))
        >>> resumed_opt.step_count, bool((resumed == W).all())
        (5, True)
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"save needs an optimizer, got {type(optimizer).__name__}: {optimizer!r}")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a dict, got {type(metadata).__name__}: {metadata!r}")
    if "strict" in objects:
        raise ValueError("an object cannot be named 'strict', which is an option of load")
    things = {"optimizer": optimizer, **objects}
    kinds = _kinds(things)
    optimizers = [name for name, kind in kinds.items() if kind == OPTIMIZER]
    states = {name: state_of(things[name]) for name in things if name not in optimizers}
    _engine.read_together(
        [things[name]._gate for name in optimizers],
        _engine.uninterrupted,  # or Ctrl-C could fall between opening a file and having it closed
        lambda: _save(os.fsdecode(path), metadata or {}, things, kinds, states),
    )


def _save(
    path: str,
    metadata: Mapping[str, Any],
    things: Mapping[str, Any],
    kinds: Mapping[str, str],
    states: dict[str, Any],
) -> None:
    """Write the file; `states` are those of all but the optimizers, which nobody changes now."""
    encoder = Encoder()
    states = states | {name: state_of(things[name]) for name in things if name not in states}
    header = _header(
        encoder.encode(dict(metadata), "metadata"),
        {
            name: {
                "kind": kind,
                "class": type(things[name]).__qualname__,
                "state": encoder.encode(states[name], name, functions=kind == OPTIMIZER),
            }
            for name, kind in kinds.items()
        },
    )
    _write(path, header, encoder.arrays)


def load(
    path: FilePath,
    optimizer: Optimizer | None = None,
    *,
    strict: bool = True,
    keep_hyperparameters: bool = False,
    **objects: Any,
) -> Checkpoint:
    """Continue from a file that `save` wrote, or look into it.

    With an optimizer, everything is restored in place: make it and the other objects as they were
    made for the run that was saved, and load. Parameters must have the same names, shapes and dtypes;
    hyperparameters and options become the saved ones. Functions that are not from `fastgd.schedules`
    must stand where they stood, under the same name, and a `ReduceOnPlateau` of yours takes over the
    saved one's state, and stays the one that the optimizer uses. Without an optimizer, the result
    holds everything.

    The whole file is verified before anything is changed: each bit of it is covered by a checksum, and
    its contents must fit what they are loaded into. What is loaded is data; no code in the file is
    ever run. Files of up to 256 MB are read once; larger ones twice, in order not to need the memory.

    Args:
        path: the file.
        optimizer: of the same class as the one saved. None to look only.
        strict: require that everything the file holds is asked for. False leaves the rest.
        keep_hyperparameters: keep the hyperparameters and options of the optimizers given, such as a
            longer schedule, instead of taking the saved ones. Otherwise a warning tells of a schedule
            that is replaced by one that has already ended.
        **objects: under the names that `save` was given.

    Returns:
        A `Checkpoint`, with the metadata.

    Raises:
        OSError: the file could not be read.
        TypeError: an argument is of the wrong kind.
        CheckpointError: the file is damaged, incomplete, of a newer format or not a checkpoint, or it
            does not fit what is given. A ValueError. Everything is as it was, unless a file over
            256 MB changes or the disk fails between the two times that it is read; the message
            says so then.

    Example:
        See `save`. To look into a file:

        >>> import os, tempfile
        >>> import numpy as np, fastgd
        >>> path = os.path.join(tempfile.mkdtemp(), "run.npz")
        >>> fastgd.save(path, fastgd.SGD({"W": np.ones(2)}, lr=0.5), metadata={"loss": 0.25})
        >>> checkpoint = fastgd.load(path)
        >>> checkpoint.parameters, checkpoint.metadata
        ({'W': array([1., 1.])}, {'loss': 0.25})
        >>> checkpoint.objects["optimizer"]["param_groups"][0]["lr"]
        0.5
    """
    if optimizer is None and objects:
        raise TypeError(f"load needs the optimizer too, besides {sorted(objects)}")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise TypeError(f"load needs an optimizer, got {type(optimizer).__name__}: {optimizer!r}")
    things = {} if optimizer is None else {"optimizer": optimizer, **objects}
    kinds = _kinds(things)
    with Archive(os.fsdecode(path)) as archive:
        header = _current(archive)
        try:
            saved = {
                name: (entry["kind"], entry["state"]) for name, entry in header["objects"].items()
            }
            _check_names(archive, kinds, saved, strict)
            states, reloads, metadata = _decode(archive, header["metadata"], things, saved)
        except CheckpointError:
            raise
        except Exception as error:  # a header of wrong structure raises many kinds
            raise archive.error(f"has a header that save would not write: {error!r}") from error
        checkpoint = Checkpoint(
            metadata=loaded(metadata, archive),
            objects={} if things else loaded(states, archive),
            fastgd_version=str(header["fastgd"]),
            format_version=header["version"],
        )
        for name, kind in kinds.items():
            if kind == OPTIMIZER:
                states[name] = adjusted(things[name], states[name], keep_hyperparameters)
        restore([*reloads, *((name, things[name], states[name]) for name in things)], archive)
        return checkpoint


def _kinds(things: Mapping[str, Any]) -> dict[str, str]:
    """The kind of each thing, all of them different."""
    kinds = {name: kind_of(name, thing) for name, thing in things.items()}
    names = {id(thing): name for name, thing in things.items()}
    for name, thing in things.items():
        if names[id(thing)] != name:
            raise ValueError(f"{name!r} and {names[id(thing)]!r} are the same object")
    return kinds


def _header(metadata: Any, objects: Any) -> dict[str, Any]:
    import fastgd  # complete by now, which it is not when it imports this module

    return {
        "format": FORMAT,
        "version": VERSION,
        "fastgd": fastgd.__version__,
        "metadata": metadata,
        "objects": objects,
    }


def _write(path: str, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    try:
        _npz.write(path, header, arrays)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}; the checkpoint was not saved, and an older one is as it was",
            path,
        ) from error


def _current(archive: Archive) -> dict[str, Any]:
    """The header in the present version."""
    header = archive.header
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise archive.error("is not a checkpoint of fastgd.save")
    version, author = header.get("version"), header.get("fastgd")
    if type(version) is not int or version < 1:
        raise archive.error(f"has no valid version number: {version!r}")
    if version > VERSION:
        raise archive.error(
            f"was written by fastgd {author} in format {version}; this fastgd reads formats up to "
            f'{VERSION}: pip install --upgrade "fastgd>={author}"'
        )
    for older in range(version, VERSION):
        header = UPGRADES[older](header)
    return {**header, "version": version}


def _check_names(
    archive: Archive,
    kinds: Mapping[str, str],
    saved: Mapping[str, tuple[str, Any]],
    strict: bool,
) -> None:
    """Compare what is asked for with what there is."""
    missing = [name for name in kinds if name not in saved]
    if missing:
        raise archive.error(f"has no {missing}; it has {list(saved)}")
    left = [name for name in saved if name not in kinds]
    if strict and kinds and left:
        raise archive.error(
            f"also has {left}: pass what should continue with it, as in load(path, optimizer, "
            f"{left[0]}=...), or strict=False to leave it"
        )
    for name, kind in kinds.items():
        if saved[name][0] != kind:
            raise archive.error(
                f"has {KINDS[saved[name][0]]} as {name!r}, which is {KINDS[kind]} here"
            )


def _decode(
    archive: Archive, metadata: Any, things: Mapping[str, Any], saved: Mapping[str, tuple[str, Any]]
) -> tuple[dict[str, Any], list[tuple[str, Any, Any]], Any]:
    """The states by name, the functions that have states of their own, and the metadata."""
    decoder, states = Decoder(), {}
    for name, (_, node) in saved.items():
        thing = things.get(name)
        if isinstance(thing, Optimizer):
            with refusals(archive, name):
                states[name] = decode_optimizer(decoder, node, name, thing)
        else:
            states[name] = decoder.decode(node, name)
    result = decoder.decode(metadata, "metadata")
    archive.check_arrays(decoder.arrays)
    return states, decoder.reloads, result
