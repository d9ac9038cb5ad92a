"""Patterns of movement in which one adds for all: a shard of rows has a merger, and everyone reads the sums.

With one shard it is an all-reduce by a leader, with several a scatter-reduce. A merger adds in order of
worker id, in float32, and multiplies by the merge rule's factor. Exact sums are the very products that
everyone adds to ``shared`` in a broadcast: the bits are the same. Sums in float16 are half as large, and
with a filter at the merger there are fewer.

Rows that are trained apart have one publisher as a rule, so there is nothing to gain by adding. Everyone
reads them from everyone, in the precision in which they were published. Those that are owned do not move.
"""

from __future__ import annotations

import math

import numpy as np

from mlless.channels.ports import Bytes
from mlless.exchange.filter import SumsFilter
from mlless.exchange.reading import Reader
from mlless.exchange.update import Update, cut, entries, of_tables, shard_of
from mlless.job import Sync
from mlless.kernels.arrays import TableUpdate
from mlless.keys import merged_key, piece_key, update_key
from mlless.messages import Commit, FunctionId, Merge
from mlless.replica import Replica, TableShape


class Reduction:
    """One function's part in it, but for what it merges for others."""

    def __init__(
        self, reader: Reader, shapes: tuple[TableShape, ...], sync: Sync, shards: int, me: FunctionId
    ) -> None:
        self._reader, self._sync, self._shards, self._me = reader, sync, shards, me
        self._apart = tuple(shape.apart and not shape.owned for shape in shapes)
        self._added = tuple(not shape.apart for shape in shapes)

    def encode(self, step: int, update: Update) -> dict[str, Bytes]:
        """Return the update's pieces: what everyone reads, and one for each merger."""
        self._reader.own = {}
        if not entries(update):
            return {}
        parts = {}
        if any(self._apart):
            parts[update_key(step, self._me)] = of_tables(update, self._apart)
        shared = of_tables(update, self._added)
        for shard, part in enumerate(cut(shared, self._shards)):
            parts[piece_key(step, self._me, shard)] = part
        return self._reader.sealed(parts, self._sync.compression)

    def merge(self, commit: Commit, members: int) -> int:
        """Merge what is trained apart, in order of worker id, and the sums of the rest."""
        keys = [update_key(commit.step, who) for who in commit.published] if any(self._apart) else []
        keys += [merged_key(commit.step, who, shard) for shard, who in enumerate(commit.mergers)]
        return self._reader.merge(keys, "sum", members)


class Merger:
    """Merges shards for all members, as the function ``me``, and keeps in the replica what it does not send.

    Exact sums leave nothing behind, and have the bits of a broadcast. Those in float16 pass a filter: what
    is not significant yet, and what rounding leaves, is added to the next sum of the row.
    """

    def __init__(self, reader: Reader, replica: Replica, sync: Sync, shards: int, me: FunctionId) -> None:
        self._reader, self._replica, self._sync, self._shards, self._me = reader, replica, sync, shards, me
        self._filter = SumsFilter(replica)

    def merge(self, order: Merge, members: int) -> tuple[dict[str, Bytes], int]:
        """Return what is sent of a shard's sum, to be stored under its key, and the bytes read.

        Of a ``whole`` one nothing is kept.
        """
        keys = [piece_key(order.step, who, order.shard) for who in order.published]
        found, size = self._reader.sum(keys, self._sync.merge, members, self._filter.rows)
        update = tuple(
            self._sent(order, number, count, largest) for number, (count, largest) in enumerate(found)
        )
        key = merged_key(order.step, self._me, order.shard)
        return self._reader.sealed({key: update}, self._sync.compression), size

    def _sent(self, order: Merge, number: int, count: int, largest: float) -> TableUpdate:
        """Return what is sent of one table's sums, of which so many rows were touched."""
        significance, rows = self._sync.merged_significance, self._filter.rows[number][:count]
        if significance is None:
            return self._filter.take(number, rows, 0.0, None)
        if not order.whole:
            return self._filter.take(number, rows, significance / math.sqrt(order.step + 1), largest)
        rows = np.flatnonzero(self._replica.kept[number].any(axis=1)).astype(np.uint32)
        return self._filter.take(number, rows[shard_of(rows, self._shards) == order.shard], 0.0, None)
