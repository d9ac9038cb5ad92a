"""What the tests of the kernels share: both implementations, and made-up tables, batches and updates."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mlless.kernels import twin
from mlless.kernels.arrays import (
    Bytes,
    ClicksArrays,
    Floats,
    Ids,
    Outbox,
    RatingsArrays,
    Rows,
    Sent,
    TableUpdate,
)
from mlless.replica import Table, TableShape

SENTINEL = np.uint32(0xDEADBEEF)
LocalIds = np.ndarray[Any, np.dtype[np.uint16]] | np.ndarray[Any, np.dtype[np.uint32]]
Contents = tuple[bytes, bytes, bytes, float, bool]


class Problems:
    """Makes kernel arguments from a seeded generator."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def table(self, rows: int, columns: int, step: int = 5) -> Rows:
        """Return a table of every kind of value, touched last at some step below ``step``."""
        table = Table.zeros(TableShape("table", rows, columns))
        shape = (rows, columns)
        table.shared[:] = self.random.normal(0, 0.5, shape) * (self.random.random(shape) < 0.9)
        table.residual[:] = (
            self.random.normal(0, 0.1, shape) * (self.random.random(shape) < 0.8) + 0.0
        )  # no -0
        table.state[:] = self.random.random(shape) * (self.random.random(shape) < 0.9)
        table.last[:] = self.random.integers(-1, step, rows)
        return table.rows

    def some(self, limit: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
        """Return ``count`` distinct ascending ids below ``limit``."""
        return np.sort(self.random.choice(limit, count, replace=False)).astype(np.uint32)

    def starts(self, groups: int, total: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
        """Return where groups start; some are empty."""
        if not groups:
            return np.zeros(1, np.uint32)
        cuts = np.sort(self.random.integers(0, total + 1, groups - 1))
        return np.concatenate([[0], cuts, [total]]).astype(np.uint32)

    def local(self, limit: int, count: int, width: int) -> LocalIds:
        """Return local ids of 2 or 4 bytes."""
        ids = self.random.integers(0, limit, count)
        return ids.astype(np.uint16) if width == 2 else ids.astype(np.uint32)

    def ratings(
        self, users: int, items: int, *, touched: tuple[int, int], count: int, width: int
    ) -> RatingsArrays:
        """Return ``count`` ratings of some of the users of some of the items."""
        n_users, n_items = min(users, touched[0]), min(items, touched[1])
        count = count if n_users and n_items else 0
        local = self.local(max(n_items, 1), count, width)
        return RatingsArrays(
            self.some(users, n_users),
            self.starts(n_users, count),
            self.some(items, n_items),
            local,
            width,
            self.random.integers(1, 6, count).astype(np.float32),
        )

    def clicks(
        self, features: int, *, touched: int, rows: int, entries: int, width: int, valued: bool
    ) -> ClicksArrays:
        """Return labelled rows of some of the features."""
        entries = entries if touched else 0
        local = self.local(max(touched, 1), entries, width)
        return ClicksArrays(
            self.random.integers(0, 2, rows).astype(np.uint8),
            self.starts(rows, entries),
            self.some(features, touched),
            local,
            width,
            self.random.normal(0, 1, entries).astype(np.float32) if valued else None,
        )

    def rated(self, users: int, items: int, count: int) -> tuple[Ids, Ids, Floats]:
        """Return ratings as a group holds them."""
        return (
            self.local(users, count, 4).astype(np.uint32),
            self.local(items, count, 4).astype(np.uint32),
            self.random.integers(1, 6, count).astype(np.float32),
        )

    def clicked(
        self, features: int, rows: int, *, valued: bool, weighted: bool
    ) -> tuple[Bytes, Ids, Ids, Floats | None, Floats | None]:
        """Return labelled rows, of 0 to 6 entries each, as a group holds them."""
        starts = np.append(0, np.cumsum(self.random.integers(0, 7, rows))).astype(np.uint32)
        entries = int(starts[-1])
        return (
            self.random.integers(0, 2, rows).astype(np.uint8),
            starts,
            self.local(features, entries, 4).astype(np.uint32),
            self.random.normal(0, 1, entries).astype(np.float32) if valued else None,
            self.random.random(rows).astype(np.float32) if weighted else None,
        )

    def update(self, rows: int, columns: int, touched: int, density: float) -> TableUpdate:
        """Return an update of some rows; each of them marks at least one column."""
        marks = self.random.random((touched, columns)) < density
        marks[np.arange(touched), self.random.integers(0, columns, touched)] = True
        values = self.random.normal(0, 1, int(marks.sum())).astype(np.float32)
        values *= np.float32(10.0) ** self.random.integers(-6, 6, len(values)).astype(np.float32)
        masks = np.packbits(marks, axis=1, bitorder="little")
        return TableUpdate(self.some(rows, touched), masks, values)


def packed(parts: list[TableUpdate], half: int = 0, planes: int = 0, pack: ModuleType = twin) -> Bytes:
    """Return an update's bytes."""
    room = sum(13 + 5 * len(part.rows) + part.masks.nbytes + part.values.nbytes for part in parts)
    out = np.full(9 + room, 0xEE, np.uint8)
    size = pack.pack_update(parts, half, planes, out)
    assert (out[size:] == 0xEE).all()
    return out[:size]


def merge(
    kernel: ModuleType,
    table: Rows,
    columns: int,
    updates: list[TableUpdate],
    factors: Floats,
    by_count: bool,
    whole: bool = False,
) -> None:
    """Merge updates of one table."""
    kernel.merge_updates(
        [(table, columns, int(whole))], [packed([one]) for one in updates], factors, int(by_count)
    )


def ratings_room(count: int, users: int, items: int, width: int) -> RatingsArrays:
    """Return room for a mini-batch, filled with a pattern."""
    return RatingsArrays(
        np.full(users, SENTINEL, np.uint32),
        np.full(users + 1, SENTINEL, np.uint32),
        np.full(items, SENTINEL, np.uint32),
        np.full(count, 0xBEEF, np.uint16) if width == 2 else np.full(count, SENTINEL, np.uint32),
        width,
        np.full(count, SENTINEL.view(np.float32), np.float32),
    )


def clicks_room(
    rows: int, entries: int, features: int, width: int, *, valued: bool, weighted: bool
) -> ClicksArrays:
    """Return room for a mini-batch, filled with a pattern."""
    pattern = SENTINEL.view(np.float32)
    return ClicksArrays(
        np.full(rows, 0xEF, np.uint8),
        np.full(rows + 1, SENTINEL, np.uint32),
        np.full(features, SENTINEL, np.uint32),
        np.full(entries, 0xBEEF, np.uint16) if width == 2 else np.full(entries, SENTINEL, np.uint32),
        width,
        np.full(entries, pattern, np.float32) if valued else None,
        np.full(rows, pattern, np.float32) if weighted else None,
    )


def outbox(rows: int, columns: int, exponent: int = 0) -> Outbox:
    """Return room for so many rows, filled with a pattern that no test expects."""
    masks = np.full((rows, (columns + 7) // 8), 0xAA, np.uint8)
    values = np.full(rows * columns + 1, SENTINEL.view(np.float32), np.float32)
    return Outbox(np.full(rows, SENTINEL, np.uint32), masks, values, exponent)


def contents(box: Outbox, sent: Sent | tuple[int, int, float, int], half: int) -> Contents:
    """Return the bytes that a step has put into an outbox, its largest size and whether all was finite."""
    rows, values, largest, finite = sent
    room = box.values.view(np.uint16) if half else box.values.view(np.uint32)
    return (
        box.rows[:rows].tobytes(),
        box.masks[:rows].tobytes(),
        room[:values].tobytes(),
        float(largest),
        bool(finite),
    )


def clone(rows: Rows) -> Rows:
    """Return a copy of a table's memory."""
    return Rows(rows.data.copy(), rows.stride)


def published(
    box: Outbox, sent: Sent | tuple[int, int, float, int], shape: tuple[int, int], half: int
) -> Floats:
    """Return what an outbox publishes as a dense table, zero where nothing is published."""
    rows, values = sent[0], sent[1]
    dense = np.zeros(shape, np.float32)
    marks = np.unpackbits(box.masks[:rows], axis=1, count=shape[1], bitorder="little").astype(bool)
    part = np.zeros((rows, shape[1]), np.float32)
    if half:
        halves = box.values.view(np.float16)[:values].astype(np.float32)
        part[marks] = halves * np.float32(2.0**-box.exponent)
    else:
        part[marks] = box.values[:values]
    dense[box.rows[:rows]] = part
    return dense


@pytest.fixture(scope="session")
def native() -> ModuleType:
    """Return the compiled kernels; without them there is nothing to compare."""
    module: ModuleType = pytest.importorskip("mlless.kernels.native", reason="the kernels are not compiled")
    return module


@pytest.fixture(params=["native", "numpy"])
def kernel(request: pytest.FixtureRequest) -> ModuleType:
    """Return the compiled kernels, then their twin."""
    if request.param == "numpy":
        return twin
    module: ModuleType = pytest.importorskip("mlless.kernels.native", reason="the kernels are not compiled")
    return module
