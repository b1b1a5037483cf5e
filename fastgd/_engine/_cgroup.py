"""The CPU quota of the control group that this process runs in (Linux)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cpu_quota(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> int | None:
    """Whole CPUs that the tightest quota on the way to the root allows, None without one.

    Reads cpu.max (cgroup v2) and cpu.cfs_quota_us / cpu.cfs_period_us (v1). A quota below
    one CPU counts as one. Args are the mount point and the file that names the group, for tests.
    """
    quotas: list[float] = []
    for folder in _folders(root, membership):
        try:
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()[:2]
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text().strip()
                period = (folder / "cpu.cfs_period_us").read_text().strip()
            if quota not in ("max", "-1"):
                quotas.append(float(quota) / float(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue  # a group without a CPU controller, or one that we may not read
    return max(1, int(min(quotas))) if quotas else None


def _folders(root: str, membership: str) -> Iterator[Path]:
    """The folders of the process's CPU group and of its ancestors, in both hierarchies."""
    try:
        lines = Path(membership).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = Path(root) / controllers if controllers else Path(root)
        inside = (
            PurePosixPath(group).relative_to("/") if group.startswith("/") else PurePosixPath(group)
        )
        yield from (base / part for part in (inside, *inside.parents))
