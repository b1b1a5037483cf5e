"""The docstrings' examples, on every rank."""

from __future__ import annotations

import doctest

from fastgd.distributed import _data_parallel, _sharded, _windows
from tests.distributed.common import COMM, RANK

for module in (_windows, _data_parallel, _sharded):
    tried = doctest.testmod(module)
    assert tried.attempted > 0
    assert tried.failed == 0
COMM.Barrier()
if RANK == 0:
    print("examples pass")
