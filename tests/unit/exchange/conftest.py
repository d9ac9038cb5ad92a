"""What the tests of the exchange share: made-up updates of made-up tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlless.exchange.update import Update
from mlless.kernels import twin
from mlless.kernels.arrays import TableUpdate
from mlless.replica import TableShape


def made_update(
    seed: int, shapes: list[TableShape], *, half: bool, density: float = 0.4, share: float = 0.5
) -> Update:
    """Return an update of a ``share`` of the rows; a table may stay out of it."""
    random = np.random.default_rng(seed)
    tables = []
    for shape in shapes:
        marks = random.random((shape.rows, shape.columns)) < density
        marks &= random.random((shape.rows, 1)) < share
        rows = np.flatnonzero(marks.any(axis=1)).astype(np.uint32)
        count = int(marks.sum())
        masks = np.packbits(marks[rows], axis=1, bitorder="little")
        if half:
            values = random.integers(1, 0x7C00, count).astype(np.uint16)
            values |= random.integers(0, 2, count).astype(np.uint16) << np.uint16(15)
            tables.append(TableUpdate(rows, masks, values, int(random.integers(-100, 101))))
        else:
            floats = random.normal(0, 1, count) * 10.0 ** random.integers(-30, 30, count)
            tables.append(TableUpdate(rows, masks, floats.astype(np.float32)))
    return tuple(tables)


def unpacked(data: bytes | memoryview, shapes: Sequence[TableShape]) -> list[TableUpdate]:
    """Return the parts of a packed update, their values in float32."""
    return twin.unpack_update(data, [(shape.rows, shape.columns) for shape in shapes])


def floats_of(update: Update) -> list[TableUpdate]:
    """Return an update with its values in float32."""
    return [
        table._replace(
            values=np.ldexp(table.values.view(np.float16).astype(np.float32), -table.exponent)
            if table.values.dtype == np.uint16
            else table.values,
            exponent=0,
        )
        for table in update
    ]


def same_bits(left: list[TableUpdate], right: list[TableUpdate]) -> bool:
    """Return whether two updates are equal, bit by bit."""
    return [tuple(part.tobytes() for part in table[:3]) for table in left] == [
        tuple(part.tobytes() for part in table[:3]) for table in right
    ]
