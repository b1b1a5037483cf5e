"""Several threads with one optimizer or several, schedules that reach back, and objects that go."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import fastgd
from tests.cases import CASES
from tests.fma import Array
from tests.support import assert_same_bits, optimizer

SIZES = (3, 20_000, 60_000)  # under the lock, without it, and on several threads


def together(*works: Callable[[], Any], times: int = 1) -> None:
    """Run all in threads of their own, from one moment on; raises what one of them raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(works) * times)

    def guarded(work: Callable[[], Any]) -> None:
        try:
            barrier.wait(60)
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works * times]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


# --- several optimizers -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_threads_with_optimizers_of_their_own(size: int) -> None:
    cases = [case for case in CASES if case.name.endswith(("-all", "clip_both", "amsgrad"))]
    start = np.linspace(-1, 1, size)
    gradients = [np.cos(np.arange(size) + k) for k in range(4)]
    results: dict[tuple[str, int], Array] = {}

    def train(name: str, kwargs: Any, copy: int) -> None:
        p = start.copy()
        opt = optimizer(name.split("-")[0], p, **kwargs)
        for g in gradients:
            opt.step(g)
        results[name, copy] = p

    for case in cases:
        train(case.name, case.kwargs, 0)
    works = [
        lambda case=case, copy=copy: train(case.name, case.kwargs, copy)  # type: ignore[misc]
        for case in cases
        for copy in (1, 2)
    ]
    together(*works)
    for (name, copy), p in results.items():
        assert_same_bits(p, results[name, 0], f"{name} {copy}")


# --- one optimizer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_threads_with_one_optimizer(size: int) -> None:
    """Whole numbers add up exactly, in any order."""
    p, q = np.zeros(size, np.float32), np.zeros(5)
    opt = fastgd.SGD([p, q], lr=1.0)
    gradients = [np.full(size, float(k), np.float32) for k in (1, 2, 3)]

    def work(g: Array) -> None:
        for _ in range(25):
            assert opt.step([g, None]) is True
            assert opt.step([g, np.ones(5)]) is True

    together(*(lambda g=g: work(g) for g in gradients))  # type: ignore[misc]
    assert opt.step_count == 150
    assert opt.state["0"]["step"] == 150
    assert opt.state["1"]["step"] == 75
    assert (p == -(1 + 2 + 3) * 50.0).all()
    assert (q == -75.0).all()


def test_steps_that_are_refused_in_one_thread(restored_threads: None) -> None:
    fastgd.set_num_threads(2)
    p = np.zeros(60_000)
    opt = fastgd.SGD(p, lr=1.0, nonfinite="raise")
    good, bad, short = np.ones(60_000), np.full(60_000, np.nan), np.ones(3)

    def failing(g: Array, error: type[Exception]) -> None:
        for _ in range(20):
            with pytest.raises(error):
                opt.step(g)

    together(
        lambda: [opt.step(good) for _ in range(20)],
        lambda: failing(bad, FloatingPointError),
        lambda: failing(short, ValueError),
    )
    assert opt.step_count == 20
    assert (p == -20.0).all()


def test_groups_added_while_stepping() -> None:
    """Each step sees all of the groups that it has gradients for, or is refused."""
    arrays = [np.zeros(10_000)]
    opt = fastgd.SGD({"a": arrays[0]}, lr=1.0, momentum=0.0)
    done = threading.Event()
    taken = 0

    def step() -> None:
        nonlocal taken
        while not done.is_set() or len(opt.param_groups) > opt_seen[0]:
            n = opt_seen[0] = len(opt.param_groups)
            trees: Any = [{"a": np.ones(10_000)}, *[np.ones(10_000)] * (n - 1)]
            with contextlib.suppress(ValueError):  # a group has come in between
                taken += opt.step(trees if n > 1 else trees[0])

    def add() -> None:
        for _ in range(30):
            arrays.append(np.zeros(10_000))
            opt.add_param_group({"params": arrays[-1]})
        done.set()

    opt_seen = [1]
    together(step, add)
    assert opt.step_count == taken
    for p, entry in zip(arrays, opt.state.values(), strict=True):
        assert (p == -entry["step"]).all()
    assert opt.state["0/a"]["step"] == taken


def test_looking_and_saving_while_stepping() -> None:
    """state_dict is of one moment: no step of another thread is half in it."""
    p = np.zeros(60_000)
    opt = fastgd.SGD(p, lr=1.0, momentum=1.0)
    saved: list[dict[str, Any]] = []

    def save() -> None:
        for _ in range(15):
            saved.append(opt.state_dict())
            assert opt.step_count <= 60
            repr(opt)

    together(lambda: [opt.step(np.ones(60_000)) for _ in range(60)], save, save)
    for state in saved:
        entry = state["state"]["params"]
        assert entry["step"] == state["step_count"]
        assert (entry["momentum_buffer"] == entry["step"]).all()


def test_norms_of_other_gradients_while_stepping() -> None:
    """minimize's `tol` asks the plan for a norm, whose gradients must not get into a step."""
    w = np.ones(1_000_000, np.float32)
    opt = fastgd.SGD(w, lr=1.0)
    zeros, ones = np.zeros_like(w), np.ones_like(w)
    with ThreadPoolExecutor(1) as pool:
        steps = pool.submit(lambda: [opt.step(zeros) for _ in range(60)])
        while not steps.done():
            assert opt._norm(ones) == 1000
        steps.result()
    assert (w == 1).all()


def test_loading_while_stepping() -> None:
    p = np.zeros(60_000)
    opt = fastgd.SGD(p, lr=0.0, momentum=1.0)
    for _ in range(3):
        opt.step(np.ones(60_000))
    saved = opt.state_dict()
    together(
        lambda: [opt.step(np.ones(60_000)) for _ in range(40)],
        lambda: [opt.load_state_dict(saved) for _ in range(40)],
    )
    entry = opt.state["params"]
    assert 3 <= opt.step_count == entry["step"] <= 43
    assert (entry["momentum_buffer"] == entry["step"]).all()


def test_assignments_of_two_threads_are_both_kept() -> None:
    opt = fastgd.SGD(np.zeros(3), lr=0.0)
    group = opt.param_groups[0]

    def assign(name: str) -> None:
        for k in range(1, 301):
            group[name] = float(k)
            assert group[name] == k

    together(lambda: assign("lr"), lambda: assign("weight_decay"), lambda: assign("momentum"))
    assert [group[name] for name in ("lr", "weight_decay", "momentum")] == [300.0] * 3


# --- an optimizer used from within its own step -----------------------------------------------------

REACHING_BACK: dict[str, Callable[[Any], Any]] = {
    "step": lambda opt: opt.step(np.ones(3)),
    "load_state_dict": lambda opt: opt.load_state_dict({}),
    "add_param_group": lambda opt: opt.add_param_group({"params": np.ones(2)}),
    "rebind": lambda opt: opt.rebind(np.ones(3)),
    "assign": lambda opt: opt.param_groups[0].update(momentum=0.9),
}


class Converted:
    """A gradient that runs some code when it is converted."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        self.work()
        return np.ones(3)


@pytest.mark.parametrize("by", ["schedule", "gradient"])
def test_reading_from_within_a_step(by: str) -> None:
    """Nothing has been written while Python code runs in a step: the state is that before it."""
    p = np.zeros(3)
    seen: list[Any] = []
    opt: Any = None

    def read() -> float:
        seen.append((p.tolist(), opt.state, opt.state_dict()))
        return 1.0

    rate: Any = (lambda step: read()) if by == "schedule" else 1.0
    opt = fastgd.SGD(p, lr=rate, momentum=0.9)
    for k in range(3):
        before = opt.state_dict()
        opt.step(np.ones(3) if by == "schedule" else Converted(read))
        values, state, saved = seen[-1]
        assert state["params"]["step"] == saved["step_count"] == k
        buffer = saved["state"]["params"]["momentum_buffer"]
        assert buffer.tolist() == before["state"]["params"]["momentum_buffer"].tolist()
        assert values != p.tolist()


@pytest.mark.parametrize("by", ["schedule", "gradient"])
@pytest.mark.parametrize("what", REACHING_BACK)
def test_reaching_back_from_within_a_step(what: str, by: str) -> None:
    """An error that says so, not a hang; and the optimizer is as it was."""
    error = RuntimeError if by == "schedule" else TypeError  # the gradient could not be read
    p = np.zeros(3)
    active = True
    opt: Any = None

    def reach() -> float:
        if active:
            REACHING_BACK[what](opt)
        return 0.5

    opt = fastgd.SGD(p, lr=(lambda step: reach()) if by == "schedule" else 0.5)
    grads: Any = np.ones(3) if by == "schedule" else Converted(reach)
    with pytest.raises(error, match="from within its own step"):
        opt.step(grads)
    assert opt.step_count == 0
    assert (p == 0).all()
    active = False
    assert opt.step(grads) is True
    assert (p == -0.5).all()


def test_a_schedule_may_use_another_optimizer() -> None:
    q = np.zeros(2)
    inner = fastgd.SGD(q, lr=1.0)
    p = np.zeros(2)
    outer = fastgd.SGD(p, lr=lambda step: float(inner.step(np.ones(2))))
    assert outer.step(np.ones(2))
    assert (p == -1).all()
    assert (q == -1).all()


def test_another_thread_waits_for_a_step_that_is_taken() -> None:
    inside, leave = threading.Event(), threading.Event()

    def slow(step: int) -> float:
        inside.set()
        assert leave.wait(60)
        return 1.0

    p = np.zeros(3)
    opt = fastgd.SGD(p, lr=slow)

    def second() -> None:
        assert inside.wait(60)
        threading.Timer(0.01, leave.set).start()
        opt.step(np.ones(3))

    together(lambda: opt.step(np.ones(3)), second)
    assert opt.step_count == 2
    assert (p == -2).all()


# --- objects that go --------------------------------------------------------------------------------


def test_an_optimizer_goes_at_once() -> None:
    """Its state may be gigabytes: it must not wait for the garbage collector."""
    p = np.zeros(5)
    opt = fastgd.Adam(p, clip_norm=1.0, lr=lambda step: 0.1)
    opt.step(np.ones(5))
    gone = weakref.ref(opt)
    gc.disable()
    try:
        del opt
        assert gone() is None
    finally:
        gc.enable()
    assert np.isfinite(p).all()


def test_a_group_keeps_its_optimizer() -> None:
    w = np.zeros(2)
    group = fastgd.SGD(w, lr=0.1).param_groups[0]
    gc.collect()
    group["lr"] = 0.5
    assert group["lr"] == 0.5
    assert group["params"][0] is w


def test_state_outlives_its_optimizer() -> None:
    p = np.zeros(200_000)
    opt = fastgd.Adam(p, betas=(0.5, 0.5))
    opt.step(np.ones(200_000))
    state = opt.state["params"]["exp_avg"]
    del opt
    gc.collect()
    others = [np.full(200_000, 7.0) for _ in range(5)]  # would be given memory that was freed
    assert (state == 0.5).all()
    assert len(others) == 5


def test_parameters_outlive_their_owner() -> None:
    params = {"a": np.zeros(200_000), "b": np.zeros((3, 2), np.float32, order="F")}
    opt = fastgd.SGD(params, lr=1.0)
    params.clear()
    gc.collect()
    others = [np.full(200_000, 7.0) for _ in range(5)]
    opt.step({"a": np.ones(200_000), "b": np.ones((3, 2))})
    assert all((p == -1).all() for p in opt.params.values())
    assert all((other == 7).all() for other in others)


@pytest.mark.parametrize("taken", [True, False])
def test_gradients_go_after_a_step(taken: bool) -> None:
    opt = fastgd.SGD([np.zeros(3), np.zeros(4, np.float32)], lr=1.0)

    def bad() -> Array:
        return np.zeros(9)

    first, second = np.ones(3), np.ones(4)
    gone = [weakref.ref(first), weakref.ref(second)]
    if taken:
        opt.step([first, second])
    else:
        for grads in ([first, bad()], [bad(), second], [first, "second"]):
            with pytest.raises((TypeError, ValueError)):
                opt.step(grads)
    del first, second
    with contextlib.suppress(NameError):
        del grads
    assert [ref() for ref in gone] == [None, None]


def test_replaced_parameters_go() -> None:
    old = np.zeros(3)
    opt = fastgd.Adam(old)
    opt.step(np.ones(3))
    gone = weakref.ref(old)
    opt.rebind(np.zeros(3))
    del old
    assert gone() is None
    opt.step(np.ones(3))


def test_a_parameter_can_be_a_part_of_what_goes() -> None:
    """A view keeps its base: a bytearray that nobody else holds, and a slice of a larger array."""
    base = np.frombuffer(bytearray(800_000), np.float64)
    part = np.zeros(300_000)[100_000:200_000]
    opt = fastgd.SGD([base, part], lr=1.0)
    del base, part
    gc.collect()
    opt.step([np.ones(100_000)] * 2)
    assert all((p == -1).all() for p in opt.params.values())


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8])
def test_any_integer_is_a_number_of_threads(kind: Any, restored_threads: None) -> None:
    parallel = bool(fastgd._engine.openmp_version)
    fastgd.set_num_threads(kind(3))
    assert fastgd.get_num_threads() == (3 if parallel else 1)
    with fastgd.num_threads(kind(2)):
        assert fastgd.get_num_threads() == (2 if parallel else 1)
    assert fastgd.get_num_threads() == (3 if parallel else 1)


def test_limits_of_threadpoolctl(restored_threads: None) -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    fastgd.set_num_threads(None)
    default = fastgd.get_num_threads()
    if default < 2:
        pytest.skip("there is one thread only")
    p = np.zeros(60_000)
    opt = fastgd.SGD(p, lr=1.0)
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert fastgd.get_num_threads() == 1
        opt.step(np.ones(60_000))
        fastgd.set_num_threads(2)
        assert fastgd.get_num_threads() == 1
        opt.step(np.ones(60_000))
    assert fastgd.get_num_threads() == 2
    fastgd.set_num_threads(None)
    with threadpoolctl.threadpool_limits(64):  # no more than by default
        assert fastgd.get_num_threads() == default
    assert fastgd.get_num_threads() == default
    assert (p == -2).all()
