"""A data set as a worker or a driver sees it: its manifest, its mini-batches, its original ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from mlless.channels.folder import Folder
from mlless.channels.ports import ObjectStore
from mlless.data.batches import Batch, decode_batch
from mlless.data.manifest import MANIFEST, File, Manifest, decode_manifest
from mlless.errors import DatasetError


@dataclass(frozen=True, slots=True)
class RatingIds:
    """The original id of each table row: ``users[n]`` is the id of row ``n`` of the users."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]


class IdIndex:
    """From original ids to table rows."""

    def __init__(self, ids: NDArray[np.int64]) -> None:
        self._order = np.argsort(ids, kind="stable")
        self._sorted = ids[self._order]

    def find(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the table row of each id, -1 where it is unknown."""
        if len(self._sorted) == 0:
            return np.full(len(ids), -1, np.int64)
        places = np.minimum(np.searchsorted(self._sorted, ids), len(self._sorted) - 1)
        return np.where(self._sorted[places] == ids, self._order[places], -1).astype(np.int64)


@dataclass(frozen=True, slots=True, repr=False)
class Dataset:
    """An open data set. ``location`` is for people; ``objects`` holds the files of the manifest."""

    location: str
    manifest: Manifest
    objects: ObjectStore

    def __repr__(self) -> str:
        manifest = self.manifest
        held_out = sum(file.rows for file in manifest.validation)
        return f"<Dataset {self.location}: {manifest.rows} {manifest.kind}, {held_out} of them held out>"

    def read(self, file: File) -> Batch:
        """Return the mini-batch in ``file``; DatasetError if its bytes are not the ones written."""
        data = self._bytes(file)
        return decode_batch(self.manifest.kind, data, f"{self.location}/{file.path}")

    def ids(self) -> RatingIds:
        """Return the original ids of a ratings data set."""
        file = self.manifest.ids
        if file is None:
            raise DatasetError(
                "no ids in this data set", where=self.location, expected="ratings", found=self.manifest.kind
            )
        try:
            arrays = safetensors.numpy.load(self._bytes(file))
            return RatingIds(users=arrays["users"], items=arrays["items"])
        except (safetensors.SafetensorError, KeyError) as error:
            where = f"{self.location}/{file.path}"
            raise DatasetError(
                "not a file of ids", where=where, found=str(error), cure="partition the source again"
            ) from error

    def _bytes(self, file: File) -> bytes:
        data = self.objects.get(file.path)
        file.check(data, self.location)
        return data


def open_dataset(path: str | Path) -> Dataset:
    """Return the data set in the folder ``path``; DatasetError if there is none, or of another version."""
    root = Path(path)
    where = str(root)
    if not root.is_dir():
        raise DatasetError(
            "not a folder" if root.exists() else "no such folder",
            where=where,
            expected="a data set",
            cure="make one with mlless partition SOURCE DEST",
        )
    if not (root / MANIFEST).is_file():
        raise DatasetError(
            "not a data set",
            where=where,
            expected=f"a folder with {MANIFEST}",
            cure="make one with mlless partition SOURCE DEST",
        )
    objects = Folder(root)
    manifest = decode_manifest(objects.get(MANIFEST), f"{where}/{MANIFEST}")
    return Dataset(where, manifest, objects)
