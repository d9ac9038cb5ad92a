"""Ratings as text: MovieLens ``.csv`` with a header, ``::``-separated ``.dat``, tabs as in ``u.data``."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mlless.data.readers.columns import FINITE_RATING, Columns, find_columns
from mlless.data.readers.headers import Header, names_in, without_first_line
from mlless.data.readers.lines import parse
from mlless.data.readers.numbers import (
    Irregular,
    Malformed,
    finite_number,
    finite_numbers,
    whole_number,
    whole_numbers,
)
from mlless.data.readers.source import Source
from mlless.data.readers.text import Block, blocks, shortened
from mlless.data.rows import Chunk, RatingsRows
from mlless.errors import InputError

_SEPARATORS = (b"::", b"\t", b",")
_HEADER = "a header line that names user, item and rating (such as userId,movieId,rating)"
_LINE_FEED = ord("\n")

Rating = tuple[int, int, float | None]


def read_ratings_text(
    source: Source, *, skip_malformed: bool = False, rating_optional: bool = False
) -> Iterator[Chunk[RatingsRows]]:
    """Yield the ratings of a text source in order."""
    lines: RatingsLines | None = None
    header: Header | None = None
    for block in blocks(source):
        if lines is None:
            lines, header, block = _begin(block, rating_optional)
        elif block.first_line == 1 and header is not None:
            block = header.dropped(block, split(block.first, lines.separator))
        yield from parse(block, lines, skip_malformed)


class RatingsLines:
    """The lines of a ratings file with a given separator and columns."""

    def __init__(self, separator: bytes, columns: Columns) -> None:
        self.separator, self.columns = separator, columns

    def many(self, text: bytes) -> tuple[RatingsRows, NDArray[np.int64]]:
        """Return all rows of ``text``; Irregular unless every line has the same plain form."""
        columns = self.columns
        if b'"' in text:
            raise Irregular
        if len(self.separator) > 1:
            text = text.replace(self.separator, b"\t")
        separator = ord(b"\t" if len(self.separator) > 1 else self.separator)
        data = np.frombuffer(text, np.uint8)
        cuts = np.flatnonzero((data == separator) | (data == _LINE_FEED))
        if len(cuts) % columns.count:
            raise Irregular
        ends = cuts.reshape(-1, columns.count)
        feeds = data[ends] == _LINE_FEED
        if not feeds[:, -1].all() or feeds[:, :-1].any():
            raise Irregular
        starts = np.append(0, cuts + 1)[:-1].reshape(ends.shape)
        users, items = (whole_numbers(data, starts[:, c], ends[:, c]) for c in (columns.user, columns.item))
        ratings = None
        if (c := columns.rating) is not None:
            ratings = finite_numbers(data, starts[:, c], ends[:, c]).astype(np.float32)
        return RatingsRows(users, items, ratings), np.arange(len(ends), dtype=np.int64)

    def one(self, line: bytes) -> Rating | None:
        """Return the row in ``line``, or None if it is blank."""
        if not line.strip():
            return None
        fields = split(line, self.separator)
        columns = self.columns
        if len(fields) != columns.count:
            separator = {b"\t": "tabs"}.get(self.separator, f"'{self.separator.decode()}'")
            raise Malformed(f"{columns.count} columns separated by {separator}", line)
        user = whole_number(fields[columns.user], "a user id")
        item = whole_number(fields[columns.item], "an item id")
        if columns.rating is None:
            return user, item, None
        return user, item, finite_number(fields[columns.rating], FINITE_RATING)

    def gather(self, rows: Sequence[Rating]) -> RatingsRows:
        """Return single rows as arrays."""
        ratings = None
        if self.columns.rating is not None:
            ratings = np.array([rating for _, _, rating in rows], np.float64).astype(np.float32)
        users = np.array([user for user, _, _ in rows], np.int64)
        return RatingsRows(users, np.array([item for _, item, _ in rows], np.int64), ratings)


def split(line: bytes, separator: bytes) -> list[bytes]:
    """Return the fields of ``line``; quotes are those of CSV."""
    if b'"' not in line or len(separator) > 1:
        return line.split(separator)
    try:
        text = line.decode("utf-8", "surrogateescape")
        fields = next(csv.reader([text], delimiter=separator.decode(), strict=True))
    except csv.Error as error:
        raise Malformed(f"columns of CSV ({error})", line) from error
    return [field.encode("utf-8", "surrogateescape") for field in fields]


def _begin(block: Block, rating_optional: bool) -> tuple[RatingsLines, Header | None, Block]:
    """Return how the lines are laid out, the header if there is one, and the block without it."""
    first = block.first
    where = f"{block.part}, line {block.first_line}"
    separator = next((separator for separator in _SEPARATORS if separator in first), None)
    if separator is None:
        raise InputError(
            "no separator in the first line",
            where=where,
            expected="columns separated by ',', '::' or tabs",
            found=shortened(first),
            cure="convert the file to one of these, or give the right --format",
        )
    try:
        names = names_in(split(first, separator))
    except Malformed as error:
        raise InputError("no header", where=where, expected=_HEADER, found=shortened(first)) from error
    columns = find_columns(names)
    header = Header(block.part, names) if columns is not None else None
    if columns is not None:
        block = without_first_line(block)
    elif separator == b",":
        raise InputError("no header", where=where, expected=_HEADER, found=shortened(first))
    else:
        columns = Columns(0, 1, 2 if len(names) > 2 else None, len(names))
    if columns.rating is None and not rating_optional:
        raise InputError(
            "no rating column", where=where, expected="user, item and rating", found=shortened(first)
        )
    return RatingsLines(separator, columns), header, block
