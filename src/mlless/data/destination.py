"""Where a new data set is written: a folder, or a prefix in an object store. Whole, or not at all.

A folder is written beside its place and renamed. An object store cannot rename, so the files go to their
place at once. Their names carry checksums and hence collide with no other content. The manifest, which is put
last and in one piece, makes a data set of them.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mlless.channels.folder import Folder
from mlless.channels.opening import open_objects
from mlless.channels.ports import Bytes, ObjectStore
from mlless.data.manifest import MANIFEST, paths_in
from mlless.data.staging import check_prefix_replaceable, check_replaceable, staged
from mlless.errors import ChannelError, DatasetError, MissingObject
from mlless.locations import Directory, Place

_AT_ONCE = 8  # requests
_WAITING = 16  # files held in memory until they are stored


class Sink(Protocol):
    """Takes the files of a data set; the manifest comes last."""

    def put(self, path: str, data: Bytes) -> None:
        """Store a file; it may be on its way when this returns, but never after the manifest's return."""
        ...


@dataclass(frozen=True, slots=True)
class Destination:
    """A folder to ``work`` in, which goes away, and what takes the ``files`` of the data set."""

    work: Path
    files: Sink


@contextmanager
def destination(place: Place, *, overwrite: bool) -> Iterator[Destination]:
    """Give the folder and files to write a data set with that is to appear at ``place``.

    If anything fails, the place stays as it was. UsageError if something is there that must not be replaced.
    """
    if isinstance(place, Directory):
        folder = place.path.resolve()
        check_replaceable(folder, overwrite)
        with staged(folder) as work:
            yield Destination(work, Folder(work / "new"))
        return
    objects, where = open_objects(place), str(place)
    check_prefix_replaceable(objects.names(), where, overwrite)
    with tempfile.TemporaryDirectory(prefix="mlless-") as work_folder, Upload(objects, where) as upload:
        yield Destination(Path(work_folder), upload)


class Upload:
    """Puts files in parallel; on failure removes those that no data set needs."""

    def __init__(self, objects: ObjectStore, where: str) -> None:
        self._objects, self._where = objects, where
        try:
            self._old = self._named()
        except DatasetError:  # damaged: that is why it is replaced
            self._old = set()
        self._put: set[str] = set()
        self._pool = ThreadPoolExecutor(_AT_ONCE, "put")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        if kind is not None:
            # The error under way is the one to tell. Where it is the network's, this cannot do better; nor
            # where the manifest cannot be read, for it may name these very files.
            with contextlib.suppress(ChannelError, DatasetError):
                # What the manifest names that is there now: the new one, if only its answer was lost.
                self._objects.delete(sorted(self._put - self._named()))

    def put(self, path: str, data: Bytes) -> None:
        """Send a file on its way; the manifest when all others are stored, and then remove the old files."""
        if path == MANIFEST:
            self._wait_for_all_but(0)
            self._objects.put(path, data)
            self._objects.delete(sorted(self._old - self._put))
            return
        self._wait_for_all_but(_WAITING - 1)
        self._put.add(path)
        self._waiting.append(self._pool.submit(self._objects.put, path, data))

    def _wait_for_all_but(self, count: int) -> None:
        while len(self._waiting) > count:
            self._waiting.popleft().result()  # not for ever: every request has its deadline

    def _named(self) -> set[str]:
        """Return the paths that the manifest names which is there now."""
        try:
            return paths_in(self._objects.get(MANIFEST), f"{self._where}/{MANIFEST}")
        except MissingObject:
            return set()
