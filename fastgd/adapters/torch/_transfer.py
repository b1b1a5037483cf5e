"""A run of torch.optim taken over by an optimizer over NumPy arrays, and one handed over to it.

An optimizer that both libraries have keeps the same state under the same names in both, so a run started
in one continues in the other, up to rounding. The parameters correspond in order: group by
group, `optimizer.params` in fastgd (dicts in their own order) and the list given to torch.optim.

Some things do not pass over. Functions of the step: to PyTorch goes their present value, for a
`torch.optim.lr_scheduler` to change; from PyTorch comes a number, which does not replace a function
here. Clipping and `nonfinite` are not part of torch.optim; see `torch.nn.utils.clip_grad_norm_`, which
adds 1e-6 to the norm. Keyword-only arguments of a class here, such as eps_hat, are other formulas than
PyTorch's. PyTorch casts the numbers that a rule keeps, such as NAdam's mu_product, to the parameter's
dtype.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastgd import _engine
from fastgd._arrays.tree import Array, check_parameter
from fastgd.adapters.torch._tensors import CODES, torch
from fastgd.optimizers import Optimizer, all_optimizers, dump, prepare


def to_torch(optimizer: Optimizer, torch_optimizer: Any) -> None:
    """Copy parameters, state and hyperparameters into a PyTorch optimizer, which continues the run.

    Args:
        optimizer: one that torch.optim has too.
        torch_optimizer: of the same name, over as many groups of tensors of the same shapes and
            dtypes, on any device. Its options that fastgd does not have, such as foreach, stay.

    Raises:
        TypeError: it is of another class.
        ValueError: its groups or tensors do not correspond, or an option has no counterpart.
            Nothing has changed then.

    Example:
        >>> import numpy as np, torch, fastgd
        >>> from fastgd.adapters.torch import to_torch
        >>> W = np.array([1.0, 2.0])
        >>> opt = fastgd.Adam(W, lr=0.5)
        >>> _ = opt.step(2 * W)
        >>> theirs = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        >>> torch_opt = torch.optim.Adam([theirs])
        >>> to_torch(opt, torch_opt)
        >>> torch_opt.param_groups[0]["lr"], theirs.tolist() == W.tolist()
        (0.5, True)
    """
    _check_class(optimizer, torch_optimizer)
    pairs = _pairs(optimizer, torch_optimizer)
    _warn_of_losses(optimizer)
    exported = _export(optimizer, torch_optimizer)
    torch_optimizer.load_state_dict(exported)
    with torch.no_grad():
        for _, array, tensor in pairs:
            tensor.copy_(torch.from_numpy(array))


def from_torch(
    torch_optimizer: Any, optimizer: Optimizer, *, step_count: int | None = None
) -> None:
    """Copy parameters, state and hyperparameters from a PyTorch optimizer, and continue its run.

    Args:
        torch_optimizer: the one that has run so far.
        optimizer: of the same name, over as many groups of arrays of the same shapes and dtypes.
        step_count: see `load_state_dict`.

    Raises:
        TypeError, ValueError: as `to_torch`. Nothing has changed then.

    Example:
        >>> import numpy as np, torch, fastgd
        >>> from fastgd.adapters.torch import from_torch
        >>> theirs = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> torch_opt = torch.optim.RMSprop([theirs], lr=0.25)
        >>> (theirs * theirs).sum().backward()
        >>> _ = torch_opt.step()
        >>> W = np.zeros(2, np.float32)
        >>> opt = fastgd.RMSprop(W)
        >>> from_torch(torch_opt, opt)
        >>> opt.step_count, opt.param_groups[0]["lr"], W.tolist() == theirs.tolist()
        (1, 0.25, True)
    """
    _check_class(optimizer, torch_optimizer)
    values = [
        (array, tensor.detach().cpu().numpy())
        for _, array, tensor in _pairs(optimizer, torch_optimizer)
    ]
    for name, array in optimizer.params.items():
        check_parameter(name, array)  # that it is still writeable

    def change() -> None:
        saved = _saved(optimizer, torch_optimizer.state_dict(), step_count)
        prepared = prepare(optimizer, saved, strict=True)

        def commit() -> None:
            for array, value in values:
                np.copyto(array, value)
            prepared.copy()
            prepared.assign()

        _engine.uninterrupted(commit)

    optimizer._gate.call(change)


def state_dict(optimizer: Optimizer, *, like: Any = None) -> dict[str, Any]:
    """The optimizer's state as `torch.optim.Optimizer.state_dict` would give it, for its load_state_dict.

    Args:
        optimizer: one that torch.optim has too. Its parameters are not included.
        like: a PyTorch optimizer whose options that fastgd does not have, such as foreach, are
            taken over; None for PyTorch's defaults.

    Returns:
        {"state": {index: {"step": tensor, slot: tensor, …}}, "param_groups": [{"params": [indices],
        hyperparameters …}]} with tensors of their own on the CPU.

    Raises:
        TypeError: the optimizer is none that torch.optim has.
        ValueError: lr_in_momentum, eps_hat or eps_inside is on.
    """
    _warn_of_losses(optimizer)
    return _export(optimizer, like)


def _warn_of_losses(optimizer: Any) -> None:
    """In the name of whoever called the public function."""
    options = optimizer.options if isinstance(optimizer, Optimizer) else {}
    lost = [name for name, value in options.items() if value not in (None, "propagate")]
    if lost:
        warnings.warn(
            f"{', '.join(lost)} stays behind: torch.optim has no such option", stacklevel=3
        )


def _export(optimizer: Optimizer, like: Any) -> dict[str, Any]:
    kind = _kind(optimizer)
    _check_forms(optimizer)
    saved = optimizer.state_dict(decoded=True)
    indices = {name: i for i, name in enumerate(optimizer.params)}
    groups = []
    for group, names, template in zip(
        optimizer.param_groups,
        (group["params"] for group in saved["param_groups"]),
        _templates(kind, like, len(optimizer.param_groups)),
        strict=True,
    ):
        other = _other_decay(kind, template)
        if other:
            raise ValueError(
                f"the PyTorch optimizer has decoupled_weight_decay={other == 'AdamW'}, which is "
                f"{other}, and this is {kind}"
            )
        values = group.current
        groups.append(
            {key: values.get(key, value) for key, value in template.items()}
            | {"params": [indices[name] for name in names]}
        )
    return {
        "state": {
            indices[name]: exported(kind, entry)
            for name, entry in saved["state"].items()
            # PyTorch makes the state at a parameter's first step, Adagrad's at once.
            if entry["step"] > 0 or kind == "Adagrad"
        },
        "param_groups": groups,
    }


def load_state_dict(
    optimizer: Optimizer, state_dict: Mapping[str, Any], *, step_count: int | None = None
) -> None:
    """Load what `torch.optim.Optimizer.state_dict` gave, perhaps by way of `torch.load`.

    Parameters are not part of such a dict; see `from_torch`. Hyperparameters become PyTorch's, except
    where one is a function here.

    Args:
        optimizer: of the class that the dict is from.
        state_dict: PyTorch's; its tensors are copied.
        step_count: how many steps had been taken, on which schedules depend. None for the largest
            count in the state; that of SGD has none, so that 1 is assumed where there is momentum.

    Raises:
        TypeError, ValueError: it does not fit the optimizer. Nothing has changed then.
    """
    optimizer.load_state_dict(_saved(optimizer, state_dict, step_count))


def _saved(
    optimizer: Optimizer, state_dict: Mapping[str, Any], step_count: int | None
) -> dict[str, Any]:
    """PyTorch's dict as fastgd's."""
    kind = _kind(optimizer)
    _check_forms(optimizer)
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        raise TypeError('state_dict must be a dict with "state" and "param_groups"')
    _check_structure(state_dict)
    own = dump(optimizer, copied=False)  # only for names and options
    groups, state, forms = [], {}, _own_forms(optimizer)
    pairs = _zip("groups", own["param_groups"], state_dict["param_groups"])
    for i, (ours, theirs) in enumerate(pairs):
        group = _imported_group(kind, forms, f"group {i}", ours, theirs)
        groups.append(group)
        for name, index in _zip(f"parameters in group {i}", ours["params"], theirs["params"]):
            found = state_dict["state"].get(index) or {}
            state[name] = imported(optimizer, name, found, group, step_count)
    if step_count is None:
        step_count = max((entry["step"] for entry in state.values()), default=0)
    return {**own, "step_count": step_count, "state": state, "param_groups": groups}


# --- what must correspond ---


def _check_structure(state_dict: Mapping[str, Any]) -> None:
    """That the state is of the parameters in the groups, one entry for each at most."""
    state, groups = state_dict["state"], state_dict["param_groups"]
    if not isinstance(state, Mapping) or not all(isinstance(x, Mapping) for x in state.values()):
        raise TypeError('state_dict["state"] must be a dict of dicts')
    if not isinstance(groups, (list, tuple)) or not all(
        isinstance(group, Mapping) and isinstance(group.get("params"), (list, tuple))
        for group in groups
    ):
        raise TypeError('state_dict["param_groups"] must be a list of dicts with a list "params"')
    strangers = [key for key in state if not any(key in group["params"] for group in groups)]
    if strangers:
        raise ValueError(
            f"state_dict has a state of {strangers[:5]!r}, which are no parameters of its groups; "
            "PyTorch's keys are ints (JSON makes strings of them)"
        )


def _kind(optimizer: Any) -> str:
    """The name of the class in torch.optim."""
    if not isinstance(optimizer, Optimizer) or optimizer.torch is None:
        have = [name for name, kind in all_optimizers().items() if kind.torch]
        raise TypeError(
            f"expected an optimizer of fastgd that torch.optim has too ({', '.join(have)}), "
            f"got {optimizer!r}"
        )
    if any(group.optimizer is not type(optimizer) for group in optimizer.param_groups):
        raise TypeError(
            "the groups are of several optimizers, which torch.optim cannot hold in one"
        )
    return optimizer.torch


def _check_class(optimizer: Any, torch_optimizer: Any) -> None:
    kind = _kind(optimizer)
    if type(torch_optimizer) is not getattr(torch.optim, kind):
        raise TypeError(
            f"fastgd.{type(optimizer).__name__} corresponds to torch.optim.{kind}, got "
            f"{type(torch_optimizer).__module__}.{type(torch_optimizer).__qualname__}"
        )


def _plain(kind: str) -> Any:
    """A PyTorch optimizer of nothing to speak of."""
    return getattr(torch.optim, kind)([torch.zeros((1, 1))])


def _own_forms(optimizer: Optimizer) -> set[str]:
    """The hyperparameters that PyTorch's class lacks: forms of the formula, and how state is stored."""
    return set(optimizer.declaration.checks) - set(_plain(_kind(optimizer)).defaults)


def _other_decay(kind: str, theirs: Mapping[str, Any]) -> str | None:
    """The class that a group is of in truth: in PyTorch Adam and AdamW differ by an option."""
    others = {"Adam": "AdamW", "AdamW": "Adam"}
    decoupled = kind == "AdamW"
    if kind in others and theirs.get("decoupled_weight_decay", decoupled) != decoupled:
        return others[kind]
    return None


def check_decay(kind: str | None, where: str, theirs: Mapping[str, Any]) -> None:
    other = None if kind is None else _other_decay(kind, theirs)
    if other:
        raise ValueError(f"{where} is of {other}, this is {kind}")


def template(kind: str | None) -> dict[str, Any]:
    """All the options of a class of torch.optim, with its defaults; none where it has no such class."""
    return dict(_plain(kind).defaults) if kind is not None and hasattr(torch.optim, kind) else {}


def _check_forms(optimizer: Optimizer) -> None:
    forms = _own_forms(optimizer) - {"state_dtype", "state_dir"}
    for i, group in enumerate(optimizer.param_groups):
        for form in forms:
            if group[form] != optimizer.declaration.defaults[form]:
                raise ValueError(
                    f"group {i} has {form}={group[form]!r}, a formula that torch.optim lacks"
                )


def _pairs(optimizer: Optimizer, torch_optimizer: Any) -> list[tuple[str, Array, Any]]:
    """The parameters: name, array and tensor."""
    names = iter(optimizer.params)
    pairs = []
    for ours, theirs in _zip("groups", optimizer.param_groups, torch_optimizer.param_groups):
        for array, tensor in _zip("parameters", ours["params"], theirs["params"]):
            name = next(names)
            dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
            if tuple(tensor.shape) != array.shape or tensor.dtype != dtype:
                raise ValueError(
                    f"parameter {name!r} has shape {array.shape} and dtype {array.dtype}, the "
                    f"tensor in its place {tuple(tensor.shape)} and {tensor.dtype}"
                )
            pairs.append((name, array, tensor))
    return pairs


def _zip(what: str, ours: Sequence[Any], theirs: Any) -> list[tuple[Any, Any]]:
    if len(ours) != len(theirs):
        raise ValueError(f"there are {len(ours)} {what} in fastgd, and {len(theirs)} in PyTorch")
    return list(zip(ours, theirs, strict=True))


# --- to PyTorch ---


def _templates(kind: str, like: Any, count: int) -> list[dict[str, Any]]:
    """For each group all the options that PyTorch wants to find there."""
    if like is not None:
        groups: list[dict[str, Any]] = like.state_dict()["param_groups"]
        return groups
    return list(_plain(kind).state_dict()["param_groups"]) * count


def exported(
    kind: str | None, entry: Mapping[str, Any], tensor: Callable[[Array], Any] = torch.from_numpy
) -> dict[str, Any]:
    """The state of one parameter, as torch.optim has it; `tensor` makes one of an array."""
    step = {} if kind == "SGD" else {"step": torch.tensor(float(entry["step"]))}
    return step | {
        key: tensor(value)
        if isinstance(value, np.ndarray)
        else torch.tensor(value, dtype=torch.float64)
        for key, value in entry.items()
        if key != "step"
    }


# --- from PyTorch ---


def _imported_group(
    kind: str, forms: set[str], where: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> dict[str, Any]:
    """Our group with their hyperparameters."""
    check_decay(kind, where, theirs)
    group = dict(ours)
    for name, value in ours.items():
        if name != "params" and name not in forms:
            if name not in theirs:
                raise ValueError(f"{where} of the state_dict lacks {name!r}; is it of {kind}?")
            group[name] = _number(value, theirs[name])
    return group


def _number(ours: Any, theirs: Any) -> Any:
    """Their value; ours where it is a function."""
    if callable(ours):
        return ours
    if isinstance(ours, tuple) and isinstance(theirs, (list, tuple)) and len(ours) == len(theirs):
        return tuple(map(_number, ours, theirs))
    return number(theirs)


def number(value: Any) -> Any:
    """Of a hyperparameter that may be a tensor, or several of such."""
    if isinstance(value, (list, tuple)):
        return tuple(map(number, value))
    return value.item() if isinstance(value, torch.Tensor) else value


def imported(
    optimizer: Optimizer,
    name: str,
    found: Mapping[str, Any],
    values: Mapping[str, Any],
    step_count: int | None,
) -> dict[str, Any]:
    """The state of one parameter; the initial one where PyTorch has not made any yet."""
    param = optimizer.params[name]
    declaration, first = optimizer.declaration, optimizer.first_values(dict(values))
    unused = optimizer.unused(dict(values))
    shapes = {
        slot: shape
        for slot in declaration.state
        if slot not in unused and (shape := optimizer.state_shape(slot, param.shape)) is not None
    }
    if all(value is None for value in found.values()):
        fresh = {slot: np.full(shapes[slot], first.get(slot, 0.0), param.dtype) for slot in shapes}
        return {"step": 0, **{key: first.get(key, 0.0) for key in declaration.numbers}, **fresh}
    step = found.get("step", 1 if step_count is None else step_count)  # SGD has none
    missing = [key for key in declaration.numbers if key not in found]
    if missing:
        raise ValueError(f"the state of parameter {name!r} lacks {missing[0]!r}")
    numbers = {key: float(found[key]) for key in declaration.numbers}
    return {"step": int(step), **numbers, **{slot: _array(name, slot, found) for slot in shapes}}


def _array(name: str, slot: str, found: Mapping[str, Any]) -> Array:
    tensor = found.get(slot)
    dtypes = (torch.float32, torch.float64, CODES)
    if not isinstance(tensor, torch.Tensor) or tensor.dtype not in dtypes:
        raise ValueError(
            f"the state of parameter {name!r} needs {slot!r}, a tensor of float32 or float64; got "
            f"{tensor.dtype if isinstance(tensor, torch.Tensor) else tensor!r}"
        )
    array: Array = tensor.detach().cpu().numpy()
    return array
