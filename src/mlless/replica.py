"""PURE: a worker's full copy of the model, the backbone of the exchange.

A parameter's value is ``shared + residual``. ``shared`` starts at x_0 and only ``merge`` writes it:
it is the same bits on every worker, always. Whatever else moves a parameter goes into
``residual`` until it is published.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from mlless import kernels
from mlless.errors import CodecError, DatasetError
from mlless.job import MergeRule
from mlless.kernels.arrays import Bytes, Floats, Ids, Rows, Total

_LINE = 16  # floats in a cache line
_ROWS_AT_ONCE = 1 << 12  # of a large sum, as it is merged
_ALL = slice(None)


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table of parameters: its name, rows and columns.

    ``apart`` says that no two workers train the same row: then what one publishes is merged as it is. If it
    is ``owned`` such a row is trained, kept and scored by one worker alone, and never published. Others do
    not know its value.
    """

    name: str
    rows: int
    columns: int
    apart: bool = False
    owned: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table's memory with views of its sections, each rows x columns float32."""

    shape: TableShape
    rows: Rows
    room: Floats  # the rows and those that it may grow by

    @classmethod
    def zeros(cls, shape: TableShape, room: int = 0) -> Table:
        """Return a table of zeros that no step has touched, its rows aligned to cache lines.

        There is room for so many rows, if it is to grow.
        """
        used = 3 * shape.columns + 1
        stride = used if used <= 4 else -(-used // _LINE) * _LINE
        room = max(room, shape.rows)
        memory = np.zeros(room * stride + _LINE, np.float32)
        start = -(memory.ctypes.data // memory.itemsize) % _LINE
        data = memory[start : start + room * stride].reshape(room, stride)
        if not shape.owned:  # a page that nobody writes to takes no memory, and most rows are others'
            data.view(np.int32)[:, 3 * shape.columns] = -1
        return cls(shape, Rows(data[: shape.rows], stride), data)

    def grown(self, further: Floats, last: int) -> Table:
        """Return the table with ``further`` rows that count as touched in the step ``last``.

        Its memory is this table's where there is room, else half as much again. So many rows that come a few
        at a time cost no more than if they came at once.
        """
        before, rows = self.shape.rows, self.shape.rows + len(further)
        shape = TableShape(self.shape.name, rows, self.shape.columns)
        if rows <= len(self.room):
            table = Table(shape, Rows(self.room[:rows], self.rows.stride), self.room)
        else:
            table = Table.zeros(shape, rows + rows // 2)
            table.rows.data[:before] = self.rows.data
        table.shared[before:], table.last[before:] = further, last
        return table

    def _section(self, number: int) -> Floats:
        columns = self.shape.columns
        return self.rows.data[:, number * columns : (number + 1) * columns]

    @property
    def shared(self) -> Floats:
        """What all workers have in common."""
        return self._section(0)

    @property
    def residual(self) -> Floats:
        """What this worker has not published yet."""
        return self._section(1)

    @property
    def state(self) -> Floats:
        """The optimizer's state, local to this worker."""
        return self._section(2)

    @property
    def last(self) -> NDArray[np.int32]:
        """For each row the step that touched it last; -1 if none has."""
        return self.rows.data.view(np.int32)[:, 3 * self.shape.columns]

    def restore(self, array: Floats | None, rows: Ids | slice = _ALL) -> None:
        """Set ``shared`` of some rows to an array, ``residual`` to zero; DatasetError if it does not fit."""
        count = self.shape.rows if isinstance(rows, slice) else len(rows)
        expected = (count, self.shape.columns)
        if array is None or array.shape != expected or array.dtype != np.float32:
            found = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise DatasetError(
                f"not a snapshot of this model: table {self.shape.name}",
                expected=f"float32 {expected}",
                found=found,
            )
        self.shared[rows] = array
        self.residual[rows] = 0


@functools.cache
def coefficients(rule: MergeRule, members: int) -> tuple[Floats, bool]:
    """Return a merge rule's factors, and whether they are indexed by an entry's publishers.

    The one table that all workers divide by; computed in float64, rounded once.
    """
    if rule == "sqrt-publishers":
        counts = np.arange(members + 1, dtype=np.float64)
        factors = (1.0 / np.sqrt(np.maximum(counts, 1.0))).astype(np.float32)
    else:
        factor = {"sum": 1.0, "mean": 1.0 / members, "sqrt-members": 1.0 / np.sqrt(members)}[rule]
        factors = np.array([factor], np.float32)
    factors.setflags(write=False)  # every caller gets the same ones
    return factors, rule == "sqrt-publishers"


class Replica:
    """All tables of a model on one worker.

    ``kept`` is what this worker, where it merges rows for all, has not sent of their sums, table by table.
    Its memory comes as it is used.
    """

    def __init__(self, shapes: Sequence[TableShape]) -> None:
        self.tables = tuple(Table.zeros(shape) for shape in shapes)
        self.kept = _nothing_kept(shapes)

    @property
    def shapes(self) -> tuple[TableShape, ...]:
        """The tables' shapes, in order."""
        return tuple(table.shape for table in self.tables)

    def merge(self, updates: Mapping[str, bytes | memoryview | Bytes], rule: MergeRule, members: int) -> None:
        """Add the packed updates of a step to ``shared``.

        They stand in order of worker id, one's own among them. Per entry: a = 0, add what each publisher
        sent, ``shared += a * c``, in float32. The factor c is the rule's, or 1 for rows that are trained
        apart. CodecError names the first that is none for these tables;
        nothing is merged then.
        """
        factors, by_count = coefficients(rule, members)
        tables = [(table.rows, table.shape.columns, int(table.shape.apart)) for table in self.tables]
        try:
            kernels.merge_updates(tables, list(updates.values()), factors, int(by_count))
        except ValueError as error:
            what, number = error.args
            raise _invalid(list(updates)[number], what) from error

    def sum(
        self,
        updates: Mapping[str, bytes | memoryview | Bytes],
        rule: MergeRule,
        members: int,
        rows: Sequence[Ids],
    ) -> list[tuple[int, float]]:
        """Add to what is kept what ``merge`` would add to ``shared``.

        The numbers of the rows that this touches go into ``rows``, which have room for all. Returns how many
        they are in each table, and the largest size of an entry of theirs.
        """
        factors, by_count = coefficients(rule, members)
        tables = [
            ((kept, table.shape.columns), table.shape.columns, int(table.shape.apart))
            for table, kept in zip(self.tables, self.kept, strict=True)
        ]
        try:
            return kernels.sum_updates(tables, list(updates.values()), factors, int(by_count), list(rows))
        except ValueError as error:
            what, number = error.args
            raise _invalid(list(updates)[number], what) from error

    def snapshot(self) -> dict[str, Floats]:
        """Return a copy of ``shared``, table by table."""
        return {table.shape.name: table.shared.copy() for table in self.tables}

    def restore(self, arrays: dict[str, Floats]) -> None:
        """Set ``shared`` to a snapshot, and all else to zero that is to be published.

        DatasetError if it has other shapes.
        """
        for table in self.tables:
            table.restore(arrays.get(table.shape.name))
        self.kept = _nothing_kept(self.shapes)

    def grow(self, further: Mapping[str, Floats], last: int) -> None:
        """Add ``further`` rows to the tables, as they start; they count as touched in the step ``last``."""
        self.tables = tuple(table.grown(further[table.shape.name], last) for table in self.tables)

    def digest(self) -> str:
        """Return a digest of the bits of ``shared``, but for rows that are owned."""
        digest = xxhash.xxh3_64()  # a fault is to be found, not an attacker; and every worker waits for it
        for table in self.tables:
            if not table.shape.owned:
                digest.update(np.ascontiguousarray(table.shared).data)
        return digest.hexdigest()


class Summing:
    """Merges the updates of a step, one after the other, that are too large to be held together.

    The same bits as ``Replica.merge`` of all of them, in this order, in the memory of one, and of their sum.
    Nothing is written to ``shared`` before ``merge``: until then they may turn out to be damaged or missing.
    """

    def __init__(self, replica: Replica, rule: MergeRule, members: int) -> None:
        self._tables, self._kept = replica.tables, replica.kept
        self._factors, by_count = coefficients(rule, members)
        self._totals = [
            Total.zeros(shape.rows, shape.columns, counted=by_count and not shape.apart)
            for shape in replica.shapes
        ]

    def add(self, where: str, update: bytes | memoryview | Bytes) -> None:
        """Add the next update; CodecError, with ``where`` as its place, if it is none for these tables."""
        try:
            kernels.add_update(self._totals, update)
        except ValueError as error:
            raise _invalid(where, str(error)) from error

    def merge(self) -> None:
        """Add the sum to ``shared``, times the rule's factors."""
        for table, total in zip(self._tables, self._totals, strict=True):
            for rows, sums in self._products(table, total):
                with np.errstate(all="ignore"):  # what is not finite shows in the metrics
                    table.shared[rows] += sums

    def keep(self, rows: Sequence[Ids]) -> list[tuple[int, float]]:
        """Add the sum, times the rule's factors, to what is kept; the rest is as in ``Replica.sum``."""
        most, found = float(np.finfo(np.float32).max), list[tuple[int, float]]()
        for table, total, kept, room in zip(self._tables, self._totals, self._kept, rows, strict=True):
            count, largest = 0, 0.0
            for touched, sums in self._products(table, total):
                with np.errstate(all="ignore"):
                    sums += kept[touched]
                np.nan_to_num(sums, copy=False, nan=most, posinf=most, neginf=-most)
                kept[touched], room[count : count + len(touched)] = sums, touched
                count, largest = count + len(touched), max(largest, float(np.abs(sums).max(initial=0)))
            found.append((count, largest))
        return found

    def _products(self, table: Table, total: Total) -> Iterator[tuple[Ids, Floats]]:
        """Yield the rows that were touched, and their sums times the rule's factors, a few at a time."""
        touched = np.flatnonzero(total.touched.view(np.bool_)).astype(np.uint32)
        for begin in range(0, len(touched), _ROWS_AT_ONCE):
            rows = touched[begin : begin + _ROWS_AT_ONCE]
            sums = total.sums[rows, : total.columns]
            with np.errstate(all="ignore"):
                if len(total.counts):
                    sums *= self._factors[total.counts[rows, : total.columns]]
                elif not table.shape.apart:
                    sums *= self._factors[0]
            yield rows, sums


def _nothing_kept(shapes: Sequence[TableShape]) -> tuple[Floats, ...]:
    """Return what has not been sent of sums at first; of rows that are trained apart there are none."""
    return tuple(np.zeros((0 if one.apart else one.rows, one.columns), np.float32) for one in shapes)


def _invalid(where: str, found: str) -> CodecError:
    return CodecError("not a valid update", where=where, found=found, cure="publish the update again")


class Undo:
    """Goes back to what ``shared`` was when it was last kept; ``rows`` of each table, or all of them."""

    def __init__(self, replica: Replica, rows: Sequence[NDArray[np.integer]] | None = None) -> None:
        self._replica = replica
        everything = [slice(None)] * len(replica.tables)
        self._rows: Sequence[NDArray[np.integer] | slice] = everything if rows is None else rows
        self._kept: list[Floats] = []

    def keep(self) -> Callable[[], dict[str, Floats]]:
        """Remember ``shared`` as it is now; return who tells it, in any thread and later as well."""
        kept = [t.shared[rows].copy() for t, rows in zip(self._replica.tables, self._rows, strict=True)]
        self._kept = kept
        return lambda: self._snapshot(kept)

    def remember(self, arrays: Mapping[str, Floats]) -> None:
        """Remember a snapshot, in which nothing but the ``rows`` differs from ``shared``."""
        tables = zip(self._replica.tables, self._rows, strict=True)
        self._kept = [arrays[table.shape.name][rows].copy() for table, rows in tables]

    def _snapshot(self, kept: list[Floats]) -> dict[str, Floats]:
        tables = {}
        for table, rows, values in zip(self._replica.tables, self._rows, kept, strict=True):
            if not isinstance(rows, slice):  # nothing else ever moves
                whole = table.shared.copy()
                whole[rows] = values
                values = whole
            tables[table.shape.name] = values
        return tables

    def restore(self) -> None:
        """Set ``shared`` to what was kept, and ``residual`` to zero."""
        for table, rows, kept in zip(self._replica.tables, self._rows, self._kept, strict=True):
            table.shared[rows] = kept
            table.residual[rows] = 0
