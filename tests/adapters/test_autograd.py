"""autograd's own optimizers, and ours with the same signatures."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

autograd = pytest.importorskip("autograd")

import autograd.numpy as anp  # noqa: E402
from autograd import grad  # noqa: E402
from autograd.misc import optimizers as theirs  # noqa: E402

import fastgd.adapters.autograd as adapter  # noqa: E402

STEPS = 60
A = np.random.default_rng(0).standard_normal((6, 4))


def loss(x: Any, i: int) -> Any:
    return anp.sum(anp.tanh(anp.dot(A, x) - 0.1 * i) ** 2) + 0.1 * anp.sum(x**4)


def network(params: Any, i: int) -> Any:
    hidden = anp.tanh(anp.dot(A, params["W"]) + params["layers"][0] * params["scale"])
    return anp.sum((anp.dot(hidden, params["layers"][1]) - i) ** 2)


def starts() -> dict[str, tuple[Any, Any]]:
    rng = np.random.default_rng(1)
    tree = {
        "W": rng.standard_normal((4, 3)),
        "layers": (rng.standard_normal(3), rng.standard_normal((3, 2))),
        "scale": np.array(0.5),
    }
    return {
        "vector": (loss, rng.standard_normal(4)),
        "float32": (loss, rng.standard_normal(4).astype(np.float32)),
        "tree": (network, tree),
        "scalars": (network, {**tree, "scale": 0.5}),
        "a number": (lambda x, i: (x - 2.0) ** 2, 0.5),
        "permuted": (
            lambda x, i: anp.sum((x - 1.0) ** 4),
            rng.standard_normal((2, 3, 4)).transpose(1, 0, 2),
        ),
        "transposed": (lambda x, i: anp.sum((x - A.T) ** 2), A.T * 0.5),
    }


CASES: list[tuple[str, dict[str, Any]]] = [
    ("adam", {}),
    ("adam", {"step_size": 0.05, "b1": 0.5, "b2": 0.9, "eps": 1e-3}),
    ("rmsprop", {"step_size": 0.02}),
    ("rmsprop", {"step_size": 0.02, "gamma": 0.5, "eps": 1e-2}),
    ("sgd", {"step_size": 0.01}),
    ("sgd", {"step_size": 0.01, "mass": 0.0}),
]


@pytest.mark.parametrize("start", starts())
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_the_same_numbers(name: str, options: dict[str, Any], start: str) -> None:
    function, x0 = starts()[start]
    seen: list[tuple[list[Any], list[Any]]] = []
    for module in (theirs, adapter):
        kept: list[Any] = []
        found = getattr(module, name)(
            grad(function), x0, lambda x, i, g, kept=kept: kept.append((x, i, g)), STEPS, **options
        )
        seen.append(([x for x, _, _ in kept] + [found], [(i, g) for _, i, g in kept]))
    tolerance = 1e-5 if start == "float32" else 1e-12
    for one, other in zip(seen[0][0], seen[1][0], strict=True):
        a, b = theirs.flatten(one)[0], theirs.flatten(other)[0]
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance)
    assert [i for i, _ in seen[1][1]] == list(range(STEPS))


def test_signatures() -> None:
    for name in ("adam", "rmsprop", "sgd"):
        ours = inspect.signature(getattr(adapter, name)).parameters.values()
        assert [(p.name, p.default) for p in ours][1:2] == [("x0", inspect.Parameter.empty)]
        own = {p.name: p.default for p in ours}
        for key, default in {
            "adam": (0.001, 100),
            "rmsprop": (0.1, 100),
            "sgd": (0.1, 200),
        }.items():
            if key == name:
                assert (own["step_size"], own["num_iters"]) == default


def test_x0_stays_and_a_callback_may_keep_what_it_gets() -> None:
    x0 = np.ones(4)
    kept: list[Any] = []
    found = adapter.adam(grad(loss), x0, lambda x, i, g: kept.append(x), 5)
    assert (x0 == 1.0).all()
    assert len({x.tobytes() for x in kept}) == 5
    assert not np.shares_memory(found, kept[-1])
    assert (adapter.adam(grad(loss), x0, num_iters=0) == x0).all()


def test_a_gradient_that_is_the_parameter_itself() -> None:
    a = theirs.sgd(lambda x, i: x, np.ones(3), num_iters=20)
    b = adapter.sgd(lambda x, i: x, np.ones(3), num_iters=20)
    np.testing.assert_allclose(b, a, rtol=1e-12)


def test_any_optimizer_and_its_options() -> None:
    for name in ("AdamW", "lion", "ScheduleFreeSGD"):
        x = adapter.optimize(name, grad(loss), np.ones(4), num_iters=50, lr=0.01, clip_norm=1.0)
        assert loss(x, 0) < loss(np.ones(4), 0)
    with pytest.raises(ValueError, match="lr"):
        adapter.adam(grad(loss), np.ones(4), step_size=-1.0)
    with pytest.raises(ValueError, match="shape"):
        adapter.adam(lambda x, i: np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="adamm"):
        adapter.optimize("adamm", grad(loss), np.ones(4))
