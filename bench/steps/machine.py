"""The machine and the versions that a report's figures belong to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import fastgd
from bench.steps.bound import compiler
from fastgd import _engine

LIBRARIES = ["numpy", "torch", "jax", "jaxlib", "optax", "thinc", "scikit-learn", "deepspeed"]


def describe() -> dict[str, Any]:
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "caches": caches(),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "huge_pages": read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "python": platform.python_version(),
        "compiler": compiler_version(),
        "fastgd": f"{fastgd.__version__} ({_engine.isa})",
        **{name: version(name) for name in LIBRARIES},
    }


def lines(machine: dict[str, Any]) -> list[str]:
    names = ["fastgd", "python", *LIBRARIES]
    installed = ", ".join(f"{name} {machine[name]}" for name in names if machine[name])
    absent = ", ".join(name for name in LIBRARIES if not machine[name])
    result = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['caches']}, {machine['system']}",
        f"huge pages: {machine['huge_pages']}; {machine['compiler']}",
        installed,
    ]
    if absent:
        result.append(f"not installed: {absent}")
    if machine["load"] > 0.5:
        result.append(f"THE MACHINE WAS BUSY: its load was {machine['load']} at the start")
    return result


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    for line in read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown CPU"


def caches() -> str:
    """Of one core, as the kernel lists them."""
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = (read(index / name) for name in ("type", "level", "size"))
        if kind in ("Data", "Unified"):
            found.append(f"L{level} {size}")
    return " ".join(found) or "caches unknown"


def version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def compiler_version() -> str:
    try:
        output = subprocess.run([*compiler(), "--version"], capture_output=True, text=True).stdout
    except OSError:
        return "no C compiler: the bandwidth bound is not measured"
    return output.partition("\n")[0]


def read(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
