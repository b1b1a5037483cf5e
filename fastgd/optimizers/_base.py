"""The base class of the optimizers: the step, its options, and state_dict()."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn

import numpy as np

from fastgd import _engine
from fastgd._arguments import number, suggestion
from fastgd._arrays.tree import Array, check_groups, is_groups
from fastgd.optimizers import _registry, _state_dict
from fastgd.optimizers._average import is_evaluating, move
from fastgd.optimizers._declaration import OTHER_NAMES, STEP_OPTIONS, Declaration
from fastgd.optimizers._fields import evaluate, limit
from fastgd.optimizers._groups import Bound, GroupedParameters

NONFINITE = ("propagate", "raise", "skip")


class StepOptions(NamedTuple):
    """Options of the optimizer as a whole, and what a step derives from them."""

    clip_norm: Any
    clip_value: Any
    nonfinite: str
    limits: Any  # the first two as the engine takes them, inf for none, or a function of the step

    @classmethod
    def checked(cls, clip_norm: Any, clip_value: Any, nonfinite: Any) -> StepOptions:
        """In their normal form, or TypeError or ValueError naming one."""
        if not isinstance(nonfinite, str) or nonfinite not in NONFINITE:
            raise ValueError(f'nonfinite must be "propagate", "raise" or "skip", got {nonfinite!r}')
        norm, value = limit("clip_norm", clip_norm), limit("clip_value", clip_value)

        def at(step: int) -> tuple[float, float]:
            now = [
                None if given is None else evaluate(limit, name, given, step)
                for name, given in (("clip_norm", norm), ("clip_value", value))
            ]
            return tuple(math.inf if given is None else given for given in now)  # type: ignore[return-value]

        return cls(norm, value, nonfinite, at if callable(norm) or callable(value) else at(0))

    @property
    def finite_only(self) -> bool:
        return self.nonfinite != "propagate"

    def named(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in STEP_OPTIONS}


class Optimizer(GroupedParameters):
    """What all optimizers share. Not for use by itself: see the subclasses in `optimizers`.

    A subclass with `rule="…"` is an optimizer of its own, whose `__init__` declares its hyperparameters
    and has no body (see CONTRIBUTING.md); any other subclass is an ordinary one.

    Attributes:
        track_norms: sum the squares of gradients, updates and parameters in each step, for `norms`.
    """

    track_norms: bool = False
    torch: ClassVar[str | None] = None  # the class of torch.optim with the same formula and names
    momentum: ClassVar[str | None] = None  # the hyperparameter that is one
    needs_loss: ClassVar[bool] = False  # whether `step` needs the value of the loss
    averages: ClassVar[bool] = False  # whether the parameters have two points, see `_average`
    adaptive: ClassVar[bool] = False  # whether a step's length depends little on the gradient's
    # What the arrays of its state are, by name, for `state_dtype`: see _arrays/formats.py.
    kinds: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init_subclass__(
        cls,
        *,
        rule: str | None = None,
        unpacked: Iterable[str] = (),
        variants: Mapping[str, str] = MappingProxyType({}),
        **traits: Any,
    ) -> None:
        """Args:
        rule: of the engine.
        unpacked, variants: see Declaration.
        traits: torch, momentum, adaptive, needs_loss, averages, kinds: see the attributes.
        """
        super().__init_subclass__()
        for name, value in traits.items():
            if not hasattr(Optimizer, name):
                raise TypeError(f"{cls.__name__}: an optimizer has no trait {name!r}")
            setattr(cls, name, value)
        if rule is None:
            return
        declared = vars(cls)["__init__"]
        cls.declaration = Declaration(cls.__name__, declared, rule, unpacked, variants)

        @functools.wraps(declared)
        def constructor(self: Optimizer, *args: Any, **kwargs: Any) -> None:
            self._construct(*cls.declaration.bind(args, kwargs))

        constructor.__signature__ = cls.declaration.signature  # type: ignore[attr-defined]
        cls.__init__ = constructor  # type: ignore[method-assign]
        _registry.enter(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(
            "Optimizer is what all optimizers share; use one of them, such as fastgd.AdamW"
        )

    def _construct(self, params: Any, defaults: dict[str, Any], options: dict[str, Any]) -> None:
        self._gate = _engine.Gate()
        self._bound = Bound(None, (), (), StepOptions.checked(**options))  # type: ignore[arg-type]
        self._defaults = self.declaration.checked(defaults)
        check_groups(params, self._defaults)
        self._extend(params if is_groups(params) else [{"params": params}])

    # --- the step ---

    def step(
        self,
        grads: Any,
        grad_scale: float = 1.0,
        *,
        loss: float | None = None,
        params: Any = None,
    ) -> bool:
        """Update the parameters in place with one set of gradients.

        Everything is validated before anything is written: after any exception parameters, state
        and step counts are as they were. Gradients are read where they lie, in any layout; they may
        be float16, float32, float64 or ml_dtypes' bfloat16, and are never written.

        Args:
            grads: the structure of the parameters (for several groups: a list with one tree for
                each; for one group its tree, or a list of that), each leaf an array of its parameter's
                shape. None skips a parameter, or a whole container, and leaves its state and its step
                count alone. In place of an array also `Rows`, `Factors` or a SciPy sparse array or
                matrix: only what it names is touched, and only rules that update each element, or each
                row, by itself take it; `Sum` of several of all these.
            grad_scale: multiplies every gradient before anything else, for example the inverse of a
                loss scale or of the number of accumulated batches.
            loss: the value whose gradients these are, for an optimizer that needs it (`PolyakSGD`);
                others take it and do not look.
            params: the parameters as they are now, for a host whose arrays may be others with every step:
                of the structure, shapes, dtypes and memory orders of those before. Where an array is
                another object the step goes on in it, with the state of the one that it replaces; much
                faster than `rebind`. None for the arrays of the last step.

        Returns:
            True if the step was taken, False if nonfinite="skip" kept it from being taken.

        Raises:
            TypeError: a gradient is not an array of a floating-point dtype, or of some rows only and
                the rule looks at whole arrays.
            ValueError: structure, shape or layout differ from the parameters', a gradient overlaps
                a parameter, or a schedule returned a value out of range.
            RuntimeError: the parameters hold an average, see `eval`.
            FloatingPointError: with nonfinite="raise", a gradient has a NaN or an infinity, or, where
                the optimizer keeps squares, one that its parameter's dtype does not hold.
        """
        if type(grad_scale) is not float or not math.isfinite(grad_scale):
            grad_scale = number("grad_scale", grad_scale, -math.inf, bounds="()")
        if self._bound.averages and self.evaluating:
            raise RuntimeError(
                "the optimizer is evaluating: its parameters hold the average, at which no gradient is "
                "wanted; call train() first"
            )
        culprit = _engine.step(self, grads, grad_scale, self._loss(loss), params)
        if culprit is None:
            return True
        if self.nonfinite == "raise":
            raise FloatingPointError(
                f"gradient {culprit!r} has a NaN or an infinity, or a number whose square is one, at "
                f"step {self.step_count}; no parameter was changed. Look for a learning rate that is too "
                'large, a division by zero or an overflow in the loss, or pass nonfinite="skip"'
            )
        return False

    def _loss(self, loss: float | None) -> float:
        if not self._bound.needs_loss:
            return math.nan
        if loss is None:
            raise TypeError(
                "step needs the loss, for PolyakSGD and its like: step(grads, loss=value)"
            )
        return number("loss", loss, -math.inf, bounds="()")

    # --- the two points of an optimizer that averages ---

    @property
    def evaluating(self) -> bool:
        """Whether the parameters hold an average, see `eval`."""
        return is_evaluating(self._bound)

    def eval(self) -> None:
        """Put the average in the parameters, to be evaluated and saved, where gradients are not taken
        at it (`ScheduleFreeSGD`, `ScheduleFreeAdamW`); most optimizers have nothing to do. Idempotent.
        """
        self._gate.call(lambda: move(self._bound, evaluate=True))

    def train(self) -> None:
        """Put the point back at which gradients are taken. Idempotent.

        A round trip is exact but for a rounding or two.
        """
        self._gate.call(lambda: move(self._bound, evaluate=False))

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """`eval` within a with statement, afterwards whatever mode it was before."""
        before = self.evaluating
        self.eval()
        try:
            yield
        finally:
            if not before:
                self.train()

    # --- options of the optimizer as a whole ---

    @property
    def clip_norm(self) -> Any:
        """Largest global norm of the gradients, over all groups: they are multiplied by
        min(1, clip_norm / norm). A positive number, a schedule, or None for no clipping.
        """
        return self._bound.options.clip_norm

    @clip_norm.setter
    def clip_norm(self, value: Any) -> None:
        self._set_options(clip_norm=value)

    @property
    def clip_value(self) -> Any:
        """Largest magnitude of an element of a gradient, applied after clip_norm; None for none."""
        return self._bound.options.clip_value

    @clip_value.setter
    def clip_value(self, value: Any) -> None:
        self._set_options(clip_value=value)

    @property
    def nonfinite(self) -> str:
        """What a step does about a NaN or infinity in a gradient: "propagate", "raise" or "skip"."""
        return self._bound.options.nonfinite

    @nonfinite.setter
    def nonfinite(self, value: str) -> None:
        self._set_options(nonfinite=value)

    @property
    def options(self) -> dict[str, Any]:
        """clip_norm, clip_value and nonfinite by name."""
        return self._bound.options.named()

    def _set_options(self, **changes: Any) -> None:
        def change() -> None:
            options = StepOptions.checked(**{**self.options, **changes})
            self._bound = self._bound._replace(options=options)

        self._gate.call(change)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse what looks like an option or a hyperparameter and is none: it would do nothing."""
        if not name.startswith("_") and not hasattr(type(self), name):
            if name in self.declaration.checks:
                raise AttributeError(
                    f"{name} belongs to the parameter groups: assign it to each of param_groups, as in "
                    f"optimizer.param_groups[0][{name!r}] = {value!r}"
                )
            assignable = ["track_norms", *STEP_OPTIONS, *self.declaration.checks]
            hint = suggestion(name, assignable, OTHER_NAMES)
            if hint or vars(type(self)).get("declaration"):
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{hint}")
        super().__setattr__(name, value)

    if not TYPE_CHECKING:  # or every name would be an attribute to a type checker

        def __getattr__(self, name: str) -> NoReturn:
            hint = ""
            if name == "zero_grad":
                hint = "; gradients are given to step(grads), so there are none to set to zero"
            if hasattr(type(self), "declaration") and name in self.declaration.checks:
                hint = f"; a hyperparameter is in the parameter groups: param_groups[0][{name!r}]"
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{hint}")

    # --- what can be looked at ---

    @property
    def step_count(self) -> int:
        """Steps taken; schedules are functions of it. Skipped and refused steps do not count."""
        return self._bound.plan.step_count

    @property
    def grad_norm(self) -> float | None:
        """The global norm of the gradients of the last step taken, times grad_scale, before clipping.

        None where it was not computed (it is with clip_norm and with nonfinite="raise" or "skip"), and
        after rebind() or another change of the arrays. Steps skipped or refused leave it as it is.
        """
        return self._bound.plan.grad_norm

    def _norm(self, grads: Any) -> float:
        """The global norm of gradients of the parameters' structure; raises as `step`."""
        return self._gate.call(lambda: self._bound.plan.norm(grads))

    def norms(self) -> dict[str, Array]:
        """Norms of every parameter's gradient, update and value in the last step taken.

        With `track_norms = True` a step sums them block by block while it updates, in the same pass
        over memory. The gradient is the caller's, before grad_scale and clipping. A norm whose square
        is beyond a double's range is inf.

        Returns:
            {"grad": …, "update": …, "param": …, "grad_dot_update": …}, each a float64 array with an
            element for each of `params` in order: three Euclidean norms, and the inner product
            of gradient and update (the loss changes by it, to first order).

        Raises:
            RuntimeError: the last step was taken without track_norms, or none was since the optimizer
                was made, rebound or given other arrays.
        """
        squares = self._bound.plan.sums()
        if squares is None:
            raise RuntimeError("norms() needs a step taken with track_norms = True")
        return named_norms(squares)

    def __repr__(self) -> str:
        """The options in the first line, then one for each group."""
        options = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        lines = [f"{type(self).__name__}: {self.step_count} steps taken, {options}"]
        groups = zip(self._bound.groups, self._bound.members, strict=True)
        for i, (settings, members) in enumerate(groups):
            values = ", ".join(f"{key}={value!r}" for key, value in settings.values.items())
            kind = "" if settings.kind is type(self) else f"{settings.kind.__name__}, "
            count, elements = len(members.params), sum(a.size for a in members.params)
            arrays = f"{count} array{'s' * (count != 1)} of {elements:,} elements"
            lines.append(f"  group {i}: {kind}{arrays}, {values}")
        return "\n".join(lines)

    def __reduce__(self) -> Any:
        """With its arrays, whose copies belong to the copy: `copy.deepcopy((params, optimizer))`."""
        return _revive, (type(self), *self._gate.read(self._copied))

    def _copied(self) -> tuple[Any, ...]:
        bound, own = self._bound, dict(vars(self))
        for name in ("_gate", "_bound", "_defaults"):
            del own[name]
        groups = [
            {"params": part.tree, "optimizer": settings.kind, **settings.values}
            for part, settings in zip(bound.members, bound.groups, strict=True)
        ]
        return groups, self._defaults, _state_dict.dump(self, copied=True), own

    # --- state_dict ---

    @property
    def nbytes(self) -> int:
        """Bytes of the state: what the optimizer keeps of each parameter, beside the parameters."""
        slots = [flat for part in self._bound.members for flats in part.slots for flat in flats]
        return sum(flat.nbytes for flat in slots if flat is not None)

    def state_dict(self, *, decoded: bool = False) -> dict[str, Any]:
        """Everything that continuing needs besides the parameters, as copies.

        Args:
            decoded: with float32 arrays in place of those that `state_dtype` stores in fewer bits.

        Returns:
            {"optimizer": class name, "step_count": int,
            "state": {parameter name: {"step": int, numbers and arrays by name …}},
            "param_groups": [{"params": [parameter names], "optimizer": the class's name where it is
            another, hyperparameters …}],
            "options": {"clip_norm": …, "clip_value": …, "nonfinite": …}}. Schedules are in it as
            the functions that they are. An array of dtype uint16 holds bfloat16 numbers, a flat one of
            uint8 the codes of state_dtype="8bit".
        """
        return self._gate.read(lambda: _state_dict.dump(self, copied=True, decoded=decoded))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> list[str]:
        """Continue from what `state_dict` returned, for parameters of the same names.

        Args:
            state_dict: a dict as `state_dict` describes it. Its arrays are copied. Where they are of
                another `state_dtype` than the group's, which stays, they are rounded, with a warning that
                says by how much.
            strict: require the same groups and exactly the same parameter names. Otherwise only
                the state of names that both know is loaded, with their own step counts, and
                `step_count`, on which schedules depend; hyperparameters, options and the state of
                other names stay as they are.

        Returns:
            The names that only one of the two has; always empty when strict.

        Raises:
            TypeError, ValueError: something is missing, or an array differs in shape or dtype from
                the state that it replaces. Nothing has changed then.
        """
        return self._gate.call(_state_dict.load, self, state_dict, strict)


def named_norms(squares: Array) -> dict[str, Array]:
    """What `Optimizer.norms` returns, out of the sums that a tracked step has taken."""
    grad, update, param = np.sqrt(squares[:3])
    return {"grad": grad, "update": update, "param": param, "grad_dot_update": squares[3]}


def _revive(
    kind: type[Optimizer],
    groups: list[dict[str, Any]],
    defaults: dict[str, Any],
    saved: dict[str, Any],
    own: dict[str, Any],
) -> Optimizer:
    """What __reduce__ has taken apart."""
    optimizer = kind.__new__(kind)
    optimizer._construct(groups, defaults, saved["options"])
    optimizer.load_state_dict(saved)
    vars(optimizer).update(own)
    return optimizer
