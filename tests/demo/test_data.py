"""The demo's data: what it makes of them, and that damaged files are refused by name."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastgd.demo import DemoError, data, idx
from tests.demo.files import (
    IMAGES,
    LABELS,
    TEST_IMAGES,
    TEST_LABELS,
    complaint,
    packed,
    stripes,
    write_folder,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory of IDX files; see `write_folder`."""
    return write_folder(tmp_path)


def test_idx_files_are_read_as_they_are(folder: Path) -> None:
    images, labels = stripes(60, seed=0)
    np.testing.assert_array_equal(idx.read_idx(folder / IMAGES, 3), images)
    np.testing.assert_array_equal(idx.read_idx(folder / f"{LABELS}.gz", 1), labels)


def test_pixels_are_normalized_by_the_training_images(folder: Path) -> None:
    dataset = data.from_directory(folder)
    images, labels = stripes(60, seed=0)
    tests, test_labels = stripes(20, seed=1)
    pixels = images.reshape(60, 30).astype(np.float64)
    mean = pixels.mean(axis=0)
    scale = 8 / np.sqrt(((pixels - mean) ** 2).sum(axis=1).mean())
    for part, raw, expected in (
        (dataset.train, images, labels),
        (dataset.test, tests, test_labels),
    ):
        normal = (raw.reshape(len(raw), 30) - mean) * scale
        np.testing.assert_allclose(part.images, normal, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(part.labels, expected)
        assert part.images.dtype == np.float32
        assert part.labels.dtype == np.intp
    assert (dataset.size, dataset.classes) == ((6, 5), 3)


def test_images_without_contrast_are_no_division_by_zero(folder: Path) -> None:
    (folder / IMAGES).write_bytes(packed(np.full((60, 6, 5), 7)))
    assert not data.from_directory(folder).train.images.any()


def test_the_digits_are_split_alike_in_every_class() -> None:
    pytest.importorskip("sklearn")
    dataset = data.digits()
    assert (len(dataset.train), len(dataset.test)) == (1347, 450)
    shares = np.bincount(dataset.test.labels) / np.bincount(dataset.train.labels)
    np.testing.assert_allclose(shares, 1 / 3, rtol=0, atol=0.02)


Damage = Callable[[bytes], bytes]


def compressed(damage: Damage) -> Damage:
    """Damage to the compressed file."""
    return lambda content: damage(gzip.compress(content, mtime=0))


def flipped(place: int) -> Damage:
    """One byte replaced by its complement."""
    return lambda c: c[:place] + bytes([c[place] ^ 0xFF]) + c[place:][1:]


FILES: dict[str, tuple[str, Damage, str]] = {
    "an empty file": (IMAGES, lambda c: b"", "truncated, only 0 bytes long"),
    "no header": (IMAGES, lambda c: c[:3], "truncated, only 3 bytes long"),
    "half a header": (IMAGES, lambda c: c[:9], "truncated, its header ends too early"),
    "a header only": (IMAGES, lambda c: c[:16], "truncated, 0 bytes follow the header of 1,800"),
    "one byte missing": (IMAGES, lambda c: c[:-1], "truncated, 1,799 bytes follow the header"),
    "one byte too many": (
        IMAGES,
        lambda c: c + b"\0",
        "has more than the 1,800 bytes of the shape",
    ),
    "another format": (
        IMAGES,
        lambda c: b"\x89PNG" + c,
        "not an IDX file, it begins with the bytes",
    ),
    "no such type": (IMAGES, lambda c: c[:2] + b"\x0a" + c[3:], "not an IDX file, it begins"),
    "floats": (IMAGES, lambda c: c[:2] + b"\x0d" + c[3:], "has 32-bit floats (type 0x0d)"),
    "labels as images": (IMAGES, lambda c: packed([1, 2, 3]), "has 1 dimensions, not 3"),
    "images as labels": (LABELS, lambda c: packed([[[1]]]), "has 3 dimensions, not 1"),
    "no images": (IMAGES, lambda c: packed(np.empty((0, 6, 5))), "empty, its shape is 0x6x5"),
    "a size beyond memory": (
        IMAGES,
        lambda c: c[:4] + b"\xff" * 12 + c[16:],
        "truncated, 1,800 bytes follow the header of 79,228,162,458,924,105,385,300,197,375",
    ),
    "too few labels": (LABELS, lambda c: packed(np.arange(59) % 3), "has 59 labels, but"),
    "too many labels": (TEST_LABELS, lambda c: packed(np.arange(21) % 3), "has 21 labels, but"),
    "other image sizes": (
        TEST_IMAGES,
        lambda c: packed(np.zeros((20, 5, 6))),
        "has images of 5x6 pixels, but train-images-idx3-ubyte of 6x5",
    ),
    "a gzip file cut off": (IMAGES, compressed(lambda c: c[:-9]), "truncated, its compressed data"),
    "a gzip header cut off": (
        IMAGES,
        compressed(lambda c: c[:5]),
        "truncated, its compressed data",
    ),
    "a gzip file's checksum": (IMAGES, compressed(flipped(-5)), "corrupted, its compressed data"),
    "a gzip file's length": (IMAGES, compressed(flipped(-1)), "corrupted, its compressed data"),
    "a gzip file's content": (IMAGES, compressed(flipped(40)), "corrupted, its compressed data"),
    "a gzip file's method": (IMAGES, compressed(flipped(2)), "corrupted, its compressed data"),
    "text after a gzip file": (IMAGES, compressed(lambda c: c + b"end"), "corrupted"),
    "a short gzip file": (
        IMAGES,
        lambda c: gzip.compress(c[:-1]),
        "truncated, 1,799 bytes follow the header",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_damaged_file_is_refused_by_name(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, damage, message = FILES[case]
    path = folder / name if (folder / name).exists() else folder / f"{name}.gz"
    content = path.read_bytes()
    path.write_bytes(damage(content))
    line = complaint(capsys, "--data", str(folder))
    assert f"{path}: {message}" in line


@pytest.mark.parametrize("name", data.IDX_FILES)
def test_a_missing_file_is_named(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (folder / name, folder / f"{name}.gz"):
        path.unlink(missing_ok=True)
    line = complaint(capsys, "--data", str(folder))
    assert f"{folder / name}: missing, and so is {name}.gz" in line


def test_a_directory_in_a_files_place_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / IMAGES).unlink()
    (folder / IMAGES).mkdir()
    assert f"{folder / IMAGES}: cannot be read" in complaint(capsys, "--data", str(folder))


def test_every_byte_of_a_compressed_file_is_guarded(tmp_path: Path) -> None:
    content = gzip.compress(packed(np.arange(30)), mtime=0)
    path = tmp_path / "file"
    unguarded = {*range(4, 10)}  # gzip's header: time, compression level, operating system
    for place in range(len(content)):
        path.write_bytes(flipped(place)(content))
        if place not in unguarded:
            with pytest.raises(DemoError, match=str(path)):
                idx.read_idx(path, 1)
