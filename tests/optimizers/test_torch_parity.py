"""The same numbers as torch.optim, over 50 steps, for every case that PyTorch has.

Budget. Both sides round in the parameter's dtype, at different places, torch without fma. With
eps = 2^-23 or 2^-52 and gradients that do not depend on the parameters, one step adds at most
- half an ulp of p on either side: eps |p|;
- the roundings of the update u, about a dozen on both sides together, relative to its terms
  before they cancel. Where a moment cancels, its error is relative to the largest gradient, not
  to itself; with normal gradients this costs a factor of a few: 24 eps max |u|.
So after n steps |p - p_torch| <= n eps (max |p| + 24 max |u|), the maxima over the array and the
path. Weight decay and momentum feed errors back; both contract. A state slot is compared with
n eps 4 max |slot|. A wrong formula or coefficient is off by 10^3 of these or more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cases import CASES, Case
from tests.fma import Array
from tests.reference import COMMON, SPECS, Reference, at_step
from tests.support import engine_multiply_add, optimizer, tame

STEPS = 50
SHAPES = [(40, 13), (257,), (1,)]

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("numbers_in_double")


TORCH_CASES = [case for case in CASES if case.in_torch]


def torch_hyper(case: Case, step: int) -> dict[str, Any]:
    """The case's hyperparameters as PyTorch takes them at this step."""
    hyper = at_step({**case.spec.defaults, **case.kwargs}, step)
    return {name: value for name, value in hyper.items() if not is_ours(case, name)}


def is_ours(case: Case, name: str) -> bool:
    return name in case.spec.hyper and case.spec.hyper[name].ours


class Torch:
    """torch.optim over copies of `starts`."""

    def __init__(self, case: Case, starts: list[Array]) -> None:
        self.case = case
        self.params = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in starts]
        made = getattr(torch.optim, str(case.spec.torch))
        self.optimizer = made(self.params, foreach=False, **torch_hyper(case, 0))

    def step(self, grads: list[Array], step: int) -> None:
        hyper = torch_hyper(self.case, step)
        for name, h in self.case.spec.hyper.items():
            if h.once:
                hyper.pop(name)
        self.optimizer.param_groups[0].update(hyper)
        for p, g in zip(self.params, grads, strict=True):
            p.grad = torch.from_numpy(g.copy())
        self.optimizer.step()

    def arrays(self) -> list[Array]:
        return [p.detach().numpy() for p in self.params]

    def slot(self, i: int, name: str) -> Array:
        array: Array = self.optimizer.state[self.params[i]][name].numpy()
        return array


def largest(*arrays: Array) -> float:
    return max(float(np.abs(x).max()) for x in arrays)


def check_close(
    ours: list[Array], theirs: list[Array], before: list[Array], scale: dict[str, float], n: int
) -> None:
    """The budget above; `scale` keeps the largest parameter and update seen so far."""
    eps = float(np.finfo(ours[0].dtype).eps)
    scale["p"] = max(scale["p"], largest(*theirs))
    updates = [b - a for a, b in zip(before, theirs, strict=True)]
    scale["u"] = max(scale["u"], largest(*updates))
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(a - b).max() <= n * eps * (scale["p"] + 24 * scale["u"]), f"step {n}"


@pytest.mark.parametrize("case", TORCH_CASES, ids=str)
def test_engine(case: Case, dtype: type[np.floating], rng: np.random.Generator) -> None:
    params = [tame(rng, shape, dtype) for shape in SHAPES]
    theirs = Torch(case, params)
    opt = optimizer(case.optimizer, params, **case.kwargs)
    scale = {"p": largest(*params), "u": 0.0}
    for step in range(STEPS):
        grads = [tame(rng, shape, dtype) for shape in SHAPES]
        before = [p.copy() for p in theirs.arrays()]
        opt.step(grads)
        theirs.step(grads, step)
        check_close(params, theirs.arrays(), before, scale, step + 1)
    eps = float(np.finfo(dtype).eps)
    for i in range(len(params)):
        for slot in case.slots:
            ours, expected = opt.state[str(i)][slot], theirs.slot(i, slot)
            bound = STEPS * eps * 4 * largest(expected)
            assert np.abs(ours - expected).max() <= bound, slot


@pytest.mark.parametrize("case", TORCH_CASES, ids=str)
def test_reference(case: Case, dtype: type[np.floating], rng: np.random.Generator) -> None:
    """The oracle itself, independently of the engine."""
    starts = [tame(rng, shape, dtype) for shape in SHAPES]
    theirs = Torch(case, starts)
    names = [str(i) for i in range(len(starts))]
    ref = Reference(
        case.optimizer,
        dict(zip(names, starts, strict=True)),
        multiply_add=engine_multiply_add(),
        **case.kwargs,
    )
    scale = {"p": largest(*starts), "u": 0.0}
    for step in range(STEPS):
        grads = [tame(rng, shape, dtype) for shape in SHAPES]
        before = [p.copy() for p in theirs.arrays()]
        ref.step(dict(zip(names, grads, strict=True)))
        theirs.step(grads, step)
        check_close(list(ref.params.values()), theirs.arrays(), before, scale, step + 1)


def test_defaults_are_pytorchs() -> None:
    """Every default that both have is the same."""
    for name, spec in SPECS.items():
        if spec.torch is None:
            continue
        theirs = getattr(torch.optim, spec.torch)([torch.nn.Parameter(torch.zeros(1, 1))]).defaults
        for key, value in {**spec.defaults, "maximize": COMMON["maximize"]}.items():
            if key in theirs and (key not in spec.hyper or not spec.hyper[key].ours):
                assert theirs[key] == value, f"{name} {key}"


def test_none_gradients_freeze_as_in_pytorch(
    dtype: type[np.floating], rng: np.random.Generator
) -> None:
    """A skipped array keeps its own step count, which Adam's bias corrections use."""
    params = [tame(rng, 50, dtype), tame(rng, 50, dtype)]
    theirs = Torch(Case("Adam", "Adam", {"lr": 0.02}), params)
    opt = optimizer("Adam", params, lr=0.02)
    scale = {"p": largest(*params), "u": 0.0}
    for step in range(STEPS):
        grads: list[Any] = [tame(rng, 50, dtype), tame(rng, 50, dtype) if step % 3 else None]
        before = [p.copy() for p in theirs.arrays()]
        opt.step(grads)
        for p, g in zip(theirs.params, grads, strict=True):
            p.grad = None if g is None else torch.from_numpy(g.copy())
        theirs.optimizer.step()
        check_close(params, theirs.arrays(), before, scale, step + 1)
    assert [opt.state[str(i)]["step"] for i in range(2)] == [50, 33]
