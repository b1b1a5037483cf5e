"""Adafactor over stacks of matrices and over either order of memory; the shapes of its state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fastgd
from tests.reference import Reference
from tests.support import assert_matches, engine_multiply_add, tame

SHAPES = [(), (5,), (4, 3), (2, 4, 3), (2, 3, 4, 5), (1, 1), (300, 200), (0, 3), (3, 0)]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", SHAPES)
def test_reference(
    shape: tuple[int, ...], order: str, dtype: type[np.floating], rng: np.random.Generator
) -> None:
    p = np.asarray(tame(rng, shape, dtype), order="C" if order == "C" else "F")
    ref = Reference("Adafactor", {"p": p}, lr=0.05, multiply_add=engine_multiply_add())
    opt = fastgd.Adafactor(p, lr=0.05)
    for step in range(1, 6):
        g = tame(rng, shape, dtype)
        opt.step(g)
        ref.step({"p": g})
        assert_matches(np.asarray(p, order="C"), ref.params["p"], 64 * step, str(step))
    for slot, expected in ref.state["p"].items():
        assert_matches(opt.state["params"][slot], expected, 320, slot)


def test_the_state_of_a_matrix_is_a_row_and_a_column(tmp_path: Path) -> None:
    W = np.ones((2, 30, 20), np.float32)
    opt = fastgd.Adafactor({"W": W, "b": np.ones(20)})
    opt.step({"W": np.ones_like(W), "b": np.ones(20)})
    shapes = {key: a.shape for key, a in opt.state["W"].items() if key != "step"}
    assert shapes == {"row_var": (2, 30, 1), "col_var": (2, 1, 20)}
    assert opt.state["b"].keys() == {"step", "variance"}
    fastgd.save(tmp_path / "run.npz", opt)
    other = fastgd.Adafactor({"W": np.zeros_like(W), "b": np.zeros(20)})
    fastgd.load(tmp_path / "run.npz", other)
    np.testing.assert_array_equal(other.state["W"]["row_var"], opt.state["W"]["row_var"])


def test_an_average_that_is_switched_on_later_starts_at_zero() -> None:
    p = np.ones((3, 2))
    opt = fastgd.Adafactor(p)
    opt.step(np.ones((3, 2)))
    opt.param_groups[0]["beta1"] = 0.9
    assert not opt.state["params"]["exp_avg"].any()
    assert opt.state["params"]["row_var"].any()
    opt.step(np.ones((3, 2)))
    assert opt.state["params"]["exp_avg"].any()
