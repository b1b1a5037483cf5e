"""What one rank refuses all refuse, and nothing has changed then."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd.distributed import DataParallel, RankError, Sharded, shared
from tests.distributed.common import (
    COMM,
    RANK,
    RANKS,
    TIMEOUT,
    assert_equal_everywhere,
    normal,
    ways,
)

LAST = RANKS - 1


def refused(
    kind: type[Exception], words: str, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> None:
    """The error, on every rank one of its own."""
    with pytest.raises(kind, match=re.escape(words)):
        function(*args, **kwargs)


def at_last(special: Any, usual: Any) -> Any:
    return special if RANK == LAST else usual


def gradients() -> None:
    """A gradient of the wrong shape, a hidden dtype, a wrong structure, on one rank."""
    good = {"W": normal(3 + RANK, 40, 3), "b": normal(4, 3)}
    wrongs: list[tuple[Any, type[Exception], str]] = [
        ({"W": normal(3, 3, 40), "b": good["b"]}, ValueError, "gradient 'W' has shape (3, 40)"),
        ({"W": good["W"].astype(int), "b": good["b"]}, TypeError, "gradient 'W' has dtype"),
        ({"W": good["W"]}, ValueError, "structure"),
        ({"W": fastgd.Rows([40], normal(1, 1, 3)), "b": None}, ValueError, "has row 40"),
    ]
    for way, opt in ways("adam", {"W": normal(1, 40, 3), "b": normal(2, 3)}, lr=0.1):
        opt.step(good)
        before = {name: array.copy() for name, array in opt.params.items()}
        for wrong, kind, words in wrongs:
            if RANK == LAST:
                refused(kind, words, opt.step, wrong)
            else:
                refused(RankError, f"rank {LAST}: {kind.__name__}", opt.step, good)
            assert opt.step_count == 1
            for name, array in opt.params.items():
                assert (array == before[name]).all(), way
        if RANKS > 1:
            refused(RankError, "grad_scale of rank", opt.step, good, at_last(2.0, 1.0))
            opt.param_groups[0]["lr"] = at_last(0.2, 0.1)
            refused(RankError, "the hyperparameters of rank", opt.step, good)
            opt.param_groups[0]["lr"] = 0.1
        assert opt.step(good)
        assert_equal_everywhere(opt)


def not_finite() -> None:
    """A NaN on one rank is one on all."""
    bad = normal(1, 5000)
    bad[-1] = at_last(np.nan, 0.0)
    for way, opt in ways("adam", normal(2, 5000), nonfinite="skip", lr=0.1):
        assert opt.step(bad) is False, way
        assert opt.step_count == 0
        assert opt.step(np.zeros(5000, np.float32))
    for way, opt in ways("adam", normal(2, 5000), nonfinite="raise", lr=0.1):
        refused(FloatingPointError, "gradient 'params' has a NaN", opt.step, bad)
        assert (opt.params["params"] == normal(2, 5000)).all(), way


def losses() -> None:
    for _, opt in ways("polyaksgd", normal(2, 50)):
        refused(TypeError, "step needs the loss", opt.step, normal(1, 50))


def construction() -> None:
    """Ranks that are not alike."""
    common: dict[str, Any] = {"comm": COMM, "timeout": TIMEOUT}

    def sharded(params: Any, kind: Any = "adam", **kwargs: Any) -> Any:
        return Sharded(kind, params, **common, **kwargs)

    def parallel(params: Any, kind: Any = "adam", **kwargs: Any) -> Any:
        return DataParallel(fastgd.optimizers.find(kind)(params, **kwargs), **common)

    for make in (sharded, parallel):
        if RANKS > 1:
            shape = at_last((3, 2), (2, 3))
            refused(RankError, f"the parameters of rank {LAST}", make, np.zeros(shape))
            name = at_last("a", "b")
            refused(RankError, f"the parameters of rank {LAST}", make, {name: np.zeros(2)})
            dtype = at_last(np.float32, np.float64)
            refused(RankError, "<f4", make, np.zeros(2, dtype))
            refused(RankError, "the hyperparameters", make, np.zeros(2), lr=at_last(0.1, 0.2))
            refused(RankError, "the optimizer", make, np.zeros(2), at_last("sgd", "adam"))
        opt = make(np.full(7, RANK + 1.0))
        assert (opt.params["params"] == 1).all(), "parameters are rank 0's at first"
        opt.close()
    if RANKS > 1:
        opt = fastgd.Adam(np.zeros(3))
        if RANK == LAST:
            opt.step(np.ones(3))
        refused(RankError, "the step count of rank", DataParallel, opt, **common)
        refused(RankError, "the parameters", shared, np.zeros(at_last(3, 2)), COMM)
    refused(TypeError, "must be an mpi4py communicator", shared, np.zeros(2), "world")
    refused(TypeError, "needs an optimizer", DataParallel, fastgd.Adam, COMM)
    refused(ValueError, "grad_dtype", sharded, np.zeros(2), grad_dtype="float8")
    refused(ValueError, "lr", sharded, np.zeros(2), lr=-1.0)
    refused(TypeError, "dtype", sharded, np.zeros(2, int))
    refused(TypeError, "parameter", shared, {"W": [1.0, "a"]}, COMM)


def handing_over() -> None:
    ones = {"a": np.ones(3), "b": np.ones(2)}
    for way, opt in ways("sgd", {"a": np.zeros(3), "b": np.zeros(2)}, lr=1.0):
        refused(ValueError, "there is no parameter 'c'", opt.ready, "c", np.ones(3))
        refused(ValueError, "gradient 'a' has shape", opt.ready, "a", np.ones(2))
        opt.ready("a", ones["a"])
        refused(ValueError, "handed over already", opt.ready, "a", ones["a"])
        refused(ValueError, "handed over by ready()", opt.accumulate, ones)
        both = {"a": ones["a"], "b": None}
        refused(ValueError, "handed over by ready() already", opt.step, both)
        assert opt.step_count == 0
        for name in ("b", "a"):
            opt.ready(name, ones[name])
        assert opt.step(), way
        assert all((array == -1).all() for array in opt.params.values()), way


def main() -> None:
    gradients()
    not_finite()
    losses()
    construction()
    handing_over()
    if RANK == 0:
        print("all refused")


main()
