"""Write checkpoints again and again, until somebody kills a rank."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fastgd import distributed
from tests.distributed.common import COMM, RANK, normal

path, pids = map(Path, sys.argv[1:3])
opt = distributed.Sharded("adam", normal(0, 400, 100), comm=COMM, lr=0.01, timeout=20.0)
if path.exists():
    distributed.load(path, opt)
processes = COMM.gather(os.getpid())
if RANK == 0:
    pids.write_text(" ".join(map(str, processes)))
while True:
    opt.step(normal(opt.step_count, 400, 100))
    distributed.save(path, opt, metadata={"steps": opt.step_count})
