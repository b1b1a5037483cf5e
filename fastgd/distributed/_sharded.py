"""Sharded state: every rank has all parameters, and the state of a part of them (ZeRO, stage 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastgd._arrays.tree import Array, is_groups, rebuild
from fastgd.distributed._messages import Messages
from fastgd.distributed._partition import Axis, partition, touched_rows
from fastgd.distributed._ranks import TIMEOUT, Ranks
from fastgd.distributed._state import TAGS, flat_state, head_of, joined, slot_of
from fastgd.distributed._step import (
    DENSE,
    PARTIAL,
    Collected,
    Distributed,
    Structure,
    check_options,
    check_same,
)
from fastgd.distributed._windows import is_shared
from fastgd.optimizers import Members, Optimizer, dump, find, full_names, named_norms


class Sharded(Distributed):
    """An optimizer whose state is spread over the ranks, for gradients of a batch each.

    Each rank owns some rows of every parameter, about 1/ranks of all elements, and keeps their state
    alone. A step adds up the ranks' gradients of its rows while it updates them; then the ranks exchange
    rows. Where the parameters lie in memory that the ranks share (`distributed.shared`), nothing has to be
    exchanged: that is the fastest way to use a machine's cores. Parameters are equal on all ranks after
    every step, bit for bit. At the beginning they become rank 0's.

    Sums that a rule takes over arrays (`LAMB`, `Prodigy`, …), norms and clipping are over all ranks.
    Arrays that a rule looks at as a matrix (`Muon`, `Adafactor`) have one owner each.

    Args:
        kind: an optimizer's class, or its name.
        params: as of the class: a tree of arrays or a list of groups; the same structure on all ranks.
        comm, average, shared_memory, grad_dtype, timeout: see `DataParallel`.
        **hyperparameters: of the class.

    Raises:
        ImportError: mpi4py is not there.
        TypeError, ValueError: as from the class.
        RankError: ranks differ in optimizer, names, shapes, dtypes or hyperparameters.

    Example:
        >>> from mpi4py import MPI
        >>> import numpy as np, fastgd
        >>> w = np.zeros(3)
        >>> opt = fastgd.distributed.Sharded(fastgd.Adam, w, lr=0.1, comm=MPI.COMM_WORLD)
        >>> opt.step(w - 1.0)
        True
        >>> w.round(3).tolist()
        [0.1, 0.1, 0.1]

    References:
        Rajbhandari et al. 2020, ZeRO: memory optimizations toward training trillion parameter models.
    """

    def __init__(
        self,
        kind: type[Optimizer] | str,
        params: Any,
        *,
        comm: Any,
        average: bool = True,
        shared_memory: bool | None = None,
        grad_dtype: str | None = None,
        timeout: float = TIMEOUT,
        **hyperparameters: Any,
    ) -> None:
        check_options(average, shared_memory)
        ranks = Ranks(comm, timeout)
        given = params if is_groups(params) else [{"params": params}]

        def prepare() -> tuple[Optimizer, list[Members]]:
            """Without state: of no rows."""
            groups = [{**group, "params": _of_no_rows(group["params"])} for group in given]
            probe = find(kind)(groups, **hyperparameters)
            several = len(given) > 1
            return probe, [
                Members.of(group["params"], f"{i}" if several else "")
                for i, group in enumerate(given)
            ]

        probe, members = ranks.call("constructor", prepare)
        arrays = [np.asarray(array) for part in members for array in part.params]
        names = full_names(members)
        check_same(ranks, probe, names, arrays)
        self._in_one_memory = ranks.one_machine and ranks.agree(all(map(is_shared, arrays)))
        axes = [Axis.of(array) for array in arrays]
        self._uncut = list(_kept_whole(probe, members))
        rows = partition(axes, self._uncut, ranks.size)
        if not self._in_one_memory:
            ranks.broadcast(arrays)
        mine = [
            axis.cut(array, *each[ranks.rank])
            for axis, array, each in zip(axes, arrays, rows, strict=True)
        ]
        rest = iter(mine)
        local = [
            {**group, "params": rebuild(group["params"], lambda array: next(rest))}
            for group in given
        ]
        optimizer = ranks.call("constructor", lambda: find(kind)(local, **hyperparameters))
        optimizer._spread = [array.size for array in arrays], ranks.add_up
        optimizer._swap()
        super().__init__(
            optimizer,
            ranks,
            Structure(arrays, names, [m.tree for m in members], [m.spec for m in members]),
            axes,
            rows,
            average=average,
            shared_memory=shared_memory,
            grad_dtype=grad_dtype,
        )
        self._mine, self._members = mine, members

    # --- the step ---

    def _dense_parts(self, i: int, given: list[int]) -> list[Array]:
        parts = self._exchange.parts(i, given)
        if isinstance(self._exchange, Messages):
            return parts
        return [self._part(i, part) for part in parts]

    def _part(self, i: int, grad: Any) -> Any:
        return self._axes[i].cut(grad, *self._rows[i][self.rank])

    def _stepped(self, all_of: Collected, what: str) -> None:
        if self._in_one_memory:
            return
        kinds, combined = all_of.kinds, all_of.leaves
        dense = np.flatnonzero((kinds == DENSE).any(0)).tolist()
        partial: dict[int, Any] = {}
        for i in np.flatnonzero((kinds == PARTIAL).any(0) & ~(kinds == DENSE).any(0)).tolist():
            named = touched_rows(combined[i]) if combined[i] is not None else np.empty(0, np.int64)
            if named is None:
                dense.append(i)
            else:
                partial[i] = (named + self._rows[i][self.rank][0], self._mine[i][named])
        self._exchange_rows(dense, partial, what)

    def _exchange_rows(self, dense: list[int], partial: dict[int, Any], what: str) -> None:
        """All ranks get this rank's rows of some parameters, and those rows of others that are given."""
        if dense:
            self._publisher().publish(self._structure.params, dense)
        if partial:
            for rank, rows in enumerate(self._ranks.gather_objects(partial, what)):
                if rank != self.rank:
                    for i, (numbers, values) in rows.items():
                        self._structure.params[i][numbers] = values

    def _publisher(self) -> Messages:
        if isinstance(self._exchange, Messages):
            return self._exchange
        if not hasattr(self, "_messages"):
            self._messages = Messages(
                self._ranks, self._structure.params, self._axes, self._rows, narrow=False
            )
        return self._messages

    def _moved(self) -> None:
        if not self._in_one_memory:
            self._exchange_rows(list(range(len(self._mine))), {}, "parameters")
        self._ranks.together(None, "parameters")

    # --- what can be looked at ---

    @property
    def nbytes(self) -> int:
        """Bytes of this rank's state."""
        return self.optimizer.nbytes

    def norms(self) -> dict[str, Array]:
        """See `Optimizer.norms`: of the whole arrays. All ranks call it."""
        squares = self.optimizer._bound.plan.sums()
        if not self._ranks.agree(squares is not None):
            raise RuntimeError("norms() needs a step taken with track_norms = True, on all ranks")
        assert squares is not None
        self._ranks.add_up(squares)
        return named_norms(squares)

    # --- what is saved ---

    def state_dict(self, to: int = 0) -> dict[str, Any] | None:
        """The state of all ranks, as the optimizer in one process has it: see `Optimizer.state_dict`; state
        in 8 bits is decoded. All ranks call it.

        Args:
            to: the rank that gets it; the others get None.
        """
        whole = self._whole(to)
        return None if whole is None else whole.state_dict()

    def load_state_dict(self, state_dict: Any, source: int = 0) -> None:
        """Continue from what `state_dict` returned, or that of an optimizer in one process: each rank takes
        its part. All ranks call it.

        Args:
            state_dict: on rank `source`; on the others anything, such as None.
            source: the rank that has it.
        """

        def load() -> Optimizer | None:
            if self.rank != source:
                return None
            whole = self._empty_whole()
            whole.load_state_dict(state_dict)
            return whole

        self._take(self._ranks.call("load_state_dict", load), source)

    def _empty_whole(self) -> Optimizer:
        """An optimizer over all parameters with this one's hyperparameters and state as at first."""
        bound = self.optimizer._bound
        groups = []
        for part, settings in zip(self._members, bound.groups, strict=True):
            values = dict(settings.values)
            if values["state_dtype"] == "8bit":  # whose blocks are each rank's own
                values["state_dtype"] = None
            groups.append({"params": part.tree, "optimizer": settings.kind, **values})
        whole: Optimizer = type(self.optimizer).__new__(type(self.optimizer))
        whole._construct(groups, self.optimizer._defaults, self.optimizer.options)
        return whole

    def _whole(self, to: int = 0) -> Optimizer | None:
        """The optimizer as one process would have it, on rank `to`."""
        requests: list[Any] = []
        kept: list[Array] = []
        whole = None
        if self.rank == to:
            whole = self._empty_whole()
            for i, slot, target in flat_state(whole):
                for rank in range(self.size):
                    begin, end = self._share(i, target.size, rank)
                    if rank != to and end > begin:
                        requests += self._ranks.receive(target[begin:end], rank, i * TAGS + slot)
        for i, slot, mine in flat_state(self.optimizer, decode=True):
            if not mine.size or self._rows[i][self.rank][1] == self._rows[i][self.rank][0]:
                continue
            if whole is None:
                kept.append(mine)
                requests += self._ranks.send(mine, to, i * TAGS + slot)
            else:
                target = slot_of(whole, i, slot)
                begin, end = self._share(i, target.size, to)
                target[begin:end] = mine
        self._ranks.wait(requests, "state")
        if whole is not None:
            plan = self.optimizer._bound.plan
            whole._swap(
                steps=plan.steps.tolist(), numbers=plan.numbers.copy(), step_count=plan.step_count
            )
        return whole

    def _share(self, i: int, size: int, rank: int) -> tuple[int, int]:
        """Which part of a flat array of parameter i's state, `size` long, a rank has."""
        begin, end = self._rows[i][rank]
        if self._uncut[i]:
            return 0, size if end > begin else 0
        width = size // max(self._axes[i].rows, 1)
        return begin * width, end * width

    def _take(self, whole: Optimizer | None, source: int = 0) -> None:
        heads = self._ranks.gather_objects(None if whole is None else head_of(whole), "load")
        head, sizes = heads[source]
        own = dump(self.optimizer, copied=False)
        bound = self.optimizer._bound
        pairs = zip(bound.groups, bound.members, strict=True)
        places = [(settings.kind, layout) for settings, part in pairs for layout in part.layouts]

        def keep(i: int, slot: int, flat: Array) -> None:
            kind, layout = places[i]
            name = kind.declaration.state[slot]
            like = layout.of_state(kind.state_shape(name, layout.shape) or ())
            own["state"][self._structure.names[i]][name] = like.shaped(flat)

        requests: list[Any] = []
        if whole is None:
            for i, slot, size, dtype in sizes:
                begin, end = self._share(i, size, self.rank)
                if end > begin:
                    flat = np.empty(end - begin, dtype)
                    requests += self._ranks.receive(flat, source, i * TAGS + slot)
                    keep(i, slot, flat)
        else:
            for i, slot, flat in flat_state(whole):  # which live as long as `whole`
                for rank in range(self.size):
                    begin, end = self._share(i, flat.size, rank)
                    if end > begin and rank != source:
                        requests += self._ranks.send(flat[begin:end], rank, i * TAGS + slot)
                    elif end > begin:
                        keep(i, slot, flat[begin:end])
        self._ranks.wait(requests, "state")
        self._ranks.call("load", lambda: self.optimizer.load_state_dict(joined(own, head)))
        if not self._in_one_memory:
            self._ranks.broadcast(self._structure.params, source)
        self._ranks.together(None, "load")


def _of_no_rows(tree: Any) -> Any:
    """Views of arrays without their rows; any other leaf as it is, to be refused."""
    return rebuild(
        tree,
        lambda leaf: (
            Axis.of(leaf).cut(np.asarray(leaf), 0, 0) if type(leaf) is np.ndarray else leaf
        ),
    )


def _kept_whole(probe: Optimizer, members: Sequence[Members]) -> Iterator[bool]:
    """Whether an array has one owner: its rule works on it as a matrix, or on rows that are not cut."""
    for settings, part in zip(probe._bound.groups, members, strict=True):
        for layout in part.layouts:
            yield settings.rule["matrix"] or (settings.rule["by_row"] and not layout.c_contiguous)
