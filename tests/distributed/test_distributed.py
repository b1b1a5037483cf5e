"""Several ranks, started for real: programs of this folder say what they checked, or fail."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastgd
from tests.distributed.launch import ENVIRONMENT, ROOT, mpiexec, run, run_module

pytest.importorskip("mpi4py")
COUNTS = (1, 2, 3, 4)
STEPS = 4


@pytest.mark.parametrize("ranks", COUNTS)
@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("every_rule", "runs agree"),
        ("every_form", "all forms agree"),
        ("refusals", "all refused"),
        ("training", "training agrees"),
    ],
)
def test_ranks_agree(program: str, says: str, ranks: int) -> None:
    done = run(ranks, program)
    assert done.returncode == 0, done.stdout
    assert says in done.stdout


# --- faults ---


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("raises", "rank 2 of 3 ended with ValueError: the data are broken"),
        ("hangs", "waited 3 s for rank 2 (step 7"),
        ("leaves", "waited 3 s for rank 2 (step 7"),
        ("dies", ""),  # the launcher says so in its own words
    ],
)
def test_a_rank_that_fails_ends_the_others(how: str, says: str) -> None:
    done = run(3, "fault", how, timeout=60)
    assert done.returncode != 0
    assert says in done.stdout
    assert "went on alone" not in done.stdout


def test_without_mpi4py_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "mpi4py.py").write_text("raise ImportError('not here')")
    program = "import fastgd; fastgd.distributed.shared([], None)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ImportError: fastgd.distributed needs mpi4py" in done.stderr


# --- checkpoints ---


def resumed(path: Path, counts: tuple[int, ...], *arguments: object) -> fastgd.Checkpoint:
    """The checkpoint after so many runs of a few steps each, on so many ranks."""
    for ranks in counts:
        done = run(ranks, "resume", path, *arguments)
        assert done.returncode == 0, done.stdout
    return fastgd.load(path)


@pytest.mark.parametrize(
    ("kind", "ways"),
    [
        ("adamw", ("sharded", "parallel", "shared")),
        ("lamb", ("parallel",)),
        ("prodigy", ("sharded",)),
        ("adafactor", ("shared",)),
    ],
)
def test_a_checkpoint_holds_no_number_of_ranks(
    kind: str, ways: tuple[str, ...], tmp_path: Path
) -> None:
    whole = resumed(tmp_path / "one.npz", (1,), kind, "sharded", 4 * STEPS)
    for way in ways:
        parts = resumed(tmp_path / f"{way}.npz", (4, 1, 3, 2), kind, way, STEPS)
        assert parts.metadata["draw"] == whole.metadata["draw"]
        assert parts.metadata["seen"] == whole.metadata["seen"][-len(parts.metadata["seen"]) :]
        for name, array in whole.parameters.items():
            np.testing.assert_allclose(parts.parameters[name], array, rtol=2e-5, atol=1e-6)
        mine, theirs = (c.objects["optimizer"]["state"]["W"] for c in (parts, whole))
        assert set(mine) == set(theirs)
        for slot, array in theirs.items():
            np.testing.assert_allclose(mine[slot], array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("state_dtype", ["bfloat16", "8bit"])
def test_state_in_fewer_bits_is_resumed_too(state_dtype: str, tmp_path: Path) -> None:
    whole = resumed(tmp_path / "one.npz", (1,), "adamw", "sharded", 4 * STEPS, state_dtype)
    parts = resumed(tmp_path / "parts.npz", (4, 1, 3, 2), "adamw", "sharded", STEPS, state_dtype)
    for name, array in whole.parameters.items():
        np.testing.assert_allclose(parts.parameters[name], array, atol=0.05)


def test_one_process_reads_and_writes_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    saved = resumed(path, (3,), "adamw", "sharded", STEPS)
    params = {name: np.zeros_like(array) for name, array in saved.parameters.items()}
    opt = fastgd.AdamW(params)
    batches = fastgd.MiniBatches(np.arange(240.0), batch_size=12, seed=5)
    rng = np.random.default_rng(7)
    fastgd.load(path, opt, batches=batches, rng=rng)
    assert opt.step_count == STEPS
    assert rng.random() == saved.metadata["draw"]
    # The next batch is the one after those that the ranks have seen together.
    order = batches.order(0)
    (batch,) = next(iter(batches))
    assert batch.tolist() == order[STEPS * 12 : (STEPS + 1) * 12].tolist()
    assert all((params[name] == array).all() for name, array in saved.parameters.items())


def killed_while_saving(folder: Path, kills: int, seed: int) -> None:
    """A random rank of a run that does nothing but save is killed; then the run goes on."""
    path, pids = folder / "run.npz", folder / "pids"
    generator, reached = random.Random(seed), 0
    for number in range(kills):  # the first waits for a checkpoint that is complete
        pids.unlink(missing_ok=True)
        command = [mpiexec(), "-n", "2", sys.executable, "-m", "tests.distributed.saver"]
        process = subprocess.Popen(
            [*command, str(path), str(pids)],
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while not (pids.exists() and pids.read_text() and (number > 0 or path.exists())):
            assert process.poll() is None, "the run did not start"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(generator.uniform(0.02, 0.3))
        os.kill(int(generator.choice(pids.read_text().split())), signal.SIGKILL)
        assert process.wait(60) != 0
        if path.exists():
            found = fastgd.load(path)  # whose every bit is covered by a checksum
            assert found.metadata["steps"] >= reached
            reached = found.metadata["steps"]
    assert reached > 0


def test_the_last_complete_checkpoint_loads_whoever_is_killed(tmp_path: Path) -> None:
    killed_while_saving(tmp_path, 5, seed=0)


# --- programs ---


def test_the_docstrings_examples_on_two_ranks() -> None:
    done = run(2, "examples")
    assert done.returncode == 0, done.stdout
    assert "examples pass" in done.stdout


def test_the_partition_is_even() -> None:
    from fastgd.distributed._partition import Axis, partition

    axes = [Axis.of(np.empty(s, np.float32)) for s in ((1000, 300), (7,), (3, 100_000), (), (0, 4))]
    for ranks in (1, 2, 3, 7, 64):
        rows = partition(axes, [False] * len(axes), ranks)
        for axis, each in zip(axes, rows, strict=True):
            assert each[0][0] == 0
            assert each[-1][1] == axis.rows
            assert all(a[1] == b[0] for a, b in itertools.pairwise(each))
        loads = [
            sum((each[r][1] - each[r][0]) * a.width for a, each in zip(axes, rows, strict=True))
            for r in range(ranks)
        ]
        assert max(loads) <= sum(loads) / ranks + 100_000  # one row of the widest


def test_matrices_have_one_owner_each() -> None:
    from fastgd.distributed._partition import Axis, partition

    axes = [Axis.of(np.empty((n, 10), np.float32)) for n in (50, 40, 30, 20, 10)]
    rows = partition(axes, [True] * 5, 3)
    for axis, each in zip(axes, rows, strict=True):
        assert sorted(each) == [(0, 0), (0, 0), (0, axis.rows)]
    loads = [sum(each[r][1] for each in rows) for r in range(3)]
    assert max(loads) == 50


def test_the_demo_runs_on_two_ranks() -> None:
    done = run_module(2, "fastgd", "demo", "--no-timing", "--optimizer", "adam")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("2 ranks, each with its part of every batch") == 1
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("Adam")]
    assert float(row.split()[3].rstrip("%")) > 95  # test accuracy
