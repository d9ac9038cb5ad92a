"""Rows of any number on their way from a source to the files of their groups, in bounded memory.

Rows come in as they do and are appended to a file, one run after the other. Once it is known which group
each is of, every run is sorted by group where it lies; then some groups at a time are gathered from all
runs. If all rows fit into memory, there is no file, and all groups are gathered at once.

Which rows are held out, a keyed hash of what a row is about decides (`Rows.hashes`): those of the smallest
hashes. So either all ratings of one user for one item are held out or none is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from mlless.data.dealing import Deal, Numbers, by_group, spread
from mlless.data.hashing import Hashes
from mlless.data.rows import Column, R
from mlless.data.staging import writing

_EXACT = 1 << 18  # rows whose hashes are kept to hold out as many as wanted; of more they are counted
_LEADING = 16  # by so many bits
_PIECE = 1 << 16  # rows to train on at a time


@dataclass(frozen=True, slots=True)
class _Run:
    """Rows in the file: where each column begins, and its length."""

    places: tuple[int, ...]
    sizes: tuple[int, ...]


class Spool(Generic[R]):
    """Rows that come in, in memory or if they are too many in a new ``folder``, and go out group by group.

    About ``bound`` bytes of rows are held at once, however many there are, unless one group has more. What
    goes out depends on the rows, their order and ``seed``, not on how they come in nor on ``bound``.
    """

    def __init__(self, folder: Path, kind: type[R], seed: int, bound: int) -> None:
        self.kind, self.seed, self.bound = kind, seed, bound
        self.rows = self.size = 0
        self.repeats = 0  # rows that have gone out and are not the first of their hash
        self.largest_group = 0  # the most rows that have gone out and are of one hash
        self._state = hash_state(seed)
        self._hashes = _Hashes()
        self._last = -1  # the greatest hash that is held out
        self._held: list[tuple[Column, ...]] = []
        self._held_size = 0
        self._dtypes: list[np.dtype[np.generic]] = []
        self._runs: list[_Run] = []
        self._folder, self._path = folder, folder / "rows"
        with writing(folder):
            folder.mkdir()

    def add(self, rows: R) -> None:
        """Take in ``rows``."""
        if not len(rows):
            return
        columns = rows.columns()
        self._dtypes = [column.dtype for column in columns]
        self._hashes.add(rows.hashes(self._state))
        size = sum(column.nbytes for column in columns)
        if self._held and self._held_size + size > self.bound:
            self._put_held()
        self._held.append(columns)
        self._held_size += size
        self.rows, self.size = self.rows + len(rows), self.size + size

    def hold_out(self, wanted: int) -> int:
        """Hold near to ``wanted`` rows out and return how many they are; rows of one hash stay together."""
        self._last, held_out = self._hashes.boundary(wanted)
        return held_out

    def training(self) -> Iterator[R]:
        """Yield the rows that are not held out, in their order, always cut at the same places."""
        pieces: list[R] = []
        missing = _PIECE
        for rows in self._all():
            rows = rows.take(np.flatnonzero(rows.hashes(self._state) > self._last))
            at = 0
            while at < len(rows):
                pieces.append(rows.part(at, min(at + missing, len(rows))))
                at += len(pieces[-1])
                missing -= len(pieces[-1])
                if not missing:
                    yield self.kind.join(pieces)
                    pieces, missing = [], _PIECE
        if pieces:
            yield self.kind.join(pieces)

    def dealt(self, deal: Deal[R]) -> Iterator[tuple[R, R]]:
        """Yield for each group its rows to train on and its held-out rows, both in random order.

        The rows are gone after that.
        """
        for groups, rows, group_of in self._gathered(deal):
            hashes = rows.hashes(self._state)
            distinct, largest = groups_of(hashes)
            self.repeats += len(hashes) - distinct
            self.largest_group = max(self.largest_group, largest)
            for places, held_out in spread(group_of, hashes <= self._last, groups, self.seed):
                yield rows.take(places), rows.take(held_out)
            del rows, group_of, hashes  # before the next ones are there

    def _gathered(self, deal: Deal[R]) -> Iterator[tuple[range, R, Numbers]]:
        """Yield all rows of consecutive groups, as many as fit, in the order in which they came."""
        if not self._put_runs():
            for rows in self._all():
                self._held = []
                yield range(deal.groups), rows, deal.of(rows, 0)
            return
        starts = self._sort(deal)
        for groups in self._shares(starts):
            yield groups, *self._gather(starts, groups)
        self._path.unlink()

    def _all(self) -> Iterator[R]:
        """Yield all rows in the order in which they came, a run at a time."""
        for run in self._put_runs():
            yield self.kind.of(self._read(run, [0] * len(run.sizes), run.sizes))
        if self._held:
            yield self.kind.of([np.concatenate(column) for column in zip(*self._held, strict=True)])

    def _put_runs(self) -> list[_Run]:
        """Return the runs, which hold all rows or none."""
        if self._runs and self._held:
            self._put_held()
        return self._runs

    def _put_held(self) -> None:
        columns = [np.concatenate(column) for column in zip(*self._held, strict=True)]
        self._held, self._held_size = [], 0
        with writing(self._path), self._path.open("ab") as file:
            places = []
            for column in columns:
                places.append(file.tell())
                file.write(column.data)
        self._runs.append(_Run(tuple(places), tuple(map(len, columns))))

    def _read(self, run: _Run, starts: list[int], stops: tuple[int, ...] | list[int]) -> list[Column]:
        """Return a part of each column of a run."""
        parts = zip(self._dtypes, run.places, starts, stops, strict=True)
        with writing(self._path), self._path.open("rb") as file:
            columns: list[Column] = []
            for dtype, place, start, stop in parts:
                file.seek(place + start * dtype.itemsize)
                columns.append(np.fromfile(file, dtype, stop - start))
        return columns

    def _sort(self, deal: Deal[R]) -> NDArray[np.int64]:
        """Sort each run by group; return where each group begins in each column of each run, and ends."""
        with writing(self._folder):
            shape = len(self._runs), len(self._dtypes), deal.groups + 1
            starts = np.lib.format.open_memmap(self._folder / "starts.npy", "w+", np.int64, shape)
        first = 0
        for number, rows in enumerate(self._all()):
            group_of = deal.of(rows, first)
            first += len(rows)
            rows = rows.take(by_group(group_of))
            ends = np.cumsum(np.bincount(group_of, minlength=deal.groups)).tolist()
            sizes = [
                [len(column) for column in rows.part(start, end).columns()]
                for start, end in zip([0, *ends], ends, strict=False)
            ]
            starts[number, :, 0] = 0
            np.cumsum(np.array(sizes).T, axis=1, out=starts[number, :, 1:])
            with writing(self._path), self._path.open("r+b") as file:
                for column, place in zip(rows.columns(), self._runs[number].places, strict=True):
                    file.seek(place)
                    file.write(np.ascontiguousarray(column).data)
            del rows, group_of  # before the next ones are there
        return starts

    def _shares(self, starts: NDArray[np.int64]) -> Iterator[range]:
        """Yield runs of groups whose rows fit into memory together; one that does not fit stands alone."""
        widths = np.array([dtype.itemsize for dtype in self._dtypes])
        ends = np.zeros(starts.shape[2], np.int64)
        for run in starts:
            ends += widths @ run
        first, groups = 0, len(ends) - 1
        while first < groups:
            stop = int(np.searchsorted(ends, ends[first] + self.bound, side="right")) - 1
            yield range(first, stop := max(stop, first + 1))
            first = stop

    def _gather(self, starts: NDArray[np.int64], groups: range) -> tuple[R, Numbers]:
        """Return the rows of the groups, and the group of each."""
        pieces, counts = [], []
        for run, table in zip(self._runs, starts, strict=True):
            bounds = table[:, groups.start : groups.stop + 1]
            pieces.append(self._read(run, bounds[:, 0].tolist(), bounds[:, -1].tolist()))
            counts.append(np.diff(bounds[0]))  # the first column has an entry a row
        group_of = np.repeat(np.tile(np.array(groups), len(counts)), np.concatenate(counts))
        return self.kind.of([np.concatenate(column) for column in zip(*pieces, strict=True)]), group_of


class _Hashes:
    """The hashes of rows: all of them, or if they are many how many have the same leading bits."""

    def __init__(self) -> None:
        self._kept: list[Hashes] | None = []
        self._rows = 0
        self._counts = np.zeros(1 << _LEADING, np.int64)

    def add(self, hashes: Hashes) -> None:
        """Take in ``hashes``."""
        self._rows += len(hashes)
        if self._kept is not None:
            self._kept.append(hashes)
            if self._rows <= _EXACT:
                return
            hashes, self._kept = np.concatenate(self._kept), None
        leading = (hashes >> np.uint64(64 - _LEADING)).astype(np.int64)
        self._counts += np.bincount(leading, minlength=len(self._counts))

    def boundary(self, wanted: int) -> tuple[int, int]:
        """Return the greatest hash to hold out, and how many rows that holds out: near to ``wanted``."""
        if not wanted:
            return -1, 0
        if self._kept is not None:
            return boundary(np.concatenate(self._kept), wanted)
        ends = np.append(0, np.cumsum(self._counts))
        nearest = int(np.abs(ends - wanted).argmin())
        return (nearest << (64 - _LEADING)) - 1, int(ends[nearest])


def hash_state(seed: int) -> np.uint64:
    """Return the state from which ``Rows.hashes`` starts for a seed."""
    return np.uint64(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])


def groups_of(hashes: Hashes) -> tuple[int, int]:
    """Return how many different hashes there are, and how often the most frequent one is there."""
    ordered = np.sort(hashes)
    last = ordered[1:] != ordered[:-1]  # of its hash
    groups = int(np.count_nonzero(last)) + 1
    if groups == len(hashes):
        return groups, 1
    return groups, int(np.diff(np.flatnonzero(last), prepend=-1, append=len(hashes) - 1).max())


def boundary(hashes: Hashes, wanted: int) -> tuple[int, int]:
    """Return the greatest of all ``hashes`` to hold out, and how many that holds out: near to ``wanted``."""
    if not wanted:
        return -1, 0
    at = int(np.partition(hashes, wanted - 1)[wanted - 1])
    fewer, more = int((hashes < at).sum()), int((hashes <= at).sum())
    return (at, more) if more - wanted < wanted - fewer else (at - 1, fewer)
