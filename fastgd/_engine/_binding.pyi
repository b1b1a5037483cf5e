"""Gradients bound to arrays; see _binding.pyx for what things mean."""

from typing import Any

from numpy.typing import NDArray
from typing_extensions import disjoint_base

chunk: int

def use(table: object) -> bool: ...
def set_resident_bytes(n: int) -> None: ...
def as_array(name: str, grad: Any) -> NDArray[Any]: ...

@disjoint_base
class Binding:
    params: list[NDArray[Any]]
    names: list[str]
    def __new__(
        cls, params: list[NDArray[Any]], names: list[str], specs: tuple[Any, ...], *args: Any
    ) -> Binding: ...
    def check(self, grads: Any) -> None: ...
    def norm(self, grads: Any) -> float: ...

def only_tree(spec: Any, grads: Any) -> Any: ...
