"""Parquet files in batches of rows. With the readers of its columns, the one place for pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mlless.data.readers.source import Source, unreadable
from mlless.errors import InputError, UsageError

if TYPE_CHECKING:
    import pyarrow

ROWS = 1 << 16


def parquet_batches(
    source: Source, choose: Callable[[pyarrow.Schema], list[str]], rows: int | None = None
) -> Iterator[tuple[pyarrow.RecordBatch, int, int]]:
    """Yield the columns that ``choose`` wants in batches: with the first row's number, and bytes done."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            "reading Parquet needs pyarrow", where=str(source.path), cure="run: pip install 'mlless[parquet]'"
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(source.path) as file:
            names = choose(file.schema_arrow)
            total = max(file.metadata.num_rows, 1)
            first = 1
            for batch in file.iter_batches(batch_size=rows or ROWS, columns=names):
                yield batch, first, source.bytes * (first - 1 + batch.num_rows) // total
                first += batch.num_rows
    except (pyarrow.ArrowException, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(source.path, error) from error
        raise InputError(  # pyarrow reports damage as OSError too, then without a number
            "a damaged or truncated Parquet file",
            where=str(source.path),
            found=str(error).partition("\n")[0] or type(error).__name__,
            cure="fetch it again",
        ) from error


def wrong_type(source: Source, field: pyarrow.Field, expected: str) -> InputError:
    """Return the error of a column that is not of an ``expected`` type."""
    where = f"{source.path}, column {field.name}"
    return InputError("wrong type", where=where, expected=expected, found=str(field.type))
