"""An update: what one worker publishes in one step, table by table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlless.kernels.arrays import TableUpdate

Update = tuple[TableUpdate, ...]

_BLOCK = 64  # rows that stay together: a merger's sums then lie together in its memory


def entries(update: Update) -> int:
    """Return how many parameters the update changes."""
    return sum(len(table.values) for table in update)


def of_tables(update: Update, wanted: Sequence[bool]) -> Update:
    """Return the update without what it has of tables that are not wanted."""
    return tuple(
        part if want else part._replace(rows=part.rows[:0], masks=part.masks[:0], values=part.values[:0])
        for part, want in zip(update, wanted, strict=True)
    )


def cut(update: Update, shards: int) -> list[Update]:
    """Return the update cut into shards of rows, which are the same in every step.

    Blocks of rows are dealt in turn, so that shards are of about one size where rows of low number are
    touched more often.
    """
    return [tuple(parts) for parts in zip(*(_cut(part, shards) for part in update), strict=True)]


def _cut(part: TableUpdate, shards: int) -> list[TableUpdate]:
    if shards == 1:
        return [part]
    shard = (part.rows // _BLOCK % shards).astype(np.uint8)
    of_value = np.repeat(shard, np.bitwise_count(part.masks).sum(axis=1, dtype=np.intp))
    rows, values = np.argsort(shard, kind="stable"), np.argsort(of_value, kind="stable")
    columns = (
        np.split(array[order], np.cumsum(np.bincount(numbers, minlength=shards))[:-1])
        for array, order, numbers in (
            (part.rows, rows, shard),
            (part.masks, rows, shard),
            (part.values, values, of_value),
        )
    )
    return [part._replace(rows=r, masks=m, values=v) for r, m, v in zip(*columns, strict=True)]
