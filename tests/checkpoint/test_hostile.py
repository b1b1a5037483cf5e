"""Files made with bad intentions: checksums right, contents wrong."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd.checkpoint import _npz
from fastgd.schedules import warmup
from tests.checkpoint.objects import DIGEST, everything, frozen, signed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.npz"


class Hostile:
    """A small run, its file taken apart, and what may not happen when a changed one is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.optimizer = fastgd.Adam({"W": np.ones(3), "b": np.ones(2)}, lr=warmup(0.5, 3))
        self.optimizer.step({"W": np.ones(3), "b": np.ones(2)})
        self.objects = {
            "mt": np.random.Generator(np.random.MT19937(1)),
            "philox": np.random.Generator(np.random.Philox(1)),
            "sampler": fastgd.MiniBatches(np.zeros(5), batch_size=2),
        }
        fastgd.save(path, self.optimizer, metadata={"x": [1, (2.0,)]}, **self.objects)
        with zipfile.ZipFile(path) as archive:
            self.members = {name: archive.read(name) for name in archive.namelist()}
        self.header = json.loads(self.members.pop("header.json"))
        self.content = path.read_bytes()

    def now(self) -> Any:
        return (
            everything(self.optimizer),
            frozen([self.objects[name].bit_generator.state for name in ("mt", "philox")]),
            self.objects["sampler"].state_dict(),
        )

    def write(self, compression: int = zipfile.ZIP_STORED) -> None:
        """Write the file again, with a right checksum."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            archive.comment = _npz.COMMENT + b"0" * DIGEST
            archive.writestr("header.json", json.dumps(self.header))
            for name, content in self.members.items():
                archive.writestr(name, content)
        self.path.write_bytes(signed(buffer.getvalue()))

    def refused(self, matches: str, look: bool = True) -> None:
        before = self.now()
        with pytest.raises(fastgd.CheckpointError, match=matches) as caught:
            fastgd.load(self.path, self.optimizer, **self.objects)
        assert str(self.path) in str(caught.value)
        assert self.now() == before
        if look:
            with pytest.raises(fastgd.CheckpointError, match=matches):
                fastgd.load(self.path)


@pytest.fixture
def hostile(path: Path) -> Hostile:
    return Hostile(path)


def test_taken_apart_and_put_together(hostile: Hostile) -> None:
    hostile.write()
    fastgd.load(hostile.path, hostile.optimizer, **hostile.objects)


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def array(**changes: Any) -> dict[str, Any]:
    """The node of a parameter, changed."""
    node = {
        "$array": "optimizer/params/W",
        "dtype": "<f8",
        "shape": [3],
        "fortran_order": False,
    }
    return {key: value for key, value in (node | changes).items() if value is not None}


# Where in the header what is put, and what the message says.
CHANGES: list[tuple[str, Any, str]] = [
    ("", [], "not a checkpoint"),
    ("", None, "not a checkpoint"),
    ("format", "other", "not a checkpoint"),
    ("version", 0, "no valid version"),
    ("version", True, "no valid version"),
    ("version", "1", "no valid version"),
    ("version", None, "no valid version"),
    ("version", 99, r"format 99.*pip install"),
    ("objects", [1], "would not write"),
    ("objects", {"optimizer": {}}, "would not write"),
    ("objects/optimizer/state/params/W", array(dtype="|O"), "would not write|nothing was loaded"),
    ("objects/optimizer/state/params/W", array(dtype="<U1"), "dtype '<U1'"),
    ("objects/optimizer/state/params/W", array(dtype="<f99"), "f99"),
    ("objects/optimizer/state/params/W", array(dtype="=f8"), "dtype '=f8'"),
    ("objects/optimizer/state/params/W", array(dtype=8), "would not write|nothing was loaded"),
    ("objects/optimizer/state/params/W", array(dtype=None), "dtype"),
    ("objects/optimizer/state/params/W", array(dtype="<f4"), "wrong size"),
    ("objects/optimizer/state/params/W", array(dtype="<i8"), "wrong kind"),
    ("objects/optimizer/state/params/W", array(shape=[3, 1]), "wrong kind"),
    ("objects/optimizer/state/params/W", array(shape=[-3]), r"shape \(-3,\)"),
    ("objects/optimizer/state/params/W", array(shape=[3.0]), r"shape \(3\.0,\)"),
    ("objects/optimizer/state/params/W", array(shape=[True, 3]), "shape"),
    ("objects/optimizer/state/params/W", array(shape=[2**40, 2**40]), "wrong size"),
    ("objects/optimizer/state/params/W", array(shape=[2**64]), "shape"),
    ("objects/optimizer/state/params/W", array(shape=[1] * 100), "shape"),
    ("objects/optimizer/state/params/W", array(shape=3), "would not write|nothing was loaded"),
    ("objects/optimizer/state/params/W", array(fortran_order=True), "wrong kind"),
    ("objects/optimizer/state/params/W", {"$array": "optimizer/params/b"}, "dtype"),
    ("objects/optimizer/state/params/W", array(**{"$array": "x"}), "members that its header names"),
    ("objects/optimizer/state/params/W", array(**{"$array": []}), "unhashable|not hashable|list"),
    ("objects/optimizer/state/params/W", 1, "members|would not write"),
    ("metadata/x", array(), "two arrays|members"),
    ("metadata/x", {"$eval": "1"}, "eval"),
    ("metadata/x", {"$tuple": 5}, "would not write"),
    ("metadata/x", {"$tuple": {"a": 1}}, "would not write"),
    ("metadata/x", {"$dict": [[[1], 2]]}, "would not write"),
    ("metadata/x", {"$dict": 3}, "would not write"),
    ("metadata/x", {"$float": "one"}, "would not write"),
    ("metadata/x", {"$schedule": "eval", "arguments": {}}, "would not write"),
    ("metadata/x", {"$schedule": "Schedule", "arguments": {}}, "would not write"),
    ("metadata/x", {"$schedule": "ReduceOnPlateau", "arguments": {}}, "would not write"),
    ("metadata/x", {"$schedule": "cosine", "arguments": {"lr": -1}}, "would not write"),
    ("metadata/x", {"$schedule": "cosine", "arguments": []}, "would not write"),
    ("metadata/x", {"$schedule": "constant", "arguments": {"value": array()}}, "would not write"),
    ("metadata/x", {"$function": "f", "id": 0, "state": {}, "arguments": {"lr": -1}}, "would not"),
]
# The same, but only an optimizer or another object that is given notices.
CHANGES_OF_STATES: list[tuple[str, Any, str]] = [
    ("objects/optimizer/kind", "random", "random generator as 'optimizer'"),
    ("objects/mt/kind", "state_dict", "state_dict.* as 'mt'"),
    ("objects/optimizer/state/optimizer", "Adagrad", "'Adagrad'"),
    ("objects/optimizer/state/step_count", -1, "step_count"),
    ("objects/optimizer/state/step_count", 1.5, "step_count"),
    ("objects/optimizer/state/state/W/step", -1, "step"),
    ("objects/optimizer/state/state/W/step", 2**70, ""),
    ("objects/optimizer/state/state/W", {"step": 1}, "exp_avg|members"),
    ("objects/optimizer/state/param_groups/0/lr", -1.0, r"lr must be .*\[0, inf\).*-1.0"),
    ("objects/optimizer/state/param_groups/0/lr", {"$float": "nan"}, r"lr must .*\[0, inf\).*nan"),
    ("objects/optimizer/state/param_groups/0/lr", "0.1", "lr must be a number"),
    ("objects/optimizer/state/param_groups/0/betas", 0.1, "betas"),
    ("objects/optimizer/state/param_groups/0/extra", 0.1, "hyperparameters"),
    ("objects/optimizer/state/param_groups/0/params", ["W"], r"\['W', 'b'\]"),
    ("objects/optimizer/state/param_groups", [], "1 groups"),
    ("objects/optimizer/state/param_groups", 3, "1 groups|'param_groups'"),
    ("objects/optimizer/state/options", {}, "options"),
    ("objects/optimizer/state/options/clip_norm", -1, "clip_norm"),
    ("objects/optimizer/state/options/nonfinite", "ignore", "nonfinite"),
    ("objects/mt/state/state/pos", 625, r"pos must be .*\[0, 624\], got 625"),
    ("objects/mt/state/state/pos", -1, "pos must be"),
    ("objects/mt/state/state/pos", 1.0, "pos must be"),
    ("objects/mt/state/state", 3, "does not fit 'mt'|members"),
    ("objects/mt/state", [], "members|does not fit 'mt'"),
    ("objects/philox/state/buffer_pos", 5, r"buffer_pos must be .*\[0, 4\], got 5"),
    ("objects/philox/state/buffer_pos", -1, "buffer_pos must be"),
    ("objects/philox/state/uinteger", 2**80, "does not fit 'philox'"),
    ("objects/sampler/state/position", 9, "does not fit 'sampler'.*position.*9"),
    ("objects/sampler/state", None, "does not fit 'sampler'"),
]


def put(header: Any, where: str, value: Any) -> Any:
    if not where:
        return value
    key, _, rest = where.partition("/")
    if isinstance(header, list):
        header[int(key)] = put(header[int(key)], rest, value)
    else:
        header[key] = put(header.get(key), rest, value)
    return header


@pytest.mark.parametrize(("where", "value", "matches"), CHANGES)
def test_headers(where: str, value: Any, matches: str, hostile: Hostile) -> None:
    hostile.header = put(hostile.header, where, value)
    hostile.write()
    hostile.refused(matches)


@pytest.mark.parametrize(("where", "value", "matches"), CHANGES_OF_STATES)
def test_states(where: str, value: Any, matches: str, hostile: Hostile) -> None:
    hostile.header = put(hostile.header, where, value)
    hostile.write()
    hostile.refused(matches or "does not fit", look=False)


def test_nesting(hostile: Hostile) -> None:
    hostile.header["metadata"] = {"x": 0}
    text = json.dumps(hostile.header).replace('"x": 0', '"x": ' + "[" * 100_000 + "]" * 100_000)
    write_members(hostile, {"header.json": text.encode(), **hostile.members})
    hostile.refused("format of a checkpoint|would not write")


def test_no_json(hostile: Hostile) -> None:
    for text in (b"", b"{", b"\xff", b'{"version": 1', b"[" * 10):
        write_members(hostile, {"header.json": text, **hostile.members})
        hostile.refused("not in the format of a checkpoint")


def write_members(hostile: Hostile, members: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = _npz.COMMENT + b"0" * DIGEST
        for name, content in members.items():
            archive.writestr(name, content)
    hostile.path.write_bytes(signed(buffer.getvalue()))


def test_members(hostile: Hostile) -> None:
    header = {"header.json": json.dumps(hostile.header).encode()}
    write_members(hostile, hostile.members)
    hostile.refused("has no header.json")
    write_members(hostile, header | hostile.members | {"evil.py": b""})
    hostile.refused(r"members that its header names: \['evil.py'\]")
    write_members(hostile, header)
    hostile.refused("members that its header names")
    name = "optimizer/params/W.npy"
    write_members(hostile, header | hostile.members | {name: hostile.members[name][:-1]})
    hostile.refused("wrong size: 'optimizer/params/W'")
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}] * 3, dtype=object), allow_pickle=True)
    write_members(hostile, header | hostile.members | {name: pickled.getvalue()})
    hostile.refused("wrong (size|kind): 'optimizer/params/W'")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_members(compression: int, hostile: Hostile) -> None:
    """A small file could be a bomb."""
    hostile.write(compression)
    hostile.refused("compressed or encrypted member: 'header.json'")


def directory(content: bytes) -> int:
    """Where the archive's directory begins."""
    return content.index(b"PK\x01\x02")


@pytest.mark.parametrize(
    ("edit", "matches"),
    [
        (lambda entry: entry[:8] + b"\x01\x08" + entry[10:], "compressed or encrypted"),
        (lambda entry: entry[:10] + b"\x08\x00" + entry[12:], "compressed or encrypted"),
        (lambda entry: entry[:20] + b"\xf0\xff\xff\x7f" * 2 + entry[28:], "larger than the file"),
        (lambda entry: entry[:42] + b"\x00" * 4 + entry[46:], "overlapping"),
        (lambda entry: entry[:42] + b"\xf0\xff\xff\x7f" + entry[46:], "larger than the file"),
    ],
    ids=["encrypted", "deflated", "large", "overlapping", "outside"],
)
def test_directory(edit: Callable[[bytes], bytes], matches: str, hostile: Hostile) -> None:
    content = hostile.content
    start = content.index(b"PK\x01\x02", directory(content) + 4)  # of the second member
    end = content.index(b"PK\x01\x02", start + 4)
    changed = content[:start] + edit(content[start:end]) + content[end:]
    hostile.path.write_bytes(signed(changed))
    hostile.refused(matches)


def test_two_members_of_one_name(hostile: Hostile) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = _npz.COMMENT + b"0" * DIGEST
        archive.writestr("header.json", json.dumps(hostile.header))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("header.json", "{}")
    hostile.path.write_bytes(signed(buffer.getvalue()))
    hostile.refused("two members of one name")


def test_any_byte_with_a_right_checksum(hostile: Hostile) -> None:
    """Nothing but CheckpointError, and nothing loaded then: the checksum keeps nobody out."""
    random = np.random.default_rng(3)
    before = hostile.now()
    refused = 0
    positions = random.choice(len(hostile.content) - DIGEST, 1000, replace=False)
    for position in positions:
        content = bytearray(hostile.content)
        content[position] ^= int(random.integers(1, 256))
        hostile.path.write_bytes(signed(bytes(content)))
        try:
            fastgd.load(hostile.path, hostile.optimizer, **hostile.objects)
        except fastgd.CheckpointError:
            refused += 1
            assert hostile.now() == before, position
        else:  # a date in the archive, or a number in the header
            hostile.path.write_bytes(hostile.content)
            fastgd.load(hostile.path, hostile.optimizer, **hostile.objects)
            assert hostile.now() == before
    assert 500 < refused < 1000


def test_not_a_file(path: Path) -> None:
    for content in (b"", b"PK", b"x" * 1000, b"\x00" * 64):
        path.write_bytes(content)
        with pytest.raises(fastgd.CheckpointError, match="does not end in a checksum"):
            fastgd.load(path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(fastgd.CheckpointError, match=r"not a checkpoint of fastgd\.save"):
        fastgd.load(path)
