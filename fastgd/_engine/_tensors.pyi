"""Other libraries' tensors as arrays; see _tensors.pyx for what things mean."""

from typing import Any

from typing_extensions import disjoint_base

@disjoint_base
class Exchange:
    def __init__(self, capsule: Any) -> None: ...
    def arrays(self, tensors: list[Any]) -> list[Any]: ...
    def places(self, tensors: list[Any]) -> bytes: ...
