"""PURE: which items are best for whom, in blocks of users whose scores fit the cache of a machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlless.kernels.arrays import Floats

Rows = NDArray[np.int64]
_BLOCK = 1 << 22  # scores held at a time


@dataclass(frozen=True, slots=True)
class Seen:
    """Which items each user has rated: user ``u`` those of ``items[starts[u]:starts[u + 1]]``, as rows."""

    starts: NDArray[np.int64]
    items: NDArray[np.uint32]

    @classmethod
    def of(cls, users: Rows, items: Rows, *, count: int) -> Seen:
        """Return the distinct pairs of the rows ``users`` and ``items``, for ``count`` users."""
        width = int(items.max(initial=0)) + 1
        pairs = np.unique(users * width + items)
        starts = np.searchsorted(pairs, np.arange(count + 1, dtype=np.int64) * width)
        return cls(starts.astype(np.int64), (pairs % width).astype(np.uint32))

    def pairs(self) -> tuple[Rows, Rows]:
        """Return users and items as rows, one pair of them for each item seen."""
        users = np.repeat(np.arange(len(self.starts) - 1, dtype=np.int64), np.diff(self.starts))
        return users, self.items.astype(np.int64)

    def within(self, users: Rows) -> tuple[Rows, Rows]:
        """Return what ``users`` (-1: unknown) have seen: places in ``users``, and items."""
        known = (users >= 0) & (users < len(self.starts) - 1)
        rows = np.where(known, users, 0)
        counts = np.where(known, self.starts[rows + 1] - self.starts[rows], 0)
        places = np.repeat(np.arange(len(users), dtype=np.int64), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return places, self.items[self.starts[rows][places] + within].astype(np.int64)


def top_items(p: Floats, q: Floats, *, rows: Rows, n: int, seen: Seen | None) -> tuple[Rows, Floats]:
    """Return the rows of the ``n`` best items for the users ``rows`` of ``p``, best first, and their scores.

    A score is the product of the factors plus both biases, the last columns. What a user has seen is
    left out; where no item is left stand -1 and NaN. Of equals the one with the lower row comes first.
    """
    best = np.full((len(rows), n), -1, np.int64)
    scores = np.full((len(rows), n), np.nan, np.float32)
    block, kept = max(1, _BLOCK // max(len(q), 1)), min(n, len(q))
    factors, bias = np.ascontiguousarray(q[:, :-1].T), q[:, -1]
    for at in range(0, len(rows) if kept else 0, block):
        users = rows[at : at + block]
        table = p[users, :-1] @ factors
        table += bias
        if seen is not None:
            table[seen.within(users)] = -np.inf
        chosen = np.sort(np.argpartition(table, -kept, axis=1)[:, -kept:], axis=1)
        values = np.take_along_axis(table, chosen, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        values = np.take_along_axis(values, order, axis=1)
        left = np.isfinite(values)
        best[at : at + block, :kept] = np.where(left, np.take_along_axis(chosen, order, axis=1), -1)
        scores[at : at + block, :kept] = np.where(left, values + p[users, -1:], np.nan)
    return best, scores
