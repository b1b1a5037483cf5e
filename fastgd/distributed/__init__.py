"""Several processes that train together, through mpi4py.

    mpiexec -n 4 python train.py          # pip install "fastgd[mpi]" brings an MPI

Every rank runs the same program on batches of its own (`MiniBatches(shard=(rank, size))`) and takes the
same steps. `DataParallel` has everything on every rank; `Sharded` has the state of each row once.

What every step promises:

- Parameters are the same bits on all ranks, and so they are when a run with as many ranks is repeated.
- Nothing is written before every rank has found its gradients in order; a refusal on one is one on all.
- A gradient is the sum of the ranks' in the order of these, which is that of one process given `Sum`.
- A rank that ends with an exception ends the others; one that does not come within `timeout` seconds is
  named. After a RankError a run cannot go on: restart it from the last checkpoint.

Where several ranks may use the same cores each takes its share of the threads, unless `set_num_threads` was
called before.
"""

from fastgd.distributed._checkpoint import load, save
from fastgd.distributed._data_parallel import DataParallel
from fastgd.distributed._ranks import RankError
from fastgd.distributed._ranks import Ranks as Ranks
from fastgd.distributed._ranks import launched as launched
from fastgd.distributed._sharded import Sharded
from fastgd.distributed._windows import shared

__all__ = ["DataParallel", "RankError", "Sharded", "load", "save", "shared"]


def __dir__() -> list[str]:
    return __all__
