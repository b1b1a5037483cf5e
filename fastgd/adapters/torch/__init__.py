"""PyTorch: fastgd's optimizers as `torch.optim.Optimizer`s, and runs that pass between the libraries.

    from fastgd.adapters.torch import AdamW
    optimizer = AdamW(model.parameters(), lr=1e-3, clip_norm=1.0)

Every optimizer that fastgd has is here under its name, a drop-in for torch.optim's on the CPU: see
`Optimizer` for what they share. `to_torch`, `from_torch`, `state_dict` and `load_state_dict` are for arrays
that NumPy holds: they hand a run over to torch.optim, or take it over.

Needs `pip install "fastgd[torch]"`.
"""

from typing import Any

from fastgd.adapters.torch._bound import Bound as Bound
from fastgd.adapters.torch._optimizers import DROP_INS, Optimizer
from fastgd.adapters.torch._transfer import from_torch, load_state_dict, state_dict, to_torch

__all__ = ["Optimizer", "from_torch", "load_state_dict", "state_dict", "to_torch", *DROP_INS]

globals().update(DROP_INS)


def __getattr__(name: str) -> Any:  # for type checkers, which do not see what is made above
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
