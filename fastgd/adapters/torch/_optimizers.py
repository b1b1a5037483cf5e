"""fastgd's optimizers as PyTorch's own kind, with the host's groups, schedulers, hooks and checkpoints."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from fastgd import optimizers
from fastgd.adapters.torch._bound import Bound
from fastgd.adapters.torch._tensors import CODES, is_resident, torch
from fastgd.adapters.torch._transfer import number, template
from fastgd.optimizers import all_optimizers

# Arguments that choose among PyTorch's own implementations, for classes that have no such option.
IMPLEMENTATIONS = {"foreach": None, "fused": None, "capturable": False, "differentiable": False}
State = Mapping[Any, Mapping[str, Any]]


class Optimizer(torch.optim.Optimizer):  # type: ignore[misc]
    """What the optimizers of `fastgd.adapters.torch` share. Not for use by itself.

    Each is a `torch.optim.Optimizer` whose step is fastgd's: for `torch.optim.lr_scheduler`, `GradScaler`,
    hooks and checkpoints it is one of PyTorch's. Its `state` holds tensors over fastgd's arrays under the
    names of torch.optim, whose class of the same name loads its `state_dict()`, and the other way round.

    Args:
        params: as torch.optim takes them: tensors, groups, or pairs of name and tensor. A tensor may lie
            elsewhere with every step.
        offload: update what is not float32 or float64 on the CPU through a master there, of float32 for
            float16 and bfloat16. Gradients come to it, and with every step the parameter goes back.
        foreach, fused: of no effect; they choose among PyTorch's implementations.

    The others are the hyperparameters and options of fastgd's optimizer of that name; a schedule of
    fastgd's may stand for a number.

    Attributes:
        clip_norm, clip_value, nonfinite: see `fastgd.optimizers`; can be assigned.
        grad_norm: the global norm of the last step's gradients where one of these needed it.

    Raises:
        TypeError, ValueError: a tensor that no step can update, with the way out, or a hyperparameter that
            does not exist or is out of range.
    """

    _kind: ClassVar[type[optimizers.Optimizer]]

    def __init__(self, params: Any, *args: Any, offload: bool = False, **kwargs: Any) -> None:
        if type(self) is Optimizer:
            raise TypeError("Optimizer is what all share; use one of them, such as AdamW")
        chosen = {
            key: kwargs.pop(key, default)
            for key, default in IMPLEMENTATIONS.items()
            if key not in self._kind.declaration.checks
        }
        for key in ("capturable", "differentiable"):
            if chosen.get(key):
                raise ValueError(f"{key}=True: a step on the CPU, outside of autograd, is neither")
        params, values, options = self._kind.declaration.bind((params, *args), kwargs)
        self._offload, self._options = bool(offload), options
        self._bound: Bound | None = None
        super().__init__(params, {**template(self._kind.torch), **chosen, **values})
        self._bound = self._bind(self.param_groups, {}, None)

    def _bind(self, groups: Sequence[Mapping[str, Any]], state: State, count: int | None) -> Bound:
        """Everything about these groups and this state, checked; nothing changes."""
        bound = Bound(self._kind, groups, self._options, self._offload)
        if state or count:
            bound.load(state, count)
        return bound

    def _rebind(self) -> Bound:
        """With the groups as they are now, and the state of before."""
        assert self._bound is not None
        return self._bind(self.param_groups, self.state, self._bound.inner.step_count)

    @property
    def _inner(self) -> Any:
        assert self._bound is not None
        return self._bound.inner

    # --- the step ---

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step with the gradients that the tensors have; `closure` computes the loss and them first.

        Returns:
            What the closure returned, None without one.

        Raises: as `fastgd.Optimizer.step`; nothing has changed then. ValueError also where a parameter has
            another shape than before.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        bound = self._bound
        assert bound is not None
        bound.pass_on(self.param_groups)
        now = bound.addresses()
        if now != bound.at and not bound.fits():
            bound = self._bound = self._rebind()
        bound.step(now, None if loss is None else float(number(loss)))
        return loss

    # --- the two points of an optimizer that averages ---

    @property
    def evaluating(self) -> bool:
        """See `fastgd.Optimizer.evaluating`."""
        found: bool = self._inner.evaluating
        return found

    def eval(self) -> None:
        """See `fastgd.Optimizer.eval`."""
        self._move(optimizers.Optimizer.eval)

    def train(self) -> None:
        """See `fastgd.Optimizer.train`."""
        self._move(optimizers.Optimizer.train)

    evaluation = optimizers.Optimizer.evaluation  # of these three

    def _move(self, move: Callable[[Any], None]) -> None:
        assert self._bound is not None
        if not self._kind.averages:
            return
        if self._bound.addresses() != self._bound.at:
            self._bound = self._rebind()
        move(self._inner)
        self._bound.written()

    # --- state, groups, and copies ---

    @property
    def state(self) -> Any:
        """By tensor that has been updated: {"step": tensor, slots: tensors over fastgd's arrays, …}.

        The dict is made anew with every access, so what is put into it does not stay. A dict that is
        assigned is taken over; an empty one begins anew.
        """
        if self._bound is None:
            return self.__dict__["state"]
        return defaultdict(dict, self._bound.state())

    @state.setter
    def state(self, value: State) -> None:
        self.__dict__["state"] = defaultdict(dict)
        if self._bound is not None:
            self._bound = self._bind(self.param_groups, value, None)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add one, as torch.optim does."""
        super().add_param_group(param_group)
        if self._bound is None:
            return
        try:
            self._bound = self._rebind()
        except BaseException:
            self.param_groups.pop()
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` of this class, or of torch.optim's of the same name, gave.

        Raises: TypeError, ValueError: it does not fit. Nothing has changed then.
        """
        # PyTorch casts the state to the parameter's dtype, also numbers that are doubles, and a master's.
        self._given = state_dict
        try:
            super().load_state_dict(state_dict)
        finally:
            del self._given

    def __getstate__(self) -> dict[str, Any]:
        return {
            **super().__getstate__(),
            "_offload": self._offload,
            "_options": {key: getattr(self, key) for key in self._options},
            "_step_count": self._inner.step_count,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy, an unpickled one, and of one into which a state_dict has been loaded."""
        groups, entries = state["param_groups"], state["state"]
        defaults = state.get("defaults") or self.defaults
        for group in groups:
            for key, default in defaults.items():
                group.setdefault(key, default)
        for key in ("_offload", "_options"):
            if key in state:
                setattr(self, key, state[key])
        given = getattr(self, "_given", None)
        if given is not None:
            ids = [i for group in given["param_groups"] for i in group["params"]]
            tensors = [tensor for group in groups for tensor in group["params"]]
            entries = dict(entries)
            for i, tensor in zip(ids, tensors, strict=True):
                entry = given["state"].get(i, {}).items()
                uncast = {
                    k: x
                    for k, x in entry
                    if not is_resident(tensor) or np.ndim(x) == 0 or x.dtype == CODES
                }
                entries[tensor] = {**entries.get(tensor, {}), **uncast}
        bound = self._bind(groups, entries, state.get("_step_count"))
        self._bound = None
        rest = {key: x for key, x in state.items() if key not in ("_step_count", "state")}
        super().__setstate__({**rest, "state": defaultdict(dict)})
        self._bound = bound

    # --- options of the optimizer as a whole ---

    @property
    def grad_norm(self) -> float | None:
        found: float | None = self._inner.grad_norm
        return found


def _option(name: str) -> property:
    def get(self: Optimizer) -> Any:
        return getattr(self._inner, name)

    def assign(self: Optimizer, value: Any) -> None:
        setattr(self._inner, name, value)
        self._options = {**self._options, name: value}

    return property(get, assign, doc=f"See `fastgd.Optimizer.{name}`.")


for _name in ("clip_norm", "clip_value", "nonfinite"):
    setattr(Optimizer, _name, _option(_name))


def _drop_in(name: str, kind: type[optimizers.Optimizer]) -> type[Optimizer]:
    """The class for one of fastgd's."""
    made = type(
        name,
        (Optimizer,),
        {
            "_kind": kind,
            "__module__": "fastgd.adapters.torch",
            "__doc__": f"`fastgd.{name}` as a `torch.optim.Optimizer`: see `Optimizer` here for what all "
            "share, and `fastgd` for the formula, the hyperparameters and the source.",
        },
    )
    own = kind.declaration.signature.parameters.values()
    offload = inspect.Parameter("offload", inspect.Parameter.KEYWORD_ONLY, default=False)

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        Optimizer.__init__(self, *args, **kwargs)

    __init__.__signature__ = inspect.Signature([*own, offload])  # type: ignore[attr-defined]
    made.__init__ = __init__  # type: ignore[misc]
    return made


DROP_INS = {name: _drop_in(name, kind) for name, kind in all_optimizers().items()}
