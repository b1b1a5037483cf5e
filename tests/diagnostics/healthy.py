"""Families of runs that nothing is wrong with, see diagnosis_families.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import fastgd
from fastgd import schedules
from fastgd._arrays.tree import rebuild
from tests.diagnostics import problems as dp
from tests.diagnostics.runs import (
    CONVEX,
    NETWORKS,
    Family,
    Setup,
    a_deep_network,
    a_linear_regression,
    a_logistic_regression,
    a_network,
    a_regression_network,
    a_sequence_task,
    adam,
    against,
    between,
    none,
    pick,
    sgd,
    stable,
)


def healthy_descent(rng: np.random.Generator) -> Setup:
    """All samples at once, the learning rate a fair part of the largest stable one."""
    setup = pick(rng, *CONVEX, *NETWORKS)(rng)
    lr = stable(setup) * rng.uniform(0.15, 0.6)
    if rng.random() < 0.3:
        return replace(setup, optimizer=sgd(lr / 3, 0.9))
    return replace(setup, optimizer=sgd(lr))


def healthy_adam(rng: np.random.Generator) -> Setup:
    setup = pick(rng, *NETWORKS)(rng)
    batch = pick(rng, None, 32, 64)
    return replace(setup, optimizer=adam(between(rng, 2e-3, 1e-2)), batch_size=batch)


def healthy_minibatch(rng: np.random.Generator) -> Setup:
    """Noise that vanishes at the minimum, or is small."""
    setup = pick(rng, lambda r: a_linear_regression(r, 0.01), a_network, a_regression_network)(rng)
    lr = stable(setup) * rng.uniform(0.05, 0.2)
    return replace(setup, optimizer=sgd(lr), batch_size=pick(rng, 16, 32, 64))


def healthy_schedule(rng: np.random.Generator) -> Setup:
    """Noisy, but the learning rate falls."""
    setup = pick(rng, lambda r: a_linear_regression(r, 0.3), a_logistic_regression, a_network)(rng)
    lr = stable(setup) * rng.uniform(0.1, 0.3)
    schedule = schedules.cosine(
        lr, total_steps=setup.steps, warmup_steps=pick(rng, 0, setup.steps // 20)
    )
    return replace(setup, optimizer=sgd(schedule, pick(rng, 0.0, 0.5)), batch_size=32)


def healthy_validation(rng: np.random.Generator) -> Setup:
    """Enough samples for the model."""
    d = int(rng.integers(2, 6))
    if rng.random() < 0.5:
        data, f = dp.regression(rng, 800, d, 0.3, linear=True), dp.least_squares
    else:
        x, y = dp.classes(rng, 800, d, 2, 0.1)
        data, f = (x, 2.0 * y - 1), dp.logistic
    train, valid = (tuple(a[part] for a in data) for part in (slice(400), slice(400, None)))
    params = {"w": np.zeros(d), "b": np.zeros(1)}
    setup = Setup(f, params, none, train, validation=valid, steps=300)
    return replace(setup, optimizer=sgd(stable(setup) * rng.uniform(0.15, 0.4)))


def healthy_single(rng: np.random.Generator) -> Setup:
    """In float32, where losses have seven digits."""
    setup = pick(rng, a_network, a_regression_network, a_deep_network)(rng)
    lr = stable(setup) * rng.uniform(0.1, 0.4)
    opt, batch = pick(rng, (sgd(lr), None), (sgd(lr / 2, 0.5), 64), (adam(5e-3), 64))
    params = rebuild(setup.params, lambda a: a.astype(np.float32))
    x, y = setup.data
    y = y if y.dtype.kind == "i" else y.astype(np.float32)
    return replace(
        setup, params=params, data=(x.astype(np.float32), y), optimizer=opt, batch_size=batch
    )


def healthy_adaptive(rng: np.random.Generator) -> Setup:
    setup = pick(rng, a_logistic_regression, a_network, a_regression_network)(rng)
    lr = between(rng, 5e-3, 2e-2)
    opt = pick(
        rng,
        lambda params: fastgd.RMSprop(params, lr=lr),
        lambda params: fastgd.Adagrad(params, lr=10 * lr),
        lambda params: fastgd.AdamW(params, lr=lr),
        lambda params: fastgd.Adam(params, lr=lr, amsgrad=True, weight_decay=1e-4),
    )
    return replace(setup, optimizer=opt, batch_size=pick(rng, None, 64))


def healthy_offset(rng: np.random.Generator) -> Setup:
    """A loss with a constant added, so that it may be negative or hardly change in proportion."""
    setup = pick(rng, *CONVEX, *NETWORKS)(rng)
    offset, f = rng.uniform(-5, 5), setup.value_and_grad

    def value_and_grad(params: Any, *batch: Any) -> tuple[float, Any]:
        loss, grads = f(params, *batch)
        return loss + offset, grads

    lr = stable(setup) * rng.uniform(0.15, 0.5)
    return replace(setup, value_and_grad=value_and_grad, optimizer=sgd(lr))


def healthy_short(rng: np.random.Generator) -> Setup:
    setup = pick(rng, *CONVEX, *NETWORKS)(rng)
    steps = int(rng.integers(10, 60))
    return replace(setup, optimizer=sgd(stable(setup) * rng.uniform(0.3, 0.6)), steps=steps)


def healthy_long(rng: np.random.Generator) -> Setup:
    """Until nothing but rounding errors is left."""
    setup = pick(rng, *CONVEX)(rng)
    opt = pick(rng, sgd(stable(setup) * rng.uniform(0.2, 0.6)), adam(0.03))
    return replace(setup, optimizer=opt, steps=3000)


def healthy_clipped(rng: np.random.Generator) -> Setup:
    setup = pick(rng, a_sequence_task, a_deep_network)(rng)
    lr, clip = stable(setup) * rng.uniform(0.2, 0.4), between(rng, 0.3, 3)
    return replace(setup, optimizer=lambda p: fastgd.SGD(p, lr=lr, momentum=0.5, clip_norm=clip))


def healthy_noisy(rng: np.random.Generator) -> Setup:
    """Label noise, at ordinary batch sizes and small learning rates."""
    setup = pick(rng, a_logistic_regression, lambda r: a_network(r, 0.1))(rng)
    lr, rate = between(rng, 2e-3, 5e-3), stable(setup) * rng.uniform(0.02, 0.05)
    opt, better = pick(rng, (adam(lr), adam(5 * lr)), (sgd(rate), sgd(5 * rate)))
    setup = replace(setup, optimizer=better, steps=600)
    return against(setup, opt, batch_size=pick(rng, 32, 64))


HEALTHY: tuple[Family, ...] = (
    healthy_descent,
    healthy_adam,
    healthy_minibatch,
    healthy_schedule,
    healthy_validation,
    healthy_single,
    healthy_adaptive,
    healthy_offset,
    healthy_short,
    healthy_long,
    healthy_clipped,
    healthy_noisy,
)
