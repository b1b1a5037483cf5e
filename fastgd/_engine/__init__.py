"""The compiled engine: picks the build for this CPU and states the contract between the layers.

The kernels are compiled from one source for several instruction sets. `isa` names the build in use:
the best one that the CPU can run, or what the environment variable FASTGD_ISA says ("x86-64-v2",
"x86-64-v3", "x86-64-v4"; "plain" on other machines). All builds with a fused multiply-add (v3, v4 and
ARM) compute the same bits.

What the engine promises to the Python layer:

- `Plan.step` validates everything before it writes anything. From the first write on it cannot fail:
  it allocates nothing and calls no Python.
- Every result is the same bits at any number of threads.
- Gradients are only read. Addresses are used only while a reference to their array is held, and are
  taken after the last foreign code (a gradient's `__array__`, a schedule) has run.
- Whatever uses a plan passes its `Gate`, one at a time.

What it relies on: parameters were validated by `_tree.check_parameter`, and state arrays have the size,
dtype and memory order of their parameter.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING

from fastgd._engine._runtime import (
    Gate,
    gather_rows,
    get_chosen_threads,
    get_num_threads,
    openmp_version,
    set_num_threads,
    x86_64_level,
)

if TYPE_CHECKING:
    from fastgd._engine import _kernels as kernels

__all__ = [
    "Gate",
    "Plan",
    "available_isas",
    "chunk",
    "gather_rows",
    "get_chosen_threads",
    "get_num_threads",
    "has_fma",
    "isa",
    "openmp_version",
    "retired",
    "rule_names",
    "set_num_threads",
    "taken",
]


def available_isas() -> list[str]:
    """The builds that are there and that this CPU can run, best last."""
    named = [f"x86-64-v{level}" for level in (2, 3, 4) if level <= x86_64_level]
    return [name for name in ("plain", *named) if importlib.util.find_spec(_module(name))]


def _module(name: str) -> str:
    return f"fastgd._engine._kernels_{name.replace('-', '_')}"


def _choose() -> str:
    wanted = os.environ.get("FASTGD_ISA", "")
    if not available_isas():
        raise ImportError(
            "fastgd was built for instruction sets that this CPU lacks; build it here, from source"
        )
    if not wanted:
        return available_isas()[-1]
    if wanted not in available_isas():
        raise ImportError(
            f"FASTGD_ISA={wanted!r} is not available on this CPU; it can be one of "
            f"{', '.join(available_isas())}, or unset for the best of them"
        )
    return wanted


isa = _choose()
if not TYPE_CHECKING:
    kernels = importlib.import_module(_module(isa))
    sys.modules["fastgd._engine._kernels"] = kernels  # the name that its classes and stub have

Plan = kernels.Plan
chunk: int = kernels.chunk
has_fma: bool = kernels.has_fma
taken: int = kernels.taken
retired: int = kernels.retired
rule_names: tuple[str, ...] = kernels.rule_names
