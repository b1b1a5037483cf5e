"""Keras 3 on its PyTorch backend: `keras.optimizers` with fastgd's steps.

    import os; os.environ["KERAS_BACKEND"] = "torch"
    from fastgd.adapters.keras import AdamW, Optimizer
    model.compile(AdamW(1e-3), "mse")                           # Keras' arguments, formula and results
    model.compile(Optimizer("lion", 1e-4), "mse")               # any other

`Adadelta`, `Adagrad`, `Adam`, `AdamW`, `Adamax`, `Lion`, `Nadam`, `RMSprop` and `SGD` stand in for
those of `keras.optimizers`. Clipping, weight decay, averages (use_ema), accumulation and loss scaling are
Keras' own; the state is saved with the model.

On Keras' JAX and TensorFlow backends the optimizer is traced into the compiled step, where nothing of ours
can run: use theirs.

Needs `pip install "fastgd[keras]"`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastgd import optimizers
from fastgd.adapters.torch import Bound
from fastgd.optimizers import dump, find

try:
    keras: Any = importlib.import_module("keras")
except ImportError as error:
    raise ImportError('fastgd.adapters.keras needs Keras: pip install "fastgd[keras]"') from error
torch: Any = importlib.import_module("torch")

if keras.backend.backend() != "torch":
    raise ImportError(
        f"fastgd.adapters.keras needs Keras' PyTorch backend, not {keras.backend.backend()}, which traces "
        "its optimizers: set the environment variable KERAS_BACKEND=torch before Keras is imported"
    )


@keras.saving.register_keras_serializable(package="fastgd")
class Optimizer(keras.optimizers.Optimizer):  # type: ignore[misc]
    """Any of fastgd's optimizers as a `keras.optimizers.Optimizer`.

    Args:
        optimizer: its name or class.
        learning_rate: a number, or a schedule of Keras'.
        hyperparameters: of the class, lr apart, such as {"betas": (0.9, 0.99)}.

    The others, such as `clipnorm`, `global_clipnorm`, `weight_decay` (decoupled, also where the class has
    its own) and `use_ema`, are Keras' own.

    Raises:
        TypeError, ValueError: no such optimizer; hyperparameters that it lacks, or out of range; with the
            model's variables, one that is not float32 or float64.
    """

    def __init__(
        self,
        optimizer: str | type[optimizers.Optimizer],
        learning_rate: Any = 0.001,
        hyperparameters: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        kind = find(optimizer)
        if kind.needs_loss:
            raise TypeError(
                f"{kind.__name__} needs the loss, which Keras does not hand to its optimizers"
            )
        # Of tuples, since Keras wraps the dicts and lists of an attribute.
        given = kind.declaration.checked(hyperparameters or {})
        self._kind, self._given = kind, tuple(given.items())
        self._bound: Bound | None = None
        self._numbers: Any = None
        self._behind = False  # whether fastgd's counts are not Keras'

    def build(self, variables: Sequence[Any]) -> None:
        """Make the state of a model's variables."""
        if self.built:
            return
        for variable in variables:
            if variable.value.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"variable {variable.path} is {variable.dtype}; it must be float32, as it is under the "
                    'policy "mixed_bfloat16", or float64'
                )
        group = {
            **self._kind.declaration.defaults,
            **dict(self._given),
            "params": [variable.value for variable in variables],
            "param_names": [variable.path for variable in variables],
        }
        bound = Bound(self._kind, [group], {}, offload=False)
        super().build(variables)
        entries = dump(bound.inner, copied=False)["state"].values()
        for slot in self._kind.declaration.state:
            for variable, leaf, entry in zip(variables, bound.leaves, entries, strict=True):
                if slot in entry:
                    self._over(f"{variable.name}_{slot}", leaf.outward(entry[slot]), variable.dtype)
        if self._kind.declaration.numbers:
            numbers = torch.from_numpy(bound.inner._bound.plan.numbers)
            self._numbers = self._over("numbers", numbers.clone(), "float64")
        self._bound, self._group = bound, (group,)

    def _over(self, name: str, tensor: Any, dtype: str) -> Any:
        """A variable of Keras' over this memory."""
        variable = self.add_variable(shape=tuple(tensor.shape), dtype=dtype, name=name)
        variable.value.data = tensor
        return variable

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        bound, (group,) = self._bound, self._group
        assert bound is not None
        self._catch_up(int(keras.ops.convert_to_numpy(self.iterations)))
        group["lr"] = float(
            learning_rate.value if hasattr(learning_rate, "value") else learning_rate
        )
        bound.pass_on([group])
        given: list[Any] = [None] * len(bound.leaves)
        for grad, variable in zip(grads, trainable_variables, strict=True):
            given[self._get_variable_index(variable)] = grad
        now = bound.addresses()
        if now != bound.at:
            bound.fits()
        bound.step(now, grads=given)
        self._behind = len(grads) < len(given)

    def _catch_up(self, count: int) -> None:
        """Keras counts steps for the model, fastgd for each array that has a gradient."""
        assert self._bound is not None
        inner = self._bound.inner
        if inner.step_count == count and not self._behind:
            return
        saved = dump(inner, copied=False)
        for entry in saved["state"].values():
            entry["step"] = count
        inner.load_state_dict({**saved, "step_count": count})
        self._behind = False

    def save_own_variables(self, store: Any) -> None:
        """Write the state to a model's file."""
        if self._numbers is not None and self._bound is not None:
            self._numbers.assign(self._bound.inner._bound.plan.numbers)
        super().save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        """Read the state from a model's file."""
        super().load_own_variables(store)
        if self._numbers is not None and self._bound is not None:
            inner = self._bound.inner
            saved, rows = dump(inner, copied=False), self._numbers.numpy().tolist()
            for entry, row in zip(saved["state"].values(), rows, strict=True):
                entry.update(zip(self._kind.declaration.numbers, row, strict=False))
            inner.load_state_dict(saved)
        self._behind = True

    def get_config(self) -> dict[str, Any]:
        """What another is made from."""
        return {
            **super().get_config(),
            "optimizer": self._kind.__name__,
            "hyperparameters": dict(self._given),
        }


Translation = Callable[[dict[str, Any]], dict[str, Any]]


def _moments(values: dict[str, Any]) -> tuple[float, float]:
    return values["beta_1"], values["beta_2"]


# Keras' names and forms in fastgd's.
STAND_INS: dict[str, tuple[str, Translation]] = {
    "Adadelta": ("Adadelta", lambda v: {"rho": v["rho"], "eps": v["epsilon"]}),
    "Adagrad": (
        "Adagrad",
        lambda v: {
            "initial_accumulator_value": v["initial_accumulator_value"],
            "eps": v["epsilon"],
            "eps_inside": True,
        },
    ),
    "Adam": (
        "Adam",
        lambda v: {
            "betas": _moments(v),
            "eps": v["epsilon"],
            "amsgrad": v["amsgrad"],
            "eps_hat": True,
        },
    ),
    "Adamax": (
        "Adamax",
        lambda v: {"betas": _moments(v), "eps": v["epsilon"], "eps_outside": True},
    ),
    "Lion": ("Lion", lambda v: {"betas": _moments(v), "weight_decay": 0.0}),
    "Nadam": (
        "NAdam",
        lambda v: {"betas": _moments(v), "eps": v["epsilon"], "momentum_decay": 1.0},
    ),
    "RMSprop": (
        "RMSprop",
        lambda v: {
            "alpha": v["rho"],
            "momentum": v["momentum"],
            "eps": v["epsilon"],
            "centered": v["centered"],
            "eps_inside": True,
            "lr_in_momentum": True,
        },
    ),
    "SGD": (
        "SGD",
        lambda v: {
            "momentum": v["momentum"],
            "nesterov": v["nesterov"],
            "lr_in_momentum": True,
        },
    ),
}
STAND_INS["AdamW"] = STAND_INS["Adam"]


def _stand_in(name: str, kind: str, translate: Translation) -> type[Optimizer]:
    host = getattr(keras.optimizers, name)
    parameters = list(inspect.signature(host.__init__).parameters.values())
    signature = inspect.Signature([p for p in parameters if p.kind != p.VAR_KEYWORD])
    names = list(signature.parameters)[1:]
    common = set(inspect.signature(keras.optimizers.Optimizer.__init__).parameters)
    own = ["learning_rate", *(key for key in names if key not in common)]

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        values = {key: bound.arguments[key] for key in names}
        mine = {key: values.pop(key) for key in own}
        rate = mine.pop("learning_rate")
        Optimizer.__init__(self, kind, rate, translate(mine), **values)
        self._keras = tuple(mine.items())

    def get_config(self: Any) -> dict[str, Any]:
        config = Optimizer.get_config(self)
        del config["optimizer"], config["hyperparameters"]
        return {**config, **dict(self._keras)}

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    made = type(
        name,
        (Optimizer,),
        {
            "__init__": __init__,
            "get_config": get_config,
            "__module__": __name__,
            "__doc__": f"`keras.optimizers.{name}` with fastgd's steps: its arguments and formula.",
        },
    )
    found: type[Optimizer] = keras.saving.register_keras_serializable(package="fastgd")(made)
    return found


STOOD_IN = {name: _stand_in(name, *how) for name, how in sorted(STAND_INS.items())}

__all__ = ["Optimizer", *STOOD_IN]

globals().update(STOOD_IN)


def __getattr__(name: str) -> Any:  # for type checkers, which do not see what is made above
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
