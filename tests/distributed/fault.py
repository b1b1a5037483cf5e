"""A rank that raises, hangs, leaves or dies in the middle of a run."""

from __future__ import annotations

import os
import signal
import sys
import time

from fastgd.distributed import Sharded
from tests.distributed.common import COMM, RANK, RANKS, normal

how = sys.argv[1]
opt = Sharded("adam", normal(0, 5000), comm=COMM, lr=0.1, timeout=3.0)
for step in range(100):
    opt.step(normal(step, 5000))
    if step == 5 and RANK == RANKS - 1:
        if how == "raises":
            raise ValueError("the data are broken")
        if how == "hangs":
            time.sleep(60)
        if how == "leaves":
            sys.exit()
        os.kill(os.getpid(), signal.SIGKILL)
raise AssertionError("a rank went on alone")
