"""Keras' own optimizers on PyTorch, and ours in their place."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgd.optimizers import all_optimizers

pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras: Any = pytest.importorskip("keras")
if keras.backend.backend() != "torch":
    pytest.skip("Keras has another backend", allow_module_level=True)

adapter: Any = importlib.import_module("fastgd.adapters.keras")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
X = np.random.default_rng(0).standard_normal((64, 6)).astype(np.float64)
Y = np.abs(X).argmax(1)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("SGD", {"momentum": 0.9, "weight_decay": 0.01, "clipnorm": 0.1}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}),
    ("Adam", {"use_ema": True, "ema_momentum": 0.5, "global_clipnorm": 0.2}),
    ("AdamW", {"weight_decay": 0.1}),
    ("AdamW", {"gradient_accumulation_steps": 2}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("Adagrad", {"learning_rate": 0.05}),
    ("Adadelta", {"learning_rate": 0.5}),
    ("Adamax", {}),
    ("Nadam", {}),
    ("Lion", {}),
    ("Lion", {"clipvalue": 0.01, "loss_scale_factor": 8.0}),
]


@pytest.fixture(autouse=True)
def double() -> Any:
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


def model() -> Any:
    keras.utils.set_random_seed(0)
    made = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(6)]
    )
    return made


def fit(made: Any, optimizer: Any, epochs: int = 8, compile: bool = True) -> list[float]:
    if compile:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        made.compile(optimizer, loss)
    history = made.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return history.history["loss"]  # type: ignore[no-any-return]


def weights(made: Any) -> Any:
    return np.concatenate([w.ravel() for w in made.get_weights()])


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_the_same_numbers(name: str, options: dict[str, Any]) -> None:
    """64 steps of `fit`; Keras has betas and the rate in the variables' dtype, as numbers."""
    one, other = model(), model()
    given = {"learning_rate": 0.01, **options}
    losses = fit(one, getattr(keras.optimizers, name)(**given))
    ours = fit(other, getattr(adapter, name)(**given))
    np.testing.assert_allclose(ours, losses, rtol=1e-9)
    np.testing.assert_allclose(weights(other), weights(one), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["Adam", "Nadam", "SGD"])
def test_the_state_is_saved_with_the_model(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"momentum": 0.9} if name == "SGD" else {}
    rate = keras.optimizers.schedules.ExponentialDecay(0.02, 10, 0.8)
    whole, part = model(), model()
    fit(whole, getattr(adapter, name)(rate, **options), 4)
    fit(whole, None, 4, compile=False)
    fit(part, getattr(adapter, name)(rate, **options), 4)
    part.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again.optimizer).__name__ == name
    fit(again, None, 4, compile=False)
    assert weights(again).tobytes() == weights(whole).tobytes()


@pytest.mark.parametrize("name", sorted(set(all_optimizers()) - {"PolyakSGD", "Muon"}))
def test_any_optimizer_of_fastgd(name: str, tmp_path: Path) -> None:
    made = model()
    rate = all_optimizers()[name].declaration.defaults.get("lr", 1.0)
    losses = fit(made, adapter.Optimizer(name, float(rate)), 3)
    assert np.isfinite(losses).all()
    made.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    fit(made, None, 2, compile=False)
    fit(again, None, 2, compile=False)
    assert weights(again).tobytes() == weights(made).tobytes()


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_frozen_layers_and_missing_gradients() -> None:
    for module in (keras.optimizers, adapter):
        made = model()
        made.layers[0].trainable = False
        before = made.layers[0].get_weights()[0].copy()
        fit(made, module.Adam(0.01), 2)
        assert (made.layers[0].get_weights()[0] == before).all()
    runs = []
    for module in (keras.optimizers, adapter):
        a, b = (keras.Variable(np.ones(3), dtype="float64") for _ in range(2))
        optimizer = module.Adam(0.1)
        for i in range(6):
            gradient = keras.ops.convert_to_tensor(np.arange(3.0), "float64")
            optimizer.apply([gradient, gradient if i % 2 else None], [a, b])
        runs.append(np.concatenate([a.numpy(), b.numpy()]))
    np.testing.assert_allclose(runs[1], runs[0], rtol=0, atol=1e-12)


def test_errors() -> None:
    with pytest.raises(ValueError, match="Muon updates matrices"):  # and Keras has no groups
        fit(model(), adapter.Optimizer("Muon"), 1)
    with pytest.raises(TypeError, match="needs the loss"):
        adapter.Optimizer("PolyakSGD")
    with pytest.raises(ValueError, match="beta"):
        adapter.Optimizer("AdamW", hyperparameters={"beta": 0.9})
    with pytest.raises(TypeError, match="momentun"):
        adapter.SGD(momentun=0.9)
    with pytest.raises(ValueError, match="mixed_bfloat16"):
        adapter.Adam().build([keras.Variable(np.ones(3), dtype="float16")])


def test_another_backend_is_refused_at_import() -> None:
    if importlib.util.find_spec("jax") is None:
        pytest.skip("needs JAX")
    code = "import fastgd.adapters.keras"
    env = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "KERAS_BACKEND=torch" in done.stderr
