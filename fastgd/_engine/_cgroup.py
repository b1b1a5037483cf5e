"""The CPU quota of the control group that this process runs in (Linux)."""

from __future__ import annotations

from collections.abc import Iterator


def cpu_quota(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> int | None:
    """Whole CPUs that the tightest quota on the way to the root allows, None without one.

    Reads cpu.max (cgroup v2) and cpu.cfs_quota_us / cpu.cfs_period_us (v1). A quota below
    one CPU counts as one. Args are the mount point and the file that names the group, for tests.
    """
    quotas: list[float] = []
    for folder in _folders(root, membership):
        limit = _read(f"{folder}/cpu.max").split() or [
            _read(f"{folder}/cpu.cfs_quota_us").strip(),
            _read(f"{folder}/cpu.cfs_period_us").strip(),
        ]
        if len(limit) == 2 and limit[0].isdigit() and limit[1].isdigit() and int(limit[1]) > 0:
            quotas.append(int(limit[0]) / int(limit[1]))  # "max" and -1 mean no limit
    return max(1, int(min(quotas))) if quotas else None


def _folders(root: str, membership: str) -> Iterator[str]:
    """The folders of the process's CPU group and of its ancestors, in both hierarchies."""
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = f"{root}/{controllers}" if controllers else root
        parts = [part for part in group.split("/") if part]
        for n in range(len(parts), -1, -1):
            yield "/".join((base, *parts[:n]))


def _read(path: str) -> str:
    """The text of a file; nothing where it does not exist or may not be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
