"""check_gradient: it passes right gradients, catches wrong ones by name, and leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd._arrays.tree import flatten
from fastgd.training import check_gradient
from tests.diagnostics import problems as dp
from tests.support import assert_same_bits

Change = Callable[[Any], None]


def a_network(
    seed: int, activation: str, loss: str, dtype: Any
) -> tuple[dp.ValueAndGrad, Any, tuple[Any, Any]]:
    rng = np.random.default_rng(seed)
    soft = loss == "softmax"
    x, y = dp.classes(rng, 60, 5, 3) if soft else dp.regression(rng, 60, 5)
    params = dp.mlp_params(rng, [5, 12, 12, 3 if soft else 1], dtype=dtype)
    for layer in params:
        layer["b"][...] = 0.1 * rng.standard_normal(layer["b"].shape)
    return dp.mlp(activation, loss), params, (x.astype(dtype), y)


def changed(value_and_grad: dp.ValueAndGrad, change: Change) -> dp.ValueAndGrad:
    def wrong(params: Any, *batch: Any) -> tuple[float, Any]:
        loss, grads = value_and_grad(params, *batch)
        change(grads)
        return loss, grads

    return wrong


# --- right gradients ---


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softsign", "elu"])
@pytest.mark.parametrize("loss", ["softmax", "squares"])
def test_right_gradients_of_smooth_networks(activation: str, loss: str, dtype: Any) -> None:
    for seed in range(5):
        f, params, data = a_network(seed, activation, loss, dtype)
        report = check_gradient(f, params, *data, seed=seed)
        assert report.ok, str(report)
        assert report.error < (1e-7 if dtype is np.float64 else 2e-2)


@pytest.mark.parametrize("loss", ["softmax", "squares"])
def test_kinks_are_no_errors(loss: str) -> None:
    for seed in range(10):
        f, params, data = a_network(seed, "relu", loss, np.float64)
        report = check_gradient(f, params, *data, seed=seed)
        assert report.ok, str(report)


def test_most_kinks_are_no_errors_in_float32() -> None:
    reports = []
    for seed in range(20):
        f, params, data = a_network(seed, "relu", "softmax", np.float32)
        reports.append(check_gradient(f, params, *data, seed=seed))
    assert sum(map(bool, reports)) >= 18


@pytest.mark.parametrize(
    ("value_and_grad", "params", "batch"),
    [
        (dp.quadratic(np.geomspace(1, 1e6, 8)), np.ones(8), ()),
        (dp.quadratic(np.geomspace(1e-9, 1e-6, 8)), np.ones(8), ()),
        (dp.rosenbrock, np.array([-1.2, 1.0]), ()),
        (dp.rosenbrock, np.array([1.0, 1.0]), ()),  # at the minimum
        (dp.double_well, np.zeros(3), ()),
        (dp.factorization(np.eye(3)), {"U": np.ones((3, 2)), "V": np.ones((2, 3))}, ()),
        (dp.factorization(np.eye(3)), {"U": np.zeros((3, 2)), "V": np.zeros((2, 3))}, ()),
        (lambda x: (1e6 + float(x @ x), 2 * x), np.ones(3), ()),  # a large constant
        (lambda x: (float(np.abs(x).sum()), np.sign(x)), np.array([1e-7, 1.0, -2.0]), ()),
        (lambda x: (3.0, np.zeros(2)), np.ones(2), ()),
    ],
)
def test_right_gradients_of_difficult_functions(
    value_and_grad: Any, params: Any, batch: Any
) -> None:
    report = check_gradient(value_and_grad, params, *batch)
    assert report.ok, str(report)


def test_recurrent_network(rng: np.random.Generator) -> None:
    params = dp.rnn_params(rng, 3, 8, 2, 0.9)
    report = check_gradient(dp.rnn(), params, *dp.sequences(rng, 30, 8))
    assert report.ok, str(report)
    assert list(report.leaves) == ["Wx", "Wh", "b", "Wy", "by"]


def test_linear_models(rng: np.random.Generator) -> None:
    params = {"w": 0.1 * rng.standard_normal(4), "b": np.ones(1)}
    x, y = dp.classes(rng, 50, 4, 2)
    for f, target in ((dp.least_squares, y), (dp.logistic, 2.0 * y - 1), (dp.poisson, y)):
        assert check_gradient(f, params, x, target)


# --- wrong gradients ---

WRONG: dict[str, tuple[Change, str]] = {
    "sign": (lambda g: np.negative(g[1]["W"], out=g[1]["W"]), "1/W"),
    "factor 2": (lambda g: np.multiply(g[0]["W"], 2, out=g[0]["W"]), "0/W"),
    "missing factor": (lambda g: np.multiply(g[2]["W"], 0.5, out=g[2]["W"]), "2/W"),
    "sum for mean": (lambda g: np.multiply(g[0]["b"], 60, out=g[0]["b"]), "0/b"),
    "zero": (lambda g: g[1]["b"].fill(0), "1/b"),
    "transposed": (lambda g: g[1].update(W=g[1]["W"].T.copy()), "1/W"),
    "reversed": (lambda g: g[2].update(b=g[2]["b"][::-1].copy()), "2/b"),
    "none": (lambda g: g[1].update(W=None), "1/W"),
}


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_wrong_gradients_are_named(fault: str, activation: str, dtype: Any) -> None:
    change, name = WRONG[fault]
    for seed in range(3):
        f, params, data = a_network(seed, activation, "softmax", dtype)
        report = check_gradient(changed(f, change), params, *data, seed=seed)
        assert not report.ok
        assert report.worst == name
        others = [e for other, e in report.errors.items() if other != name]
        assert max(others) < report.errors[name]
        assert "<- wrong" in str(report)


def test_gradients_of_two_arrays_mixed_up() -> None:
    f, params, data = a_network(0, "tanh", "softmax", np.float64)

    def swap(grads: Any) -> None:
        grads[0]["b"], grads[1]["b"] = grads[1]["b"], grads[0]["b"]

    report = check_gradient(changed(f, swap), params, *data)
    assert {name for name, error in report.errors.items() if error > report.tol} == {"0/b", "1/b"}


def test_one_wrong_element_of_many() -> None:
    f, params, data = a_network(0, "tanh", "softmax", np.float64)

    def spoil(grads: Any) -> None:
        grads[1]["W"][3, 7] *= 1.01

    report = check_gradient(changed(f, spoil), params, *data)
    assert (report.ok, report.worst) == (False, "1/W")


def test_wrong_product_of_arrays_shows_in_the_joint_directions() -> None:
    report = check_gradient(
        lambda x: (float(x[0] @ x[1]), [x[1], 0 * x[0]]), [np.ones(3)] * 1 + [np.full(3, 2.0)]
    )
    assert report.worst == "1"
    assert report.joint.error > report.tol


@pytest.mark.parametrize(
    ("factor", "hint"),
    [
        (-1, "has the wrong sign"),
        (0, "is zero where the loss is not flat"),
        (60, "is 60 times what it should be: sum or mean over the batch?"),
        (1 / 60, "is 0.0167 times what it should be: sum or mean over the batch?"),
        (1.37, "is 1.37 times what it should be."),
    ],
)
def test_hint_for_one_array(factor: float, hint: str) -> None:
    f, params, data = a_network(0, "tanh", "softmax", np.float64)
    wrong = changed(f, lambda g: g[1].update(W=g[1]["W"] * factor))
    report = check_gradient(wrong, params, *data)
    assert report.hint.startswith(f"The gradient of '1/W' {hint}")
    assert hint in str(report)


def test_hint_for_all_arrays() -> None:
    f, params, data = a_network(0, "tanh", "softmax", np.float64)

    def summed(grads: Any) -> None:
        for layer in grads:
            for array in layer.values():
                array *= 60

    report = check_gradient(changed(f, summed), params, *data)
    assert report.hint.startswith("Every gradient is 60 times")


def test_no_hint_without_a_common_factor() -> None:
    f, params, data = a_network(0, "tanh", "softmax", np.float64)
    report = check_gradient(changed(f, lambda g: g[0].update(b=g[0]["b"][::-1])), params, *data)
    assert not report.ok
    assert report.hint == ""


# --- the report ---


def test_report() -> None:
    f, params, data = a_network(0, "tanh", "softmax", np.float64)
    report = check_gradient(f, params, *data)
    assert bool(report) is report.ok is True
    assert report.loss == f(params, *data)[0]
    assert list(report.errors) == ["0/W", "0/b", "1/W", "1/b", "2/W", "2/b"]
    assert report.error == max(max(report.errors.values()), report.joint.error)
    for leaf in report.leaves.values():
        assert leaf.predicted == pytest.approx(leaf.measured, rel=1e-5, abs=1e-9)
    text = str(report)
    assert text.startswith("Gradients right")
    assert all(name in text for name in report.leaves)


def test_same_seed_same_report() -> None:
    f, params, data = a_network(0, "tanh", "softmax", np.float64)
    reports = [str(check_gradient(f, params, *data, seed=s)) for s in (4, 4, 5)]
    assert reports[0] == reports[1] != reports[2]


def test_directions_tol_and_eps() -> None:
    f, params, data = a_network(0, "tanh", "softmax", np.float64)
    calls = [0]

    def counted(p: Any, *batch: Any) -> Any:
        calls[0] += 1
        return f(p, *batch)

    report = check_gradient(counted, params, *data, eps=1e-5, directions=2, tol=0.5)
    assert calls[0] == 2 + 2 * 2 * 7  # twice at the start, then per direction, six arrays and all
    assert report.tol == 0.5
    wrong = changed(f, lambda g: g[1].update(W=g[1]["W"] * 1.2))
    assert check_gradient(wrong, params, *data, tol=0.5)
    assert not check_gradient(wrong, params, *data, tol=0.05)


def test_parameters_as_groups(rng: np.random.Generator) -> None:
    groups = [
        {"params": rng.standard_normal(3)},
        {"params": {"a": rng.standard_normal(2)}, "lr": 1},
    ]

    def f(trees: Any) -> Any:
        return float(trees[0] @ trees[0] + trees[1]["a"].sum()), [2 * trees[0], {"a": np.zeros(2)}]

    report = check_gradient(f, groups)
    assert (report.ok, report.worst) == (False, "1/a")


def test_layouts_and_empty_arrays(rng: np.random.Generator) -> None:
    params = {"f": np.asfortranarray(rng.standard_normal((3, 4))), "e": np.zeros((0, 2))}

    def f(p: Any) -> Any:
        return float(np.sum(p["f"] ** 4)), {"f": 4 * p["f"] ** 3, "e": np.zeros((0, 2))}

    assert check_gradient(f, params)


def test_none_for_a_container_is_zero() -> None:
    params = {"a": [np.ones(2), np.ones(2)], "b": np.ones(2)}
    assert check_gradient(lambda p: (float(p["b"].sum()), {"a": None, "b": np.ones(2)}), params)
    report = check_gradient(lambda p: (float(p["a"][1].sum()), {"a": None, "b": None}), params)
    assert report.worst == "a/1"


# --- restoring ---


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("calls", [1, 2, 3, 4, 17])
def test_restored_after_an_exception(error: type[BaseException], calls: int, dtype: Any) -> None:
    f, params, data = a_network(0, "tanh", "softmax", dtype)
    before = [np.copy(a) for _, a in flatten(params)[0]]
    made = [0]

    def failing(p: Any, *batch: Any) -> Any:
        made[0] += 1
        if made[0] == calls:
            raise error("stop")
        return f(p, *batch)

    with pytest.raises(error, match="stop"):
        check_gradient(failing, params, *data)
    for (name, array), old in zip(flatten(params)[0], before, strict=True):
        assert_same_bits(array, old, name)


def test_restored_after_success(dtype: Any) -> None:
    f, params, data = a_network(0, "relu", "softmax", dtype)
    params[0]["b"][0] = -0.0
    before = [np.copy(a) for _, a in flatten(params)[0]]
    check_gradient(f, params, *data)
    for (name, array), old in zip(flatten(params)[0], before, strict=True):
        assert_same_bits(array, old, name)


def test_gradients_in_a_reused_buffer(rng: np.random.Generator) -> None:
    x, buffer = rng.standard_normal(5), np.empty(5)

    def f(x: Any) -> Any:
        buffer[...] = 4 * x**3
        return float(np.sum(x**4)), buffer

    assert check_gradient(f, x)


# --- refused ---


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"eps": 0}, ValueError, "eps"),
        ({"eps": np.nan}, ValueError, "eps"),
        ({"eps": "small"}, TypeError, "eps"),
        ({"tol": -1e-3}, ValueError, "tol"),
        ({"tol": True}, TypeError, "tol"),
        ({"directions": 0}, ValueError, "directions"),
        ({"directions": 1.5}, TypeError, "directions"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": None}, TypeError, "seed"),
    ],
)
def test_options_refused(options: dict[str, Any], error: type[Exception], match: str) -> None:
    calls = []

    def f(x: Any) -> Any:
        calls.append(x)
        return float(x @ x), 2 * x

    with pytest.raises(error, match=match):
        check_gradient(f, np.ones(2), **options)
    assert not calls


@pytest.mark.parametrize(
    ("value_and_grad", "error", "match"),
    [
        (lambda p: {"w": p["w"]}, TypeError, "pair"),
        (lambda p: (p["w"], p), TypeError, "loss"),
        (lambda p: (1.0, {"w": np.ones(3)}), ValueError, r"'w' has shape \(3,\)"),
        (lambda p: (1.0, {"v": np.ones(2)}), ValueError, "no gradient 'w'"),
        (lambda p: (1.0, {"w": p["w"], "v": p["w"]}), ValueError, "no parameter: v"),
        (lambda p: (1.0, {"w": np.array([1.0, np.nan])}), FloatingPointError, "'w'"),
        (lambda p: (np.inf, {"w": p["w"]}), FloatingPointError, "loss is inf"),
    ],
)
def test_what_it_returns_refused(value_and_grad: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        check_gradient(value_and_grad, {"w": np.ones(2)})


def test_random_functions_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="for the same parameters"):
        check_gradient(lambda x: (float(rng.random()), 2 * x), np.ones(2))


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        (np.ones(2, int), TypeError, "'params'"),
        ({"a": 1.0}, TypeError, "'a'"),
        ([], ValueError, "no arrays"),
        ({"a/b": np.ones(1), "a": {"b": np.ones(1)}}, ValueError, "same name"),
    ],
)
def test_params_refused(params: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        check_gradient(lambda p: (0.0, p), params)


def test_not_a_function() -> None:
    with pytest.raises(TypeError, match="value_and_grad"):
        check_gradient(fastgd, np.ones(2))  # type: ignore[arg-type]


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.2, 1.5])
def test_a_wrong_factor_in_float32(factor: float) -> None:
    """The slopes to either side lie far apart at float32's steps, but not around a wrong slope."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1000, 64))
    y = (X @ rng.standard_normal(64) > 0) * 1.0

    def squares(w: Any, X: Any, y: Any) -> tuple[float, Any]:
        r = X @ w - y
        return float(r @ r / len(y) / 2), factor * X.T @ r / len(y)

    for seed in range(5):
        report = fastgd.check_gradient(squares, np.zeros(64, np.float32), X, y, seed=seed)
        assert report.ok == (factor == 1)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_what_float32_cannot_see_is_said(scale: float, rng: np.random.Generator) -> None:
    """Errors of half of it pass, of twice as much are found; float64 finds both."""
    x, target = rng.standard_normal((100, 20)), rng.standard_normal(20)

    def check(dtype: Any, factor: float) -> fastgd.GradientReport:
        data, y = x.astype(dtype), (scale + x @ target).astype(dtype)

        def squares(w: Any) -> tuple[Any, Any]:
            error = data @ w - y
            return (error * error).mean(), (factor * 2 / len(y) * data.T @ error).astype(dtype)

        return fastgd.check_gradient(squares, np.zeros(20, dtype))

    exact = check(np.float32, 1.0)
    assert exact.ok
    assert 0.02 <= exact.unseen < 0.1
    assert f"less than {exact.unseen:.1%} does not show" in str(exact)
    assert check(np.float32, 1 + exact.unseen / 2).ok
    assert not check(np.float32, 1 + 2 * exact.unseen).ok
    sharp = check(np.float64, 1.0)
    assert sharp.ok
    assert sharp.unseen < 1e-4
    assert "does not show" not in str(sharp)
    assert not check(np.float64, 1 + exact.unseen / 2).ok
