"""Why a loss does not decrease.

`diagnose` (_diagnose) asks one rule for each cause: those in `_findings_data`, `_findings_layers`,
`_findings_rate` and `_findings_stalled`. `_run` reads a History for them, and `_curvature` takes the
curvature along its path.
"""

from fastgd.diagnostics._diagnose import Diagnosis, diagnose
from fastgd.diagnostics._findings import Finding

__all__ = ["Diagnosis", "Finding", "diagnose"]
