"""Object store: a folder of the local file system."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

from mlless.channels.files import read_whole
from mlless.channels.ports import Bytes
from mlless.errors import ChannelError


class Folder:
    """An ObjectStore in ``root``; folders are made as objects are put."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, path: str) -> bytes:
        """Return the whole file."""
        try:
            return read_whole(f"{self.root}/{path}")
        except OSError as error:
            raise ChannelError(
                f"cannot read: {error.strerror}",
                where=str(self.root / path),
                cure="check the path and its permissions",
            ) from error

    def put(self, path: str, data: Bytes) -> None:
        """Write the file under a temporary name, then rename it into place."""
        target = self.root / path
        temporary = target.with_name(f".part-{uuid.uuid4().hex}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(data)
            os.replace(temporary, target)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise ChannelError(
                f"cannot write: {error.strerror}", where=str(target), cure="check free space and permissions"
            ) from error
