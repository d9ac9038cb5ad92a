"""Where raw rows come from: one or more parts of one format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeGuard

from mlless.data.readers.finding import Sources, parts_of
from mlless.data.readers.guess import Format, guess
from mlless.data.readers.packing import spreadsheet
from mlless.data.readers.parts import Part
from mlless.data.readers.text import PARQUET, TextStream
from mlless.errors import InputError, UsageError

FORMATS: tuple[Format, ...] = ("ratings", "libsvm", "criteo", "columns")
Layout = Literal["text", "parquet"]

_START = 1 << 16
_OLD_EXCEL = b"\xd0\xcf\x11\xe0"  # .xls; newer spreadsheets are zip files
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Source:
    """Raw rows: ``format`` is what the rows are, ``layout`` how they are written.

    Attributes
    ----------
    name
        What the parts are called together, fit to be shown.
    parts
        Where the rows are, in order.
    start
        The first 64 KiB of the text of the first part that has any; empty for Parquet.
    bytes
        The size of all parts as they are stored; None where one of them is of unknown size.
    """

    name: str
    parts: tuple[Part, ...]
    format: Format
    layout: Layout
    start: bytes
    bytes: int | None

    def progress(self, done: int) -> float | None:
        """Return the share of the source that ``done`` bytes are; None where its size is not known."""
        return min(done / self.bytes, 1.0) if self.bytes else None

    def texts(self) -> Iterator[TextStream]:
        """Yield the text of each part; it is closed when the next is asked for.

        Parts that were found and are empty are passed over. InputError for other empty ones, and for Parquet.
        """
        done = 0
        for part in self.parts:
            with TextStream(part, done) as stream:
                if stream.is_parquet:
                    raise self.mixed(part, "Parquet")
                if stream.peek(1):
                    yield stream
                elif not part.found:
                    raise InputError("an empty file", where=part.name)
                done = stream.done

    def mixed(self, part: Part, found: str) -> InputError:
        """Return the error of a part that is not written as the first is."""
        return InputError(
            "parts of different kinds",
            where=part.name,
            expected=f"{self.layout}, as {self.parts[0].name}",
            found=found,
            cure="name parts of one kind",
        )


def open_source(sources: Sources, *, format: str | None = None) -> Source:
    """Return the source at ``sources``: a file, a pattern, a folder, ``-`` for standard input, or several.

    The format is found from the content unless given. Raises InputError if there is nothing, or it is empty
    or of no known format.
    """
    if not _is_format(format):
        raise UsageError("unknown format", expected=" or ".join(FORMATS), found=repr(format))
    name, parts = parts_of(sources)
    for part in parts:
        with TextStream(part) as stream:
            if start := stream.peek(_START):
                if stream.is_parquet or part.name.lower().endswith(".parquet"):
                    if format == "libsvm":
                        told = "--format libsvm is for LIBSVM text only"
                        raise UsageError(told, where=part.name, found="Parquet")
                    return Source(name, parts, format or "ratings", "parquet", b"", _total(parts))
                _check_text(part, start)
                found = format or guess(part.name, start, whole=len(start) < _START)
                return Source(name, parts, found, "text", start, _total(parts))
        if not part.found:
            raise InputError("an empty file", where=part.name)
    raise InputError("nothing but empty files", where=name)


def _is_format(format: str | None) -> TypeGuard[Format | None]:
    return format is None or format in FORMATS


def _total(parts: tuple[Part, ...]) -> int | None:
    sizes = [part.size for part in parts]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _check_text(part: Part, start: bytes) -> None:
    """Raise InputError if this is not the start of a text."""
    if start.startswith(PARQUET):
        raise InputError(
            "packed Parquet", where=part.name, expected="Parquet as it is", cure="unpack it first"
        )
    if start.startswith(_OLD_EXCEL):
        raise spreadsheet(part.name)
    # Further on a NUL is one malformed line among good ones.
    if start.startswith(_UTF_16) or b"\0" in start.partition(b"\n")[0]:
        raise InputError(
            "not a text file",
            where=part.name,
            expected="ratings or clicks as text in UTF-8, or Parquet",
            found="text in UTF-16" if start.startswith(_UTF_16) else f"bytes {start[:8].hex(' ')} ...",
        )
