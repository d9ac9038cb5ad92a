"""What a worker has published and not merged yet, where slack lets it go on meanwhile.

A worker sees its own changes at once: x = shared + pending + residual. ``pending`` has no memory of its own.
It is laid over ``shared`` while a step is taken: what the merge will come to if nobody else publishes those
entries, by the very kernel of the merge. Before anything is merged, or anybody else is given ``shared``, it
is lifted again: the bits below were kept. So ``shared`` is the same bits everywhere when somebody looks.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlless.channels.ports import Bytes
from mlless.exchange.reading import Reader
from mlless.exchange.update import Update
from mlless.job import Sync
from mlless.kernels.arrays import Floats, Ids
from mlless.keys import update_key
from mlless.messages import FunctionId
from mlless.replica import Replica


@dataclass(frozen=True, slots=True)
class _Published:
    """One's own update of a step of so many members: packed, and its rows of each table."""

    step: int
    members: int
    packed: Bytes
    rows: tuple[Ids, ...]


class Pending:
    """The updates of the function ``me`` that are pending, in order of their steps."""

    def __init__(self, reader: Reader, replica: Replica, sync: Sync, me: FunctionId) -> None:
        self._reader, self._replica, self._sync, self._me = reader, replica, sync, me
        self._updates: list[_Published] = []
        self._below: list[tuple[Floats, ...]] = []  # what those that are laid over ``shared`` have replaced

    def add(self, step: int, members: int, update: Update) -> None:
        """Take in what has been published in a step, if it was anything."""
        packed = self._reader.own.get(update_key(step, self._me))
        if packed is not None:
            rows = tuple(part.rows.copy() for part in update)
            self._updates.append(_Published(step, members, packed, rows))

    def lay(self) -> None:
        """Lay all over ``shared`` that are not there yet, the oldest first."""
        for one in self._updates[len(self._below) :]:
            tables = zip(self._replica.tables, one.rows, strict=True)
            self._below.append(tuple(table.shared[rows] for table, rows in tables))
            self._replica.merge({"pending": one.packed}, self._sync.merge, one.members)

    def lift(self) -> None:
        """Give ``shared`` the bits that all have in common."""
        while self._below:
            values = self._below.pop()
            rows = self._updates[len(self._below)].rows
            for table, numbers, below in zip(self._replica.tables, rows, values, strict=True):
                table.shared[numbers] = below

    def forget(self, step: int) -> None:
        """Take in that a step is merged; nothing is laid over ``shared`` then."""
        self._updates = [one for one in self._updates if one.step > step]
