"""HIPS autograd: `autograd.misc.optimizers` with the same signatures and results, in less time.

    from fastgd.adapters.autograd import adam
    trained = adam(grad(objective), initial, callback, num_iters=500, step_size=0.01)

`optimize` is the same loop for any of fastgd's optimizers.

Where every leaf of `x0` is an array of floats, in containers that fastgd knows (lists, tuples, dicts), a
step updates the arrays where they lie; anything else goes through autograd's `flatten`, as there.

Needs `pip install "fastgd[autograd]"`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastgd._arrays.tree import flatten as leaves_of
from fastgd._arrays.tree import rebuild
from fastgd.optimizers import SGD, Adam, Optimizer, RMSprop, find
from fastgd.placement import place

try:
    flatten: Any = importlib.import_module("autograd.misc").flatten
except ImportError as error:
    raise ImportError(
        'fastgd.adapters.autograd needs autograd: pip install "fastgd[autograd]"'
    ) from error

__all__ = ["adam", "optimize", "rmsprop", "sgd"]

Gradient = Callable[[Any, int], Any]
Callback = Callable[[Any, int, Any], Any]


def adam(
    grad: Gradient,
    x0: Any,
    callback: Callback | None = None,
    num_iters: int = 100,
    step_size: float = 0.001,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> Any:
    """Adam (Kingma & Ba 2015, algorithm 1), as `autograd.misc.optimizers.adam`.

    Args:
        grad: called with (x, i), i = 0, 1, …; returns the gradient, of x's structure and shapes.
        x0: where to start: a number, an array, or containers of such. Stays as it is.
        callback: called with (x, i, gradient) before each step; it may keep x, a copy.
        num_iters: steps.
        step_size, b1, b2, eps: learning rate, decay of the two moments, and what is added to the root.

    Returns: x after the last step, of x0's structure.

    Raises:
        TypeError, ValueError: as `fastgd.Adam` and its step.
    """
    make = partial(Adam, lr=step_size, betas=(b1, b2), eps=eps)
    return _run(make, 1.0, grad, x0, callback, num_iters)


def rmsprop(
    grad: Gradient,
    x0: Any,
    callback: Callback | None = None,
    num_iters: int = 100,
    step_size: float = 0.1,
    gamma: float = 0.9,
    eps: float = 1e-8,
) -> Any:
    """RMSprop as `autograd.misc.optimizers.rmsprop`, whose average of squares begins at 1; see `adam`.

    Args:
        gamma: decay of the average of squares.
    """

    def make(x: Any) -> Optimizer:
        optimizer = RMSprop(x, lr=step_size, alpha=gamma, eps=eps)
        for entry in optimizer.state.values():
            entry["square_avg"].fill(1.0)
        return optimizer

    return _run(make, 1.0, grad, x0, callback, num_iters)


def sgd(
    grad: Gradient,
    x0: Any,
    callback: Callback | None = None,
    num_iters: int = 200,
    step_size: float = 0.1,
    mass: float = 0.9,
) -> Any:
    """SGD with momentum as `autograd.misc.optimizers.sgd`, each gradient weighted by 1 - mass; see `adam`.

    Args:
        mass: decay of the velocity, an average of the gradients.
    """
    make = partial(SGD, lr=step_size, momentum=mass)
    return _run(make, 1.0 - mass, grad, x0, callback, num_iters)


def optimize(
    optimizer: str | type[Optimizer],
    grad: Gradient,
    x0: Any,
    callback: Callback | None = None,
    num_iters: int = 100,
    **hyperparameters: Any,
) -> Any:
    """The same with any of fastgd's optimizers, by name or class, with its own hyperparameters.

    Example:
        >>> import autograd.numpy as np
        >>> from autograd import grad
        >>> from fastgd.adapters.autograd import optimize
        >>> square = grad(lambda x, i: np.sum((x - 3.0) ** 2))
        >>> x = optimize("rprop", square, np.zeros(2), num_iters=50)
        >>> bool(np.allclose(x, 3.0, atol=1e-3))
        True
    """
    make = partial(find(optimizer), **hyperparameters)
    return _run(make, 1.0, grad, x0, callback, num_iters)


def _run(
    make: Callable[[Any], Optimizer],
    scale: float,
    grad: Gradient,
    x0: Any,
    callback: Callback | None,
    num_iters: int,
) -> Any:
    """The loop over a copy of x0: a tree of arrays as it is, else one vector."""
    x: Any
    view: Callable[[Any], Any] = _itself  # of x as the caller has it
    flat: Callable[[Any], Any] = _itself  # what the caller returns, as x is
    if all(_is_floating(leaf) for _, leaf in leaves_of(x0)[0]):
        x = rebuild(x0, _copied)
    else:
        vector, view = flatten(x0)
        x, flat = np.array(vector, np.float64), _vector
    optimizer = make(x)
    params = list(optimizer.params.values())
    for i in range(num_iters):
        g = grad(view(x), i)
        if callback is not None:
            callback(view(rebuild(x, np.copy)), i, g)
        optimizer.step(_apart(flat(g), params), scale)
    optimizer.eval()  # of one that averages, the average
    return view(x)


def _itself(x: Any) -> Any:
    return x


def _copied(array: Any) -> Any:
    return place(np.ascontiguousarray(array))  # whatever view it was of


def _vector(tree: Any) -> Any:
    return flatten(tree)[0]


def _is_floating(leaf: Any) -> bool:
    return type(leaf) is np.ndarray and leaf.dtype in (np.float32, np.float64) and leaf.size > 0


def _apart(grads: Any, params: list[Any]) -> Any:
    """The gradients; what lies in a parameter's own memory, which the step would change, copied."""
    arrays = [leaf for _, leaf in leaves_of(grads)[0]]
    if len(arrays) != len(params):
        return grads  # the step says what is wrong with them
    if not any(map(np.may_share_memory, arrays, params)):
        return grads
    return rebuild(grads, np.array)
