"""Norms and clipping: inside the step, and by themselves.

    python -m pytest bench/steps/bench_norm.py -k "AdamW and 100x1k"

See bench_step.py for what these figures are good for.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastgd
from bench.steps.peers import CONTESTANTS
from bench.steps.workloads import RULES, SHAPES, Array, Case, templates


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_clipped_step(
    time_step: Callable[[Case, str], None], shape: str, rule: str, name: str
) -> None:
    time_step(Case(RULES[rule], shape, clip=True), name)


def fastgd_norm(grads: list[Array]) -> Callable[[], Any]:
    return lambda: fastgd.global_norm(grads)


def numpy_norm(grads: list[Array]) -> Callable[[], Any]:
    return lambda: math.sqrt(sum(float(np.dot(g, g)) for g in grads))


def torch_norm(grads: list[Array]) -> Callable[[], Any]:
    torch = pytest.importorskip("torch")
    tensors = [torch.from_numpy(g) for g in grads]
    return lambda: torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors))).item()


def optax_norm(grads: list[Array]) -> Callable[[], Any]:
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    tree_norm = optax.tree.norm if hasattr(optax, "tree") else optax.global_norm
    norm, arrays = jax.jit(tree_norm), [jax.numpy.array(g) for g in grads]
    return lambda: float(norm(arrays))


def fastgd_clip(grads: list[Array]) -> Callable[[float], Any]:
    return lambda limit: fastgd.clip_grad_norm_(grads, limit)


def torch_clip(grads: list[Array]) -> Callable[[float], Any]:
    torch = pytest.importorskip("torch")
    tensors = [torch.from_numpy(np.zeros_like(g)).requires_grad_() for g in grads]
    for tensor, grad in zip(tensors, grads, strict=True):
        tensor.grad = torch.from_numpy(grad)
    return lambda limit: torch.nn.utils.clip_grad_norm_(tensors, limit)


NORMS = {"fastgd": fastgd_norm, "NumPy": numpy_norm, "torch": torch_norm, "optax jit": optax_norm}
CLIPS = {"fastgd": fastgd_clip, "torch": torch_clip}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_global_norm(benchmark: Any, shape: str, name: str) -> None:
    _, grads = templates(*SHAPES[shape])
    benchmark.group = f"global norm {shape}"
    norm = NORMS[name](grads)
    assert norm() == pytest.approx(fastgd.global_norm(grads), rel=1e-4)
    benchmark(norm)


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_clip_in_place(benchmark: Any, shape: str, name: str) -> None:
    """Each call has a lower limit than the last, so that each has gradients to multiply."""
    grads = [g.copy() for g in templates(*SHAPES[shape])[1]]
    clip, limits = CLIPS[name](grads), itertools.accumulate(itertools.repeat(0.9999), operator.mul)
    benchmark.group = f"clip_grad_norm_ {shape}"
    before = fastgd.global_norm(grads)
    clip(1e-3 * before)
    assert fastgd.global_norm(grads) == pytest.approx(1e-3 * before, rel=1e-3)
    benchmark(lambda: clip(1e-3 * before * next(limits)))
