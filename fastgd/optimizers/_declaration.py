"""The signature of an optimizer's class is its declaration.

`class Lion(Optimizer, rule="lion")` with `def __init__(self, params, lr: NonNegative = 1e-4, …) -> None:
...` says everything once: names, defaults, types and checks of the hyperparameters. The constructor
itself is written here, for all. What the rule expects (fastgd/_engine/rules/table.pxd) is compared with
it when the class is defined.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import numpy as np

from fastgd import _engine
from fastgd._arguments import flag, suggestion
from fastgd._arrays.tree import Array
from fastgd.optimizers._fields import Check, Values, directory, state_dtype

# Of the optimizer as a whole, and so not of its groups.
STEP_OPTIONS = {"clip_norm": None, "clip_value": None, "nonfinite": "propagate"}
# Of every group beside its class's own: checks and defaults.
GROUP_OPTIONS: dict[str, tuple[Check, Any]] = {
    "maximize": (flag, False),
    "state_dtype": (state_dtype, None),
    "state_dir": (directory, None),
}
# What other libraries call some of them.
OTHER_NAMES = {
    "learning_rate": "lr",
    "eta": "lr",
    "alpha": "lr",
    "step_size": "lr",
    "epsilon": "eps",
    "beta": "momentum",
    "beta1": "betas",
    "beta2": "betas",
    "b1": "betas",
    "b2": "betas",
    "rho": "alpha",
    "decay": "weight_decay",
    "l2": "weight_decay",
    "clipnorm": "clip_norm",
    "max_norm": "clip_norm",
    "global_clipnorm": "clip_norm",
    "clipvalue": "clip_value",
}


class Declaration:
    """What the signature of a class and its rule say.

    Args:
        name: of the class, for messages.
        function: its constructor, whose body is empty.
        rule: of the engine.
        unpacked: hyperparameters that the rule does not have: only Python reads them.
        variants: the rule in this one's place where a flag is set, by the flag's name.

    Raises: TypeError if class and rule differ.
    """

    def __init__(
        self,
        name: str,
        function: Any,
        rule: str,
        unpacked: Iterable[str],
        variants: Mapping[str, str],
    ) -> None:
        signature = inspect.signature(function)
        self.name = name
        self.rule: Mapping[str, Any] = _engine.rules[rule]
        self.variants = {flag: _engine.rules[other] for flag, other in variants.items()}
        self.state: tuple[str, ...] = self.rule["state"]
        self.numbers: tuple[str, ...] = self.rule["numbers"]
        own = [p for p in signature.parameters.values() if p.kind != inspect.Parameter.VAR_KEYWORD]
        self.checks: dict[str, Check] = {
            parameter.name: _check(function, parameter) for parameter in own[2:]
        }
        self.defaults: Values = {parameter.name: parameter.default for parameter in own[2:]}
        different = set(self.checks) ^ {*self.rule["hyperparameters"], *unpacked}
        if different:
            raise TypeError(f"{name} and its rule {rule!r} differ in {sorted(different)}")
        for other in self.variants.values():
            for key in ("hyperparameters", "state", "numbers"):
                if other[key] != self.rule[key]:
                    raise TypeError(f"{name}: a variant of its rule {rule!r} has other {key}")
        # Keyword-only: forms of other libraries, options.
        self.forms: Values = {
            p.name: p.default for p in own[2:] if p.kind == inspect.Parameter.KEYWORD_ONLY
        }
        for key, (check, default) in GROUP_OPTIONS.items():
            self.checks[key], self.defaults[key] = check, default
        self._widths = tuple(self.rule["hyperparameters"].items())
        ends = itertools.accumulate(width for _, width in self._widths)
        # Of each number among those that `packed` makes.
        self.places = {
            key: end - width for (key, width), end in zip(self._widths, ends, strict=True)
        }
        self._positional = tuple(
            p.name for p in own[1:] if p.kind == inspect.Parameter.POSITIONAL_OR_KEYWORD
        )
        self.signature = signature.replace(
            parameters=[
                *own,
                *(
                    inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default)
                    for key, default in {
                        **{key: default for key, (_, default) in GROUP_OPTIONS.items()},
                        **STEP_OPTIONS,
                    }.items()
                ),
            ]
        )

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Values, Values]:
        """The constructor's arguments: params, hyperparameters, options of the optimizer."""
        known = {"params", *self.checks, *STEP_OPTIONS}
        for key in kwargs:
            if key not in known:
                raise TypeError(
                    f"{self.name} got an unexpected argument {key!r}{suggestion(key, known, OTHER_NAMES)}"
                )
        if len(args) > len(self._positional):
            raise TypeError(
                f"{self.name} takes {len(self._positional)} positional arguments "
                f"({', '.join(self._positional)}), got {len(args)}; pass the rest by name"
            )
        given = dict(zip(self._positional, args, strict=False))
        twice = sorted(set(given) & set(kwargs))
        if twice:
            raise TypeError(f"{self.name} got {twice[0]!r} twice, by position and by name")
        given.update(kwargs)
        if "params" not in given:
            raise TypeError(f"{self.name} needs params: an array, or a list, tuple or dict of such")
        options = {key: given.pop(key, default) for key, default in STEP_OPTIONS.items()}
        return given.pop("params"), {**self.defaults, **given}, options

    def checked(self, values: Mapping[str, Any]) -> Values:
        """The hyperparameters in their normal form, or TypeError or ValueError naming one."""
        for name in values:
            if name not in self.checks:
                raise ValueError(
                    f"{self.name} has no hyperparameter {name!r}; it has {', '.join(self.checks)}"
                    f"{suggestion(name, self.checks, OTHER_NAMES)}"
                )
        return {name: self.checks[name](name, value) for name, value in values.items()}

    def rule_for(self, values: Values) -> Mapping[str, Any]:
        """What the engine says about the rule of a group with these hyperparameters."""
        for name, rule in self.variants.items():
            if values[name]:
                return rule
        return self.rule

    def packed(self, values: Values) -> Array:
        """The numbers in the order of the rule's struct; what is None is NaN there."""
        flat: list[Any] = []
        for name, width in self._widths:
            value = values[name]
            if width == 1:
                flat.append(value)
            else:
                flat.extend(value)
        return np.array(flat, np.float64)


def _check(function: Any, parameter: inspect.Parameter) -> Check:
    annotation = parameter.annotation
    if isinstance(annotation, str):
        annotation = eval(annotation, function.__globals__)
    checks = get_args(annotation)[1:]  # of Annotated[type, check]
    if len(checks) != 1 or parameter.default is inspect.Parameter.empty:
        raise TypeError(
            f"hyperparameter {parameter.name!r} needs an annotation that checks it, such as "
            "NonNegative, and a default"
        )
    return checks[0]  # type: ignore[no-any-return]
