"""The groups that one worker owns: each of their files is read once, and mini-batches come from memory.

A mini-batch is made of one part of every group. Which rows that are stays the same in every epoch, as long
as the worker owns the same groups and an epoch has as many parts; so it is made once and kept, too.

What is kept has a limit, ``ROOM``. Groups that are larger stay in the store: then as many parts as fit are
cut out of them at a time, in one pass over their files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mlless.data.assembly import assemble
from mlless.data.dataset import Dataset
from mlless.data.groups import Group
from mlless.data.manifest import File
from mlless.membership import Ints, bounds_of, order_of
from mlless.models.base import BatchArrays

ROOM = 512 << 20  # bytes of training rows that a worker keeps in memory, and
ROOM_HELD_OUT = 64 << 20  # of held-out ones
_AT_ONCE = 8  # files asked of a distant store: hides the way to it
_SCORED = 25_000  # held-out rows that are scored in one call


@dataclass
class Reads:
    """How many files have been read, and their bytes."""

    files: int = 0
    bytes: int = 0

    def add(self, files: Iterable[File]) -> None:
        """Count ``files``."""
        for file in files:
            self.files += 1
            self.bytes += file.bytes


class Holding:
    """One worker's groups of a data set; ``seed`` decides the order of an epoch's parts."""

    def __init__(self, dataset: Dataset, seed: int, room: int = ROOM, room_held_out: int = ROOM_HELD_OUT):
        self._dataset, self._seed, self._room, self._room_held_out = dataset, seed, room, room_held_out
        self._pool = ThreadPoolExecutor(_AT_ONCE, "fetch") if dataset.objects.distant else None
        self._coming: dict[int, Future[Group]] = {}
        self._groups: tuple[int, ...] = ()
        self._rows: dict[int, Group] = {}  # of the groups, if all of them fit
        self._parts = 0
        self._cut: dict[int, list[Group]] = {}  # part by part, if they do not
        self._made: dict[int, BatchArrays] = {}
        self._free = 0  # bytes for mini-batches beside the rows
        self._scored: dict[int, Group] = {}  # the held-out rows of the groups, if they fit,
        self._held_out: list[BatchArrays] | None = None  # and mini-batches of them
        self._for_training, self._for_scoring = Reads(), Reads()

    def expect(self, groups: Iterable[int]) -> None:
        """Say that ``groups`` will be owned soon: a distant store is asked for them now."""
        if self._pool is not None and self._fit(groups):
            for group in self._missing(groups):
                if group not in self._coming:
                    self._coming[group] = self._pool.submit(self._dataset.read, self._train[group])

    def own(self, groups: tuple[int, ...]) -> None:
        """Own ``groups``, ascending, and no others from now on."""
        if groups == self._groups:
            return
        self._groups, self._held_out = groups, None
        if self._fit(groups):
            self.expect(groups)
            missing = self._missing(groups)
            self._for_training.add(self._train[group] for group in missing)
            self._rows |= {group: self._arrived(group) for group in missing}
            self._rows = {group: self._rows[group] for group in groups if self._train[group].rows}
        else:
            self._rows = {}
        self._forget()

    def batch(self, epoch: int, parts: int, step: int) -> BatchArrays | None:
        """Return the mini-batch of a step of an epoch in so many parts; None if it has no rows."""
        if parts != self._parts:
            self._forget()
            self._parts = parts
        order = order_of(self._seed, epoch, parts)
        part = order[step]
        if part in self._made:
            return self._made[part]
        groups, begins, ends = self._segments(order, step)
        if not (ends > begins).any():
            return None
        batch = assemble(groups, begins, ends, self._dataset.manifest.shape)
        if batch.nbytes <= self._free:
            self._free -= batch.nbytes
            self._made[part] = batch
        return batch

    def held_out(self) -> Iterable[BatchArrays]:
        """Return the held-out rows of the groups as mini-batches."""
        if self._held_out is not None:
            return self._held_out
        validation = self._dataset.manifest.validation
        files = {group: validation[group] for group in self._groups if validation and validation[group].rows}
        if 2 * sum(file.bytes for file in files.values()) > self._room_held_out:
            self._scored = {}
            return self._bunches(self._read(list(files.values())))
        missing = [group for group in files if group not in self._scored]
        self._scored |= dict(zip(missing, self._read([files[group] for group in missing]), strict=True))
        self._scored = {group: self._scored[group] for group in files}
        self._held_out = list(self._bunches(self._scored.values()))
        return self._held_out

    def take_reads(self) -> tuple[Reads, Reads]:
        """Return what has been read to train on and to score since the last call."""
        taken = self._for_training, self._for_scoring
        self._for_training, self._for_scoring = Reads(), Reads()
        return taken

    @property
    def _train(self) -> tuple[File, ...]:
        return self._dataset.manifest.train

    def _fit(self, groups: Iterable[int]) -> bool:
        return sum(self._train[group].bytes for group in groups) <= self._room

    def _missing(self, groups: Iterable[int]) -> list[int]:
        return [group for group in groups if self._train[group].rows and group not in self._rows]

    def _arrived(self, group: int) -> Group:
        coming = self._coming.pop(group, None)
        # Not for ever: a store's requests have their deadlines.
        return coming.result() if coming is not None else self._dataset.read(self._train[group])

    def _forget(self) -> None:
        """Forget what has been made of the groups; a later step makes it anew."""
        self._made, self._cut = {}, {}
        # What is cut out of groups is used once, then it makes way for the next parts.
        self._free = self._room - sum(group.nbytes for group in self._rows.values()) if self._rows else 0

    def _segments(self, order: tuple[int, ...], step: int) -> tuple[list[Group], Ints, Ints]:
        """Return from where to where in which groups the rows of a step lie."""
        part, parts = order[step], len(order)
        if self._rows or not self._groups:
            return list(self._rows.values()), *self._bounds(self._rows, part, parts)
        if part not in self._cut:
            self._cut_out(order, step)
        groups = self._cut.pop(part)
        sizes = np.array([len(group) for group in groups], np.int64)
        return groups, np.zeros_like(sizes), sizes

    def _bounds(self, numbers: Collection[int], part: int, parts: int) -> tuple[Ints, Ints]:
        groups = np.fromiter(numbers, np.int64, len(numbers))
        sizes = np.array([self._train[group].rows for group in numbers], np.int64)
        return bounds_of(groups, sizes, part, parts)

    def _cut_out(self, order: tuple[int, ...], step: int) -> None:
        """Read all groups and keep the rows of the next steps' parts, as many as fit."""
        numbers = [group for group in self._groups if self._train[group].rows]
        files = [self._train[group] for group in numbers]
        fitting = max(1, len(order) * self._room // sum(file.bytes for file in files))
        self._cut = {part: [] for part in order[step : step + fitting]}
        bounds = {part: self._bounds(numbers, part, len(order)) for part in self._cut}
        for place, group in enumerate(self._dataset.groups(files)):
            for part, pieces in self._cut.items():
                begins, ends = bounds[part]
                pieces.append(group.part(begins.item(place), ends.item(place)))
        self._for_training.add(files)

    def _read(self, files: list[File]) -> Iterator[Group]:
        self._for_scoring.add(files)
        return self._dataset.groups(files)

    def _bunches(self, groups: Iterable[Group]) -> Iterator[BatchArrays]:
        """Yield mini-batches of whole groups, large enough for a call to be worth it."""
        held: list[Group] = []
        for group in groups:
            held.append(group)
            if sum(map(len, held)) >= _SCORED:
                yield self._whole(held)
                held = []
        if held:
            yield self._whole(held)

    def _whole(self, groups: list[Group]) -> BatchArrays:
        ends = np.array([len(group) for group in groups], np.int64)
        return assemble(groups, np.zeros_like(ends), ends, self._dataset.manifest.shape)
