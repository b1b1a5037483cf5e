"""State in fewer bits: the bits of every step, what it can be told to do, and what it costs a training."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd._arrays import formats
from tests import narrow
from tests.cases import CASES, Case
from tests.fma import Array
from tests.reference import Reference
from tests.support import assert_same_bits, engine_multiply_add, optimizer

FORMATS = ("bfloat16", "8bit")
SIZES = (1, 255, 257, 4095, 4096, 4097, 9000)


def takes(name: str, state_dtype: str, **kwargs: Any) -> bool:
    """Whether an optimizer has state that can be stored so."""
    try:
        opt = optimizer(name, np.ones(4096, np.float32), state_dtype=state_dtype, **kwargs)
    except ValueError as error:
        assert "state_dtype" in str(error)
        return False
    return any(isinstance(x, np.ndarray) for x in opt.state["params"].values())


NARROW_CASES = [
    (case, state_dtype)
    for case in CASES
    for state_dtype in FORMATS
    # What looks at whole arrays sees its state rounded between two sweeps.
    if not case.whole and takes(case.optimizer, state_dtype, **case.kwargs)
]


@pytest.mark.parametrize(("case", "state_dtype"), NARROW_CASES, ids=str)
def test_the_bits_of_every_step(case: Case, state_dtype: str, rng: np.random.Generator) -> None:
    """Decoded, updated by the rule as it is, and rounded as src_c/narrow.h says."""
    params = {str(n): rng.standard_normal(n).astype(np.float32) for n in SIZES}
    opt = optimizer(case.optimizer, params, state_dtype=state_dtype, **case.kwargs)
    ref = Reference(case.optimizer, params, multiply_add=engine_multiply_add(), **case.kwargs)
    kind = type(opt)
    for name, state in opt.state.items():  # what it begins with is rounded too
        arrays = {slot: x.copy() for slot, x in state.items() if isinstance(x, np.ndarray)}
        ref.state[name].update(formats.decoded(arrays, kind.kinds, int(name)))
    for step in range(5):
        scale = 10.0 ** rng.uniform(-3, 1)
        grads = {
            name: (scale * rng.standard_normal(p.size)).astype(np.float32)
            * (rng.random(p.size) < 0.9).astype(np.float32)
            for name, p in params.items()
        }
        opt.step(grads, loss=1.0)
        ref.step(grads, norm=opt.grad_norm, loss=1.0)
        for i, name in enumerate(params):
            assert_same_bits(params[name], ref.params[name], f"{name} after step {step}")
            arrays = {k: x for k, x in ref.state[name].items() if np.shape(x) == (int(name),)}
            now = narrow.stored(
                arrays, kind.kinds, kind.declaration.state, state_dtype, i, step
            )
            for slot, expected in now.items():
                where = f"{slot} of {name} after step {step}"
                np.testing.assert_array_equal(opt.state[name][slot], expected, where)
            ref.state[name].update(formats.decoded(now, kind.kinds, int(name)))
