"""The same numbers as optax and as the authors' own packages, where these are installed.

float64, 50 steps, gradients that do not depend on the parameters. Budget: 1e-12 of the largest parameter;
a wrong formula is off by 1e-4 or more. Known faults of a library (optax 0.2.8: adan, rprop, schedules
within schedule_free) are left out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastgd
from tests.fma import Array
from tests.support import optimizer, tame

STEPS = 50
SHAPES = [(7, 5), (13,), (1,)]
LOSSES = [1.5, 0.02, 0.9, 0.4]


def run_ours(name: str, kwargs: dict[str, Any], shapes: list[Any]) -> list[Array]:
    rng = np.random.default_rng(5)
    params = [tame(rng, shape, np.float64) for shape in shapes]
    opt = optimizer(name, params, **kwargs)
    for step in range(STEPS):
        grads = [tame(rng, shape, np.float64) for shape in shapes]
        opt.step(grads, loss=LOSSES[step % 4])
    opt.eval()
    return params


def assert_close(ours: list[Array], theirs: list[Array]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1.0, float(np.abs(b).max())))


# --- optax ---

OPTAX: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("Adadelta", {"lr": 0.5, "weight_decay": 0.1}, "adadelta", {"weight_decay": 0.1, "eps": 1e-6}),
    ("Adamax", {}, "adamax", {}),
    (
        "Adamax",
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
        "adamaxw",
        {"weight_decay": 0.1},
    ),
    ("NAdam", {"constant_momentum": True}, "nadam", {}),
    (
        "NAdam",
        {"constant_momentum": True, "weight_decay": 0.1, "decoupled_weight_decay": True},
        "nadamw",
        {"weight_decay": 0.1},
    ),
    ("RAdam", {"eps_hat": False, "betas": (0.9, 0.95)}, "radam", {"b2": 0.95}),
    ("Lion", {"weight_decay": 0.1}, "lion", {"weight_decay": 0.1}),
    ("LAMB", {"weight_decay": 0.1}, "lamb", {"weight_decay": 0.1}),
    ("LAMB", {}, "lamb", {}),
    ("LARS", {"weight_decay": 0.1}, "lars", {"weight_decay": 0.1}),
    ("LARS", {"nesterov": True, "eps": 0.1}, "lars", {"nesterov": True, "eps": 0.1}),
    ("AdaBelief", {}, "adabelief", {}),
    ("AdaBelief", {"nesterov": True}, "adabelief", {"nesterov": True}),
    ("Yogi", {}, "yogi", {}),
    ("SignSGD", {}, "sign_sgd", {}),
    ("Signum", {"beta": 0.7}, "signum", {"beta": 0.7}),
    ("AdEMAMix", {"alpha": 5.0, "weight_decay": 0.1}, "contrib.ademamix", {"weight_decay": 0.1}),
    ("ADOPT", {"clip_exponent": 0.25}, "contrib.adopt", {}),
    ("DoWG", {"lr": 1.0}, "contrib.dowg", {}),
    ("Prodigy", {"lr": 1.0, "use_bias_correction": True}, "contrib.prodigy", {}),
    ("PolyakSGD", {"lr": 1.0, "clamp": False}, "polyak_sgd", {"max_learning_rate": 1.0}),
    ("PolyakSGD", {"lr": 0.01, "f_min": 0.1}, "polyak_sgd", {"f_min": 0.1, "variant": "sps+"}),
    ("Adagrad", {"eps": 1e-7, "eps_inside": True, "initial_accumulator_value": 0.1}, "adagrad", {}),
    ("RMSprop", {"alpha": 0.9, "eps_inside": True}, "rmsprop", {}),
    ("AdamW", {"weight_decay": 1e-4}, "adamw", {}),
]


def found(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = (
            importlib.import_module(f"{module.__name__}.{part}")
            if part == "contrib"
            else getattr(module, part)
        )
    return module


@pytest.mark.parametrize(("name", "kwargs", "path", "theirs"), OPTAX, ids=lambda x: str(x)[:40])
def test_optax(name: str, kwargs: dict[str, Any], path: str, theirs: dict[str, Any]) -> None:
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    kwargs = {"lr": 0.03, **kwargs}
    own = {"Prodigy": {}, "DoWG": {}, "PolyakSGD": {"max_learning_rate": kwargs["lr"]}}
    rate = own.get(name, {"learning_rate": kwargs["lr"]})
    with jax.enable_x64(True):
        made = found(optax, path)(**rate, **{k: v for k, v in theirs.items() if k not in rate})
        rng = np.random.default_rng(5)
        params = [jax.numpy.asarray(tame(rng, shape, np.float64)) for shape in SHAPES]
        state = made.init(params)
        update = optax.with_extra_args_support(made).update
        for step in range(STEPS):
            grads = [jax.numpy.asarray(tame(rng, shape, np.float64)) for shape in SHAPES]
            updates, state = update(grads, state, params, value=LOSSES[step % 4])
            params = optax.apply_updates(params, updates)
        expected = [np.asarray(p) for p in params]
    assert_close(run_ours(name, kwargs, SHAPES), expected)


# --- the authors' packages, over PyTorch ---


def from_package(module: str, kind: str, **kwargs: Any) -> Callable[[Any], Any]:
    return lambda params: getattr(pytest.importorskip(module), kind)(params, **kwargs)


AUTHORS: list[tuple[str, dict[str, Any], Callable[[Any], Any]]] = [
    ("Lion", {"lr": 0.03, "weight_decay": 0.1},
     from_package("lion_pytorch", "Lion", lr=0.03, weight_decay=0.1)),
    ("Lion", {"lr": 0.03, "betas": (0.5, 0.8)},
     from_package("lion_pytorch", "Lion", lr=0.03, betas=(0.5, 0.8))),
    ("ScheduleFreeSGD", {"lr": 0.1, "weight_decay": 0.1, "warmup_steps": 7},
     from_package("schedulefree", "SGDScheduleFree", lr=0.1, weight_decay=0.1, warmup_steps=7,
                  foreach=False)),
    ("ScheduleFreeSGD", {"lr": 0.1, "momentum": 0.6, "r": 1.0, "weight_lr_power": 0.0},
     from_package("schedulefree", "SGDScheduleFree", lr=0.1, momentum=0.6, r=1.0,
                  weight_lr_power=0.0, foreach=False)),
    ("ScheduleFreeAdamW", {"lr": 0.01, "weight_decay": 0.1, "warmup_steps": 7},
     from_package("schedulefree", "AdamWScheduleFree", lr=0.01, weight_decay=0.1, warmup_steps=7,
                  foreach=False)),
    ("Prodigy", {"weight_decay": 0.1}, from_package("prodigyopt", "Prodigy", weight_decay=0.1)),
    ("Prodigy", {"d0": 1e-3, "use_bias_correction": True, "safeguard_warmup": True},
     from_package("prodigyopt", "Prodigy", d0=1e-3, use_bias_correction=True,
                  safeguard_warmup=True)),
    ("Prodigy", {"d0": 1e-3, "growth_rate": 1.02, "decouple": False, "weight_decay": 0.1},
     from_package("prodigyopt", "Prodigy", d0=1e-3, growth_rate=1.02, decouple=False,
                  weight_decay=0.1)),
    ("DoG", {"reps_rel": 1e-3}, from_package("dog", "DoG", reps_rel=1e-3)),
    ("DoG", {"reps_rel": 1e-3, "layerwise": True}, from_package("dog", "LDoG", reps_rel=1e-3)),
    ("DoG", {"init_eta": 0.01, "weight_decay": 0.1},
     from_package("dog", "DoG", init_eta=0.01, weight_decay=0.1)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kwargs", "make"), AUTHORS)
def test_authors(name: str, kwargs: dict[str, Any], make: Callable[[Any], Any]) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    params = [torch.nn.Parameter(torch.from_numpy(tame(rng, s, np.float64))) for s in SHAPES]
    made = make(params)
    if hasattr(made, "train"):
        made.train()
    for _ in range(STEPS):
        for p, shape in zip(params, SHAPES, strict=True):
            p.grad = torch.from_numpy(tame(rng, shape, np.float64))
        made.step()
    if hasattr(made, "eval"):
        made.eval()
    assert_close(run_ours(name, kwargs, SHAPES), [p.detach().numpy() for p in params])


def test_a_step_of_every_optimizer_moves_towards_the_minimum() -> None:
    """From any optimizer's defaults, on a quadratic: the formulas have the right sign."""
    for name in fastgd.optimizers.all_optimizers():
        w = np.full((2, 2), 3.0)
        opt = optimizer(name, w)
        for _ in range(20):
            opt.step(2 * w, loss=float((w * w).sum()))
        opt.eval()
        assert (w * w).sum() < 36.0, name
