"""Muon: what a matrix rule does beyond an element-wise one.

Its iteration is matrix products, whose bits are the BLAS's; the reference iterates in float64. Budget for
a step of float32: 400 units in the last place of the largest element. The iteration maps singular
values by a polynomial whose slope at 0 is 3.4445^5 = 485, so small ones carry as large a share of error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd.optimizers.muon import orthogonalised
from tests.cases import ALL_CASES, Case
from tests.reference import Reference
from tests.support import assert_matches, assert_same_bits, engine_multiply_add, optimizer, tame

CASES = [case for case in ALL_CASES if case.optimizer == "Muon"]
SHAPES = [(1, 1), (1, 5), (5, 1), (3, 4), (40, 13), (13, 40), (64, 64), (0, 3)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(case: Case, dtype: type[np.floating], rng: np.random.Generator) -> None:
    params = {str(shape): tame(rng, shape, dtype) for shape in SHAPES}
    opt = optimizer("Muon", params, **case.kwargs)
    ref = Reference("Muon", params, multiply_add=engine_multiply_add(), **case.kwargs)
    for step in range(1, 11):
        grads = {name: tame(rng, p.shape, dtype) for name, p in params.items()}
        opt.step(grads)
        ref.step(grads, norm=opt.grad_norm)
        for name, p in params.items():
            assert_matches(p, ref.params[name], step * case.spec.ulps, name)
            buffer = opt.state[name]["momentum_buffer"]
            assert_same_bits(buffer, ref.state[name]["momentum_buffer"], name)


@pytest.mark.parametrize("case", [c for c in CASES if c.in_torch], ids=str)
def test_torch_with_its_iteration_in_double(
    case: Case, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """To 1e-12 over 50 steps of float64; PyTorch's own iteration is in bfloat16."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.double().clone())
    starts = [tame(rng, shape, np.float64) for shape in SHAPES if 0 not in shape]
    params = [p.copy() for p in starts]
    theirs = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in starts]

    def hyper(step: int) -> dict[str, Any]:
        values = {k: v(step) if callable(v) else v for k, v in case.kwargs.items()}
        values.pop("maximize", None)
        return values

    if "maximize" in case.kwargs:
        pytest.skip("torch's Muon has no maximize")
    made = torch.optim.Muon(theirs, **hyper(0))
    opt = fastgd.Muon(params, **case.kwargs)
    for step in range(50):
        made.param_groups[0].update(hyper(step))
        grads = [tame(rng, p.shape, np.float64) for p in params]
        for p, g in zip(theirs, grads, strict=True):
            p.grad = torch.from_numpy(g.copy())
        made.step()
        opt.step(grads)
        for p, q in zip(params, theirs, strict=True):
            np.testing.assert_allclose(p, q.detach().numpy(), rtol=0, atol=1e-12 * max(1, step))


def test_singular_values_become_nearly_equal(rng: np.random.Generator) -> None:
    """The polynomial of the default coefficients maps [0.01, 1] into [0.68, 1.14]."""
    u, _, v = np.linalg.svd(rng.standard_normal((20, 30)), full_matrices=False)
    s = np.geomspace(1, 0.03, 20)
    result = orthogonalised((u * s) @ v, (3.4445, -4.775, 2.0315), 5, 1e-7)
    values = np.linalg.svd(result, compute_uv=False)
    assert values.min() > 0.67
    assert values.max() < 1.15


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_any_scale_of_the_gradient(scale: float) -> None:
    """Squares that leave float32's range do not matter: the direction has no scale."""
    g = np.array([[3.0, 1.0], [-2.0, 0.5]], np.float32)
    ends = []
    for factor in (1.0, scale):
        p = np.ones((2, 2), np.float32)
        fastgd.Muon(p, lr=0.1, eps=0).step(g * np.float32(factor))
        ends.append(p)
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-5)


def test_a_zero_gradient_only_decays() -> None:
    p = np.ones((2, 3))
    fastgd.Muon(p, lr=0.5, weight_decay=0.5).step(np.zeros((2, 3)))
    assert_same_bits(p, np.full((2, 3), 0.75))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_refuses_what_is_no_matrix(shape: tuple[int, ...]) -> None:
    arrays = {"W": np.ones((2, 2)), "other": np.ones(shape)}
    with pytest.raises(ValueError, match=r"'other' has \d axes.*\"optimizer\": fastgd.AdamW"):
        fastgd.Muon(arrays)
    opt = fastgd.Muon(arrays["W"])
    with pytest.raises(ValueError, match="has"):
        opt.add_param_group({"params": arrays["other"]})
    assert len(opt.param_groups) == 1


def test_flatten_takes_filters_as_matrices(rng: np.random.Generator) -> None:
    start, g = tame(rng, (4, 3, 2, 2), np.float64), tame(rng, (4, 3, 2, 2), np.float64)
    filters, matrix = start.copy(), start.reshape(4, 12).copy()
    fastgd.Muon(filters, lr=0.1, flatten=True).step(g)
    fastgd.Muon(matrix, lr=0.1).step(g.reshape(4, 12))
    assert_same_bits(filters.reshape(4, 12), matrix)


def mixed(rng: np.random.Generator, dtype: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    arrays = {
        "W": tame(rng, (6, 4), dtype),
        "V": np.asfortranarray(tame(rng, (4, 7), dtype)),
        "b": tame(rng, (5,), dtype),
    }
    groups = [
        {"params": {"W": arrays["W"], "V": arrays["V"]}},
        {"params": {"b": arrays["b"]}, "optimizer": "AdamW", "lr": 0.01},
    ]
    return arrays, groups


def test_muon_for_matrices_and_adamw_for_the_rest_in_one_object(
    dtype: type[np.floating], rng: np.random.Generator, tmp_path: Path
) -> None:
    """As two optimizers would, with one clipped norm over all, any layout, and a checkpoint between."""
    arrays, groups = mixed(rng, dtype)
    alone = {name: array.copy(order="K") for name, array in arrays.items()}
    opt = fastgd.Muon(groups, lr=0.05)
    muon = fastgd.Muon({"W": alone["W"], "V": alone["V"]}, lr=0.05)
    adamw = fastgd.AdamW(alone["b"], lr=0.01)
    for step in range(6):
        grads = {name: tame(rng, a.shape, dtype) for name, a in arrays.items()}
        opt.step([{"W": grads["W"], "V": grads["V"]}, {"b": grads["b"]}])
        muon.step({"W": grads["W"], "V": grads["V"]})
        adamw.step(grads["b"])
        if step == 2:
            fastgd.save(tmp_path / "run.npz", opt)
            _, groups = mixed(np.random.default_rng(9), dtype)
            opt = fastgd.Muon(groups, lr=0.5)
            fastgd.load(tmp_path / "run.npz", opt)
            arrays = {name[2:]: array for name, array in opt.params.items()}
    for name, array in arrays.items():
        assert_same_bits(array, alone[name], name)
    assert opt.state["1/b"].keys() == {"step", "exp_avg", "exp_avg_sq"}


def test_a_refused_step_changes_nothing(rng: np.random.Generator) -> None:
    p, q = np.ones((3, 2)), np.ones((2, 3))
    opt = fastgd.Muon([p, q], nonfinite="raise")
    bad = np.ones((2, 3))
    bad[0, 0] = np.nan
    with pytest.raises(FloatingPointError):
        opt.step([np.ones((3, 2)), bad])
    assert_same_bits(p, np.ones((3, 2)))
    assert not opt.state["0"]["momentum_buffer"].any()


def test_an_interrupt_between_the_sweeps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python code runs there; nothing has been written yet."""

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    p = np.ones((3, 2))
    opt = fastgd.Muon(p)
    monkeypatch.setattr("fastgd.optimizers.muon.orthogonalised", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opt.step(np.ones((3, 2)))
    monkeypatch.undo()
    assert_same_bits(p, np.ones((3, 2)))
    assert not opt.state["params"]["momentum_buffer"].any()
    assert opt.step_count == 0
    assert opt.step(np.ones((3, 2)))


def test_a_nan_in_a_gradient_reaches_its_whole_matrix_only() -> None:
    p, q = np.ones((2, 2)), np.ones((2, 2))
    g = np.ones((2, 2))
    g[0, 1] = np.nan
    with np.errstate(all="raise"):
        fastgd.Muon([p, q]).step([g, np.ones((2, 2))])
    assert np.isnan(p).all()
    assert np.isfinite(q).all()


@pytest.mark.usefixtures("restored_threads")
def test_same_bits_at_any_number_of_threads(rng: np.random.Generator) -> None:
    start, g = tame(rng, (600, 500), np.float32), tame(rng, (600, 500), np.float32)
    ends = []
    for threads in (1, 2, 3):
        with fastgd.num_threads(threads):
            p = start.copy()
            fastgd.Muon(p, lr=0.1).step(g)
            ends.append(p)
    assert_same_bits(ends[1], ends[0])
    assert_same_bits(ends[2], ends[0])
