"""Raw rows, streamed in source order with bounded memory.

``open_source`` finds out what a file is; ``read_ratings``, ``read_clicks`` and ``read_columns`` yield
its rows in chunks, for ``partition`` and for predictions on raw files alike.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlless.data.features import FeatureMap
from mlless.data.readers.clicks_text import read_clicks_text
from mlless.data.readers.columns_text import read_columns_text
from mlless.data.readers.finding import Sources
from mlless.data.readers.guess import Format
from mlless.data.readers.ratings_text import read_ratings_text
from mlless.data.readers.source import FORMATS, Source, open_source
from mlless.data.rows import Chunk, ClicksRows, ColumnRows, RatingsRows
from mlless.errors import UsageError

__all__ = [
    "FORMATS",
    "Format",
    "Source",
    "Sources",
    "open_source",
    "read_clicks",
    "read_columns",
    "read_ratings",
]


def read_ratings(
    source: Source, *, skip_malformed: bool = False, rating_optional: bool = False
) -> Iterator[Chunk[RatingsRows]]:
    """Yield the ratings of ``source``.

    A malformed line raises InputError, or is left out and counted with ``skip_malformed``. With
    ``rating_optional`` a source without a rating column is taken too; its ``ratings`` are None.
    """
    if source.format != "ratings":
        raise UsageError("not a source of ratings", where=source.name, found=source.format)
    if source.layout == "parquet":
        from mlless.data.readers.ratings_parquet import read_ratings_parquet

        return read_ratings_parquet(source, skip_malformed=skip_malformed, rating_optional=rating_optional)
    return read_ratings_text(source, skip_malformed=skip_malformed, rating_optional=rating_optional)


def read_clicks(
    source: Source, *, skip_malformed: bool = False, lowest: int = 0, highest: int | None = None
) -> Iterator[Chunk[ClicksRows]]:
    """Yield the rows of the clicks in ``source``, labels as 0 and 1.

    A malformed line raises InputError, or is left out and counted with ``skip_malformed``;
    a feature index outside ``lowest..highest`` makes its line malformed.
    """
    if source.format != "libsvm":
        raise UsageError("not a source of clicks", where=source.name, found=source.format)
    return read_clicks_text(source, skip_malformed=skip_malformed, lowest=lowest, highest=highest)


def read_columns(
    source: Source, features: FeatureMap, *, skip_malformed: bool = False, label_optional: bool = False
) -> Iterator[Chunk[ColumnRows]]:
    """Yield the rows of the table of clicks in ``source``, as ``features`` wants them.

    A malformed line raises InputError, or is left out and counted with ``skip_malformed``. With
    ``label_optional`` a table without the column of the label is taken too; its labels are 0.
    """
    if source.format not in ("criteo", "columns"):
        raise UsageError("not a table of clicks", where=source.name, found=source.format)
    if source.layout == "parquet":
        from mlless.data.readers.columns_parquet import read_columns_parquet

        return read_columns_parquet(
            source, features, skip_malformed=skip_malformed, label_optional=label_optional
        )
    return read_columns_text(source, features, skip_malformed=skip_malformed, label_optional=label_optional)
