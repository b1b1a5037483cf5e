"""State in files, parameters and gradients that are a memmap: the same bits in little memory."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd._arrays.memory import is_mapped
from tests.cases import CASES, Case
from tests.support import assert_same_bits, optimizer

MB = 1 << 20


@pytest.fixture(autouse=True)
def small_windows() -> Iterator[None]:
    """Of a few chunks each, so that arrays of a few MB have many."""
    fastgd.set_resident_bytes(MB)
    yield
    fastgd.set_resident_bytes(None)


def in_file(path: Path, array: Any) -> Any:
    made = np.memmap(path, array.dtype, "w+", shape=array.shape)
    made[...] = array
    return made


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_rule_takes_the_same_steps(case: Case, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = {"W": (70, 1000), "b": (3,), "big": (500, 601)}
    if case.optimizer == "muon":
        del shapes["b"]
    start = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    mapped = {name: in_file(tmp_path / name, array) for name, array in start.items()}
    plain = optimizer(case.optimizer, {name: p.copy() for name, p in start.items()}, **case.kwargs)
    files = optimizer(case.optimizer, mapped, state_dir=tmp_path, **case.kwargs)
    for _ in range(2):
        grads = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
        given = {name: in_file(tmp_path / f"g{name}", grad) for name, grad in grads.items()}
        assert plain.step(grads, loss=1.0) == files.step(given, loss=1.0)
    for name in shapes:
        assert_same_bits(np.asarray(mapped[name]), plain.params[name], f"{case} {name}")
        for slot, value in plain.state[name].items():
            if isinstance(value, np.ndarray):
                assert_same_bits(files.state[name][slot], value, f"{case} {name} {slot}")
    assert plain.grad_norm == files.grad_norm


@pytest.mark.parametrize("state_dtype", [None, "bfloat16", "8bit"])
@pytest.mark.parametrize("threads", [1, 2])
def test_formats_options_and_threads(
    state_dtype: Any, threads: int, tmp_path: Path, restored_threads: None
) -> None:
    rng = np.random.default_rng(1)
    start = rng.standard_normal(900_000).astype(np.float32)
    options: dict[str, Any] = {"state_dtype": state_dtype, "clip_norm": 1.0, "nonfinite": "skip"}
    mapped = in_file(tmp_path / "p", start)
    plain, files = (
        fastgd.AdamW(start, **options),
        fastgd.AdamW(mapped, state_dir=tmp_path, **options),
    )
    plain.track_norms = files.track_norms = True
    fastgd.set_num_threads(threads)
    for dtype in (np.float32, np.float64, np.float16):
        grad = rng.standard_normal(900_000).astype(dtype)
        assert plain.step(grad)
        assert files.step(in_file(tmp_path / "g", grad))
        bad = grad.copy()
        bad[-1] = np.nan
        assert not files.step(bad)
    assert_same_bits(np.asarray(mapped), start)
    assert plain.grad_norm == files.grad_norm
    for key, value in plain.norms().items():
        assert (files.norms()[key] == value).all()


def test_rows_and_orders(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    table, wide = (
        rng.standard_normal((5000, 64)),
        np.asfortranarray(rng.standard_normal((300, 400))),
    )
    mapped = {"t": in_file(tmp_path / "t", table), "w": in_file(tmp_path / "w", wide.T).T}
    plain, files = fastgd.Adam({"t": table, "w": wide}), fastgd.Adam(mapped, state_dir=tmp_path)
    for _ in range(3):
        rows = fastgd.Rows(rng.integers(0, 5000, 90), rng.standard_normal((90, 64)))
        grads = {"t": rows, "w": rng.standard_normal((300, 400))}
        plain.step(grads)
        files.step(grads)
    assert_same_bits(np.asarray(mapped["t"]), table)
    assert_same_bits(np.asarray(mapped["w"]), wide)


def test_state_lies_in_a_file_without_a_name(tmp_path: Path) -> None:
    params = np.ones(200_000, np.float32)
    opt = fastgd.Adam(params, state_dir=tmp_path)
    arrays = [x for x in opt.state["params"].values() if isinstance(x, np.ndarray)]
    assert all(is_mapped(array) for array in arrays)
    assert not is_mapped(params)
    assert os.listdir(tmp_path) == []
    opt.step(params.copy())
    for other in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert other.param_groups[0]["state_dir"] == str(tmp_path)
        assert is_mapped(other.state["params"]["exp_avg"])
        assert_same_bits(other.state["params"]["exp_avg"], opt.state["params"]["exp_avg"])
    # A checkpoint says where the state lay, and whoever loads it keeps his own.
    fastgd.save(tmp_path / "run.npz", opt)
    twin = fastgd.Adam(np.zeros(200_000, np.float32))
    fastgd.load(tmp_path / "run.npz", twin)
    assert twin.param_groups[0]["state_dir"] is None
    assert not is_mapped(twin.state["params"]["exp_avg"])


def test_a_private_mapping_is_no_file(tmp_path: Path) -> None:
    """What is written to it is in no file, and would be lost if its pages were let go."""
    in_file(tmp_path / "p", np.ones(300_000, np.float32)).flush()
    private = np.memmap(tmp_path / "p", np.float32, "c")
    assert not is_mapped(private)
    shared = np.zeros(300_000, np.float32)
    opt = fastgd.SGD({"p": private, "q": shared}, lr=1.0, momentum=0.5, state_dir=tmp_path)
    for _ in range(3):
        opt.step({"p": np.ones(300_000, np.float32), "q": np.ones(300_000, np.float32)})
    assert (private == 1 - (1 + 1.5 + 1.75)).all()


def test_a_copy_of_a_memmap_is_no_file(tmp_path: Path) -> None:
    """Though it is of its class: if its pages were let go they would be zeros."""
    mapped = in_file(tmp_path / "p", np.ones(300_000, np.float32))
    assert is_mapped(mapped[10:][::2].reshape(5, -1))
    copies = [mapped.copy(), mapped + 1, copy.deepcopy(mapped), np.array(mapped, subok=True)]
    assert isinstance(copies[0], np.memmap)
    assert not any(map(is_mapped, copies))
    opt = fastgd.SGD({"p": mapped.copy(), "q": mapped}, lr=1.0, momentum=0.5, state_dir=tmp_path)
    grads = {"p": mapped.copy(), "q": np.ones(300_000, np.float32)}
    assert opt.step(grads)
    opt.rebind({"p": opt.params["p"].copy(), "q": mapped.copy()})
    assert opt.step(grads)
    assert (opt.params["p"] == -1.5).all()
    assert (opt.params["q"] == -1.5).all()
    assert (grads["p"] == 1).all()


def test_arrays_that_are_followed(tmp_path: Path) -> None:
    """step(params=…) goes from arrays in files to others and back."""
    start = np.arange(400_000, dtype=np.float32)
    one, two = in_file(tmp_path / "p", start), start.copy()
    opt = fastgd.SGD(one, lr=1.0, momentum=0.5, state_dir=tmp_path)
    ones = np.ones_like(start)
    opt.step(ones)
    opt.step(ones, params=two)
    assert (two == start - 1.5).all()
    assert (one == start - 1).all()


@pytest.mark.parametrize("size", [4096, 63 * 4096, 64 * 4096, 64 * 4096 + 1])
def test_codes_that_end_with_a_page(size: int, tmp_path: Path) -> None:
    """64 groups of codes are 65 pages: what lies behind them is somebody else's."""
    fastgd.set_resident_bytes(MB)
    neighbours = [np.full(MB, 7, np.uint8) for _ in range(8)]
    start = np.ones(size, np.float32)
    opt = fastgd.SGD(start, lr=0.1, momentum=0.9, state_dtype="8bit", state_dir=tmp_path)
    plain = fastgd.SGD(start.copy(), lr=0.1, momentum=0.9, state_dtype="8bit")
    neighbours += [np.full(MB, 7, np.uint8) for _ in range(8)]
    for each in (opt, plain):
        for _ in range(3):
            assert each.step(np.linspace(-1, 1, size, dtype=np.float32))
    assert (start == plain.params["params"]).all()
    assert all((array == 7).all() for array in neighbours)


@pytest.mark.parametrize("value", ["nowhere", 3, True])
def test_refused_directories(value: Any, tmp_path: Path) -> None:
    wrong = tmp_path / value if isinstance(value, str) else value
    with pytest.raises((TypeError, ValueError), match="state_dir"):
        fastgd.Adam(np.ones(3), state_dir=wrong)


def test_refused_bounds() -> None:
    for wrong in (0, MB - 1, -1):
        with pytest.raises(ValueError, match="number of bytes"):
            fastgd.set_resident_bytes(wrong)
    with pytest.raises(TypeError):
        fastgd.set_resident_bytes("1 GB")  # type: ignore[arg-type]


PEAK = """
import sys, numpy as np, fastgd
folder, elements, bound = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def memory(key):
    (line,) = [x for x in open("/proc/self/status") if x.startswith(key)]
    return int(line.split()[1]) << 10
params, grads = (np.memmap(f"{folder}/{x}", np.float32, "w+", shape=(elements,)) for x in "pg")
opt = fastgd.AdamW(params, state_dir=folder, clip_norm=1.0)
fastgd.set_resident_bytes(bound)
fastgd.set_num_threads(1)
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # forget the peak
for _ in range(2):
    assert opt.step(grads)
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_under_the_bound(tmp_path: Path) -> None:
    """A model of 16 times the bound."""
    elements, bound = 1 << 24, 16 * MB
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path), str(elements), str(bound)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1.5 * bound
