"""The two points of Schedule-Free: what the parameters hold, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from tests.support import assert_same_bits, optimizer, tame

NAMES = ["ScheduleFreeSGD", "ScheduleFreeAdamW"]
pytestmark = pytest.mark.parametrize("name", NAMES)


def trained(name: str, params: Any, steps: int = 5, **kwargs: Any) -> Any:
    opt = optimizer(name, params, lr=0.05, **kwargs)
    rng = np.random.default_rng(2)
    for _ in range(steps):
        opt.step({key: tame(rng, p.shape, p.dtype) for key, p in params.items()})
    return opt


def arrays(dtype: Any = np.float64) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        "C": tame(rng, (3, 4), dtype),
        "F": np.asfortranarray(tame(rng, (300, 400), dtype)),
        "scalar": np.array(1.5, dtype),
        "none": np.empty((0, 2), dtype),
    }


def test_the_average_is_there_while_evaluating(name: str, dtype: type[np.floating]) -> None:
    params = arrays(dtype)
    opt = trained(name, params)
    b = 0.9
    y = {key: p.copy(order="K") for key, p in params.items()}
    expected = {key: (y[key] - (1 - b) * opt.state[key]["z"]) / b for key in params}
    assert not opt.evaluating
    with opt.evaluation():
        assert opt.evaluating
        for key, p in params.items():
            np.testing.assert_allclose(p, expected[key], rtol=50 * np.finfo(dtype).eps, atol=1e-6)
        opt.eval()  # once more does nothing
    assert not opt.evaluating
    for key, p in params.items():
        np.testing.assert_allclose(p, y[key], rtol=0, atol=8 * np.finfo(dtype).eps * 10)


def test_no_step_while_evaluating(name: str) -> None:
    opt = trained(name, arrays())
    opt.eval()
    with pytest.raises(RuntimeError, match=r"evaluating.*call train\(\)"):
        opt.step(dict.fromkeys(arrays()))
    opt.train()
    assert opt.step(dict.fromkeys(arrays()))


def test_within_evaluation_the_mode_is_kept(name: str) -> None:
    opt = trained(name, arrays())
    opt.eval()
    with opt.evaluation():
        pass
    assert opt.evaluating


def test_a_checkpoint_knows_the_mode(name: str, tmp_path: Path) -> None:
    params, others = arrays(), arrays()
    opt = trained(name, params)
    opt.eval()
    fastgd.save(tmp_path / "run.npz", opt)
    other = optimizer(name, others, lr=0.05)
    fastgd.load(tmp_path / "run.npz", other)
    assert other.evaluating
    opt.train()
    other.train()
    grads = {key: np.ones(p.shape) for key, p in params.items()}
    opt.step(grads)
    other.step(grads)
    for key, p in params.items():
        assert_same_bits(others[key], p, key)


def test_an_array_added_while_evaluating_is_its_own_average(name: str) -> None:
    params = {"W": np.ones(3)}
    opt = trained(name, params)
    opt.eval()
    late = np.full(2, 7.0)
    opt.add_param_group({"params": late})
    opt.train()
    assert late.tolist() == [7.0, 7.0]
    assert not opt.evaluating


def test_a_failing_block_still_goes_back(name: str) -> None:
    opt = trained(name, arrays())
    with pytest.raises(ZeroDivisionError), opt.evaluation():
        raise ZeroDivisionError
    assert not opt.evaluating


@pytest.mark.parametrize("main", ["itself", "Prodigy", "NAdam"])
def test_with_groups_of_another_rule(name: str, main: str) -> None:
    """Which has no average: its arrays and its numbers stay, whichever class the optimizer is of."""
    w, b = np.ones(3), np.ones(2)
    ours = {"params": w, "optimizer": name, "lr": 0.1}
    if main == "itself":
        other = {"params": b, "optimizer": "Prodigy"}
        opt = optimizer(name, [ours, other])
    else:
        opt = optimizer(main, [ours, {"params": b}])
    for _ in range(3):
        opt.step([np.ones(3), np.ones(2)])
    before, state, average = b.copy(), opt.state["1"], (w - 0.1 * opt.state["0"]["z"]) / 0.9
    assert not opt.evaluating
    with opt.evaluation():
        assert_same_bits(b, before)
        np.testing.assert_allclose(w, average)
        assert opt.evaluating
        with pytest.raises(RuntimeError, match="evaluating"):
            opt.step([np.ones(3), np.ones(2)])
    assert repr(opt.state["1"]) == repr(state)
    assert opt.step([np.ones(3), np.ones(2)])


def test_minimize_returns_the_average(name: str) -> None:
    """Its loss, validations and the best parameters are those of the average."""
    A = np.random.default_rng(3).standard_normal((30, 4))
    y = A @ np.arange(4.0)

    def value_and_grad(w: Any) -> Any:
        r = A @ w - y
        return float(r @ r) / 30, 2 * A.T @ r / 30

    for extra in ({}, {"patience": 5}, {"validation": lambda w: value_and_grad(w)[0]}):
        w = np.zeros(4)
        opt = optimizer(name, w, lr=0.1)
        more: Any = {"validation_every": 10, **extra} if "validation" in extra else extra
        result = fastgd.minimize(value_and_grad, w, optimizer=opt, steps=100, **more)
        assert opt.evaluating
        assert result.loss == pytest.approx(value_and_grad(result.params)[0])
        again = fastgd.minimize(value_and_grad, w, optimizer=opt, steps=100)
        assert again.loss < result.loss
