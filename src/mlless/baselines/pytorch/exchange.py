"""How workers exchange changes: whole tables in an all-reduce, or touched rows in an all-gather."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional

from mlless.baselines.pytorch.course import Moved, in_a_ring
from mlless.job import JobSpec
from mlless.replica import coefficients
from mlless.stepping import Laps


class Exchange:
    """Adds what workers have changed to the tables, by the job's merge rule."""

    def __init__(self, job: JobSpec, tables: list[Tensor], apart: list[bool], laps: Laps) -> None:
        self._tables, self._apart, self._laps, self._workers = tables, apart, laps, job.workers
        factors, self._counted = coefficients(job.sync.merge, job.workers)
        self._factors = torch.from_numpy(factors.copy())

    def _scaled(self, number: int, sums: Tensor, counts: Tensor | None) -> Tensor:
        if self._apart[number]:
            return sums
        return sums * (self._factors[0] if counts is None else self._factors[counts.long()])


class AllReduce(Exchange):
    """Moves whole tables, and with them how many have changed an entry, if the merge rule asks for that."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._sizes = [table.numel() for table in self._tables]
        self._flat = torch.zeros((2 if self._counted else 1, sum(self._sizes)))

    def __call__(self, key: tuple[int, int], rows: Sequence[Tensor], changes: Sequence[Tensor]) -> Moved:
        """Add the changes of all workers to the tables."""
        self._flat.zero_()
        parts = [
            part.view_as(table)
            for part, table in zip(self._flat[0].split(self._sizes), self._tables, strict=True)
        ]
        for part, ids, change in zip(parts, rows, changes, strict=True):
            part.index_copy_(0, ids, change)
        if self._counted:
            self._flat[1] = self._flat[0] != 0
        self._laps.lap("filter")
        distributed.all_reduce(self._flat)
        self._laps.lap("wait")
        counts = self._flat[1].split(self._sizes) if self._counted else [None] * len(parts)
        for number, (table, part, count) in enumerate(zip(self._tables, parts, counts, strict=True)):
            table += self._scaled(number, part, count if count is None else count.view_as(part))
        self._laps.lap("merge")
        return Moved(sum(self._sizes), in_a_ring(4 * self._flat.numel(), self._workers))


class AllGather(Exchange):
    """Moves the rows that were touched; which these are in a mini-batch is told once."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._rows_of_all: dict[tuple[int, int], tuple[list[list[int]], list[tuple[Tensor, Tensor]]]] = {}
        self._bytes = 0

    def __call__(self, key: tuple[int, int], rows: Sequence[Tensor], changes: Sequence[Tensor]) -> Moved:
        """Add the changes of all workers to these rows, which are the same whenever ``key`` comes."""
        self._bytes = 0
        if key not in self._rows_of_all:
            self._rows_of_all[key] = self._tell(rows)
        sizes, places = self._rows_of_all[key]
        told = self._gather(torch.cat([change.flatten() for change in changes]), [*map(sum, sizes)])
        split = [one.split(size) for one, size in zip(told, sizes, strict=True)]
        for number, (table, (union, place)) in enumerate(zip(self._tables, places, strict=True)):
            values = torch.cat([parts[number] for parts in split]).view(-1, table.shape[1])
            nothing = torch.zeros((len(union), table.shape[1]))
            counts = nothing.index_add(0, place, (values != 0).float()) if self._counted else None
            table[union] += self._scaled(number, nothing.index_add_(0, place, values), counts)
        self._laps.lap("merge")
        return Moved(sum(change.numel() for change in changes), self._bytes)

    def _tell(self, rows: Sequence[Tensor]) -> tuple[list[list[int]], list[tuple[Tensor, Tensor]]]:
        """Return the values that each worker will send of each table, the rows of all, and whose is where."""
        lengths = self._gather(torch.tensor([len(ids) for ids in rows]), [len(rows)] * self._workers)
        counts = [one.tolist() for one in lengths]
        told = self._gather(torch.cat(list(rows)), [*map(sum, counts)])
        ids = [one.split(count) for one, count in zip(told, counts, strict=True)]
        places = [torch.unique(torch.cat(of), return_inverse=True) for of in zip(*ids, strict=True)]
        widths = [table.shape[1] for table in self._tables]
        return [[n * width for n, width in zip(count, widths, strict=True)] for count in counts], places

    def _gather(self, mine: Tensor, lengths: list[int]) -> list[Tensor]:
        """Return what all workers have sent, of which these are the lengths."""
        longest = max(lengths)
        room = [mine.new_empty(longest) for _ in lengths]
        self._laps.lap("filter")
        distributed.all_gather(room, functional.pad(mine, (0, longest - len(mine))))
        self._laps.lap("wait")
        self._bytes += (self._workers - 1) * longest * mine.itemsize
        return [one[:length] for one, length in zip(room, lengths, strict=True)]
