"""The significance filter (ISP): a change is published once it matters.

At step t an entry of a row that the step moved is published when
``|residual| > v / sqrt(t + 1) * |shared|``; v = 0 publishes every change, which is BSP. The test
itself is fused into the step's kernel; here are its threshold, its outboxes and the flush. Whoever merges
rows for all passes the sums through such a filter of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlless import kernels
from mlless.errors import NotFinite
from mlless.exchange.update import Update
from mlless.job import Sync
from mlless.kernels.arrays import Ids, Outbox, Sent, TableUpdate, distinct_ids
from mlless.kernels.twin import FLOATS, HALVES, MERGED
from mlless.models.base import Filter
from mlless.replica import Replica

HEADROOM = 10  # the last step's largest change becomes 2^10 of a float16's 2^16: room to grow 64-fold
_FULL = 15  # a float16 holds 2^15, whatever it is multiplied by


class SignificanceFilter:
    """One worker's filter over a replica's tables, with the memory its updates are written to.

    Who is ``alone`` has nobody to publish to: each change goes straight into ``shared``. So does that of a
    row which its worker owns, for nobody else needs it.
    """

    def __init__(self, sync: Sync, replica: Replica, *, alone: bool = False) -> None:
        self._sync = sync
        self._replica = replica
        published = HALVES if sync.half else FLOATS
        self._modes = tuple(MERGED if alone or table.shape.owned else published for table in replica.tables)
        self.exponents: tuple[int, ...] = (0,) * len(replica.tables)
        self._outboxes = [_outbox(table.shape.columns, 0) for table in replica.tables]

    def prepare(self, step: int, touched: Sequence[int]) -> Filter:
        """Return the filter of a step that touches at most so many rows of each table."""
        for number, (table, rows) in enumerate(zip(self._replica.tables, touched, strict=True)):
            if self._modes[number] != MERGED and len(self._outboxes[number].rows) < rows:
                self._outboxes[number] = _outbox(table.shape.columns, rows)
        return Filter(
            self._sync.significance / math.sqrt(step + 1),
            self._modes,
            [box._replace(exponent=e) for box, e in zip(self._outboxes, self.exponents, strict=True)],
        )

    def take(self, filled: Filter, sent: Sequence[Sent]) -> Update:
        """Return what the step published, as views that hold until the next step.

        NotFinite if a parameter stopped being a number. In float16 the next exponents follow from
        the largest values sent.
        """
        update, exponents, half = [], list(self.exponents), HALVES in filled.modes
        for number, (table, mode, box, part) in enumerate(
            zip(self._replica.tables, filled.modes, filled.outboxes, sent, strict=True)
        ):
            if not part[3]:
                raise NotFinite(f"a parameter of table {table.shape.name} is no longer a finite number")
            update.append(_contents(box, Sent(*part), half))
            if mode == HALVES and part[2] > 0:
                exponents[number] = max(-100, min(100, HEADROOM - math.frexp(part[2])[1]))
        self.exponents = tuple(exponents)
        return tuple(update)

    def sift(self, step: int, moved: Sequence[Sequence[Ids]]) -> Update:
        """Return what is significant, in a step, of the rows of each table that mini-batches have moved."""
        rows = [
            np.empty(0, np.uint32) if mode == MERGED else distinct_ids(ids)
            for mode, ids in zip(self._modes, zip(*moved, strict=True), strict=True)
        ]
        publish = self.prepare(step, tuple(map(len, rows)))
        sent = []
        for table, ids, mode, box in zip(
            self._replica.tables, rows, publish.modes, publish.outboxes, strict=True
        ):
            columns, limit = table.shape.columns, publish.threshold
            sent.append(Sent(*kernels.flush_table(table.rows, columns, ids, limit, mode, box)))
        return self.take(publish, sent)

    def flush(self, moved: bool = True) -> Update:
        """Return the whole residual in float32 and leave none behind.

        ``moved`` says whether any may be there though no step has moved it.
        """
        update = []
        for table, mode in zip(self._replica.tables, self._modes, strict=True):
            shape, sent = table.shape, Sent(0, 0, 0.0, 1)
            box = _outbox(shape.columns, 0 if mode == MERGED else shape.rows)
            if mode != MERGED or (moved and not shape.owned):  # what one owns has no residual
                kept = MERGED if mode == MERGED else FLOATS
                sent = Sent(*kernels.flush_table(table.rows, shape.columns, None, 0.0, kept, box))
            if not sent.finite:
                raise NotFinite(f"a parameter of table {shape.name} is no longer a finite number")
            update.append(_contents(box, sent, half=False))
        return tuple(update)


class SumsFilter:
    """The filter of whoever merges rows for all, with the memory that sums are written to."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        shapes = [(len(kept), kept.shape[1]) for kept in replica.kept]
        self.rows = [np.empty(rows, np.uint32) for rows, _ in shapes]  # room for the numbers of touched rows
        self._outboxes = [_outbox(columns, 0) for _, columns in shapes]

    def take(self, number: int, rows: Ids, threshold: float, largest: float | None) -> TableUpdate:
        """Return what is significant of what is kept of some rows of a table; the rest stays kept.

        In float32, or if a ``largest`` size is given in float16 with the exponent that follows from it. The
        values are views that hold until the next step.
        """
        table, kept, half = self._replica.tables[number], self._replica.kept[number], largest is not None
        if len(self._outboxes[number].rows) < len(rows):
            self._outboxes[number] = _outbox(table.shape.columns, len(rows))
        exponent = 0 if largest is None else max(-100, min(100, _FULL - math.frexp(largest)[1]))
        box = self._outboxes[number]._replace(exponent=exponent)
        if not len(kept):  # its rows are trained apart, and nobody merges them for others
            return _contents(box, Sent(0, 0, 0.0, 1), half)
        mode = HALVES if half else FLOATS
        sent = kernels.publish_sums(table.rows, kept, table.shape.columns, rows, threshold, mode, box)
        return _contents(box, Sent(*sent), half)


def _outbox(columns: int, rows: int) -> Outbox:
    masks = np.empty((rows, (columns + 7) // 8), np.uint8)
    return Outbox(np.empty(rows, np.uint32), masks, np.empty(rows * columns + 1, np.float32), 0)


def _contents(box: Outbox, sent: Sent, half: bool) -> TableUpdate:
    values = box.values.view(np.uint16) if half else box.values
    return TableUpdate(
        box.rows[: sent.rows],
        box.masks[: sent.rows],
        values[: sent.values],
        box.exponent if half else 0,
    )
