"""What a rule of `diagnose` returns, and how rules grade what they see.

A rule is a function (Run, Curvature) -> Finding or None. It looks at one cause only; `diagnostics` decides
between those that are found.
"""

from __future__ import annotations

from dataclasses import dataclass

DECISIVE = 0.5  # strength from which on a finding can be the verdict
RECORDS = 20  # fewer have no halves and quarters that are worth comparing


@dataclass(frozen=True)
class Finding:
    """One thing found in a run.

    Attributes:
        verdict: its code, see `diagnose`.
        strength: from 0, barely visible, to 1, beyond doubt; from 0.5 on it can be the verdict.
        summary: what it is, in a sentence.
        evidence: the numbers that show it.
        advice: what to try, the most promising first.
    """

    verdict: str
    strength: float
    summary: str
    evidence: tuple[str, ...]
    advice: tuple[str, ...]


def ramp(value: float, zero: float, one: float) -> float:
    """0 at `zero`, 1 at `one`, linear in between and constant beyond; 0 for NaN."""
    share = (float(value) - zero) / (one - zero)
    return min(max(share, 0.0), 1.0) if share == share else 0.0


def graded(value: float, visible: float, decisive: float, clear: float) -> float:
    """Strength of a finding by a measure of it: 0, 0.5 and 1 at the three values."""
    return 0.5 * ramp(value, visible, decisive) + 0.5 * ramp(value, decisive, clear)
