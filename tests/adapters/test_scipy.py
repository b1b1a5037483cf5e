"""scipy.optimize.minimize with fastgd's optimizers as methods."""

from __future__ import annotations

import copy
import doctest
import math
import pickle
from typing import Any

import numpy as np
import pytest

import fastgd

optimize = pytest.importorskip("scipy.optimize")

import fastgd.adapters.scipy as adapter  # noqa: E402
from fastgd.adapters.scipy import gpr_optimizer, method  # noqa: E402
from fastgd.optimizers import all_optimizers  # noqa: E402

FEASIBLE = [name for name in all_optimizers() if name not in ("Muon", "Adafactor")]


def bowl(x: Any, scale: float = 1.0) -> Any:
    return float(scale * x @ x) / 2, scale * x


@pytest.mark.parametrize("name", FEASIBLE)
def test_the_steps_are_the_optimizers(name: str) -> None:
    """As a loop by hand, for 60 steps; the best of its points is returned."""
    kind: Any = all_optimizers()[name]
    x, points, values = np.array([3.0, -4.0, 0.5]), [], []
    opt = kind(x)
    for step in range(61):
        if step == 60:
            opt.eval()
        value, gradient = bowl(x)
        points.append(x.copy())
        values.append(value)
        if step < 60:
            opt.step(gradient, loss=value)
    result = optimize.minimize(
        bowl, [3.0, -4.0, 0.5], jac=True, method=getattr(adapter, name.lower()),
        options={"maxiter": 60},
    )  # fmt: skip
    best = int(np.argmin(values))
    assert result.x.tolist() == points[best].tolist()
    assert (result.fun, result.nit, result.nfev, result.njev) == (values[best], 60, 61, 61)
    assert result.success


@pytest.mark.parametrize("form", ["jac=True", "jac=function", "by itself"])
def test_forms_of_the_gradient(form: str) -> None:
    adam = method("adam", lr=0.1)
    start = np.array([1.0, 2.0])
    options: Any = {"maxiter": 2000}
    if form == "jac=True":
        result = optimize.minimize(
            bowl, start, args=(2.0,), jac=True, method=adam, tol=1e-8, options=options
        )
    elif form == "jac=function":
        result = optimize.minimize(
            lambda x, s: bowl(x, s)[0], start, args=2.0, jac=lambda x, s: bowl(x, s)[1],
            method=adam, tol=1e-8, options=options,
        )  # fmt: skip
    else:
        result = adam(bowl, start, args=(2.0,), jac=True, tol=1e-8, maxiter=2000)
    assert result.success
    assert (result.status, start.tolist()) == (0, [1.0, 2.0])
    assert np.abs(result.jac).max() <= 1e-8
    assert np.abs(result.x).max() <= 1e-8
    assert result.nfev == result.njev == result.nit + 1


def test_options_come_before_the_methods_own() -> None:
    sgd = method("sgd", lr=0.25)
    one = optimize.minimize(bowl, [1.0], jac=True, method=sgd, options={"maxiter": 1})
    other = optimize.minimize(bowl, [1.0], jac=True, method=sgd, options={"maxiter": 1, "lr": 0.5})
    assert (one.x[0], other.x[0]) == (0.75, 0.5)


def test_schedules_and_clipping_are_options() -> None:
    options = {"lr": lambda step: 0.5**step, "clip_norm": 1.0, "maxiter": 2}
    result = optimize.minimize(bowl, [4.0], jac=True, method=adapter.sgd, options=options)
    assert result.x[0] == 4.0 - 1.0 - 0.5


@pytest.mark.parametrize("make", ["pairs", "Bounds", "one Bounds"])
def test_bounds(make: str) -> None:
    """The minimum under them: at bounds where the gradient points out of them."""
    if make == "pairs":
        bounds: Any = [(1.0, None), (None, -1.0), (-2.0, 2.0)]
    elif make == "Bounds":
        bounds = optimize.Bounds([1.0, -math.inf, -2.0], [math.inf, -1.0, 2.0])
    else:
        bounds = optimize.Bounds(1.0, 9.0)
    expected = [1.0, 1.0, 1.0] if make == "one Bounds" else [1.0, -1.0, 0.0]
    seen: list[Any] = []

    def fun(x: Any) -> Any:
        seen.append(x)
        return bowl(x)

    result = optimize.minimize(
        fun, [5.0, 5.0, 5.0], jac=True, method=adapter.adam, bounds=bounds, tol=1e-7,
        options={"lr": 0.1, "maxiter": 5000},
    )  # fmt: skip
    assert result.success, result.message
    np.testing.assert_allclose(result.x, expected, atol=1e-7)
    low, high = (bounds.lb, bounds.ub) if hasattr(bounds, "lb") else (
        [1.0, -math.inf, -2.0], [math.inf, -1.0, 2.0])  # fmt: skip
    assert all((low <= x).all() and (x <= high).all() for x in seen)


@pytest.mark.parametrize("through_scipy", [True, False])
def test_callbacks_of_both_forms(through_scipy: bool) -> None:
    plain: list[Any] = []
    modern: list[Any] = []

    def new_form(intermediate_result: Any) -> None:
        modern.append((intermediate_result.x, intermediate_result.fun))

    for callback in (plain.append, new_form):
        if through_scipy:
            optimize.minimize(bowl, [1.0], jac=True, method=method("sgd", lr=0.5),
                              callback=callback, options={"maxiter": 3})  # fmt: skip
        else:
            method("sgd", lr=0.5)(bowl, [1.0], jac=True, callback=callback, maxiter=3)
    assert [x.tolist() for x in plain] == [[0.5], [0.25], [0.125]]  # each a copy
    assert [(x.tolist(), fun) for x, fun in modern] == [
        ([0.5], 0.125), ([0.25], 0.03125), ([0.125], 0.0078125),
    ]  # fmt: skip


def test_a_callback_ends_the_run() -> None:
    def callback(x: Any) -> None:
        if x[0] < 0.2:
            raise StopIteration

    result = optimize.minimize(
        bowl, [1.0], jac=True, method=method("sgd", lr=0.5), callback=callback
    )
    assert (result.nit, result.status, result.success, result.x[0]) == (3, 99, False, 0.125)


def test_how_a_run_ends() -> None:
    result = optimize.minimize(
        bowl, [1.0], jac=True, method=method("sgd", lr=0.01), tol=1e-9, options={"maxiter": 5}
    )
    assert (result.status, result.success, result.nit) == (1, False, 5)
    assert result.message == "Maximum number of iterations has been exceeded."
    with np.errstate(all="ignore"):
        result = optimize.minimize(
            bowl, [1.0], jac=True, method=method("sgd", lr=1e200), options={"maxiter": 50}
        )
    assert (result.status, result.success, result.x[0]) == (2, False, 1.0)
    assert "not finite" in result.message


def test_the_lowest_point_is_returned() -> None:
    result = optimize.minimize(
        bowl, [1.0], jac=True, method=method("sgd", lr=2.5), options={"maxiter": 4}
    )
    assert (result.x[0], result.fun) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"jac": None}, ValueError, "adam needs the gradient: pass jac=True"),
        ({"jac": "2-point"}, ValueError, "needs the gradient"),
        ({"constraints": {"type": "eq", "fun": len}}, ValueError, "SLSQP or trust-constr"),
        (
            {"options": {"learning_rate": 1}},
            TypeError,
            "no option 'learning_rate'; did you mean 'lr'",
        ),
        ({"options": {"gtol": 1}}, TypeError, "did you mean 'tol'"),
        ({"options": {"maxiter": 0}}, ValueError, "maxiter must be at least 1"),
        ({"options": {"lr": -1}}, ValueError, "lr must be"),
        ({"bounds": [(0, 1)]}, ValueError, "bounds must be 2 pairs"),
        ({"bounds": [(0, 1), (3, 2)]}, ValueError, "bounds: a lower one"),
        ({"tol": -1}, ValueError, "tol must be"),
        ({"x0": [np.nan, 1.0]}, ValueError, "x0 must be finite"),
        ({"x0": []}, ValueError, "x0 must be finite"),
        ({"fun": lambda x: (1.0, np.ones(3))}, ValueError, "gradient has 3 elements, x has 2"),
    ],
)
def test_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"fun": bowl, "x0": [1.0, 2.0], "jac": True, "method": adapter.adam, **options}
    with pytest.raises(error, match=message):
        optimize.minimize(**given)


def test_there_is_one_of_each() -> None:
    assert set(dir(adapter)) == {"Method", "gpr_optimizer", "method"} | {
        name.lower() for name in all_optimizers()
    }
    with pytest.raises(AttributeError, match="no attribute 'adm'"):
        adapter.adm  # noqa: B018
    with pytest.raises(TypeError, match="no option 'lrr'; did you mean 'lr'"):
        method("adam", lrr=1)


def test_copies_and_pickles() -> None:
    sgd = method("sgd", lr=0.25)
    for twin in (copy.deepcopy(sgd), pickle.loads(pickle.dumps(sgd))):
        assert repr(twin) == "method('sgd', lr=0.25)"
        assert twin(bowl, [1.0], jac=True, maxiter=1).x[0] == 0.75


def test_a_function_that_keeps_its_argument_keeps_what_it_saw() -> None:
    seen: list[Any] = []

    def fun(x: Any) -> Any:
        seen.append(x)
        return bowl(x)

    method("sgd", lr=0.5)(fun, [1.0], jac=True, maxiter=2)
    assert [x.tolist() for x in seen] == [[1.0], [0.5], [0.25]]


def test_gaussian_processes_of_scikit_learn() -> None:
    """As good a fit as that of its own optimizer."""
    gaussian = pytest.importorskip("sklearn.gaussian_process")
    rng = np.random.default_rng(0)
    X = rng.uniform(0, 5, (40, 1))
    y = np.sin(X[:, 0]) + 0.1 * rng.standard_normal(40)
    kernels = gaussian.kernels
    found = []
    for fit in ("fmin_l_bfgs_b", gpr_optimizer("adam", lr=0.1)):
        kernel = kernels.RBF(2.0) + kernels.WhiteKernel(0.5)
        model = gaussian.GaussianProcessRegressor(kernel, optimizer=fit, normalize_y=True)
        found.append(model.fit(X, y).log_marginal_likelihood_value_)
    assert found[1] == pytest.approx(found[0], abs=0.05)


def test_doctests() -> None:
    result = doctest.testmod(adapter)
    assert result.attempted > 0
    assert result.failed == 0
    assert fastgd.adapters.scipy is adapter
