"""Embedded key-value store: files of one machine, nothing to install.

Values are files in a per-job folder in shared memory, written by rename. The file of a deleted value serves
the next one whose key ends alike, such as the next update of the same worker: memory that is there already
takes half the time.

The folder is readable by its user alone; the bus keeps its socket in it. Its owner holds a lock on a file in
it as long as it lives, so that the next job on the machine can remove what the dead have left behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlless.channels.files import read_numbered
from mlless.channels.ports import Bytes
from mlless.errors import ChannelError, MissingUpdate, UsageError

_PREFIX, _OWNER = "mlless-", "owner"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PATH_LIMIT = 96  # a local socket's path may have 104 bytes on macOS, its name in the folder included
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (made private by mkdtemp)
_SPARE = 1 << 20  # bytes up to which the file of a deleted value is kept for the next one


@contextmanager
def job_folder(needed: int) -> Iterator[Path]:
    """Give a new private folder for a job: in shared memory if ``needed`` bytes fit, else on disk.

    ``MLLESS_CHANNEL_DIR`` names another place. What owners that were killed have left there is removed.
    """
    folder = _make_folder(needed)
    try:
        sweep(folder.parent)
        with _owned(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold the lock that says that the folder's owner lives."""
    part = folder / f"{_OWNER}.part"
    with part.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        part.rename(folder / _OWNER)  # no one ever sees the file without its lock
        yield


def sweep(place: Path) -> None:
    """Remove the folders of jobs in ``place`` whose owners are dead."""
    for owner in place.glob(f"{_PREFIX}*/{_OWNER}"):
        remove_orphan(owner.parent)


def remove_orphan(folder: Path) -> bool:
    """Remove a job's folder if its owner is dead; return whether it was there."""
    with contextlib.suppress(OSError), (folder / _OWNER).open() as file:  # another's, or gone by now
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
        return True
    return False


def _make_folder(needed: int) -> Path:
    wanted = os.environ.get("MLLESS_CHANNEL_DIR")
    chosen = str(Path(wanted).absolute()) if wanted else None
    if not wanted and os.access(_SHARED_MEMORY, os.W_OK) and _free(_SHARED_MEMORY) >= needed:
        chosen = str(_SHARED_MEMORY)
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=chosen))
    except OSError as error:
        raise ChannelError(
            f"cannot make the folder of the job's channels: {error.strerror}",
            where=chosen or tempfile.gettempdir(),
            cure="set MLLESS_CHANNEL_DIR to a folder you can write to",
        ) from error
    if len(str(folder)) > _PATH_LIMIT:
        folder.rmdir()
        if wanted:
            raise UsageError(
                "the path of MLLESS_CHANNEL_DIR is too long for a local socket",
                expected=f"a path that leaves {len(folder.name) + 1} of {_PATH_LIMIT} characters",
                found=f"{chosen}",
            )
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp"))
    return folder


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


class EmbeddedStore:
    """A KeyValueStore of files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, key: str) -> str:
        # A key has slashes, a name has none; the prefix keeps keys off the socket's name.
        return f"{self._folder}/key.{key.replace('%', '%25').replace('/', '%2F')}"

    def _spare(self, key: str) -> str:
        return f"{self._folder}/spare.{key.rpartition('/')[2].replace('%', '%25')}"

    def put(self, key: str, value: Sequence[Bytes]) -> None:
        """Write the chunks to a file of a temporary name and rename it."""
        path = self._path(key)
        part = f"{path}.part{os.getpid()}.{threading.get_ident()}"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._spare(key), part)
            try:
                _write(part, value)
            except OSError as error:
                if error.errno not in _FULL or not self._drop_spares():
                    raise
                _write(part, value)
            os.rename(part, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(part)
            if error.errno in _FULL:
                raise ChannelError(
                    f"no room for {sum(len(c) for c in value):,} bytes",
                    where=str(self._folder),
                    found=f"{_free(self._folder):,} bytes free",
                    cure="enlarge the shared memory (docker run --shm-size), "
                    "or set MLLESS_CHANNEL_DIR to a folder with room",
                ) from error
            raise ChannelError(f"cannot write: {error.strerror}", where=path) from error

    def _drop_spares(self) -> bool:
        """Make room; return whether there was anything to remove."""
        spares = list(self._folder.glob("spare.*"))
        for spare in spares:
            spare.unlink(missing_ok=True)  # a writer may have taken it
        return bool(spares)

    def put_all(self, values: Mapping[str, Bytes]) -> None:
        """Write one file after the other."""
        for key, value in values.items():
            self.put(key, [value])

    def get(self, keys: Sequence[str]) -> list[Bytes]:
        """Read the files. Up to some megabytes that is quicker than mapping them and touching every page."""
        values: list[Bytes] = []
        for key in keys:
            try:
                values.append(_read(self._path(key)))
            except FileNotFoundError as error:
                raise MissingUpdate(
                    "not in the store", where=key, cure="another program may have deleted files of the job"
                ) from error
        return values

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the files, or set them aside for the values to come."""
        for key in keys:
            path = self._path(key)
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_size > _SPARE:
                    os.unlink(path)
                else:
                    os.rename(path, self._spare(key))

    def renew(self, keys: Iterable[str]) -> None:
        """Do nothing: files stay until the job's folder is removed."""

    def destroy(self) -> None:
        """Remove the job's folder, the bus in it included."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _write(path: str, value: Sequence[Bytes]) -> None:
    """Write the chunks to a file, over what it holds."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = 0
        for chunk in value:
            rest = memoryview(chunk).cast("B")
            size += len(rest)
            while rest:
                rest = rest[os.write(file, rest) :]
        os.ftruncate(file, size)
    finally:
        os.close(file)


def _read(path: str) -> bytes:
    """Return a file's bytes; FileNotFoundError without one.

    A file that is still there after it was read has not been another value's meanwhile.
    """
    while True:
        data, number = read_numbered(path)
        if os.stat(path).st_ino == number:
            return data
