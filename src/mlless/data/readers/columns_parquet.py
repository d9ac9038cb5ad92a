"""Clicks as a Parquet table: label, numeric and categorical columns by their names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlless.data.features import FeatureMap
from mlless.data.hashing import LONGEST_TOKEN
from mlless.data.readers.columns_text import LABEL, check_names, hashed_categories
from mlless.data.readers.lines import malformed
from mlless.data.readers.numbers import Malformed
from mlless.data.readers.parquet import ROWS, Rows, parquet_batches, wrong_type
from mlless.data.readers.source import Source
from mlless.data.rows import Chunk, ColumnRows

if TYPE_CHECKING:
    import pyarrow


def read_columns_parquet(
    source: Source, features: FeatureMap, *, skip_malformed: bool = False, label_optional: bool = False
) -> Iterator[Chunk[ColumnRows]]:
    """Yield the rows of a Parquet table in order; see ``read_columns_text``."""
    layout = features.layout
    names: list[str] = []

    def choose(schema: pyarrow.Schema, part: str) -> list[str]:
        check_names(part, schema.names, features, label_optional)
        _check_types(part, schema, features)
        labels = [layout.label] if layout.label in schema.names else []
        names[:] = [*labels, *layout.numeric, *layout.categorical]
        return names

    count = 0
    reader = _Batches(features, skip_malformed)
    for found in parquet_batches(source, choose, ROWS):
        chunk = reader.chunk(found, layout.label in names, count)
        count += len(chunk.rows)
        yield chunk


def rows_of_table(table: pyarrow.Table, features: FeatureMap, name: str) -> ColumnRows:
    """Return the rows of an Arrow table, without labels; ``name`` is what errors call it."""
    _check_types(name, table.schema, features)
    reader, first, pieces = _Batches(features, skip=False), 1, []
    for batch in table.to_batches(ROWS):
        pieces.append(reader.chunk(Rows(batch, name, first, 0), False, first - 1).rows)
        first += batch.num_rows
    return ColumnRows.join(pieces)


class _Batches:
    def __init__(self, features: FeatureMap, skip: bool) -> None:
        self.layout, self.skip = features.layout, skip
        self.states, self.hashed = features.states(), features.hashed

    def chunk(self, found: Rows, labelled: bool, count: int) -> Chunk[ColumnRows]:
        """Return the rows that are ``found``; ``count`` come before."""
        batch, first = found.batch, found.first
        rows = batch.num_rows
        good = np.ones(rows, np.bool_)
        labels = np.zeros(rows, np.uint8)
        if labelled:
            numbers = _floats(batch.column(self.layout.label))
            labels = (numbers == 1.0).astype(np.uint8)
            good &= self._usable(np.isin(numbers, (0.0, 1.0, -1.0)), found, self.layout.label, LABEL)
        numeric = np.empty((rows, len(self.layout.numeric)), np.float32)
        for place, name in enumerate(self.layout.numeric):
            with np.errstate(over="ignore"):
                numeric[:, place] = _floats(batch.column(name))
            finite = ~np.isinf(numeric[:, place])
            good &= self._usable(finite, found, name, f"a finite number or nothing in column {name}")
        categories = np.empty((rows, len(self.layout.categorical)), np.uint32)
        for place, name in enumerate(self.layout.categorical):
            data, starts, ends = _tokens(batch.column(name))
            expected = f"at most {LONGEST_TOKEN} bytes in column {name}"
            good &= self._usable(ends - starts <= LONGEST_TOKEN, found, name, expected)
            ends = np.minimum(ends, starts + LONGEST_TOKEN)
            states = np.full(rows, self.states[place])
            categories[:, place] = hashed_categories(data, starts, ends, states, self.hashed)
        kept = np.flatnonzero(good)
        numbers_of_rows = np.arange(count, count + len(kept), dtype=np.int64)
        return Chunk(
            ColumnRows(labels[kept], numbers_of_rows, numeric[kept], categories[kept]),
            kept + first,
            rows - len(kept),
            found.done,
            found.part,
        )

    def _usable(self, usable: NDArray[np.bool_], rows: Rows, name: str, expected: str) -> NDArray[np.bool_]:
        """Return ``usable``, or raise InputError at the first row that is not."""
        if not self.skip and not usable.all():
            at = int(np.argmin(usable))
            found = str(rows.batch.column(name)[at])
            raise malformed(rows.part, f"row {rows.first + at}", Malformed(expected, found))
        return usable


def _check_types(part: str, schema: pyarrow.Schema, features: FeatureMap) -> None:
    from pyarrow import types

    layout = features.layout
    for name in (layout.label, *layout.numeric):
        if name in schema.names:
            kind = schema.field(name).type
            known = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
            if not known and not types.is_decimal(kind) and not types.is_null(kind):
                raise wrong_type(part, schema.field(name), "a numeric column")
    for name in layout.categorical:
        kind = schema.field(name).type
        if types.is_dictionary(kind):
            kind = kind.value_type
        if not any(
            test(kind)
            for test in (
                types.is_string,
                types.is_large_string,
                types.is_string_view,
                types.is_integer,
                types.is_binary,
                types.is_null,
            )
        ):
            raise wrong_type(part, schema.field(name), "a column of text or whole numbers")


def _floats(column: pyarrow.Array) -> NDArray[np.float64]:
    """Return the numbers, NaN where there is none."""
    import pyarrow

    if pyarrow.types.is_boolean(column.type):
        column = column.cast(pyarrow.uint8())
    numbers: NDArray[np.float64] = (
        column.cast(pyarrow.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
    )
    return numbers


def _tokens(column: pyarrow.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Return the bytes of all values, and where each starts and ends; a null has no bytes."""
    import pyarrow

    def text(values: pyarrow.Array) -> pyarrow.Array:  # whole numbers as their decimal digits
        return values if pyarrow.types.is_binary(values.type) else values.cast(pyarrow.large_string())

    if pyarrow.types.is_dictionary(column.type):
        column = text(column.dictionary).take(column.indices)
    column = text(column)
    texts = column.cast(pyarrow.large_binary()).fill_null(b"")
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    values = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return values, bounds[:-1], bounds[1:]
