"""The step of several ranks: what each has computed becomes one gradient, the same for all."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from fastgd import _engine
from fastgd._arguments import flag, number
from fastgd._arrays.gradients import Sum, is_partial, weighted
from fastgd._arrays.tree import Array, leaves_like, rebuild
from fastgd.distributed._messages import Messages
from fastgd.distributed._partition import Axis
from fastgd.distributed._ranks import RankError, Ranks
from fastgd.distributed._windows import Windows, describe
from fastgd.optimizers import Optimizer

NONE, DENSE, PARTIAL = range(3)  # what a rank has of a parameter's gradient
FAILED, STEPS, SETTINGS, SCALE, LOSS, FIRST = range(6)  # what a rank says before a step


class Structure:
    """The parameters' structure: gradients of it as lists, and back."""

    def __init__(
        self, params: Sequence[Array], names: list[str], trees: Sequence[Any], specs: Any
    ) -> None:
        self.params, self.names = list(params), names
        self._trees, self._specs = list(trees), tuple(specs)
        self._binding = _engine.Binding(self.params, names, self._specs)

    def leaves(self, grads: Any) -> list[Any]:
        """The gradients in the order of the parameters: arrays, None, and those of other forms.

        Raises: TypeError, ValueError as `Optimizer.step`.
        """
        self._binding.check(grads)
        if len(self._specs) == 1:
            found = leaves_like(self._specs[0], _engine.only_tree(self._specs[0], grads))
        else:
            found = leaves_like((None, self._specs), grads)
        return [
            leaf
            if leaf is None or type(leaf) is np.ndarray or is_partial(leaf)
            else _engine.as_array(name, leaf)
            for name, leaf in zip(self.names, found, strict=True)
        ]

    def tree(self, leaves: Sequence[Any]) -> Any:
        """The way back."""
        rest = iter(leaves)
        trees = [rebuild(tree, lambda array: next(rest)) for tree in self._trees]
        return trees[0] if len(trees) == 1 else trees


class Collected(NamedTuple):
    """What all ranks have handed over for a step.

    Attributes:
        grads: of the structure of this rank's optimizer.
        scale: that makes of them what the step is taken with.
        loss: the mean, None where a rank has none.
        kinds: (ranks, parameters), which form each rank's gradient had.
        leaves: of `grads`.
    """

    grads: Any
    scale: float
    loss: float | None
    kinds: Array
    leaves: list[Any]


class Distributed:
    """What the optimizers of several ranks share.

    Attributes:
        optimizer: this rank's own, an ordinary one, that takes the steps.
        rank, size: of this process, and how many there are.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        ranks: Ranks,
        structure: Structure,
        axes: Sequence[Axis],
        rows: Sequence[Sequence[tuple[int, int]]],
        *,
        average: bool,
        shared_memory: bool | None,
        grad_dtype: str | None,
    ) -> None:
        self.optimizer = optimizer
        self._ranks, self._structure = ranks, structure
        self._axes, self._rows = axes, rows
        self._average = average
        if grad_dtype not in (None, "bfloat16"):
            raise ValueError(f'grad_dtype must be None or "bfloat16", got {grad_dtype!r}')
        if shared_memory is None:
            shared_memory = ranks.one_machine
        elif shared_memory and not ranks.one_machine:
            raise ValueError("shared_memory=True, but the ranks are on several machines")
        self._exchange: Windows | Messages = (
            Windows(ranks, structure.params)
            if shared_memory and ranks.size > 1
            else Messages(ranks, structure.params, axes, rows, grad_dtype is not None)
        )
        self._accumulated: dict[int, Any] = {}
        self._arena: list[Array] | None = None
        self._early: dict[int, Any] = {}
        self._accumulating = False
        self._seen: tuple[Any, Any] = None, None
        self._digest = 0

    @property
    def rank(self) -> int:
        """The number of this process."""
        return self._ranks.rank

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self._ranks.size

    @property
    def params(self) -> dict[str, Array]:
        """The parameters by name."""
        return dict(zip(self._structure.names, self._structure.params, strict=True))

    @property
    def gradients(self) -> Any:
        """Arrays of the parameters' structure, to write this rank's gradients into: on one machine the
        others read them where they are. What is in them before is of no use.
        """
        return self._structure.tree(self._exchange.own or self._own_arena())

    # --- the step ---

    def step(
        self, grads: Any = None, grad_scale: float = 1.0, *, loss: float | None = None
    ) -> bool:
        """Take one step, all ranks together, with the mean (or sum) of their gradients.

        Every rank calls it as often. Nothing is written before all ranks have found their gradients in
        order: what one refuses, none does.

        Args:
            grads: this rank's gradients, in every form that `Optimizer.step` takes. None where a rank has
                none of a parameter; where none has, it is left alone. Without any argument: those handed
                over by `ready` and `accumulate`.
            grad_scale: multiplies them; the same on all ranks.
            loss: the value on this rank, for an optimizer that needs it; the mean counts.

        Returns:
            True if the step was taken, False if nonfinite="skip" kept all ranks from it, or within
            `no_sync`.

        Raises:
            TypeError, ValueError, FloatingPointError: as `Optimizer.step`.
            RankError: another rank refused its gradients, differs in step count, hyperparameters or
                grad_scale, or did not come in time.

        After any exception gradients that were accumulated or handed over are dropped, on all ranks.
        """
        if self._accumulating:
            self.accumulate(grads, grad_scale)
            return False
        what = f"step {self.optimizer.step_count + 1}"
        failure, taken = None, False
        all_of = self._collect(grads, grad_scale, loss, what)
        try:
            taken = self.optimizer.step(all_of.grads, all_of.scale, loss=all_of.loss)
        except RankError:
            raise
        except Exception as error:
            failure = error
        finally:
            self._exchange.release()
        self._ranks.together(failure, what)  # until then they read each other's gradients
        if taken:
            self._stepped(all_of, what)
        return taken

    def _collect(self, grads: Any, grad_scale: float, loss: float | None, what: str) -> Collected:
        """The gradients of all ranks; they are there until this rank hands over the next ones."""
        status = np.zeros(FIRST + len(self._structure.params), np.int64)
        failure: Exception | None = None
        leaves: list[Any] = []
        scale = 1.0
        try:
            scale = number("grad_scale", grad_scale, -math.inf, bounds="()")
            value = math.nan if loss is None else number("loss", loss, -math.inf, bounds="()")
            leaves = self._handed_over(grads)
            status[SCALE : LOSS + 1] = np.array([scale, value]).view(np.int64)
        except Exception as error:
            failure = error
            status[FAILED] = 1
        status[STEPS], status[SETTINGS] = self.optimizer.step_count, self._settings()
        for i, leaf in enumerate(leaves):
            status[FIRST + i] = NONE if leaf is None else PARTIAL if is_partial(leaf) else DENSE
        said = self._ranks.gather(status, what)
        self._exchange.finish()
        self._early.clear()
        self._accumulated.clear()
        if said[:, FAILED].any():
            self._ranks.together(failure, what)
        self._check_alike(said, what)
        losses = np.ascontiguousarray(said[:, LOSS]).view(np.float64)
        kinds = said[:, FIRST:]
        combined = self._combined(leaves, kinds, what)
        return Collected(
            self._structure.tree(combined),
            scale / self.size if self._average else scale,
            None if np.isnan(losses).any() else float(losses.sum()) / self.size,
            kinds,
            combined,
        )

    # --- what is saved, see _checkpoint.py ---

    def _whole(self) -> Optimizer | None:
        """The optimizer as one process would have it, on rank 0."""
        raise NotImplementedError

    def _empty_whole(self) -> Optimizer:
        """What a state can be loaded into on one rank, for `_take`."""
        raise NotImplementedError

    def _take(self, whole: Optimizer | None, source: int = 0) -> None:
        """Continue as `whole` on rank `source` does: parameters, state and hyperparameters."""
        raise NotImplementedError

    def _stepped(self, all_of: Collected, what: str) -> None:
        """What ranks tell each other after a step."""

    def _handed_over(self, grads: Any) -> list[Any]:
        """All of this rank's gradients; the dense ones are with the exchange."""
        given = self._structure.leaves(grads) if grads is not None else []
        leaves = given or [None] * len(self._structure.params)
        for i, early in self._early.items():
            if leaves[i] is not None:
                raise ValueError(
                    f"gradient {self._structure.names[i]!r} was handed over by ready() already; pass None "
                    "in its place"
                )
            leaves[i] = early
        if self._accumulated:
            for i, leaf in enumerate(leaves):
                if leaf is not None and i not in self._early:
                    self._accumulate_leaf(i, leaf, 1.0)
                    leaf = None
                leaves[i] = self._accumulated.get(i, leaf)
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, np.ndarray) and i not in self._early:
                self._exchange.put(i, leaf)
        return leaves

    def _settings(self) -> int:
        """A number that differs where hyperparameters or options do."""
        bound = self.optimizer._bound
        if self._seen[0] is not bound.groups or self._seen[1] is not bound.options:
            self._seen = bound.groups, bound.options
            self._digest = zlib.crc32(repr(described(self.optimizer)).encode())
        return self._digest

    def _check_alike(self, said: Array, what: str) -> None:
        """Refuse to step with ranks that are elsewhere.

        Raises: RankError naming one; all ranks raise.
        """
        names = {STEPS: "the step count", SETTINGS: "the hyperparameters", SCALE: "grad_scale"}
        for column, name in names.items():
            other = np.flatnonzero(said[:, column] != said[0, column])
            if other.size:
                values = said[[0, other[0]], column]
                if column == SCALE:
                    values = values.view(np.float64)
                detail = "" if column == SETTINGS else f": {values[1]}, not {values[0]}"
                raise RankError(f"{what}: {name} of rank {other[0]} differs from rank 0's{detail}")

    def _combined(self, leaves: Sequence[Any], kinds: Array, what: str) -> list[Any]:
        """The gradient of each parameter over all ranks, or this rank's part of it."""
        partial: list[dict[int, Any]] = []
        if (kinds == PARTIAL).any():
            mine = {i: leaf for i, leaf in enumerate(leaves) if kinds[self.rank, i] == PARTIAL}
            partial = self._ranks.gather_objects(mine, what)
        combined = []
        for i in range(len(self._structure.params)):
            dense = np.flatnonzero(kinds[:, i] == DENSE).tolist()
            parts: list[Any] = self._dense_parts(i, dense) if dense else []
            parts += [
                self._part(i, partial[rank][i]) for rank in np.flatnonzero(kinds[:, i] == PARTIAL)
            ]
            combined.append(None if not parts else parts[0] if len(parts) == 1 else Sum(parts))
        return combined

    def _dense_parts(self, i: int, given: list[int]) -> list[Array]:
        raise NotImplementedError

    def _part(self, i: int, grad: Any) -> Any:
        """What this rank takes of a gradient of parameter i that is no dense array."""
        return grad

    # --- gradients that come one by one, or of several batches ---

    def ready(self, name: str, grad: Any) -> None:
        """Hand over the gradient of one parameter as soon as it is known, while the others are computed:
        between machines it is on its way then. All are handed over once, before `step()`.

        Args:
            name: of the parameter, a key of `params`.
            grad: its gradient, which must stay as it is until the step; None for none.

        Raises:
            TypeError, ValueError: as `step`; or it was handed over already.
        """
        if name not in self._structure.names:
            raise ValueError(
                f"there is no parameter {name!r}; the names are {self._structure.names}"
            )
        i = self._structure.names.index(name)
        if i in self._early or self._accumulated:
            raise ValueError(f"gradient {name!r} was handed over already")
        leaves: list[Any] = [None] * len(self._structure.params)
        leaves[i] = grad
        leaf = self._structure.leaves(self._structure.tree(leaves))[i]
        self._early[i] = leaf
        if isinstance(leaf, np.ndarray):
            self._exchange.put(i, leaf)

    def accumulate(self, grads: Any, grad_scale: float = 1.0) -> None:
        """Add gradients to those of the next step, without a word to the other ranks.

        Args:
            grads, grad_scale: as of `step`. With the step's own and `average`, the mean is over ranks, not
                over batches: pass grad_scale=1/batches with each, or to `step`.

        Raises:
            TypeError, ValueError: as `step`.
        """
        if self._early:
            raise ValueError("gradients were handed over by ready() already; step first")
        scale = number("grad_scale", grad_scale, -math.inf, bounds="()")
        for i, leaf in enumerate(self._structure.leaves(grads)):
            if leaf is not None:
                self._accumulate_leaf(i, leaf, scale)

    def _accumulate_leaf(self, i: int, leaf: Any, scale: float) -> None:
        before = self._accumulated.get(i)
        if is_partial(leaf) or is_partial(before):
            own = weighted(leaf if is_partial(leaf) else leaf.copy(), scale)
            self._accumulated[i] = own if before is None else Sum([_kept(before), own])
            return
        total = self._own_arena()[i]
        if np.may_share_memory(leaf, total):
            raise ValueError(
                f"gradient {self._structure.names[i]!r} lies where accumulated gradients are added up; "
                "pass another array"
            )
        if before is None:
            np.multiply(leaf, total.dtype.type(scale), out=total, casting="unsafe")
        else:
            total += leaf.astype(total.dtype, copy=False) * total.dtype.type(scale)
        self._accumulated[i] = total

    def _own_arena(self) -> list[Array]:
        """This rank's own arrays of the parameters' shapes: where the others see them, if there are any."""
        if self._exchange.own is not None:
            return self._exchange.own
        if self._arena is None:
            self._arena = [np.empty_like(np.asarray(array)) for array in self._structure.params]
        return self._arena

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within a with statement `step` accumulates: see `accumulate`."""
        self._accumulating = True
        try:
            yield
        finally:
            self._accumulating = False

    # --- what is the optimizer's own ---

    @property
    def param_groups(self) -> Any:
        """See `Optimizer.param_groups`; assign the same on all ranks."""
        return self.optimizer.param_groups

    @property
    def step_count(self) -> int:
        """Steps taken."""
        return self.optimizer.step_count

    @property
    def grad_norm(self) -> float | None:
        """See `Optimizer.grad_norm`: of the gradients that all ranks step with."""
        return self.optimizer.grad_norm

    @property
    def track_norms(self) -> bool:
        """See `Optimizer.track_norms`."""
        return self.optimizer.track_norms

    @track_norms.setter
    def track_norms(self, value: bool) -> None:
        self.optimizer.track_norms = value

    @property
    def evaluating(self) -> bool:
        """See `Optimizer.evaluating`."""
        return self.optimizer.evaluating

    def eval(self) -> None:
        """See `Optimizer.eval`; all ranks call it."""
        self.optimizer.eval()
        self._moved()

    def train(self) -> None:
        """See `Optimizer.train`; all ranks call it."""
        self.optimizer.train()
        self._moved()

    def _moved(self) -> None:
        """Parameters have changed outside a step."""

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """See `Optimizer.evaluation`; all ranks use it."""
        before = self.evaluating
        self.eval()
        try:
            yield
        finally:
            if not before:
                self.train()

    def close(self) -> None:
        """Give shared memory back, all ranks together: for a program that makes many of these. No step can
        follow, and the arrays of `gradients` are gone; `optimizer` and the parameters stay.
        """
        self._exchange.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}, rank {self.rank} of {self.size}: {self.optimizer!r}"


def described(optimizer: Optimizer) -> list[Any]:
    """Hyperparameters and options, so that those of two processes can be compared."""
    groups = [
        (settings.kind.__name__, {key: _plain(value) for key, value in settings.values.items()})
        for settings in optimizer._bound.groups
    ]
    return [*groups, {key: _plain(value) for key, value in optimizer.options.items()}]


def check_same(
    ranks: Ranks, optimizer: Optimizer, names: Sequence[str], params: Sequence[Array]
) -> None:
    """Refuse to begin with ranks whose optimizers differ.

    Raises: RankError naming the first that differs from rank 0.
    """
    ranks.same("the optimizer", type(optimizer).__name__)
    ranks.same("the parameters", [describe(*pair) for pair in zip(names, params, strict=True)])
    ranks.same("the hyperparameters", described(optimizer))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if callable(value) and not type(value).__module__.startswith("fastgd."):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return repr(value) if callable(value) else value


def _kept(grad: Any) -> Any:
    """A gradient whose memory the next one does not take."""
    return grad.copy() if isinstance(grad, np.ndarray) else grad


def check_options(average: Any, shared_memory: Any) -> None:
    """Refuse what is no flag."""
    flag("average", average)
    if shared_memory is not None:
        flag("shared_memory", shared_memory)
