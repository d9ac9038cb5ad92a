"""A data set as a worker or a driver sees it: its manifest, the rows of its groups, its original ids."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import safetensors
import safetensors.numpy

from mlless.channels.opening import open_objects
from mlless.channels.ports import ObjectStore
from mlless.data.groups import Group, decode_group
from mlless.data.ids import RatingIds, unpack
from mlless.data.manifest import MANIFEST, File, Manifest, Ratings, decode_manifest
from mlless.errors import DatasetError, MissingObject, MLLessError
from mlless.locations import Directory, Location, Place, place_of

_AHEAD = 8  # files fetched ahead: hides the way to a distant store, and is little memory
_CURE = "make one with mlless partition SOURCE DEST"


@dataclass(frozen=True, slots=True, repr=False)
class Dataset:
    """An open data set, as `mlless.open_dataset` and `mlless.partition` return it.

    Attributes
    ----------
    location : str
        Where it is, as it was given: for messages.
    manifest : Manifest
        Counts, shape, files and their checksums.
    objects : ObjectStore
        Reads its files.
    address : str
        Where it is, in a form that any process can open: an absolute path or a URL.
    """

    location: str
    manifest: Manifest
    objects: ObjectStore
    address: str

    def __repr__(self) -> str:
        manifest = self.manifest
        held_out = sum(file.rows for file in manifest.validation)
        what = f"{self.location}: {manifest.rows} {manifest.kind}, {held_out} of them held out"
        return f"<Dataset {what}{''.join(f'; {note.text}' for note in manifest.notes)}>"

    def read(self, file: File) -> Group:
        """Return the rows in ``file``; DatasetError if its bytes are not the ones written."""
        data = self._bytes(file)
        return decode_group(self.manifest.kind, data, f"{self.location}/{file.path}")

    def groups(self, files: Iterable[File]) -> Iterator[Group]:
        """Yield the rows in each of ``files``, in the order of the files.

        From a bucket some files are fetched ahead. Files without rows are passed over.
        """
        files = [file for file in files if file.rows]
        if not self.objects.distant:
            yield from map(self.read, files)
            return
        with ThreadPoolExecutor(_AHEAD, "fetch") as pool:
            coming: deque[Future[Group]] = deque()
            try:
                for file in files:
                    coming.append(pool.submit(self.read, file))
                    if len(coming) > _AHEAD:
                        yield coming.popleft().result()
                while coming:
                    yield coming.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def ids(self) -> RatingIds:
        """Return the original ids of a ratings data set."""
        file, shape = self.manifest.ids, self.manifest.shape
        if file is None or not isinstance(shape, Ratings):
            raise DatasetError(
                "no ids in this data set", where=self.location, expected="ratings", found=self.manifest.kind
            )
        try:
            arrays = safetensors.numpy.load(self._bytes(file))
            return RatingIds(unpack(arrays, "users", shape.users), unpack(arrays, "items", shape.items))
        except (safetensors.SafetensorError, ValueError) as error:
            where = f"{self.location}/{file.path}"
            raise DatasetError(
                "not a file of ids", where=where, found=str(error), cure="partition the source again"
            ) from error

    def _bytes(self, file: File) -> bytes:
        try:
            data = self.objects.get(file.path)
            file.check(data, self.location)
        except (DatasetError, MissingObject) as error:
            self._check_same(error)
            if isinstance(error, DatasetError):
                raise
            what, cure = "a file of the data set is missing", "partition the source again"
            raise DatasetError(what, where=error.where, cure=cure) from error
        return data

    def _check_same(self, trouble: Exception) -> None:
        """Raise DatasetError if another data set has taken the place of this one: that is the ``trouble``."""
        try:
            now = decode_manifest(self.objects.get(MANIFEST), f"{self.location}/{MANIFEST}").fingerprint
        except MLLessError:
            return  # it is gone, or damaged itself: the trouble says enough
        if now != self.manifest.fingerprint:
            raise DatasetError(
                "the data set changed while it was in use",
                where=self.location,
                expected=f"fingerprint {self.manifest.fingerprint}",
                found=now,
                cure="it was partitioned again meanwhile: start again",
            ) from trouble


def open_dataset(location: Location) -> Dataset:
    """Return the data set at ``location``, a folder or a URL.

    DatasetError if there is none, or one of another version.
    """
    return dataset_at(place_of(location))


def dataset_at(place: Place) -> Dataset:
    """Return the data set at ``place``; see ``open_dataset``."""
    where = str(place)
    if isinstance(place, Directory) and not place.path.is_dir():
        what = "not a folder" if place.path.exists() else "no such folder"
        raise DatasetError(what, where=where, expected="a data set", cure=_CURE)
    objects = open_objects(place)
    try:
        data = objects.get(MANIFEST)
    except MissingObject as error:
        raise DatasetError(
            "not a data set", where=where, expected=f"a {MANIFEST} there", cure=_CURE
        ) from error
    return Dataset(where, decode_manifest(data, f"{where}/{MANIFEST}"), objects, place.address)
