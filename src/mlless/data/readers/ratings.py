"""Ratings from tables: text with a header or without, and Parquet."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow
from pyarrow import types

from mlless.data.features import MISSING
from mlless.data.readers.columns import FINITE_RATING, Columns, find_columns
from mlless.data.readers.delimited import text_batches
from mlless.data.readers.forms import Form
from mlless.data.readers.losses import Losses
from mlless.data.readers.parquet import parquet_batches, wrong_type
from mlless.data.readers.plan import plan_of
from mlless.data.readers.reading import Reading
from mlless.data.readers.source import Source
from mlless.data.readers.table import Batch, Plan, Sieve
from mlless.data.readers.values import ids, in_utf8, is_text, numbers
from mlless.data.rows import Chunk, RatingsRows

_NOT_UTF_8 = (
    "the file is not UTF-8: convert it, as with `iconv -f latin1 -t utf-8 FILE > NEW` if it is in Latin-1"
)


def read_table_of_ratings(source: Source, reading: Reading, *, rated: bool) -> Iterator[Chunk[RatingsRows]]:
    """Yield the ratings of a table in order; None in place of ratings unless they are ``rated``."""
    decimal = "."

    def begin(form: Form, part: str) -> Plan:
        """Return how the lines of a part are read."""
        nonlocal decimal
        decimal = form.decimal
        return plan_of(form, part, reading, rated)

    def choose(schema: pyarrow.Schema, part: str) -> list[int]:
        """Return the places of the columns in a part."""
        columns = find_columns(schema.names, reading.columns, part, rated=rated)
        _check_types(schema, columns, part)
        return columns.places

    if source.layout == "parquet":
        batches = parquet_batches(source, choose)
    else:
        batches = text_batches(source, begin, reading.separator)
    losses = Losses(source.name, reading.skip_malformed)
    for batch in batches:
        yield _chunk(batch, losses, reading, decimal)
    losses.settle()


def _chunk(batch: Batch, losses: Losses, reading: Reading, decimal: str) -> Chunk[RatingsRows]:
    users, items, *rated = batch.columns
    sieve = Sieve(batch)
    found = []
    for column, role in ((users, "a user"), (items, "an item")):
        values, usable = ids(column)
        if not usable.all():
            cure = _NOT_UTF_8 if batch.unit == "line" else None
            sieve.need(in_utf8(column), column, f"{role} id in UTF-8", cure)
        sieve.need(usable, column, f"{role} id: a whole number or text")
        found.append(values)
    ratings = None
    if rated:
        ratings, usable = numbers(rated[0], MISSING, decimal, exact=True)
        sieve.need(usable, rated[0], FINITE_RATING)
        there = ~np.isnan(ratings)
        if reading.drop_unlabelled:
            sieve.drop(there)
        else:
            sieve.need(
                there, rated[0], FINITE_RATING, "leave rows without a rating out with --drop-unlabelled"
            )
    skipped = losses.take(batch.rows, sieve.losses)
    rows = RatingsRows(found[0], found[1], ratings)
    if not sieve.good.all():
        rows = rows.take(np.flatnonzero(sieve.good))
    lines = batch.lines[sieve.good]
    return Chunk(rows, lines, skipped, batch.done, batch.part, sieve.dropped)


def _check_types(schema: pyarrow.Schema, columns: Columns, part: str) -> None:
    refused = types.is_nested, types.is_temporal, types.is_boolean, types.is_null
    for place in (columns.user, columns.item):
        if any(test(schema.field(place).type) for test in refused):
            raise wrong_type(part, schema.field(place), "a column of whole numbers or text")
    if columns.rating is not None:
        kind = schema.field(columns.rating).type
        numeric = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
        if not (numeric or is_text(kind)):
            raise wrong_type(part, schema.field(columns.rating), "a column of numbers")
