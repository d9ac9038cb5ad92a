"""An update: what one worker publishes in one step, table by table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlless import kernels
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


def shard_of(rows: NDArray[np.integer], shards: int) -> NDArray[np.uint8]:
    """Return the shard that each of these rows belongs to."""
    return (rows // _BLOCK % shards).astype(np.uint8)


def _cut(part: TableUpdate, shards: int) -> list[TableUpdate]:
    if shards == 1:
        return [part]
    out = part._replace(
        rows=np.empty_like(part.rows), masks=np.empty_like(part.masks), values=np.empty_like(part.values)
    )
    half = int(part.values.itemsize == 2)
    row = value = 0
    pieces = []
    for rows, values in kernels.cut_update(part, half, shards, _BLOCK, out):
        pieces.append(
            out._replace(
                rows=out.rows[row : row + rows],
                masks=out.masks[row : row + rows],
                values=out.values[value : value + values],
            )
        )
        row, value = row + rows, value + values
    return pieces
