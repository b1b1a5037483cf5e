"""What an optimizer of PyTorch's kind holds: fastgd's, and its parameters as tensors and as arrays."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from fastgd import optimizers
from fastgd.adapters.torch._tensors import Gradients, Leaf, addresses, mark_written, torch
from fastgd.adapters.torch._transfer import check_decay, exported, imported, number
from fastgd.optimizers import dump


class Bound:
    """Groups of tensors as fastgd has them.

    Attributes:
        inner: fastgd's optimizer.
        hyperparameters: of each group, as it has them.
        at: the addresses of the parameters that it updates where they lie.
    """

    def __init__(
        self,
        kind: type[optimizers.Optimizer],
        groups: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        offload: bool,
    ) -> None:
        self.groups = [
            [
                Leaf(tensor, name, offload)
                for tensor, name in zip(group["params"], _names(i, group), strict=True)
            ]
            for i, group in enumerate(groups)
        ]
        for i, group in enumerate(groups):
            check_decay(kind.torch, f"group {i}", group)
        self.leaves = [leaf for part in self.groups for leaf in part]
        self.offloaded = [leaf for leaf in self.leaves if leaf.master is not None]
        self._own = [leaf for leaf in self.leaves if leaf.master is None]
        self._resident = [leaf.tensor for leaf in self._own]
        self._layouts = list(map(_layout, self._resident))
        self.at = self.addresses()
        self.gradients = Gradients(self.leaves)
        self.hyperparameters = [_hyperparameters(kind, group) for group in groups]
        self._given: list[list[Any]] = [[] for _ in groups]
        self.inner = kind(
            [
                {"params": [leaf.array for leaf in part], **values}
                for part, values in zip(self.groups, self.hyperparameters, strict=True)
            ],
            **options,
        )

    def load(self, state: Mapping[Any, Mapping[str, Any]], step_count: int | None) -> None:
        """Take over what a host's state, by tensor, says."""
        saved, entries = dump(self.inner, copied=False), {}
        names = iter(self.leaves)
        for group in saved["param_groups"]:
            for name in group["params"]:
                leaf = next(names)
                found = {key: leaf.inward(x) for key, x in state.get(leaf.tensor, {}).items()}
                if leaf.master is not None and "master" in found:
                    leaf.master.copy_(found["master"])
                entries[name] = imported(self.inner, name, found, group, step_count)
        if step_count is None:
            step_count = max((entry["step"] for entry in entries.values()), default=0)
        self.inner.load_state_dict({**saved, "state": entries, "step_count": step_count})

    def state(self) -> dict[Any, dict[str, Any]]:
        """By tensor, of those that have been updated: numbers, and tensors over fastgd's arrays."""
        result = {}
        entries = dump(self.inner, copied=False)["state"].values()
        for leaf, entry in zip(self.leaves, entries, strict=True):
            found = exported(self.inner.torch, entry, leaf.outward)
            if leaf.master is not None:
                found["master"] = leaf.master
            if found and (entry["step"] > 0 or self.inner.torch == "Adagrad"):
                result[leaf.tensor] = found
        return result

    def pass_on(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Hyperparameters that the host has changed in its groups."""
        for i, group in enumerate(groups):
            given = [group[key] for key in self.hyperparameters[i]]
            if given == self._given[i]:
                continue
            before, values = self.hyperparameters[i], _hyperparameters(type(self.inner), group)
            self.inner.param_groups[i].update(
                {key: x for key, x in values.items() if x != before[key]}
            )
            self.hyperparameters[i] = values
            # A tensor that is changed in place is equal to itself: it has to be read each time.
            self._given[i] = [] if _holds_tensor(given) else given

    def addresses(self) -> Any:
        """Where the parameters lie now: a host may put them elsewhere at any time."""
        return addresses(self._resident)

    def fits(self) -> bool:
        """Whether the parameters are what they were when this was made, wherever they lie.

        Raises: ValueError if one has another shape.
        """
        layouts = list(map(_layout, self._resident))
        for leaf, now, before in zip(self._own, layouts, self._layouts, strict=True):
            if now[0] != before[0]:
                raise ValueError(
                    f"parameter {leaf.name} has shape {tuple(now[0])}, and had {tuple(before[0])} when its "
                    "state was made: make another optimizer"
                )
        return layouts == self._layouts

    def step(self, now: Any, loss: float | None = None, grads: list[Any] | None = None) -> None:
        """Take a step over the parameters where they lie now, with the gradients given or their own."""
        for leaf in self.offloaded:
            leaf.follow()
        moved = None
        if now != self.at:
            moved = self._by_group([leaf.array for leaf in self.leaves])
        if self.inner.step(self._by_group(self.gradients.read(grads)), loss=loss, params=moved):
            mark_written(self.gradients.written)
            for leaf in self.offloaded:
                leaf.give()
        self.at = now

    def _by_group(self, arrays: list[Any]) -> list[Any]:
        """As fastgd takes what there is for each parameter."""
        if len(self.groups) == 1:
            return arrays
        rest = iter(arrays)
        return [list(itertools.islice(rest, len(part))) for part in self.groups]

    def written(self) -> None:
        """Tell PyTorch that all parameters have other values, those behind masters too."""
        mark_written([leaf.tensor for leaf in self.leaves])
        for leaf in self.offloaded:
            leaf.give()


def _names(i: int, group: Mapping[str, Any]) -> list[str]:
    """For messages."""
    given = group.get("param_names")
    return [repr(given[k]) if given else f"{k} of group {i}" for k in range(len(group["params"]))]


def _layout(tensor: Any) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_tensor, value))
    return isinstance(value, torch.Tensor)


def _hyperparameters(kind: type[optimizers.Optimizer], group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: number(group[key]) for key in kind.declaration.checks}
