"""Ctrl-C at every line: a trace function raises KeyboardInterrupt at the n-th line that runs, for all n.

After each of them everything is as before the call, or as after it, and all goes on. Lines of fastgd and of
contextlib count; what runs beside the main thread cannot be interrupted, as in life.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from tests.checkpoint.objects import everything

FOLDERS = (str(Path(fastgd.__file__).parent), contextlib.__file__)


def interrupted_at(n: int, work: Callable[[], Any]) -> bool:
    """Whether `work` was interrupted at its n-th line, and raised nothing but that."""
    count, fired = 0, False

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count, fired
        if not frame.f_code.co_filename.startswith(FOLDERS):
            return None
        if event == "line":
            count += 1
            if count == n:
                fired = True
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    assert threading.current_thread() is threading.main_thread()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return fired


def at_every_line(scenario: Callable[[], tuple[Callable[[], Any], Callable[[], None]]]) -> int:
    """Run what `scenario` gives anew for each line, and its check afterwards; the number of lines."""
    n = 1
    while True:
        work, check = scenario()
        fired = interrupted_at(n, work)
        check()
        if not fired:
            return n - 1
        n += 1


def made() -> Any:
    params = {"W": np.ones((2, 3)), "b": np.ones(3, np.float32)}
    lr = fastgd.schedules.cosine(0.1, total_steps=50)
    opt = fastgd.AdamW(params, lr=lr, clip_norm=1.0, nonfinite="raise")
    opt.step(GRADS)
    return opt


GRADS = {"W": np.full((2, 3), 0.5), "b": np.full(3, -2.0)}


def goes_on(opt: Any) -> None:
    """The gate is open and a step works."""
    count = opt.step_count
    assert opt.step(
        [GRADS] + [None] * (len(opt.param_groups) - 1) if opt.param_groups[1:] else GRADS
    )
    assert opt.step_count == count + 1


def before_or_after(opt: Any, change: Callable[[Any], Any]) -> Callable[[], None]:
    """A check that the optimizer is as it is now, or as `change` makes one like it."""
    other = made()
    assert everything(other) == everything(opt)
    change(other)
    ends = [everything(opt), everything(other)]

    def check() -> None:
        assert everything(opt) in ends
        goes_on(opt)

    return check


CHANGES: dict[str, Callable[[Any], Any]] = {
    "step": lambda opt: opt.step(GRADS),
    "assign": lambda opt: opt.param_groups[0].update(lr=0.5, amsgrad=True),
    "option": lambda opt: setattr(opt, "clip_norm", 2.0),
    "add_param_group": lambda opt: opt.add_param_group({"params": np.ones(4), "lr": 0.5}),
    "rebind": lambda opt: opt.rebind({"W": np.full((2, 3), 3.0), "b": np.ones(3, np.float32)}),
    "load_state_dict": lambda opt: opt.load_state_dict({**made().state_dict(), "step_count": 7}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_optimizer_is_as_before_or_as_after(name: str) -> None:
    def scenario() -> Any:
        opt = made()
        return lambda: CHANGES[name](opt), before_or_after(opt, CHANGES[name])

    assert at_every_line(scenario) > 2


def test_save(tmp_path: Path) -> None:
    """The file is the old one or the new one, and no other is left."""
    path = tmp_path / "run.npz"

    def scenario() -> Any:
        opt = made()
        fastgd.save(path, opt)
        old = path.read_bytes()
        opt.step(GRADS)

        def check() -> None:
            assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]
            found = path.read_bytes()
            if found != old:
                other = made()
                fastgd.load(path, other)
                assert everything(other) == everything(opt)
            goes_on(opt)

        return lambda: fastgd.save(path, opt), check

    assert at_every_line(scenario) > 10


# Between the opening of a file and its `with` Python itself has no place to close it but the end of its
# object, which is at once; it warns of that.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_load(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    saved, rng = made(), np.random.default_rng(3)
    saved.step(GRADS)
    fastgd.save(path, saved, rng=rng)
    new = (everything(saved), rng.bit_generator.state)

    def scenario() -> Any:
        opt, other = made(), np.random.default_rng(4)
        old = (everything(opt), other.bit_generator.state)

        def check() -> None:
            assert (everything(opt), other.bit_generator.state) in (old, new)
            goes_on(opt)

        return lambda: fastgd.load(path, opt, rng=other), check

    assert at_every_line(scenario) > 50


def quadratic(params: Any) -> tuple[float, Any]:
    return float(np.square(params["W"]).sum() + np.square(params["b"]).sum()), {
        "W": 2 * params["W"],
        "b": 2 * params["b"],
    }


def test_find_lr_puts_everything_back() -> None:
    def scenario() -> Any:
        opt = made()
        before, params = everything(opt), {"W": opt.params["W"], "b": opt.params["b"]}

        def check() -> None:
            assert everything(opt) == before
            goes_on(opt)

        return lambda: fastgd.find_lr(quadratic, params, optimizer=opt, steps=10), check

    assert at_every_line(scenario) > 100


def test_check_gradient_puts_everything_back() -> None:
    def scenario() -> Any:
        params = {"W": np.ones(2), "b": np.ones(1)}

        def check() -> None:
            assert params["W"].tolist() == [1.0, 1.0]
            assert params["b"].tolist() == [1.0]

        return lambda: fastgd.check_gradient(quadratic, params, directions=1), check

    assert at_every_line(scenario) > 50


def test_minimize_loses_no_batch() -> None:
    """A run that was interrupted goes on with the batch that would have been next."""
    X = np.arange(6.0)

    def scenario() -> Any:
        batches = fastgd.MiniBatches(X, batch_size=2, seed=0)
        opt = fastgd.SGD(np.zeros(1), lr=0.1)

        def check() -> None:
            done = opt.step_count
            assert batches.epoch * 3 + batches.state_dict()["position"] == done
            fastgd.minimize(
                lambda w, x: (0.0, np.zeros(1)),
                opt.params["params"], data=batches, optimizer=opt, steps=6 - done, probe=False,
            ) if done < 6 else None  # fmt: skip
            assert opt.step_count == 6

        def work() -> None:
            fastgd.minimize(
                lambda w, x: (0.0, np.zeros(1)), opt.params["params"], data=batches,
                optimizer=opt, epochs=2, probe=False,
            )  # fmt: skip

        return work, check

    assert at_every_line(scenario) > 100


def test_minimize_restores_the_best_parameters_whenever_it_is_interrupted_again() -> None:
    """The first Ctrl-C comes from the function; the second at every line after it."""

    def scenario() -> Any:
        params = {"W": np.full(3, 4.0), "b": np.full(2, 4.0)}
        calls = [0]
        best: dict[float, Any] = {}

        def rising(p: Any) -> Any:
            calls[0] += 1
            if calls[0] == 4:
                raise KeyboardInterrupt
            loss = quadratic(p)[0]
            best[loss] = {key: value.copy() for key, value in p.items()}
            return loss, quadratic(p)[1]

        def check() -> None:
            if calls[0] >= 4:
                wanted = best[min(best)]
                for key, value in params.items():
                    np.testing.assert_array_equal(value, wanted[key])

        def work() -> None:
            fastgd.minimize(
                rising, params, optimizer="sgd", lr=2.0, steps=9, patience=100, probe=False
            )

        return work, check

    assert at_every_line(scenario) > 50
