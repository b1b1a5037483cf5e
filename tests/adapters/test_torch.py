"""Runs handed over to PyTorch and taken over from it.

The state that passes over is the same bits. Steps are not: the engine fuses multiply and add where
PyTorch rounds twice, and orders some operations differently. After STEPS further steps the
parameters, and each slot of the state, may be BUDGET units in the last place of their largest magnitude
apart.
"""

from __future__ import annotations

import importlib
import io
import sys
import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest

import fastgd
from tests.cases import CASES, Case
from tests.checkpoint.objects import everything, frozen
from tests.specs import SPECS
from tests.support import optimizer as make_optimizer
from tests.support import tame

torch = pytest.importorskip("torch")
from fastgd.adapters.torch import from_torch, load_state_dict, state_dict, to_torch  # noqa: E402

pytestmark = pytest.mark.usefixtures("numbers_in_double")
BEFORE, STEPS = 7, 20
BUDGET = 8
SHAPES = {"W": (5, 3), "b": (7,), "never": (2,), "scalar": ()}

# PyTorch takes numbers only, so functions of the step are left for tests of their own.


TORCH_CASES = [c for c in CASES if c.in_torch and not any(map(callable, c.kwargs.values()))]
TORCH_CASES = [c for c in TORCH_CASES if not any(map(callable, c.kwargs.get("betas", ())))]
cases = pytest.mark.parametrize("case", TORCH_CASES, ids=str)


def ours(case: Case, dtype: Any, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    params = {name: tame(rng, shape, dtype) for name, shape in SHAPES.items()}
    params["W"] = np.asfortranarray(params["W"])
    return make_optimizer(case.optimizer, params, **case.kwargs)


def theirs(case: Case, dtype: Any, seed: int = 2) -> Any:
    rng = np.random.default_rng(seed)
    tensors = [
        torch.tensor(tame(rng, shape, dtype), requires_grad=True) for shape in SHAPES.values()
    ]
    return getattr(torch.optim, case.optimizer)(tensors, **case.kwargs)


def gradients(dtype: Any, count: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            name: None if name == "never" else tame(rng, shape, dtype)
            for name, shape in SHAPES.items()
        }
        for _ in range(count)
    ]


def run_ours(optimizer: Any, grads: list[dict[str, Any]]) -> None:
    for g in grads:
        optimizer.step(g)


def run_theirs(optimizer: Any, grads: list[dict[str, Any]]) -> None:
    tensors = [p for group in optimizer.param_groups for p in group["params"]]
    for g in grads:
        for tensor, name in zip(tensors, SHAPES, strict=True):
            tensor.grad = None if g[name] is None else torch.tensor(g[name])
        optimizer.step()


def their_arrays(optimizer: Any) -> dict[str, dict[str, Any]]:
    """Parameter and state by name; no state where there is none."""
    tensors = [p for group in optimizer.param_groups for p in group["params"]]
    result = {}
    for tensor, name in zip(tensors, SHAPES, strict=True):
        slots = {k: v for k, v in optimizer.state[tensor].items() if v is not None and k != "step"}
        result[name] = {"param": tensor, **slots}
        result[name] = {key: value.detach().numpy() for key, value in result[name].items()}
    return result


def our_arrays(optimizer: Any) -> dict[str, dict[str, Any]]:
    result = {}
    for name, param in optimizer.params.items():
        state = optimizer.state[name]
        slots = {key: x for key, x in state.items() if key != "step"} if state["step"] else {}
        result[name] = {"param": param, **slots}
    return result


def assert_close(a: dict[str, dict[str, Any]], b: dict[str, dict[str, Any]]) -> None:
    for key in a["W"]:
        names = [name for name in SHAPES if key in a[name] and key in b[name]]
        x, y = (np.concatenate([np.ravel(side[name][key]) for name in names]) for side in (a, b))
        if isinstance(a["W"][key], float) or isinstance(b["W"][key], float):
            np.testing.assert_allclose(x, y, rtol=1e-5)  # a float32 there
            continue
        unit = np.spacing(max(np.abs(x).max(), np.abs(y).max()))
        assert np.abs(x - y).max() <= BUDGET * unit, key


def assert_same(a: dict[str, dict[str, Any]], b: dict[str, dict[str, Any]]) -> None:
    for name in SHAPES:
        # Adagrad's state is there before the first step.
        assert a[name].keys() - {"sum"} == b[name].keys() - {"sum"}
        for key in a[name].keys() & b[name].keys():
            if isinstance(a[name][key], float) or isinstance(b[name][key], float):
                assert np.float32(a[name][key]) == np.float32(b[name][key]), (name, key)
            else:
                assert frozen(a[name][key]) == frozen(b[name][key]), (name, key)


def test_all_are_covered() -> None:
    assert {case.optimizer for case in TORCH_CASES} == {
        name for name, spec in SPECS.items() if spec.torch and not spec.matrices
    }
    assert len(TORCH_CASES) > 30


@cases
def test_continued_in_torch(case: Case, dtype: type[np.floating]) -> None:
    opt, torch_opt = ours(case, dtype), theirs(case, dtype)
    run_ours(opt, gradients(dtype, BEFORE, 1))
    before = everything(opt)
    to_torch(opt, torch_opt)
    assert everything(opt) == before
    assert_same(our_arrays(opt), their_arrays(torch_opt))
    run_theirs(torch_opt, gradients(dtype, STEPS, 2))
    assert everything(opt) == before  # no memory is shared
    run_ours(opt, gradients(dtype, STEPS, 2))
    assert_close(our_arrays(opt), their_arrays(torch_opt))


@cases
def test_continued_from_torch(case: Case, dtype: type[np.floating]) -> None:
    opt, torch_opt = ours(case, dtype), theirs(case, dtype)
    run_theirs(torch_opt, gradients(dtype, BEFORE, 1))
    from_torch(torch_opt, opt)
    assert_same(our_arrays(opt), their_arrays(torch_opt))
    before = frozen(their_arrays(torch_opt))
    run_ours(opt, gradients(dtype, STEPS, 2))
    assert frozen(their_arrays(torch_opt)) == before
    run_theirs(torch_opt, gradients(dtype, STEPS, 2))
    assert_close(our_arrays(opt), their_arrays(torch_opt))


@cases
def test_there_and_back(case: Case, dtype: type[np.floating]) -> None:
    opt, torch_opt, again = ours(case, dtype), theirs(case, dtype), ours(case, dtype, seed=3)
    run_ours(opt, gradients(dtype, BEFORE, 1))
    run_ours(again, gradients(dtype, 3, 4))  # a state that must go
    to_torch(opt, torch_opt)
    from_torch(torch_opt, again, step_count=opt.step_count)
    expected = everything(opt)
    if all(
        entry.keys() == {"step"} for entry in opt.state.values()
    ):  # PyTorch then knows of no steps; nor do they matter
        expected["state"] = {name: {"step": 0} for name in SHAPES}
    for name, entry in everything(again)["state"].items():
        for key in opt.declaration.numbers:  # rounded to the parameter's dtype on the way
            before = float(expected["state"][name][key])
            assert float(entry[key]) == pytest.approx(before, rel=1e-6)
            expected["state"][name][key] = entry[key]
    assert everything(again) == expected


@cases
def test_before_the_first_step(case: Case, dtype: type[np.floating]) -> None:
    opt, torch_opt = ours(case, dtype), theirs(case, dtype)
    to_torch(opt, torch_opt)
    run_ours(opt, gradients(dtype, STEPS, 2))
    run_theirs(torch_opt, gradients(dtype, STEPS, 2))
    assert_close(our_arrays(opt), their_arrays(torch_opt))
    again, fresh = ours(case, dtype), theirs(case, dtype)
    from_torch(fresh, again)
    assert again.step_count == 0
    run_ours(again, gradients(dtype, STEPS, 2))
    run_theirs(fresh, gradients(dtype, STEPS, 2))
    assert_close(our_arrays(again), their_arrays(fresh))


def case_of(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def test_through_a_file() -> None:
    """As PyTorch stores it, without pickle on the way back."""
    case = case_of("AdamW-amsgrad")
    torch_opt, opt = theirs(case, np.float32), ours(case, np.float32)
    run_theirs(torch_opt, gradients(np.float32, BEFORE, 1))
    file = io.BytesIO()
    torch.save(torch_opt.state_dict(), file)
    file.seek(0)
    load_state_dict(opt, torch.load(file, weights_only=True))
    assert opt.step_count == BEFORE
    file = io.BytesIO()
    torch.save(state_dict(opt), file)
    file.seek(0)
    other = theirs(case, np.float32)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert str(other.state_dict()) == str(torch_opt.state_dict())


def test_groups_and_numbers() -> None:
    W, b, c = np.ones(2), np.ones(3), np.ones(4)
    opt = fastgd.RMSprop(
        [{"params": [W, b], "lr": 0.5, "momentum": 0.25}, {"params": c, "centered": True}], eps=0.1
    )
    tensors = [torch.zeros(n, dtype=torch.float64, requires_grad=True) for n in (2, 3, 4)]
    groups = [{"params": tensors[:2], "foreach": False}, {"params": tensors[2:]}]
    torch_opt = torch.optim.RMSprop(groups, lr=torch.tensor(0.125, dtype=torch.float64))
    opt.step([[W * 2, b * 2], c * 2])
    to_torch(opt, torch_opt)
    first, second = torch_opt.param_groups
    assert (first["lr"], first["momentum"], first["eps"], first["centered"]) == (
        0.5,
        0.25,
        0.1,
        False,
    )
    assert (second["lr"], second["momentum"], second["centered"]) == (0.01, 0, True)
    assert (first["foreach"], second["foreach"]) == (False, None)  # PyTorch's affair
    second["lr"] = torch.tensor(0.0625, dtype=torch.float64)
    from_torch(torch_opt, opt)
    assert opt.param_groups[1]["lr"] == 0.0625


def test_schedules() -> None:
    """Their present value goes; they stay when numbers come."""
    lr = fastgd.schedules.linear(0.5, total_steps=4, start_factor=0)
    W = np.ones(2)
    opt = fastgd.Adam(W, lr=lr, betas=(0.5, lambda step: 0.75))
    tensor = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    torch_opt = torch.optim.Adam([tensor])
    opt.step(W * 2)
    to_torch(opt, torch_opt)
    assert torch_opt.param_groups[0]["lr"] == 0.125
    assert torch_opt.param_groups[0]["betas"] == (0.5, 0.75)
    torch_opt.param_groups[0]["betas"] = (0.25, 0.875)
    from_torch(torch_opt, opt)
    assert opt.param_groups[0]["lr"] is lr
    assert opt.param_groups[0]["betas"][0] == 0.25
    assert opt.param_groups[0]["betas"][1](3) == 0.75
    from_torch(torch_opt, opt, step_count=100)
    assert opt.step_count == 100


def test_sgd_counts_nothing() -> None:
    """So its step count must be told where a schedule needs it."""
    case = case_of("SGD-dampening")
    torch_opt, opt = theirs(case, np.float64), ours(case, np.float64)
    run_theirs(torch_opt, gradients(np.float64, BEFORE, 1))
    from_torch(torch_opt, opt)
    assert (opt.step_count, opt.state["W"]["step"], opt.state["never"]["step"]) == (1, 1, 0)
    from_torch(torch_opt, opt, step_count=BEFORE)
    assert (opt.step_count, opt.state["W"]["step"], opt.state["never"]["step"]) == (
        BEFORE,
        BEFORE,
        0,
    )


def test_clipping_stays_behind() -> None:
    W = np.ones(2)
    with pytest.warns(UserWarning, match="clip_norm, nonfinite stays behind"):
        state_dict(fastgd.SGD(W, clip_norm=1.0, nonfinite="skip"))
    opt = fastgd.SGD(W, clip_value=1.0)
    from_torch(torch.optim.SGD([torch.ones(2, dtype=torch.float64, requires_grad=True)]), opt)
    assert opt.clip_value == 1.0


# ---------------------------------------------------------------- what is refused


def tensors(*shapes: Any, dtype: Any = None) -> list[Any]:
    dtype = torch.float64 if dtype is None else dtype
    return [torch.ones(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def adam(**kwargs: Any) -> Any:
    return fastgd.Adam({"W": np.ones(2), "b": np.ones(3)}, **kwargs)


BAD: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "class": (
        adam,
        lambda: torch.optim.AdamW(tensors(2, 3)),
        TypeError,
        "torch.optim.Adam, got .*AdamW",
    ),
    "count": (
        adam,
        lambda: torch.optim.Adam(tensors(2)),
        ValueError,
        "2 parameters in fastgd, and 1",
    ),
    "shape": (adam, lambda: torch.optim.Adam(tensors(2, 4)), ValueError, r"'b' has shape \(3,\)"),
    "order": (adam, lambda: torch.optim.Adam(tensors(3, 2)), ValueError, r"'W' has shape \(2,\)"),
    "dtype": (
        adam,
        lambda: torch.optim.Adam(tensors(2, 3, dtype=torch.bfloat16)),
        ValueError,
        "'W' has .*torch.bfloat16",
    ),
    "groups": (
        adam,
        lambda: torch.optim.Adam([{"params": tensors(2)}, {"params": tensors(3)}]),
        ValueError,
        "1 groups in fastgd, and 2 in PyTorch",
    ),
    "form": (
        lambda: adam(eps_hat=True),
        lambda: torch.optim.Adam(tensors(2, 3)),
        ValueError,
        "eps_hat=True",
    ),
    "not ours": (dict, lambda: torch.optim.Adam(tensors(2, 3)), TypeError, "optimizer of fastgd"),
    "not theirs": (adam, dict, TypeError, "got builtins.dict"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_refused(bad: Any) -> None:
    make_ours, make_theirs, error, matches = bad
    opt, torch_opt = make_ours(), make_theirs()
    before, torch_before = str(vars(opt) if opt else 0), str(torch_opt)
    for call in (lambda: to_torch(opt, torch_opt), lambda: from_torch(torch_opt, opt)):
        with pytest.raises(error, match=matches):
            call()
    assert str(torch_opt) == torch_before
    assert before == str(vars(opt) if opt else 0)


def edited(part: str, index: int, **changes: Any) -> Any:
    """A function that changes one group or the state of one parameter; None removes."""

    def edit(saved: Any) -> Any:
        saved[part][index].update(changes)
        for key, value in changes.items():
            if value is None:
                del saved[part][index][key]
        return saved

    return edit


BAD_DICTS: dict[str, tuple[Any, Any, str]] = {
    "no dict": (lambda saved: 3, TypeError, "state_dict must be a dict"),
    "no groups": (lambda saved: {"state": {}}, TypeError, "param_groups"),
    "lacks lr": (edited("param_groups", 0, lr=None), ValueError, "group 0 .* lacks 'lr'"),
    "bad lr": (edited("param_groups", 0, lr=-1.0), ValueError, r"lr must be .*\[0, inf\).*-1.0"),
    "bad betas": (
        edited("param_groups", 0, betas=(0.9,)),
        (TypeError, ValueError),
        "betas must be",
    ),
    "decoupled": (
        edited("param_groups", 0, decoupled_weight_decay=True),
        ValueError,
        "group 0 is of AdamW, this is Adam",
    ),
    "lacks a slot": (edited("state", 0, exp_avg=None), ValueError, "'W' needs 'exp_avg'"),
    "bfloat16": (
        edited("state", 0, exp_avg=torch.ones(2, dtype=torch.bfloat16)),
        ValueError,
        "'W' needs 'exp_avg', .*bfloat16",
    ),
    "shape": (
        edited("state", 1, exp_avg=torch.ones(2, dtype=torch.float64)),
        ValueError,
        "'b' has shape",
    ),
    "step": (edited("state", 1, step=torch.tensor(-1.0)), ValueError, "step of 'b'"),
}


@pytest.mark.parametrize("bad", BAD_DICTS.values(), ids=BAD_DICTS)
def test_bad_state_dicts(bad: Any) -> None:
    change, error, matches = bad
    opt = adam()
    opt.step({"W": np.ones(2), "b": np.ones(3)})
    saved = state_dict(opt)
    result = change(saved)
    before = everything(opt)
    with pytest.raises(error, match=matches):
        load_state_dict(
            opt, result if isinstance(result, (int, dict)) and "lr" not in matches else saved
        )
    assert everything(opt) == before


def test_loading_copies_the_state_once() -> None:
    opt = fastgd.Adam(np.ones(1_000_000))
    saved = state_dict(opt)
    size = sum(
        slots.nbytes for slots in opt.state["params"].values() if isinstance(slots, np.ndarray)
    )
    tracemalloc.start()
    try:
        load_state_dict(opt, saved)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * size


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("fastgd.adapters.torch")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r'pip install "fastgd\[torch\]"'):
        importlib.import_module("fastgd.adapters.torch")


def test_no_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state_dict(adam())


def test_a_frozen_parameter_is_refused_before_anything_changes() -> None:
    tensors = [torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    source = torch.optim.SGD(tensors, lr=0.5, momentum=0.9)
    sum(t.sum() for t in tensors).backward()
    source.step()
    first, second = np.zeros(2), np.zeros(2)
    opt = fastgd.SGD([first, second], lr=0.1)
    second.flags.writeable = False
    before = everything(opt)
    with pytest.raises(ValueError, match="parameter '1' is read-only"):
        from_torch(source, opt)
    assert everything(opt) == before


def test_adam_is_not_handed_over_to_adamw_in_disguise() -> None:
    opt = fastgd.Adam(np.ones(2), weight_decay=0.5)
    tensor = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="decoupled_weight_decay=True, which is AdamW"):
        to_torch(opt, torch.optim.Adam([tensor], decoupled_weight_decay=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {**d, "state": {"0": d["state"][0]}}, "no parameters of its groups"),
        (lambda d: {**d, "state": {0: 5}}, "dict of dicts"),
        (lambda d: {**d, "param_groups": [{}]}, "list of dicts with a list"),
    ],
)
def test_state_dicts_of_another_structure(change: Any, message: str) -> None:
    tensor = torch.ones(2, dtype=torch.float64, requires_grad=True)
    source = torch.optim.Adam([tensor])
    tensor.sum().backward()
    source.step()
    opt = fastgd.Adam(np.ones(2))
    before = everything(opt)
    with pytest.raises((TypeError, ValueError), match=message):
        load_state_dict(opt, change(source.state_dict()))
    assert everything(opt) == before


@pytest.mark.parametrize("name", [n for n, spec in SPECS.items() if spec.torch and spec.matrices])
def test_matrix_rules_pass_over_and_back(name: str) -> None:
    start = tame(np.random.default_rng(1), (4, 3), np.float64)
    opt = make_optimizer(name, start.copy(), lr=0.02)
    for _ in range(3):
        opt.step(start)
    tensor = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    theirs_ = getattr(torch.optim, SPECS[name].torch or "")([tensor])
    to_torch(opt, theirs_)
    again = make_optimizer(name, np.zeros((4, 3)))
    from_torch(theirs_, again)
    assert everything(again) == everything(opt)
