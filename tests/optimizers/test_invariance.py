"""The same bits whatever the number of threads, the split into arrays, and the CPU's vectors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import fastgd
from tests.cases import CASES, Case
from tests.fma import Array
from tests.reference import Reference
from tests.support import (
    assert_same_bits,
    child_environment,
    engine_multiply_add,
    optimizer,
    tame,
    wide,
)

CHUNK: int = fastgd._engine.chunk
# Enough elements for the parallel path, in one array or in a mix of many sizes.
ONE_LARGE = (300_007,)
MANY = (
    *(1, 0, 17, 100_003),
    *(257,) * 40,
    *(CHUNK,) * 5,
    CHUNK + 1,
    *(3 * CHUNK - 1,) * 3,
    150_000,
)

# Every optimizer's cases that differ in the work per element, and all that use the norm.
INVARIANCE_CASES = [
    case
    for case in CASES
    if case.clips_norm
    or case.name.endswith(("defaults", "-all", "nesterov", "amsgrad", "centered"))
]


def result(
    case: Case, starts: Sequence[Array], gradients: Sequence[Sequence[Array]]
) -> list[Array]:
    """All arrays and the norms after one step for each entry of `gradients`."""
    params = [p.copy() for p in starts]
    opt = optimizer(case.optimizer, params, **case.kwargs)
    norms = []
    for grads in gradients:
        opt.step(list(grads))
        norms.append(np.array(np.nan if opt.grad_norm is None else opt.grad_norm))
    state = opt.state
    slots = [state[str(i)][slot] for slot in case.slots for i in range(len(params))]
    return [*params, *slots, *norms]


def assert_all_same(actual: Sequence[Array], expected: Sequence[Array], where: str) -> None:
    assert len(actual) == len(expected)
    for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
        assert_same_bits(a, b, f"{where}, array {i}")


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("sizes", [ONE_LARGE, MANY], ids=["one", "many"])
@pytest.mark.parametrize("case", INVARIANCE_CASES, ids=str)
def test_threads(
    case: Case, sizes: tuple[int, ...], dtype: type[np.floating], rng: np.random.Generator
) -> None:
    starts = [wide(rng, n, dtype) for n in sizes]
    gradients = [[tame(rng, n, dtype) for n in sizes] for _ in range(2)]
    # A gradient that is converted on the way takes another path through the kernel.
    gradients.append([tame(rng, n, np.float16) for n in sizes])
    fastgd.set_num_threads(1)
    expected = result(case, starts, gradients)
    for threads in (2, 3, 7):
        fastgd.set_num_threads(threads)
        assert fastgd.get_num_threads() == (threads if fastgd._engine.openmp_version else 1)
        assert_all_same(result(case, starts, gradients), expected, f"{threads} threads")


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("sizes", [ONE_LARGE, MANY], ids=["one", "many"])
def test_threads_norms_alone(sizes: tuple[int, ...], rng: np.random.Generator) -> None:
    gradients = [wide(rng, n, np.float32) for n in sizes]
    seen = set()
    for threads in (1, 2, 3, 7):
        with fastgd.num_threads(threads):
            clipped = [g.copy() for g in gradients]
            norm = fastgd.clip_grad_norm_(clipped, 1.0)
            seen.add((fastgd.global_norm(gradients), norm, b"".join(c.tobytes() for c in clipped)))
    assert len(seen) == 1
    plain, norm, _ = seen.pop()
    assert plain == norm


def test_threads_large_reference(dtype: type[np.floating], rng: np.random.Generator) -> None:
    """What all thread counts agree on is also right, well beyond the serial threshold."""
    starts = {str(i): tame(rng, n, dtype) for i, n in enumerate(MANY)}
    params = {name: p.copy() for name, p in starts.items()}
    opt = fastgd.AdamW(params, clip_norm=1.0)
    ref = Reference("AdamW", starts, multiply_add=engine_multiply_add(), clip_norm=1.0)
    for _ in range(2):
        grads = {name: tame(rng, p.size, dtype) for name, p in params.items()}
        opt.step(grads)
        ref.step(grads, norm=opt.grad_norm)
    for name, p in params.items():
        assert_same_bits(p, ref.params[name], name)


HOW_IT_LIES: dict[str, Callable[[Array], Array]] = {
    "every second": lambda g: np.repeat(g, 2, axis=1)[:, ::2],
    "backwards": lambda g: np.ascontiguousarray(g[::-1, ::-1])[::-1, ::-1],
    "Fortran": np.asfortranarray,
    "float64": lambda g: g.astype(np.float64),
    "misaligned": lambda g: np.frombuffer(b"x" + g.tobytes(), np.uint8)[1:].view(g.dtype).reshape(g.shape),
}  # fmt: skip


@pytest.mark.parametrize("how", HOW_IT_LIES)
@pytest.mark.parametrize("shape", [(3, 5), (97, 101), (200, 1500)])
def test_layout_and_storage_of_gradients(
    how: str, shape: tuple[int, int], rng: np.random.Generator
) -> None:
    """A norm, and with it a clipped step, depends on the gradient's values only."""
    for _ in range(5):
        plain = rng.standard_normal(shape).astype(np.float32)
        other = HOW_IT_LIES[how](plain)
        if how != "Fortran":  # by itself it is summed in the order of its own memory
            assert fastgd.global_norm(other) == fastgd.global_norm(plain)
        ends = []
        for grad in (plain, other):
            w = np.ones(shape, np.float32)
            fastgd.SGD(w, lr=0.1, clip_norm=0.7).step(grad)
            ends.append(w)
        if how == "float64":  # which is clipped before it is rounded
            np.testing.assert_array_max_ulp(ends[1], ends[0], 1)
        else:
            assert_same_bits(ends[1], ends[0])


def test_norm_does_not_remember_earlier_arrays() -> None:
    """The same structure again, over memory that the previous call knew as another array."""
    memory = np.ones(2000, np.float32)
    first, second = memory[:1000], memory[1000:]
    assert fastgd.global_norm([first, second]) == np.sqrt(2000.0)
    assert fastgd.global_norm([second, first]) == np.sqrt(2000.0)
    assert fastgd.global_norm([memory[1:1000], memory[999:]]) == np.sqrt(2000.0)
    assert fastgd.clip_grad_norm_([second, first], 1e9) == np.sqrt(2000.0)


SPLITS = {
    "halves": (5000, 5000),
    "uneven": (1, 9999),
    "odd": (3333, 3334, 3333),
    "chunks": (CHUNK, CHUNK, 10_000 - 2 * CHUNK) if 2 * CHUNK < 10_000 else (10_000,),
    "around-chunk": (CHUNK - 1, 1, CHUNK + 1, 10_000 - 2 * CHUNK - 1)
    if 2 * CHUNK + 1 < 10_000
    else (10_000,),
    "many": (7,) * 1428 + (4,),
    "with-empty": (0, 4000, 0, 6000, 0),
    "singles": (1,) * 40 + (9960,),
}


@pytest.mark.parametrize("case", [c for c in CASES if c.elementwise], ids=str)
def test_splits(case: Case, dtype: type[np.floating], rng: np.random.Generator) -> None:
    start = wide(rng, 10_000, dtype)
    gradients = [wide(rng, 10_000, dtype) for _ in range(2)]
    expected = result(case, [start], [[g] for g in gradients])
    for name, sizes in SPLITS.items():
        assert sum(sizes) == start.size
        edges = np.cumsum(sizes)[:-1]
        parts = result(case, np.split(start, edges), [np.split(g, edges) for g in gradients])
        for i, whole in enumerate(expected[: 1 + len(case.slots)]):
            joined = np.concatenate(parts[i * len(sizes) : (i + 1) * len(sizes)])
            assert_same_bits(joined, whole, f"{name}, {('parameter', *case.slots)[i]}")


def run_python(arguments: Sequence[str], **environment: str) -> str:
    """What a fresh interpreter prints that sees the same fastgd and these tests; no warnings."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env=child_environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_under(isa: str, mode: str) -> str:
    """The second line that isa_digest.py prints when the engine build is `isa`."""
    if isa not in fastgd._engine.available_isas():
        pytest.skip(f"this CPU does not have {isa}")
    printed = run_python([str(Path(__file__).with_name("isa_digest.py")), mode], FASTGD_ISA=isa)
    chosen, answer = printed.split()
    assert chosen == isa
    return answer


def test_v3_and_v4_agree() -> None:
    assert run_under("x86-64-v3", "digest") == run_under("x86-64-v4", "digest")


def test_v2_rounds_twice() -> None:
    assert run_under("x86-64-v2", "reference") == "equal"


SUBNORMALS = """
import numpy as np
x32, x64 = np.full(9, 1e-40, np.float32), np.full(9, 1e-310)
import fastgd
assert ((x32 * np.float32(0.5)) > 0).all() and ((x64 * 0.5) > 0).all(), "flushed by import"
for dtype, value in ((np.float32, 2.0**-140), (np.float64, 2.0**-1060)):
    p = np.full(300_000, 4 * value, dtype)
    opt = fastgd.SGD(p, lr=0.5, momentum=0.5)
    opt.step(np.full(300_000, 4 * value, dtype))
    assert (p == 2 * value).all(), "flushed in the step"
    opt.step(np.full(300_000, -value, dtype))
    assert (opt.state["params"]["momentum_buffer"] == value).all()
    assert (p == 1.5 * value).all()
    assert ((p * dtype(0.5)) > 0).all(), "flushed after the step"
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_subnormals_survive(threads: str) -> None:
    run_python(["-c", SUBNORMALS], OMP_NUM_THREADS=threads)
