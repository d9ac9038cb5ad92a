"""Packed text: recognised by its first bytes, unpacked as a stream."""

from __future__ import annotations

import bz2
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

import zstandard

from mlless.errors import InputError

_INPUT = 1 << 16  # bytes unpacked in one go: what may unfold a thousandfold stays small
_OUTPUT = 1 << 18


class _Unpacker(Protocol):
    """One member of a packed file; the standard library's and zstandard's look alike."""

    @property
    def eof(self) -> bool:
        """Whether the end of the member was reached."""
        ...

    @property
    def unused_data(self) -> bytes:
        """The bytes after that end."""
        ...

    def decompress(self, data: bytes, /) -> bytes:
        """Return what is unpacked of some more bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Packing:
    """A way to pack text; ``unpacker`` is None for zip, which is more than a stream."""

    name: str
    suffix: str
    magic: bytes
    unpacker: Callable[[], _Unpacker] | None


PACKINGS = (
    Packing("gzip", ".gz", b"\x1f\x8b", lambda: cast(_Unpacker, zlib.decompressobj(31))),
    Packing("bzip2", ".bz2", b"BZh", bz2.BZ2Decompressor),
    Packing("xz", ".xz", b"\xfd7zXZ\0", lzma.LZMADecompressor),
    Packing("zstd", ".zst", b"\x28\xb5\x2f\xfd", lambda: zstandard.ZstdDecompressor().decompressobj()),
    Packing("zip", ".zip", b"PK\x03\x04", None),
)
_EMPTY_ZIP = b"PK\x05\x06"
_ENCRYPTED = 0x1
_WORKBOOKS = {
    "xl/workbook.xml",
    "xl/workbook.bin",
    "content.xml",
}  # what spreadsheets have in their zip files


def packing_of(start: bytes) -> Packing | None:
    """Return how bytes that begin with ``start`` are packed; None if they are not."""
    if start.startswith(_EMPTY_ZIP):
        return PACKINGS[-1]
    return next((packing for packing in PACKINGS if start.startswith(packing.magic)), None)


def check_name(name: str, packing: Packing | None) -> None:
    """Raise InputError if a part is called packed and is not, or not so."""
    called = next((one for one in PACKINGS if name.lower().endswith(one.suffix)), None)
    if called is not None and called is not packing:
        raise InputError(
            f"not a {called.name} file, for all its name",
            where=name,
            found=f"a {packing.name} file" if packing else None,
            cure="rename it, or fetch it again",
        )


def unpacked(packing: Packing, pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield what is packed in ``pieces``, all members one after the other; InputError if it is damaged."""
    assert packing.unpacker is not None
    unpacker = packing.unpacker()
    with _told(packing, name):
        for piece in pieces:
            for at in range(0, len(piece), _INPUT):
                data = piece[at : at + _INPUT]
                while data:
                    if unpacker.eof:
                        data = data.lstrip(b"\0")  # members may be padded
                        if not data:
                            break
                        unpacker = packing.unpacker()
                    if text := unpacker.decompress(data):
                        yield text
                    data = unpacker.unused_data
        if not unpacker.eof:
            raise EOFError


def zip_member(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield the one file that is in a zip file; InputError if there is not one, or it is damaged."""
    with _told(PACKINGS[-1], name), zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        names = [member.filename for member in members]
        if _WORKBOOKS & {*names}:
            raise spreadsheet(name)
        if len(members) != 1:
            raise InputError(
                "not one file in this zip file",
                where=name,
                expected="exactly one",
                found=(f"{len(names)}: {', '.join(names[:5])}" + ", ..." * (len(names) > 5))
                if names
                else "none",
                cure="unpack it, and name the files that are meant",
            )
        if members[0].flag_bits & _ENCRYPTED:
            cure = "unpack it first"
            raise InputError("the zip file is encrypted", where=name, found=names[0], cure=cure)
        with archive.open(members[0]) as member:
            while text := member.read(_OUTPUT):
                yield text


def spreadsheet(name: str) -> InputError:
    """Return the error of a spreadsheet where a table was wanted."""
    return InputError(
        "a spreadsheet, which is not read", where=name, expected="text or Parquet", cure="save it as CSV"
    )


@contextmanager
def _told(packing: Packing, name: str) -> Iterator[None]:
    """Turn what a library says of packed data into InputError."""
    try:
        yield
    except EOFError as error:
        raise InputError(f"a truncated {packing.name} file", where=name, cure="fetch it again") from error
    except NotImplementedError as error:
        cure = "unpack it first"
        raise InputError("a zip file of an unknown kind", where=name, found=str(error), cure=cure) from error
    except (OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError, zipfile.BadZipFile) as error:
        raise InputError(
            f"a damaged {packing.name} file", where=name, found=str(error), cure="fetch it again"
        ) from error
