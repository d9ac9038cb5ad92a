"""A worker's mini-batches: read, checked, decoded, and there before the step that takes them.

A folder is read while the worker waits for others: that takes as long as handing a thread the task. A
distant store is read in the background while the step before computes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mlless.data.batches import Batch, joined
from mlless.data.dataset import Dataset
from mlless.job import JobSpec
from mlless.membership import batch_at

KEPT = 512 << 20  # bytes of mini-batches that one worker, who comes back to all of them, keeps in memory


@dataclass
class Fetched:
    """A mini-batch and the bytes that were read for it, 0 if it was still in memory."""

    batch: Batch
    bytes: int


class BatchStream:
    """The mini-batches of a job's stream positions, one fetched ahead."""

    def __init__(self, dataset: Dataset, spec: JobSpec) -> None:
        self._dataset = dataset
        self._spec = spec
        self._kept: dict[int, Batch] = {}
        self._room = KEPT if spec.workers == 1 else 0
        self._background = ThreadPoolExecutor(1, "fetch") if dataset.objects.distant else None
        self._ahead: dict[int, Callable[[], Fetched]] = {}

    def announce(self, position: int) -> None:
        """Say that the batch at ``position`` is for the next step; a distant store is asked for it now."""
        if self._background is not None and position not in self._ahead:
            self._ahead[position] = self._background.submit(self._fetch, position).result

    def prefetch(self, position: int) -> None:
        """Read the batch at ``position``, to be taken next, unless it is on its way."""
        if position not in self._ahead:
            fetched = self._fetch(position)
            self._ahead[position] = lambda: fetched

    def take(self, position: int) -> Fetched:
        """Return the batch at ``position``, prefetched or not; raises what its fetch has raised."""
        self.prefetch(position)
        return self._ahead.pop(position)()  # not for ever: a store's requests have their deadlines

    def _fetch(self, position: int) -> Fetched:
        index = batch_at(position, batches=self._spec.batches, seed=self._spec.seed)
        if index in self._kept:
            return Fetched(self._kept[index], 0)
        span = self._spec.span
        files = self._dataset.manifest.train[index * span : (index + 1) * span]
        batch = joined([self._dataset.read(file) for file in files])
        if batch.nbytes <= self._room:
            self._room -= batch.nbytes
            self._kept[index] = batch
        return Fetched(batch, sum(file.bytes for file in files))
