"""What does not depend on the instruction set; see _runtime.pyx for what things mean."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

openmp_version: int
x86_64_level: int

@disjoint_base
class Gate:
    def __enter__(self) -> None: ...
    def __exit__(self, *args: object) -> None: ...

def gather_rows(
    src: NDArray[Any], index: NDArray[np.int64], out: NDArray[Any], serial: bool = False
) -> None: ...
def get_chosen_threads() -> int | None: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int | None) -> None: ...
