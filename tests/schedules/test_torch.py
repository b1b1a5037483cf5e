"""Schedules against PyTorch's schedulers of the same names, at every step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastgd import schedules

torch = pytest.importorskip("torch")
schedulers = torch.optim.lr_scheduler

STEPS = 2000
# Most of PyTorch's schedulers compute each value from the one before and gather rounding errors;
# next to a final value of 0 those are absolute ones. The others evaluate a formula, as ours do.
RECURSIVE = {"rtol": 1e-9, "atol": 1e-12}
CLOSED = {"rtol": 1e-14, "atol": 1e-15}
EXACT = {"rtol": 0.0, "atol": 0.0}

LR = 0.3  # not exact in binary


def torch_values(
    make: Callable[[Any], Any], steps: int = STEPS, lr: float = LR, key: str = "lr"
) -> np.ndarray:
    """The value of `key` at each step under the scheduler make(optimizer)."""
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)
    values = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The epoch parameter")  # SequentialLR's own call
        scheduler = make(opt)
        for _ in range(steps):
            values.append(float(opt.param_groups[0][key]))
            opt.step()
            scheduler.step()
    return np.array(values)


def assert_equal_values(
    schedule: Callable[[int], float], expected: np.ndarray, *, rtol: float, atol: float
) -> None:
    actual = np.array([schedule(t) for t in range(len(expected))])
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("gamma", [0.1, 0.97, 1.001])
@pytest.mark.parametrize("step_size", [1, 7, 300])
def test_step(step_size: int, gamma: float) -> None:
    expected = torch_values(lambda opt: schedulers.StepLR(opt, step_size, gamma))
    ours = schedules.step(LR, step_size=step_size, gamma=gamma)
    assert_equal_values(ours, expected, **RECURSIVE)


@pytest.mark.parametrize("milestones", [[], [1], [10, 11, 400, 1999], list(range(1, 2000, 3))])
def test_multi_step(milestones: list[int]) -> None:
    expected = torch_values(lambda opt: schedulers.MultiStepLR(opt, milestones, 0.9))
    ours = schedules.multi_step(LR, milestones=milestones, gamma=0.9)
    assert_equal_values(ours, expected, **RECURSIVE)


def test_constant() -> None:
    expected = torch_values(lambda opt: schedulers.LambdaLR(opt, lambda t: 1.0))
    assert_equal_values(schedules.constant(LR), expected, **EXACT)


def test_piecewise_constant() -> None:
    """PyTorch's ConstantLR is a piecewise constant schedule of two pieces."""
    expected = torch_values(lambda opt: schedulers.ConstantLR(opt, factor=0.5, total_iters=700))
    ours = schedules.piecewise_constant([LR * 0.5, LR], boundaries=[700])
    assert_equal_values(ours, expected, **RECURSIVE)


@pytest.mark.parametrize(
    ("start_factor", "end_factor"), [(1 / 3, 1.0), (1.0, 0.0), (1e-3, 1.0), (0.2, 0.7)]
)
@pytest.mark.parametrize("total_steps", [1, 5, 1500, 3000])
def test_linear(total_steps: int, start_factor: float, end_factor: float) -> None:
    expected = torch_values(
        lambda opt: schedulers.LinearLR(opt, start_factor, end_factor, total_steps)
    )
    ours = schedules.linear(
        LR, total_steps=total_steps, start_factor=start_factor, end_factor=end_factor
    )
    assert_equal_values(ours, expected, **RECURSIVE)


def test_linear_has_the_same_default_factors() -> None:
    expected = torch_values(lambda opt: schedulers.LinearLR(opt, total_iters=1000))
    assert_equal_values(schedules.linear(LR, total_steps=1000), expected, **RECURSIVE)


@pytest.mark.parametrize("power", [0.5, 0.9, 1.0, 2.0])
@pytest.mark.parametrize("total_steps", [1, 5, 1500, 3000])
def test_polynomial(total_steps: int, power: float) -> None:
    expected = torch_values(lambda opt: schedulers.PolynomialLR(opt, total_steps, power))
    ours = schedules.polynomial(LR, total_steps=total_steps, power=power)
    assert_equal_values(ours, expected, **RECURSIVE)


@pytest.mark.parametrize("gamma", [0.5, 0.99, 1.0, 1.01])
def test_exponential(gamma: float) -> None:
    expected = torch_values(lambda opt: schedulers.ExponentialLR(opt, gamma))
    assert_equal_values(schedules.exponential(LR, gamma=gamma), expected, **RECURSIVE)


@pytest.mark.parametrize("final", [0.0, 1e-3, 0.5])
@pytest.mark.parametrize("total_steps", [STEPS - 1, 5000])
def test_cosine(total_steps: int, final: float) -> None:
    expected = torch_values(lambda opt: schedulers.CosineAnnealingLR(opt, total_steps, final))
    ours = schedules.cosine(LR, total_steps=total_steps, final=final)
    assert_equal_values(ours, expected, **RECURSIVE)


@pytest.mark.parametrize("final", [0.0, 1e-3])
@pytest.mark.parametrize(("period", "multiplier"), [(1, 1), (7, 1), (1, 2), (10, 2), (3, 5)])
def test_cosine_restarts(period: int, multiplier: int, final: float) -> None:
    expected = torch_values(
        lambda opt: schedulers.CosineAnnealingWarmRestarts(opt, period, multiplier, final)
    )
    ours = schedules.cosine_restarts(LR, period=period, multiplier=multiplier, final=final)
    assert_equal_values(ours, expected, **CLOSED)


@pytest.mark.parametrize(
    ("mode", "gamma"), [("triangular", 1.0), ("triangular2", 1.0), ("exp_range", 0.999)]
)
@pytest.mark.parametrize(("up", "down"), [(2000, None), (7, None), (1, 1), (30, 90), (90, 37)])
def test_cyclic(up: int, down: int | None, mode: Any, gamma: float) -> None:
    def make(opt: Any) -> Any:
        return schedulers.CyclicLR(
            opt,
            0.01,
            LR,
            step_size_up=up,
            step_size_down=down,
            mode=mode,
            gamma=gamma,
            base_momentum=0.8,
            max_momentum=0.9,
        )

    options: dict[str, Any] = {"step_size_up": up, "step_size_down": down, "mode": mode}
    # PyTorch takes the position in a cycle from 1 + t / period - cycle: an error of t ULP
    tolerance = {"rtol": 0.0, "atol": 1e-12}
    # 1 / 2 ** 1024 is where PyTorch's triangular2 overflows
    steps = min(STEPS, 1000 * (up + (down or up)))
    lr = schedules.cyclic(0.01, LR, gamma=gamma, **options)
    momentum = schedules.cyclic(0.9, 0.8, gamma=gamma, **options)
    assert_equal_values(lr, torch_values(make, steps), **tolerance)
    assert_equal_values(momentum, torch_values(make, steps, key="momentum"), **tolerance)


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("anneal_strategy", ["cos", "linear"])
@pytest.mark.parametrize("pct_start", [0.0, 0.1, 0.3, 1 / 3, 0.5])
@pytest.mark.parametrize(
    "total_steps", [4, 7, 1000, 2001]
)  # PyTorch divides 0 by 0 for pct_start * total_steps == 1
def test_one_cycle(
    total_steps: int, pct_start: float, anneal_strategy: Any, three_phase: bool
) -> None:
    options: dict[str, Any] = {
        "total_steps": total_steps,
        "pct_start": pct_start,
        "anneal_strategy": anneal_strategy,
        "three_phase": three_phase,
    }

    def make(opt: Any) -> Any:
        return schedulers.OneCycleLR(
            opt, LR, base_momentum=0.8, max_momentum=0.9, div_factor=10, **options
        )

    lr = schedules.one_cycle(LR, div_factor=10, **options)
    momentum = schedules.one_cycle_momentum(0.8, 0.9, **options)
    assert_equal_values(lr, torch_values(make, total_steps), **CLOSED)
    assert_equal_values(momentum, torch_values(make, total_steps, key="momentum"), **CLOSED)


def test_one_cycle_has_the_same_defaults() -> None:
    def make(opt: Any) -> Any:
        return schedulers.OneCycleLR(opt, LR, total_steps=STEPS)

    lr, momentum = torch_values(make), torch_values(make, key="momentum")
    assert_equal_values(schedules.one_cycle(LR, total_steps=STEPS), lr, **CLOSED)
    assert_equal_values(schedules.one_cycle_momentum(total_steps=STEPS), momentum, **CLOSED)


def test_warmup_and_join() -> None:
    def make(opt: Any) -> Any:
        warm = schedulers.LinearLR(opt, start_factor=0.1, total_iters=200)
        cosine = schedulers.CosineAnnealingLR(opt, T_max=1000)
        decay = schedulers.ExponentialLR(opt, gamma=0.99)
        return schedulers.SequentialLR(opt, [warm, cosine, decay], milestones=[200, 1200])

    warm = schedules.warmup(schedules.cosine(LR, total_steps=1000), 200, start_factor=0.1)
    ours = schedules.join([warm, schedules.exponential(LR, gamma=0.99)], [1200])
    assert_equal_values(ours, torch_values(make), **RECURSIVE)


def test_warmup_stable_decay() -> None:
    def make(opt: Any) -> Any:
        stable = schedulers.ConstantLR(opt, factor=1.0)
        decay = schedulers.LinearLR(opt, start_factor=1.0, end_factor=0.1, total_iters=300)
        return schedulers.SequentialLR(opt, [stable, decay], milestones=[900])

    ours = schedules.warmup_stable_decay(
        LR, total_steps=1200, warmup_steps=0, decay_steps=300, final=LR * 0.1
    )
    assert_equal_values(ours, torch_values(make), **RECURSIVE)


def test_any_schedule_drives_a_torch_optimizer() -> None:
    """LambdaLR multiplies by a function of the step: with lr = 1 it is the schedule itself."""
    ours = schedules.warmup_stable_decay(LR, total_steps=900, warmup_steps=50, decay_steps=200)
    expected = torch_values(lambda opt: schedulers.LambdaLR(opt, ours), steps=1000, lr=1.0)
    assert_equal_values(ours, expected, **EXACT)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"factor": 0.9, "patience": 0},
        {"factor": 0.7, "patience": 2, "cooldown": 4, "threshold": 0.05},
        {"factor": 0.5, "patience": 1, "min_lr": 1e-3, "eps": 1e-4},
        {"factor": 0.5, "patience": 3, "cooldown": 1, "eps": 0.01},
    ],
    ids=str,
)
def test_reduce_on_plateau(mode: Any, threshold_mode: Any, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(len(options))
    t = np.arange(1500)
    metrics = 1 / (1 + t / 50) + 0.05 * rng.standard_normal(len(t))  # falls, then below 0 at times
    metrics[rng.random(len(t)) < 0.01] = np.nan
    metrics[[0, 3]] = np.inf
    if mode == "max":
        metrics = 1 - metrics
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    theirs = schedulers.ReduceLROnPlateau(opt, mode, threshold_mode=threshold_mode, **options)
    ours = schedules.ReduceOnPlateau(LR, mode=mode, threshold_mode=threshold_mode, **options)
    for metric in metrics:
        before = ours.lr
        theirs.step(metric)
        assert ours.update(metric) == (ours.lr != before)
        assert ours.lr == opt.param_groups[0]["lr"]
        state = ours.state_dict()
        del state["lr"]
        assert state == {key: getattr(theirs, key) for key in state}
