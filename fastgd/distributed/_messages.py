"""Ranks that send each other what they have: gradients to the owners of their rows, and rows to all.

Each pair of ranks exchanges directly what concerns them both, which moves no more than a ring does, and
needs one turn. Small arrays go together in parcels. All operations are begun at once and waited for at
the end; a gradient handed over early is on its way while the next one is computed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from fastgd._arrays.formats import decoded, encoded
from fastgd._arrays.layout import Layout, flat_view
from fastgd._arrays.tree import Array
from fastgd.distributed._partition import Axis
from fastgd.distributed._ranks import Ranks, pieces

ALONE = 1 << 18  # bytes: an array of so many is a parcel of its own
PARCEL = 1 << 20
KINDS = {"": "average"}  # to nearest, see _arrays/formats.py


class Parcel:
    """Arrays that are sent together, and where those of other ranks arrive.

    Attributes:
        members: numbers of the arrays.
        waiting: of them those that are to be handed over before it goes.
        arrived: for each rank but this one views of the rows received, by array number.
    """

    def __init__(self, members: list[int]) -> None:
        self.members = members
        self.waiting = set(members)
        self.buffers: dict[int, Array] = {}
        self.arrived: dict[int, dict[int, Array]] = {}


class Messages:
    """Gradients and rows that go from rank to rank.

    Args:
        ranks: of the run.
        params: arrays of the gradients' shapes.
        axes: how they are cut.
        rows: for each array those of each rank.
        narrow: gradients travel as bfloat16.

    Attributes:
        own: None: gradients are sent from where they are.
    """

    own = None

    def __init__(
        self,
        ranks: Ranks,
        params: Sequence[Array],
        axes: Sequence[Axis],
        rows: Sequence[Sequence[tuple[int, int]]],
        narrow: bool,
    ) -> None:
        self._ranks, self._params, self._axes, self._rows = ranks, params, axes, rows
        self._narrow = narrow
        self._held: dict[int, Array] = {}
        self._under_way: list[Any] = []
        self._sent: list[Array] = []  # that they read from
        self._others = [r for r in range(ranks.size) if r != ranks.rank]
        self._parcels: list[Parcel] = []
        self._number_of: list[int] = []
        size = 0
        for i, param in enumerate(params):
            alone = param.nbytes >= ALONE
            if not self._parcels or alone or size + param.nbytes > PARCEL:
                self._parcels.append(Parcel([]))
                size = 0
            self._parcels[-1].members.append(i)
            self._parcels[-1].waiting.add(i)
            self._number_of.append(len(self._parcels) - 1)
            size = PARCEL if alone else size + param.nbytes

    # --- gradients, to the owners of their rows ---

    def put(self, i: int, array: Array) -> None:
        """Hand over this rank's gradient of parameter i, which must stay as it is until `finish`."""
        self._held[i] = array
        number = self._number_of[i]
        parcel = self._parcels[number]
        parcel.waiting.discard(i)
        if not parcel.waiting:
            self._begin(number)
        elif self._under_way:
            self._ranks.mpi.Request.Testall(self._under_way)  # which keeps them going

    def finish(self) -> None:
        """Wait for what is under way, and what has not been handed over: there is none of it."""
        for number, parcel in enumerate(self._parcels):
            if parcel.waiting:
                self._begin(number)
        self._ranks.wait(self._under_way, "gradients")
        self._under_way, self._sent = [], []
        for parcel in self._parcels:
            parcel.waiting = set(parcel.members)

    def parts(self, i: int, given: Sequence[int]) -> list[Array]:
        """The gradients of these ranks of this rank's rows of parameter i."""
        begin, end = self._rows[i][self._ranks.rank]
        arrived = self._parcels[self._number_of[i]].arrived
        result = []
        for rank in given:
            if rank == self._ranks.rank:
                result.append(self._axes[i].cut(self._held[i], begin, end))
            elif self._narrow and end > begin:
                wide = decoded({"": flat_view(arrived[rank][i])}, KINDS, 0)[""]
                result.append(Layout.of(arrived[rank][i]).shaped(wide))
            else:
                result.append(arrived[rank][i] if end > begin else self._cut(i, self._ranks.rank))
        return result

    def release(self) -> None:
        """Drop the references to the gradients."""
        self._held.clear()

    def close(self) -> None:
        """Nothing is shared."""

    def _begin(self, number: int) -> None:
        parcel, ranks = self._parcels[number], self._ranks
        parcel.waiting.clear()
        for other in self._others:
            if self._elements(parcel, ranks.rank):
                if other not in parcel.buffers:
                    self._make_room(parcel, other)
                self._under_way += ranks.receive(parcel.buffers[other], other, number)
        for other in self._others:
            if self._elements(parcel, other):
                payload = self._payload(parcel, other)
                self._sent.append(payload)
                self._under_way += ranks.send(payload, other, number)
                if not payload.size:  # there is none, but the other waits for as many messages
                    for _ in pieces(self._cut(parcel.members[0], other))[1:]:
                        self._under_way += ranks.send(payload, other, number)

    def _elements(self, parcel: Parcel, rank: int) -> int:
        return sum(self._cut(i, rank).size for i in parcel.members)

    def _cut(self, i: int, rank: int) -> Array:
        """The rows of a rank of a parameter."""
        cut: Array = self._axes[i].cut(self._params[i], *self._rows[i][rank])
        return cut

    def _dtype(self, i: int) -> np.dtype[Any]:
        return np.dtype(np.uint16) if self._narrow else self._params[i].dtype

    def _views(self, parcel: Parcel, rank: int, buffer: Array) -> dict[int, Array]:
        """Where the rows of a rank lie in a parcel, by array number."""
        views, at = {}, 0
        for i in parcel.members:
            cut, dtype = self._cut(i, rank), self._dtype(i)
            at = -(-at // 8) * 8
            end = at + cut.size * dtype.itemsize
            views[i] = Layout.of(cut).shaped(buffer[at:end].view(dtype))
            at = end
        return views

    def _size(self, parcel: Parcel, rank: int) -> int:
        """Bytes of a parcel for a rank."""
        return sum(
            -(-self._cut(i, rank).size * self._dtype(i).itemsize // 8) * 8 for i in parcel.members
        )

    def _make_room(self, parcel: Parcel, other: int) -> None:
        buffer = np.empty(self._size(parcel, self._ranks.rank), np.uint8)
        parcel.buffers[other] = buffer
        parcel.arrived[other] = self._views(parcel, self._ranks.rank, buffer)

    def _payload(self, parcel: Parcel, rank: int) -> Array:
        """The gradients of a parcel for a rank: as they are, if that is how they travel."""
        if len(parcel.members) == 1:
            (i,) = parcel.members
            if i not in self._held:
                return np.empty(0, np.uint8)
            cut: Array = self._axes[i].cut(self._held[i], *self._rows[i][rank])
            like = self._cut(i, rank)
            if cut.dtype == self._dtype(i) and cut.flags.aligned and _same_order(cut, like):
                return cut
        buffer = np.empty(self._size(parcel, rank), np.uint8)
        for i, view in self._views(parcel, rank, buffer).items():
            if i in self._held:
                cut = self._axes[i].cut(self._held[i], *self._rows[i][rank])
                if self._narrow:
                    as_is = np.empty_like(self._cut(i, rank), dtype=np.float32)
                    np.copyto(as_is, cut, casting="unsafe")
                    flat_view(view)[...] = encoded({"": flat_view(as_is)}, KINDS, {"": view.dtype})[
                        ""
                    ]
                else:
                    with np.errstate(over="ignore"):
                        np.copyto(view, cut, casting="unsafe")
        return buffer

    # --- rows, to all ---

    def publish(self, arrays: Sequence[Array], which: Collection[int]) -> None:
        """Give all ranks this rank's rows of arrays of the parameters' shapes, and take theirs; of parcels
        with one of the arrays `which`.
        """
        ranks, requests, filled, sent = self._ranks, [], [], []
        for number, parcel in enumerate(self._parcels):
            if not any(i in which for i in parcel.members):
                continue
            alone = len(parcel.members) == 1
            for other in self._others:
                if not self._elements(parcel, other):
                    continue
                if alone:
                    i = parcel.members[0]
                    into = self._axes[i].cut(arrays[i], *self._rows[i][other])
                else:
                    into = np.empty(self._bytes(parcel, other, arrays), np.uint8)
                    filled.append((parcel, other, into))
                requests += ranks.receive(into, other, number)
            if not self._elements(parcel, ranks.rank):
                continue
            if alone:
                i = parcel.members[0]
                out = self._axes[i].cut(arrays[i], *self._rows[i][ranks.rank])
            else:
                out = np.empty(self._bytes(parcel, ranks.rank, arrays), np.uint8)
                self._copy(parcel, ranks.rank, arrays, out, outwards=True)
            sent.append(out)
            for other in self._others:
                requests += ranks.send(out, other, number)
        ranks.wait(requests, "parameters")
        for parcel, other, buffer in filled:
            self._copy(parcel, other, arrays, buffer, outwards=False)

    def _bytes(self, parcel: Parcel, rank: int, arrays: Sequence[Array]) -> int:
        return sum(self._cut(i, rank).size * arrays[i].itemsize for i in parcel.members)

    def _copy(
        self, parcel: Parcel, rank: int, arrays: Sequence[Array], buffer: Array, *, outwards: bool
    ) -> None:
        at = 0
        for i in parcel.members:
            cut = flat_view(self._axes[i].cut(arrays[i], *self._rows[i][rank])).view(np.uint8)
            there = buffer[at : at + cut.size]
            if outwards:
                there[...] = cut
            else:
                cut[...] = there
            at += cut.size


def _same_order(array: Array, like: Array) -> bool:
    """Whether both walk their memory, without gaps, in the same order of elements."""
    if like.flags.c_contiguous:
        return array.flags.c_contiguous
    return array.flags.f_contiguous
