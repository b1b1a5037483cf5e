"""What fastgd costs besides the time of a step: memory, and the time of its import.

`python -m bench.steps.footprint AdamW` prints one optimizer's memory as JSON: a process of its own for
each, since the peak of a process never goes down.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

ELEMENTS = 1 << 24
IMPORTS = """
import time
start = time.perf_counter()
import numpy
between = time.perf_counter()
import fastgd
print(between - start, time.perf_counter() - between)
"""


def peak_rss() -> int:
    """The largest resident size of this process so far, in bytes.

    Linux's VmHWM where it can be read: ru_maxrss may begin with that of the parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_of(rule_name: str, clip: bool) -> dict[str, Any]:
    """What further steps allocate once the state is there."""
    import fastgd
    from bench.steps.workloads import RULES

    rule = RULES[rule_name]
    params, grads = np.full(ELEMENTS, 1, np.float32), np.full(ELEMENTS, 0.01, np.float32)
    before_state = peak_rss()
    optimizer = getattr(fastgd, rule.optimizer)(
        params, clip_norm=1.0 if clip else None, **rule.options
    )
    optimizer.step(grads)
    before = peak_rss()
    tracemalloc.start()
    for _ in range(3):
        optimizer.step(grads)
    _, traced = tracemalloc.get_traced_memory()
    after = peak_rss()
    state = sum(
        slot.nbytes for slot in optimizer.state["params"].values() if isinstance(slot, np.ndarray)
    )
    return {
        "rule": rule_name,
        "clip": clip,
        "model_bytes": params.nbytes,
        "state_bytes": state,
        "formula_bytes": rule.state * params.nbytes,
        "rss_of_state": before - before_state,
        "step_traced": traced,
        "step_rss": after - before,
    }


def measure_memory(rules: list[str]) -> list[dict[str, Any]]:
    results = []
    for rule in rules:
        for clip in (False, True):
            command = [
                sys.executable,
                "-m",
                "bench.steps.footprint",
                rule,
                *(["clip"] if clip else []),
            ]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results.append(json.loads(output))
    return results


def measure_import(rounds: int) -> dict[str, Any]:
    """Seconds that `import fastgd` takes after `import numpy`, medians over new processes."""
    samples = []
    for _ in range(rounds + 1):
        command = [sys.executable, "-c", IMPORTS]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        samples.append([float(value) for value in output.split()])
    numpy_seconds, fastgd_seconds = np.median(samples[1:], axis=0)  # the first fills the disk cache
    return {"numpy": float(numpy_seconds), "fastgd": float(fastgd_seconds), "samples": samples}


if __name__ == "__main__":
    print(json.dumps(memory_of(sys.argv[1], "clip" in sys.argv[2:])))
