"""Pictures of training: losses, diagnoses, paths over contours, schedules, learning-rate sweeps.

Each function draws on the Axes given as `ax`, or on a new figure's, and returns it; matplotlib is
imported when it is called. Lines have the colours of matplotlib's style in use, light or dark, and differ
by dashes too, those of later calls on the same Axes as well, so that they can be told apart in grey
print and by every eye. Axis labels that are there already stay, as do limits that were set.

`_plots` and `_diagnosis` draw; `_curves` takes the curves out of a history, `_contours` evaluates a
function on the plane, and `_drawing` keeps the style.
"""

from fastgd.plot._diagnosis import diagnosis
from fastgd.plot._plots import history, lr_sweep, schedule, trajectory

__all__ = ["diagnosis", "history", "lr_sweep", "schedule", "trajectory"]
