"""Raw rows as arrays, with the ids of their source: what readers yield and what is dealt to groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlless.data.groups import ClicksGroup
from mlless.data.hashing import Hashes, hash_numbers
from mlless.data.ids import Ids, join
from mlless.errors import InputError

MOST = 2**32 - 1  # rows of a table, entries of a group: they are numbered in 32 bits
Column = NDArray[np.generic]


class Rows(Protocol):
    """A run of rows; ``columns`` and ``of`` turn it into plain arrays and back."""

    def __len__(self) -> int: ...

    def take(self, order: NDArray[np.intp]) -> Self:
        """Return the rows at the places ``order``, in that order."""
        ...

    def part(self, start: int, stop: int) -> Self:
        """Return the rows from ``start`` up to ``stop``."""
        ...

    @classmethod
    def join(cls, pieces: Sequence[Self]) -> Self:
        """Return the rows of all ``pieces``, one after the other."""
        ...

    def columns(self) -> tuple[Column, ...]:
        """Return the arrays that make up the rows; their sizes add up when rows are joined."""
        ...

    @classmethod
    def of(cls, columns: Sequence[Column]) -> Self:
        """Return the rows that ``columns`` make up."""
        ...

    def hashes(self, state: np.uint64) -> Hashes:
        """Return the hash of what each row is about, from a state: the same for rows of the same."""
        ...


R = TypeVar("R", bound=Rows)
S = TypeVar("S", bound=Rows)


@dataclass(frozen=True, slots=True)
class RatingsRows:
    """Ratings of items by users: with the ids of their source, or in a spool with codes for them.

    ``ratings`` is None where the source has no such column.
    """

    users: Ids
    items: Ids
    ratings: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.users)

    def take(self, order: NDArray[np.intp]) -> RatingsRows:
        """Return the rows at the places ``order``, in that order."""
        ratings = None if self.ratings is None else self.ratings[order]
        return RatingsRows(self.users[order], self.items[order], ratings)

    def part(self, start: int, stop: int) -> RatingsRows:
        """Return the rows from ``start`` up to ``stop``."""
        ratings = None if self.ratings is None else self.ratings[start:stop]
        return RatingsRows(self.users[start:stop], self.items[start:stop], ratings)

    @classmethod
    def join(cls, pieces: Sequence[RatingsRows]) -> RatingsRows:
        """Return the rows of all ``pieces``, one after the other."""
        ratings = [piece.ratings for piece in pieces if piece.ratings is not None]
        return cls(
            join([piece.users for piece in pieces]),
            join([piece.items for piece in pieces]),
            np.concatenate(ratings) if ratings else None,
        )

    def columns(self) -> tuple[Column, ...]:
        """Return the codes of users and items and, if there are any, ratings."""
        known = self.users.astype(np.uint32), self.items.astype(np.uint32)
        return known if self.ratings is None else (*known, self.ratings)

    @classmethod
    def of(cls, columns: Sequence[Column]) -> RatingsRows:
        """Return the rows that ``columns`` make up."""
        users, items, *ratings = columns
        return cls(
            users.astype(np.int64),
            items.astype(np.int64),
            ratings[0].astype(np.float32, copy=False) if ratings else None,
        )

    def hashes(self, state: np.uint64) -> Hashes:
        """Return the hash of each row's pair of codes for user and item."""
        users, items = (codes.astype(np.int64, copy=False) for codes in (self.users, self.items))
        return hash_numbers(items, hash_numbers(users, state))


@dataclass(frozen=True, slots=True)
class ClicksRows:
    """Sparse rows with a label of 0 or 1; row ``n`` holds entries ``starts[n]:starts[n + 1]``.

    ``numbers`` counts the rows of the source from 0, those that were left out as well.
    """

    labels: NDArray[np.uint8]
    numbers: NDArray[np.int64]
    starts: NDArray[np.int64]
    indices: NDArray[np.uint32]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, order: NDArray[np.intp]) -> ClicksRows:
        """Return the rows at the places ``order``, in that order."""
        lengths = np.diff(self.starts)[order]
        starts = starts_of(lengths)
        entries = np.repeat(self.starts[:-1][order] - starts[:-1], lengths) + np.arange(starts[-1])
        return ClicksRows(
            self.labels[order], self.numbers[order], starts, self.indices[entries], self.values[entries]
        )

    def part(self, start: int, stop: int) -> ClicksRows:
        """Return the rows from ``start`` up to ``stop``."""
        starts = self.starts[start : stop + 1]
        entries = slice(starts[0], starts[-1])
        return ClicksRows(
            self.labels[start:stop],
            self.numbers[start:stop],
            starts - starts[0],
            self.indices[entries],
            self.values[entries],
        )

    @classmethod
    def join(cls, pieces: Sequence[ClicksRows]) -> ClicksRows:
        """Return the rows of all ``pieces``, one after the other."""
        return cls(
            np.concatenate([piece.labels for piece in pieces]),
            np.concatenate([piece.numbers for piece in pieces]),
            starts_of(np.concatenate([np.diff(piece.starts) for piece in pieces])),
            np.concatenate([piece.indices for piece in pieces]),
            np.concatenate([piece.values for piece in pieces]),
        )

    def columns(self) -> tuple[Column, ...]:
        """Return labels, numbers, lengths, indices and values."""
        return self.labels, self.numbers, np.diff(self.starts), self.indices, self.values

    @classmethod
    def of(cls, columns: Sequence[Column]) -> ClicksRows:
        """Return the rows that ``columns`` make up."""
        labels, numbers, lengths, indices, values = columns
        return cls(
            labels.astype(np.uint8, copy=False),
            numbers.astype(np.int64, copy=False),
            starts_of(lengths.astype(np.int64, copy=False)),
            indices.astype(np.uint32, copy=False),
            values.astype(np.float32, copy=False),
        )

    def hashes(self, state: np.uint64) -> Hashes:
        """Return the hash of each row's number: no two rows are the same."""
        return hash_numbers(self.numbers, state)


@dataclass(frozen=True, slots=True)
class ColumnRows:
    """Rows of a table of clicks before they are scaled.

    ``numeric`` holds the raw numbers (NaN where missing) and ``categories`` the hashed ones (see
    ``mlless.data.features``), a line a row each. ``labels`` and ``numbers`` are as in `ClicksRows`.
    """

    labels: NDArray[np.uint8]
    numbers: NDArray[np.int64]
    numeric: NDArray[np.float32]
    categories: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, order: NDArray[np.intp]) -> ColumnRows:
        """Return the rows at the places ``order``, in that order."""
        return ColumnRows(
            self.labels[order], self.numbers[order], self.numeric[order], self.categories[order]
        )

    def part(self, start: int, stop: int) -> ColumnRows:
        """Return the rows from ``start`` up to ``stop``."""
        rows = slice(start, stop)
        return ColumnRows(self.labels[rows], self.numbers[rows], self.numeric[rows], self.categories[rows])

    @classmethod
    def join(cls, pieces: Sequence[ColumnRows]) -> ColumnRows:
        """Return the rows of all ``pieces``, one after the other."""
        return cls(
            np.concatenate([piece.labels for piece in pieces]),
            np.concatenate([piece.numbers for piece in pieces]),
            np.concatenate([piece.numeric for piece in pieces]),
            np.concatenate([piece.categories for piece in pieces]),
        )

    def columns(self) -> tuple[Column, ...]:
        """Return labels, numbers, and the lines of numeric and categories one after the other."""
        return self.labels, self.numbers, self.numeric.ravel(), self.categories.ravel()

    @classmethod
    def of(cls, columns: Sequence[Column]) -> ColumnRows:
        """Return the rows, at least one, that ``columns`` make up."""
        labels, numbers, numeric, categories = columns
        rows = len(labels)
        return cls(
            labels.astype(np.uint8, copy=False),
            numbers.astype(np.int64, copy=False),
            numeric.astype(np.float32, copy=False).reshape(rows, -1),
            categories.astype(np.uint32, copy=False).reshape(rows, -1),
        )

    def hashes(self, state: np.uint64) -> Hashes:
        """Return the hash of each row's number: no two rows are the same."""
        return hash_numbers(self.numbers, state)


def clicks_group(rows: ClicksRows, weights: NDArray[np.float32] | None = None) -> ClicksGroup:
    """Return rows as a group's file holds them; values that are all 1 are left out."""
    if rows.starts[-1] > MOST:
        raise InputError(
            "too many features in the rows of one group",
            expected=f"at most {MOST}",
            found=str(rows.starts[-1]),
            cure="leave out the longest rows, of which each has a large part of that",
        )
    return ClicksGroup(
        labels=rows.labels,
        starts=rows.starts.astype(np.uint32),
        indices=rows.indices,
        values=None if bool(np.all(rows.values == 1.0)) else rows.values,
        numbers=rows.numbers.astype(np.uint64),
        weights=weights,
    )


def rows_of_group(group: ClicksGroup) -> ClicksRows:
    """Return the rows of a group as they were before it was made, but for their weights."""
    return ClicksRows(
        group.labels,
        group.numbers.astype(np.int64),
        group.starts.astype(np.int64),
        group.indices,
        np.ones(len(group.indices), np.float32) if group.values is None else group.values,
    )


def starts_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where rows of these lengths start when they lie one after the other, and where they end."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


@dataclass(frozen=True, slots=True)
class Chunk(Generic[R]):
    """Rows in source order, as far as a reader got in one go.

    ``lines[n]`` is the place of row ``n`` in the source: its line, or its row in Parquet, from 1.
    ``skipped`` malformed lines were left out since the chunk before. ``done`` bytes of the source
    (as it is stored) are read. ``part`` is the name of the part of the source that the rows are from.
    ``unlabelled`` rows have no rating or label and were left out.
    """

    rows: R
    lines: NDArray[np.int64]
    skipped: int
    done: int
    part: str
    unlabelled: int = 0

    def with_rows(self, rows: S) -> Chunk[S]:
        """Return a chunk with other rows, as many, in place of these."""
        return Chunk(rows, self.lines, self.skipped, self.done, self.part, self.unlabelled)
