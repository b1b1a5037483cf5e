"""Reading of IDX files, the format that MNIST and Fashion-MNIST come in, trusting nothing in them.

    offset  bytes
    0       2      zero
    2       1      type of the elements: 0x08 is unsigned bytes
    3       1      number of dimensions d
    4       4 d    sizes of the dimensions, big-endian
    4 + 4d         the elements, last dimension fastest

The format is described with the MNIST data set (LeCun, Cortes and Burges).
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from fastgd.demo import DemoError

Bytes: TypeAlias = NDArray[np.uint8]

_TYPES = {
    0x08: "unsigned bytes",
    0x09: "signed bytes",
    0x0B: "16-bit integers",
    0x0C: "32-bit integers",
    0x0D: "32-bit floats",
    0x0E: "64-bit floats",
}
_GZIP_MAGIC = b"\x1f\x8b"
_PIECE = 1 << 20


def read_idx(path: Path, dimensions: int) -> Bytes:
    """Read an IDX file of unsigned bytes, gzip-compressed or not, whatever its name says.

    Args:
        path: The file.
        dimensions: How many dimensions it must have.

    Returns:
        Read-only uint8 array with that many dimensions, none of size 0.

    Raises:
        DemoError: it cannot be read, is not such a file, is shorter or longer than its header says,
            or its compressed data are damaged. Names the file.
    """
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            stream = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if compressed else raw
            return _parse(path, stream, dimensions)
    except EOFError as error:
        raise DemoError(f"{path}: truncated, its compressed data end too early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DemoError(f"{path}: corrupted, its compressed data are damaged ({error})") from error
    except OSError as error:
        raise DemoError(f"{path}: cannot be read ({error.strerror or error})") from error


def _parse(path: Path, stream: BinaryIO, dimensions: int) -> Bytes:
    start = stream.read(4)
    if len(start) < 4:
        raise DemoError(f"{path}: truncated, only {len(start)} bytes long")
    zeros, kind, found = start[:2], start[2], start[3]
    if zeros != b"\0\0" or kind not in _TYPES:
        raise DemoError(f"{path}: not an IDX file, it begins with the bytes {start.hex(' ')}")
    if kind != 0x08:
        raise DemoError(
            f"{path}: has {_TYPES[kind]} (type 0x{kind:02x}), not unsigned bytes (0x08)"
        )
    if found != dimensions:
        raise DemoError(f"{path}: has {found} dimensions, not {dimensions}")
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DemoError(f"{path}: truncated, its header ends too early")
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    expected = math.prod(shape)
    if expected == 0:
        raise DemoError(f"{path}: empty, its shape is {_by(shape)}")
    content = _read(stream, expected + 1)  # and so to the end, where gzip compares the checksum
    if len(content) < expected:
        raise DemoError(
            f"{path}: truncated, {len(content):,} bytes follow the header of {expected:,} for the "
            f"shape {_by(shape)}"
        )
    if len(content) > expected:
        raise DemoError(f"{path}: has more than the {expected:,} bytes of the shape {_by(shape)}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read(stream: BinaryIO, most: int) -> bytes:
    """Up to `most` bytes, in pieces: memory follows the file, not what its header claims."""
    pieces: list[bytes] = []
    while most > 0 and (piece := stream.read(min(_PIECE, most))):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
