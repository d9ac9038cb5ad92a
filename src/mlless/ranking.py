"""PURE: which items are best for whom, in blocks of users whose scores fit the cache of a machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlless.kernels.arrays import Floats

Rows = NDArray[np.int64]
_BLOCK = 1 << 22  # scores held at a time
_WAITING = 1 << 22  # pairs that wait to be sorted


@dataclass(frozen=True, slots=True)
class Seen:
    """Which items each user has rated: user ``u`` those of ``items[starts[u]:starts[u + 1]]``, as rows."""

    starts: NDArray[np.int64]
    items: NDArray[np.uint32]

    def __post_init__(self) -> None:
        """Raise ValueError unless the starts rise from 0 to the end of the items."""
        if self.starts.ndim != 1 or self.items.ndim != 1 or not len(self.starts):
            raise ValueError("starts and items are not two rows of numbers")
        if self.starts[0] != 0 or self.starts[-1] != len(self.items):
            raise ValueError(f"starts are not from 0 to {len(self.items)}")
        if (self.starts[1:] < self.starts[:-1]).any():
            raise ValueError("starts do not rise")

    @classmethod
    def of(cls, users: NDArray[np.integer], items: NDArray[np.integer]) -> Seen:
        """Return the distinct pairs of the rows ``users`` and ``items``."""
        count = int(users.max()) + 1 if len(users) else 0
        width = int(items.max(initial=0)) + 1
        # Half as wide is sorted twice as fast.
        kind: np.dtype[np.integer] = np.dtype(np.uint32 if count * width < 2**32 else np.int64)
        pairs = np.sort(users.astype(kind) * width + items.astype(kind))
        pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]]
        by = pairs // width
        starts = np.append(0, np.cumsum(np.bincount(by, minlength=count)))
        return cls(starts.astype(np.int64), (pairs - by * width).astype(np.uint32))

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


class Sightings:
    """What users have seen, as it comes in: sorted when it is asked for, and to bound what lies about."""

    def __init__(self) -> None:
        self._seen = Seen(np.zeros(1, np.int64), np.zeros(0, np.uint32))
        self._recent: list[tuple[NDArray[np.uint32], NDArray[np.uint32]]] = []
        self._waiting = 0

    def add(self, users: NDArray[np.integer], items: NDArray[np.integer]) -> None:
        """Take in pairs of the rows ``users`` and ``items``."""
        self._recent.append((users.astype(np.uint32), items.astype(np.uint32)))
        self._waiting += len(users)
        # Sorting only once as much has come in as there is keeps the whole work n log n.
        if self._waiting > max(len(self._seen.items), _WAITING):
            self.all()

    def all(self) -> Seen:
        """Return all that has been seen."""
        if self._recent:
            users, items = zip(self._seen.pairs(), *self._recent, strict=True)
            self._seen = Seen.of(np.concatenate(users), np.concatenate(items))
            self._recent, self._waiting = [], 0
        return self._seen


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
