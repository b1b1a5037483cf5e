"""How often `diagnose` is right: a confusion matrix over runs that go wrong in a known way.

    python -m bench.diagnosis.confusion [--seeds 6] [--first-seed 8000] [--wrong]

Three sets of runs: the families of tests/diagnostics/families.py, by which the rules' thresholds were
chosen, with other seeds; those of held_out.py, of other models, data, optimizers and names of
parameters, which were looked at while the rules were made, but not to choose a threshold; and those of
unseen.py, written when the rules were final. Every run is real: `minimize` in NumPy.

Labels do not depend on the rules: they come from how a run was made and, where that does not settle it
(ten times the stable learning rate may still train), from what the same problem reaches without the
fault; runs to which it did no harm are left out, and counted.

Prints a row per true cause and a column per verdict, and exits with 1 if less than 95 % are right.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping

import numpy as np

from bench.diagnosis import held_out, unseen
from fastgd.diagnostics import diagnose
from tests.diagnostics.families import FAMILIES
from tests.diagnostics.runs import Family, labelled_rightly, train

REQUIRED = 0.95
SHORT = {
    "healthy": "ok",
    "learning_rate_too_high": "lr high",
    "learning_rate_too_low": "lr low",
    "vanishing_gradients": "vanish",
    "exploding_gradients": "explod",
    "dead_initialization": "dead",
    "nonfinite_data_or_loss": "nan",
    "plateau": "plateau",
    "noise_floor": "noise",
    "overfitting": "overfit",
}


def evaluate(
    families: Mapping[str, tuple[Family, ...]], seeds: range, show_wrong: bool
) -> tuple[Counter[tuple[str, str]], int]:
    """Counts of (cause, verdict), and how many runs were left out. An accepted verdict counts as right."""
    counts: Counter[tuple[str, str]] = Counter()
    left_out = 0
    for cause, members in families.items():
        for family in members:
            for seed in seeds:
                rng = np.random.default_rng([seed, *family.__name__.encode()])
                setup = family(rng)
                outcome = train(setup)
                if not labelled_rightly(cause, setup, outcome):
                    left_out += 1
                    continue
                diagnosis = diagnose(outcome.result)
                verdict = cause if diagnosis.verdict in setup.accept else diagnosis.verdict
                counts[cause, verdict] += 1
                if show_wrong and verdict != cause:
                    print(f"{family.__name__}, seed {seed}:\n{diagnosis}\n")
    return counts, left_out


def print_matrix(title: str, counts: Counter[tuple[str, str]], left_out: int) -> float:
    """Print it; the share that is right."""
    names = list(FAMILIES)
    total, right = counts.total(), sum(counts[name, name] for name in names)
    print(f"\n{title}: {right} of {total} right, {right / total:.1%} ({left_out} left out)\n")
    print(" " * 24 + "".join(f"{SHORT[name]:>8}" for name in names))
    for cause in names:
        row = "".join(f"{counts[cause, verdict] or '.':>8}" for verdict in names)
        print(f"  {cause:22}{row}")
    return right / total


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=6, help="runs per family")
    parser.add_argument("--first-seed", type=int, default=8000)
    parser.add_argument("--wrong", action="store_true", help="print the diagnoses that are wrong")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    np.seterr(all="ignore")
    warnings.simplefilter("ignore", RuntimeWarning)
    began = time.perf_counter()
    sets = {
        "Seeds not used for tuning": FAMILIES,
        "Families not used for tuning": held_out.FAMILIES,
        "Problems written afterwards": unseen.FAMILIES,
    }
    found = {title: evaluate(families, seeds, options.wrong) for title, families in sets.items()}
    shares = [print_matrix(title, *outcome) for title, outcome in found.items()]
    print(f"\n{time.perf_counter() - began:.0f} s")
    return 0 if min(shares) >= REQUIRED else 1


if __name__ == "__main__":
    sys.exit(main())
