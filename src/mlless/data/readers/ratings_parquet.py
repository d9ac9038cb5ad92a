"""Ratings in Parquet: columns user, item and rating under their usual names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlless.data.readers.columns import FINITE_RATING, find_columns
from mlless.data.readers.lines import malformed
from mlless.data.readers.numbers import BIGGEST, Malformed
from mlless.data.readers.parquet import ROWS, Rows, parquet_batches, wrong_type
from mlless.data.readers.source import Source
from mlless.data.rows import Chunk, RatingsRows
from mlless.errors import InputError

if TYPE_CHECKING:
    import pyarrow


def read_ratings_parquet(
    source: Source, *, skip_malformed: bool = False, rating_optional: bool = False
) -> Iterator[Chunk[RatingsRows]]:
    """Yield the ratings of a Parquet source in order."""
    names: list[str] = []

    def choose(schema: pyarrow.Schema, part: str) -> list[str]:
        names[:] = _columns(part, schema, rating_optional)
        return names

    for found in parquet_batches(source, choose, ROWS):
        yield _chunk(found, names, skip_malformed)


def _columns(part: str, schema: pyarrow.Schema, rating_optional: bool) -> list[str]:
    """Return the names of the columns for user, item and rating; InputError if they will not do."""
    from pyarrow import types

    columns = find_columns(schema.names)
    if len(set(schema.names)) < len(schema.names):
        columns = None  # two columns of one name: no telling which is meant
    if columns is None or (columns.rating is None and not rating_optional):
        raise InputError(
            "not a table of ratings",
            where=part,
            expected="columns user, item and rating (or userId, movieId, ...)",
            found=", ".join(schema.names) or "no columns",
        )
    for place in (columns.user, columns.item):
        if not types.is_integer(schema.field(place).type):
            raise wrong_type(part, schema.field(place), "an integer column")
    places = [columns.user, columns.item]
    if columns.rating is not None:
        places.append(columns.rating)
        type_ = schema.field(columns.rating).type
        if not (types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_)):
            raise wrong_type(part, schema.field(columns.rating), "a numeric column")
    return [schema.names[place] for place in places]


def _chunk(found: Rows, names: list[str], skip: bool) -> Chunk[RatingsRows]:
    batch, first = found.batch, found.first
    columns = [batch.column(name) for name in names]
    good = np.ones(batch.num_rows, np.bool_)
    ids = []
    for column, what in zip(columns, ("user", "item"), strict=False):
        numbers, usable = _ids(column)
        if not skip and not usable.all():
            at = int(np.argmin(usable))
            expected = f"a {what} id that is a whole number from 0 to 2^63-1".replace("a item", "an item")
            raise malformed(found.part, f"row {first + at}", Malformed(expected, str(column[at])))
        ids.append(numbers)
        good &= usable
    ratings = None
    if len(columns) > 2:
        ratings, usable = _ratings(columns[2])
        if not skip and not usable.all():
            at = int(np.argmin(usable))
            error = Malformed(FINITE_RATING, str(columns[2][at]))
            raise malformed(found.part, f"row {first + at}", error)
        good &= usable
    rows = RatingsRows(ids[0], ids[1], ratings)
    lines = np.arange(first, first + len(rows), dtype=np.int64)
    if good.all():
        return Chunk(rows, lines, 0, found.done, found.part)
    kept = np.flatnonzero(good)
    return Chunk(rows.take(kept), lines[kept], len(rows) - len(kept), found.done, found.part)


def _ids(column: pyarrow.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the ids and which of them are there and in range."""
    numbers: NDArray[np.integer] = column.fill_null(0).to_numpy(zero_copy_only=False)
    usable = ~_nulls(column) & (numbers >= 0) & (numbers <= BIGGEST)
    return numbers.astype(np.int64), usable


def _ratings(column: pyarrow.Array) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the ratings and which of them are there and finite."""
    import pyarrow

    numbers = column.cast(pyarrow.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        ratings = numbers.astype(np.float32)
    return ratings, np.isfinite(ratings)


def _nulls(column: pyarrow.Array) -> NDArray[np.bool_]:
    nulls: NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    return nulls
