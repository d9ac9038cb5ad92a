"""Clicks as a table of text: label, numeric and categorical columns, with a header or without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlless.data.features import ABSENT, FeatureMap
from mlless.data.hashing import LONGEST_TOKEN, hash_tokens
from mlless.data.readers.headers import Header, names_in, without_first_line
from mlless.data.readers.lines import parse
from mlless.data.readers.numbers import Irregular, Malformed, finite_number, finite_numbers
from mlless.data.readers.ratings_text import split
from mlless.data.readers.source import Source
from mlless.data.readers.text import Block, blocks
from mlless.data.rows import Chunk, ColumnRows
from mlless.errors import InputError

LABEL = "a label of 0 or 1, or of -1 or 1"
_LINE_FEED = ord("\n")

Row = tuple[int, list[float], list[bytes]]


def read_columns_text(
    source: Source, features: FeatureMap, *, skip_malformed: bool = False, label_optional: bool = False
) -> Iterator[Chunk[ColumnRows]]:
    """Yield the rows of a table of text in order.

    With ``label_optional`` a table without the column of the label is taken too; its labels are 0.
    """
    lines: ColumnLines | None = None
    header: Header | None = None
    count = 0
    for block in blocks(source):
        if lines is None:
            lines, header, block = _begin(block, features, label_optional)
        elif block.first_line == 1 and header is not None:
            block = header.dropped(block, split(block.first, lines.separator))
        for chunk in parse(block, lines, skip_malformed):
            numbers = np.arange(count, count + len(chunk.rows), dtype=np.int64)
            count += len(chunk.rows)
            yield replace(chunk, rows=replace(chunk.rows, numbers=numbers))


class ColumnLines:
    """The lines of a table whose columns have the given ``names``."""

    def __init__(self, names: Sequence[str], features: FeatureMap) -> None:
        layout = features.layout
        self.count, self.separator = len(names), layout.separator.encode()
        self.label = names.index(layout.label) if layout.label in names else None
        self.numeric = [names.index(name) for name in layout.numeric]
        self.categorical = [names.index(name) for name in layout.categorical]
        self.names, self.states, self.hashed = names, features.states(), features.hashed

    def many(self, text: bytes) -> tuple[ColumnRows, NDArray[np.int64]]:
        """Return all rows of ``text``; Irregular unless every line has the same plain form."""
        if b'"' in text:
            raise Irregular
        data = np.frombuffer(text, np.uint8)
        cuts = np.flatnonzero((data == ord(self.separator)) | (data == _LINE_FEED))
        if len(cuts) % self.count:
            raise Irregular
        ends = cuts.reshape(-1, self.count)
        feeds = data[ends] == _LINE_FEED
        if not feeds[:, -1].all() or feeds[:, :-1].any():
            raise Irregular
        starts = np.append(0, cuts + 1)[:-1].reshape(ends.shape)
        labels = np.zeros(len(ends), np.uint8)
        if self.label is not None:
            numbers = finite_numbers(data, starts[:, self.label], ends[:, self.label])
            if not np.isin(numbers, (0.0, 1.0, -1.0)).all():
                raise Irregular
            labels = (numbers == 1.0).astype(np.uint8)
        numeric = _numbers(data, starts[:, self.numeric], ends[:, self.numeric])
        categories = self._hashed(data, starts[:, self.categorical], ends[:, self.categorical])
        lines = np.arange(len(ends), dtype=np.int64)
        return ColumnRows(labels, np.zeros(len(ends), np.int64), numeric, categories), lines

    def _hashed(
        self, data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> NDArray[np.uint32]:
        if (ends - starts).max(initial=0) > LONGEST_TOKEN:
            raise Irregular
        states = np.broadcast_to(self.states, starts.shape).ravel()
        return hashed_categories(data, starts.ravel(), ends.ravel(), states, self.hashed).reshape(
            starts.shape
        )

    def one(self, line: bytes) -> Row | None:
        """Return the row in ``line``, or None if it is blank."""
        if not line.strip(b" \r"):
            return None
        fields = split(line, self.separator)
        if len(fields) != self.count:
            of = "tabs" if self.separator == b"\t" else f"'{self.separator.decode()}'"
            raise Malformed(
                f"{self.count} columns separated by {of}",
                f"{len(fields)}: {line[:200].decode(errors='backslashreplace')}",
            )
        label = 0
        if self.label is not None:
            number = finite_number(fields[self.label], LABEL)
            if number not in (0.0, 1.0, -1.0):
                raise Malformed(LABEL, fields[self.label])
            label = int(number == 1.0)
        numeric = []
        for place in self.numeric:
            expected = f"a finite number or nothing in column {self.names[place]}"
            blank = not fields[place].strip()
            numeric.append(float("nan") if blank else finite_number(fields[place], expected))
        categories = [fields[place] for place in self.categorical]
        for field, place in zip(categories, self.categorical, strict=True):
            if len(field) > LONGEST_TOKEN:
                expected = f"at most {LONGEST_TOKEN} bytes in column {self.names[place]}"
                raise Malformed(expected, f"{len(field)} bytes")
        return label, numeric, categories

    def gather(self, rows: Sequence[Row]) -> ColumnRows:
        """Return single rows as arrays."""
        tokens = [token for _, _, categories in rows for token in categories]
        ends = np.cumsum([len(token) for token in tokens], dtype=np.int64)
        data = np.frombuffer(b"".join(tokens), np.uint8)
        states = np.tile(self.states, len(rows))
        starts = np.append(0, ends)[:-1]
        categories = hashed_categories(data, starts, ends, states, self.hashed)
        return ColumnRows(
            np.array([label for label, _, _ in rows], np.uint8),
            np.zeros(len(rows), np.int64),
            np.array([numeric for _, numeric, _ in rows], np.float64)
            .astype(np.float32)
            .reshape(len(rows), len(self.numeric)),
            categories.reshape(len(rows), len(self.categorical)),
        )


def hashed_categories(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    states: NDArray[np.uint64],
    hashed: int,
) -> NDArray[np.uint32]:
    """Return the hash of each token modulo ``hashed``, `ABSENT` for an empty one."""
    hashes = hash_tokens(data, starts, ends, states) % np.uint64(hashed)
    return np.where(ends > starts, hashes, ABSENT).astype(np.uint32)


def _numbers(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.float32]:
    numbers = np.full(starts.shape, np.nan, np.float32)
    there = ends > starts
    numbers[there] = finite_numbers(data, starts[there], ends[there]).astype(np.float32)
    return numbers


def _begin(
    block: Block, features: FeatureMap, label_optional: bool
) -> tuple[ColumnLines, Header | None, Block]:
    """Return how the lines are laid out, the header if there is one, and the block without it."""
    layout = features.layout
    try:
        fields = split(block.first, layout.separator.encode())
    except Malformed as error:
        where = f"{block.part}, line {block.first_line}"
        raise InputError("no header", where=where, expected=error.expected, found=error.found) from error
    if layout.names is not None:
        names = list(layout.names)
        if label_optional and len(fields) == len(names) - 1:
            names.remove(layout.label)
        return ColumnLines(names, features), None, block
    names = names_in(fields)
    check_names(block.part, names, features, label_optional)
    return ColumnLines(names, features), Header(block.part, names), without_first_line(block)


def check_names(part: str, names: Sequence[str], features: FeatureMap, label_optional: bool) -> None:
    """Raise InputError unless the columns of the layout are among ``names``, each once."""
    layout = features.layout
    wanted = [*layout.numeric, *layout.categorical] + [layout.label] * (not label_optional)
    for what, wrong in (
        ("columns are missing", [name for name in wanted if name not in names]),
        ("columns of one name", [name for name in (*wanted, layout.label) if names.count(name) > 1]),
    ):
        if wrong:
            raise InputError(
                what,
                where=part,
                expected=f"one each of {', '.join(wanted)}",
                found=f"{', '.join(names) or 'none'}",
                cure=f"see to {', '.join(wrong[:5])}",
            )
