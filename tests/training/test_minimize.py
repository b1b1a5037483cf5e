"""minimize(): the steps are those of a loop written by hand, and what it records and returns."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastgd
import fastgd.training
from fastgd import schedules
from fastgd.averaging import ExponentialAverage
from fastgd.sampling import MiniBatches
from fastgd.training import _minimize, minimize
from tests.support import assert_same_bits
from tests.training.problems import (
    EIGENVALUES,
    N,
    Watched,
    X,
    Y,
    assert_same_params,
    by_hand,
    leaves,
    quadratic,
    regression,
    sgd,
    start,
    zeros,
)

NAMES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "adagrad": "Adagrad", "rmsprop": "RMSprop"}


# ---------------------------------------------------------------- the same steps as by hand


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lr", [0.01, schedules.cosine(0.1, total_steps=30)])
def test_mini_batches_as_by_hand(dtype: Any, name: str, lr: Any) -> None:
    params, expected = zeros(dtype), zeros(dtype)
    optimizer = getattr(fastgd, NAMES[name])(expected, lr=lr, clip_norm=1.5)
    losses = by_hand(regression, expected, optimizer, MiniBatches(X, Y, batch_size=7, seed=3), 4)
    result = minimize(
        regression,
        params,
        data=(X, Y),
        optimizer=name,
        batch_size=7,
        epochs=4,
        seed=3,
        lr=lr,
        clip_norm=1.5,
    )
    assert result.params is params
    assert_same_params(params, expected)
    assert_array_equal(result.history.loss, losses)
    assert (result.nit, result.reason, result.converged) == (24, "epochs", False)
    assert result.loss == pytest.approx(np.mean(losses[-6:]), rel=1e-15)


def test_without_data_as_by_hand() -> None:
    x, expected = start(), start()
    optimizer = fastgd.SGD(expected, lr=0.05, momentum=0.5)
    for _ in range(20):
        optimizer.step(quadratic(expected)[1])
    result = minimize(quadratic, x, optimizer="sgd", steps=20, lr=0.05, momentum=0.5)
    assert result.params is x
    assert_same_bits(x, expected)
    assert result.loss == quadratic(x)[0]
    assert (result.nit, result.nfev, result.reason) == (20, 21, "steps")


def test_all_data_in_every_step() -> None:
    params, expected = zeros(), zeros()
    optimizer = sgd(expected)
    for _ in range(5):
        optimizer.step(regression(expected, X, Y)[1])
    result = minimize(regression, params, data=(X, Y), optimizer=sgd, epochs=5)
    assert_same_params(params, expected)
    assert result.loss == regression(params, X, Y)[0]
    assert (result.nit, result.nfev, result.reason) == (5, 6, "epochs")


def test_groups() -> None:
    def both(trees: Any) -> Any:
        loss, grads = quadratic(trees[0])
        return loss + float(trees[1]["b"] @ trees[1]["b"]), [grads, {"b": 2 * trees[1]["b"]}]

    a, b = start(), np.ones(2)
    result = minimize(
        both, [{"params": a, "lr": 0.5}, {"params": {"b": b}}], optimizer="sgd", lr=0.25, steps=1
    )
    assert result.params[0] is a
    assert result.params[1]["b"] is b
    assert_array_equal(a, start() - 0.5 * (EIGENVALUES * start()))
    assert_array_equal(b, [0.5, 0.5])
    assert result.history.names == ("0", "1/b")
    assert_array_equal(result.history.lr, [0.5])


def test_one_group() -> None:
    x = start()
    minimize(quadratic, [{"params": x, "lr": 0.5}], optimizer="sgd", steps=1)
    assert_array_equal(x, start() - 0.5 * (EIGENVALUES * start()))


def test_a_copy_leaves_the_parameters_alone() -> None:
    params = {"w": np.asfortranarray(np.ones((2, 3))), "b": (np.zeros(2, np.float32),)}
    params["b"][0].flags.writeable = False

    def value_and_grad(p: Any) -> Any:
        return float(p["w"].sum()), {"w": np.ones((2, 3)), "b": [np.ones(2)]}

    result = minimize(value_and_grad, params, optimizer="sgd", lr=1, steps=2, copy=True)
    assert_array_equal(params["w"], np.ones((2, 3)))
    assert_array_equal(result.params["w"], -np.ones((2, 3)))
    assert result.params["w"].flags.f_contiguous
    assert isinstance(result.params["b"], tuple)
    assert_same_bits(result.params["b"][0], np.full(2, -2, np.float32))


def test_an_optimizer_continues_from_its_step_count() -> None:
    x, expected = start(), start()
    lr = schedules.exponential(0.05, gamma=0.9)
    optimizer = fastgd.Adam(x, lr=lr)
    first = minimize(quadratic, x, optimizer=optimizer, steps=5)
    second = minimize(quadratic, x, optimizer=optimizer, steps=7)
    minimize(quadratic, expected, lr=lr, steps=12)
    assert_same_bits(x, expected)
    assert (first.nit, second.nit, optimizer.step_count) == (5, 7, 12)
    assert_array_equal(second.history.step, np.arange(5, 12))
    assert_array_equal(second.history.lr, [lr(step) for step in range(5, 12)])
    assert optimizer.track_norms is False


# ---------------------------------------------------------------- data


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_two_runs_are_one(accumulate: int, prefetch: int) -> None:
    def run(*steps: int) -> Any:
        params = zeros()
        optimizer = fastgd.Adam(params, lr=schedules.cosine(0.1, total_steps=30))
        average = ExponentialAverage(params, 0.9)
        batches = MiniBatches(X, Y, batch_size=7, seed=1, prefetch=prefetch)
        for number in steps:
            result = minimize(
                regression,
                params,
                data=batches,
                optimizer=optimizer,
                steps=number,
                average=average,
                accumulate=accumulate,
            )
        return result.params, params, batches.state_dict()

    whole, parts = run(25), run(4, 2, 9, 10)
    assert_same_params(parts[0], whole[0])
    assert_same_params(parts[1], whole[1])
    assert parts[2] == whole[2]


def test_a_resumed_sampler_finishes_its_epoch_first() -> None:
    batches = MiniBatches(X, Y, batch_size=10)
    minimize(regression, zeros(), data=batches, steps=3)
    assert minimize(regression, zeros(), data=batches, epochs=2).nit == 1 + 4
    assert batches.epoch == 2


def test_a_sampler_resumed_at_the_end_of_an_epoch_begins_the_next() -> None:
    batches = MiniBatches(X, Y, batch_size=10)
    minimize(regression, zeros(), data=batches, steps=4)
    assert batches.state_dict()["epoch"] == 1
    state = {**batches.state_dict(), "epoch": 0, "position": 4}
    batches.load_state_dict(state)
    assert minimize(regression, zeros(), data=batches, epochs=1).nit == 4
    assert batches.epoch == 2


def test_all_data_moves_the_epoch_on() -> None:
    batches = MiniBatches(X, Y)
    minimize(regression, zeros(), data=batches, steps=3)
    assert batches.epoch == 3


def test_a_batch_that_is_no_tuple_is_one_argument() -> None:
    def from_dict(params: Any, batch: dict[str, Any]) -> Any:
        return regression(params, batch["X"], batch["y"])

    params, expected = zeros(), zeros()
    minimize(from_dict, params, data={"X": X, "y": Y}, batch_size=8, epochs=2)
    minimize(regression, expected, data=(X, Y), batch_size=8, epochs=2)
    assert_same_params(params, expected)
    mean = minimize(
        lambda p, x: (float(((p - x) ** 2).mean()), 2 * (p - x.mean(axis=0))),
        np.zeros(3),
        data=X,
        optimizer=sgd,
        epochs=300,
    )
    assert_allclose(mean.params, X.mean(axis=0), atol=1e-8)


def test_other_iterables_of_batches() -> None:
    batches = [(X[i : i + 10], Y[i : i + 10]) for i in range(0, N, 10)]
    expected = zeros()
    by_hand(regression, expected, sgd(expected), batches, 3)  # type: ignore[arg-type]
    from_list, from_iterator = zeros(), zeros()
    assert minimize(regression, from_list, data=batches, optimizer=sgd, epochs=3).nit == 12
    result = minimize(regression, from_iterator, data=iter(batches * 3), optimizer=sgd, steps=99)
    assert (result.nit, result.reason) == (12, "exhausted")
    assert_same_params(from_list, expected)
    assert_same_params(from_iterator, expected)


def test_an_iterator_goes_on_where_it_was() -> None:
    stream = ((X[i % N : i % N + 1], Y[i % N : i % N + 1]) for i in range(100))
    minimize(regression, zeros(), data=stream, steps=10, probe=False)
    assert next(stream)[1] == Y[10]


# ---------------------------------------------------------------- other libraries


def test_jax() -> None:
    jax = pytest.importorskip("jax")

    def loss(params: Any, x: Any, y: Any) -> Any:
        return ((x @ params["w"] + params["b"] - y) ** 2).mean()

    params, expected = zeros(np.float32), zeros(np.float32)
    options: dict[str, Any] = {"batch_size": 10, "epochs": 2, "optimizer": sgd}
    data = X.astype(np.float32), Y.astype(np.float32)
    minimize(jax.value_and_grad(loss), params, data=data, accumulate=2, **options)
    minimize(regression, expected, data=data, accumulate=2, **options)
    for a, b in zip(leaves(params), leaves(expected), strict=True):
        assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_autograd() -> None:
    autograd = pytest.importorskip("autograd")
    function = autograd.value_and_grad(lambda x: 0.5 * (EIGENVALUES * x * x).sum())
    result = minimize(function, start(), optimizer=sgd, steps=5)
    assert_allclose(result.params, start() * (1 - 0.05 * EIGENVALUES) ** 5, rtol=1e-12)


def test_the_loss_may_be_any_number() -> None:
    for kind in (int, np.float32, np.float16, np.array, np.int64):
        result = minimize(lambda x, k=kind: (k(3), x + 1), np.ones(2), steps=2)
        assert type(result.loss) is float
        assert result.loss == 3.0


def test_calls_are_counted() -> None:
    function = Watched(regression)
    result = minimize(
        function, zeros(), data=(X, Y), batch_size=9, epochs=2, validation=(X, Y), accumulate=2
    )
    assert result.nfev == function.calls


def test_repr_and_diagnosis() -> None:
    result = minimize(quadratic, start(), optimizer=sgd, steps=300)
    assert repr(result).startswith("Result(loss=")
    assert "nit=300" in repr(result)
    assert result.diagnosis.verdict == "healthy"
    assert result.diagnosis is result.diagnosis


def test_doctests() -> None:
    result = doctest.testmod(_minimize)
    assert result.attempted > 0
    assert result.failed == 0


def test_accumulating_reused_buffers() -> None:
    """A MiniBatches that fills its buffers anew gives the same steps as one that does not."""

    def mean_row(w: Any, xb: Any) -> tuple[float, Any]:
        return float(xb @ w), xb.copy()

    ends = []
    for reuse in (False, True):
        batches = MiniBatches(np.arange(8.0).reshape(8, 1), batch_size=1, seed=0, reuse=reuse)
        w = np.zeros(1)
        minimize(
            lambda w, xb: mean_row(w, xb[0]), w, data=batches, optimizer="sgd", lr=1.0, epochs=2,
            accumulate=4,
        )  # fmt: skip
        ends.append(w)
    assert_same_bits(ends[0], ends[1])
    assert ends[0][0] == -2 * (0 + 1 + 2 + 3 + 4 + 5 + 6 + 7) / 4


@pytest.mark.parametrize("compose", [lambda p: p, lambda p: schedules.warmup(p, 2)])
def test_plateaus_are_updated_wherever_they_stand(compose: Callable[[Any], Any]) -> None:
    plateau = schedules.ReduceOnPlateau(0.1, patience=0)
    minimize(
        lambda w: (1.0, np.zeros(1)), np.ones(1), steps=5, lr=compose(plateau),
        validation=lambda w: 1.0,
    )  # fmt: skip
    assert (
        plateau.last_epoch == 5
    )  # the last validation, at the end of an epoch, is one like the others


def test_the_training_arrays_may_validate() -> None:
    data = (np.ones((6, 1)), np.ones(6))

    def squares(w: Any, x: Any, y: Any) -> tuple[float, Any]:
        r = x @ w - y
        return float(r @ r), 2 * x.T @ r

    result = minimize(squares, np.zeros(1), data=data, validation=data, epochs=3, batch_size=2)
    assert result.history.validation_loss.size == 3


@pytest.mark.parametrize("verdict", [True, np.True_, np.array(True)])
def test_a_callback_ends_the_run_with_any_true(verdict: Any) -> None:
    result = minimize(lambda w: (1.0, np.zeros(1)), np.ones(1), steps=5, callback=lambda _: verdict)
    assert (result.nit, result.reason) == (1, "callback")


def test_how_long_a_run_is_that_nobody_has_said_the_length_of() -> None:
    def slow(w: Any, *batch: Any) -> Any:
        return 1.0, np.ones_like(w)

    assert minimize(slow, np.ones(2)).nit == 1_000
    assert minimize(slow, np.ones(2), tol=1e-30).nit == 10_000
    assert minimize(slow, np.ones(2), data=(X, Y)).nit == 1_000
    result = minimize(slow, np.ones(2), data=(X, Y), batch_size=10)
    assert (result.nit, result.reason) == (10 * (len(X) // 10), "epochs")
    result = minimize(slow, np.ones(2), data=iter([(X, Y)] * 3))
    assert (result.nit, result.reason) == (3, "epochs")


def test_scipys_names() -> None:
    x = np.array([3.0, 4.0])
    result = minimize(lambda x: (float(x @ x), 2 * x), x, optimizer="sgd", lr=0.25, tol=1e-6)
    assert result.x is result.params is x
    assert result.fun == result.loss
    assert result.success
    assert result.message == "The norm of the gradient is at most tol."
    result = minimize(lambda x: (float(x @ x), 2 * x), x, tol=1e-300, steps=2)
    assert not result.success
    assert result.message == "All steps were taken."
    result = minimize(lambda x: (np.nan, x + 0), x, steps=2)
    assert not result.success
    assert result.message == result.reason


def test_what_a_callback_is_told() -> None:
    seen = []

    def callback(info: Any) -> None:
        seen.append((info.step, info.epoch, info.lr, info.grad_norm, info.aux))

    minimize(
        lambda w, x: ((1.0, {"rows": len(x)}), np.array([3.0, 4.0])),
        np.zeros(2),
        data=(np.ones(3),),
        batch_size=2,
        epochs=2,
        has_aux=True,
        optimizer="sgd",
        lr=lambda step: 0.5**step,
        callback=callback,
    )
    aux = [{"rows": 2}, {"rows": 1}] * 2
    expected = zip(range(1, 5), [0, 0, 1, 1], [1, 0.5, 0.25, 0.125], [5.0] * 4, aux, strict=True)
    assert seen == list(expected)


def test_auxiliary_values_of_accumulated_batches() -> None:
    seen = []
    minimize(
        lambda w, x: ((1.0, x.tolist()), w), np.zeros(1), data=(np.arange(4.0),), batch_size=1,
        accumulate=2, epochs=1, has_aux=True, callback=lambda info: seen.append(sorted(info.aux)),
    )  # fmt: skip
    assert sorted(x for aux in seen for x in aux) == [[0.0], [1.0], [2.0], [3.0]]
    assert [len(aux) for aux in seen] == [2, 2]


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_the_norm_that_a_callback_is_told_is_of_the_mean(clip_norm: float | None) -> None:
    seen = []
    minimize(
        lambda w, x: (0.0, 3.0 * np.ones(1)), np.zeros(1), data=(np.arange(4.0),), batch_size=1,
        accumulate=2, epochs=1, clip_norm=clip_norm,
        callback=lambda info: seen.append(info.grad_norm),
    )  # fmt: skip
    assert seen == [3.0, 3.0]


@pytest.mark.parametrize("has_aux", [False, True])
def test_auxiliary_values_that_were_not_announced(has_aux: bool) -> None:
    def function(w: Any) -> Any:
        return (0.0 if has_aux else (0.0, "aux")), w

    with pytest.raises(TypeError, match="has_aux=True"):
        minimize(function, np.ones(1), steps=1, has_aux=has_aux)


def test_accumulated_batches_weigh_as_many_times_as_they_have_samples() -> None:
    """However they are cut, one step over all of them is the step of the whole."""
    batches = [(X[:3], Y[:3]), (X[3:4], Y[3:4]), (X[4:], Y[4:])]
    whole, parts = zeros(), zeros()
    options: Any = {"optimizer": "sgd", "lr": 0.1, "epochs": 1}
    one = minimize(regression, whole, data=[(X, Y)], **options)
    other = minimize(regression, parts, data=batches, accumulate=3, **options)
    for name, array in whole.items():
        np.testing.assert_allclose(parts[name], array, rtol=1e-13)
    assert other.nit == 1
    np.testing.assert_allclose(other.loss, one.loss, rtol=1e-13)


def test_every_hyperparameter_of_minimize_is_named_for_type_checkers() -> None:
    from fastgd.training._hyperparameters import Hyperparameters

    known = {
        name
        for kind in fastgd.optimizers.all_optimizers().values()
        for name in inspect.signature(kind).parameters
        if name != "params"
    }
    assert known == set(Hyperparameters.__annotations__)
