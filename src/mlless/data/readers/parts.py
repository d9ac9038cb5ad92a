"""The parts of a source: files and pipes of this machine, as their bytes are stored."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mlless.errors import InputError, MissingObject, UsageError

if TYPE_CHECKING:
    from mlless.channels.remote_objects import RemoteObjects

PIECE = 1 << 18
STANDARD_INPUT = "-"


class Part(ABC):
    """One stored piece of a source.

    Attributes
    ----------
    name
        What it is called, fit to be shown.
    address
        Where it is: the same wherever it is read, but without what may be a secret.
    size
        In bytes as they are stored; None where that is not known.
    found
        Whether it was found in a folder or by a pattern. It may then be empty.
    """

    def __init__(self, name: str, address: str, size: int | None, *, found: bool) -> None:
        self.name, self.address, self.size, self.found = name, address, size, found

    @abstractmethod
    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes as they are stored, from the beginning; twice at most: to look, and to read."""

    def seekable(self) -> BinaryIO:
        """Return the part as a file to read from anywhere; InputError if it can only be read in order."""
        raise InputError(
            "Parquet and zip files end in their table of contents, and this can only be read in order",
            where=self.name,
            cure="save it to a file first",
        )


class FilePart(Part):
    """A regular file."""

    def __init__(self, path: Path, *, found: bool = False) -> None:
        try:
            super().__init__(str(path), str(path.resolve()), path.stat().st_size, found=found)
        except OSError as error:
            raise unreadable(path, error) from error
        self._path = path

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes of the file."""
        try:
            with self._path.open("rb", buffering=0) as file:
                while piece := file.read(PIECE):
                    yield piece
        except OSError as error:
            raise unreadable(self._path, error) from error

    def seekable(self) -> BinaryIO:
        """Return the open file."""
        try:
            return self._path.open("rb")
        except OSError as error:
            raise unreadable(self._path, error) from error


class PipePart(Part):
    """Standard input, or a named pipe: what was looked at is kept for the one time that it is read."""

    def __init__(self, path: Path | None) -> None:
        """Take ``path``, or standard input if it is None."""
        name = "standard input" if path is None else str(path)
        super().__init__(name, name, None, found=False)
        self._path = path
        self._file: BinaryIO | None = None
        self._kept: list[bytes] = []
        self._times = 0

    def pieces(self) -> Iterator[bytes]:
        """Yield what is read from the pipe, from the beginning."""
        self._times += 1
        if self._times > 2:
            cure = "save its content to a file"
            raise UsageError("this can be read only once", where=self.name, cure=cure)
        kept, self._kept = self._kept, []
        yield from kept
        try:
            if self._file is None:
                self._file = sys.stdin.buffer if self._path is None else self._path.open("rb")
            while piece := self._file.read(PIECE):
                if self._times == 1:
                    self._kept.append(piece)
                yield piece
        except OSError as error:
            raise unreadable(self.name, error) from error
        if self._times == 2 and self._path is not None:
            self._file.close()


class RemotePart(Part):
    """An object of an object store, or a file of a web server: read as it comes."""

    def __init__(
        self, objects: RemoteObjects, path: str, name: str, size: int | None = None, *, found: bool = False
    ) -> None:
        """Take the object of that ``path``; a size that is not given is found out when it is read."""
        super().__init__(name, name, size, found=found)
        self._objects, self._path = objects, path

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes as they come."""
        with _missing_told():
            self.size, pieces = self._objects.stream(self._path)
        return pieces

    def seekable(self) -> BinaryIO:
        """Return the object as a file, of which only what is wanted is read."""
        with _missing_told():
            size = self._objects.size(self._path) if self.size is None else self.size
        return self._objects.file(self._path, size)


@contextmanager
def _missing_told() -> Iterator[None]:
    try:
        yield
    except MissingObject as error:
        raise InputError(
            "there is no such file", where=error.where, found=error.found, cure="check its name"
        ) from error


def unreadable(path: str | Path, error: OSError) -> InputError:
    """Return the error of a file that the system does not let us read."""
    cure = "check the path and its permissions"
    return InputError(f"cannot read: {error.strerror or error}", where=str(path), cure=cure)
