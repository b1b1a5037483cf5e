"""Gathering rows; see _gather.pyx for what things mean."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

def gather_rows(
    src: NDArray[Any], index: NDArray[np.int64], out: NDArray[Any], serial: bool = False
) -> None: ...
