"""One model in the object store that functions read and write whole, with what an optimizer remembers."""

from __future__ import annotations

import safetensors.numpy

from mlless import checkpoint
from mlless.channels.ports import ObjectStore
from mlless.checkpoint import Memory
from mlless.clock import Clock
from mlless.job import JobSpec
from mlless.models import model_of
from mlless.replica import Replica
from mlless.stepping import Laps

_MODEL = "model"


class StoredModel:
    """The model in the object store, as it was last read here."""

    def __init__(self, objects: ObjectStore, clock: Clock, spec: JobSpec) -> None:
        self._objects, self._clock = objects, clock
        self.replica, self.laps = Replica(model_of(spec.model).shapes), Laps(clock)
        self.read_bytes = self.written_bytes = self.writes = 0

    def read(self) -> tuple[int, Memory]:
        """Read it; return the step that it is before, and what a stepper remembers."""
        data = self._objects.get(_MODEL)
        metadata = checkpoint.metadata_of(data)
        step = int(metadata["step"])
        checkpoint.start_from(safetensors.numpy.load(data), step, self.replica)
        self.read_bytes += len(data)
        self._clock.work("merge", len(data))
        self.laps.lap("merge")
        return step, checkpoint.memory_of(metadata)

    def write(self, step: int, memory: Memory) -> None:
        """Write it as it is before a step, over what others have written."""
        data = checkpoint.packed(*checkpoint.origin_of(self.replica, step, memory, whole=True))
        self._objects.put(_MODEL, data)
        self.written_bytes, self.writes = self.written_bytes + len(data), self.writes + 1
        self._clock.work("encode", len(data))
        self.laps.lap("publish")
