"""Typical mistakes of the first hour: each message says what to write instead."""

from __future__ import annotations

import dataclasses
import importlib.util
import types
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd import schedules

X, y = np.ones((64, 2)), np.ones(64)


def function(w: Any, *batch: Any) -> Any:
    return float(w @ w), 2 * w


def minimize(**options: Any) -> Any:
    return fastgd.minimize(function, np.zeros(2), **{"steps": 2, **options})


@dataclasses.dataclass
class Model:
    w: Any


W = np.ones(2)

MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "a generator of parameters": (
        lambda: fastgd.AdamW(w for w in [W]),
        r"list\(value\) of arrays or groups; of a PyTorch model pass \{name: p.detach\(\)",
    ),
    "numbers as parameters": (lambda: fastgd.SGD([1.0, 2.0]), r"numpy.array\(\["),
    "integers": (lambda: fastgd.SGD(np.arange(3)), r"astype\(np.float64\)"),
    "flags": (lambda: fastgd.SGD(np.ones(3, bool)), r"astype\(np.float64\)"),
    "complex numbers": (lambda: fastgd.SGD(np.ones(3, complex)), "lose the imaginary part"),
    "half precision": (lambda: fastgd.SGD(np.ones(3, np.float16)), r"astype\(np.float32\)"),
    "a dataclass": (lambda: fastgd.SGD(Model(W)), r"vars\(value\)"),
    "a read-only mapping": (
        lambda: fastgd.SGD(types.MappingProxyType({"w": W})),
        r"dict\(value\)",
    ),
    "the values of a dict": (lambda: fastgd.SGD({"w": W}.values()), r"list\(value\)"),
    "a group without arrays": (
        lambda: fastgd.SGD([{"lr": 0.1}]),
        "group 0 has 'lr', but no \"params\"",
    ),
    "a second group without arrays": (
        lambda: fastgd.SGD([{"params": W}, {"weight": np.ones(2)}]),
        "group 1 has 'weight', but no \"params\"",
    ),
    "the factory of a schedule": (
        lambda: fastgd.SGD(W, lr=schedules.cosine),
        r"lr must be .* cosine .*total_steps.*pass cosine\(…\)",
    ),
    "a factory that a step would do for": (
        lambda: fastgd.SGD(W, lr=schedules.constant),
        r"lr must be .*makes schedules.*pass constant\(…\)",
    ),
    "the class of a schedule": (
        lambda: fastgd.SGD(W, lr=schedules.ReduceOnPlateau),
        "lr must be .* the class ReduceOnPlateau",
    ),
    "a function of nothing": (lambda: fastgd.SGD(W, lr=lambda: 0.1), "lr must .*lambda step: …"),
    "a function of nothing among a pair": (
        lambda: fastgd.Adam(W, betas=(0.9, lambda: 0.1)),
        r"betas\[1\] must .*lambda step: …",
    ),
    "a function of nothing to clip by": (
        lambda: fastgd.Adam(W, clip_norm=lambda: 0.1),
        "clip_norm must .*lambda step: …",
    ),
    "another library's name": (lambda: fastgd.Adam(W, learning_rate=0.1), "did you mean 'lr'"),
    "an argument of a schedule": (
        lambda: schedules.cosine(0.1, T_max=10),  # type: ignore[call-arg]
        "unexpected argument 'T_max'; did you mean 'total_steps'",
    ),
    "an unknown argument of a schedule": (
        lambda: schedules.step(0.1, what=10),  # type: ignore[call-arg]
        "unexpected argument 'what'; it has lr, step_size, gamma",
    ),
    "a name in lower case": (lambda: fastgd.adamw, "did you mean 'AdamW'"),  # type: ignore[attr-defined]
    "gradients to be set to zero": (
        lambda: fastgd.SGD(W).zero_grad(),  # type: ignore[attr-defined]
        r"given to step\(grads\)",
    ),
    "a list of arrays as data": (lambda: minimize(data=[X, y], batch_size=32), r"data=\(X, y\)"),
    "a part as validation": (
        lambda: minimize(data=(X, y), batch_size=32, validation=0.1),
        r"validation must .* split them",
    ),
    "the size of batches by position": (
        lambda: fastgd.MiniBatches(X, y, 32),
        "did you mean batch_size=32",
    ),
    "an optimizer that there is not": (
        lambda: minimize(optimizer="sdg"),
        r"no optimizer 'sdg'; did you mean 'SGD'\? There are AdaBelief, ",
    ),
    "SciPy's name for steps": (lambda: minimize(maxiter=3), "did you mean 'steps'"),
    "SciPy's name for the function": (lambda: minimize(jac=True), "did you mean 'value_and_grad'"),
    "Keras' name for progress": (lambda: minimize(verbose=1), "did you mean 'progress'"),
    "PyTorch Lightning's name for epochs": (
        lambda: minimize(max_epochs=1),
        "did you mean 'epochs'",
    ),
    "the function second": (
        lambda: fastgd.minimize(W, function),  # type: ignore[arg-type]
        "function comes before the parameters",
    ),
    "JAX's auxiliary values": (
        lambda: fastgd.minimize(lambda w: ((0.0, {"a": 1}), w + 0), W, steps=2),
        "has_aux=True",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_message_says_what_to_do(mistake: str) -> None:
    do, message = MISTAKES[mistake]
    with pytest.raises((TypeError, ValueError, AttributeError), match=message):
        do()


def test_pytorchs_gradients_to_be_clipped() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"got torch.Tensor; pass p.grad.numpy\(\)"):
        fastgd.clip_grad_norm_([torch.ones(2)], 1.0)
    with pytest.raises(TypeError, match=r"model.named_parameters\(\)"):
        fastgd.AdamW(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    "name", ["sgd", "rms-prop", "adam_w", "SCHEDULEFREEADAMW", "schedule-free-sgd"]
)
def test_names_of_optimizers_in_any_case(name: str) -> None:
    kind = fastgd.optimizers.find(name)
    assert kind.__name__.lower() == name.lower().replace("-", "").replace("_", "")


@pytest.mark.parametrize("betas", [np.array([0.9, 0.99]), [0.9, 0.99], array("d", [0.9, 0.99])])
def test_a_pair_is_any_sequence(betas: Any) -> None:
    assert fastgd.Adam(W.copy(), betas=betas).param_groups[0]["betas"] == (0.9, 0.99)


def test_one_group_takes_gradients_as_several_do() -> None:
    tree = {"w": np.zeros(2)}
    opt = fastgd.SGD([{"params": tree}], lr=1.0)
    opt.step([{"w": np.ones(2)}])
    opt.step({"w": np.ones(2)})
    assert tree["w"].tolist() == [-2.0, -2.0]
    w = np.zeros(2)
    opt = fastgd.SGD([{"params": [w]}], lr=1.0)
    opt.step([np.ones(2)])
    assert w.tolist() == [-1.0, -1.0]
    w = np.zeros(2)
    result = fastgd.minimize(
        lambda p: (0.0, [np.ones(2)]), [{"params": w, "lr": 1.0}], steps=2, optimizer="sgd"
    )
    assert w.tolist() == [-2.0, -2.0]
    assert result.history.grad_norm[0] == np.sqrt(2)


def test_importing_the_source_folder_where_nothing_was_built(tmp_path: Any) -> None:
    """It hides an installed fastgd, and says so."""
    from pathlib import Path
    from subprocess import run
    from sys import executable

    source = Path(importlib.util.find_spec("fastgd._engine").origin)  # type: ignore[union-attr,arg-type]
    package = tmp_path / "fastgd" / "_engine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    (package.parent / "__init__.py").write_text("from fastgd import _engine")
    (tmp_path / "setup.py").write_text("")
    done = run([executable, "-c", "import fastgd"], cwd=tmp_path, capture_output=True, text=True)
    assert "ImportError: fastgd was imported from its source folder" in done.stderr
    assert "pip install -e" in done.stderr
