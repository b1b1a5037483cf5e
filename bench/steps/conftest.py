"""What the pytest-benchmark suites share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import fastgd
from bench.steps.peers import CONTESTANTS, Unavailable
from bench.steps.workloads import Case


@pytest.fixture
def time_step(benchmark: Any) -> Callable[[Case, str], None]:
    """Times the step of one contestant, on as many threads as fastgd uses by default."""

    def run(case: Case, name: str) -> None:
        fastgd.set_num_threads(None)
        try:
            contestant = CONTESTANTS[name](case, fastgd.get_num_threads())
        except Unavailable as reason:
            pytest.skip(f"{name}: {reason}")
        benchmark.group = case.key
        benchmark.extra_info.update(elements=case.count * case.size, note=contestant.note)
        contestant.prepare()
        benchmark(contestant.once())

    return run
