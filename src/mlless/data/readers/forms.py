"""PURE: how a table of text is laid out, found from its first lines."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mlless.data.readers.text import shortened
from mlless.errors import InputError, UsageError

BLANKS = " "  # stands for runs of spaces and tabs
_SEPARATORS = ("::", "\t", ",", ";", "|")
_NAMES = {"\t": "tabs", BLANKS: "blanks"}
_SAMPLE, _LINES = 1 << 16, 1000
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_DECIMAL_COMMA, _DECIMAL_POINT = re.compile(r"[+-]?\d+,\d+"), re.compile(r"[+-]?\d+\.\d+")


@dataclass(frozen=True, slots=True)
class Form:
    """How a table is laid out, with its first rows.

    Attributes
    ----------
    separator
        What separates columns: ``::``, `BLANKS`, or one character.
    rows
        The first rows, the header among them if there is one.
    before
        Lines before the first of these: blank ones and comments.
    comments
        Whether there are comments among them.
    decimal
        The decimal point.
    """

    separator: str
    rows: tuple[tuple[str, ...], ...]
    before: int
    comments: bool
    decimal: str

    @property
    def count(self) -> int:
        """The number of columns."""
        return len(self.rows[0])

    @property
    def quoted(self) -> bool:
        """Whether quotes may hold separators and line ends."""
        return self.separator not in ("::", BLANKS)

    @property
    def columns(self) -> str:
        """How many columns a line is to have, in words."""
        return f"{self.count} columns separated by {_NAMES.get(self.separator, repr(self.separator))}"

    def plain(self, text: bytes) -> tuple[bytes, str]:
        """Return text in which columns are separated by one character, and that character."""
        if self.separator == "::":
            return text.replace(b"::", b"\x1f"), "\x1f"
        if self.separator == BLANKS:
            text = text.replace(b"\t", b" ")
            while b"  " in text:
                text = text.replace(b"  ", b" ")
            text = (b"\n" + text).replace(b"\n ", b"\n").replace(b" \n", b"\n")
            return text[1:], BLANKS
        return text, self.separator


def find_form(text: bytes, where: str, separator: str | None = None, usual: str | None = None) -> Form:
    """Return the form of the table that begins with ``text``; InputError if columns cannot be told apart.

    Without a ``separator`` the ``usual`` one separates columns if it occurs in the first line. It does so,
    too, if no other one is found.
    """
    start = text[:_SAMPLE].decode("utf-8", "backslashreplace")
    lines = start.replace("\r\n", "\n").split("\n")
    cut = len(text) >= _SAMPLE
    if cut and len(lines) > 1:
        del lines[-1]
    before = 0
    while before < len(lines) and (not lines[before].strip() or lines[before].startswith("#")):
        before += 1
    comments = any(line.startswith("#") for line in lines[:before])
    lines = [line for line in lines[before : before + _LINES] if line.strip() and not line.startswith("#")]
    if not lines:
        raise InputError("no rows", where=where, expected="a table", found="blank lines and comments")
    if separator is not None:
        return _form(lines, checked(separator), before, comments, cut)
    best = max((_agreement(lines, one), -place, one) for place, one in enumerate((*_SEPARATORS, BLANKS)))
    (share, _columns), _, found = best
    if usual is not None and (not share or len(_split(lines, usual)[0]) > 1):
        return _form(lines, usual, before, comments, cut)
    if not share:
        raise InputError(
            "no separator in the first line",
            where=where,
            expected="columns separated by ',', ';', '|', '::', tabs or blanks",
            found=shortened(lines[0]),
            cure="say which one with --separator, or what the file holds with --format",
        )
    return _form(lines, found, before, comments, cut)


def is_number(text: str) -> bool:
    """Return whether ``text`` is a number, with a decimal point or comma."""
    return _PLAIN_NUMBER.fullmatch(text.strip()) is not None


def checked(separator: str) -> str:
    """Return a separator that was given by name or as it is; UsageError if it can be none."""
    separator = {"\\t": "\t", "tab": "\t", "blanks": BLANKS}.get(separator, separator)
    if separator != "::" and (len(separator.encode()) != 1 or separator in '"\r\n'):
        expected = "one character, '::', tab or blanks"
        raise UsageError("no such separator", expected=expected, found=repr(separator))
    return separator


def _agreement(lines: Sequence[str], separator: str) -> tuple[float, int]:
    """Return how well a separator fits: the share of rows with as many columns as the first, and these.

    Columns that are always empty tell of runs of separators, which are blanks.
    """
    rows = _split(lines, separator)
    columns = len(rows[0])
    if columns < 2:
        return 0.0, 0
    same = [row for row in rows if len(row) == columns]
    empty = any(not any(column) for column in zip(*same, strict=True))
    if separator == "\t" and empty and _agreement(lines, BLANKS)[0] == 1.0:
        return 0.0, 0
    share = round(len(same) / len(rows), 1)
    return (share, columns) if separator != BLANKS else (share if share == 1.0 else 0.0, 2)


def _split(lines: Sequence[str], separator: str) -> list[list[str]]:
    if separator == BLANKS:
        return [line.split() for line in lines]
    if separator == "::":
        return [line.split(separator) for line in lines]
    try:
        return [row for row in csv.reader((f"{line}\n" for line in lines), delimiter=separator) if row]
    except csv.Error:
        return [line.split(separator) for line in lines]


def _form(lines: Sequence[str], separator: str, before: int, comments: bool, cut: bool) -> Form:
    rows = _split(lines, separator)
    if cut and len(rows) > 2:
        del rows[-1]  # a quote may still be open in it
    fields = [field.strip() for row in rows[1:] for field in row]
    comma = (
        separator != ","
        and any(_DECIMAL_COMMA.fullmatch(field) for field in fields)
        and not any(_DECIMAL_POINT.fullmatch(field) for field in fields)
    )
    stripped = tuple(tuple(field.strip() for field in row) for row in rows)
    return Form(separator, stripped, before, comments, "," if comma else ".")
