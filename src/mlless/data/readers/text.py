"""The text of a part as a stream: unpacked, without a byte-order mark; and in blocks of whole lines."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlless.data.readers.packing import check_name, packing_of, unpacked, zip_member
from mlless.errors import InputError

if TYPE_CHECKING:
    from mlless.data.readers.parts import Part
    from mlless.data.readers.source import Source

BLOCK = 2 << 20
LONGEST_LINE = 64 << 20
PARQUET = b"PAR1"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LONGEST_MAGIC = 6


class TextStream(io.RawIOBase):
    """The text of ``part``, from its beginning to its end. Close it, or use it in a ``with``.

    Anything wrong with the part is an InputError of `read`. Another library may read from it, too.
    """

    def __init__(self, part: Part, before: int = 0) -> None:
        """Open ``part``, which comes after ``before`` bytes of its source."""
        super().__init__()
        self.part = part
        self.done = before  # bytes of the source, as they are stored, that are read so far
        self._buffer, self._at = b"", 0
        self._stored = self._counted()
        self._pieces: Iterator[bytes] = self._stored
        self.is_parquet = self.peek(len(PARQUET)) == PARQUET
        self.packing = packing_of(self.peek(_LONGEST_MAGIC))
        if self._buffer:  # nothing is neither packed nor not
            check_name(part.name, self.packing)
        if self.packing is not None:
            self._unpack()
        if self.peek(len(_BYTE_ORDER_MARK)) == _BYTE_ORDER_MARK:
            self._at += len(_BYTE_ORDER_MARK)

    def _counted(self) -> Generator[bytes]:
        for piece in self.part.pieces():
            self.done += len(piece)
            if piece:  # nothing at all would be the end
                yield piece

    def _unpack(self) -> None:
        assert self.packing is not None
        start, self._buffer = self._buffer, b""
        if self.packing.unpacker is not None:
            self._pieces = unpacked(self.packing, _chained(start, self._stored), self.part.name)
            return
        before = self.done - len(start)
        self._stored.close()
        self._pieces = self._zipped(before)

    def _zipped(self, before: int) -> Iterator[bytes]:
        with self.part.seekable() as file:
            for piece in zip_member(file, self.part.name):
                self.done = before + file.tell()
                yield piece

    def readable(self) -> bool:
        """Return True."""
        return True

    def peek(self, size: int) -> bytes:
        """Return the next ``size`` bytes, or as many as there are, which stay to be read."""
        while len(self._buffer) - self._at < size and (more := next(self._pieces, b"")):
            self._buffer, self._at = self._buffer[self._at :] + more, 0
        return self._buffer[self._at : self._at + size]

    def read(self, size: int | None = -1) -> bytes:
        """Return the next ``size`` bytes, fewer only at the end; all for a negative one."""
        missing = size if size is not None and size >= 0 else float("inf")
        found = []
        while missing > 0:
            if self._at == len(self._buffer):
                self._buffer, self._at = next(self._pieces, b""), 0
                if not self._buffer:
                    break
            piece = self._buffer[self._at : self._at + int(min(missing, len(self._buffer)))]
            self._at += len(piece)
            missing -= len(piece)
            found.append(piece)
        return b"".join(found)

    def close(self) -> None:
        """Close the part."""
        self._pieces = iter(())
        self._stored.close()
        super().close()


def _chained(start: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield start
    yield from rest


@dataclass(frozen=True, slots=True)
class Block:
    """Whole ``lines``, each ended by a bare line feed; the first is line ``first_line`` of the part so named.

    ``done`` bytes of the source, as they are stored, are then read.
    """

    part: str
    text: bytes
    lines: int
    first_line: int
    done: int


def blocks(source: Source, size: int | None = None) -> Iterator[Block]:
    """Yield the text of ``source`` in blocks of about ``size`` bytes (`BLOCK`); every line once."""
    for stream in source.texts():
        yield from _blocks_of(stream, size or BLOCK)


def _blocks_of(stream: TextStream, size: int) -> Iterator[Block]:
    name = stream.part.name
    line, rest = 1, b""
    while more := stream.read(size):
        cut = more.rfind(b"\n") + 1
        if not cut:
            rest += more
            if len(rest) > LONGEST_LINE:
                raise InputError(
                    f"a line longer than {LONGEST_LINE >> 20} MiB",
                    where=f"{name}, line {line}",
                    cure="check that this is a text file",
                )
            continue
        whole, rest = rest + more[:cut], more[cut:]
        if b"\r" in whole:
            whole = whole.replace(b"\r\n", b"\n")
        lines = whole.count(b"\n")
        yield Block(name, whole, lines, line, stream.done)
        line += lines
    if rest:
        yield Block(name, rest.removesuffix(b"\r") + b"\n", 1, line, stream.done)


def shortened(text: bytes | str, limit: int = 60) -> str:
    """Return a printable form of ``text``, cut when it is long."""
    if isinstance(text, bytes):
        text = text[: 4 * limit].decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= limit else text[:limit] + "...")
