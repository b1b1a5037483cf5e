"""The machine and the process; see _runtime.pyx for what things mean."""

from typing_extensions import disjoint_base

openmp_version: int
x86_64_level: int

@disjoint_base
class Pace:
    def replay(self, serial: float, team: float) -> bool: ...

def get_chosen_threads() -> int | None: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int | None) -> None: ...
