"""A uniform shuffle of more rows than fit in memory, which also holds a part of them out.

Every row has a keyed hash of what it is (`Rows.hashes`). Rows go to files, buckets, by the leading digit of
the hash; a bucket that is too large to be read back at once is scattered anew by the next digit. Then one
bucket at a time is read and permuted. This equals sorting all rows by a random key whose leading digits are
the buckets, hence a uniform permutation (Sanders, "Random permutations on distributed, external and
hierarchical memory", Information Processing Letters, 1998). Held out are the rows of the smallest hashes.

Ratings of one user for one item have the same hash. So they meet in one bucket, where they are counted, and
either all of them are held out or none is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from mlless.data.hashing import Hashes
from mlless.data.rows import Column, R
from mlless.data.staging import writing

_SIZE = np.dtype("<i8")
_DIGIT = 7  # bits of the hash


class Spool(Generic[R]):
    """Rows on their way through the shuffle: in memory, or if they are too many in files of a new ``folder``.

    At most about ``bound`` bytes of rows are read back at once, however many there are. The order depends
    on the rows, their order in the source, ``seed`` and ``bound``, not on how the rows come in.
    """

    def __init__(self, folder: Path, kind: type[R], seed: int, bound: int) -> None:
        self.folder, self.kind, self.seed, self.bound = folder, kind, seed, bound
        self.dtypes: list[np.dtype[np.generic]] = []
        self.state = hash_state(seed)
        self.repeats = 0  # rows among those ``shuffled`` that are not the first of their hash
        self.largest_group = 0  # the most rows among them that are of one hash
        self._last = -1  # the greatest hash that is held out
        self._all: _Bucket[R] = _Bucket(self, ())
        with writing(folder):
            folder.mkdir()

    @property
    def rows(self) -> int:
        """The number of rows so far."""
        return self._all.rows

    def add(self, rows: R) -> None:
        """Take in ``rows``."""
        if not len(rows):
            return
        self.dtypes = [column.dtype for column in rows.columns()]
        if self._all.bytes + _bytes(rows) > self.bound:
            self._all.split()
        self._all.add(rows)

    def hold_out(self, wanted: int) -> int:
        """Hold ``wanted`` rows out and return how many they are: rows of one hash are kept together."""
        before = 0
        for bucket in self._all.leaves():
            if before + bucket.rows >= wanted:
                hashes = next(bucket.read()).hashes(self.state)
                self._last, held_out = boundary(hashes, bucket.rows, wanted - before)
                return before + held_out
            before += bucket.rows
        return 0

    def shuffled(self, *, keep: bool = False) -> Iterator[R]:
        """Yield all rows in random order, those held out first; delete the files unless to ``keep`` them."""
        self.repeats = self.largest_group = 0
        for bucket in self._all.leaves():
            for number, rows in enumerate(bucket.read()):
                yield rows.take(self._order(bucket, number, rows))
            if not keep:
                bucket.forget()

    def _order(self, bucket: _Bucket[R], number: int, rows: R) -> NDArray[np.intp]:
        """Return the order of ``rows``, part ``number`` of a bucket, and count those of the same hash."""
        hashes = rows.hashes(self.state)
        groups, largest = groups_of(hashes)
        self.largest_group = max(self.largest_group, largest if groups > 1 else bucket.rows)
        self.repeats += len(rows) - (0 if number else groups)  # several parts are one group
        draws = np.random.SeedSequence(self.seed, spawn_key=(*bucket.digits, number))
        return random_order(hashes, self._last, draws)


class _Bucket(Generic[R]):
    """The rows whose hashes begin with ``digits``: in a file, or in a bucket for each next digit.

    All rows, those that begin with no digits, are in memory instead of a file.
    """

    def __init__(self, spool: Spool[R], digits: tuple[int, ...]) -> None:
        self.spool, self.digits = spool, digits
        self.path = spool.folder / "-".join(map(str, ("rows", *digits)))
        self.rows = self.bytes = 0
        self.held: list[tuple[Column, ...]] = []
        self.parts: list[_Bucket[R]] = []

    def add(self, rows: R) -> None:
        """Put the rows where they belong."""
        self.rows += len(rows)
        self.bytes += _bytes(rows)
        if self.parts:
            self._scatter(rows)
            return
        columns = rows.columns()
        if not self.digits:
            self.held.append(columns)
        else:
            with writing(self.path), self.path.open("ab") as file:
                file.write(np.array([len(column) for column in columns], _SIZE).tobytes())
                for column in columns:
                    file.write(np.ascontiguousarray(column).data)

    def forget(self) -> None:
        """Remove the rows from memory or disk."""
        self.held = []
        self.path.unlink(missing_ok=True)

    def split(self) -> None:
        """Give each next digit a bucket, unless that is done."""
        if self.parts:
            return
        self.parts = [_Bucket(self.spool, (*self.digits, digit)) for digit in range(1 << _DIGIT)]
        if self.rows:
            for rows in self._gathered():
                self._scatter(rows)
            self.forget()

    def leaves(self) -> Iterator[_Bucket[R]]:
        """Yield the buckets that hold rows themselves, in order; split those that are too large."""
        if self.bytes > self.spool.bound and not self.parts and not self._alike:
            self.split()
        for part in self.parts:
            yield from part.leaves()
        if self.rows and not self.parts:
            yield self

    def read(self) -> Iterator[R]:
        """Yield the rows: all at once, or in parts if they are too many, which are then alike."""
        most = max(self.rows * self.spool.bound // self.bytes, 1)
        return cut(self._pieces(), even_sizes(self.rows, most))

    @cached_property
    def _alike(self) -> bool:
        """Whether the rows cannot be told apart by their hashes, so that to split them is no use."""
        hashes = (piece.hashes(self.spool.state) for piece in self._pieces())
        first = next(hashes)
        no_digit_left = len(self.digits) == 64 // _DIGIT
        return no_digit_left or all(
            bool((some == first[0]).all()) for some in itertools.chain([first], hashes)
        )

    def _scatter(self, rows: R) -> None:
        shift = 64 - _DIGIT * (len(self.digits) + 1)
        leading = rows.hashes(self.spool.state) >> np.uint64(shift)
        digits = (leading % np.uint64(len(self.parts))).astype(np.uint8)
        rows = rows.take(np.argsort(digits, kind="stable"))
        counts = np.bincount(digits, minlength=len(self.parts)).tolist()
        start = 0
        for part, count in zip(self.parts, counts, strict=True):
            if count:
                part.add(rows.part(start, start + count))
            start += count

    def _gathered(self) -> Iterator[R]:
        """Yield the rows in as few parts as the bound allows: to scatter small ones would take long."""
        held: list[R] = []
        size = 0
        for piece in self._pieces():
            size += _bytes(piece)
            if held and size > self.spool.bound:
                yield self.spool.kind.join(held)
                held, size = [], _bytes(piece)
            held.append(piece)
        yield self.spool.kind.join(held)

    def _pieces(self) -> Iterator[R]:
        """Yield the rows as they were added."""
        if not self.digits:
            yield from map(self.spool.kind.of, self.held)
            return
        dtypes = self.spool.dtypes
        with writing(self.path), self.path.open("rb") as file:
            while len(sizes := np.fromfile(file, _SIZE, len(dtypes))):
                columns = zip(dtypes, sizes.tolist(), strict=True)
                yield self.spool.kind.of([np.fromfile(file, dtype, size) for dtype, size in columns])


def _bytes(rows: R) -> int:
    return sum(column.nbytes for column in rows.columns())


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


def boundary(hashes: Hashes, rows: int, wanted: int) -> tuple[int, int]:
    """Return the greatest hash to hold out, and how many rows that holds out: near to ``wanted``.

    ``hashes`` are those of all ``rows``, or of some where all are the same.
    """
    if not wanted:
        return -1, 0
    place = min(wanted, len(hashes)) - 1
    at = int(np.partition(hashes, place)[place])
    fewer, more = int((hashes < at).sum()), rows - int((hashes > at).sum())
    return (at, more) if more - wanted < wanted - fewer else (at - 1, fewer)


def random_order(hashes: Hashes, last: int, draws: np.random.SeedSequence) -> NDArray[np.intp]:
    """Return a random order of rows in which those come first whose hash is at most ``last``."""
    order = np.random.default_rng(draws).permutation(len(hashes))
    return order[np.argsort(hashes[order] > last, kind="stable")]


def after(stream: Iterator[R], rows: int) -> Iterator[R]:
    """Yield what comes in ``stream`` after so many ``rows``."""
    for piece in stream:
        skipped = min(rows, len(piece))
        rows -= skipped
        if skipped < len(piece):
            yield piece.part(skipped, len(piece))


def cut(stream: Iterator[R], sizes: Sequence[int]) -> Iterator[R]:
    """Yield the rows of ``stream`` anew in pieces of ``sizes``, which add up to no more than there are."""
    rows: R | None = None
    at = 0
    for size in sizes:
        held = [] if rows is None else [rows.part(at, len(rows))]
        missing = size - sum(map(len, held))
        if rows is None or missing > 0:
            while missing > 0:
                held.append(next(stream))
                missing -= len(held[-1])
            rows, at = held[0] if len(held) == 1 else type(held[0]).join(held), 0
        yield rows.part(at, at + size)
        at += size


def even_sizes(rows: int, largest: int) -> list[int]:
    """Return the sizes of the fewest batches of at most ``largest`` rows; they differ by at most one."""
    batches = -(-rows // largest)
    if not batches:
        return []
    size, longer = divmod(rows, batches)
    return [size + 1] * longer + [size] * (batches - longer)
