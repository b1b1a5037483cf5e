"""The compiled engine: picks the kernels for this CPU and states the contract between the layers.

The plan of a step and everything around it is compiled once, the kernels for several instruction sets.
`isa` names the build of the kernels in use: the best one that the CPU can run, or what the environment
variable FASTGD_ISA says ("x86-64-v2", "x86-64-v3", "x86-64-v4"; "plain" on other machines). All builds
with a fused multiply-add (v3, v4 and ARM) compute the same bits.

What the engine promises to the Python layer:

- `step` validates everything before it writes anything. From the first write on it cannot fail: it
  allocates nothing and calls no Python.
- Every result is the same bits at any number of threads, as long as all of them treat subnormal numbers
  alike: a library that sets the CPU's FTZ or DAZ flags (`torch.set_flush_denormal`, a library linked with
  -ffast-math) sets them for some threads only, and then numbers below 1.2e-38 (float32) may be flushed in
  some chunks and not in others.
- Gradients are only read. Addresses are used only while a reference to their array is held, and are
  taken after the last foreign code (a gradient's `__array__`, a schedule) has run.
- Whatever uses a plan passes its `Gate`, one at a time; as long as Python code can run in a step,
  nothing has been changed.

What it relies on: parameters were validated by `_arrays.tree.check_parameter`, and state arrays have
the size, dtype and memory order of their parameter.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

try:
    importlib.import_module("fastgd._engine._binding")
except ModuleNotFoundError as error:
    root = Path(__file__).parents[2]
    if error.name != "fastgd._engine._binding" or not (root / "setup.py").is_file():
        raise
    raise ImportError(
        f"fastgd was imported from its source folder {root}, where its engine has not been built; the "
        "folder hides an installed fastgd. Start Python in another directory, or build the engine here: "
        'pip install -e "."'
    ) from error
from fastgd._engine import _binding
from fastgd._engine._binding import (
    Binding,
    as_array,
    chunk,
    only_tree,
    set_resident_bytes,
)
from fastgd._engine._gate import Gate, ensure, read_together, together, uninterrupted
from fastgd._engine._gather import gather_rows
from fastgd._engine._plan import Plan, most_numbers, step
from fastgd._engine._rows import segments
from fastgd._engine._runtime import (
    get_chosen_threads,
    get_num_threads,
    openmp_version,
    set_num_threads,
    x86_64_level,
)
from fastgd._engine._tensors import Exchange

__all__ = [
    "Binding",
    "Exchange",
    "Gate",
    "Plan",
    "as_array",
    "available_isas",
    "chunk",
    "ensure",
    "gather_rows",
    "get_chosen_threads",
    "get_num_threads",
    "has_fma",
    "isa",
    "most_numbers",
    "only_tree",
    "openmp_version",
    "read_together",
    "rules",
    "segments",
    "set_num_threads",
    "set_resident_bytes",
    "step",
    "together",
    "uninterrupted",
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
_kernels: Any = importlib.import_module(_module(isa))
has_fma: bool = _binding.use(_kernels.table)
# What each rule expects of its class: "hyperparameters" (how many numbers each is, in the order of the
# rule's struct), "state" and "numbers" (names), and what the plan needs to know of it.
rules: dict[str, dict[str, Any]] = _kernels.rules
