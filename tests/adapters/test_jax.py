"""JAX's gradients, NumPy's parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import fastgd

jax: Any = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

from fastgd.adapters.jax import Optimizer, value_and_grad  # noqa: E402

STEPS = 50


@dataclasses.dataclass
class Layer:
    W: Any
    b: Any


jax.tree_util.register_dataclass(Layer, data_fields=["W", "b"], meta_fields=[])


def network(params: Any, x: Any) -> Any:
    hidden = jnp.tanh(x @ params["one"].W + params["one"].b)
    return jnp.mean((hidden @ params["two"][0]) ** 2 + jnp.cos(x.sum()))


def start() -> Any:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    return {"one": Layer(normal(5, 4), normal(4)), "two": (normal(4, 2),)}


X = np.random.default_rng(1).standard_normal((STEPS, 8, 5)).astype(np.float32)


def test_a_registered_pytree_as_with_optax() -> None:
    optax: Any = pytest.importorskip("optax")
    gradient = jax.jit(jax.grad(network))
    theirs = jax.tree.map(jnp.asarray, start())
    rule = optax.adamw(0.01, weight_decay=0.1)
    state = rule.init(theirs)
    ours = Optimizer("adamw", start(), lr=0.01, weight_decay=0.1)
    for x in X:
        updates, state = rule.update(gradient(theirs, x), state, theirs)
        theirs = optax.apply_updates(theirs, updates)
        ours.step(gradient(ours.params, x))
    assert isinstance(ours.params["one"], Layer)
    for a, b in zip(jax.tree.leaves(theirs), jax.tree.leaves(ours.params), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5)
    assert list(ours.inner.params) == ["['one'].W", "['one'].b", "['two'][0]"]


def test_params_are_copies_that_later_steps_do_not_change() -> None:
    optimizer = Optimizer("sgd", {"w": np.ones(1000, np.float32)}, lr=1.0)
    before = optimizer.params["w"]
    optimizer.step({"w": np.ones(1000, np.float32)})
    assert (np.asarray(before) == 1.0).all()
    assert (np.asarray(optimizer.params["w"]) == 0.0).all()
    assert optimizer.step({"w": None})


def test_what_is_still_computed_reads_what_it_was_given() -> None:
    """A metric of the parameters that nobody waits for, long enough that steps overtake it."""
    slow = jax.jit(lambda w: jax.lax.fori_loop(0, 200, lambda _, x: x @ w / 300.0, w).sum())
    rng = np.random.default_rng(0)
    optimizer = Optimizer("sgd", rng.standard_normal((300, 300)).astype(np.float32), lr=0.1)
    pending, expected = [], []
    for _ in range(10):
        (now,) = optimizer.inner.params.values()
        pending.append(slow(optimizer.params))
        expected.append(now.copy())
        optimizer.step(np.ones((300, 300), np.float32))
    for found, w in zip(pending, expected, strict=True):
        assert float(found) == float(slow(w))


def test_value_and_grad_waits_and_gives_memory_of_its_own() -> None:
    params = {"w": np.ones(7, np.float32)}
    function = value_and_grad(
        lambda p: (0.5 * jnp.sum(p["w"] ** 2), {"copy": p["w"]}), has_aux=True
    )
    (loss, aux), grads = function(params)
    assert isinstance(loss, float)
    assert not np.shares_memory(aux["copy"], params["w"])
    assert not np.shares_memory(grads["w"], params["w"])
    assert (grads["w"] == 1.0).all()
    identity = jax.custom_vjp(lambda w: 0.5 * jnp.sum(w**2))
    identity.defvjp(lambda w: (identity(w), w), lambda w, g: (w,))
    _, gradient = value_and_grad(identity)(params["w"])
    assert not np.shares_memory(gradient, params["w"])


@pytest.mark.parametrize("jit", [True, False])
def test_minimize(jit: bool) -> None:
    x, y = X[0], X[1][:, 0]
    loss = value_and_grad(lambda w, x, y: jnp.mean((x @ w - y) ** 2), jit=jit)
    batches = fastgd.MiniBatches(x, y, batch_size=4, seed=0)
    result = fastgd.minimize(loss, np.zeros(5, np.float32), data=batches, lr=0.05, steps=300)
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    assert loss(result.params, x, y)[0] < loss(best, x, y)[0] + 0.05


def test_errors() -> None:
    with pytest.raises(ValueError, match="the gradients are"):
        Optimizer("sgd", {"w": np.ones(2, np.float32)}).step({"v": np.ones(2, np.float32)})
    with pytest.raises(ValueError, match=r"\['w'\]"):
        Optimizer("sgd", {"w": np.ones(2, np.float32)}).step({"w": np.ones(3, np.float32)})
    with pytest.raises(TypeError, match="float32 or float64"):
        Optimizer("sgd", {"w": jnp.ones(2, jnp.bfloat16)})
    with pytest.raises(TypeError, match="needs the loss"):
        Optimizer("PolyakSGD", {"w": np.ones(2, np.float32)}).step({"w": np.ones(2, np.float32)})
