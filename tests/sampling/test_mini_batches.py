"""Mini-batches: every order is a function of (seed, epoch), every batch is X[index] bit for bit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fastgd
from fastgd.sampling import _samplers

N = 23
X = np.arange(N * 3, dtype=np.float32).reshape(N, 3)
Y = np.arange(N)
WEIGHTS = np.arange(N) % 4
LABELS = np.arange(N) % 3 // 2

deterministic = settings(derandomize=True, deadline=None, max_examples=60)
MODES: dict[str, dict[str, Any]] = {
    "shuffled": {},
    "sequential": {"shuffle": False},
    "replacement": {"replacement": True},
    "weighted": {"weights": WEIGHTS},
    "stratified": {"stratify": LABELS},
    "blocks": {"block_size": 2},
}
SIZES = [1, 4, N, 100, None]
modes = pytest.mark.parametrize("mode", MODES)


def ids(batches: fastgd.MiniBatches | Iterator[Any]) -> list[list[int]]:
    """The samples of the remaining batches, read off the second array."""
    return [yb.tolist() for _, yb in batches]


def flat(batches: fastgd.MiniBatches | Iterator[Any]) -> list[int]:
    return [i for batch in ids(batches) for i in batch]


def make(**options: Any) -> fastgd.MiniBatches:
    return fastgd.MiniBatches(X, Y, **options)


# ---------------------------------------------------------------- the order of an epoch


def test_the_documented_order() -> None:
    batches = make(batch_size=4, seed=7)
    for epoch in range(3):
        sequence = np.random.SeedSequence(7, spawn_key=(epoch,))
        expected = np.random.default_rng(sequence).permutation(N)
        assert_array_equal(batches.order(epoch), expected)
        assert flat(batches) == expected.tolist()


def test_no_two_pairs_of_seed_and_epoch_share_an_order() -> None:
    """However the two numbers may be strung together."""
    numbers = (0, 1, 2, 2**32, 2**32 + 1, 2**64, 2 + 2**32, 2 + 2**64)
    orders = {
        tuple(make(batch_size=4, seed=seed).order(epoch))
        for seed in numbers
        for epoch in (0, 1, 2, 2**32)
    }
    assert len(orders) == 4 * len(numbers)


@modes
@pytest.mark.parametrize("size", [1, 4, None])
@pytest.mark.parametrize("drop_last", [False, True])
def test_order_tells_the_batches(mode: str, size: int | None, drop_last: bool) -> None:
    for rank in range(3):
        batches = make(batch_size=size, drop_last=drop_last, shard=(rank, 3), seed=5, **MODES[mode])
        order = batches.order().tolist()
        got = ids(batches)
        assert [i for batch in got for i in batch] == order
        assert len(got) == len(batches)


@modes
@pytest.mark.parametrize("size", SIZES)
def test_batches_are_full_but_for_the_last(mode: str, size: int | None) -> None:
    k = N if size is None else size
    batches = make(batch_size=size, **MODES[mode])
    lengths = [len(batch) for batch in ids(batches)]
    assert lengths == [min(k, N - low) for low in range(0, N, k)]
    assert len(batches) == math.ceil(N / k)
    if k <= N:
        batches = make(batch_size=size, drop_last=True, **MODES[mode])
        assert [len(batch) for batch in ids(batches)] == [k] * (N // k)
        assert len(batches) == N // k


@deterministic
@given(st.data())
def test_every_sample_once_per_epoch_over_all_ranks(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 200))
    y = np.arange(n)
    count = data.draw(st.integers(1, min(n, 5)))
    size = data.draw(st.one_of(st.none(), st.integers(1, n + 3)))
    labels = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    mode = data.draw(
        st.sampled_from(
            [{}, {"shuffle": False}, {"block_size": n // 7 + 1}, {"block_size": 1},
             {"stratify": labels}]
        )
    )  # fmt: skip
    seed, epoch = data.draw(st.integers(0, 2**70)), data.draw(st.integers(0, 3))
    seen: list[int] = []
    for rank in range(count):
        batches = fastgd.MiniBatches(
            y, batch_size=size, seed=seed, shard=(rank, count), prefetch=rank % 2, **mode
        )
        batches.set_epoch(epoch)
        mine = [i for (yb,) in batches for i in yb.tolist()]
        assert n // count <= len(mine) <= -(-n // count)
        seen += mine
    assert sorted(seen) == list(range(n))


@pytest.mark.parametrize("mode", ["shuffled", "sequential", "replacement", "weighted"])
def test_batches_of_all_ranks_make_up_one_big_batch(mode: str) -> None:
    ranks = [ids(make(batch_size=2, shard=(rank, 3), seed=1, **MODES[mode])) for rank in range(3)]
    big = ids(make(batch_size=6, seed=1, **MODES[mode]))
    for number, batch in enumerate(big):
        assert sorted(i for rank in ranks for i in rank[number]) == sorted(batch)


@modes
def test_drop_last_gives_all_ranks_the_same_number_of_samples(mode: str) -> None:
    ranks = [make(batch_size=7, drop_last=True, shard=(r, 3), **MODES[mode]) for r in range(3)]
    assert [len(batches) for batches in ranks] == [1, 1, 1]  # of 8, 8 and 7 samples
    if "replacement" not in mode and mode != "weighted":
        seen = [i for batches in ranks for i in flat(batches)]
        assert len(set(seen)) == len(seen) == 21


@modes
def test_epochs_and_seeds_differ(mode: str) -> None:
    first, again = (
        make(batch_size=4, seed=3, **MODES[mode]),
        make(batch_size=4, seed=3, **MODES[mode]),
    )
    epochs = [ids(first) for _ in range(3)]
    assert epochs == [ids(again) for _ in range(3)]
    if mode != "sequential":
        assert epochs[0] != epochs[1] != epochs[2]
        assert ids(make(batch_size=4, seed=4, **MODES[mode])) != epochs[0]


def test_the_global_random_state_does_not_matter() -> None:
    state = np.random.get_state()  # noqa: NPY002
    expected = flat(make(batch_size=4))
    np.random.seed(1)  # noqa: NPY002
    assert flat(make(batch_size=4)) == expected
    np.random.set_state(state)  # noqa: NPY002


# ---------------------------------------------------------------- weights and strata


@deterministic
@given(
    st.lists(
        st.one_of(st.just(0.0), st.floats(1e-300, 1e300), st.floats(0.5, 2.0)),
        min_size=1,
        max_size=80,
    ).filter(any)
)
def test_alias_table_has_exactly_the_given_probabilities(weights: list[float]) -> None:
    w = np.array(weights)
    threshold, alias = _samplers.alias_table(w)
    assert threshold.min() >= 0
    assert threshold.max() <= 1
    owned = threshold + np.bincount(alias, 1 - threshold, minlength=w.size)
    expected = w / w.max() / (w / w.max()).sum()
    np.testing.assert_allclose(owned / w.size, expected, rtol=0, atol=w.size * 2.0**-52)
    assert not owned[w == 0].any()


@pytest.mark.parametrize(
    "weights", [np.ones(5), np.full(7, 0.1), np.array([3.0]), np.array([0, 2])]
)
def test_alias_table_of_equal_weights(weights: np.ndarray) -> None:
    threshold, alias = _samplers.alias_table(weights.astype(float))
    owned = threshold + np.bincount(alias, 1 - threshold, minlength=weights.size)
    np.testing.assert_allclose(owned, weights / weights.mean(), rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, bool])
def test_weighted_draws_have_the_right_frequencies(dtype: type) -> None:
    n = 30_000
    weights = (np.arange(n) % 5).astype(dtype)
    share = weights[:5] / weights[:5].sum(dtype=float)
    drawn = fastgd.MiniBatches(np.arange(n), weights=weights, batch_size=100).order()
    counts = np.bincount(drawn % 5, minlength=5)
    assert counts[0] == 0
    chi2 = np.sum((counts[1:] - n * share[1:]) ** 2 / (n * share[1:]))
    assert chi2 < 16.3  # 3 degrees of freedom, p = 0.001


@pytest.mark.long
def test_weighted_draws_from_more_than_two_to_the_24() -> None:
    n = 2**24 + 1000
    weights = np.ones(n, np.uint8)
    weights[-1000:] = 100
    drawn = fastgd.MiniBatches(weights, weights=weights, batch_size=100).order()
    expected = n * 100_000 / weights.sum(dtype=float)
    assert abs(np.sum(drawn >= n - 1000) - expected) < 5 * math.sqrt(expected)


def test_draws_with_replacement_are_uniform_and_repeat() -> None:
    n = 20_000
    drawn = fastgd.MiniBatches(np.arange(n), replacement=True, batch_size=100).order()
    assert drawn.shape == (n,)
    assert abs(np.unique(drawn).size / n - (1 - math.exp(-1))) < 0.01
    chi2 = np.sum((np.bincount(drawn // 1000, minlength=20) - 1000) ** 2 / 1000)
    assert chi2 < 43.8  # 19 degrees of freedom, p = 0.001


@deterministic
@given(st.data())
def test_strata_are_whole_samples_next_to_their_share(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 150))
    size = data.draw(st.integers(1, n))
    labels = np.array(data.draw(st.lists(st.sampled_from("aaabc"), min_size=n, max_size=n)))
    count = data.draw(st.integers(1, min(3, n)))
    drop_last = data.draw(st.booleans()) and size <= n // count
    for rank in range(count):
        batches = fastgd.MiniBatches(
            labels, batch_size=size, stratify=labels, shard=(rank, count), drop_last=drop_last
        )
        got = [batch for (batch,) in batches]
        whole = fastgd.MiniBatches(
            labels, stratify=labels, shard=(rank, count), drop_last=drop_last
        )
        ((mine,),) = whole
        for label in "abc":
            members = int(np.sum(mine == label))
            for batch in got:
                ideal = members * len(batch)  # times the number of samples of this rank
                assert ideal // mine.size <= np.sum(batch == label) <= -(-ideal // mine.size)
            total = int(np.sum(labels == label))
            assert total // count - drop_last <= members <= -(-total // count)


def test_strata_without_a_remainder_are_exact() -> None:
    labels = np.repeat(["cat", "dog", "owl"], [50, 30, 20])
    for _ in range(2):
        for (batch,) in fastgd.MiniBatches(labels, batch_size=10, stratify=labels):
            assert [int(np.sum(batch == label)) for label in ("cat", "dog", "owl")] == [5, 3, 2]


def test_strata_leave_every_sample_every_place() -> None:
    labels = np.array(
        [1] + [0] * 9
    )  # the lone sample is in the last batch, of one, as often as any
    batches = fastgd.MiniBatches(labels, batch_size=3, stratify=labels)
    orders = np.array([batches.order(epoch) for epoch in range(1000)])
    for sample in (0, 1):
        counts = np.count_nonzero(orders == sample, axis=0)
        assert np.sum((counts - 100) ** 2 / 100) < 27.9  # 9 degrees of freedom, p = 0.001


# ---------------------------------------------------------------- epochs and resuming


def test_each_loop_is_the_next_epoch() -> None:
    batches = make(batch_size=10)
    orders = [batches.order(epoch).tolist() for epoch in range(5)]
    assert batches.epoch == 0
    assert flat(batches) == orders[0]
    assert batches.epoch == 1
    for _ in batches:
        assert batches.epoch == 1
        break
    assert batches.epoch == 1  # left early: it did not end
    assert flat(batches) == orders[2]
    batches.set_epoch(1)
    assert flat(batches) == orders[1]
    one, two = iter(batches), iter(batches)
    assert batches.epoch == 3
    assert [flat(one), flat(two)] == orders[2:4]


def test_an_iterator_keeps_its_seed() -> None:
    batches = make(batch_size=10, seed=1)
    expected = batches.order().tolist()
    iterator = iter(batches)
    batches.load_state_dict(make(batch_size=10, seed=2).state_dict())
    assert flat(iterator) == expected
    assert batches.state_dict()["seed"] == 2


def test_an_older_iterator_does_not_move_the_state() -> None:
    batches = make(batch_size=10)
    old = iter(batches)
    next(old)
    new = iter(batches)
    next(new)
    flat(old)
    assert batches.state_dict()["epoch"] == 1
    assert batches.state_dict()["position"] == 1


@modes
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefetch", [0, 3])
def test_resuming_gives_exactly_the_remaining_batches(
    mode: str, size: int | None, prefetch: int
) -> None:
    options = {**MODES[mode], "batch_size": size, "prefetch": prefetch}
    batches = make(seed=2, **options)
    flat(batches)
    states, seen = [batches.state_dict()], []
    for _, yb in batches:
        seen.append(yb.tolist())
        states.append(batches.state_dict())
    following = ids(batches)
    for number, state in enumerate(states):
        resumed = make(**options)
        resumed.load_state_dict(json.loads(json.dumps(state)))
        assert resumed.epoch == 1
        assert resumed.state_dict() == state
        assert ids(resumed) == seen[number:]
        assert ids(resumed) == following


def test_a_broken_loop_goes_on_by_loading_its_own_state() -> None:
    batches = make(batch_size=4)
    expected = batches.order().tolist()
    got = []
    for number, (_, yb) in enumerate(batches):
        got += yb.tolist()
        if number == 2:
            break
    batches.load_state_dict(batches.state_dict())
    assert got + flat(batches) == expected


STATE = make(batch_size=4).state_dict()


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (None, TypeError, "must be a dict, not NoneType"),
        ({}, ValueError, "it lacks \\['seed', 'epoch'"),
        ({"optimizer": "Adam", "state": {}}, ValueError, "no state_dict of a MiniBatches"),
        ({**STATE, "options": 3}, TypeError, "options"),
        ({**STATE, "options": {}}, ValueError, "lacks the option 'n_samples'"),
        ({**STATE, "epoch": 1.5}, TypeError, "'epoch'.* must be an integer"),
        ({**STATE, "epoch": True}, TypeError, "'epoch'.* must be an integer"),
        ({**STATE, "seed": -1}, ValueError, "'seed'.* must be at least 0"),
        ({**STATE, "position": 7}, ValueError, "'position'.* is 7, but an epoch has 6 batches"),
        (make(batch_size=5).state_dict(), ValueError, "its batch_size is 5, .* is 4"),
        (make(batch_size=4, shard=(1, 2)).state_dict(), ValueError, "its shard is"),
        (make(batch_size=4, weights=WEIGHTS).state_dict(), ValueError, "its replacement is True"),
    ],
)
def test_foreign_states_are_refused(state: Any, error: type[Exception], message: str) -> None:
    batches = make(batch_size=4)
    next(iter(batches))
    before = batches.state_dict()
    with pytest.raises(error, match=message):
        batches.load_state_dict(state)
    assert batches.state_dict() == before


@pytest.mark.parametrize("option", ["weights", "stratify"])
def test_states_with_other_weights_or_labels_are_refused(option: str) -> None:
    state = make(batch_size=4, **{option: np.arange(N)}).state_dict()
    with pytest.raises(ValueError, match=f"its {option} were not those"):
        make(batch_size=4, **{option: np.arange(N)[::-1] // 2}).load_state_dict(state)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        ((), {}, ValueError, "at least one array"),
        (({},), {}, ValueError, "at least one array"),
        ((X, Y[1:]), {}, ValueError, "array 1 has 22 samples, but array 0 has 23"),
        (({"x": X, "y": Y[1:]},), {}, ValueError, "array 'y' has 22 samples, but array 'x' has 23"),
        (({"x": X}, Y), {}, TypeError, "either arrays or one dict"),
        ((Y, {"x": X}), {}, TypeError, "either arrays or one dict"),
        ((X[:0], Y[:0]), {}, ValueError, "array 0 has no samples"),
        ((X, np.float64(3)), {}, ValueError, "array 1 has no dimension"),
        (([X, Y],), {}, TypeError, "array 0 must be an array, not list; .* separate arguments"),
        ((X, None), {}, TypeError, "array 1 must be an array, not NoneType"),
        (({"x": np.ma.array(X)},), {}, TypeError, "array 'x' is a masked array"),
        ((X,), {"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0; None makes"),
        ((X,), {"batch_size": -4}, ValueError, "batch_size must be at least 1, got -4"),
        ((X,), {"batch_size": True}, TypeError, "batch_size must be an integer, got bool"),
        ((X,), {"batch_size": 4.0}, TypeError, "batch_size must be an integer, got float"),
        ((X,), {"batch_size": "4"}, TypeError, "batch_size must be an integer, got str"),
        ((X,), {"seed": -1}, ValueError, "seed must be at least 0"),
        ((X,), {"seed": None}, TypeError, "seed must be an integer"),
        ((X,), {"shuffle": 1}, TypeError, "shuffle must be True or False, got int: 1"),
        ((X,), {"drop_last": "no"}, TypeError, "drop_last must be True or False"),
        ((X,), {"replacement": None}, TypeError, "replacement must be True or False"),
        ((X,), {"reuse": 0}, TypeError, "reuse must be True or False"),
        ((X,), {"prefetch": -1}, ValueError, "prefetch must be at least 0"),
        ((X,), {"prefetch": True}, TypeError, "prefetch must be an integer"),
        ((X,), {"block_size": 0}, ValueError, "block_size must be at least 1"),
        ((X,), {"weights": WEIGHTS[1:]}, ValueError, "weights must be of shape \\(23,\\)"),
        ((X,), {"weights": X}, ValueError, "weights must be of shape \\(23,\\)"),
        ((X,), {"weights": 2.0}, ValueError, "weights must be of shape \\(23,\\)"),
        ((X,), {"weights": 2.0 - Y}, ValueError, "weights\\[3\\] is -1.0"),
        ((X,), {"weights": np.where(Y == 5, np.nan, 1)}, ValueError, "weights\\[5\\] is nan"),
        ((X,), {"weights": np.where(Y == 6, np.inf, 1)}, ValueError, "weights\\[6\\] is inf"),
        ((X,), {"weights": 0 * Y}, ValueError, "weights are all zero"),
        ((X,), {"weights": Y + 1j}, TypeError, "weights must be real numbers"),
        ((X,), {"weights": ["1"] * N}, TypeError, "weights must be real numbers"),
        ((X,), {"stratify": True}, ValueError, "stratify must be of shape \\(23,\\)"),
        ((X,), {"stratify": np.eye(N)}, ValueError, "stratify must be of shape \\(23,\\)"),
        (
            (X,),
            {"stratify": np.array([None, "a", 1] * 7 + [2, 3])},
            TypeError,
            "stratify has labels",
        ),
        ((X,), {"shard": 3}, TypeError, "shard must be \\(rank, count\\)"),
        ((X,), {"shard": (1, 2, 3)}, TypeError, "shard must be \\(rank, count\\)"),
        ((X,), {"shard": (2, 2)}, ValueError, "shard's rank must be below its count, 2, not 2"),
        ((X,), {"shard": (-1, 2)}, ValueError, "shard's rank must be at least 0"),
        ((X,), {"shard": (0, 0)}, ValueError, "shard's count must be at least 1"),
        ((X,), {"shard": (0, 1.0)}, TypeError, "shard's count must be an integer"),
        ((X,), {"shard": (0, 24)}, ValueError, "23 samples are too few for 24 shards"),
        ((X,), {"batch_size": 24, "drop_last": True}, ValueError, "leaves no batch: .*24.* 23"),
        ((X,), {"batch_size": 12, "drop_last": True, "shard": (0, 2)}, ValueError, "per shard"),
        ((X,), {"shuffle": False, "replacement": True}, ValueError, "shuffle=False and replac"),
        ((X,), {"shuffle": False, "block_size": 4}, ValueError, "shuffle=False and block_size"),
        ((X,), {"weights": WEIGHTS, "stratify": Y}, ValueError, "weights and stratify exclude"),
        ((X,), {"replacement": True, "block_size": 3}, ValueError, "exclude each other"),
        ((X,), {"stratify": Y, "block_size": 3}, ValueError, "exclude each other"),
    ],
)
def test_refused(
    data: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fastgd.MiniBatches(*data, **options)


@pytest.mark.parametrize("epoch", [-1, 1.0, True, None])
def test_set_epoch_refuses(epoch: Any) -> None:
    batches = make()
    with pytest.raises((TypeError, ValueError), match="epoch must be"):
        batches.set_epoch(epoch)


def test_numpy_scalars_are_numbers() -> None:
    batches = make(
        batch_size=np.int64(4), seed=np.uint8(1), shuffle=np.True_, shard=(np.int32(0), 1)
    )
    assert flat(batches) == make(batch_size=4, seed=1).order(0).tolist()
    json.dumps(batches.state_dict())


def test_repr() -> None:
    assert repr(make(batch_size=4)) == "<MiniBatches: 23 samples in 6 batches of 4, epoch 0>"
