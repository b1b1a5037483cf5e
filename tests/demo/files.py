"""Data for the tests of the demo, as IDX files, and how its complaints look."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgd.__main__ import main
from fastgd.demo import data

IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = data.IDX_FILES


def packed(array: Any, kind: int = 0x08, dimensions: int | None = None) -> bytes:
    """An IDX file's bytes."""
    array = np.asarray(array, np.uint8)
    start = struct.pack(">BBBB", 0, 0, kind, array.ndim if dimensions is None else dimensions)
    return start + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def stripes(count: int, seed: int) -> tuple[Any, Any]:
    """Images of 6 by 5 pixels with one bright row, which their label tells, and noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=count)
    images = rng.integers(80, size=(count, 6, 5))
    images[np.arange(count), 2 * labels] += 120
    return images, labels


def write_folder(folder: Path) -> Path:
    """Write 60 training and 20 test images of 3 classes, half of the files plain, half not."""
    for seed, count, names in ((0, 60, (IMAGES, LABELS)), (1, 20, (TEST_IMAGES, TEST_LABELS))):
        images, labels = stripes(count, seed)
        (folder / names[0]).write_bytes(packed(images))
        (folder / f"{names[1]}.gz").write_bytes(gzip.compress(packed(labels)))
    return folder


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the demo says about its arguments, with exit status 2 and no output."""
    try:
        status: Any = main(["demo", *arguments])
    except SystemExit as end:
        status = end.code
    out, line = capsys.readouterr()
    assert (status, out) == (2, "")
    assert line.count("\n") == 1
    assert line.startswith("python -m fastgd")
    assert line.endswith("\n")
    return line
