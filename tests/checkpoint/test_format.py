"""The file: what other programs see, and versions old and new."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd.checkpoint import _files
from tests.checkpoint import version_1 as checkpoint_v1
from tests.checkpoint.objects import everything, frozen, trained


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.npz"


# ---------------------------------------------------------------- what other programs see


def test_numpy_reads_it(rng: np.random.Generator, path: Path) -> None:
    opt = trained(rng)
    fastgd.save(path, opt, metadata={"table": np.arange(3)})
    with np.load(path) as archive:  # without allow_pickle
        header = json.loads(archive["header.json"])
        for name, array in opt.params.items():
            assert frozen(archive[f"optimizer/params/{name}"]) == frozen(array)
            for slot in ("exp_avg", "exp_avg_sq"):
                stored = archive[f"optimizer/state/{name}/{slot}"]
                assert frozen(stored) == frozen(opt.state[name][slot])
        assert archive["metadata/table"].tolist() == [0, 1, 2]
        assert len(archive.files) == 1 + 3 * len(opt.params) + 1
    assert (header["format"], header["version"]) == ("fastgd checkpoint", 1)


def test_zip(rng: np.random.Generator, path: Path) -> None:
    fastgd.save(path, trained(rng))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.infolist()[0].filename == "header.json"
        json.loads(archive.read("header.json"), parse_constant=pytest.fail)  # no NaN, no Infinity


def test_zip64(rng: np.random.Generator, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large members and archives have other records; here from 40 bytes and 4 members on."""
    opt = trained(rng)
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 40)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    fastgd.save(path, opt)
    monkeypatch.undo()
    assert frozen(fastgd.load(path).parameters) == frozen(opt.params)
    with np.load(path) as archive:
        assert frozen(archive["optimizer/params/W"]) == frozen(opt.params["W"])


@pytest.mark.long
def test_many_arrays(path: Path) -> None:
    """More members than a zip archive had once room for."""
    opt = fastgd.SGD([np.full(1, float(i)) for i in range(70_000)])
    fastgd.save(path, opt)
    other = fastgd.SGD([np.zeros(1) for _ in range(70_000)])
    fastgd.load(path, other)
    assert [p[0] for p in other.params.values()] == list(range(70_000))


@pytest.mark.long
def test_more_than_4_gib(path: Path) -> None:
    params = np.zeros(2**30 + 5, np.float32)
    params[-3:] = 1, 2, 3
    opt = fastgd.SGD(params)
    fastgd.save(path, opt)
    assert path.stat().st_size > 2**32
    params[...] = 0
    fastgd.load(path, opt)
    assert params[-4:].tolist() == [0, 1, 2, 3]
    assert not params[:-3].any()


# ---------------------------------------------------------------- versions


def assert_loaded(things: dict[str, Any]) -> None:
    expected = checkpoint_v1.filled()
    for name in ("optimizer", "critic"):
        ours, theirs = everything(things[name]), everything(expected[name])
        for group in (*ours["param_groups"], *theirs["param_groups"]):
            if group["lr"] in (things["plateau"], expected["plateau"]):
                group["lr"] = "plateau"  # compared by identity; its state follows
        assert ours == theirs
    assert things["rng"].bit_generator.state == expected["rng"].bit_generator.state
    for name in ("sampler", "plateau"):
        assert things[name].state_dict() == expected[name].state_dict()


def load_v1(path: Path) -> Any:
    things = checkpoint_v1.empty()
    given = {name: things[name] for name in ("critic", "rng", "sampler")}
    metadata = fastgd.load(path, things["optimizer"], **given).metadata
    assert frozen(metadata) == frozen(checkpoint_v1.METADATA)
    return things


def test_format_1_loads() -> None:
    assert_loaded(load_v1(checkpoint_v1.FILE))


def test_format_1_is_what_save_writes(path: Path) -> None:
    """If this fails, an older fastgd may misread what is written now: should VERSION be 2?"""
    things = checkpoint_v1.filled()
    del things["plateau"]
    fastgd.save(path, things.pop("optimizer"), metadata=checkpoint_v1.METADATA, **things)
    now, then = contents(path), contents(checkpoint_v1.FILE)
    # Forms of an optimizer that came later: an older fastgd refuses the file for them.
    for ours, theirs in zip(groups(now), groups(then), strict=True):
        for name in set(ours) - set(theirs):
            assert name in ("centralize", "cautious", "state_dtype", "state_dir")
            del ours[name]
    assert now["header.json"] == then["header.json"]
    assert now == then


def groups(members: dict[str, Any]) -> list[dict[str, Any]]:
    """The parameter groups of all optimizers in a file."""
    objects = members["header.json"]["objects"].values()
    return [
        group
        for saved in objects
        if saved["kind"] == "optimizer"
        for group in saved["state"]["param_groups"]
    ]


def contents(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        members: dict[str, Any] = {name: archive.read(name) for name in archive.namelist()}
    header = members["header.json"] = json.loads(members["header.json"])
    del header["fastgd"], header["objects"]["sampler"]  # whose state is its own affair
    return members


def test_older_formats_are_upgraded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a format 2 would be introduced, which has metadata elsewhere."""

    def upgrade(header: dict[str, Any]) -> dict[str, Any]:
        return {**header, "metadata": {**header["metadata"], "upgraded": True}}

    monkeypatch.setattr(_files, "VERSION", 2)
    monkeypatch.setattr(_files, "UPGRADES", {1: upgrade})
    found = fastgd.load(checkpoint_v1.FILE)
    assert found.metadata["upgraded"] is True
    assert found.format_version == 1


def test_newer_formats_are_refused(
    rng: np.random.Generator, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opt = trained(rng)
    monkeypatch.setattr(_files, "VERSION", 3)
    monkeypatch.setattr(fastgd, "__version__", "7.1.0")
    fastgd.save(path, opt)
    monkeypatch.undo()
    before = everything(opt)
    with pytest.raises(
        fastgd.CheckpointError,
        match=r"written by fastgd 7\.1\.0 in format 3; this fastgd reads .* up to 1: .*fastgd>=7\.1\.0",
    ):
        fastgd.load(path, opt)
    assert everything(opt) == before
