"""Clicks as LIBSVM text: ``label index:value index:value ... # comment``.

Whole blocks are parsed at once. One with trouble is halved, and in the end read line by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlless.data.readers.losses import Loss, Losses
from mlless.data.readers.numbers import (
    Irregular,
    Malformed,
    finite_number,
    finite_numbers,
    whole_number,
    whole_numbers,
)
from mlless.data.readers.reading import Reading, labels_cure, plain_label
from mlless.data.readers.source import Source
from mlless.data.readers.text import Block, blocks
from mlless.data.rows import Chunk, ClicksRows

BIGGEST_INDEX = 2**31 - 1
SMALL = 1 << 16  # a troubled block is halved down to this size before it is read line by line
_LABEL = "a label of 0 or 1, or of -1 or 1"
_VALUE = "a value that is a finite number"
_COMMENT = re.compile(rb"#[^\n]*")
_FIRST_WORD = re.compile(rb"(?m)^[ \t]*([^\s#]+)")
_QUERY = re.compile(rb"(?m)^([ \t]*\S+[ \t]+)qid:[^\s#]*")
_SEVERAL = re.compile(rb"[^:,]+(,[^:,]+)+")
_SPACE, _FEED, _COLON, _TEXT = 1, 2, 3, 4
_KIND = np.zeros(256, np.uint8)
_KIND[list(b" \t")] = _SPACE
_KIND[ord("\n")] = _FEED
_KIND[ord(":")] = _COLON
_KIND[list(b"0123456789+-.eE")] = _TEXT


class _UnknownLabel(Malformed):
    """A label of which it is not known what it stands for."""


Click = tuple[float, dict[int, float]]  # 1 or another label, and the features in order


def read_clicks_text(
    source: Source,
    reading: Reading,
    *,
    labelled: bool = True,
    lowest: int = 0,
    highest: int | None = None,
) -> Iterator[Chunk[ClicksRows]]:
    """Yield the rows of a LIBSVM source in order; indices outside ``lowest..highest`` are malformed."""
    lines = ClicksLines(lowest, highest, reading.labels, labelled)
    losses = Losses(source.name, reading.skip_malformed)
    for block in blocks(source):
        for piece in _pieces(block, lines):
            first = losses.rows
            labels = piece.rows.labels if labelled else None
            skipped = losses.take(len(piece.places) + piece.lost, piece.losses, labels)
            rows = replace(piece.rows, numbers=first + piece.places)
            yield Chunk(rows, piece.lines, skipped, block.done, block.part)
    losses.settle()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of a block: the line and the place among its rows of each; and why others are missing."""

    rows: ClicksRows
    lines: NDArray[np.int64]
    places: NDArray[np.int64]
    losses: Sequence[Loss] = ()

    @property
    def lost(self) -> int:
        """How many rows were left out."""
        return sum(loss.rows for loss in self.losses)


def _pieces(block: Block, format: ClicksLines) -> Iterator[_Piece]:
    """Yield the rows of ``block``."""
    try:
        rows, lines = format.many(block.text)
        yield _Piece(rows, lines + block.first_line, np.arange(len(rows)))
        return
    except Irregular:
        pass
    middle = block.text.find(b"\n", len(block.text) // 2) + 1
    if len(block.text) > SMALL and middle < len(block.text):
        half = block.text.count(b"\n", 0, middle)
        yield from _pieces(replace(block, text=block.text[:middle], lines=half), format)
        rest = replace(block, text=block.text[middle:], lines=block.lines - half)
        yield from _pieces(replace(rest, first_line=block.first_line + half), format)
    else:
        yield _line_by_line(block, format)


def _line_by_line(block: Block, format: ClicksLines) -> _Piece:
    rows: list[Click] = []
    lines: list[int] = []
    places: list[int] = []
    losses: list[Loss] = []
    unknown: list[int] = []  # losses for a label
    for number, line in enumerate(block.text.split(b"\n")[:-1], block.first_line):
        try:
            row = format.one(line)
        except Malformed as error:
            place = f"{block.part}, line {number}"
            unknown += [len(losses)] if isinstance(error, _UnknownLabel) else []
            losses.append(Loss(1, number, place, error.expected, error.found, error.cure))
            continue
        if row is not None:
            places.append(len(rows) + len(losses))
            rows.append(row)
            lines.append(number)
    for at in unknown:
        losses[at] = replace(losses[at], cure=labels_cure(format.found))
    return _Piece(format.gather(rows), np.array(lines, np.int64), np.array(places, np.int64), losses)


class ClicksLines:
    """The lines of a LIBSVM file. Remembers which label of -1 and 0 the file uses for "no click"."""

    def __init__(
        self,
        lowest: int,
        highest: int | None,
        labels: tuple[str, str] | None = None,
        labelled: bool = True,
    ) -> None:
        self.lowest, self.highest = lowest, BIGGEST_INDEX if highest is None else highest
        self.negative: float | None = None
        self.labels, self.labelled = labels, labelled
        self.found: set[str] = set()  # labels, in lines read one by one
        self._words = dict(zip(map(plain_label, labels or ("false", "true")), (b"0", b"1"), strict=True))

    def many(self, text: bytes) -> tuple[ClicksRows, NDArray[np.int64]]:
        """Return all rows of ``text`` and the line of each, from 0; Irregular if in any doubt."""
        if b"#" in text:
            text = _COMMENT.sub(b"", text)
        if b"qid:" in text:
            text = _QUERY.sub(rb"\1", text)
        if self.labels or not self.labelled or text[:1].isalpha():
            text = _FIRST_WORD.sub(self._number_of, text)
        data = np.frombuffer(text, np.uint8)
        kind = _KIND[data]
        if not kind.all():
            raise Irregular
        word = kind >= _COLON
        edges = np.flatnonzero(np.diff(word, prepend=False))
        starts, ends = edges[0::2], edges[1::2]  # the text ends with a line feed, so words do too
        tokens_so_far = np.searchsorted(starts, np.flatnonzero(kind == _FEED))
        tokens = np.diff(tokens_so_far, prepend=0)
        lines = np.flatnonzero(tokens)
        is_label = np.zeros(len(starts), np.bool_)
        is_label[(tokens_so_far - tokens)[lines]] = True
        colons = np.flatnonzero(kind == _COLON)
        left, right = starts[~is_label], ends[~is_label]
        # As many colons as features, each within its own: so each feature has one, and no label has.
        if len(colons) != len(left) or (colons <= left).any() or (colons >= right - 1).any():
            raise Irregular
        labels = finite_numbers(data, starts[is_label], ends[is_label])
        row_starts = np.append(0, np.cumsum(tokens[lines] - 1))
        indices = whole_numbers(data, left, colons)
        self._check_indices(row_starts, indices)
        values = finite_numbers(data, colons + 1, right).astype(np.float32)
        self.negative = self._negative_among(labels)  # last, when the rows are accepted
        return _rows(labels, row_starts, indices, values), lines.astype(np.int64)

    def _number_of(self, word: re.Match[bytes]) -> bytes:
        """Return the number that stands for a label; Irregular if it is none."""
        if b":" in word[1]:
            raise Irregular
        if not self.labelled:
            return b"0"
        number = self._words.get(plain_label(word[1].decode(errors="replace")))
        if number is None:
            raise Irregular
        return number

    def _check_indices(self, starts: NDArray[np.int64], indices: NDArray[np.int64]) -> None:
        if len(indices) and (indices.min() < self.lowest or indices.max() > self.highest):
            raise Irregular
        ascending = np.diff(indices) > 0
        ascending[starts[(starts > 0) & (starts < len(indices))] - 1] = True
        if not ascending.all():
            rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
            order = np.lexsort((indices, rows))
            if ((np.diff(indices[order]) == 0) & (np.diff(rows[order]) == 0)).any():
                raise Irregular

    def _negative_among(self, labels: NDArray[np.float64]) -> float | None:
        others = np.unique(labels[labels != 1.0])
        if len(others) == 0:
            return self.negative
        if len(others) > 1 or others[0] not in (0.0, -1.0) or self.negative not in (None, others[0]):
            raise Irregular
        return float(others[0])

    def one(self, line: bytes) -> Click | None:
        """Return the row in ``line``, or None if it is blank or a comment; Malformed if it is no row."""
        tokens = line.partition(b"#")[0].replace(b"\t", b" ").split(b" ")
        tokens = [token for token in tokens if token]
        if not tokens:
            return None
        label = self._label(tokens[0])
        if len(tokens) > 1 and tokens[1].startswith(b"qid:"):
            del tokens[1]
        features: dict[int, float] = {}
        for token in tokens[1:]:
            index, colon, value = token.partition(b":")
            if not colon or b":" in value:
                raise Malformed("features as index:value", token)
            number = self._index(index)
            if number in features:
                raise Malformed("each feature once in a row", f"{number} twice")
            features[number] = self._value(value)
        if label != 1.0:
            self.negative = label
        return label, features

    def _index(self, token: bytes) -> int:
        index = whole_number(token, "a feature index", BIGGEST_INDEX)
        if not self.lowest <= index <= self.highest:
            expected = f"a feature index from {self.lowest} to {self.highest}"
            raise Malformed(expected, token, cure="check the number of features")
        return index

    @staticmethod
    def _value(token: bytes) -> float:
        if token.lower().lstrip(b"+-") == b"nan":
            raise Malformed(_VALUE, token, cure="leave a feature out of the row where its value is missing")
        return finite_number(token, _VALUE)

    def _label(self, token: bytes) -> float:
        if b":" in token:
            raise Malformed(self._expected, token)
        if not self.labelled:
            return 0.0
        text = token.decode(errors="replace")
        self.found.add(text)
        number = self._words.get(plain_label(text))
        if number is not None:
            return float(number)
        if _SEVERAL.fullmatch(token):
            cure = "these are multi-label data: make a file for each label, of 1 where a row has it, else 0"
            raise Malformed("one label in a row", token, cure=cure)
        try:
            label = finite_number(token, self._expected)
        except Malformed as error:
            raise _UnknownLabel(error.expected, token) from None
        if self.labels or label not in (1.0, 0.0, -1.0):
            raise _UnknownLabel(self._expected, token)
        if label != 1.0 and self.negative not in (None, label):
            raise Malformed(f"a label of {self.negative:.0f} or 1, as in the lines before", token)
        return label

    @property
    def _expected(self) -> str:
        return f"a label of {' or '.join(self.labels)}" if self.labels else _LABEL

    def gather(self, rows: Sequence[Click]) -> ClicksRows:
        """Return single rows as arrays."""
        return _rows(
            np.array([label for label, _ in rows], np.float64),
            np.append(0, np.cumsum([len(features) for _, features in rows], dtype=np.int64)),
            np.array([index for _, features in rows for index in features], np.int64),
            np.array([value for _, features in rows for value in features.values()], np.float64).astype(
                np.float32
            ),
        )


def _rows(
    labels: NDArray[np.float64],
    starts: NDArray[np.int64],
    indices: NDArray[np.int64],
    values: NDArray[np.float32],
) -> ClicksRows:
    numbers = np.zeros(len(labels), np.int64)  # the reader counts across blocks and sets them
    return ClicksRows((labels == 1.0).astype(np.uint8), numbers, starts, indices.astype(np.uint32), values)
