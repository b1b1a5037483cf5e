"""The contestants: one function for each library, which returns its step over arrays of its own.

Each takes (case, threads) and raises Unavailable where the library is not installed or has no such
optimizer. Libraries are given their best: fused and foreach kernels, compiled steps with donated
buffers, gradients already in their own kind of array.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

import fastgd
from bench.steps.bound import Bound
from bench.steps.numpy_rules import Stepper
from bench.steps.timing import Contestant
from bench.steps.workloads import LR, Array, Case

Factory = Callable[[Case, int], Contestant]
SINGLE_THREADED = "one thread whatever is asked for"


class Unavailable(Exception):
    """Why a contestant does not take part."""


def require(module: str) -> Any:
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        raise Unavailable("not installed")
    return importlib.import_module(module)


def fastgd_step(case: Case, threads: int) -> Contestant:
    fastgd.set_num_threads(threads)
    params, grads = case.make()
    optimizer = getattr(fastgd, case.rule.optimizer)(
        params, lr=LR, clip_norm=case.max_norm if case.clip else None, **case.rule.options
    )
    return Contestant(functools.partial(optimizer.step, grads), lambda: params)


def torch_step(case: Case, threads: int, *, kind: str) -> Contestant:
    torch = require("torch")
    if case.rule.optimizer == "RMSprop" and kind == "fused":
        raise Unavailable("torch has no fused RMSprop")
    if case.rule.optimizer != "RMSprop" and kind == "loop":
        raise Unavailable("run only where there is no fused kernel")
    torch.set_num_threads(threads)
    params, grads = case.make()
    tensors = [torch.from_numpy(p).requires_grad_() for p in params]
    for tensor, grad in zip(tensors, grads, strict=True):
        tensor.grad = torch.from_numpy(grad)
    how = {"fused": {"fused": True}, "foreach": {"foreach": True}, "loop": {"foreach": False}}[kind]
    optimizer = getattr(torch.optim, case.rule.optimizer)(
        tensors, lr=LR, **how, **case.rule.options
    )
    if not case.clip:
        return Contestant(optimizer.step, lambda: params)
    clip = functools.partial(torch.nn.utils.clip_grad_norm_, tensors, case.max_norm)

    def clip_and_step() -> None:
        clip()
        optimizer.step()

    return Contestant(clip_and_step, lambda: params)


def optax_transform(optax: Any, case: Case) -> Any:
    """Hyperparameters and formulas are torch's; epsilon inside the root is as good as outside."""
    transform = {
        "SGD": lambda: optax.sgd(LR),
        "SGD momentum": lambda: optax.sgd(LR, momentum=0.9),
        "Adam": lambda: optax.adam(LR),
        "AdamW": lambda: optax.adamw(LR, weight_decay=1e-2),
        "Adagrad": lambda: optax.adagrad(LR, initial_accumulator_value=0.0, eps=1e-10),
        "RMSprop": lambda: optax.rmsprop(LR, decay=0.99, eps=1e-16),
    }[case.rule.name]()
    return (
        optax.chain(optax.clip_by_global_norm(case.max_norm), transform) if case.clip else transform
    )


def optax_step(case: Case, threads: int) -> Contestant:
    jax, optax = require("jax"), require("optax")
    params, grads = ([jax.numpy.array(a) for a in arrays] for arrays in case.make())
    transform = optax_transform(optax, case)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Any, state: Any, grads: Any) -> Any:
        updates, state = transform.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    now = [params, transform.init(params)]

    def step() -> None:
        now[:] = update(now[0], now[1], grads)

    return Contestant(
        step,
        lambda: [np.asarray(p) for p in now[0]],
        finish=lambda: jax.block_until_ready(now),
        note="waited for at the end of a block, not after each step",
    )


def thinc_step(case: Case, threads: int) -> Contestant:
    optimizers = require("thinc.optimizers")
    if case.clip and case.count > 1:
        raise Unavailable("thinc clips the norm of each array by itself")
    common = {"grad_clip": case.max_norm if case.clip else 0.0, "use_averages": False}
    made = {
        "SGD": lambda: optimizers.SGD(LR, **common),
        "Adam": lambda: optimizers.Adam(LR, L2=0.0, **common),
        "AdamW": lambda: optimizers.Adam(LR, L2=1e-2, L2_is_weight_decay=True, **common),
    }
    if case.rule.name not in made:
        raise Unavailable(f"thinc has no {case.rule.name}")
    optimizer = made[case.rule.name]()
    params, grads = case.make()
    originals = [g.copy() for g in grads]
    keyed = [((i, "W"), p, g) for i, (p, g) in enumerate(zip(params, grads, strict=True))]

    def step() -> None:
        for key, p, g in keyed:
            optimizer(key, p, g)
        optimizer.step_schedules()

    def refill() -> None:
        for g, original in zip(grads, originals, strict=True):
            g[...] = original

    note = f"{SINGLE_THREADED}; it zeroes the gradients, which are put back before each block"
    return Contestant(step, lambda: params, prepare=refill, note=note)


def sklearn_step(case: Case, threads: int) -> Contestant:
    if case.clip:
        raise Unavailable("scikit-learn does not clip")
    optimizers = require("sklearn.neural_network._stochastic_optimizers")
    params, grads = case.make()
    made = {
        "SGD": lambda: optimizers.SGDOptimizer(params, LR, momentum=0.0, nesterov=False),
        "SGD momentum": lambda: optimizers.SGDOptimizer(params, LR, momentum=0.9, nesterov=False),
        "Adam": lambda: optimizers.AdamOptimizer(params, LR),
    }
    if case.rule.name not in made:
        raise Unavailable(f"scikit-learn has no {case.rule.name}")
    optimizer = made[case.rule.name]()
    step = functools.partial(optimizer.update_params, params, grads)
    return Contestant(step, lambda: params, note=SINGLE_THREADED)


def numpy_step(case: Case, threads: int) -> Contestant:
    params, grads = case.make()
    max_norm = case.max_norm if case.clip else None
    stepper = Stepper(case.rule.name, params, grads, case.rule.state, max_norm)
    return Contestant(stepper.step, lambda: params, note=SINGLE_THREADED)


def deepspeed_step(case: Case, threads: int) -> Contestant:
    raise Unavailable("it could not be installed where this was written")


def bound_step(case: Case, threads: int) -> Contestant:
    elements = case.count * case.size
    bound = Bound(elements, case.rule.state, case.clip, threads)

    def written() -> list[Array]:
        return bound.streams[1:]

    return Contestant(params=written, run=bound.run)


FASTGD, BOUND = "fastgd", "bound"
PEERS: dict[str, Factory] = {
    "torch fused": functools.partial(torch_step, kind="fused"),
    "torch foreach": functools.partial(torch_step, kind="foreach"),
    "torch loop": functools.partial(torch_step, kind="loop"),
    "DeepSpeed": deepspeed_step,
    "optax jit": optax_step,
    "thinc": thinc_step,
    "scikit-learn": sklearn_step,
    "NumPy": numpy_step,
}
CONTESTANTS: dict[str, Factory] = {BOUND: bound_step, FASTGD: fastgd_step, **PEERS}
