"""The file format of checkpoints: an .npz whose every byte is covered by a checksum.

A checkpoint is a zip archive of uncompressed members: header.json first, then one .npy for each array,
so that `numpy.load` and `unzip` read it too. The archive's comment, which is the end of the file, ends in
64 hexadecimal digits: the SHA-256 of the whole file with zeros in their place. (The archive's own CRCs
leave the directory and the local headers uncovered.) This holds for all versions of the format, so
that a newer file is told from a damaged one.

Writing streams: arrays go from where they lie to the file. Opening reads the file once for the checksum,
then checks that names, sizes, dtypes, shapes and CRCs agree with each other: a checksum says nothing
about who wrote a file, so nothing in it is trusted, and nothing is allocated that the size of the file
does not justify. Only then is anything handed out. The file's bytes are never executed or unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgd.checkpoint._atomic_file import replacing

Array: TypeAlias = NDArray[Any]

HEADER = "header.json"
COMMENT = b"fastgd checkpoint, sha256 = "
DIGEST_SIZE = 64
NO_DIGEST = b"0" * DIGEST_SIZE
BLOCK = 2**20  # bytes that are read, hashed or written at a time
SMALL = 2**14  # what is less is gathered first
IN_MEMORY = 2**28  # files up to this size are read once, so that loading cannot fail half-way
LARGEST_HEADER = 2**28
DTYPE = re.compile(r"[<>|][biufc]\d{1,2}")


class CheckpointError(ValueError):
    """A checkpoint is damaged, too new, not one, or does not fit what it should be loaded into.

    Whatever it should have been loaded into is as it was, unless the message says otherwise.
    """


@dataclass(frozen=True)
class StoredArray:
    """An array in a file: its member's name without ".npy", and what its header must say."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool

    @classmethod
    def of(cls, name: str, array: Array) -> StoredArray:
        fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        return cls(name, array.dtype, array.shape, fortran)

    @property
    def order(self) -> Any:
        return "F" if self.fortran_order else "C"

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def npy_header(self) -> bytes:
        """The beginning of an .npy file, format 1.0 (NEP 1), padded to a multiple of 64 bytes."""
        text = (
            f"{{'descr': {self.dtype.str!r}, 'fortran_order': {self.fortran_order}, "
            f"'shape': {self.shape!r}, }}"
        ).encode()
        text += b" " * (-(len(text) + 11) % 64) + b"\n"
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


# --- writing ---


def write(path: str, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write a checkpoint, as one operation: see `_atomic_file.replacing`.

    Args:
        path: where to.
        header: what JSON takes.
        arrays: by member name, of a dtype that matches `DTYPE`. They must not change meanwhile.
    """
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    if len(text) > LARGEST_HEADER:
        raise ValueError(f"what is not an array takes {len(text)} bytes, over {LARGEST_HEADER}")
    with replacing(path) as file:
        stream = _HashedStream(file)
        with zipfile.ZipFile(stream, "w") as archive:  # type: ignore[call-overload]
            archive.comment = COMMENT + NO_DIGEST
            _write_member(archive, HEADER, text)
            for name, array in arrays.items():
                # At most this one array is copied, if it has gaps; parameters and states never do.
                array = np.asarray(array)
                if not (array.flags.c_contiguous or array.flags.f_contiguous):
                    array = np.ascontiguousarray(array)
                head = StoredArray.of(name, array).npy_header
                _write_member(archive, f"{name}.npy", head, _bytes_of(array))
        stream.flush()
        file.seek(-DIGEST_SIZE, os.SEEK_END)
        _write_all(file, stream.digest.hexdigest().encode())


class _HashedStream:
    """What ZipFile writes to: it hashes all that it passes on, small pieces together. Not seekable."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._small = bytearray()
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        if len(data) < SMALL:
            self._small += data
        if len(data) >= SMALL or len(self._small) >= BLOCK:
            self.flush()
        if len(data) >= SMALL:
            self._pass_on(data)
        return len(data)

    def flush(self) -> None:
        pieces, self._small = self._small, bytearray()
        self._pass_on(pieces)

    def _pass_on(self, data: Any) -> None:
        self.digest.update(data)
        _write_all(self._file, data)


def _write_all(file: io.FileIO, data: bytes | bytearray | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _write_member(archive: zipfile.ZipFile, name: str, *parts: bytes | memoryview) -> None:
    info = zipfile.ZipInfo(name)  # dated 1980: the same state gives the same file
    info.file_size = sum(len(part) for part in parts)  # tells whether it needs zip64
    with archive.open(info, "w") as member:
        for part in parts:
            for begin in range(0, len(part), BLOCK):
                member.write(part[begin : begin + BLOCK])


def _bytes_of(array: Array) -> memoryview:
    """The memory of a contiguous array."""
    return array.reshape(-1, order="A").view(np.uint8).data


# --- reading ---


class Archive:
    """A checkpoint file, opened and verified; `with` it."""

    def __init__(self, path: str) -> None:
        """
        Raises:
            OSError: the file cannot be read.
            CheckpointError: it is damaged or not a checkpoint.
        """
        self._path = path
        self._file, self.size = _verified(path)
        try:
            self._zip = zipfile.ZipFile(self._file)
            self._members = self._check_members()
            self.header = self._read_header()
        except CheckpointError:
            self._file.close()
            raise
        except Exception as error:  # zipfile raises some ten kinds of them
            self._file.close()
            raise self.error(f"is not in the format of a checkpoint: {error}") from error

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        self._file.close()

    def error(self, message: str) -> CheckpointError:
        return CheckpointError(f"{self._path!r} {message}")

    def check_arrays(self, arrays: Mapping[str, StoredArray]) -> None:
        """Check that the file has these arrays and no others, and every member's CRC.

        Raises:
            CheckpointError: it has not.
        """
        expected = {f"{name}.npy" for name in arrays} | {HEADER}
        if expected != set(self._members):
            differing = sorted(expected ^ set(self._members))
            raise self.error(f"does not have the members that its header names: {differing}")
        for array in arrays.values():
            info, head = self._members[f"{array.name}.npy"], array.npy_header
            if info.file_size != len(head) + array.size:
                raise self.error(f"has an array of the wrong size: {array.name!r}")
            try:
                with self._zip.open(info) as member:
                    if member.read(len(head)) != head:
                        raise self.error(f"has an array of the wrong kind: {array.name!r}")
                    while member.read(BLOCK):
                        pass
            except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
                raise self.error(f"is damaged: {error}") from error

    def read(self, array: StoredArray) -> Array:
        """An array of its own memory."""
        try:
            result = np.empty(array.shape, array.dtype, array.order)
        except ValueError as error:  # a shape with a 0 and something enormous
            raise self.error(f"has an array that cannot be: {array.name!r}") from error
        self._fill(array, result)
        return result

    def read_into(self, array: StoredArray, target: Array) -> None:
        """Fill an array of the same shape and dtype, up to byte order and memory order."""
        same_layout = (
            target.flags.f_contiguous if array.fortran_order else target.flags.c_contiguous
        )
        if same_layout and target.dtype == array.dtype:
            self._fill(array, target)
        else:
            target[...] = self.read(array)

    def _fill(self, array: StoredArray, target: Array) -> None:
        memory = _bytes_of(target)
        with self._zip.open(self._members[f"{array.name}.npy"]) as member:
            member.read(len(array.npy_header))
            for begin in range(0, len(memory), BLOCK):
                part = memory[begin : begin + BLOCK]
                part[:] = member.read(len(part))

    def _check_members(self) -> dict[str, zipfile.ZipInfo]:
        """The members by name: stored as they are, within the file, and none in another."""
        infos = self._zip.infolist()
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            stored = (
                info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
            )
            if not stored or info.flag_bits & ~0x808:  # sizes after the data; UTF-8 names
                raise self.error(f"has a compressed or encrypted member: {info.filename!r}")
            if info.header_offset < end:
                raise self.error(f"has overlapping members: {info.filename!r}")
            end = info.header_offset + info.file_size
            if end > self.size:
                raise self.error(f"has a member that is larger than the file: {info.filename!r}")
        members = {info.filename: info for info in infos}
        if len(members) != len(infos):
            raise self.error("has two members of one name")
        return members

    def _read_header(self) -> Any:
        if HEADER not in self._members:
            raise self.error(f"has no {HEADER}")
        if self._members[HEADER].file_size > LARGEST_HEADER:
            raise self.error(f"has a {HEADER} over {LARGEST_HEADER} bytes")
        return json.loads(self._zip.read(HEADER))


def _verified(path: str) -> tuple[IO[bytes], int]:
    """The file, its checksum compared, and its size."""
    file: IO[bytes] = open(path, "rb")  # noqa: SIM115 — open until the Archive is left
    try:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path!r} is not a regular file")
        if status.st_size <= IN_MEMORY:
            with file as source:
                file = io.BytesIO(source.read())
        size = file.seek(0, os.SEEK_END)
        _check_digest(path, file, size)
    except BaseException:
        file.close()
        raise
    return file, size


def _check_digest(path: str, file: IO[bytes], size: int) -> None:
    file.seek(max(0, size - DIGEST_SIZE - len(COMMENT)))
    comment, found = file.read(len(COMMENT)), file.read(DIGEST_SIZE)
    if comment != COMMENT or len(found) != DIGEST_SIZE:
        raise CheckpointError(
            f"{path!r} does not end in a checksum: it is incomplete, damaged or not a checkpoint "
            "of fastgd.save. Nothing was loaded; take an older checkpoint"
        )
    digest, left = hashlib.sha256(), size - DIGEST_SIZE
    file.seek(0)
    while left > 0:
        block = file.read(min(left, BLOCK))
        if not block:
            break  # truncated while it is read
        digest.update(block)
        left -= len(block)
    digest.update(NO_DIGEST)
    if digest.hexdigest().encode() != found:
        raise CheckpointError(
            f"{path!r} is damaged: its checksum is not that of its contents. Nothing was loaded; "
            "take an older checkpoint"
        )
