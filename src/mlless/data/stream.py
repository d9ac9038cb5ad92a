"""A worker's mini-batches: read, checked, decoded, and fetched while the worker waits for others."""

from __future__ import annotations

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
        self._ahead: tuple[int, Fetched] | None = None

    def prefetch(self, position: int) -> None:
        """Read the batch at ``position``, to be taken later."""
        if self._ahead is None or self._ahead[0] != position:
            self._ahead = (position, self._fetch(position))

    def take(self, position: int) -> Fetched:
        """Return the batch at ``position``, prefetched or not."""
        self.prefetch(position)
        assert self._ahead is not None
        fetched, self._ahead = self._ahead[1], None
        return fetched

    def _fetch(self, position: int) -> Fetched:
        index = batch_at(position, batches=self._spec.batches, seed=self._spec.seed)
        file = self._dataset.manifest.train[index]
        return Fetched(self._dataset.read(file), file.bytes)
