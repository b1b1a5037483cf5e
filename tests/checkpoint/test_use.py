"""save and load, how they behave: all or nothing, in one file, with clear refusals."""

from __future__ import annotations

import _thread
import os
import signal
import stat
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd.checkpoint import _npz
from tests.checkpoint.objects import Box, everything, files, frozen, gradients, like, trained


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.npz"


def _nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


# ---------------------------------------------------------------- all or nothing


def test_one_refusal_undoes_all(rng: np.random.Generator, path: Path) -> None:
    saved = trained(rng)
    fastgd.save(
        path, saved, rng=rng, sampler=fastgd.MiniBatches(np.zeros(9), seed=5), last=Box("refuse")
    )
    opt, ours, box = trained(rng), np.random.default_rng(1), Box(1)
    batches = fastgd.MiniBatches(np.zeros(9), seed=6)

    def now() -> Any:
        return everything(opt), ours.bit_generator.state, batches.state_dict(), box.value

    before = now()
    with pytest.raises(fastgd.CheckpointError, match=r"does not fit 'last'.*no such state"):
        fastgd.load(path, opt, rng=ours, sampler=batches, last=box)
    assert now() == before


def test_second_optimizer_refuses(rng: np.random.Generator, path: Path) -> None:
    fastgd.save(path, trained(rng, "SGD", momentum=0.9), critic=trained(rng))
    opt, critic = trained(rng, "SGD"), fastgd.Adam(np.zeros(3))
    before = everything(opt), everything(critic)
    with pytest.raises(fastgd.CheckpointError, match=r"'critic'.*only one.*'F', 'W'"):
        fastgd.load(path, opt, critic=critic)
    assert (everything(opt), everything(critic)) == before


@pytest.mark.parametrize(
    ("other", "matches"),
    [
        (
            fastgd.Adam({"W": np.zeros(3)}),
            r"parameter 'W' has shape \(3,\).*in the file shape \(2,\)",
        ),
        (fastgd.Adam({"W": np.zeros(2, "f4")}), "'W' has .*float32, and in the file .*float64"),
        (fastgd.Adam({"V": np.zeros(2)}), r"only one of file and optimizer.*\['V', 'W'\]"),
        (fastgd.AdamW({"W": np.zeros(2)}), "'Adam', this is 'AdamW'"),
        (
            fastgd.Adam([{"params": {"W": np.zeros(2)}}, {"params": np.zeros(1)}]),
            r"parameters: \['0/W', '1', 'W'\]",
        ),
    ],
)
def test_other_optimizers_are_refused(other: Any, matches: str, path: Path) -> None:
    opt = fastgd.Adam({"W": np.ones(2)})
    opt.step({"W": np.ones(2)})
    fastgd.save(path, opt)
    before = everything(other)
    with pytest.raises(fastgd.CheckpointError, match=matches) as caught:
        fastgd.load(path, other)
    assert str(path) in str(caught.value)
    assert everything(other) == before


def test_a_file_that_changes_between_the_readings(
    rng: np.random.Generator, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files are read twice; that the second time fails is told."""
    monkeypatch.setattr(_npz, "IN_MEMORY", 0)
    saved = trained(rng)
    fastgd.save(path, saved)
    opt, batches = like(saved), Box(1)
    fill, content = _npz.Archive.read_into, bytearray(path.read_bytes())

    def spoil(self: Any, array: Any, target: Any) -> None:
        with path.open("r+b") as file:
            file.write(b"\0" * len(content))
        fill(self, array, target)

    monkeypatch.setattr(_npz.Archive, "read_into", spoil)
    with pytest.raises(fastgd.CheckpointError, match="not a second time"):
        fastgd.load(path, opt)
    assert batches.value == 1
    assert opt.step_count == 0


@pytest.mark.parametrize("limit", [0, 2**28], ids=["twice", "once"])
def test_large_and_small_files(
    limit: int, rng: np.random.Generator, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_npz, "IN_MEMORY", limit)
    opt = trained(rng)
    fastgd.save(path, opt)
    other = like(opt)
    fastgd.load(path, other)
    assert everything(other) == everything(opt)


def test_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither saving nor loading needs a second copy of the model."""
    monkeypatch.setattr(_npz, "IN_MEMORY", 0)
    opt = fastgd.Adam(np.ones(4_000_000, np.float32))
    tracemalloc.start()
    try:
        fastgd.save(path, opt)
        fastgd.load(path, opt)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6e6  # the model has 16 MB, and its state 32 MB


# ---------------------------------------------------------------- names of objects


def test_objects_left_out(rng: np.random.Generator, path: Path) -> None:
    fastgd.save(path, trained(rng), rng=rng, sampler=Box(1))
    opt = trained(rng)
    before = everything(opt)
    with pytest.raises(
        fastgd.CheckpointError, match=r"also has \['rng', 'sampler'\].*strict=False"
    ):
        fastgd.load(path, opt)
    with pytest.raises(fastgd.CheckpointError, match=r"also has \['rng'\]"):
        fastgd.load(path, opt, sampler=Box())
    assert everything(opt) == before
    fastgd.load(path, opt, strict=False)
    assert everything(opt) != before


def test_objects_that_are_not_there(rng: np.random.Generator, path: Path) -> None:
    fastgd.save(path, trained(rng), sampler=Box(1))
    with pytest.raises(fastgd.CheckpointError, match=r"has no \['rng'\].*'sampler'"):
        fastgd.load(path, trained(rng), rng=rng, strict=False)


def test_objects_of_another_kind(rng: np.random.Generator, path: Path) -> None:
    fastgd.save(path, trained(rng), thing=Box(1))
    with pytest.raises(fastgd.CheckpointError, match=r"object with state_dict.* as 'thing'"):
        fastgd.load(path, trained(rng), thing=rng)


@pytest.mark.parametrize(
    ("call", "error", "matches"),
    [
        (lambda path, opt: fastgd.save(path, np.zeros(2)), TypeError, "save needs an optimizer"),
        (
            lambda path, opt: fastgd.save(path, opt, metadata=[1]),
            TypeError,
            "metadata must be a dict",
        ),
        (lambda path, opt: fastgd.save(path, opt, rng=3), TypeError, "rng must be"),
        (lambda path, opt: fastgd.save(path, opt, box=Box), TypeError, "box must be"),
        (lambda path, opt: fastgd.save(path, opt, same=opt), ValueError, "are the same object"),
        (lambda path, opt: fastgd.save(3, opt), TypeError, "PathLike"),
        (lambda path, opt: fastgd.load(path, {}), TypeError, "load needs an optimizer"),
        (lambda path, opt: fastgd.load(path, box=Box()), TypeError, "optimizer too"),
        (lambda path, opt: fastgd.load(path, opt, box=1), TypeError, "box must be"),
        (lambda path, opt: fastgd.load(path), FileNotFoundError, "run.npz"),
        (lambda path, opt: fastgd.load(path.parent), IsADirectoryError, "directory"),
    ],
)
def test_bad_arguments(
    call: Any, error: type[Exception], matches: str, rng: np.random.Generator, path: Path
) -> None:
    with pytest.raises(error, match=matches):
        call(path, trained(rng))
    assert files(path.parent) == []


# ---------------------------------------------------------------- looking into a file


def test_inspection(rng: np.random.Generator, path: Path) -> None:
    opt = trained(rng, lr=lambda step: 0.1)
    fastgd.save(path, opt, rng=rng, box=Box((1, np.arange(3))), metadata={"note": "x"})
    checkpoint = fastgd.load(path)
    assert list(checkpoint.objects) == ["optimizer", "rng", "box"]
    assert frozen(checkpoint.parameters) == frozen(opt.params)
    assert frozen(checkpoint.objects["optimizer"]["state"]) == frozen(opt.state_dict()["state"])
    assert checkpoint.objects["rng"] == rng.bit_generator.state
    assert checkpoint.metadata == {"note": "x"}
    assert (checkpoint.fastgd_version, checkpoint.format_version) == (fastgd.__version__, 1)
    assert "lambda" in repr(checkpoint.objects["optimizer"]["param_groups"][0]["lr"])
    assert repr(checkpoint) == (
        f"<Checkpoint by fastgd {fastgd.__version__}: objects ['optimizer', 'rng', 'box'], "
        "metadata {'note': 'x'}>"
    )
    checkpoint.parameters["W"][...] = 0  # ours to change


def test_restored_checkpoint_has_metadata_only(rng: np.random.Generator, path: Path) -> None:
    opt = trained(rng)
    fastgd.save(path, opt, metadata={"history": np.arange(3)})
    checkpoint = fastgd.load(path, opt)
    assert checkpoint.metadata["history"].tolist() == [0, 1, 2]
    assert checkpoint.objects == {}
    assert checkpoint.parameters == {}


# ---------------------------------------------------------------- the file


def test_paths(rng: np.random.Generator, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opt = trained(rng)
    monkeypatch.chdir(path.parent)
    for given in (str(path), os.fsencode(path), path, "run.npz", "./run.npz"):
        fastgd.save(given, opt)
        assert fastgd.load(given).objects
        path.unlink()


def test_same_state_same_bytes(rng: np.random.Generator, path: Path) -> None:
    opt = trained(rng, lr=fastgd.schedules.cosine(0.1, total_steps=9))
    fastgd.save(path, opt, rng=rng)
    first = path.read_bytes()
    fastgd.save(path, opt, rng=rng)
    assert path.read_bytes() == first


def test_permissions(rng: np.random.Generator, path: Path) -> None:
    opt = trained(rng)
    old = os.umask(0o027)
    try:
        fastgd.save(path, opt)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        fastgd.save(path, opt)
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(old)


def test_symbolic_links_stay(rng: np.random.Generator, path: Path) -> None:
    (path.parent / "real").mkdir()
    real = path.parent / "real" / "file"
    path.symlink_to(real)
    fastgd.save(path, trained(rng))
    assert path.is_symlink()
    assert files(real.parent) == ["file"]
    assert fastgd.load(path).objects


def test_hard_links_keep_the_old_content(rng: np.random.Generator, path: Path) -> None:
    opt = trained(rng)
    fastgd.save(path, opt)
    before = path.read_bytes()
    backup = path.with_name("backup.npz")
    backup.hardlink_to(path)
    opt.step(gradients(opt, rng))
    fastgd.save(path, opt)
    assert backup.read_bytes() == before != path.read_bytes()


def test_threads(path: Path) -> None:
    """Saving waits for a step to end and a step for saving: no file has half a step."""
    params = [np.zeros(50_000), np.zeros(50_000)]
    opt = fastgd.SGD(params, lr=1.0)
    ones = [np.ones(50_000)] * 2
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            opt.step(ones)
            np.sin(ones[0])  # what a gradient takes: the optimizer is free meanwhile

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            fastgd.save(path, opt)
            checkpoint = fastgd.load(path)
            count = checkpoint.objects["optimizer"]["step_count"]
            assert {x for p in checkpoint.parameters.values() for x in np.unique(p)} == {-count}
    finally:
        stop.set()
        thread.join()


def test_two_writers_of_one_name(rng: np.random.Generator, path: Path) -> None:
    """Several threads saving different optimizers to one path: the file is always one of them."""
    optimizers = [fastgd.SGD(np.full(2000, float(i))) for i in range(4)]
    errors: list[BaseException] = []

    def work(opt: Any) -> None:
        try:
            for _ in range(20):
                fastgd.save(path, opt)
                assert np.unique(fastgd.load(path).parameters["params"]).size == 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(opt,)) for opt in optimizers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert files(path.parent) == ["run.npz"]


def test_a_frozen_parameter_is_refused_before_anything_is_loaded(path: Path) -> None:
    saved = fastgd.SGD([np.ones(2), np.ones(2)], lr=0.7)
    saved.step([np.ones(2), np.ones(2)])
    fastgd.save(path, saved)
    first, second = np.zeros(2), np.zeros(2)
    opt = fastgd.SGD([first, second], lr=0.1)
    second.flags.writeable = False
    before = everything(opt)
    with pytest.raises(
        fastgd.CheckpointError, match="nothing was loaded: parameter '1' is read-only"
    ):
        fastgd.load(path, opt)
    assert everything(opt) == before


class Stubborn:
    """Changes before it refuses, and hands out what it lives on."""

    def __init__(self, n: int, refuses: bool = False) -> None:
        self.state, self.refuses = {"n": n}, refuses

    def state_dict(self) -> dict[str, int]:
        return self.state

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.state.update(state)
        if self.refuses and state["n"] == 7:
            raise ValueError("not seven")


@pytest.mark.parametrize("refusing", ["first", "second"])
def test_objects_that_change_before_they_refuse(path: Path, refusing: str) -> None:
    opt = fastgd.SGD(np.ones(2), lr=0.5)
    fastgd.save(path, opt, first=Stubborn(7), second=Stubborn(7))
    things = {name: Stubborn(1, refuses=name == refusing) for name in ("first", "second")}
    with pytest.raises(fastgd.CheckpointError, match="not seven"):
        fastgd.load(path, opt, **things)
    assert [thing.state for thing in things.values()] == [{"n": 1}, {"n": 1}]


@pytest.mark.parametrize("at", range(1, 8))
def test_an_interrupt_while_arrays_are_read(
    rng: np.random.Generator, path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """It comes through when everything is loaded."""
    saved, opt = trained(rng), trained(rng)
    fastgd.save(path, saved)
    read, calls = _npz.Archive.read_into, [0]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it

    def interrupted(self: Any, stored: Any, target: Any) -> None:
        calls[0] += 1
        if calls[0] == at:
            _thread.interrupt_main()  # as Ctrl-C
        read(self, stored, target)

    monkeypatch.setattr(_npz.Archive, "read_into", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            fastgd.load(path, opt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert everything(opt) == everything(saved)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"n": 10**5000}, "metadata/n: an integer of over 4,000 digits"),
        ({"a": _nested(101)}, "nested more than 100 deep"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(path: Path, metadata: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fastgd.save(path, fastgd.SGD(np.ones(2)), metadata=metadata)
    assert files(path.parent) == []


def test_what_is_nested_deeply_comes_back(path: Path) -> None:
    opt, metadata = fastgd.SGD(np.ones(2)), {"a": _nested(90), "n": 10**3900}
    fastgd.save(path, opt, metadata=metadata)
    assert fastgd.load(path, opt).metadata == metadata


def test_no_object_is_named_like_an_option_of_load(path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="cannot be named 'strict'"):
        fastgd.save(path, fastgd.SGD(np.ones(2)), strict=rng)
    assert files(path.parent) == []
