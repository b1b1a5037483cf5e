"""The plan of a step; see _plan.pyx for what things mean."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from fastgd._engine._binding import Binding
from fastgd._engine._gate import Gate

most_numbers: int

@disjoint_base
class Plan(Binding):
    steps: NDArray[np.int64]
    numbers: NDArray[np.float64]
    grad_norm: float | None
    step_count: int
    def __new__(
        cls,
        params: list[NDArray[Any]],
        names: list[str],
        specs: tuple[Any, ...],
        gate: Gate,
        groups: list[int],
        rules: list[dict[str, Any]],
        state: Sequence[Sequence[NDArray[Any] | None]],
        numbers: NDArray[np.float64],
        steps: list[int],
        step_count: int,
        trees: tuple[Any, ...],
        spread: tuple[Sequence[int], Callable[[NDArray[np.float64]], object]] | None = None,
    ) -> Plan: ...
    def sums(self) -> NDArray[np.float64] | None: ...

def step(
    optimizer: Any, grads: Any, grad_scale: float, loss: float = ..., params: Any = None
) -> str | None: ...
