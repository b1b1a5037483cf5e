"""Every bad input is refused with the documented error, and nothing at all has changed then."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import fastgd
from tests.engine import bad_arrays, bad_gradients, bad_states, bad_values
from tests.engine.bad_inputs import Row, World, snapshot, threads

ROWS = [*bad_arrays.ROWS, *bad_gradients.ROWS, *bad_values.ROWS, *bad_states.ROWS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad-inputs")


def test_there_are_enough_of_them() -> None:
    assert len(ROWS) >= 150
    assert not [name for name, count in Counter(map(str, ROWS)).items() if count > 1]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_refused(row: Row, folder: Path) -> None:
    world, undisturbed = World(folder), World(folder)
    given = row.given(world)
    arrays = [id(array) for opt in (world.adam, world.sgd) for array in opt.params.values()]
    before = snapshot(world), snapshot(given), threads()

    with pytest.raises(row.exception, match=row.match) as refusal:
        row.use(world, given)

    assert refusal.type is row.exception
    assert len(str(refusal.value)) < 1000
    assert (snapshot(world), snapshot(given), threads()) == before
    assert arrays == [id(array) for opt in (world.adam, world.sgd) for array in opt.params.values()]

    row.repair(world, given)
    for _ in range(3):
        world.advance()
        undisturbed.advance()
    assert snapshot(world)[0] == snapshot(undisturbed)[0]


AGAIN = [row for row in bad_gradients.ROWS if row.name.startswith(("grads-", "behind-"))][::5]


@pytest.mark.parametrize("row", AGAIN, ids=str)
def test_refused_again_and_again(row: Row, folder: Path) -> None:
    """Nothing piles up: no reference to what was given is kept."""
    world = World(folder)
    given = row.given(world)
    count = sys.getrefcount(given)
    before = snapshot(world)
    for _ in range(20):
        with pytest.raises(row.exception, match=row.match):
            row.use(world, given)
    assert snapshot(world) == before
    assert sys.getrefcount(given) == count


@pytest.mark.parametrize("size", [1, 300])
def test_the_state_can_be_saved_when_a_parameter_was_resized(size: int, folder: Path) -> None:
    world, undisturbed = World(folder), World(folder)
    world.params["b"].resize(size, refcheck=False)
    assert snapshot(world.adam.state_dict()) == snapshot(undisturbed.adam.state_dict())


@pytest.mark.parametrize(
    "name", ["size", "shape", "ndim", "dtype", "nbytes", "itemsize", "strides"]
)
def test_a_subclass_with_attributes_of_its_own(name: str) -> None:
    """What it says of itself cannot lead a step beyond its memory."""
    values = {"shape": (10**9,), "dtype": np.dtype("f8"), "strides": (0,), "nbytes": 8}
    odd = type("Odd", (np.ndarray,), {name: property(lambda self: values.get(name, 10**9))})
    p, around = np.ones(70_000, np.float32).view(odd), np.ones(70_000)
    try:
        opt = fastgd.Adam({"odd": p, "around": around}, lr=0.5)
        opt.step({"odd": np.ones(70_000), "around": np.ones(70_000)})
    except ValueError as error:
        assert "'odd'" in str(error)  # noqa: PT017
        assert (np.asarray(p) == 1).all()
    else:
        assert (np.asarray(p) == 0.5).all()


# --- behind the optimizer's back, in the middle of a step -------------------------------------------

INTERFERENCE = """
import numpy as np, fastgd

BY, WHAT = CHOICE
size = 3_000_000  # more than what malloc keeps: reading what was freed ends the process
params = {"b": np.ones(size), "z": np.ones(5)}
grads = {"b": np.ones(size), "z": np.ones(5)}
done = []

def interfere(*args, **kwargs):
    if not done:
        target = params["b"] if WHAT == "parameter" else grads["b"]
        done.append(target.resize(10, refcheck=False))
    return kwargs.get("array", 0.5)

class Late:
    def __array__(self, dtype=None, copy=None):
        return interfere(array=np.ones(5))

opt = fastgd.SGD(params, lr=interfere if BY == "schedule" else 0.5)
if BY == "gradient":
    grads["z"] = Late()
try:
    opt.step(grads)
except ValueError as error:
    assert "'b'" in str(error), error
    assert ("resized" if WHAT == "parameter" else "has shape (10,)") in str(error), error
else:
    raise AssertionError("a step over freed memory was taken")
assert opt.step_count == 0 and (params["z"] == 1).all() and (params["b"] == 1).all()
"""


@pytest.mark.parametrize("what", ["parameter", "gradient"])
@pytest.mark.parametrize("by", ["schedule", "gradient"])
def test_an_array_that_is_resized_while_the_step_is_validated(by: str, what: str) -> None:
    code = INTERFERENCE.replace("CHOICE", repr((by, what)))
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr or f"ended by signal {-done.returncode}"


# --- environment variables --------------------------------------------------------------------------

STEP = """
import numpy as np, fastgd
p = np.ones(200_000, np.float32)
opt = fastgd.Adam(p, clip_norm=1.0)
opt.step(np.linspace(-1, 1, p.size, dtype=np.float32))
print(fastgd.get_num_threads(), hash(p.tobytes()) , opt.grad_norm)
"""


def in_environment(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": "0", **variables}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "isa",
    ["x86-64-v1", "x86-64-v9", "avx512", "x86-64-v3 ", " ", "X86-64-V3", "x86_64_v3", "../_x"],
)
def test_an_unknown_engine_build_is_refused(isa: str) -> None:
    done = in_environment("import fastgd", FASTGD_ISA=isa)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert re.match(r"ImportError: FASTGD_ISA=.* is not available.*x86-64-v2|plain", last)
    assert repr(isa) in last


@pytest.mark.parametrize(
    "value", ["abc", "0", "-1", "1.5", "", " 2", "2,1", "99999999999999999999", "0x2", "2;rm"]
)
def test_a_strange_number_of_threads_in_the_environment(value: str) -> None:
    """OpenMP itself reports what it cannot read and takes its default; results are the same."""
    expected = in_environment(STEP, OMP_NUM_THREADS="1")
    done = in_environment(STEP, OMP_NUM_THREADS=value)
    assert done.returncode == 0, done.stderr
    count, *result = done.stdout.split()
    assert 1 <= int(count) <= 4096
    assert result == expected.stdout.split()[1:]


def test_a_huge_number_of_threads_in_the_environment() -> None:
    """No process can start as many: the default has the limit that set_num_threads has."""
    done = in_environment(
        "import fastgd; print(fastgd.get_num_threads())", OMP_NUM_THREADS="9999999"
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 4096
