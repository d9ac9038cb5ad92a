"""Where raw rows come from: a file, its format, and its text in blocks of whole lines."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeGuard, cast

from mlless.errors import InputError, UsageError

Format = Literal["ratings", "libsvm", "criteo", "columns"]
FORMATS: tuple[Format, ...] = ("ratings", "libsvm", "criteo", "columns")

BLOCK = 2 << 20
LONGEST_LINE = 64 << 20
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_LIBSVM_LINE = re.compile(rb"\s*[+-]?[0-9.]+(\s+[^\s:]+:[^\s:]+)*\s*(#.*)?")
_RATINGS_NAMES = (".csv", ".dat", ".data", ".tsv", ".parquet")
_CRITEO_TABS = 39  # between a label, 13 numbers and 26 categories
_LIBSVM_NAMES = (".svm", ".libsvm", ".svmlight")


@dataclass(frozen=True, slots=True)
class Source:
    """A file of raw rows: ``format`` is what the rows are, ``layout`` how they are written."""

    path: Path
    format: Format
    layout: Literal["text", "parquet"]
    packed: bool
    bytes: int

    def progress(self, done: int) -> float:
        """Return the share of the source that ``done`` bytes are."""
        return min(done / self.bytes, 1.0)


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines, each ended by a bare line feed; the first of them is line ``first_line``."""

    text: bytes
    first_line: int
    done: int


def open_source(path: str | Path, *, format: str | None = None) -> Source:
    """Return the source at ``path``, its format found from name and content unless given.

    Raises InputError if there is no such file, or it is empty or of no known format.
    """
    path = Path(path)
    if not _is_format(format):
        raise UsageError("unknown format", expected=" or ".join(FORMATS), found=repr(format))
    try:
        if path.is_dir():
            raise InputError("a directory", where=str(path), cure="name one file of it")
        if path.exists() and not path.is_file():  # it is read more than once
            raise InputError("not a regular file", where=str(path), cure="save its content to one")
        size = path.stat().st_size
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise unreadable(path, error) from error
    if not magic:
        raise InputError("an empty file", where=str(path))
    packed = magic[:2] == _GZIP
    if path.suffix.lower() == ".gz" and not packed:
        raise InputError(
            "not a gzip file, for all its name", where=str(path), cure="rename it, or fetch it again"
        )
    if magic == _PARQUET or path.suffix.lower() == ".parquet":
        if format == "libsvm":
            raise UsageError("--format libsvm is for LIBSVM text only", where=str(path), found="Parquet")
        return Source(path, format or "ratings", "parquet", False, size)
    start = _start_of_text(path, packed)
    return Source(path, format if format else _guess(path, start), "text", packed, size)


def _is_format(format: str | None) -> TypeGuard[Format | None]:
    return format is None or format in FORMATS


def blocks(source: Source, size: int | None = None) -> Iterator[Block]:
    """Yield the text of ``source`` in blocks of about ``size`` bytes (`BLOCK`); every line once."""
    size = size or BLOCK
    line, rest = 1, b""
    with _open_text(source.path, source.packed) as (raw, text):
        while more := text.read(size):
            cut = more.rfind(b"\n") + 1
            if not cut:
                rest += more
                if len(rest) > LONGEST_LINE:
                    raise InputError(
                        f"a line longer than {LONGEST_LINE >> 20} MiB",
                        where=f"{source.path}, line {line}",
                        cure="check that this is a text file",
                    )
                continue
            whole, rest = rest + more[:cut], more[cut:]
            block = Block(whole.replace(b"\r\n", b"\n"), line, raw.tell())
            line += block.text.count(b"\n")
            yield block
        if rest:
            yield Block(rest.removesuffix(b"\r") + b"\n", line, raw.tell())


@contextmanager
def _open_text(path: Path, packed: bool) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Give the file as it lies on disk and as text; turn what goes wrong while reading into InputError."""
    try:
        with path.open("rb") as raw:
            if packed:
                with gzip.GzipFile(fileobj=raw) as text:
                    yield raw, cast(BinaryIO, text)
            else:
                yield raw, raw
    except EOFError as error:
        raise InputError("a truncated gzip file", where=str(path), cure="fetch it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            "a damaged gzip file", where=str(path), found=str(error), cure="fetch it again"
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> InputError:
    """Return the error of a file that the system does not let us read."""
    cure = "check the path and its permissions"
    return InputError(f"cannot read: {error.strerror or error}", where=str(path), cure=cure)


def _start_of_text(path: Path, packed: bool) -> bytes:
    """Return the first bytes of the text; InputError if it is empty or no text at all."""
    with _open_text(path, packed) as (_, text):
        start = text.read(1 << 16)
    if not start:
        raise InputError("an empty file", where=str(path))
    if b"\0" in start.partition(b"\n")[0]:  # further on it is one malformed line among good ones
        raise InputError(
            "not a text file",
            where=str(path),
            expected="ratings or clicks as text or Parquet",
            found=f"bytes {start[:8].hex(' ')} ...",
        )
    return start


def _guess(path: Path, start: bytes) -> Format:
    if start.partition(b"\n")[0].count(b"\t") == _CRITEO_TABS:
        return "criteo"
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(_RATINGS_NAMES):
        return "ratings"
    if name.endswith(_LIBSVM_NAMES):
        return "libsvm"
    lines = [line for line in start.splitlines() if line.strip() and not line.lstrip().startswith(b"#")]
    first = lines[0] if lines else b""
    if b"\n" not in start:
        first = first.rpartition(b" ")[0] or first  # its last word may be cut short
    if _LIBSVM_LINE.fullmatch(first):
        return "libsvm"
    if any(separator in first for separator in (b"::", b"\t", b",")):
        return "ratings"
    raise InputError(
        "unknown format",
        where=str(path),
        expected="ratings separated by ',', '::' or tabs, or LIBSVM lines 'label index:value ...'",
        found=shortened(first),
        cure="say what it is with --format, or describe its columns with --columns",
    )


def shortened(text: bytes | str, limit: int = 60) -> str:
    """Return a printable form of ``text``, cut when it is long."""
    if isinstance(text, bytes):
        text = text[: 4 * limit].decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= limit else text[:limit] + "...")
