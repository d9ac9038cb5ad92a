"""How text is parsed: whole blocks at once, and line by line only where a block has trouble."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlless.data.readers.numbers import Irregular, Malformed
from mlless.data.readers.text import Block, shortened
from mlless.data.rows import Chunk, R, Rows
from mlless.errors import InputError

SMALL = 1 << 16  # a troubled block is halved down to this size before it is read line by line

Row = TypeVar("Row")
R_co = TypeVar("R_co", bound=Rows, covariant=True)


class LineFormat(Protocol[R_co, Row]):
    """One text format: a fast parser of many lines, and the exact one of a single line."""

    def many(self, text: bytes) -> tuple[R_co, NDArray[np.int64]]:
        """Return all rows of ``text`` and the line of each, from 0; Irregular if in any doubt."""
        ...

    def one(self, line: bytes) -> Row | None:
        """Return the row in ``line``, None if it is blank; Malformed if it is no row."""
        ...

    def gather(self, rows: Sequence[Row]) -> R_co:
        """Return single rows as arrays."""
        ...


def parse(block: Block, format: LineFormat[R, Row], skip: bool) -> Iterator[Chunk[R]]:
    """Yield the rows of ``block``; a malformed line is an InputError, or counted with ``skip``."""
    try:
        rows, lines = format.many(block.text)
        yield Chunk(rows, lines + block.first_line, 0, block.done, block.part)
        return
    except Irregular:
        pass
    middle = block.text.find(b"\n", len(block.text) // 2) + 1
    if len(block.text) > SMALL and middle < len(block.text):
        second_line = block.first_line + block.text.count(b"\n", 0, middle)
        yield from parse(replace(block, text=block.text[:middle]), format, skip)
        yield from parse(replace(block, text=block.text[middle:], first_line=second_line), format, skip)
    else:
        yield _line_by_line(block, format, skip)


def _line_by_line(block: Block, format: LineFormat[R, Row], skip: bool) -> Chunk[R]:
    rows: list[Row] = []
    lines: list[int] = []
    skipped = 0
    for number, line in enumerate(block.text.split(b"\n")[:-1], block.first_line):
        try:
            row = format.one(line)
        except Malformed as error:
            if not skip:
                raise malformed(block.part, f"line {number}", error) from None
            skipped += 1
            continue
        if row is not None:
            rows.append(row)
            lines.append(number)
    return Chunk(format.gather(rows), np.array(lines, np.int64), skipped, block.done, block.part)


def malformed(part: str, place: str, error: Malformed) -> InputError:
    """Return the error of a malformed line (or row) at ``place`` in the part of that name."""
    cure = "correct it, or leave such lines out with --skip-malformed"
    return InputError(
        f"malformed {place.partition(' ')[0]}",
        where=f"{part}, {place}",
        expected=error.expected,
        found=shortened(error.found),
        cure=f"{error.cure}; or {cure}" if error.cure else cure,
    )
