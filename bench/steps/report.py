"""What an optimizer's step costs on this machine: fastgd, its peers, and the bandwidth bound.

    python -m bench.steps.report [--quick] [--only REGEX] [--threads 1 2] [--json FILE]

Every contestant is checked to compute what fastgd computes, and then timed against the others in
alternating blocks of calls (timing.py), one process for each number of threads, since most libraries
read theirs once. Peers that are not installed are left out: `pip install "fastgd[bench]"` brings them.

--only takes the cases whose name matches, such as "AdamW 100x1k clip", "RMSprop .*16.7M$", "arrays",
"denormals", "memory" or "import". --quick shows that everything runs; its figures say little. All of
it takes about 20 minutes and 4 GB of memory, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.steps import footprint, machine, tables, targets
from bench.steps.measure import ARRAY_COUNTS, child_environment
from bench.steps.workloads import RULES, all_cases

Results = dict[str, Any]
OTHERS = ("arrays", "denormals", "memory", "import")  # what --only can name besides the cases
LEGEND = """\
In each table: the median time of a step and how many times fastgd's time that is (above 1, fastgd is
faster; below 1, slower), and the largest distance between quartiles in the row, over the median.
bound: a plain C loop that moves the same bytes over ideally placed buffers, by as many threads."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose name matches")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path, default=Path("bench_report.json"), metavar="FILE")
    given = parser.parse_args()
    try:
        only = re.compile(given.only)
    except re.error as error:
        parser.error(f"--only: {error}")
    if not any(only.search(name) for name in [*(case.key for case in all_cases()), *OTHERS]):
        parser.error(f"--only: no case matches {given.only!r}")
    if min(given.threads) < 1:
        parser.error("--threads: at least 1")
    return given


def in_child(threads: int, given: argparse.Namespace) -> Results:
    """The measurements of measure.py with so many threads."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "results.json")
        command = [
            sys.executable,
            "-m",
            "bench.steps.measure",
            "--threads",
            str(threads),
            "--out",
            str(out),
        ]
        command += ["--only", given.only, *(["--quick"] if given.quick else [])]
        status = subprocess.run(command, env=child_environment(threads)).returncode
        if status != 0:
            sys.exit(f"measure.py with --threads {threads} has failed (exit status {status})")
        results: Results = json.loads(out.read_text())
    return results


def measure(given: argparse.Namespace) -> Results:
    only = re.compile(given.only)
    results: Results = {
        "machine": machine.describe(),
        "settings": {"quick": given.quick, "only": given.only, "threads": given.threads},
        "groups": [],
        "arrays": [],
        "denormals": [],
    }
    for threads in given.threads:
        for kind, rows in in_child(threads, given).items():
            results[kind] += rows
    rules = list(RULES)
    results["memory"] = footprint.measure_memory(rules) if only.search("memory") else []
    rounds = 5 if given.quick else 25
    results["import"] = footprint.measure_import(rounds) if only.search("import") else None
    return results


def text(results: Results, reached: list[targets.Target]) -> str:
    lines = machine.lines(results["machine"])
    if results["settings"]["quick"]:
        lines.append("QUICK RUN: these figures are not to be published")
    too_many = [n for n in results["settings"]["threads"] if n > results["machine"]["cores"]]
    if too_many:
        lines.append(f"MORE THREADS THAN CORES: {too_many}")
    groups = results["groups"]
    if groups:
        lines += ["", LEGEND, *tables.tables(groups), *tables.remarks(groups)]
    counts = tuple(str(n) for n in ARRAY_COUNTS)
    title = "AdamW over few and many arrays of so many elements:"
    lines += tables.pairs(title, results["arrays"], "size", (counts[0], counts[1]))
    title = "gradients that are denormal throughout, 1,000,000 elements:"
    lines += tables.pairs(title, results["denormals"], "rule", ("normal", "denormal"))
    lines += tables.memory(results["memory"])
    lines += tables.imports(results["import"])
    if groups:
        lines += tables.losses(groups)
    if reached:
        lines += tables.summary(reached, partial=bool(results["settings"]["only"]))
    return "\n".join(lines)


def main() -> None:
    given = arguments()
    results = measure(given)
    reached = targets.evaluate(results)
    results["targets"] = [target.as_dict() for target in reached]
    print(text(results, reached))
    given.json.write_text(json.dumps(results, indent=1))
    print(f"\neverything, samples included, is in {given.json}")


if __name__ == "__main__":
    main()
