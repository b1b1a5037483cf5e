"""Rows of test_bad_inputs.py: state dicts, threads, mini-batches and initializers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastgd
from fastgd import initializers
from fastgd.sampling import MiniBatches
from tests.engine.bad_arrays import ones
from tests.engine.bad_inputs import Row, World

NAN, INF = math.nan, math.inf
Change = Callable[[dict[str, Any]], Any]


def saved(world: World) -> dict[str, Any]:
    """A good state_dict, of another run."""
    state: dict[str, Any] = World(world.folder).adam.state_dict()
    state["step_count"] = 7
    for entry in state["state"].values():
        entry["step"] = 7
        for slot in entry.keys() - {"step"}:
            entry[slot] += 1
    return state


def put(key: str, value: Any) -> Change:
    return lambda sd: {**sd, key: value}


def put_entry(key: str, value: Any) -> Change:
    """In the state of W; a value of `del` removes the key."""

    def change(sd: dict[str, Any]) -> Any:
        entry = sd["state"]["W"]
        entry[key] = value(entry[key]) if callable(value) else value
        return sd

    return change


def put_group(key: Any, value: Any) -> Change:
    return lambda sd: {**sd, "param_groups": [{**sd["param_groups"][0], key: value}]}


def without(*path: Any) -> Change:
    def change(sd: dict[str, Any]) -> Any:
        inner: Any = sd
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        return sd

    return change


BAD_COUNTS = [
    *((x, TypeError, "an integer") for x in (1.0, True, None, "3", NAN, np.array([1]))),
    (-1, ValueError, "at least 0"),
    *((x, ValueError, "at most 4611686018427387904") for x in (2**63, 2**70)),
]
STATES: list[tuple[str, Change, type[Exception], str]] = [
    ("none", lambda sd: None, TypeError, "expected a dict, got NoneType"),
    ("list", list, TypeError, "expected a dict, got list"),
    ("empty", lambda sd: {}, ValueError, "lacks"),
    *[
        (f"without-{key}", without(key), ValueError, f"lacks .*{key}")
        for key in ("optimizer", "step_count", "state", "param_groups", "options")
    ],
    ("pytorch", lambda sd: {"state": {}, "param_groups": []}, ValueError, "lacks"),
    ("other-kind", put("optimizer", "AdamW"), ValueError, "'AdamW'"),
    ("kind-none", put("optimizer", None), ValueError, "None"),
    ("kind-array", put("optimizer", np.array(["Adam", "x"])), ValueError, "load_state_dict: .*Adam"),
    *[
        (f"step_count-{value!r}", put("step_count", value), error, f"step_count must be {match}")
        for value, error, match in BAD_COUNTS
    ],
    *[
        (f"step-{value!r}", put_entry("step", value), error, f"step of 'W' must be {match}")
        for value, error, match in BAD_COUNTS
    ],
    ("state-list", put("state", []), TypeError, "'state' must be a dict"),
    ("state-none", put("state", None), TypeError, "'state' must be a dict"),
    ("state-empty", put("state", {}), ValueError, "only one side .*'W'"),
    ("state-without", without("state", "b"), ValueError, r"only one side .*\['b'\]"),
    ("state-surplus", lambda sd: {**sd, "state": {**sd["state"], "c": {}}}, ValueError,
     r"only one side .*\['c'\]"),
    ("state-by-number", lambda sd: {**sd, "state": dict(enumerate(sd["state"].values()))},
     ValueError, "only one side .*'W'"),
    ("entry-list", lambda sd: {**sd, "state": {**sd["state"], "W": []}}, ValueError, "'W' lacks"),
    ("entry-none", lambda sd: {**sd, "state": {**sd["state"], "W": None}}, ValueError, "'W' lacks"),
    ("no-step", without("state", "W", "step"), ValueError, "'W' lacks 'step'"),
    ("no-slot", without("state", "layers/0", "max_exp_avg_sq"), ValueError, "'layers/0' lacks"),
    ("slot-none", put_entry("exp_avg", None), TypeError, "'exp_avg' of parameter 'W' must be an a"),
    ("slot-list", put_entry("exp_avg", np.ndarray.tolist), TypeError, "'exp_avg' of parameter 'W'"),
    ("slot-masked", put_entry("exp_avg", np.ma.masked_array), TypeError, "'exp_avg' .*'W'"),
    ("slot-shape", put_entry("exp_avg_sq", lambda x: x.T), ValueError, "'exp_avg_sq' .*'W' has sh"),
    ("slot-flat", put_entry("exp_avg_sq", np.ravel), ValueError, "'exp_avg_sq' .*'W' has shape"),
    *[
        (f"slot-{dtype}", put_entry("exp_avg", lambda x, dtype=dtype: x.astype(dtype)),  # type: ignore[misc]
         ValueError, "'exp_avg' .*'W' has .*dtype")
        for dtype in ("f8", "f2", ">f4", "i4", "c8", "O", "U9")
    ],
    ("last-slot", lambda sd: {**sd, "state": {**sd["state"], "none": {**sd["state"]["none"],
     "exp_avg": np.zeros((3, 0), "f4")}}}, ValueError, "'exp_avg' .*'none' has shape"),
    ("groups-none", put("param_groups", None), ValueError, "'param_groups' must be a list of 1"),
    ("groups-dict", put("param_groups", {}), ValueError, "'param_groups' must be a list of 1"),
    ("groups-two", lambda sd: {**sd, "param_groups": sd["param_groups"] * 2}, ValueError,
     "'param_groups' must be a list of 1"),
    ("group-list", put("param_groups", [[]]), ValueError, "group 0 must have the parameters"),
    *[
        (f"group-params-{value!r}", put_group("params", value), ValueError, "group 0 must have the")
        for value in (None, 3, [], [0, 1, 2, 3, 4], ["W"], "Wb", np.zeros(5))
    ],
    ("group-without", without("param_groups", 0, "lr"), ValueError, "group 0 .*hyperparameters"),
    ("group-surplus", put_group("foreach", False), ValueError, "group 0 .*foreach"),
    ("group-key", put_group(3, 3), ValueError, "group 0 .*3"),
    ("group-lr", put_group("lr", -1), ValueError, "lr must be"),
    ("group-betas", put_group("betas", (0.9,)), ValueError, "betas must be"),
    ("group-flag", put_group("amsgrad", 1), TypeError, "amsgrad must be"),
    ("options-none", put("options", None), ValueError, "'options' must be a dict"),
    ("options-list", put("options", ["clip_norm"]), ValueError, "'options' must be a dict"),
    ("options-without", without("options", "clip_norm"), ValueError, "'options' must be a dict"),
    ("options-surplus", lambda sd: {**sd, "options": {**sd["options"], "x": 1}}, ValueError,
     "'options' must be a dict"),
    ("options-clip", lambda sd: {**sd, "options": {**sd["options"], "clip_value": -1}}, ValueError,
     "clip_value must be"),
    ("options-nonfinite", lambda sd: {**sd, "options": {**sd["options"], "nonfinite": "no"}},
     ValueError, "nonfinite must be"),
]  # fmt: skip
LOOSE = ("none", "without-state", "other-kind", "step_count--1", "state-list", "entry-none",
         "no-step", "no-slot", "slot-shape", "slot->f4", "slot-masked", f"step-{2**70}")  # fmt: skip


def state_rows() -> Iterator[Row]:
    for name, change, exception, match in STATES:

        def given(world: World, change: Change = change) -> Any:
            return change(saved(world))

        yield Row(
            f"state-{name}", given, lambda w, sd: w.adam.load_state_dict(sd), exception, match
        )
        if name in LOOSE:
            yield Row(f"state-loose-{name}", given,
                      lambda w, sd: w.adam.load_state_dict(sd, strict=False), exception, match)  # fmt: skip
    for key, value, error in [
        ("best", NAN, ValueError), ("best", "x", TypeError), ("lr", -1, ValueError),
        ("num_bad_epochs", 1.5, TypeError), ("last_epoch", -1, ValueError),
    ]:  # fmt: skip
        yield Row(
            f"plateau-{key}-{value}",
            lambda w, key=key, value=value: {**w.plateau.state_dict(), key: value},  # type: ignore[misc]
            lambda w, sd: w.plateau.load_state_dict(sd), error, key,
        )  # fmt: skip
    for bad in (None, {}, {"lr": 1}, 3):
        error = TypeError if bad is None or bad == 3 else ValueError
        yield Row(f"plateau-state-{bad}", lambda w, bad=bad: bad,  # type: ignore[misc]
                  lambda w, sd: w.plateau.load_state_dict(sd), error, "state_dict must")  # fmt: skip
    for bad in (None, "1", [1.0], 1j, True):
        yield Row(f"plateau-metric-{bad}", lambda w, bad=bad: bad,  # type: ignore[misc]
                  lambda w, m: w.plateau.update(m), TypeError, "metric must be")  # fmt: skip


def thread_rows() -> Iterator[Row]:
    def enter(world: World, n: Any) -> None:
        with fastgd.num_threads(n):
            raise AssertionError

    for n, error in [(0, ValueError), (-1, ValueError), (4097, ValueError), (2**70, ValueError)] + [
        (x, TypeError) for x in (1.0, "2", True, [1], NAN, b"1", 1j, np.ones(1))
    ]:
        for use in (lambda w, n: fastgd.set_num_threads(n), enter):
            yield Row(f"threads-{use.__name__}-{n!r}", lambda w, n=n: n,  # type: ignore[misc]
                      use, error, "number of threads must be")  # fmt: skip


# Options of MiniBatches; test_sampling.py has many more.
SAMPLING: list[tuple[dict[str, Any], type[Exception], str]] = [
    *(({"batch_size": x}, error, "batch_size") for x, error in
      [(0, ValueError), (-3, ValueError), (2.0, TypeError), ("2", TypeError), (True, TypeError)]),
    *(({"seed": x}, error, "seed") for x, error in
      [(-1, ValueError), (None, TypeError), (0.5, TypeError), (ones(1), TypeError)]),
    *(({"weights": x}, error, "weights") for x, error in
      [(ones(10), ValueError), (-ones(11), ValueError), (NAN * ones(11), ValueError),
       (0 * ones(11), ValueError), (["a"] * 11, TypeError), ([1j] * 11, TypeError)]),
    *(({"shard": x}, error, "shard") for x, error in
      [((2, 2), ValueError), (2, TypeError), ((0, 12), ValueError), ((0, None), TypeError)]),
    ({"stratify": ones(10)}, ValueError, "stratify"),
    ({"shuffle": 1}, TypeError, "shuffle"),
    ({"drop_last": None}, TypeError, "drop_last"),
    ({"prefetch": -1}, ValueError, "prefetch"),
    ({"reuse": "no"}, TypeError, "reuse"),
    ({"block_size": 0}, ValueError, "block_size"),
    ({"shuffle": False, "replacement": True}, ValueError, "shuffle=False and replacement=True"),
    ({"batch_size": 12, "drop_last": True}, ValueError, "drop_last=True leaves no batch"),
]  # fmt: skip


def sampling_rows() -> Iterator[Row]:
    for options, exception, match in SAMPLING:
        yield Row(
            f"batches-{options}"[:60], lambda w, options=options: options,  # type: ignore[misc]
            lambda w, options: MiniBatches(w.data, **options), exception, match,
        )  # fmt: skip
    for data, exception, match in [
        ((), ValueError, "at least one array"), (([1, 2],), TypeError, "array 0"),
        ((ones(11), ones(10)), ValueError, "array 1 has 10"), ((ones(0),), ValueError, "array 0 has no s"),
        (({"x": ones(3)}, ones(3)), TypeError, "not both"), ((None,), TypeError, "array 0 .*NoneType"),
        ((np.float64(3),), ValueError, "array 0 has no dim"), (({"x": 3},), TypeError, "array 'x'"),
    ]:  # fmt: skip
        yield Row(f"batches-data-{match}-{exception.__name__}-{len(data)}", lambda w, data=data: data,  # type: ignore[misc]
                  lambda w, data: MiniBatches(*data), exception, match)  # fmt: skip
    for epoch, error in [(-1, ValueError), (1.0, TypeError), (None, TypeError), (True, TypeError)]:
        yield Row(f"batches-set_epoch-{epoch}", lambda w, epoch=epoch: epoch,  # type: ignore[misc]
                  lambda w, epoch: w.batches.set_epoch(epoch), error, "epoch must be")  # fmt: skip
    for name, change, error, match in [
        ("none", lambda sd: None, TypeError, "must be a dict"),
        ("empty", lambda sd: {}, ValueError, "lacks"),
        ("position", put("position", 99), ValueError, "'position'.* 99"),
        ("position-float", put("position", 1.0), TypeError, "'position'"),
        ("epoch", put("epoch", -1), ValueError, "'epoch'"),
        ("seed", put("seed", True), TypeError, "'seed'"),
        ("options", put("options", []), TypeError, "'options'"),
        ("other-size", lambda sd: {**sd, "options": {**sd["options"], "batch_size": 3}}, ValueError,
         "batch_size is 3"),
        ("other-n", lambda sd: {**sd, "options": {**sd["options"], "n_samples": 3}}, ValueError,
         "n_samples is 3"),
        ("of-adam", lambda sd: {"state": {}, "param_groups": []}, ValueError, "lacks"),
    ]:  # fmt: skip

        def given(world: World, change: Change = change) -> Any:
            return change({**world.batches.state_dict(), "position": 0})

        yield Row(f"batches-state-{name}", given,
                  lambda w, sd: w.batches.load_state_dict(sd), error, match)  # fmt: skip


INITIAL: list[tuple[dict[str, Any], type[Exception], str]] = [
    *(({"shape": x}, error, "shape") for x, error in
      [((3,), ValueError), (3, TypeError), ((0, 3), ValueError), ((2, -1), ValueError),
       ((2.0, 3), TypeError), ("ab", TypeError), (None, TypeError)]),
    *(({"gain": x}, error, "gain") for x, error in
      [(0, ValueError), (-1, ValueError), (NAN, ValueError), (INF, ValueError), ("x", ValueError),
       (None, TypeError), (True, TypeError), (ones(1), TypeError)]),
    *(({"dtype": x}, TypeError, "dtype") for x in ("i4", "f2", ">f4", None, "nonsense", complex)),
    ({"layout": "io"}, ValueError, "layout"), ({"layout": None}, TypeError, "layout"),
]  # fmt: skip


def initializer_rows() -> Iterator[Row]:
    functions = [initializers.glorot_uniform, initializers.orthogonal]
    for function in functions:
        for options, exception, match in INITIAL:
            arguments = {"shape": (2, 3), **options}
            yield Row(
                f"{function.__name__}-{options}"[:60], lambda w, a=arguments: a,  # type: ignore[misc]
                lambda w, a, f=function: f(**a, seed=w.rng),  # type: ignore[misc]
                exception, f"^{match} must",
            )  # fmt: skip
    for seed, error in [(-1, ValueError), (1.0, TypeError), ("1", TypeError), (True, TypeError),
                        (np.random.RandomState(0), TypeError)]:  # fmt: skip
        yield Row(
            f"initializer-seed-{type(seed).__name__}", lambda w, seed=seed: seed,  # type: ignore[misc]
            lambda w, seed: initializers.lecun_normal((2, 3), seed=seed), error, "^seed must",
        )  # fmt: skip


ROWS = [*state_rows(), *thread_rows(), *sampling_rows(), *initializer_rows()]
