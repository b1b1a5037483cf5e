"""Rows of mini-batches: bit for bit X[index], from any array, from SciPy's CSR and from files."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastgd
from fastgd.sampling import _rows
from fastgd.sampling._samplers import BLOCKS_PER_WINDOW

N = 23
X = np.arange(N * 3, dtype=np.float32).reshape(N, 3)
Y = np.arange(N)


RNG = np.random.default_rng(0)
DTYPES = ["?", "i1", "u2", "i4", "i8", "f2", "f4", "f8", "g", "c8", "c16", ">f8", ">i2", "S5", "U3",
          "M8[s]", "V7", "i4, f8, S3", "O"]  # fmt: skip


def of_dtype(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if dtype == "O":
        return np.array([object() for _ in range(math.prod(shape))]).reshape(shape)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    octets = RNG.integers(0, 128, size, dtype=np.uint8)
    return np.frombuffer(octets.tobytes(), dtype).reshape(shape).copy()


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(N,), (N, 1), (N, 5), (N, 2, 3), (N, 0), (N, 2, 0, 2)])
def test_batches_are_fancy_indexing_bit_for_bit(dtype: str, shape: tuple[int, ...]) -> None:
    array = of_dtype(dtype, shape)
    for size in (1, 4, N):
        for prefetch in (0, 2):
            batches = fastgd.MiniBatches(array, batch_size=size, prefetch=prefetch)
            order = batches.order()
            for number, (batch,) in enumerate(batches):
                assert type(batch) is np.ndarray
                assert same_bits(batch, array[order[number * size : (number + 1) * size]])


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "fortran": np.asfortranarray,
    "backwards": lambda a: a[::-1],
    "columns": lambda a: a[:, ::2],
    "first columns": lambda a: a[:, :2],
    "every second row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "broadcast": lambda a: np.broadcast_to(a[0], a.shape),
    "unaligned": lambda a: np.ndarray(a.shape, a.dtype, b"x" + a.tobytes(), offset=1),
    "subclass": lambda a: a.view(np.recarray),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout(layout: str) -> None:
    array = LAYOUTS[layout](of_dtype("f8", (N, 4)))
    for size in (1, 4):
        for reuse in (False, True):
            batches = fastgd.MiniBatches(array, batch_size=size, reuse=reuse)
            order = batches.order()
            for number, (batch,) in enumerate(batches):
                expected = np.asarray(array)[order[number * size : (number + 1) * size]]
                assert same_bits(batch, expected)


def test_string_dtype_is_not_copied_as_bytes() -> None:
    array = np.array(
        [f"a string too long to be inlined {i}" for i in range(N)], np.dtypes.StringDType()
    )
    batches = fastgd.MiniBatches(array, batch_size=4)
    assert np.concatenate([b for (b,) in batches]).tolist() == array[batches.order(0)].tolist()


def test_structure_of_batches() -> None:
    (only,) = fastgd.MiniBatches(X)
    assert isinstance(only, tuple)
    assert len(only) == 1
    batch = next(iter(fastgd.MiniBatches({"x": X, "y": Y, 3: X}, batch_size=4)))
    assert list(batch) == ["x", "y", 3]
    assert_array_equal(batch["x"], X[batch["y"]])
    for xb, yb, zb in fastgd.MiniBatches(X, Y, -Y, batch_size=4):
        assert_array_equal(xb, X[yb])
        assert_array_equal(zb, -yb)


class Foreign:
    """Something like a tensor of another library."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return X


def test_anything_with_array_protocol() -> None:
    for xb, yb in fastgd.MiniBatches(Foreign(), Y, batch_size=4):
        assert_array_equal(xb, X[yb])


@pytest.mark.parametrize(
    "options", [{}, {"batch_size": 1}, {"batch_size": 4, "shuffle": False}, {"shard": (1, 2)},
                {"prefetch": 2}, {"batch_size": 4, "shuffle": False, "shard": (1, 2)}]
)  # fmt: skip
def test_views_share_the_data_but_cannot_change_it(options: dict[str, Any]) -> None:
    array = X.copy()
    for (batch,) in fastgd.MiniBatches(array, **options):
        assert np.shares_memory(batch, array)
        with pytest.raises(ValueError, match="read-only"):
            batch[0] = 0
    assert array.flags.writeable


@pytest.mark.parametrize("options", [{"batch_size": 4}, {"batch_size": 1, "prefetch": 2},
                                     {"batch_size": 4, "shuffle": False, "prefetch": 1},
                                     {"replacement": True}])  # fmt: skip
def test_gathered_batches_are_the_callers_own(options: dict[str, Any]) -> None:
    kept = [xb for xb, _ in fastgd.MiniBatches(X, Y, **options)]
    for number, batch in enumerate(kept):
        assert batch.flags.writeable
        assert batch.flags.owndata
        assert not any(np.shares_memory(batch, other) for other in [X, *kept[:number]])


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_reused_buffers_hold_until_the_next_batch(prefetch: int) -> None:
    batches = fastgd.MiniBatches(X, Y, batch_size=4, reuse=True, prefetch=prefetch)
    expected = batches.order()
    addresses = set()
    for number, (xb, yb) in enumerate(batches):
        addresses.add(xb.ctypes.data)
        assert yb.tolist() == expected[number * 4 : number * 4 + 4].tolist()
        assert_array_equal(xb, X[yb])
    assert len(addresses) == 1 + prefetch


def test_reused_buffers_are_no_larger_than_the_data() -> None:
    ((batch,),) = fastgd.MiniBatches(X, batch_size=10**15, reuse=True)
    assert batch.shape == X.shape


# ---------------------------------------------------------------- SciPy


@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array"])
@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"batch_size": 4}, {"shard": (1, 2)},
                                     {"batch_size": 4, "shuffle": False, "shard": (0, 2)},
                                     {"batch_size": 4, "prefetch": 2, "reuse": True}])  # fmt: skip
def test_csr_rows(kind: str, options: dict[str, Any]) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    dense = np.where(X % 2 == 0, X, 0)
    matrix = getattr(sparse, kind)(dense)
    for xb, yb in fastgd.MiniBatches(matrix, Y, **options):
        assert type(xb) is type(matrix)
        assert xb.dtype == matrix.dtype
        assert_array_equal(xb.toarray(), dense[yb])


def test_whole_csr_matrix_is_not_copied() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.csr_array(X)
    ((batch,),) = fastgd.MiniBatches(matrix)
    assert batch is matrix


def test_other_sparse_formats_are_refused() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match="array 1 is a 2-d sparse matrix in 'csc' format"):
        fastgd.MiniBatches(Y, sparse.csc_array(X))


def test_scipy_is_not_imported() -> None:
    code = (
        "import sys, numpy as np, fastgd; list(fastgd.MiniBatches(np.eye(3), batch_size=2));"
        "assert not any(name.startswith('scipy') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---------------------------------------------------------------- files


def mapped(path: Path, n: int, row: int = 3) -> np.memmap:
    array = np.memmap(path / "x.bin", np.float32, "w+", shape=(n, row))
    array[...] = np.arange(n, dtype=np.float32)[:, np.newaxis]
    return array


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The ranges of rows read ahead."""
    calls: list[tuple[int, int]] = []
    real = _rows.DenseRows.touch

    def touch(self: _rows.DenseRows, start: int, stop: int) -> None:
        calls.append((start, stop))
        real(self, start, stop)

    monkeypatch.setattr(_rows.DenseRows, "touch", touch)
    return calls


@pytest.mark.parametrize("size", [1, 64])
@pytest.mark.parametrize("count", [1, 3])
def test_files_are_read_block_by_block(
    tmp_path: Path, touched: list[tuple[int, int]], size: int, count: int
) -> None:
    block, n = 8, 8 * (2 * BLOCKS_PER_WINDOW + 9) + 3
    array = mapped(tmp_path, n)
    window = block * BLOCKS_PER_WINDOW
    for rank in range(count):
        touched.clear()
        batches = fastgd.MiniBatches(
            array, np.arange(n), batch_size=size, block_size=block, shard=(rank, count)
        )
        for xb, yb in batches:
            assert type(xb) is np.ndarray
            assert_array_equal(xb[:, 0], yb)
            read = {start // block for start, _ in touched}
            assert set((yb // block).tolist()) <= read  # nothing is used before it has been read
        starts = [start for start, _ in touched]
        assert all(stop - start == block for start, stop in touched)
        assert len(set(starts)) == len(starts)  # and nothing is read twice
        jumps_back = sum(second < first for first, second in pairwise(starts))
        assert jumps_back <= n // window  # in file order within each window
        assert len(starts) <= n / count / block + 2 * BLOCKS_PER_WINDOW


def test_blocks_mix_within_windows_only() -> None:
    block, n = 5, 5 * 3 * BLOCKS_PER_WINDOW
    order = fastgd.MiniBatches(np.arange(n), batch_size=10, block_size=block).order()
    windows = order.reshape(3, -1)
    for window in windows:
        blocks, counts = np.unique(window // block, return_counts=True)
        assert blocks.size == BLOCKS_PER_WINDOW
        assert_array_equal(counts, block)
        assert len(set((window[:block] // block).tolist())) > 1
    assert len(set((windows[0] // (n // 3)).tolist())) == 3  # a window has blocks of everywhere


def test_block_size_is_automatic_for_files_only(tmp_path: Path) -> None:
    array = mapped(tmp_path, 50, row=1024)

    def block_size(*data: np.ndarray, **options: Any) -> Any:
        return fastgd.MiniBatches(*data, **options).state_dict()["options"]["block_size"]

    assert block_size(array, batch_size=4) == 256
    assert block_size(array[5:45, 1:], batch_size=4) == 2**20 // (4 * 1023)
    assert block_size(np.asarray(array), np.arange(50), batch_size=4) == 256
    assert block_size(array, array, batch_size=4) == 128
    assert block_size(array, batch_size=4, block_size=9) == 9
    assert block_size(array) is None
    assert block_size(array, batch_size=4, shuffle=False) is None
    assert block_size(array, batch_size=4, replacement=True) is None
    assert block_size(array, batch_size=4, stratify=np.zeros(50)) is None
    assert block_size(array.T, batch_size=4) is None
    assert block_size(np.array(array), batch_size=4) is None


def test_resuming_reads_no_window_that_has_passed(
    tmp_path: Path, touched: list[tuple[int, int]]
) -> None:
    n = 4 * 3 * BLOCKS_PER_WINDOW
    batches = fastgd.MiniBatches(mapped(tmp_path, n), batch_size=32, block_size=4)
    state = {**batches.state_dict(), "position": len(batches) - 2}
    batches.load_state_dict(state)
    got = np.concatenate([xb[:, 0] for (xb,) in batches])
    assert_array_equal(got, batches.order(0)[-64:])
    assert len(touched) == BLOCKS_PER_WINDOW
