"""Patterns of movement in which one adds for all: a shard of rows has a merger, and everyone reads the sums.

With one shard it is an all-reduce by a leader, with several a scatter-reduce. A merger adds in order of
worker id, in float32, and multiplies by the merge rule's factor. What is then sent is the very product that
everyone adds to ``shared`` in a broadcast: the bits are the same.

Rows that are trained apart have one publisher as a rule, so there is nothing to gain by adding. Everyone
reads them from everyone, in the precision in which they were published.
"""

from __future__ import annotations

from mlless.channels.ports import Bytes
from mlless.exchange.reading import Reader
from mlless.exchange.update import Update, cut, entries, of_tables
from mlless.job import Sync
from mlless.keys import merged_key, piece_key, update_key
from mlless.messages import Commit, FunctionId, Merge
from mlless.replica import TableShape


class Reduction:
    """One function's part in it, but for what it merges for others."""

    def __init__(
        self, reader: Reader, shapes: tuple[TableShape, ...], sync: Sync, shards: int, me: FunctionId
    ) -> None:
        self._reader, self._sync, self._shards, self._me = reader, sync, shards, me
        self._apart = tuple(shape.apart for shape in shapes)

    def encode(self, step: int, update: Update) -> dict[str, Bytes]:
        """Return the update's pieces: what everyone reads, and one for each merger."""
        self._reader.own = {}
        if not entries(update):
            return {}
        parts = {}
        if any(self._apart):
            parts[update_key(step, self._me)] = of_tables(update, self._apart)
        shared = of_tables(update, [not apart for apart in self._apart])
        for shard, part in enumerate(cut(shared, self._shards)):
            parts[piece_key(step, self._me, shard)] = part
        return self._reader.sealed(parts, self._sync.compression)

    def merge(self, commit: Commit, members: int) -> int:
        """Merge what is trained apart, in order of worker id, and the sums of the rest."""
        keys = [update_key(commit.step, who) for who in commit.published] if any(self._apart) else []
        keys += [merged_key(commit.step, who, shard) for shard, who in enumerate(commit.mergers)]
        return self._reader.merge(keys, "sum", members)


class Merger:
    """Merges shards for all members, as the function ``me``."""

    def __init__(self, reader: Reader, sync: Sync, me: FunctionId) -> None:
        self._reader, self._sync, self._me = reader, sync, me

    def merge(self, order: Merge, members: int) -> tuple[dict[str, Bytes], int]:
        """Return the sum of a shard's pieces, to be stored under its key, and the bytes read."""
        keys = [piece_key(order.step, who, order.shard) for who in order.published]
        update, size = self._reader.sum(keys, self._sync.merge, members)
        key = merged_key(order.step, self._me, order.shard)
        return self._reader.sealed({key: update}, self._sync.compression), size
