"""A worker's mini-batches: read, checked, decoded, and there before the step that takes them.

A folder is read while the worker waits for others: that takes as long as handing a thread the task. A
distant store is read in the background while the step before computes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mlless.data.batches import Batch
from mlless.data.dataset import Dataset
from mlless.job import JobSpec
from mlless.membership import batch_at


@dataclass
class Fetched:
    """A mini-batch and the bytes it was read from."""

    batch: Batch
    bytes: int


class BatchStream:
    """The mini-batches of a job's stream positions, one fetched ahead."""

    def __init__(self, dataset: Dataset, spec: JobSpec) -> None:
        self._dataset = dataset
        self._spec = spec
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
        file = self._dataset.manifest.train[index]
        return Fetched(self._dataset.read(file), file.bytes)
