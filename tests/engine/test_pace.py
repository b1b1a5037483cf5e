"""Whether repeated work is done by a team or by one thread: the faster way, tried anew now and then."""

from __future__ import annotations

import pytest

import fastgd
from fastgd._engine import _runtime

pytestmark = pytest.mark.skipif(
    not fastgd._engine.openmp_version or fastgd.get_num_threads() < 2,
    reason="one thread is all there is",
)
FEW = 3  # uses in which both ways are timed first


def choices(pace: _runtime.Pace, uses: int, serial: float, team: float) -> list[bool]:
    return [pace.replay(serial, team) for _ in range(uses)]


@pytest.fixture
def pace(restored_threads: None) -> _runtime.Pace:
    fastgd.set_num_threads(None)
    return _runtime.Pace()


def test_both_ways_are_tried_first(pace: _runtime.Pace) -> None:
    assert choices(pace, FEW, 1.0, 1.0) == [False, True, False]


@pytest.mark.parametrize(("serial", "team"), [(1.0, 3.0), (3.0, 1.0)])
def test_the_faster_way_is_taken(pace: _runtime.Pace, serial: float, team: float) -> None:
    choices(pace, FEW, serial, team)
    taken = choices(pace, 200, serial, team)
    right = taken.count(serial < team)
    assert right > 190
    assert right < 200  # the other was tried


def test_trials_of_the_slower_way_become_rare(pace: _runtime.Pace) -> None:
    choices(pace, FEW, 1.0, 3.0)
    first, later = choices(pace, 500, 1.0, 3.0), choices(pace, 500, 1.0, 3.0)
    assert later.count(False) < first.count(False)


def test_what_has_become_faster_is_found(pace: _runtime.Pace) -> None:
    """Another library's threads were in the way, and have gone: it takes a few trials."""
    choices(pace, 100, 1.0, 10.0)
    taken = choices(pace, 20_000, 1.0, 0.5)
    assert taken[-1000:].count(False) > 980


def test_a_number_that_was_chosen_is_obeyed(pace: _runtime.Pace) -> None:
    fastgd.set_num_threads(2)
    with pytest.raises(RuntimeError, match="fixed"):
        pace.replay(1.0, 1.0)
