"""save and load: what was saved comes back bit for bit, in place, or nothing changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd.averaging import ExponentialAverage
from tests.cases import CASES, Case
from tests.checkpoint.objects import (
    Box,
    everything,
    files,
    frozen,
    gradients,
    like,
    parameters,
    trained,
)
from tests.support import tame


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.npz"


# ---------------------------------------------------------------- optimizers


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_option(case: Case, dtype: type[np.floating], path: Path) -> None:
    rng = np.random.default_rng(1)
    opt = fastgd.__dict__[case.optimizer](parameters(rng, dtype, case.optimizer), **case.kwargs)
    for _ in range(3):
        opt.step(gradients(opt, rng))
    fastgd.save(path, opt)
    other = fastgd.__dict__[case.optimizer](parameters(rng, dtype, case.optimizer), **case.kwargs)
    arrays = other.params
    assert everything(other) != everything(opt)
    fastgd.load(path, other)
    assert everything(other) == everything(opt)
    assert all(array is arrays[name] for name, array in other.params.items())
    for optimizer in (opt, other):
        optimizer.step(gradients(optimizer, np.random.default_rng(2)))
    assert everything(other) == everything(opt)


def test_saving_changes_nothing(rng: np.random.Generator, path: Path) -> None:
    opt = trained(rng)
    before = everything(opt)
    fastgd.save(path, opt)
    assert everything(opt) == before


def test_file_wins_over_hyperparameters(rng: np.random.Generator, path: Path) -> None:
    opt = trained(rng, "SGD", momentum=0.9, lr=0.25, clip_norm=2.0, nonfinite="skip")
    fastgd.save(path, opt)
    other = like(opt, momentum=0, lr=0.5, clip_value=1.0, maximize=True)
    fastgd.load(path, other)
    assert everything(other) == everything(opt)
    assert other.param_groups[0]["maximize"] is False
    assert other.clip_value is None


def test_state_that_the_file_lacks_goes(rng: np.random.Generator, path: Path) -> None:
    plain = trained(rng, "SGD")
    fastgd.save(path, plain)
    other = trained(rng, "SGD", momentum=0.9)
    fastgd.load(path, other)
    assert everything(other) == everything(plain)


def test_memory_orders_may_differ(path: Path, rng: np.random.Generator) -> None:
    values, g = tame(rng, (4, 3), np.float32), tame(rng, (4, 3), np.float32)
    for first, second in (("C", "F"), ("F", "C")):
        opt = fastgd.Adam(np.array(values, order=first))
        opt.step(g)
        fastgd.save(path, opt)
        other = fastgd.Adam(np.zeros((4, 3), np.float32, order=second))
        fastgd.load(path, other)
        assert everything(other) == everything(opt)


def test_names(path: Path) -> None:
    names = [
        "",
        "a b",
        "ä",
        "..",
        ".",
        "x/../y",
        "\\",
        "%2E",
        "$tuple",
        "a~2",
        "\ud800",
        "\0",
        "n" * 3000,
    ]
    names += ["n" * 3000 + "m", "header.json"]
    params: Any = {name: np.full(2, float(i)) for i, name in enumerate(names)}
    params |= {7: np.zeros(1), (1, 2): np.ones(1)}
    opt = fastgd.SGD(params, momentum=0.5)
    opt.step({name: np.ones_like(p) for name, p in params.items()})
    fastgd.save(path, opt)
    other = fastgd.SGD({name: np.zeros_like(p) for name, p in params.items()})
    fastgd.load(path, other)
    assert everything(other) == everything(opt)
    with np.load(path) as archive:
        for member in archive.files:
            assert member.isascii()
            assert "\\" not in member
            assert not {"..", "."} & set(member.split("/"))


def test_groups_added_later(rng: np.random.Generator, path: Path) -> None:
    def make() -> Any:
        opt = fastgd.Adam([{"params": np.zeros(2)}, {"params": {"b": np.zeros(3)}, "lr": 0.5}])
        opt.add_param_group({"params": [np.zeros((2, 2), np.float32)], "amsgrad": True})
        return opt

    opt, other = make(), make()
    opt.step([rng.normal(size=2), {"b": None}, [np.ones((2, 2))]])
    fastgd.save(path, opt)
    fastgd.load(path, other)
    assert everything(other) == everything(opt)
    assert [other.state[name]["step"] for name in other.params] == [1, 0, 1]


def test_extreme_values(path: Path) -> None:
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324, 1.7976931348623157e308])
    special.view(np.uint64)[0] |= 0x1234  # a NaN with a payload
    opt = fastgd.SGD(special, lr=5e-324, weight_decay=0.1)
    fastgd.save(path, opt)
    other = fastgd.SGD(np.zeros(6))
    fastgd.load(path, other)
    assert everything(other) == everything(opt)


# ---------------------------------------------------------------- everything else


@pytest.mark.parametrize("bits", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_generators(bits: str, rng: np.random.Generator, path: Path) -> None:
    def make(seed: int) -> np.random.Generator:
        return np.random.Generator(getattr(np.random, bits)(seed))

    ours, theirs = make(1), make(2)
    ours.integers(2**32, dtype=np.uint32)  # leaves half of a draw behind
    fastgd.save(path, trained(rng), rng=ours)
    fastgd.load(path, trained(rng), rng=theirs)
    for _ in range(700):
        assert ours.integers(2**32, dtype=np.uint32) == theirs.integers(2**32, dtype=np.uint32)
    assert ours.normal() == theirs.normal()


def test_random_state(rng: np.random.Generator, path: Path) -> None:
    ours, theirs = np.random.RandomState(1), np.random.RandomState(2)
    ours.standard_normal()  # keeps the second of a pair
    fastgd.save(path, trained(rng), legacy=ours)
    fastgd.load(path, trained(rng), legacy=theirs)
    assert [ours.standard_normal() for _ in range(5)] == [
        theirs.standard_normal() for _ in range(5)
    ]


def test_another_generator_is_refused(rng: np.random.Generator, path: Path) -> None:
    fastgd.save(path, trained(rng), rng=np.random.default_rng(1))
    opt, other = trained(rng), np.random.Generator(np.random.MT19937(1))
    before = frozen(other.bit_generator.state), everything(opt)
    with pytest.raises(fastgd.CheckpointError, match="does not fit 'rng', and nothing was loaded"):
        fastgd.load(path, opt, rng=other)
    assert (frozen(other.bit_generator.state), everything(opt)) == before


def test_samplers_and_averages(rng: np.random.Generator, path: Path) -> None:
    X = np.arange(20.0)

    def make(seed: int) -> tuple[Any, Any, Any]:
        opt = trained(np.random.default_rng(seed))
        return opt, fastgd.MiniBatches(X, batch_size=3, seed=seed), ExponentialAverage(opt.params)

    (opt, batches, average), (opt2, batches2, average2) = make(1), make(2)
    iterator = iter(batches)
    next(iterator)
    average.update()
    fastgd.save(path, opt, sampler=batches, average=average)
    fastgd.load(path, opt2, sampler=batches2, average=average2)
    assert [b[0].tolist() for b in batches2] == [b[0].tolist() for b in iterator]
    assert frozen(average2.state_dict()) == frozen(average.state_dict())


def test_two_optimizers(rng: np.random.Generator, path: Path) -> None:
    generator, critic = trained(rng, "Adam"), trained(rng, "RMSprop", momentum=0.5)
    fastgd.save(path, generator, critic=critic)
    generator2, critic2 = like(generator), like(critic)
    fastgd.load(path, generator2, critic=critic2)
    assert everything(generator2) == everything(generator)
    assert everything(critic2) == everything(critic)


VALUES: dict[str, Any] = {
    "none": None,
    "ints": [0, -1, 2**200, True, False],
    "floats": [0.1, -0.0, 1e-320, math.inf, -math.inf],
    "nan": [math.nan],
    "strings": ["", "ä\n\0", "\ud800", "$float"],
    "tuples": [(), (1, (2, [3])), []],
    "dicts": [{}, {"a": {"b": (1,)}}],
    "odd keys": [{1: "a", (1, 2): "b", None: 0, 0.5: 1}, {"$array": 1}, {"x": {"$dict": []}}],
    "scalars": [np.float64(0.1), np.float32(0.1), np.int8(-3), np.bool_(True), np.float16(1.5)],
    "arrays": [
        np.arange(6).reshape(2, 3),
        np.array(True),
        np.zeros((3, 0), complex),
        np.arange(4, dtype=">f8"),
        np.arange(20, dtype=np.uint8)[::3],
        np.asfortranarray(np.arange(8.0).reshape(2, 2, 2))[:, 1],
        np.arange(8.0).reshape(2, 4).T[::-1],
    ],
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_values(value: Any, rng: np.random.Generator, path: Path) -> None:
    opt, box = trained(rng), Box()
    fastgd.save(path, opt, box=Box(value), metadata={"value": value})
    checkpoint = fastgd.load(path, opt, box=box)
    for actual in (box.value, checkpoint.metadata["value"], fastgd.load(path).objects["box"]):
        assert frozen(actual) == frozen(value)


NOT_STORED: dict[str, Any] = {
    "object": object(),
    "function": len,
    "complex": 1j,
    "set": {1},
    "bytes": b"a",
    "object array": np.array([None]),
    "strings": np.array(["a"]),
    "records": np.zeros(1, [("a", "f4")]),
    "dates": np.zeros(1, "M8[s]"),
    "masked": np.ma.zeros(3),
}


@pytest.mark.parametrize("value", NOT_STORED.values(), ids=NOT_STORED)
def test_values_refused(value: Any, rng: np.random.Generator, path: Path) -> None:
    opt = trained(rng)
    with pytest.raises(TypeError, match="cannot store metadata/a/0"):
        fastgd.save(path, opt, metadata={"a": [value]})
    with pytest.raises(TypeError, match="cannot store box/1"):
        fastgd.save(path, opt, box=Box((0, value)))
    assert files(path.parent) == []


def test_endless_containers(rng: np.random.Generator, path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="contains itself"):
        fastgd.save(path, trained(rng), metadata={"a": endless})
