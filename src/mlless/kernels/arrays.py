"""The values that go into a kernel and come out of it. Plain tuples, for C to take apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.uint32]
Bytes = NDArray[np.uint8]


def distinct_ids(ids: Sequence[Ids]) -> Ids:
    """Return the ids of several arrays, each once, in ascending order.

    It sorts: ``numpy.unique`` of 2.4 hashes, which takes ten times as long, and imports ``numpy.ma`` for it.
    """
    every = np.sort(np.concatenate([*ids, np.empty(0, np.uint32)]))
    first = np.ones(len(every), np.bool_)
    first[1:] = every[1:] != every[:-1]
    return every[first]


class Rows(NamedTuple):
    """A table's memory: ``data`` is rows x ``stride`` float32.

    A row is ``shared[columns] | residual[columns] | state[columns] | last``, the rest unused:
    all of it travels in the same cache lines. ``last``, the step that touched the row last, is
    an int32 in the place of a float.
    """

    data: Floats
    stride: int


class RatingsArrays(NamedTuple):
    """A mini-batch of ratings, grouped by user: each table row is named once, in ascending order.

    ``users[g]`` gave the ratings ``starts[g]:starts[g + 1]``; rating ``n`` is of ``items[local[n]]``.
    ``width`` is the bytes a local id takes (2 or 4).
    """

    users: Ids
    starts: Ids
    items: Ids
    local: NDArray[np.uint16] | NDArray[np.uint32]
    width: int
    ratings: Floats

    @property
    def samples(self) -> int:
        """How many ratings there are."""
        return len(self.ratings)

    @property
    def touched(self) -> tuple[int, int]:
        """How many rows of the tables users and items a step on it moves."""
        return len(self.users), len(self.items)

    @property
    def named(self) -> tuple[Ids, Ids]:
        """The rows of the tables users and items that it takes, in ascending order."""
        return self.users, self.items

    def renumbered(self) -> RatingsArrays:
        """Return the same mini-batch for tables that hold the rows that it names, and no others."""
        users, items = (np.arange(len(ids), dtype=np.uint32) for ids in self.named)
        return self._replace(users=users, items=items)

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        return _size(self)


class ClicksArrays(NamedTuple):
    """A mini-batch of labelled rows: each feature is named once, in ascending order.

    Row ``n`` holds the entries ``starts[n]:starts[n + 1]``: feature ``features[local[e]]`` with value
    ``values[e]``, or 1 where ``values`` is None. ``width`` is the bytes a local id takes (2 or 4).
    ``weights`` says how much each row counts, once where it is None.
    """

    labels: Bytes
    starts: Ids
    features: Ids
    local: NDArray[np.uint16] | NDArray[np.uint32]
    width: int
    values: Floats | None
    weights: Floats | None = None

    @property
    def samples(self) -> int:
        """How many rows there are."""
        return len(self.labels)

    @property
    def touched(self) -> tuple[int, int]:
        """How many rows of the tables features and intercept a step on it moves."""
        return len(self.features), 1

    @property
    def named(self) -> tuple[Ids, Ids]:
        """The rows of the tables features and intercept that it takes, in ascending order."""
        return self.features, np.zeros(1, np.uint32)

    def renumbered(self) -> ClicksArrays:
        """Return the same mini-batch for a table that holds the features that it names, and no others."""
        return self._replace(features=np.arange(len(self.features), dtype=np.uint32))

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        return _size(self)


class Rule(NamedTuple):
    """How a touched row moves. ``kind``: 0 Adagrad, 1 Nesterov.

    ``decay`` is the L2 strength that is applied in proximal form for each step since the row was
    last touched; 0 where L2 is part of the gradient. ``step`` counts from 0.
    """

    kind: int
    rate: float
    epsilon: float
    momentum: float
    decay: float
    step: int


class Outbox(NamedTuple):
    """Room for what one step publishes of one table.

    ``rows`` ids, ``masks`` of ceil(columns / 8) bytes a row, ``values`` float32, or float16 in
    the same memory, scaled by 2 to the power of ``exponent``; one value more than can be sent.

    A table's mode in a step says what goes there: 0 float32, 1 float16, 2 nothing. In mode 2 each change goes
    into ``shared`` at once: that is publishing all of it and merging it where nobody else takes part.
    """

    rows: Ids
    masks: Bytes
    values: Floats
    exponent: int


class Sent(NamedTuple):
    """How much of an outbox is filled, the largest published size, and whether all was finite."""

    rows: int
    values: int
    largest: float
    finite: int


class TableUpdate(NamedTuple):
    """The published entries of one table.

    ``rows`` ascend. ``masks`` has ceil(columns / 8) bytes a row, bit ``c % 8`` of byte ``c // 8`` standing
    for column c. ``values`` follow row by row: float32, or float16 bits (uint16) that count in units of 2 to
    the power of minus ``exponent``.
    """

    rows: Ids
    masks: Bytes
    values: Floats | NDArray[np.uint16]
    exponent: int = 0


class Total(NamedTuple):
    """What the updates of a table come to: for each entry the sum of its values, and how many there were.

    ``sums`` and ``counts`` have ``columns`` places a row or, from 8 columns on, the next multiple of 8;
    ``counts`` none at all where they are not wanted. ``touched`` is 1 for each row that an update names.
    """

    sums: Floats
    counts: NDArray[np.int32]
    touched: Bytes
    columns: int

    @classmethod
    def zeros(cls, rows: int, columns: int, *, counted: bool) -> Total:
        """Return the total of no updates."""
        width = columns if columns < 8 else -(-columns // 8) * 8
        counts = np.zeros((rows if counted else 0, width), np.int32)
        return cls(np.zeros((rows, width), np.float32), counts, np.zeros(rows, np.uint8), columns)


def _size(batch: RatingsArrays | ClicksArrays) -> int:
    return sum(array.nbytes for array in batch if isinstance(array, np.ndarray))
