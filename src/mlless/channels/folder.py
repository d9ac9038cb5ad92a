"""Object store: a folder of the local file system."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlless.channels.files import read_whole
from mlless.channels.ports import Bytes
from mlless.errors import ChannelError, MissingObject


class Folder:
    """An ObjectStore in ``root``; folders are made as objects are put, and stay."""

    distant = False

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, path: str) -> bytes:
        """Return the whole file."""
        with self._read(path) as target:
            return read_whole(target)

    def head(self, path: str, length: int) -> bytes:
        """Return so many of the file's first bytes, or all."""
        with self._read(path) as target, open(target, "rb") as file:
            return file.read(length)

    @contextmanager
    def _read(self, path: str) -> Iterator[str]:
        target = f"{self.root}/{path}"
        try:
            yield target
        except OSError as error:
            absent = isinstance(error, FileNotFoundError | NotADirectoryError)
            kind = MissingObject if absent else ChannelError
            raise _failure(kind, "read", target, error) from error

    def put(self, path: str, data: Bytes) -> None:
        """Write the file under a temporary name, then rename it into place."""
        target = self.root / path
        temporary = target.with_name(f".part-{uuid.uuid4().hex}")
        with _told("write", target):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with temporary.open("xb") as file:
                    file.write(data)
                os.replace(temporary, target)
            except OSError:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise

    def delete(self, paths: Iterable[str]) -> None:
        """Remove the files."""
        for path in paths:
            with _told("delete", self.root / path):
                (self.root / path).unlink(missing_ok=True)

    def names(self) -> set[str]:
        """Return the names of files and folders in the root."""
        with _told("list", self.root):
            return {entry.name for entry in self.root.iterdir()} if self.root.is_dir() else set()


@contextmanager
def _told(doing: str, path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failure(ChannelError, doing, path, error) from error


def _failure(kind: type[ChannelError], doing: str, path: str | Path, error: OSError) -> ChannelError:
    cure = "check free space and permissions" if doing == "write" else "check the path and its permissions"
    return kind(f"cannot {doing}: {error.strerror}", where=str(path), cure=cure)
