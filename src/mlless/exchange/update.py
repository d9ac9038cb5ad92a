"""An update: what one worker publishes in one step, table by table."""

from __future__ import annotations

from mlless.kernels.arrays import TableUpdate

Update = tuple[TableUpdate, ...]


def entries(update: Update) -> int:
    """Return how many parameters the update changes."""
    return sum(len(table.values) for table in update)
