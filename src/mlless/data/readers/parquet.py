"""Parquet files in batches of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow
import pyarrow.parquet

from mlless.data.readers.columns import known_columns
from mlless.data.readers.headers import Header
from mlless.data.readers.parts import Part, unreadable
from mlless.data.readers.plan import Head
from mlless.data.readers.source import Source
from mlless.data.readers.table import Batch
from mlless.data.readers.text import PARQUET
from mlless.errors import InputError

ROWS = 1 << 16
_HEAD = 1000

Choose = Callable[[pyarrow.Schema, str], list[int]]


def parquet_batches(source: Source, choose: Choose) -> Iterator[Batch]:
    """Yield the columns of each part that ``choose`` wants, given its schema and its name."""
    header: Header | None = None
    before = count = 0
    for part in source.parts:
        with _told(part), part.seekable() as opened:
            if part is not source.parts[0] and opened.read(len(PARQUET)) != PARQUET:
                raise source.mixed(part, "something else")
            with pyarrow.parquet.ParquetFile(opened) as file:
                schema = file.schema_arrow
                places = choose(schema, part.name)
                names = tuple(schema.names[place] for place in places)
                header = header or Header(part.name, names)
                if names != header.names:
                    raise header.differs(part.name, names)
                total = max(file.metadata.num_rows, 1)
                size = part.size or 0
                first = 0
                for table in _batches(file, places):
                    rows = np.arange(first, first + table.num_rows)
                    first += table.num_rows
                    done = before + size * first // total
                    columns = [table.column(n) for n in range(len(places))]
                    yield Batch(columns, count + rows, rows + 1, "row", part.name, len(rows), [], done)
                count += first
            before += size


def parquet_head(source: Source) -> Head:
    """Return the first rows of the first part that has any, as text, where it is unclear what they are."""
    for part in source.parts:
        with _told(part), part.seekable() as opened, pyarrow.parquet.ParquetFile(opened) as file:
            names = file.schema_arrow.names
            if known_columns(names).keys() >= {"user", "item"}:
                return Head(names, [])  # plainly ratings: no need to read more than these
            for batch in file.iter_batches(batch_size=_HEAD):
                rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
                texts = [["" if value is None else str(value) for value in row] for row in rows]
                return Head(batch.schema.names, texts)
    return Head(None, [])


def _batches(file: pyarrow.parquet.ParquetFile, places: list[int]) -> Iterator[pyarrow.RecordBatch]:
    """Yield the columns at ``places``, in that order, a batch of rows at a time."""
    names = [file.schema_arrow.names[place] for place in places]
    for batch in file.iter_batches(batch_size=ROWS, columns=names):
        yield batch.select(names)


@contextmanager
def _told(part: Part) -> Iterator[None]:
    """Turn what is said of a part that is being read into InputError."""
    try:
        yield
    except (pyarrow.ArrowException, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(part.name, error) from error
        raise InputError(  # pyarrow reports damage as OSError too, then without a number
            "a damaged or truncated Parquet file",
            where=part.name,
            found=str(error).partition("\n")[0] or type(error).__name__,
            cure="fetch it again",
        ) from error


def wrong_type(part: str, field: pyarrow.Field, expected: str) -> InputError:
    """Return the error of a column, in the part of that name, that is not of an ``expected`` type."""
    where = f"{part}, column {field.name}"
    return InputError("wrong type", where=where, expected=expected, found=str(field.type))
