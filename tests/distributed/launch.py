"""Starting a program of this folder on several ranks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Ranks may be more than cores; Open MPI refuses that, and root, unless it is told. MPICH does not look.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_osc": "^ucx",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OPENBLAS_NUM_THREADS": "1",
}


def mpiexec() -> str:
    """The one beside this Python, or else that of the system."""
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    assert found, "mpi4py is there, but no mpiexec: pip install mpich"
    return found


def run(
    ranks: int, program: str, *arguments: object, timeout: float = 300.0
) -> subprocess.CompletedProcess[str]:
    """Run a module of this folder; its output, both streams together."""
    return run_module(ranks, f"tests.distributed.{program}", *arguments, timeout=timeout)


def run_module(
    ranks: int, module: str, *arguments: object, timeout: float = 300.0
) -> subprocess.CompletedProcess[str]:
    command = [mpiexec(), "-n", str(ranks), sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
