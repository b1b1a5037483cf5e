"""Bad input to minimize is refused by name, before anything has changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd.averaging import TailAverage
from fastgd.sampling import MiniBatches
from fastgd.training import minimize
from tests.support import assert_same_bits
from tests.training.problems import X, Y, leaves, quadratic, regression, start, zeros

OTHER = np.ones(3)


BAD_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"steps": 0}, ValueError, "steps"),
    ({"steps": 1.5}, TypeError, "steps"),
    ({"steps": True}, TypeError, "steps"),
    ({"epochs": 2}, ValueError, "epochs=2 needs data"),
    ({"batch_size": 2}, ValueError, "batch_size=2 needs data"),
    ({"accumulate": 2}, ValueError, "accumulate=2 needs mini-batches"),
    ({"accumulate": 0}, ValueError, "accumulate"),
    ({"tol": -1.0}, ValueError, "tol"),
    ({"tol": np.nan}, ValueError, "tol"),
    ({"tol": "small"}, TypeError, "tol"),
    ({"tol": abs}, TypeError, "tol"),
    ({"seed": -1}, ValueError, "seed"),
    ({"seed": None}, TypeError, "seed"),
    ({"copy": 1}, TypeError, "copy"),
    ({"probe": "yes"}, TypeError, "probe"),
    ({"progress": 1}, TypeError, "progress"),
    ({"callback": 3}, TypeError, "callback"),
    ({"validation_every": 2}, ValueError, "needs validation"),
    ({"validation": 3}, TypeError, "validation must be a function"),
    ({"validation": 0.1}, TypeError, "not set aside here"),
    ({"validation": iter([])}, ValueError, "again and again"),
    ({"validation": (X, Y[:5])}, ValueError, "array 1 has 5 samples"),
    ({"patience": 0, "validation": len}, ValueError, "patience"),
    ({"patience": 2, "average": "ema"}, ValueError, "patience needs validation"),
    ({"average": "mean"}, ValueError, "average"),
    ({"average": ("ema", 1.0)}, ValueError, "decay"),
    ({"average": ("ema", "a")}, TypeError, "decay"),
    ({"average": ("tail", 0)}, ValueError, "fraction"),
    ({"average": ("tail", "half")}, TypeError, "fraction"),
    ({"average": TailAverage(OTHER)}, ValueError, "other arrays"),
    ({"max_records": 3}, ValueError, "max_records"),
    ({"record_every": 0}, ValueError, "record_every"),
    ({"optimizer": "adamv"}, ValueError, "did you mean 'Adam"),
    ({"optimizer": None}, TypeError, "optimizer must be"),
    ({"optimizer": lambda p: p}, TypeError, "factory returned ndarray"),
    ({"optimizer": lambda p: fastgd.SGD(OTHER)}, ValueError, "not the arrays"),
    ({"optimizer": fastgd.SGD(OTHER)}, ValueError, "not the arrays"),
    ({"optimizer": fastgd.SGD(OTHER), "copy": True}, ValueError, "copy=True"),
    ({"optimizer": fastgd.SGD(OTHER), "lr": 1.0}, TypeError, "lr"),
    ({"lr": -1.0}, ValueError, "lr"),
    ({"epoch": 3}, TypeError, "no argument 'epoch'; did you mean 'epochs'"),
    ({"learning_rate": 3}, TypeError, "did you mean 'lr'"),
    ({"maxiter": 3}, TypeError, "did you mean 'steps'"),
    ({"optimizer": "sdg"}, ValueError, "did you mean 'SGD'"),
    ({"metrics": [1]}, TypeError, "dict of functions"),
    ({"metrics": {"a": 1}}, TypeError, "'a'"),
    ({"metrics": {"loss": len}}, ValueError, "take another name"),
    ({"monitor": "a"}, ValueError, "needs metrics"),
    ({"monitor": "a", "metrics": {"b": lambda p: 0.0}}, ValueError, "monitor"),
    ({"mode": "max"}, ValueError, "needs validation or metrics"),
    ({"mode": "most"}, ValueError, "mode"),
    ({"min_delta": -1}, ValueError, "min_delta"),
    ({"min_delta": 1, "patience": fastgd.EarlyStopping(3)}, ValueError, "min_delta: an EarlyS"),
    ({"has_aux": 1}, TypeError, "has_aux"),
    ({"momentum": 0.9}, TypeError, "nor has Adam"),
    ({"clip_norm": 0}, ValueError, "clip_norm"),
    ({"nonfinite": "ignore"}, ValueError, "nonfinite"),
    ({"maximize": True}, ValueError, "maximize"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS)
def test_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    x = start()
    with pytest.raises(error, match=message):
        minimize(quadratic, x, **{"steps": 3, **options})
    assert_same_bits(x, start())


BAD_DATA: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"data": 3}, TypeError, "data must be"),
    ({"data": "abc"}, TypeError, "data must be"),
    ({"data": ()}, ValueError, "at least one array"),
    ({"data": []}, ValueError, "no batch"),
    ({"data": iter([])}, ValueError, "no batches"),
    ({"data": [X, Y]}, TypeError, "as a tuple"),
    ({"data": (X, Y[:5])}, ValueError, "array 1 has 5 samples"),
    ({"data": {"X": X, "y": Y[:5]}}, ValueError, "'y' has 5"),
    ({"data": (X, Y), "batch_size": 0}, ValueError, "batch_size"),
    ({"data": MiniBatches(X, Y), "batch_size": 5}, ValueError, "batch_size=5"),
    ({"data": [(X, Y)], "batch_size": 5}, ValueError, "batch_size=5"),
    ({"data": iter([(X, Y)]), "epochs": 2}, ValueError, "iterator"),
    ({"data": (X, Y), "batch_size": 5, "tol": 1e-3}, ValueError, "mini-batch"),
    ({"data": (X, Y), "batch_size": 5, "patience": 3}, ValueError, "too noisy"),
    ({"data": (X, Y), "accumulate": 3}, ValueError, "mini-batches"),
    ({"data": (b for b in [(X, Y)]), "steps": None, "epochs": 1, "average": "tail"}, ValueError,
     "how long"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "error", "message"), BAD_DATA)
def test_data(options: dict[str, Any], error: type[Exception], message: str) -> None:
    params = zeros()
    with pytest.raises(error, match=message):
        minimize(regression, params, **{"steps": 3, **options})
    for array, expected in zip(leaves(params), leaves(zeros()), strict=True):
        assert_same_bits(array, expected)


def test_validation_must_not_be_the_batches_in_use() -> None:
    batches = MiniBatches(X, Y, batch_size=5)
    with pytest.raises(ValueError, match="data of its own"):
        minimize(regression, zeros(), data=batches, validation=batches, epochs=1)
    assert batches.state_dict()["position"] == 0


W = np.ones((2, 2))
BAD_PARAMS: list[tuple[Any, type[Exception], str]] = [
    ([1.0, 2.0], TypeError, r"parameter '0' is the number 1.0.*numpy.array"),
    (3.0, TypeError, "parameter 'params' is the number"),
    ([1, 2], TypeError, "is the number 1"),
    (np.array([1, 2]), TypeError, "int64|<i8"),
    ({"w": "x"}, TypeError, "'w'"),
    ({"a": W, "b": W}, ValueError, "overlap"),
    (np.ones((4, 4))[::2], ValueError, "not contiguous"),
    (np.ma.masked_array([1.0]), TypeError, "params"),
    ([], ValueError, "at least one"),
    ([{"params": [1.0]}], TypeError, "'0/0'"),
    (np.ones(2, complex), TypeError, "params"),
]


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize(("params", "error", "message"), BAD_PARAMS)
def test_params(params: Any, error: type[Exception], message: str, copy: bool) -> None:
    with pytest.raises(error, match=message):
        minimize(lambda p: (0.0, p), params, steps=3, copy=copy)


def test_read_only_parameters_are_refused_unless_copied() -> None:
    x = start()
    x.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        minimize(quadratic, x, steps=1)
    assert minimize(quadratic, x, steps=1, copy=True).params[0] != x[0]
    for bad, message in [
        (np.ones(2, np.float16), "float16|<f2"),
        (np.ma.masked_array(x), "Masked"),
    ]:
        bad.flags.writeable = False
        with pytest.raises(TypeError, match=message):
            minimize(quadratic, bad, steps=1, copy=True)


def test_read_only_parameters_are_copied() -> None:
    class Mine(np.ndarray):
        pass

    x = start().view(Mine)
    x.flags.writeable = False
    result = minimize(quadratic, x, steps=1, copy=True)
    assert type(result.params) is Mine
    assert not np.array_equal(result.params, x)
    assert np.array_equal(x, start())


G = np.ones(3)
BAD_RETURNS: list[tuple[Any, type[Exception], str]] = [
    (None, TypeError, "it returned builtins.NoneType"),
    (1.0, TypeError, "a pair; it returned builtins.float"),
    (np.ones(2), TypeError, "an array of shape"),
    ((1.0, G, G), TypeError, "a tuple of length 3"),
    ((G, 1.0), TypeError, r"array of shape \(3,\); it must return \(loss, grads\), in this order"),
    ((np.ones(1), G), TypeError, "single number"),
    ((1 + 2j, G), TypeError, "real number"),
    (("1.0", G), TypeError, "real number"),
    ((None, G), TypeError, "real number"),
    ((True, G), TypeError, "real number"),
    ((1.0, np.ones(4)), ValueError, "gradient 'params' has shape"),
    ((1.0, [G, G]), TypeError, "gradient 'params'"),
    ((1.0, G.astype(int)), TypeError, "gradient 'params' has dtype"),
    ((1.0, {"x": G}), TypeError, "gradient 'params'"),
    ((1.0, "abc"), TypeError, "gradient 'params'"),
    ((np.nan, np.ones(4)), ValueError, "gradient 'params' has shape"),
]


@pytest.mark.parametrize("options", [{}, {"tol": 0.1}, {"data": [(), ()], "accumulate": 2}])
@pytest.mark.parametrize(("returned", "error", "message"), BAD_RETURNS)
def test_what_value_and_grad_returns(
    returned: Any, error: type[Exception], message: str, options: dict[str, Any]
) -> None:
    x = start()
    with pytest.raises(error, match=message):
        minimize(lambda x: returned, x, steps=3, **options)
    assert_same_bits(x, start())


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"w": G, "b": None}, {"w": G}, "'w'|params"),
        ({"w": G, "b": None}, {"w": np.ones(2), "b": None}, "'w'.*shape"),
        ([G, G], [G], "length 2 for one batch and a list of length 1"),
    ],
)
def test_gradients_that_differ_between_accumulated_batches(
    first: Any, second: Any, message: str
) -> None:
    params = zeros()
    returned = iter([(1.0, first), (1.0, second)])
    with pytest.raises(ValueError, match=message):
        minimize(lambda p, x: next(returned), params, data=[(1,), (2,)], accumulate=2, steps=1)
    assert not params["w"].any()


def test_value_and_grad_must_be_a_function() -> None:
    with pytest.raises(TypeError, match="value_and_grad must be a function"):
        minimize(3, start(), steps=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("returned", ["1", None, np.ones(2), 1j])
def test_what_validation_returns(returned: Any) -> None:
    with pytest.raises(TypeError, match="what validation returns must be"):
        minimize(quadratic, start(), steps=1, validation=lambda x: returned)
