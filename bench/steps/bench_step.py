"""One step of every optimizer and library, without clipping.

    python -m pytest bench/steps/bench_step.py -k "AdamW and 100x1k"

For a first look, and for comparing one commit with the next (--benchmark-autosave and
--benchmark-compare). Contestants run one after the other here: report.py alternates between them, and
published ratios come from it. OMP_NUM_THREADS sets the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.steps.peers import CONTESTANTS
from bench.steps.workloads import RULES, SHAPES, Case


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_step(time_step: Callable[[Case, str], None], shape: str, rule: str, name: str) -> None:
    time_step(Case(RULES[rule], shape, clip=False), name)
