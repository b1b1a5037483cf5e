"""The demo's data: scikit-learn's bundled digits, or a directory of IDX files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgd.demo import DemoError, optional
from fastgd.demo.idx import read_idx

Images: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.intp]

TEST_SHARE = 0.25  # of the digits
SQUARED_NORM = 64.0  # of the training images, in the mean: the digits' 64 pixels have variance 1
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class Part:
    """Images, float32 (samples, pixels), and their labels, intp (samples,)."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Part:
        """The first samples, or all where there are fewer."""
        return Part(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class Dataset:
    """What to train on, and what to test with."""

    name: str
    train: Part
    test: Part
    size: tuple[int, int]  # height and width of an image
    classes: int

    def __str__(self) -> str:
        height, width = self.size
        return (
            f"{self.name}: {len(self.train):,} training and {len(self.test):,} test images "
            f"of {height}x{width} pixels, {self.classes} classes"
        )


def digits() -> Dataset:
    """The 1,797 handwritten digits that come with scikit-learn, a quarter of them held out.

    Which ones is the same at every seed of the demo, so that results of different seeds compare;
    each class has the same share in both parts.

    Raises:
        DemoError: scikit-learn is missing.
    """
    bundle = optional("sklearn.datasets").load_digits()
    split = optional("sklearn.model_selection").train_test_split
    train_x, test_x, train_y, test_y = split(
        bundle.data, bundle.target, test_size=TEST_SHARE, stratify=bundle.target, random_state=0
    )
    return _dataset("scikit-learn's digits", (8, 8), (train_x, train_y, test_x, test_y))


def from_directory(directory: Path) -> Dataset:
    """The data set in the four IDX files of MNIST's names, each with .gz at its end or without.

    Raises:
        DemoError: a file is missing or damaged, or the files do not belong together; names it.
    """
    paths = [_find(directory, name) for name in IDX_FILES]
    train_x, train_y, test_x, test_y = (
        read_idx(path, dimensions) for path, dimensions in zip(paths, (3, 1, 3, 1), strict=True)
    )
    for i, images, labels in ((0, train_x, train_y), (2, test_x, test_y)):
        if len(images) != len(labels):
            raise DemoError(
                f"{paths[i + 1]}: has {len(labels):,} labels, but {paths[i].name} "
                f"{len(images):,} images"
            )
    if train_x.shape[1:] != test_x.shape[1:]:
        (height, width), (h, w) = train_x.shape[1:], test_x.shape[1:]
        raise DemoError(
            f"{paths[2]}: has images of {h}x{w} pixels, but {paths[0].name} of {height}x{width}"
        )
    size = (int(train_x.shape[1]), int(train_x.shape[2]))
    return _dataset("IDX files", size, (train_x, train_y, test_x, test_y))


def _find(directory: Path, name: str) -> Path:
    if not os.path.isdir(directory):  # unlike Path.is_dir, False for all that is wrong
        raise DemoError(f"{directory}: no such directory")
    for path in (directory / name, directory / f"{name}.gz"):
        if os.path.exists(path):
            return path
    raise DemoError(f"{directory / name}: missing, and so is {name}.gz")


def _dataset(name: str, size: tuple[int, int], arrays: tuple[Any, Any, Any, Any]) -> Dataset:
    """Flatten the images, subtract the mean image, and scale all pixels by one number.

    Mean and scale are those of the training images. The largest stable learning rate falls as the
    squared norm of the inputs grows: with the same norm for all data the same rates suit them.
    """
    train_x, train_y, test_x, test_y = arrays
    train = train_x.reshape(len(train_x), -1).astype(np.float32)
    test = test_x.reshape(len(test_x), -1).astype(np.float32)
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    train -= mean
    test -= mean
    squared_norm = train.var(dtype=np.float64) * train.shape[1]
    scale = np.float32(np.sqrt(SQUARED_NORM / squared_norm) if squared_norm else 1.0)
    train *= scale
    test *= scale
    labels, test_labels = train_y.astype(np.intp), test_y.astype(np.intp)
    classes = 1 + int(max(labels.max(), test_labels.max()))
    return Dataset(name, Part(train, labels), Part(test, test_labels), size, classes)
