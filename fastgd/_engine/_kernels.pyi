"""The compiled kernels; see _kernels.pyx, _binding.pxi and _plan.pxi for what things mean."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from fastgd._engine._runtime import Gate
from fastgd.optimizers._fields import ParamGroup

chunk: int
has_fma: bool
retired: int
rule_names: tuple[str, ...]
span_dtype: np.dtype[np.void]
taken: int

@disjoint_base
class Binding:
    params: list[NDArray[Any]]
    names: list[str]

@disjoint_base
class Plan(Binding):
    steps: NDArray[np.int64]
    grad_norm: float | None
    step_count: int
    retired: bool
    def __new__(
        cls,
        params: list[NDArray[Any]],
        names: list[str],
        groups: list[int],
        specs: tuple[Any, ...],
        gate: Gate,
        rule: str,
        slots: Sequence[Sequence[NDArray[Any] | None]],
        steps: list[int],
        step_count: int,
    ) -> Plan: ...
    def step(
        self,
        grads: Any,
        groups: list[ParamGroup],
        coefficients: Callable[[dict[str, Any], int], tuple[float, ...]],
        grad_scale: float,
        limits: tuple[float, float] | Callable[[int], tuple[float, float]],
        finite_only: bool,
        track: bool,
    ) -> int: ...
    def norm(self, grads: Any) -> float: ...
    def sums(self) -> NDArray[np.float64] | None: ...
