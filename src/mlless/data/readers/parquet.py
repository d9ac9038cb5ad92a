"""Parquet files in batches of rows. With the readers of its columns, the one place for pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlless.data.readers.headers import Header
from mlless.data.readers.parts import Part, unreadable
from mlless.data.readers.source import Source
from mlless.data.readers.text import PARQUET
from mlless.errors import InputError, UsageError

if TYPE_CHECKING:
    import pyarrow

ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the part of that name, of which the first is its row ``first``, counted from 1.

    ``done`` bytes of the source, as they are stored, are then read.
    """

    batch: pyarrow.RecordBatch
    part: str
    first: int
    done: int


def parquet_batches(
    source: Source, choose: Callable[[pyarrow.Schema, str], list[str]], rows: int | None = None
) -> Iterator[Rows]:
    """Yield the columns that ``choose`` wants of each part, given its schema and its name."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            "reading Parquet needs pyarrow", where=source.name, cure="run: pip install 'mlless[parquet]'"
        ) from error
    header: Header | None = None
    before = 0
    for part in source.parts:
        if part.found and part.size == 0:
            continue
        with _told(part), part.seekable() as opened:
            if part is not source.parts[0] and opened.read(len(PARQUET)) != PARQUET:
                raise source.mixed(part, "something else")
            with pyarrow.parquet.ParquetFile(opened) as file:
                names = choose(file.schema_arrow, part.name)
                header = header or Header(part.name, tuple(names))
                if tuple(names) != header.names:
                    raise header.differs(part.name, names)
                total = max(file.metadata.num_rows, 1)
                size = part.size or 0
                first = 1
                for batch in file.iter_batches(batch_size=rows or ROWS, columns=names):
                    done = before + size * (first - 1 + batch.num_rows) // total
                    yield Rows(batch, part.name, first, done)
                    first += batch.num_rows
            before += size


@contextmanager
def _told(part: Part) -> Iterator[None]:
    """Turn what is said of a part that is being read into InputError."""
    import pyarrow

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
