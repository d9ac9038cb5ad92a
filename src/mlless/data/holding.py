"""The groups that one worker owns: each of their files is read once, and mini-batches come from memory.

A mini-batch is made of one part of every group. Which rows that are stays the same in every epoch, as long as
the worker owns the same groups and an epoch has as many parts. So it is made once and kept, too.

What is kept has a limit, ``ROOM``. Groups that are larger stay in the store: then as many parts as fit are
cut out of them at a time, in one pass over their files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mlless.data.assembly import assemble
from mlless.data.dataset import Dataset
from mlless.data.groups import Group, RatingsGroup, joined
from mlless.data.manifest import File
from mlless.kernels.arrays import Ids, RatingsArrays, distinct_ids
from mlless.membership import Ints, bounds_of, order_of
from mlless.models.base import BatchArrays

ROOM = 512 << 20  # bytes of training rows that a worker keeps in memory, and
ROOM_HELD_OUT = 64 << 20  # of held-out ones
AT_ONCE = 8  # files asked of a distant store: hides the way to it
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
        self._pool = ThreadPoolExecutor(AT_ONCE, "fetch") if dataset.objects.distant else None
        self._coming: dict[int, Future[Group]] = {}
        self._groups: tuple[int, ...] = ()
        self._fits = True
        self._rows = Joined({})  # of the groups, if all of them fit
        self._parts = 0
        self._cut: dict[int, list[Group]] = {}  # part by part, if they do not
        self._made: dict[int, BatchArrays] = {}
        self._free = 0  # bytes for mini-batches beside the rows
        self._scored: dict[int, Group] = {}  # the held-out rows of the groups, if they fit,
        self._held_out: list[BatchArrays] | None = None  # and mini-batches of them
        self._for_training, self._for_scoring = Reads(), Reads()
        self.assembled = 0

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
        self._groups, self._held_out, self._fits = groups, None, self._fit(groups)
        if self._fits:
            self.expect(groups)
            missing = self._missing(groups)
            self._for_training.add(self._train[group] for group in missing)
            rows = {group: self._arrived(group) for group in missing}
            rows |= {group: self._rows.of(group) for group in groups if group in self._rows.groups}
            self._rows = Joined({group: rows[group] for group in groups if group in rows})
        else:
            self._rows = Joined({})
        self._forget()

    def batch(self, epoch: int, parts: int, step: int) -> BatchArrays | None:
        """Return the mini-batch of a step of an epoch in so many parts; None if it has no rows."""
        self.assembled = 0
        if parts != self._parts:
            self._forget()
            self._parts = parts
        order = order_of(self._seed, epoch, parts)
        part = order[step]
        if part in self._made:
            return self._made[part]
        if not self._fits:
            return self._taken(order, step)
        rows = self._rows.rows
        begins, ends = self._rows.bounds(part, parts)
        if rows is None or not (ends > begins).any():
            return None
        batch = assemble(rows, begins, ends, self._dataset.manifest.shape)
        self.assembled = batch.samples
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

    def users(self) -> Ids:
        """Return the users of the groups, in ascending order: all of whom there is a rating."""
        known = list[Ids]()
        for group in self._rated(self._groups):  # whose rows may be too many to keep a view of them
            if isinstance(group, RatingsGroup):
                known.append(distinct_ids([group.users]))
        known += [batch.users for batch in self.held_out() if isinstance(batch, RatingsArrays)]
        return distinct_ids(known)

    def whole(self, groups: Iterable[int]) -> Iterator[BatchArrays]:
        """Yield all rows to train on of some of the groups as mini-batches; each has all of a user."""
        return self._bunches(self._rated(groups))

    def _rated(self, groups: Iterable[int]) -> Iterator[Group]:
        """Yield the rows of groups, one after the other."""
        numbers = [group for group in groups if self._train[group].rows]
        if self._fits:
            yield from (self._rows.of(group) for group in numbers)
        else:
            files = [self._train[group] for group in numbers]
            self._for_training.add(files)
            yield from self._dataset.groups(files)

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
        return [group for group in groups if self._train[group].rows and group not in self._rows.groups]

    def _arrived(self, group: int) -> Group:
        coming = self._coming.pop(group, None)
        # Not for ever: a store's requests have their deadlines.
        return coming.result() if coming is not None else self._dataset.read(self._train[group])

    def _forget(self) -> None:
        """Forget what has been made of the groups; a later step makes it anew."""
        self._made, self._cut = {}, {}
        rows = self._rows.rows
        self._free = 0 if rows is None else self._room - rows.nbytes

    def _taken(self, order: tuple[int, ...], step: int) -> BatchArrays | None:
        """Return the mini-batch of a step from groups that do not fit; its rows make way for the next."""
        if order[step] not in self._cut:
            self._cut_out(order, step)
        pieces = [piece for piece in self._cut.pop(order[step]) if len(piece)]
        if not pieces:
            return None
        batch = self._whole(pieces)
        self.assembled = batch.samples
        return batch

    def _cut_out(self, order: tuple[int, ...], step: int) -> None:
        """Read all groups and keep the rows of the next steps' parts, as many as fit."""
        numbers = [group for group in self._groups if self._train[group].rows]
        files = [self._train[group] for group in numbers]
        fitting = max(1, len(order) * self._room // sum(file.bytes for file in files))
        self._cut = {part: [] for part in order[step : step + fitting]}
        for number, group in zip(numbers, self._dataset.groups(files), strict=True):
            alone = Joined({number: group})
            for part, pieces in self._cut.items():
                begins, ends = alone.bounds(part, len(order))
                pieces.append(group.part(begins.item(), ends.item()))
        self._for_training.add(files)

    def _read(self, files: list[File]) -> Iterator[Group]:
        self._for_scoring.add(files)
        return self._dataset.groups(files)

    def _bunches(self, groups: Iterable[Group]) -> Iterator[BatchArrays]:
        """Yield mini-batches of whole groups, large enough for a call to be worth it."""
        held: list[Group] = []
        rows = 0
        for group in groups:
            held.append(group)
            rows += len(group)
            if rows >= _SCORED:
                yield self._whole(held)
                held, rows = [], 0
        if held:
            yield self._whole(held)

    def _whole(self, groups: list[Group]) -> BatchArrays:
        rows = joined(groups)
        return assemble(rows, np.zeros(1, np.int64), np.array([len(rows)]), self._dataset.manifest.shape)


class Joined:
    """The rows of several ``groups`` one after the other, and where each group's begin."""

    def __init__(self, groups: Mapping[int, Group]) -> None:
        self.rows = joined(list(groups.values())) if groups else None
        self._numbers = np.fromiter(groups, np.int64, len(groups))
        self._sizes = np.array([len(group) for group in groups.values()], np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self.groups = {group: place for place, group in enumerate(groups)}

    def of(self, group: int) -> Group:
        """Return a copy of a group's rows."""
        assert self.rows is not None
        begin, size = self._starts.item(self.groups[group]), self._sizes.item(self.groups[group])
        return self.rows.part(begin, begin + size)

    def bounds(self, part: int, parts: int) -> tuple[Ints, Ints]:
        """Return where a part of each group begins and ends."""
        begins, ends = bounds_of(self._numbers, self._sizes, part, parts)
        return self._starts + begins, self._starts + ends
