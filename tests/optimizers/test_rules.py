"""Every case against the NumPy reference: many steps, both dtypes, sizes at every boundary.

Budget: 0 ulp. The rules are documented down to each rounding (one for an fma, none elsewhere is
fused), division and square root are correctly rounded everywhere, and the reference emulates the
fma exactly, so the bits must be equal. A tolerance would have to be wide where differences cancel
(g - m, the centred variance), exactly where a wrong formula would hide.
Coefficients are Python floats evaluated as the documentation writes them (1 / sqrt(1 - beta2^t)).
The one quantity that is not specified to the bit is the global norm, whose order of summation is
the engine's: it is compared with an exact sum, and then given to the reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastgd
from tests.cases import CASES, Case
from tests.fma import Array, fused, rounded_twice
from tests.reference import Reference, global_norm
from tests.support import (
    assert_matches,
    assert_same_bits,
    assert_same_state,
    engine_multiply_add,
    optimizer,
    wide,
)

STEPS = 20
CHUNK: int = fastgd._engine.chunk
SIZES = (
    *(0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 1000),
    *(CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 17),
)
# The data of every array repeats with this period, prime to every vector width, so that the
# reference has little to compute and an element written to the wrong place still shows.
PERIOD = 1009


def relative_norm_bound(count: int) -> float:
    """Each square, each addition and the root rounded once in double, all errors adding up."""
    return (count + 3) * 2.0**-53


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_size(case: Case, dtype: type[np.floating], rng: np.random.Generator) -> None:
    start = wide(rng, PERIOD, dtype)
    params = {str(n): np.resize(start, n) for n in SIZES}
    opt = optimizer(case.optimizer, params, **case.kwargs)
    starts = params if case.whole else {"p": start}
    ref = Reference(case.optimizer, starts, multiply_add=engine_multiply_add(), **case.kwargs)

    def expected(of: Any, name: str, p: Array) -> Any:
        """The reference's of an array; of one period where the rest of the array does not matter."""
        value = of[name if case.whole else "p"]
        return np.resize(value, p.size) if isinstance(value, np.ndarray) else value

    ulps = 0
    for step in range(STEPS):
        g = wide(rng, PERIOD, dtype)
        grads = {name: np.resize(g, p.size) for name, p in params.items()}
        assert opt.step(grads) is True
        if case.clips_norm:
            exact = global_norm(list(grads.values()))
            assert abs(opt.grad_norm / exact - 1) <= relative_norm_bound(sum(SIZES))
        ref.step(grads if case.whole else {"p": g}, norm=opt.grad_norm)
        ulps += case.ulps
        for name, p in params.items():
            assert_matches(p, expected(ref.params, name, p), ulps, f"step {step} size {name}")
    assert opt.step_count == STEPS
    state = {
        name: {
            slot: expected({key: kept[slot] for key, kept in ref.state.items()}, name, p)
            for slot in next(iter(ref.state.values()))
        }
        for name, p in params.items()
    }
    assert_same_state(opt, dict.fromkeys(params, STEPS), state, ulps=ulps)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_state_before_the_first_step(case: Case, dtype: type[np.floating]) -> None:
    params = {"a": np.ones((2, 3), dtype), "b": np.ones(0, dtype)}
    opt = optimizer(case.optimizer, params, **case.kwargs)
    expected = Reference(case.optimizer, params, **case.kwargs).state
    assert_same_state(opt, {"a": 0, "b": 0}, expected)
    assert opt.step_count == 0


@pytest.mark.parametrize("case", [c for c in CASES if c.elementwise], ids=str)
def test_extreme_magnitudes(case: Case, dtype: type[np.floating], rng: np.random.Generator) -> None:
    """Squares that underflow to subnormals and to zero, or that overflow; signed zeros."""
    info = np.finfo(dtype)
    exponents = np.linspace(info.minexp - info.nmant, info.maxexp - 1, 257)
    start = np.tile(wide(rng, 257, dtype), 2)
    gradient = np.concatenate([np.exp2(exponents), -np.exp2(exponents)]).astype(dtype)
    p = start.copy()
    opt = optimizer(case.optimizer, p, **case.kwargs)
    ref = Reference(case.optimizer, {"p": start}, multiply_add=engine_multiply_add(), **case.kwargs)
    for step in range(3):
        g = np.roll(gradient, 40 * step)
        opt.step(g)
        ref.step({"p": g})
        assert_same_bits(p, ref.params["p"], f"step {step}")
    assert_same_state(opt, {"params": 3}, {"params": ref.state["p"]})


@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 3), (5, 1, 7), (2, 3, 4), (2, 1, 3, 2, 2)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_shapes(
    shape: tuple[int, ...], order: str, dtype: type[np.floating], rng: np.random.Generator
) -> None:
    start = wide(rng, shape, dtype)
    p: Array = np.array(start, order="C" if order == "C" else "F")
    opt = optimizer("Adam", p)
    ref = Reference("Adam", {"p": start}, multiply_add=engine_multiply_add())
    for _ in range(3):
        g = wide(rng, shape, dtype)
        opt.step(g)
        ref.step({"p": g})
    assert_same_bits(p, ref.params["p"])
    assert_same_state(opt, {"params": 3}, {"params": ref.state["p"]})


def test_builds_fuse_as_documented() -> None:
    documented = {"x86-64-v2": rounded_twice, "x86-64-v3": fused, "x86-64-v4": fused}
    isa: str = fastgd._engine.isa
    assert engine_multiply_add() is documented.get(isa, engine_multiply_add())
