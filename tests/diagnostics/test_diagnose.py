"""diagnose: its verdicts on real runs, the learning rate it calls stable, and what it takes and refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd.diagnostics import Diagnosis, diagnose
from tests.diagnostics import problems as dp
from tests.diagnostics.families import FAMILIES
from tests.diagnostics.runs import Family, Setup, labelled_rightly, sgd, train

CASES = [(cause, family) for cause, families in FAMILIES.items() for family in families]


def first_labelled_rightly(cause: str, family: Family, seed: int) -> tuple[Setup, Diagnosis]:
    """The first run of the family that goes as it is meant to, and what is said about it."""
    while True:
        setup = family(np.random.default_rng([seed, *family.__name__.encode()]))
        with np.errstate(all="ignore"):
            outcome = train(setup)
            if labelled_rightly(cause, setup, outcome):
                return setup, diagnose(outcome.result)
        seed += 1


@pytest.mark.parametrize(("cause", "family"), CASES, ids=[f.__name__ for _, f in CASES])
def test_verdict(cause: str, family: Family) -> None:
    setup, diagnosis = first_labelled_rightly(cause, family, 20)
    assert diagnosis.verdict in (cause, *setup.accept), str(diagnosis)
    assert diagnosis.findings[0].verdict == diagnosis.verdict
    assert diagnosis.summary
    assert diagnosis.evidence
    assert diagnosis.advice or cause == "healthy"
    assert diagnosis.verdict in str(diagnosis)


def test_every_cause_has_three_families() -> None:
    assert all(len(families) >= 3 for families in FAMILIES.values())


# --- the largest stable learning rate ---


def descend(eigenvalues: Any, lr: float, steps: int = 60, **options: Any) -> Diagnosis:
    f, x = dp.quadratic(np.asarray(eigenvalues)), np.ones(len(eigenvalues))
    with np.errstate(all="ignore"):
        result = fastgd.minimize(f, x, optimizer="sgd", lr=lr, steps=steps, **options)
    return diagnose(result)


@pytest.mark.parametrize("part", [0.01, 0.1, 0.5, 0.9, 1.1, 2.0])
@pytest.mark.parametrize("condition", [1.0, 10.0, 1000.0])
def test_stable_rate_of_a_quadratic(part: float, condition: float) -> None:
    eigenvalues = np.geomspace(1, condition, 5)
    stable = 2 / condition
    diagnosis = descend(eigenvalues, part * stable)
    assert diagnosis.stable_lr == pytest.approx(stable, rel=0.2)
    if part > 1:  # when it grows, the steep direction is all there is
        assert diagnosis.stable_lr == pytest.approx(stable, rel=0.03)
    if part not in (0.5, 2.0):  # which leave the steep direction after a step or two
        assert diagnosis.stable_lr_confidence == "high"
    assert (diagnosis.verdict == "learning_rate_too_high") == (part > 1)


def test_stable_rate_is_too_high_where_no_step_is_steep() -> None:
    """The documented weakness: nothing along the path tells of the steep direction."""
    f = dp.quadratic(np.array([1.0, 100.0]))
    result = fastgd.minimize(f, np.array([1.0, 0.0]), optimizer="sgd", lr=0.01, steps=50)
    assert diagnose(result).stable_lr == pytest.approx(2.0)


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_stable_rate_with_momentum_is_that_without(momentum: float) -> None:
    eigenvalues = np.geomspace(1, 100, 5)
    diagnosis = descend(eigenvalues, 0.01, momentum=momentum)
    assert diagnosis.stable_lr == pytest.approx(0.02, rel=0.2)


def test_stable_rate_in_float32() -> None:
    x = np.ones(5, np.float32)
    f = dp.quadratic(np.geomspace(1, 10, 5).astype(np.float32))
    diagnosis = diagnose(fastgd.minimize(f, x, optimizer="sgd", lr=0.05, steps=50))
    assert diagnosis.stable_lr == pytest.approx(0.2, rel=0.25)


def test_stable_rate_on_mini_batches_is_near_that_of_the_batches(rng: np.random.Generator) -> None:
    data = dp.regression(rng, 400, 5, linear=True)
    params = {"w": np.zeros(5), "b": np.zeros(1)}
    result = fastgd.minimize(
        dp.least_squares, params, data=data, optimizer="sgd", batch_size=64, lr=0.1, steps=300
    )
    diagnosis = diagnose(result)
    assert diagnosis.verdict == "healthy"
    assert diagnosis.stable_lr is not None
    assert 0.5 < diagnosis.stable_lr / (2 / np.linalg.norm(data[0], 2) ** 2 * 400) < 1.5


def test_stable_rate_is_unknown_without_probes(rng: np.random.Generator) -> None:
    data = dp.regression(rng, 100, 3, linear=True)
    params = {"w": np.zeros(3), "b": np.zeros(1)}
    options: dict[str, Any] = {"data": data, "batch_size": 10, "steps": 60, "probe": False}
    diagnosis = diagnose(fastgd.minimize(dp.least_squares, params, lr=1e-2, **options))
    assert (diagnosis.stable_lr, diagnosis.stable_lr_confidence) == (None, "none")
    assert diagnosis.verdict == "healthy"


def test_a_sign_turned_round_is_recognised() -> None:
    f = dp.quadratic(np.array([1.0, 2.0]))
    result = fastgd.minimize(
        lambda x: (f(x)[0], -f(x)[1]), np.ones(2), optimizer="sgd", lr=1e-4, steps=5000
    )
    diagnosis = diagnose(result)
    assert diagnosis.verdict == "learning_rate_too_high"
    assert "check_gradient" in diagnosis.advice[0]


# --- evidence ---


def network_run(params: Any, seed: int = 0, activation: str = "tanh", **options: Any) -> Diagnosis:
    data = dp.classes(np.random.default_rng(seed), 200, 6, 3)
    options = {"optimizer": "sgd", "lr": 0.1, "steps": 100, **options}
    with np.errstate(all="ignore"):
        return fastgd.minimize(dp.mlp(activation), params, data=data, **options).diagnosis


def test_where_vanishing_and_exploding_gradients_lead(rng: np.random.Generator) -> None:
    sizes = [6] + [20] * 9 + [3]
    vanishing = network_run(dp.mlp_params(rng, sizes), activation="sigmoid")
    assert vanishing.verdict == "vanishing_gradients"
    assert "towards 0/" in vanishing.summary
    assert "per layer over 10 layers" in vanishing.evidence[0]
    exploding = network_run(dp.mlp_params(rng, sizes, gain=10), lr=1e-3)
    assert exploding.verdict == "exploding_gradients"
    assert "0/" in exploding.summary


def test_layers_may_be_listed_from_the_output(rng: np.random.Generator) -> None:
    """The arrays' order, not their names, says which end is which; a reversed one is seen through."""
    params = dp.mlp_params(rng, [6] + [20] * 9 + [3])
    f, data = dp.mlp("sigmoid"), dp.classes(rng, 200, 6, 3)

    def reversed_layers(layers: Any, *batch: Any) -> Any:
        loss, grads = f(layers[::-1], *batch)
        return loss, grads[::-1]

    result = fastgd.minimize(
        reversed_layers, params[::-1], data=data, optimizer="sgd", lr=0.1, steps=100
    )
    assert result.diagnosis.verdict == "vanishing_gradients"
    assert "towards 9/" in result.diagnosis.summary


def test_dead_arrays_are_named(rng: np.random.Generator) -> None:
    params = dp.mlp_params(rng, [6, 20, 20, 3])
    params[1]["b"] -= 100
    diagnosis = network_run(params, activation="relu")
    assert diagnosis.verdict == "dead_initialization"
    assert "0/W, 0/b, 1/W and 2 more" in diagnosis.summary


def test_step_and_array_of_a_number_not_finite() -> None:
    def value_and_grad(params: Any) -> Any:
        a, b = params["a"], params["b"]
        grads = {"a": a * 1, "b": b * 1}
        value_and_grad.calls += 1  # type: ignore[attr-defined]
        if value_and_grad.calls == 31:  # type: ignore[attr-defined]
            grads["b"][1] = np.inf
        return float(a @ a + b @ b) / 2 + 1, grads

    value_and_grad.calls = 0  # type: ignore[attr-defined]
    params = {"a": np.ones(2), "b": np.ones(2)}
    result = fastgd.minimize(
        value_and_grad, params, optimizer="sgd", lr=0.01, steps=100, nonfinite="raise"
    )
    diagnosis = diagnose(result)
    assert diagnosis.verdict == "nonfinite_data_or_loss"
    assert diagnosis.summary.startswith("Not finite: b at step 30")
    assert "which is finite" in diagnosis.evidence[0]
    assert "in b" in diagnosis.evidence[1]


def test_nan_before_the_first_step() -> None:
    x = np.ones(2)
    result = fastgd.minimize(lambda x: (np.nan, x * np.nan), x, optimizer="sgd", lr=0.1, steps=9)
    diagnosis = diagnose(result)
    assert diagnosis.verdict == "nonfinite_data_or_loss"
    assert "step 0" in diagnosis.summary


def test_overflow_of_a_diverging_run_is_divergence() -> None:
    for lr in (2.5, 1e3, 1e200):
        diagnosis = descend([1.0, 1.0], lr, steps=2000)
        assert diagnosis.verdict == "learning_rate_too_high"
        assert "diverged" in diagnosis.summary


def test_advice_works() -> None:
    """Half the largest stable learning rate, as advised, makes the run healthy."""
    for lr in (0.3, 1e-6):
        first = descend(np.geomspace(1, 10, 4), lr, steps=200)
        assert first.verdict != "healthy"
        advised = float(first.advice[0].split(",")[0].removeprefix("lr="))
        assert first.verdict == "learning_rate_too_high" or advised == pytest.approx(1e-3)
        lr = advised if first.verdict == "learning_rate_too_high" else (first.stable_lr or 0) / 2
        assert descend(np.geomspace(1, 10, 4), lr, steps=200).verdict == "healthy"


# --- healthy ---


def test_converged_and_still_falling_and_short() -> None:
    eigenvalues = np.geomspace(1, 10, 4)
    assert descend(eigenvalues, 0.1, steps=300).summary == "The run converged."
    assert descend(eigenvalues, 0.02, steps=40).summary == "The loss is still falling."
    assert "which are few" in descend(eigenvalues, 0.1, steps=5).summary


def test_at_the_minimum_from_the_start() -> None:
    f = dp.quadratic(np.array([1.0, 2.0]))
    diagnosis = diagnose(fastgd.minimize(f, np.zeros(2), optimizer="sgd", lr=0.1, steps=50))
    assert diagnosis.verdict == "healthy"


def test_frozen_arrays_of_a_run_that_succeeds(rng: np.random.Generator) -> None:
    params = dp.mlp_params(rng, [6, 40, 3])
    f, data = dp.mlp("tanh"), dp.classes(rng, 100, 6, 3)

    def frozen(params: Any, *batch: Any) -> Any:
        loss, grads = f(params, *batch)
        return loss, [None, grads[1]]

    result = fastgd.minimize(frozen, params, data=data, lr=0.03, steps=800)
    assert result.diagnosis.verdict == "healthy"


# --- what it takes ---


def test_result_history_and_mapping_agree() -> None:
    f = dp.quadratic(np.geomspace(1, 10, 3))
    result = fastgd.minimize(f, np.ones(3), optimizer="sgd", lr=0.21, steps=100)
    names = [
        name
        for name in dir(type(result.history))
        if isinstance(getattr(type(result.history), name), property)
    ]
    mapping = {name: getattr(result.history, name) for name in names}
    mapping |= {"names": result.history.names, "optimizer": "SGD"}
    texts = {
        str(diagnose(given))
        for given in (result, result.history, mapping, SimpleNamespace(**mapping))
    }
    assert texts == {str(result.diagnosis)}


def test_loss_alone() -> None:
    assert diagnose({"loss": 1.01 ** np.arange(100)}).verdict == "learning_rate_too_high"
    assert diagnose({"loss": 0.9 ** np.arange(100)}).verdict == "healthy"
    assert diagnose({"loss": [1.0, 0.9, 0.8, np.nan]}).verdict == "nonfinite_data_or_loss"
    validation = np.concatenate([np.linspace(1, 0.5, 10), np.linspace(0.5, 0.8, 20)])
    losses = {"loss": 0.9 ** np.arange(30), "validation_loss": validation}
    assert diagnose(losses).verdict == "overfitting"


def test_thinned_history() -> None:
    """With few records, or one step in many recorded, verdicts stay."""
    f, x = dp.quadratic(np.geomspace(1, 10, 3)), np.ones(3)
    for lr, verdict in (
        (0.19, "healthy"),
        (0.2001, "learning_rate_too_high"),
        (1e-5, "learning_rate_too_low"),
    ):
        for options in ({"max_records": 64}, {"record_every": 31}):
            result = fastgd.minimize(
                f, x, optimizer="sgd", lr=lr, steps=8000 if lr > 0.1 else 2000, copy=True, **options
            )
            assert result.diagnosis.verdict == verdict


def test_continued_run() -> None:
    """Steps are counted from where the optimizer was."""
    x = np.ones(3)
    opt = fastgd.SGD(x, lr=0.05)
    f = dp.quadratic(np.geomspace(1, 10, 3))
    for _ in range(2):
        assert fastgd.minimize(f, x, optimizer=opt, steps=100).diagnosis.verdict == "healthy"


# --- what it refuses ---


@pytest.mark.parametrize(
    ("history", "error", "match"),
    [
        (None, TypeError, "NoneType"),
        ([1.0, 2.0], TypeError, "list"),
        ({"step": [0, 1]}, TypeError, "'loss'"),
        ({"loss": []}, (TypeError, ValueError), "loss|records"),
        ({"loss": np.empty(0)}, ValueError, "no records"),
        ({"loss": ["a"]}, TypeError, "loss"),
        ({"loss": np.ones((2, 2))}, ValueError, "loss"),
        ({"loss": np.ones(3), "lr": np.ones(2)}, ValueError, "lr has 2"),
        ({"loss": np.ones(3), "step": [0, 2, 1]}, ValueError, "step must increase"),
        ({"loss": np.ones(3), "probe_step": [0], "probe_lr": [1, 2]}, ValueError, "probe_lr"),
        (
            {"loss": np.ones(3), "validation_loss": np.ones(2), "validation_step": [1]},
            ValueError,
            "validation_step",
        ),
        (
            {"loss": np.ones(3), "names": ("a",)}
            | {f"layer_{key}_norm": np.ones((3, 2)) for key in ("grad", "update", "param")},
            ValueError,
            "layer_grad_norm",
        ),
    ],
)
def test_refused(history: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        diagnose(history)


SPECIAL = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e-320, 1e308, -1e308, 1e-8]


def test_any_numbers_are_survived(rng: np.random.Generator) -> None:
    """Whatever is in a history, there is an answer, and no warning."""
    for _ in range(300):
        n, k, p, v = (int(rng.integers(low, 60)) for low in (1, 0, 0, 0))
        k = k % 5

        def numbers(*shape: int) -> Any:
            special = rng.choice(SPECIAL, shape)
            plain = rng.standard_normal(shape) * 10.0 ** rng.uniform(-3, 3)
            return np.where(rng.random(shape) < rng.choice([0.0, 0.02, 0.5, 1.0]), special, plain)

        history = {
            "step": np.cumsum(rng.integers(1, 5, n)),
            **{
                key: numbers(n)
                for key in (
                    "loss",
                    "lr",
                    "grad_norm",
                    "update_norm",
                    "param_norm",
                    "grad_dot_update",
                )
            },
            **{f"layer_{key}_norm": numbers(n, k) for key in ("grad", "update", "param")},
            **{
                f"probe_{key}": numbers(p)
                for key in ("loss_before", "loss_after", "grad_dot_update", "update_norm", "lr")
            },
            "probe_step": np.cumsum(rng.integers(1, 5, p)),
            "validation_loss": numbers(v),
            "validation_step": np.cumsum(rng.integers(1, 5, v)),
            "names": tuple(f"{i}/W" for i in range(k)),
            "batch_size": rng.choice([None, 4]),
            "samples": rng.choice([None, 40]),
            "optimizer": rng.choice(["SGD", "Adam", ""]),
        }
        for key in rng.choice(sorted(set(history) - {"loss"}), rng.integers(0, 6), replace=False):
            if not key.startswith("probe") and "validation" not in key:
                del history[key]
        diagnosis = diagnose(history)
        assert diagnosis.verdict in {*FAMILIES, "no_progress"}
        assert str(diagnosis)


def test_short_runs_of_every_kind_are_survived() -> None:
    for lr in (1e-9, 0.1, 1e3, 1e160):
        for steps in (1, 2, 3, 19, 20, 21):
            assert str(descend([1.0, 2.0], lr, steps=steps))


def test_setup_is_not_changed() -> None:
    setup = Setup(dp.rosenbrock, np.array([-1.0, 1.0]), sgd(1e-3), steps=10)
    train(setup)
    assert setup.params.tolist() == [-1.0, 1.0]


# --- what looked like something else ---


def outcome(f: Any, params: Any, *data: Any, **options: Any) -> Diagnosis:
    with np.errstate(all="ignore"):
        return fastgd.minimize(f, params, data=data or None, **options).diagnosis


def outliers(seed: int, far: float) -> tuple[Any, Any]:
    """A linear function, and one sample in twenty far above it."""
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((500, 10)), 2 * rng.standard_normal(10)
    y = x @ w + 0.1 * rng.standard_normal(500)
    y[rng.choice(500, 25, replace=False)] += far
    return x, y


def huber(params: Any, x: Any, y: Any) -> tuple[float, Any]:
    r = x @ params["w"] + params["b"] - y
    g = np.clip(r, -1, 1) / len(y)
    loss = np.where(np.abs(r) <= 1, 0.5 * r * r, np.abs(r) - 0.5).mean()
    return float(loss), {"w": x.T @ g, "b": np.array([g.sum()])}


@pytest.mark.parametrize("seed", range(4))
def test_units_that_die_during_the_run(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data, f = dp.classes(rng, 300, 32, 8), dp.mlp("relu")
    for lr, died in ((0.1, False), (5.0, True)):
        params = dp.mlp_params(np.random.default_rng(seed), [32, 32, 16, 8], 1.4)
        options: dict[str, Any] = {"batch_size": 32, "steps": 200, "seed": seed}
        diagnosis = outcome(f, params, *data, optimizer="sgd", lr=lr, **options)
        assert (diagnosis.verdict == "learning_rate_too_high") == died, str(diagnosis)
        assert ("units died" in diagnosis.summary) == died, str(diagnosis)


def test_a_gradient_that_faded_to_zero_did_not_die() -> None:
    """One block converges exactly, the other has hardly begun."""

    def f(params: Any) -> tuple[float, Any]:
        a, b = params["a"], params["b"]
        return float(a @ a + 1e-4 * (b @ b)) / 2, {"a": a * 1, "b": 1e-4 * b}

    params = {"a": np.full(2, 1.0), "b": np.full(2, 200.0)}
    diagnosis = outcome(f, params, optimizer="sgd", lr=0.9, steps=1000)
    assert diagnosis.verdict != "learning_rate_too_high", str(diagnosis)


def test_nothing_found_is_not_nothing_wrong() -> None:
    """Labels of pure chance: no fault of the run, but there is no progress either."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2000, 3)), rng.choice([-1.0, 1.0], 2000)
    params = {"w": np.zeros(3), "b": np.zeros(1)}
    diagnosis = outcome(dp.logistic, params, x, y, optimizer="sgd", lr=1.0, batch_size=50, epochs=5)
    assert diagnosis.verdict == "no_progress"
    assert "The loss hardly fell" in diagnosis.summary
    assert diagnosis.advice


@pytest.mark.parametrize(
    ("far", "optimizer", "lr"),
    [(20, "adam", 0.05), (20, "sgd", 0.5), (1000, "sgd", 0.05), (1000, "sgd", 0.5)],
)
def test_outliers_are_not_oscillation(far: float, optimizer: str, lr: float) -> None:
    for seed in range(5):
        params = {"w": np.zeros(10), "b": np.zeros(1)}
        options: dict[str, Any] = {"batch_size": 16, "epochs": 30, "seed": seed}
        diagnosis = outcome(
            huber, params, *outliers(seed, far), optimizer=optimizer, lr=lr, **options
        )
        assert diagnosis.verdict != "learning_rate_too_high", str(diagnosis)


@pytest.mark.parametrize(("lr", "high"), [(0.1, False), (100, True)])
@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_a_rare_class_is_not_an_explosion(batch_size: int, lr: float, high: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1000, 5)), -np.ones(1000)
    y[:10] = 1
    x[:10] += 1
    params = {"w": np.zeros(5), "b": np.array([-4.6])}
    options: dict[str, Any] = {"batch_size": batch_size, "epochs": 5}
    diagnosis = outcome(dp.logistic, params, x, y, optimizer="sgd", lr=lr, **options)
    assert (diagnosis.verdict == "learning_rate_too_high") == high, str(diagnosis)


@pytest.mark.parametrize("scale", [0.001, 0.01, 0.1])
def test_near_a_saddle_no_rate_is_known_to_be_stable(scale: float) -> None:
    rng = np.random.default_rng(0)
    f = dp.factorization(rng.standard_normal((60, 3)) @ rng.standard_normal((3, 50)))
    u, v = (scale * rng.standard_normal(shape) for shape in ((60, 3), (3, 50)))
    for lr in (0.1, 1.0):
        params = {"U": u.copy(), "V": v.copy()}
        diagnosis = outcome(f, params, optimizer="sgd", lr=lr, steps=300)
        left = lr == 1.0 and scale > 0.001
        assert diagnosis.verdict == ("healthy" if left else "plateau"), str(diagnosis)
        assert diagnosis.stable_lr_confidence != "high", str(diagnosis)


def test_a_loss_that_falls_again_but_not_to_its_start_has_risen(rng: np.random.Generator) -> None:
    losses = np.linspace(300, 90, 300) + 20 * rng.standard_normal(300)
    losses[0] = 2.5
    history = {"loss": losses, "batch_size": 32, "samples": 400}
    assert diagnose(history).verdict == "learning_rate_too_high"


def test_a_loss_that_falls_ever_faster_has_not_risen() -> None:
    losses = 2 - 1.03 ** np.arange(-300, 0)
    assert diagnose({"loss": losses}).verdict == "healthy"
    assert all(f.verdict == "healthy" for f in diagnose({"loss": losses}).findings)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_a_stable_rate_is_sure_where_the_run_is_smooth(seed: int) -> None:
    diagnosis = softmax_run(seed, 0.1)
    assert diagnosis.stable_lr_confidence == "high", str(diagnosis)
    assert diagnosis.verdict != "learning_rate_too_high", str(diagnosis)


def test_a_stable_rate_that_follows_the_runs_own_is_rarely_sure() -> None:
    """The last bits of a chaotic run decide about a single verdict, so several are taken together."""
    diagnoses = [softmax_run(seed, 30.0, nudge) for seed in (0, 1, 3) for nudge in (0, 1, 2)]
    for diagnosis in diagnoses:
        assert diagnosis.verdict in ("learning_rate_too_high", "noise_floor"), str(diagnosis)
    assert sum(diagnosis.stable_lr_confidence == "low" for diagnosis in diagnoses) >= 6


def softmax_run(seed: int, lr: float, nudge: int = 0) -> Any:
    """A linear classifier, on data that differ by rounding from one `nudge` to the next."""
    x, y = dp.classes(np.random.default_rng(seed), 600, 32, 8)
    x = x * (1 + 1e-13 * nudge * np.random.default_rng(nudge).standard_normal(x.shape))
    params = [{"W": np.zeros((32, 8)), "b": np.zeros(8)}]
    options: dict[str, Any] = {"batch_size": 32, "epochs": 20, "seed": seed}
    return outcome(dp.mlp(), params, x, y, optimizer="sgd", lr=lr, **options)


def test_a_run_cut_short_by_its_data_was_not_too_slow() -> None:
    rng = np.random.default_rng(0)
    x, y = dp.classes(rng, 1000, 16, 4)
    x[900, 3] = np.nan
    params = dp.mlp_params(rng, [16, 32, 4], 1.4)
    diagnosis = outcome(
        dp.mlp("relu"), params, x, y, optimizer="sgd", lr=1e-3, batch_size=10, epochs=1, seed=1
    )
    assert diagnosis.verdict == "nonfinite_data_or_loss"
    assert "Also seen" not in str(diagnosis)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_parameters_that_hardly_move_though_the_gradient_is_large(kind: str) -> None:
    """In float32 with mini-batches the curvature along steps so short is lost in rounding."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 20)).astype(np.float32)
    y = (x @ rng.standard_normal(20) > 0).astype(np.int64)
    params = {"W0": 0.3 * rng.standard_normal((20, 16)), "W1": 0.3 * rng.standard_normal((16, 2))}
    params = {name: array.astype(np.float32) for name, array in params.items()}

    def f(p: Any, x: Any, y: Any) -> tuple[float, Any]:
        hidden = np.maximum(x @ p["W0"], 0)
        scores = np.exp(hidden @ p["W1"])
        shares = scores / scores.sum(1, keepdims=True)
        loss = -np.log(shares[np.arange(len(y)), y]).mean()
        shares[np.arange(len(y)), y] -= 1
        delta = shares / np.float32(len(y))
        back = (delta @ p["W1"].T) * (hidden > 0)
        return float(np.float32(loss)), {"W0": x.T @ back, "W1": hidden.T @ delta}

    slow = {"sgd": 1e-5, "adam": 3e-7}[kind]
    options: Any = {"data": (x, y), "batch_size": 25, "epochs": 15, "optimizer": kind, "copy": True}
    found = fastgd.diagnose(fastgd.minimize(f, params, lr=slow, **options))
    assert found.verdict == "learning_rate_too_low", str(found)
    advised = float(found.advice[0].removeprefix("lr=").split(",")[0])
    before = fastgd.minimize(f, params, lr=slow, **options).history.loss[-50:].mean()
    after = fastgd.minimize(f, params, lr=advised, **options).history.loss[-50:].mean()
    assert after < 0.8 * before
    good = fastgd.diagnose(fastgd.minimize(f, params, lr=10_000 * slow, **options))
    assert good.verdict == "healthy", str(good)


def test_a_rate_of_zero() -> None:
    found = outcome(lambda x: (x @ x, 2 * x), np.ones(3), optimizer="sgd", lr=0.0, steps=100)
    assert found.verdict == "learning_rate_too_low"
    assert "it is 0" in found.summary
