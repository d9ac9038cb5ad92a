"""Clicks as LIBSVM text: ``label index:value index:value ... # comment``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

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
from mlless.data.readers.text import blocks
from mlless.data.rows import Chunk, ClicksRows

BIGGEST_INDEX = 2**31 - 1
_LABEL = "a label of 0 or 1, or of -1 or 1"
_COMMENT = re.compile(rb"#[^\n]*")
_SPACE, _FEED, _COLON, _TEXT = 1, 2, 3, 4
_KIND = np.zeros(256, np.uint8)
_KIND[list(b" \t")] = _SPACE
_KIND[ord("\n")] = _FEED
_KIND[ord(":")] = _COLON
_KIND[list(b"0123456789+-.eE")] = _TEXT


Click = tuple[float, dict[int, float]]  # the label as it stands, and the features in order


def read_clicks_text(
    source: Source, *, skip_malformed: bool = False, lowest: int = 0, highest: int | None = None
) -> Iterator[Chunk[ClicksRows]]:
    """Yield the rows of a LIBSVM source in order; indices outside ``lowest..highest`` are malformed."""
    lines = ClicksLines(lowest, highest)
    count = 0
    for block in blocks(source):
        for chunk in parse(block, lines, skip_malformed):
            numbers = np.arange(count, count + len(chunk.rows), dtype=np.int64)
            count += len(chunk.rows)
            yield replace(chunk, rows=replace(chunk.rows, numbers=numbers))


class ClicksLines:
    """The lines of a LIBSVM file. Remembers which label of -1 and 0 the file uses for "no click"."""

    def __init__(self, lowest: int, highest: int | None) -> None:
        self.lowest, self.highest = lowest, BIGGEST_INDEX if highest is None else highest
        self.negative: float | None = None

    def many(self, text: bytes) -> tuple[ClicksRows, NDArray[np.int64]]:
        """Return all rows of ``text``; Irregular if anything is out of the ordinary."""
        if b"#" in text:
            text = _COMMENT.sub(b"", text)
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
        """Return the row in ``line``, or None if it is blank or a comment."""
        tokens = line.partition(b"#")[0].replace(b"\t", b" ").split(b" ")
        tokens = [token for token in tokens if token]
        if not tokens:
            return None
        label = self._label(tokens[0])
        features: dict[int, float] = {}
        for token in tokens[1:]:
            index, colon, value = token.partition(b":")
            if not colon or b":" in value:
                raise Malformed("features as index:value", token)
            number = self._index(index)
            if number in features:
                raise Malformed("each feature once in a row", f"{number} twice")
            features[number] = finite_number(value, "a value that is a finite number")
        if label != 1.0:
            self.negative = label
        return label, features

    def _index(self, token: bytes) -> int:
        index = whole_number(token, "a feature index", BIGGEST_INDEX)
        if not self.lowest <= index <= self.highest:
            expected = f"a feature index from {self.lowest} to {self.highest}"
            raise Malformed(expected, token, cure="check the number of features")
        return index

    def _label(self, token: bytes) -> float:
        label = finite_number(token, _LABEL)
        if label not in (1.0, 0.0, -1.0):
            raise Malformed(_LABEL, token)
        if label != 1.0 and self.negative not in (None, label):
            raise Malformed(f"a label of {self.negative:.0f} or 1, as in the lines before", token)
        return label

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
