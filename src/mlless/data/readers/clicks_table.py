"""Clicks from tables: label, numeric and categorical columns by their names, as text and as Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import pyarrow
from numpy.typing import NDArray
from pyarrow import types

from mlless.data.features import MISSING, FeatureMap
from mlless.data.hashing import LONGEST_TOKEN
from mlless.data.readers.delimited import text_batches
from mlless.data.readers.forms import Form
from mlless.data.readers.losses import Losses
from mlless.data.readers.parquet import ROWS, parquet_batches, wrong_type
from mlless.data.readers.reading import LABEL, Reading, labels_cure
from mlless.data.readers.source import Source
from mlless.data.readers.table import Batch, Plan, Sieve
from mlless.data.readers.values import BAD_LABEL, NO_LABEL, categories, is_text, label_texts, labels, numbers
from mlless.data.rows import Chunk, ColumnRows
from mlless.errors import InputError

_MISSING_CURE = "if it stands for a missing value, add it to missing = [...] in the file of --columns"


def read_table_of_clicks(
    source: Source, features: FeatureMap, reading: Reading, *, labelled: bool
) -> Iterator[Chunk[ColumnRows]]:
    """Yield the rows of a table in order; without ``labelled`` the labels are not read and 0."""
    table = _Table(source.name, features, reading, labelled)
    if source.layout == "parquet":
        batches = parquet_batches(source, table.choose)
    else:
        batches = text_batches(source, table.begin, *table.separators)
    for batch in batches:
        yield table.chunk(batch)
    table.losses.settle()


def rows_of_table(table: pyarrow.Table, features: FeatureMap, name: str) -> ColumnRows:
    """Return the rows of an Arrow table, without labels; ``name`` is what errors call it."""
    reader, first, pieces = _Table(name, features, Reading(), labelled=False), 0, []
    places = reader.choose(table.schema, name)
    for batch in table.to_batches(ROWS):
        numbers = np.arange(first, first + batch.num_rows)
        first += batch.num_rows
        columns = [batch.column(place) for place in places]
        found = Batch(columns, numbers, numbers + 1, "row", name, batch.num_rows, [], 0)
        pieces.append(reader.chunk(found).rows)
    return ColumnRows.join(pieces)


class _Table:
    def __init__(self, name: str, features: FeatureMap, reading: Reading, labelled: bool) -> None:
        self.layout, self.reading, self.labelled = features.layout, reading, labelled
        self.states, self.hashed = features.states(), features.hashed
        self.missing = MISSING if self.layout.missing is msgspec.UNSET else self.layout.missing
        self.pair = reading.labels or self.layout.labels or None
        self.losses = Losses(name, reading.skip_malformed)
        self.decimal = "."
        self.found: set[str] = set()  # labels, once there are unknown ones

    @property
    def separators(self) -> tuple[str | None, str | None]:
        """What separates columns, and what usually does.

        A header shows whether the usual one is right. Without a header it is taken as it is.
        """
        separator = self.reading.separator
        if separator is None and self.layout.names is not None:
            separator = self.layout.separator
        return separator, self.layout.separator

    @property
    def wanted(self) -> list[str]:
        """The names of the columns that are read."""
        return [*[self.layout.label] * self.labelled, *self.layout.numeric, *self.layout.categorical]

    def begin(self, form: Form, part: str) -> Plan:
        """Return which columns of a table of text are read."""
        self.decimal = form.decimal
        if self.layout.names is None:
            return Plan(self._places(form.rows[0], part), form.count, form.rows[0])
        names = list(self.layout.names)
        if not self.labelled and form.count == len(names) - 1:
            names.remove(self.layout.label)
        return Plan(self._places(names, part), len(names))

    def choose(self, schema: pyarrow.Schema, part: str) -> list[int]:
        """Return which columns of a Parquet file are read."""
        places = self._places(schema.names, part)
        _check_types([schema.field(place) for place in places], self.layout.categorical, part)
        return places

    def _places(self, names: Sequence[str], part: str) -> list[int]:
        wanted = self.wanted
        for what, wrong in (
            ("columns are missing", [name for name in wanted if name not in names]),
            ("columns of one name", [name for name in wanted if names.count(name) > 1]),
        ):
            if wrong:
                cure = f"see to {_listed(wrong[:5])}"
                raise InputError(
                    what,
                    where=part,
                    expected=f"one each of {_listed(wanted)}",
                    found=_listed(names) or "none",
                    cure=f"{cure}, and to the separator" if len(names) == 1 else cure,
                )
        return [names.index(name) for name in wanted]

    def chunk(self, batch: Batch) -> Chunk[ColumnRows]:
        """Return the rows of a batch."""
        columns = iter(batch.columns)
        sieve, rows = Sieve(batch), len(batch.lines)
        found = np.zeros(rows, np.uint8)
        if self.labelled:
            found = self._labels(sieve, next(columns))
        numeric = np.empty((rows, len(self.layout.numeric)), np.float32)
        for place, name in enumerate(self.layout.numeric):
            column = next(columns)
            numeric[:, place], usable = numbers(column, self.missing, self.decimal)
            sieve.need(usable, column, f"a finite number or nothing in column {name}", _MISSING_CURE)
        hashes = np.empty((rows, len(self.layout.categorical)), np.uint32)
        for place, name in enumerate(self.layout.categorical):
            column = next(columns)
            hashes[:, place], usable = categories(column, self.missing, self.states[place], self.hashed)
            sieve.need(usable, column, f"at most {LONGEST_TOKEN} bytes in column {name}")
        kept = np.flatnonzero(sieve.good)
        clicks = ColumnRows(found[kept], batch.numbers[kept], numeric[kept], hashes[kept])
        skipped = self.losses.take(batch.rows, sieve.losses, clicks.labels if self.labelled else None)
        return Chunk(clicks, batch.lines[kept], skipped, batch.done, batch.part, sieve.dropped)

    def _labels(self, sieve: Sieve, column: pyarrow.Array) -> NDArray[np.uint8]:
        found = labels(column, self.pair, self.missing)
        expected = f"a label of {' or '.join(self.pair)}" if self.pair else LABEL
        if (found == BAD_LABEL).any():
            self.found |= label_texts(column, self.missing)
            sieve.need(found != BAD_LABEL, column, expected, labels_cure(self.found))
        if self.reading.drop_unlabelled:
            sieve.drop(found != NO_LABEL)
        else:
            cure = "leave rows without a label out with --drop-unlabelled"
            sieve.need(found != NO_LABEL, column, expected, cure)
        return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name or "one without a name" for name in names)


def _check_types(fields: Sequence[pyarrow.Field], categorical: Sequence[str], part: str) -> None:
    for field in fields:
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        plain = (
            types.is_integer(kind) or types.is_boolean(kind) or types.is_decimal(kind) or types.is_null(kind)
        )
        if field.name in categorical:
            if not (plain or is_text(kind)):
                raise wrong_type(part, field, "a column of text, whole numbers or booleans")
        elif not (plain or is_text(kind) or types.is_floating(kind)):
            raise wrong_type(part, field, "a column of numbers or text")
