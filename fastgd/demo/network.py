"""The network of the demo: a multi-layer perceptron and its gradients, in plain NumPy.

With layers l = 1 … n, each a dict of weights W_l, shape (inputs, outputs), and biases b_l, and with
one sample per row of h_0 = images:

    z_l = h_(l-1) W_l + b_l,   h_l = max(z_l, 0),   p = softmax(z_n)
    loss = mean over the samples of -log p[label]

Backwards, with δ_n = (p - onehot(label)) / samples, the derivative of the loss by z_n:

    ∂loss/∂W_l = h_(l-1)ᵀ δ_l,   ∂loss/∂b_l = Σ δ_l over the samples,
    δ_(l-1) = (δ_l W_lᵀ) where h_(l-1) > 0, else 0
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgd import initializers

Array: TypeAlias = NDArray[Any]
Params: TypeAlias = list[dict[str, Array]]

ROWS_AT_ONCE = 2048  # rows per pass of `evaluate`, which bounds its memory


def make_params(sizes: Sequence[int], rng: np.random.Generator) -> Params:
    """Draw the parameters of a network with layers of these sizes, inputs first.

    Returns:
        One {"W": float32 (inputs, outputs), "b": float32 (outputs,)} per layer: weights from He et
        al.'s initialization, biases zero.
    """
    return [
        {
            "W": initializers.he_normal((inputs, outputs), seed=rng),
            "b": np.zeros(outputs, np.float32),
        }
        for inputs, outputs in pairwise(sizes)
    ]


def value_and_grad(params: Params, images: Array, labels: Array) -> tuple[float, Params]:
    """Return the mean loss over a batch and its gradients by all parameters.

    Args:
        params: as from `make_params`, float32 or float64.
        images: shape (samples, inputs), of the same dtype.
        labels: integers, shape (samples,).

    Returns:
        The loss, and new arrays of the structure and the shapes of params.
    """
    signals = _forward(params, images)
    log_p = _log_softmax(signals[-1])
    picked = np.arange(len(labels)), labels
    loss = -float(log_p[picked].mean())
    delta = np.exp(log_p)
    delta[picked] -= 1
    delta /= len(labels)
    grads: Params = []
    for layer, h in zip(reversed(params), reversed(signals[:-1]), strict=True):
        grads.append({"W": h.T @ delta, "b": delta.sum(axis=0)})
        if h is not images:  # which need no gradient
            delta = (delta @ layer["W"].T) * (h > 0)
    return loss, grads[::-1]


def evaluate(params: Params, images: Array, labels: Array) -> tuple[float, float]:
    """Return the mean loss over all the samples, and the share of them that is classified right."""
    loss, right = 0.0, 0
    for start in range(0, len(labels), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        z, y = _forward(params, images[rows])[-1], labels[rows]
        loss -= float(_log_softmax(z)[np.arange(len(y)), y].sum(dtype=np.float64))
        right += int((z.argmax(axis=1) == y).sum())
    return loss / len(labels), right / len(labels)


def _forward(params: Params, images: Array) -> list[Array]:
    """The signals h_0, …, h_(n-1), and z_n."""
    signals = [images]
    for i, layer in enumerate(params, 1):
        z = signals[-1] @ layer["W"]
        z += layer["b"]
        signals.append(z if i == len(params) else np.maximum(z, 0, out=z))
    return signals


def _log_softmax(z: Array) -> Array:
    """Logarithms of the probabilities, shifted by the largest so that exp cannot overflow."""
    shifted: Array = z - z.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted
