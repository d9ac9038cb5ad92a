"""Raw rows, streamed in source order with bounded memory.

``open_source`` finds out what a source is; ``read_ratings``, ``read_clicks`` and ``read_columns`` yield
its rows in chunks, for ``partition`` and for predictions on raw rows alike. What reads tables loads
pyarrow, and is imported only when there is a table to be read.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlless.data.features import FeatureMap
from mlless.data.readers.clicks_text import read_clicks_text
from mlless.data.readers.finding import Sources
from mlless.data.readers.forms import find_form
from mlless.data.readers.guess import Format
from mlless.data.readers.plan import Head, head_of
from mlless.data.readers.reading import Reading, ReadingOptions, reading_of
from mlless.data.readers.source import FORMATS, Source, open_source
from mlless.data.rows import Chunk, ClicksRows, ColumnRows, RatingsRows
from mlless.errors import UsageError

__all__ = [
    "FORMATS",
    "Format",
    "Reading",
    "ReadingOptions",
    "Source",
    "Sources",
    "first_rows",
    "open_source",
    "read_clicks",
    "read_columns",
    "read_ratings",
    "reading_of",
]

PLAIN = Reading()


def first_rows(source: Source, reading: Reading = PLAIN) -> Head:
    """Return the first rows of a table, and the names of its columns."""
    if source.layout == "parquet":
        from mlless.data.readers.parquet import parquet_head

        return parquet_head(source)
    return head_of(find_form(source.start, source.name, reading.separator), reading)


def read_ratings(
    source: Source, reading: Reading = PLAIN, *, rated: bool = True
) -> Iterator[Chunk[RatingsRows]]:
    """Yield the ratings of ``source``.

    A malformed row raises InputError, unless ``reading`` says otherwise. Only user and item are read if the
    rows need not be ``rated``; their ``ratings`` are None.
    """
    if source.format != "ratings":
        raise UsageError("not a source of ratings", where=source.name, found=source.format)
    from mlless.data.readers.ratings import read_table_of_ratings

    return read_table_of_ratings(source, reading, rated=rated)


def read_clicks(
    source: Source,
    reading: Reading = PLAIN,
    *,
    labelled: bool = True,
    lowest: int = 0,
    highest: int | None = None,
) -> Iterator[Chunk[ClicksRows]]:
    """Yield the rows of the clicks in ``source``, labels as 0 and 1; all 0 unless to be ``labelled``.

    A malformed line raises InputError, unless ``reading`` says otherwise; a feature index outside
    ``lowest..highest`` makes its line malformed.
    """
    if source.format != "libsvm":
        raise UsageError("not a source of clicks", where=source.name, found=source.format)
    return read_clicks_text(source, reading, labelled=labelled, lowest=lowest, highest=highest)


def read_columns(
    source: Source, features: FeatureMap, reading: Reading = PLAIN, *, labelled: bool = True
) -> Iterator[Chunk[ColumnRows]]:
    """Yield the rows of the table of clicks in ``source``, with the columns of ``features``.

    A malformed row raises InputError, unless ``reading`` says otherwise. Without ``labelled`` the labels are
    not read, and all are 0.
    """
    if source.format not in ("criteo", "columns"):
        raise UsageError("not a table of clicks", where=source.name, found=source.format)
    from mlless.data.readers.clicks_table import read_table_of_clicks

    return read_table_of_clicks(source, features, reading, labelled=labelled)
