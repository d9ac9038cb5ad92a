"""Tables of text in batches of rows: cut into blocks of whole rows here, parsed by pyarrow."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv
from numpy.typing import NDArray

from mlless.data.readers.forms import Form, find_form
from mlless.data.readers.headers import Header
from mlless.data.readers.losses import Loss
from mlless.data.readers.source import Source
from mlless.data.readers.table import Batch, Plan, decoded, readable
from mlless.data.readers.text import Block, blocks
from mlless.errors import InputError

LONGEST_ROW = 8 << 20
_AHEAD = 2  # blocks parsed while another is used
_NEAR = 1 << 16  # so far back a line is looked for that ends a row
_QUOTE = b'"'
_QUOTED = rb'(?:(?<=[%s\n])|\A)"[^"]*(?:""[^"]*)*("|\Z)'

Begin = Callable[[Form, str], Plan]


def text_batches(
    source: Source, begin: Begin, separator: str | None = None, usual: str | None = None
) -> Iterator[Batch]:
    """Yield the rows of all parts; ``begin`` says of the first what its columns are.

    ``separator`` and ``usual`` are as in `find_form`.
    """
    table: _Table | None = None
    for _, group in groupby(blocks(source), lambda block: block.part):
        first = next(group)
        form = find_form(first.text, first.part, table.form.separator if table else separator, usual)
        if table is None:
            table = _Table(form, begin(form, first.part), first.part)
        rest = chain([table.without_header(first, form)], group)  # noqa: B031 (after the first)
        whole = _whole_rows(rest, form)
        for parsed in _ahead(table.parse, (block for block in whole if block.text)):
            yield table.batch(parsed)


def _ahead(parse: Callable[[Block], _Parsed], blocks: Iterable[Block]) -> Iterator[_Parsed]:
    """Yield the blocks parsed, in order: pyarrow works on the next ones while the caller has one."""
    waiting: deque[Future[_Parsed]] = deque()
    with ThreadPoolExecutor(_AHEAD, "parse") as pool:
        for block in blocks:
            waiting.append(pool.submit(parse, block))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass(frozen=True, slots=True)
class _Parsed:
    """The wanted ``columns`` of a block, in which its ``odd`` rows are missing; ``text`` was parsed."""

    block: Block
    text: bytes
    columns: list[pyarrow.Array]
    rows: int
    odd: list[Any]


class _Table:
    """The rows of a table whose form and columns are known."""

    def __init__(self, form: Form, plan: Plan, part: str) -> None:
        self.form, self.plan = form, plan
        self._header = Header(part, plan.header) if plan.header else None
        self._comments = form.comments
        self._rows = 0

    def without_header(self, block: Block, form: Form) -> Block:
        """Return the first block of a part from its first row on."""
        block = _without_lines(block, form.before)
        if self._header and self._header.check(block.part, form.rows[0]):
            block = _without_lines(block, block.text.count(b"\n", 0, _end_of_first_row(block.text)))
        return block

    def parse(self, block: Block) -> _Parsed:
        """Return what a block of whole rows holds."""
        text = block.text
        if not text.isascii():
            text = decoded(text).encode()
        if self._comments:
            text = re.sub(rb"(?m)^#[^\n]*$", b"", text)  # the empty lines keep the others' numbers right
        names = [str(place) for place in range(self.plan.count)]
        wanted = [str(place) for place in self.plan.places]
        odd: list[Any] = []

        def set_aside(row: Any) -> str:
            """Keep a malformed row for later, and have it passed over."""
            odd.append(row)
            return "skip"

        plain, separator = self.form.plain(text)
        found = pyarrow.csv.read_csv(
            pyarrow.BufferReader(plain),
            pyarrow.csv.ReadOptions(column_names=names, use_threads=False, block_size=len(plain) + 1),
            pyarrow.csv.ParseOptions(
                delimiter=separator,
                quote_char='"' if self.form.quoted else False,
                newlines_in_values=self.form.quoted,
                invalid_row_handler=set_aside,
            ),
            pyarrow.csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pyarrow.string())
            ),
        )
        columns = [found.column(name).combine_chunks() for name in wanted]
        return _Parsed(block, plain, columns, found.num_rows + len(odd), odd)

    def batch(self, parsed: _Parsed) -> Batch:
        """Return the next rows of the table."""
        block = parsed.block
        lines = self._lines(block, parsed.text, parsed.rows)
        counted, kept = np.ones(len(lines), np.bool_), np.ones(len(lines), np.bool_)
        bad = []
        for row in parsed.odd:
            kept[row.number - 1] = False
            if not row.text.strip() or row.text.startswith("#"):
                counted[row.number - 1] = False
            else:
                bad.append(row)
        numbers = self._rows + np.cumsum(counted) - 1
        rows = int(counted.sum())
        self._rows += rows
        losses = []
        if bad:
            line = int(lines[bad[0].number - 1])
            what = readable(f"{bad[0].actual_columns}: {bad[0].text}".replace("\x1f", "::"))
            losses.append(Loss(len(bad), line, f"{block.part}, line {line}", self._expected, what))
        return Batch(parsed.columns, numbers[kept], lines[kept], "line", block.part, rows, losses, block.done)

    @property
    def _expected(self) -> str:
        return replace(self.form, rows=(("",) * self.plan.count,)).columns

    def _lines(self, block: Block, text: bytes, rows: int) -> NDArray[np.int64]:
        """Return the line in which each row begins."""
        if rows == block.lines:
            return block.first_line + np.arange(rows)
        data = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero(data == ord("\n"))
        starts = np.append(0, ends[:-1] + 1)
        whole = np.ones(len(ends), np.bool_)
        if self.form.quoted:
            whole = np.cumsum(data == ord(_QUOTE))[ends] % 2 == 0
        begins = np.append(True, whole[:-1]) & (starts < ends)
        lines = block.first_line + np.flatnonzero(begins)
        return np.resize(lines, rows) if len(lines) != rows else lines


def _without_lines(block: Block, lines: int) -> Block:
    at = 0
    for _ in range(lines):
        at = block.text.index(b"\n", at) + 1
    return replace(
        block, text=block.text[at:], lines=block.lines - lines, first_line=block.first_line + lines
    )


def _whole_rows(blocks: Iterable[Block], form: Form) -> Iterator[Block]:
    """Yield the text of blocks of whole lines in blocks of whole rows, in which lines may end in quotes."""
    rest = b""
    for block in blocks:
        if rest:
            before = rest.count(b"\n")
            block = replace(
                block,
                text=rest + block.text,
                lines=before + block.lines,
                first_line=block.first_line - before,
            )
        end = _end_of_rows(block.text, form)
        whole, rest = block.text[:end], block.text[end:]
        lines = block.lines - rest.count(b"\n")
        yield replace(block, text=whole, lines=lines)
        line = block.first_line + lines
        if len(rest) > LONGEST_ROW:
            break
    if rest:
        raise InputError(
            "a quote that is not closed",
            where=f"{block.part}, line {line}",
            expected=f"its end within {LONGEST_ROW >> 20} MiB",
            found=rest[:60].decode("utf-8", "backslashreplace"),
            cure="close it, or write a quote within quotes as two",
        )


def _end_of_first_row(text: bytes) -> int:
    end = text.index(b"\n") + 1
    while text.count(_QUOTE, 0, end) % 2 and (more := text.find(b"\n", end) + 1):
        end = more
    return end


def _end_of_rows(text: bytes, form: Form) -> int:
    """Return where the last row ends that ends in ``text``, which ends with a line."""
    if not form.quoted or text.count(_QUOTE) % 2 == 0:
        return len(text)
    end = len(text)
    while end > len(text) - _NEAR:
        start = text.rfind(b"\n", 0, end - 1) + 1
        if text.count(_QUOTE, start) % 2:
            return start
        end = start
        if not start:
            break
    # Some quotes stand within fields and mean nothing: only one that opens a field may hold a line end.
    for quoted in re.finditer(_QUOTED % re.escape(form.separator.encode()), text):
        if not quoted[1]:
            return text.rfind(b"\n", 0, quoted.start() + 1) + 1
    return len(text)
