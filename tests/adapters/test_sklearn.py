"""scikit-learn's perceptrons with fastgd's optimizers: its results, its interface."""

from __future__ import annotations

import copy
import doctest
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")

from sklearn import neural_network  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.datasets import load_diabetes, load_digits  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.neural_network import _stochastic_optimizers as theirs  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

import fastgd.adapters.sklearn as adapter  # noqa: E402
from fastgd import schedules  # noqa: E402
from fastgd.adapters.sklearn import AdamOptimizer, MLPClassifier, MLPRegressor, SGDOptimizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
DIGITS = load_digits(return_X_y=True)
X, Y = DIGITS[0][:300] / 16, DIGITS[1][:300]

ADAM: list[dict[str, Any]] = [{}, {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}]
SGDS: list[dict[str, Any]] = [
    {"momentum": 0.0},
    {"nesterov": False},
    {},
    {"lr_schedule": "invscaling", "power_t": 0.3},
    {"lr_schedule": "adaptive"},
]


@pytest.mark.parametrize(
    ("name", "options"),
    [*(("AdamOptimizer", o) for o in ADAM), *(("SGDOptimizer", o) for o in SGDS)],
    ids=str,
)
def test_the_same_numbers(name: str, options: dict[str, Any], rng: np.random.Generator) -> None:
    """60 steps with epochs of ten, and a stop that may lower the rate: float64 to 1e-12."""
    mine = [rng.standard_normal((5, 4)), rng.standard_normal(4)]
    other = [array.copy() for array in mine]
    a = getattr(adapter, name)(mine, learning_rate_init=0.05, **options)
    b = getattr(theirs, name)(other, learning_rate_init=0.05, **options)
    for step in range(60):
        grads = [rng.standard_normal(array.shape) for array in mine]
        mine = [array.copy() for array in mine] if step % 7 == 0 else mine  # it follows its host
        a.update_params(mine, grads)
        b.update_params(other, grads)
        if step % 10 == 9:
            a.iteration_ends(step)
            b.iteration_ends(step)
        if step == 35:
            assert a.trigger_stopping("", False) == b.trigger_stopping("", False)
        if name == "SGDOptimizer":
            assert a.learning_rate == pytest.approx(b.learning_rate, rel=1e-15)
    for x, y in zip(mine, other, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13)


FITS: list[dict[str, Any]] = [
    {"solver": "adam"},
    {"solver": "sgd", "learning_rate_init": 0.1},
    {"solver": "sgd", "momentum": 0.0, "learning_rate": "invscaling", "learning_rate_init": 0.5},
    {"solver": "sgd", "learning_rate": "adaptive", "tol": 1e-2, "n_iter_no_change": 2},
    {"solver": "adam", "early_stopping": True, "max_iter": 30},
    {"solver": "lbfgs"},
]


@pytest.mark.parametrize("options", FITS, ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_fit_is_scikit_learns(options: dict[str, Any], dtype: Any) -> None:
    options = {"hidden_layer_sizes": (20, 10), "random_state": 0, "max_iter": 15, **options}
    mine = MLPClassifier(**options).fit(X.astype(dtype), Y)
    other = neural_network.MLPClassifier(**options).fit(X.astype(dtype), Y)
    tolerance = 1e-7 if dtype == np.float64 else 2e-2
    assert mine.n_iter_ == other.n_iter_ or dtype == np.float32
    if dtype == np.float64:
        for a, b in zip([*mine.coefs_, *mine.intercepts_],
                        [*other.coefs_, *other.intercepts_], strict=True):  # fmt: skip
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(mine.loss_, other.loss_, rtol=50 * tolerance)
    assert mine.score(X, Y) == pytest.approx(other.score(X, Y), abs=0.02)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_regression_partial_fit_and_copies(copied: Any) -> None:
    """A copy's optimizer goes on in the copy's arrays, with the state of the first."""
    A, b = load_diabetes(return_X_y=True)
    options: Any = {"hidden_layer_sizes": (10,), "random_state": 0, "learning_rate_init": 0.01}
    models = [MLPRegressor(**options), neural_network.MLPRegressor(**options)]
    for model in models:
        for _ in range(5):
            model.partial_fit(A, b / 100)
    np.testing.assert_allclose(models[0].predict(A), models[1].predict(A), rtol=1e-9)
    before = models[0].coefs_[0].copy()
    twins = [copied(model) for model in models]
    assert twins[0]._optimizer.learning_rate == models[0]._optimizer.learning_rate
    for twin in twins:
        twin.partial_fit(A, b / 100)
    np.testing.assert_allclose(twins[0].predict(A), twins[1].predict(A), rtol=1e-9)
    assert np.array_equal(models[0].coefs_[0], before)
    assert not np.array_equal(twins[0].coefs_[0], before)


def test_warm_start_and_replaced_coefficients() -> None:
    options: Any = {
        "hidden_layer_sizes": (8,),
        "random_state": 0,
        "max_iter": 3,
        "warm_start": True,
    }
    models = [MLPClassifier(**options), neural_network.MLPClassifier(**options)]
    for model in models:
        model.fit(X, Y).fit(X, Y)
        model.coefs_ = [0.5 * array for array in model.coefs_]
        model.partial_fit(X, Y)
    for a, b in zip(models[0].coefs_, models[1].coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("optimizer", ["adamw", "Lion", "rmsprop", "schedule-free-adamw"])
def test_any_optimizer(optimizer: str) -> None:
    lr = {"Lion": 3e-3, "rmsprop": 3e-3}.get(optimizer, 1e-2)
    model = MLPClassifier((30,), optimizer=optimizer, optimizer_params={"lr": lr}, random_state=0,
                          max_iter=80)  # fmt: skip
    assert model.fit(X, Y).score(X, Y) > 0.95


def test_schedules_and_clipping() -> None:
    lr = schedules.cosine(0.01, total_steps=60)
    model = MLPClassifier((10,), optimizer="adamw", optimizer_params={"lr": lr, "clip_norm": 1.0},
                          random_state=0, max_iter=30).fit(X, Y)  # fmt: skip
    assert model._optimizer.learning_rate == lr(60)


def test_clone_parameters_and_grid_search() -> None:
    model = MLPClassifier((5,), optimizer="adamw", optimizer_params={"lr": 0.01}, max_iter=5)
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    assert "optimizer='adamw'" in repr(model)
    grid = GridSearchCV(model, {"optimizer": ["adamw", "lion"], "alpha": [1e-4]}, cv=2, n_jobs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        grid.fit(X, Y)
    assert set(grid.cv_results_["param_optimizer"]) == {"adamw", "lion"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adm"}, "no optimizer 'adm'"),
        ({"optimizer": 3}, "optimizer"),
        ({"optimizer_params": {"lr": 1}}, "optimizer_params needs optimizer"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**options).fit(X, Y)


def estimators() -> Iterator[Any]:
    for kind in (MLPClassifier, MLPRegressor):
        yield kind(max_iter=100)
        yield kind(max_iter=100, optimizer="adamw")


@parametrize_with_checks(list(estimators()))
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        check(estimator)


def test_doctests() -> None:
    result = doctest.testmod(adapter)
    assert result.attempted > 0
    assert result.failed == 0
    assert AdamOptimizer is adapter.AdamOptimizer
    assert SGDOptimizer is adapter.SGDOptimizer
