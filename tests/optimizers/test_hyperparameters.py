"""Signatures, defaults and ranges of the constructors; groups' values; schedules that go wrong."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import fastgd
from tests.cases import ALL_CASES, ERROR_CASES, ErrorCase
from tests.reference import COMMON, OPTIMIZERS, SPECS
from tests.support import assert_same_bits, optimizer


@pytest.mark.parametrize("name", SPECS)
def test_signature(name: str) -> None:
    parameters = list(inspect.signature(getattr(fastgd, name)).parameters.values())
    assert parameters[0].name == "params"
    documented = {**SPECS[name].defaults, **COMMON}
    assert [p.name for p in parameters[1:]] == list(documented)
    assert {p.name: p.default for p in parameters[1:]} == documented
    keyword_only = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    ours = {key for key, h in SPECS[name].hyper.items() if h.ours}
    assert keyword_only == ours | set(COMMON)


@pytest.mark.parametrize("name", SPECS)
def test_every_option_has_a_case(name: str) -> None:
    tried = {key for case in ALL_CASES if case.optimizer == name for key in case.kwargs}
    # nonfinite: test_options.py, state_dtype: test_formats.py, state_dir: test_files.py
    elsewhere = {"nonfinite", "state_dtype", "state_dir"}
    assert tried == set(SPECS[name].hyper) | set(COMMON) - elsewhere


def test_case_names_are_unique() -> None:
    for names in ([c.name for c in ALL_CASES], [c.name for c in ERROR_CASES]):
        assert len(names) == len(set(names))


@pytest.mark.parametrize("case", ERROR_CASES, ids=str)
def test_constructor_refuses(case: ErrorCase) -> None:
    p = np.ones((2, 2))
    with pytest.raises(case.exception) as caught:
        optimizer(case.optimizer, p, **case.kwargs)
    for pattern in case.matches:
        assert re.search(pattern, str(caught.value)), f"{caught.value} does not say {pattern}"
    np.testing.assert_array_equal(p, np.ones((2, 2)))


# What a group may override is everything but the options of the optimizer as a whole.
GROUP_ERRORS = [case for case in ERROR_CASES if not set(case.kwargs) & (set(COMMON) | {"rate"})]


@pytest.mark.parametrize("case", GROUP_ERRORS, ids=str)
def test_a_groups_own_value_is_refused(case: ErrorCase) -> None:
    p, q = np.ones((2, 2)), np.ones((3, 2))
    with pytest.raises(case.exception) as caught:
        optimizer(case.optimizer, [{"params": p}, {"params": q, **case.kwargs}])
    for pattern in case.matches:
        assert re.search(pattern, str(caught.value)), f"{caught.value} does not say {pattern}"


# One value; not one that is used once, when the state is made: PyTorch's param_groups hold it too, but
# setting it is moot.
SETTABLE = [
    case
    for case in GROUP_ERRORS
    if len(case.kwargs) == 1
    and not any(SPECS[case.optimizer].hyper[key].once for key in case.kwargs)
    and case not in SPECS[case.optimizer].errors
    and case.name not in {f"{case.optimizer}-{e.name}" for e in SPECS[case.optimizer].errors}
]


@pytest.mark.parametrize("case", SETTABLE, ids=str)
def test_setting_a_bad_value_is_refused_at_once(case: ErrorCase) -> None:
    p = np.ones((3, 1))
    kwargs = {"momentum": 0.5} if "momentum" in case.kwargs else {}
    opt = optimizer(case.optimizer, p, **kwargs)
    [(key, bad)] = case.kwargs.items()
    before = opt.param_groups[0][key]
    with pytest.raises(case.exception) as caught:
        opt.param_groups[0][key] = bad
    for pattern in case.matches:
        assert re.search(pattern, str(caught.value)), f"{caught.value} does not say {pattern}"
    assert opt.param_groups[0][key] == before
    assert opt.step(np.ones((3, 1)), loss=1.0) is True


@pytest.mark.parametrize("kind", [Fraction, Decimal, np.float32, np.float16, np.array])
def test_any_kind_of_number(kind: Any) -> None:
    """Each becomes a float at once; a pair's parts too."""
    opt = fastgd.Adam(np.ones(2), lr=kind(0.5), betas=(kind(0.5), 0), clip_norm=kind(0.5))
    group = opt.param_groups[0]
    for value in (group["lr"], *group["betas"], opt.clip_norm):
        assert type(value) is float
    assert (group["lr"], group["betas"], opt.clip_norm) == (0.5, (0.5, 0.0), 0.5)


def test_groups_are_compared_by_identity() -> None:
    opt = fastgd.SGD([{"params": np.ones(2)}, {"params": np.ones(2)}])
    first, second = opt.param_groups
    assert first == opt.param_groups[0]
    assert first != second
    assert first != dict(first)
    assert opt.param_groups.index(second) == 1
    assert {first: "first", second: "second"}[second] == "second"


def bad_at_three(bad: Any) -> Any:
    """A schedule whose fourth value is `bad`."""

    def schedule(step: int) -> Any:
        return bad if step == 3 else 0.1

    return schedule


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.5])
@pytest.mark.parametrize(
    ("key", "name"),
    [(key, n) for n in OPTIMIZERS for key in SPECS[n].having(lr=0, weight_decay=0)],
)
def test_a_schedule_that_goes_wrong_changes_nothing(name: str, key: str, bad: float) -> None:
    """Even though an earlier group's schedule is fine."""
    params = [np.ones(3), np.ones(3)]
    groups = [{"params": params[0]}, {"params": params[1], key: bad_at_three(bad)}]
    opt = optimizer(name, groups)
    grads = [np.ones(3), np.ones(3)]
    for _ in range(3):
        opt.step(grads)
    before = [p.copy() for p in params]
    state = opt.state_dict()["state"]
    with pytest.raises(ValueError, match=rf"\b{key}\b"):
        opt.step(grads)
    assert opt.step_count == 3
    for p, old in zip(params, before, strict=True):
        assert_same_bits(p, old)
    for array, slots in opt.state_dict()["state"].items():
        assert slots["step"] == state[array]["step"] == 3
        for slot in slots:
            np.testing.assert_array_equal(slots[slot], state[array][slot])


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@pytest.mark.parametrize("bad", [1.0, float("nan"), -0.5])
def test_a_beta_that_goes_wrong(name: str, bad: float) -> None:
    p = np.ones(3)
    opt = optimizer(name, p, betas=(0.9, bad_at_three(bad)))
    for _ in range(3):
        opt.step(np.ones(3))
    before = p.copy()
    with pytest.raises(ValueError, match="betas"):
        opt.step(np.ones(3))
    assert_same_bits(p, before)
    assert opt.step_count == 3


def test_schedules_count_the_optimizers_steps() -> None:
    """Called with 0, 1, 2, ...; a skipped step does not advance it, a frozen array does not."""
    seen = []

    def schedule(step: int) -> float:
        seen.append(step)
        return 0.5

    p = [np.ones(2), np.ones(2)]
    opt = fastgd.SGD(p, lr=schedule, nonfinite="skip")
    seen.clear()
    opt.step([np.ones(2), None])
    assert opt.step([np.ones(2), np.full(2, np.nan)]) is False
    opt.step([np.ones(2), np.ones(2)])
    assert set(seen) == {0, 1}
    assert seen == sorted(seen)


def test_update_assigns_all_or_nothing() -> None:
    opt = fastgd.SGD(np.ones(2), lr=0.1)
    (group,) = opt.param_groups
    with pytest.raises(ValueError, match="momentum"):
        group.update({"lr": 0.5, "momentum": -1.0})
    assert group["lr"] == 0.1
    group.update(nesterov=True, momentum=0.9)  # each of them alone is refused or does nothing
    assert (group["nesterov"], group["momentum"]) == (True, 0.9)


COPIES: list[Callable[[Any], Any]] = [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]


@pytest.mark.parametrize("copied", COPIES)
def test_an_optimizer_is_copied_with_its_parameters(copied: Callable[[Any], Any]) -> None:
    params = {"W": np.ones((2, 3), np.float32, order="F"), "layers": [np.zeros(4)]}
    opt = fastgd.AdamW(params, lr=fastgd.schedules.cosine(0.1, total_steps=9), clip_norm=1.0)
    opt.add_param_group({"params": np.ones(3), "optimizer": fastgd.SGD, "momentum": 0.9})
    own = opt.params["1"]
    grads = [{"W": np.ones((2, 3)), "layers": [np.ones(4)]}, np.ones(3)]
    opt.step(grads)
    twin_params, twin, twin_own = copied((params, opt, own))
    assert twin.params["0/W"] is twin_params["W"]
    assert twin.params["0/layers/0"] is twin_params["layers"][0]
    assert twin.params["1"] is twin_own
    assert twin_params["W"].flags.f_contiguous
    twin.step(grads)
    assert opt.step_count == 1
    opt.step(grads)
    rates = [repr(o.param_groups[0]["lr"]) for o in (opt, twin)]
    assert repr(twin) == repr(opt).replace(*rates)
    for name, array in opt.params.items():
        np.testing.assert_array_equal(twin.params[name], array)
        assert not np.shares_memory(twin.params[name], array)
    np.testing.assert_equal(twin.state, opt.state)


@pytest.mark.parametrize("copied", COPIES)
def test_an_optimizer_copied_alone_takes_its_arrays_along(copied: Callable[[Any], Any]) -> None:
    w = np.ones(3)
    opt = fastgd.SGD(w, lr=0.5)
    twin = copied(opt)
    twin.step(np.ones(3))
    assert w.tolist() == [1.0] * 3
    assert twin.params["params"].tolist() == [0.5] * 3


def test_a_group_is_copied_with_its_optimizer() -> None:
    opt = fastgd.SGD(np.ones(2), lr=0.1)
    group = copy.deepcopy(opt.param_groups[0])
    group["lr"] = 0.5
    assert opt.param_groups[0]["lr"] == 0.1
    assert copy.copy(opt.param_groups[0]) == opt.param_groups[0]
