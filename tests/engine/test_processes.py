"""fastgd among processes, signals and other libraries: nothing hangs, nothing changes the bits.

Every scenario is a process of its own, with a hard timeout: see process_scenarios.py and
fork_scenarios.py.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from fastgd._engine._cgroup import cpu_quota
from tests.support import child_environment

SCENARIOS = Path(__file__).with_name("process_scenarios.py")
FORKS = Path(__file__).with_name("fork_scenarios.py")
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
linux = pytest.mark.skipif(sys.platform != "linux", reason="a matter of Linux")


def run(*arguments: str, timeout: int = 60, script: Path = SCENARIOS, **environment: str) -> str:
    """What the scenario prints; fails when it does not end well, or in time."""
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=child_environment(**{"OMP_NUM_THREADS": "2", **environment}),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}\n{done.stderr}"
    return done.stdout.strip()


@functools.cache
def expected_digest() -> str:
    """Of a process that runs on one thread and does nothing else."""
    return run("count", OMP_NUM_THREADS="1").split()[1]


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


@linux
@pytest.mark.parametrize(
    "how", ["by_os", "by_multiprocessing", "in_the_middle", "at_random", "in_a_schedule"]
)
def test_fork(how: str) -> None:
    assert run(how, timeout=120, script=FORKS) == "done"


@linux
@pytest.mark.parametrize("library", ["joblib", "torch"])
def test_workers_of(library: str) -> None:
    needs(library)
    assert run(f"by_{library}", timeout=180, script=FORKS) == "done"


@pytest.mark.parametrize("how", ["with_a_daemon", "in_a_step", "with_a_last_step"])
def test_exit(how: str) -> None:
    assert run(f"exit_{how}") == "leaving"


@linux
def test_signals() -> None:
    assert run("signals") == "done"


@linux
@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads MXCSR")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_floating_point_modes(threads: str) -> None:
    assert run("floating_point_modes", OMP_NUM_THREADS=threads) == "done"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("library", ["torch", "sklearn", "numba"])
def test_beside(library: str, when: str) -> None:
    needs(library)
    assert run("with_library", library, when, timeout=180) == expected_digest()


# --- the default number of threads ------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_omp_num_threads(threads: int) -> None:
    found, digest = run("count", OMP_NUM_THREADS=str(threads)).split()
    assert min(threads, CPUS) <= int(found) <= threads
    assert digest == expected_digest()


@pytest.mark.parametrize(
    "environment",
    [
        {"OMP_NUM_THREADS": "4", "OMP_THREAD_LIMIT": "2"},
        {"OMP_NUM_THREADS": "4", "OMP_DYNAMIC": "true"},
        {"OMP_NUM_THREADS": "4", "OMP_SCHEDULE": "dynamic,7", "OMP_WAIT_POLICY": "passive"},
        {"OMP_NUM_THREADS": "3", "OMP_PROC_BIND": "true", "OMP_STACKSIZE": "64k"},
        {"OMP_NUM_THREADS": "3", "OMP_CANCELLATION": "true", "OMP_MAX_ACTIVE_LEVELS": "1"},
    ],
    ids=str,
)
def test_fewer_threads_than_asked_for(environment: dict[str, str]) -> None:
    """OpenMP may give a smaller team, or place it elsewhere: all of the work is done all the same."""
    assert run("count", **environment).split()[1] == expected_digest()


@linux
@pytest.mark.parametrize("cpus", range(1, min(CPUS, 4) + 1))
def test_affinity(cpus: int) -> None:
    """Of a process whose OpenMP is told nothing else."""
    done = subprocess.run(
        [sys.executable, str(SCENARIOS), "count_with_affinity", str(cpus)],
        env={
            key: value
            for key, value in child_environment().items()
            if not key.startswith("OMP_") or key == "OMP_TOOL_LIBRARIES"  # ThreadSanitizer's view
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    threads, digest = done.stdout.split()
    assert 1 <= int(threads) <= cpus
    assert digest == expected_digest()


@linux
def test_the_least_of_affinity_and_omp_num_threads() -> None:
    assert run("count_with_affinity", "1", OMP_NUM_THREADS="4") == f"1 {expected_digest()}"


@pytest.mark.parametrize(
    ("quota", "threads"), [("1", 1), ("2", 2), ("3", 3), ("9", 4), ("none", 4)]
)
def test_quota_and_omp_num_threads(quota: str, threads: int) -> None:
    found, digest = run("count_with_quota", quota, OMP_NUM_THREADS="4").split()
    assert min(threads, CPUS) <= int(found) <= threads
    assert digest == expected_digest()


# --- the quota of a control group -------------------------------------------------------------------


def group(root: Path, where: str, **files: str) -> None:
    folder = root / where
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"cpu.{name}").write_text(text)


def quota_of(root: Path, membership: str) -> int | None:
    path = root / "membership"
    path.write_text(membership)
    return cpu_quota(str(root), str(path))


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2),
        ("150000 100000\n", 1),
        ("399999 100000\n", 3),
        ("50000 100000", 1),
        ("1000 1000000\n", 1),
        ("6400000 50000\n", 128),
        ("", None),
        ("max", None),
        ("200000", None),
        ("200000 0\n", None),
        ("abc def\n", None),
        ("-1 100000\n", None),
        ("200000 100000 and more\n", None),
    ],
)
def test_cgroup_2(text: str, cpus: int | None, tmp_path: Path) -> None:
    group(tmp_path, "a/b", max=text)
    assert quota_of(tmp_path, "0::/a/b\n") == cpus


def test_cgroup_2_tightest(tmp_path: Path) -> None:
    """A quota binds everything below it."""
    group(tmp_path, "a", max="300000 100000")
    group(tmp_path, "a/b", max="max 100000")
    group(tmp_path, "a/b/c", max="800000 100000")
    group(tmp_path, "a/b/other", max="100000 100000")
    assert quota_of(tmp_path, "0::/a/b/c\n") == 3
    assert quota_of(tmp_path, "0::/a/b/other\n") == 1
    assert quota_of(tmp_path, "0::/\n") is None
    group(tmp_path, "", max="200000 100000")
    assert quota_of(tmp_path, "0::/a/b/c\n") == 2


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
def test_cgroup_1(controllers: str, tmp_path: Path) -> None:
    group(tmp_path, f"{controllers}/a", cfs_quota_us="250000\n", cfs_period_us="100000\n")
    group(tmp_path, f"{controllers}/b", cfs_quota_us="-1\n", cfs_period_us="100000\n")
    others = "9:memory:/a\n3:cpuset:/a\n1:name=systemd:/b\n"
    assert quota_of(tmp_path, f"{others}2:{controllers}:/a\n0::/\n") == 2
    assert quota_of(tmp_path, f"{others}2:{controllers}:/b\n") is None
    assert quota_of(tmp_path, f"{others}2:{controllers}:/absent\n") is None


@pytest.mark.parametrize(
    "membership",
    ["", "\n", "nonsense", "0::", "0::/absent/group\n", "0::/../..\n", ":::::\n", "0:"],
)
def test_cgroup_unknown(membership: str, tmp_path: Path) -> None:
    assert quota_of(tmp_path, membership) is None


def test_cgroup_absent(tmp_path: Path) -> None:
    assert cpu_quota(str(tmp_path / "a"), str(tmp_path / "b")) is None
    (tmp_path / "odd").write_bytes(b"0::/\xff\xfe\n")
    assert cpu_quota(str(tmp_path), str(tmp_path / "odd")) is None
