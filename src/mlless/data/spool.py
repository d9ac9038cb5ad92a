"""A uniform shuffle of more rows than fit in memory.

Every row goes to a bucket drawn at random, a file; then one bucket at a time is read back and
permuted. This equals sorting all rows by an independent random key whose leading digits are
the bucket, hence a uniform permutation (Sanders, "Random permutations on distributed, external
and hierarchical memory", Information Processing Letters, 1998).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Generic

import numpy as np

from mlless.data.rows import Column, R
from mlless.data.staging import writing

_SIZE = np.dtype("<i8")


class Spool(Generic[R]):
    """Rows on their way through the shuffle, in ``buckets`` files of a new ``folder``.

    The draws are one per row, in order, so they do not depend on how the rows come in.
    """

    def __init__(self, folder: Path, kind: type[R], buckets: int, seed: int) -> None:
        self.folder, self.kind, self.buckets = folder, kind, buckets
        self.rows = 0
        *self._orders, draws = np.random.SeedSequence(seed).spawn(buckets + 1)
        self._draws = np.random.default_rng(draws)
        self._dtypes: list[np.dtype[np.generic]] = []
        with writing(folder):
            folder.mkdir()

    def add(self, rows: R) -> None:
        """Put each of the rows into a bucket."""
        if not len(rows):
            return
        self.rows += len(rows)
        self._dtypes = [column.dtype for column in rows.columns()]
        bucket = (self._draws.random(len(rows)) * self.buckets).astype(np.int64)
        rows = rows.take(np.argsort(bucket, kind="stable"))
        ends = np.cumsum(np.bincount(bucket, minlength=self.buckets))
        start = 0
        for number, end in enumerate(ends.tolist()):
            if end > start:
                self._append(number, rows.part(start, end).columns())
            start = end

    def shuffled(self, *, keep: bool = False) -> Iterator[R]:
        """Yield all rows in random order, a bucket at a time, and delete the files unless to ``keep``."""
        for number, order in enumerate(self._orders):
            path = self._path(number)
            if path.exists():
                rows = self.kind.join(self._pieces(path))
                if not keep:
                    path.unlink()
                yield rows.take(np.random.default_rng(order).permutation(len(rows)))

    def _path(self, bucket: int) -> Path:
        return self.folder / str(bucket)

    def _append(self, bucket: int, columns: Sequence[Column]) -> None:
        with writing(self._path(bucket)), self._path(bucket).open("ab") as file:
            file.write(np.array([len(column) for column in columns], _SIZE).tobytes())
            for column in columns:
                file.write(np.ascontiguousarray(column).data)

    def _pieces(self, path: Path) -> list[R]:
        with writing(path):
            data = path.read_bytes()
        pieces, at = [], 0
        while at < len(data):
            sizes = np.frombuffer(data, _SIZE, len(self._dtypes), at).tolist()
            at += len(sizes) * _SIZE.itemsize
            columns = []
            for size, dtype in zip(sizes, self._dtypes, strict=True):
                columns.append(np.frombuffer(data, dtype, size, at))
                at += size * dtype.itemsize
            pieces.append(self.kind.of(columns))
        return pieces


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
            rows, at = type(held[0]).join(held), 0
        yield rows.part(at, at + size)
        at += size


def even_sizes(rows: int, largest: int) -> list[int]:
    """Return the sizes of the fewest batches of at most ``largest`` rows; they differ by at most one."""
    batches = -(-rows // largest)
    if not batches:
        return []
    size, longer = divmod(rows, batches)
    return [size + 1] * longer + [size] * (batches - longer)
