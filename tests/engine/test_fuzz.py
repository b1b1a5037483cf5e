"""Generated problems against the NumPy reference, bit for bit."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastgd
from tests.cases import falling
from tests.engine.fuzzing import (
    SEEDS,
    SHAPES,
    Problem,
    Spec,
    Step,
    from_zero,
    gradient_values,
    laid_out,
    nested,
    problems,
    refilled,
)
from tests.fma import Array
from tests.reference import SPECS, Reference, global_norm
from tests.support import (
    assert_same_bits,
    assert_same_state,
    engine_multiply_add,
    optimizer,
    tame,
    wide,
)

CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
SETTINGS: dict[str, Any] = {
    "derandomize": True,
    "database": None,
    "deadline": None,
    "suppress_health_check": CHECKS,
    "report_multiple_bugs": False,
}


def assert_close(actual: float, expected: float, error: float) -> None:
    if np.isfinite(expected):
        assert abs(actual - expected) <= error
    else:
        np.testing.assert_equal(actual, expected)


class Run:
    """A problem in two copies: the optimizer's own and the reference's."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.hyper = [dict(values) for values in problem.hyper]
        self.rng = np.random.default_rng(problem.seed)
        listed = problem.listed
        self.arrays: list[Array] = []  # of all groups
        self.names: list[str] = []
        self.trees: list[Any] = []
        self.ends: list[int] = []  # of each group in `arrays`
        for number, specs in enumerate(problem.groups):
            arrays = [self.parameter(spec) for spec in specs]
            tree, paths = nested(arrays, problem.nesting, self.rng)
            prefix = f"{number}/" if len(problem.groups) > 1 else ""
            self.arrays += arrays
            self.names += [prefix + path for path in paths]
            self.trees.append(tree)
            self.ends.append(len(self.arrays))
        self.present = len(self.trees) if listed else 1
        self.opt = self.make()
        self.reference = self.make_reference()

    def parameter(self, spec: Spec) -> Array:
        values = wide(self.rng, spec.shape, spec.dtype)
        if spec.refused:
            bad = laid_out(values, spec.refused, self.rng)
            if spec.refused == "read-only" or not bad.flags.forc or not bad.flags.aligned:
                with pytest.raises(ValueError, match="parameter 'a/1'"):
                    optimizer(self.problem.optimizer, {"a": [np.ones(2), bad]})
                assert_same_bits(bad, values)
        return laid_out(values, spec.layout, self.rng)

    def make(self) -> Any:
        """The optimizer over the groups that are there by now."""
        kwargs, hyper = dict(self.problem.options), self.hyper
        if self.problem.listed:
            groups = [{"params": t, **h} for t, h in zip(self.trees, hyper, strict=True)]
            return optimizer(self.problem.optimizer, groups, **kwargs)
        opt = optimizer(self.problem.optimizer, self.trees[0], **kwargs, **hyper[0])
        for number in range(1, self.present):
            opt.add_param_group({"params": self.trees[number], **hyper[number]})
        return opt

    def make_reference(self) -> Reference:
        overrides, begin = {}, 0
        for end, hyper in zip(self.ends, self.hyper, strict=True):
            plain = {k: float(v) if isinstance(v, np.float32) else v for k, v in hyper.items()}
            overrides.update(dict.fromkeys(self.names[begin:end], plain))
            begin = end
        return Reference(
            self.problem.optimizer,
            dict(zip(self.names, self.arrays, strict=True)),
            overrides=overrides,
            multiply_add=engine_multiply_add(),
            **self.options(),
        )

    def options(self) -> dict[str, Any]:
        """Those of the optimizer as a whole, for the next step; the reference takes no schedules."""
        given, step = self.problem.options, self.opt.step_count
        return {name: x(step) if callable(x) else x for name, x in given.items()}

    def gradients(self, step: Step) -> list[Array | None]:
        grads: list[Array | None] = []
        for i, p in enumerate(self.arrays):
            if i >= self.ends[self.present - 1] or self.rng.random() < step.missing:
                grads.append(None)
                continue
            dtype: Any = p.dtype if step.dtype == "same" else step.dtype
            if step.dtype == "bfloat16":
                dtype = pytest.importorskip("ml_dtypes").bfloat16
            values = gradient_values(p.shape, step, self.rng)
            with np.errstate(all="ignore"):
                grads.append(laid_out(values.astype(dtype), step.layout, self.rng))
        return grads

    def event(self, kind: str | None) -> None:
        """What may happen between two steps and must not change what the next one does."""
        if kind == "reload":
            saved = self.opt.state_dict()
            self.opt = self.make()
            assert self.opt.load_state_dict(saved) == []
        elif kind == "rebind":
            self.arrays = [a.copy(order="K") for a in self.arrays]
            leaves = list(self.arrays)
            self.trees = [refilled(tree, leaves) for tree in self.trees]
            self.opt.rebind(
                self.trees[: self.present] if self.opt.param_groups[1:] else self.trees[0]
            )
        elif kind == "assign":
            number = int(self.rng.integers(self.present))
            spec = SPECS[self.problem.optimizer]
            change = {**spec.having(lr=0.02, weight_decay=falling), "maximize": True}
            self.opt.param_groups[number].update(change)
            begin = self.ends[number - 1] if number else 0
            for name in self.names[begin : self.ends[number]]:
                self.reference.hyper[name] = {**self.reference.hyper[name], **change}
            self.hyper[number].update(change)

    def take(self, step: Step) -> None:
        grads = self.gradients(step)
        copies = [None if g is None else g.tobytes() for g in grads]
        named = dict(zip(self.names, grads, strict=True))
        leaves = list(grads)
        trees = [refilled(tree, leaves, self.rng) for tree in self.trees[: self.present]]
        given: Any = tuple(trees) if len(self.opt.param_groups) > 1 else trees[0]
        self.reference.options = self.options()
        before = [p.astype(np.float64) for p in self.arrays]
        taken: Any = None
        try:
            self.opt.track_norms = self.problem.track
            taken = self.opt.step(given, step.scale)
        except FloatingPointError as error:
            taken = re.findall("gradient '(.*?)'", str(error))
        if taken is True:
            self.compare_norm(grads, step)
        norm = self.opt.grad_norm
        clips = self.problem.options["clip_norm"] is not None
        # A norm that is NaN makes every gradient NaN, as in PyTorch; min() in the reference does not.
        scale = np.nan if clips and norm is not None and np.isnan(norm) else step.scale
        try:
            expected: Any = self.reference.step(named, scale, norm=norm)
        except FloatingPointError as error:
            expected = [self.present_name(name) for name in error.args]
        assert taken == expected
        assert copies == [None if g is None else g.tobytes() for g in grads]
        self.compare()
        if taken is True and self.problem.track:
            self.compare_norms(grads, before)

    @np.errstate(all="ignore")
    def compare_norms(self, grads: list[Array | None], before: list[Array]) -> None:
        """What the step has summed on its way: in the array's dtype, good to six digits in float32."""
        found = self.opt.norms()
        for i, p in enumerate(self.arrays[: self.ends[self.present - 1]]):
            share = 1e-5 if p.dtype == np.float32 else 1e-11
            if grads[i] is None:
                assert all(values[i] == 0 for values in found.values())
                continue
            g = np.asarray(grads[i]).astype(p.dtype).astype(np.float64)
            after = np.asarray(p, np.float64)
            update = after - before[i]
            for name, x in (("grad", g), ("update", update), ("param", after)):
                norm = np.sqrt(np.sum(x * x))
                assert_close(found[name][i], norm, share * norm)
            size = np.sum(np.abs(g * update))
            assert_close(found["grad_dot_update"][i], np.sum(g * update), share * size)

    def compare_norm(self, grads: list[Array | None], step: Step) -> None:
        if self.opt.grad_norm is None or not np.isfinite(self.opt.grad_norm):
            return
        with np.errstate(all="ignore"):
            live = [
                np.asarray(g, np.result_type(g.dtype, p.dtype))  # float64 is not rounded
                for g, p in zip(grads, self.arrays, strict=True)
                if g is not None
            ]
            exact = abs(step.scale) * global_norm(live)
        count = sum(g.size for g in live)
        assert abs(self.opt.grad_norm - exact) <= (count + 4) * 2.0**-53 * exact

    def present_name(self, name: str) -> str:
        """Without the group's number as long as there is one group only."""
        several = len(self.problem.groups) > 1
        return name.removeprefix("0/") if several and self.present == 1 else name

    def compare(self) -> None:
        end = self.ends[self.present - 1]
        known = self.names[:end]
        for name, p in zip(known, self.arrays, strict=False):
            assert_same_bits(np.asarray(p), self.reference.params[name], name)
            assert self.opt.params[self.present_name(name)] is p
        state = {self.present_name(name): self.reference.state[name] for name in known}
        steps = {self.present_name(name): self.reference.steps[name] for name in known}
        assert_same_state(self.opt, steps, state)
        assert self.opt.step_count == self.reference.step_count


def surroundings(arrays: list[Array]) -> list[bytes]:
    """What lies before and behind each array in the buffer that it is a part of."""
    found = []
    for array in arrays:
        base = array
        while isinstance(base.base, np.ndarray):
            base = base.base
        found.append(base[:5].tobytes() + base[5 + array.size :].tobytes() if base.ndim == 1
                     and base.size == array.size + 11 else b"")  # fmt: skip
    return found


def check(problem: Problem) -> None:
    with fastgd.num_threads(problem.threads):
        run = Run(problem)
        outside = surroundings(run.arrays)
        arrays = run.arrays
        run.compare()
        for step in problem.steps:
            run.event(step.event)
            run.take(step)
            if run.present < len(run.trees):
                number = run.present
                run.opt.add_param_group({"params": run.trees[number], **run.hyper[number]})
                run.present += 1
        assert surroundings(arrays) == outside


@settings(max_examples=300, **SETTINGS)
@given(problems())
def test_against_the_reference(problem: Problem) -> None:
    check(problem)


@pytest.mark.long
@settings(max_examples=20_000, **SETTINGS)
@given(problems())
def test_against_the_reference_long(problem: Problem) -> None:
    check(problem)


# Gradients of any layout that can be written to.
WRITEABLE = st.builds(
    Spec,
    st.sampled_from(SHAPES),
    st.sampled_from(["float16", "float32", "float64"]),
    st.sampled_from(["C", "F", "inside", "strided", "misaligned", "subclass"]),
    st.none(),
)


@settings(max_examples=100, **SETTINGS)
@given(st.lists(WRITEABLE, max_size=6), st.sampled_from([1e-3, 1.0, 1e3, 1e9]), SEEDS)
def test_clipping_functions(specs: list[Spec], limit: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = [tame(rng, spec.shape, spec.dtype) for spec in specs]
    arrays = [laid_out(x, spec.layout, rng) for x, spec in zip(values, specs, strict=True)]
    tree, _ = nested([*arrays, None], 2, rng)
    exact = global_norm([x.astype(np.float64) for x in values])
    bound = (sum(x.size for x in values) + 4) * 2.0**-53 * exact
    norm = fastgd.global_norm(tree)
    assert abs(norm - exact) <= bound
    assert fastgd.clip_grad_norm_(tree, limit) == norm
    for array, x in zip(arrays, values, strict=True):
        working = x.astype(np.promote_types(x.dtype, np.float32))
        if norm > limit:
            working = working * working.dtype.type(limit / norm)
        assert_same_bits(np.asarray(array), working.astype(x.dtype))
        array[...] = x
    fastgd.clip_grad_value_(tree, limit)
    for array, x in zip(arrays, values, strict=True):
        with np.errstate(over="ignore"):
            most = x.dtype.type(limit)
        assert_same_bits(np.asarray(array), np.asarray(np.clip(x, -most, most)))


WARMED = [
    ("SGD", {}),
    ("SGD", {"dampening": 0.3}),
    ("SGD", {"nesterov": True}),
    ("RMSprop", {}),
    ("RMSprop", {"centered": True}),
]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("name", "kwargs"), WARMED)
def test_momentum_that_is_warmed_up(name: str, kwargs: dict[str, Any], inside: bool) -> None:
    """A schedule that is 0 at some step: the buffer is in use, and the learning rate in its place."""
    options: dict[str, Any] = {
        **kwargs,
        "lr": 0.05,
        "momentum": from_zero,
        "lr_in_momentum": inside,
    }
    start = np.linspace(-1, 1, 7)
    p = start.copy()
    opt = optimizer(name, p, **options)
    reference = Reference(name, {"p": start}, multiply_add=engine_multiply_add(), **options)
    for step in range(4):
        g = np.cos(np.arange(7) + step)
        opt.step(g)
        reference.step({"p": g})
        assert_same_bits(p, reference.params["p"], f"step {step}")
    assert_same_state(opt, {"params": 4}, {"params": reference.state["p"]})


def test_a_group_added_to_a_list_of_layers() -> None:
    """Its layers are named as if both groups had been given at once."""
    layers = [[np.zeros((2, 3)), np.zeros(3)] for _ in range(3)]
    opt = fastgd.SGD(layers[:2], lr=1.0)
    opt.add_param_group({"params": layers[2]})
    assert list(opt.params) == ["0/0/0", "0/0/1", "0/1/0", "0/1/1", "1/0", "1/1"]
    grads = [[np.ones((2, 3)), np.ones(3)] for _ in range(3)]
    opt.step([grads[:2], grads[2]])
    assert all((p == -1).all() for p in opt.params.values())
    assert opt.load_state_dict(opt.state_dict()) == []
