"""JAX: gradients that JAX computes, parameters that NumPy holds.

    from fastgd.adapters.jax import Optimizer, value_and_grad
    fastgd.minimize(value_and_grad(loss), params, data=(x, y))          # trees that fastgd knows
    opt = Optimizer("adamw", params, lr=1e-3)                           # any pytree
    value, grads = step(opt.params, batch); opt.step(grads)

JAX returns before it has computed, and reads a NumPy array that it was given where it lies: a step that
follows can change what is still being read. `value_and_grad` waits for its results, after which nothing
reads the parameters any more; `Optimizer.params` are copies, of which JAX may read whenever it likes.

Where the gradient and the update are one jitted function, XLA fuses them and no array leaves it: below some
five million parameters optax is faster than this, above it is not; see docs/hosts.md.

Needs `pip install "fastgd[jax]"`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fastgd import optimizers
from fastgd._arrays.tree import Array
from fastgd.optimizers import find

try:
    jax: Any = importlib.import_module("jax")
except ImportError as error:
    raise ImportError('fastgd.adapters.jax needs JAX: pip install "fastgd[jax]"') from error

__all__ = ["Optimizer", "value_and_grad"]


def value_and_grad(
    fun: Callable[..., Any], *, has_aux: bool = False, jit: bool = True
) -> Callable[..., tuple[Any, Any]]:
    """`jax.value_and_grad` for parameters in NumPy arrays, which a step may change as soon as it returns.

    Args:
        fun: called with (params, …); returns the loss, or with `has_aux` (loss, aux).
        has_aux: whether it returns a pair.
        jit: compile it.

    Returns:
        A function of the same arguments, which returns (loss, gradients): a float, and a tree of NumPy
        arrays as params is. With `has_aux` ((loss, aux), gradients), aux as NumPy arrays of its own.

    Example:
        >>> import jax.numpy as jnp, numpy as np, fastgd
        >>> from fastgd.adapters.jax import value_and_grad
        >>> loss = value_and_grad(lambda w: jnp.sum((w - 3.0) ** 2))
        >>> w = np.zeros(2, np.float32)
        >>> fastgd.minimize(loss, w, optimizer="sgd", lr=0.25, steps=50).params.tolist()
        [3.0, 3.0]
    """
    compute = jax.value_and_grad(fun, has_aux=has_aux)
    compute = jax.jit(compute) if jit else compute

    def function(params: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        value, grads = jax.block_until_ready(compute(params, *args, **kwargs))
        grads = jax.tree.map(_apart, grads, params)
        if has_aux:
            loss, aux = value
            return (float(loss), jax.tree.map(np.array, aux)), grads
        return float(value), grads

    return function


def _apart(grad: Any, param: Any) -> Array:
    """A gradient as NumPy's; of a function that returns its argument, JAX may give that one's memory."""
    array = np.asarray(grad)
    return array.copy() if np.may_share_memory(array, param) else array


class Optimizer:
    """One of fastgd's optimizers over any pytree.

    Args:
        optimizer: its name or class.
        params: a pytree of arrays of float32 or float64. Its values are copied.
        options: hyperparameters and options of the class.

    Attributes:
        inner: fastgd's optimizer, over NumPy arrays under the names that JAX has for the leaves; for state,
            hyperparameters and checkpoints.

    Raises:
        TypeError, ValueError: as the class.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from fastgd.adapters.jax import Optimizer
        >>> gradient = jax.jit(jax.grad(lambda p: jnp.sum((p["w"] - 3.0) ** 2)))
        >>> opt = Optimizer("sgd", {"w": jnp.zeros(2)}, lr=0.25)
        >>> for _ in range(50):
        ...     _ = opt.step(gradient(opt.params))
        >>> opt.params["w"].tolist()
        [3.0, 3.0]
    """

    def __init__(
        self, optimizer: str | type[optimizers.Optimizer], params: Any, **options: Any
    ) -> None:
        kind = find(optimizer)
        leaves, self._structure = jax.tree_util.tree_flatten_with_path(params)
        arrays = {jax.tree_util.keystr(path): np.array(leaf, order="C") for path, leaf in leaves}
        self._keys = tuple(arrays)
        self.inner = kind(arrays, **options)

    @property
    def params(self) -> Any:
        """The pytree of the parameters as they are now: JAX arrays, and copies."""
        # NumPy's copies: jax.numpy.array copies too, but some time later.
        leaves = [jax.numpy.asarray(array.copy()) for array in self.inner.params.values()]
        return jax.tree.unflatten(self._structure, leaves)

    def step(self, grads: Any, grad_scale: float = 1.0, *, loss: Any = None) -> bool:
        """Take a step with a pytree of gradients, JAX's or NumPy's; a leaf that is None is skipped.

        Returns, raises: as `fastgd.Optimizer.step`; ValueError where the pytree is not that of the
        parameters.
        """
        leaves, structure = jax.tree.flatten(grads, is_leaf=lambda leaf: leaf is None)
        if structure != self._structure:
            raise ValueError(
                f"the gradients are {structure}, the parameters {self._structure}: pass the pytree that "
                "jax.grad returns"
            )
        ready = jax.block_until_ready(leaves)
        arrays = [None if leaf is None else np.asarray(leaf) for leaf in ready]
        given = dict(zip(self._keys, arrays, strict=True))
        return self.inner.step(given, grad_scale, loss=None if loss is None else float(loss))
