"""Mini-batches as objects of a job, for functions that keep nothing: cut out once, then read one a step.

They hold the same rows in the same order as the mini-batches of MLLess' workers with the same seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mlless.channels.ports import ObjectStore
from mlless.data.assembly import assemble
from mlless.data.dataset import Dataset
from mlless.data.groups import Group, decode_group, encode_group, joined
from mlless.data.holding import Joined, Reads
from mlless.data.manifest import Clicks, Ratings
from mlless.membership import order_of
from mlless.models.base import BatchArrays


def cut(
    objects: ObjectStore, dataset: Dataset, worker: int, groups: Sequence[int], parts: int
) -> tuple[Reads, int]:
    """Store a worker's part of each mini-batch of an epoch, and its held-out rows.

    Returns what was read for that, and how many bytes were stored, as ``parts + 1`` objects.
    """
    train, held_out = dataset.manifest.train, dataset.manifest.validation
    files = {group: train[group] for group in groups if train[group].rows}
    rows = Joined(dict(zip(files, dataset.groups(files.values()), strict=True)))
    scored = [held_out[group] for group in groups if held_out and held_out[group].rows]
    size = _store(objects, _held_out(worker), list(dataset.groups(scored)))
    for part in range(parts):
        begins, ends = rows.bounds(part, parts)
        bounds = zip(begins.tolist(), ends.tolist(), strict=True)
        size += _store(
            objects,
            _batch(worker, part),
            [rows.rows.part(*one) for one in bounds] if rows.rows is not None else [],
        )
    reads = Reads()
    reads.add([*files.values(), *scored])
    return reads, size


def _store(objects: ObjectStore, name: str, pieces: Sequence[Group]) -> int:
    data = encode_group(joined(pieces)) if pieces else b""
    objects.put(name, data)
    return len(data)


def _batch(worker: int, part: int) -> str:
    return f"batch-{worker}-{part}"


def _held_out(worker: int) -> str:
    return f"held-out-{worker}"


class Pieces:
    """The rows of one worker as they were ``cut``, for a ``stepping.Stepper``."""

    def __init__(self, objects: ObjectStore, seed: int, worker: int, shape: Ratings | Clicks) -> None:
        self._objects, self._seed, self._worker, self._shape = objects, seed, worker, shape
        self._training, self._scoring = Reads(), Reads()
        self.assembled = 0

    def expect(self, groups: Iterable[int]) -> None:
        """Do nothing: an object is read when it is needed."""

    def own(self, groups: tuple[int, ...]) -> None:
        """Do nothing: what was cut are the worker's groups."""

    def batch(self, epoch: int, parts: int, step: int) -> BatchArrays | None:
        """Return the mini-batch of a step of an epoch; None if it has no rows."""
        batch = self._read(_batch(self._worker, order_of(self._seed, epoch, parts)[step]), self._training)
        self.assembled = 0 if batch is None else batch.samples
        return batch

    def held_out(self) -> Iterable[BatchArrays]:
        """Return the held-out rows as one mini-batch, if there are any."""
        batch = self._read(_held_out(self._worker), self._scoring)
        return () if batch is None else (batch,)

    def take_reads(self) -> tuple[Reads, Reads]:
        """Return what has been read to train on and to score since the last call."""
        taken, self._training, self._scoring = (self._training, self._scoring), Reads(), Reads()
        return taken

    def _read(self, name: str, reads: Reads) -> BatchArrays | None:
        data = self._objects.get(name)
        reads.files, reads.bytes = reads.files + 1, reads.bytes + len(data)
        kind = "ratings" if isinstance(self._shape, Ratings) else "clicks"
        rows = decode_group(kind, data, name) if data else None
        if rows is None or not len(rows):
            return None
        return assemble(rows, np.zeros(1, np.int64), np.array([len(rows)]), self._shape)
