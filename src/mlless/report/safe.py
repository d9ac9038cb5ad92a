"""Where a job's models are safe: in the run's place, and the newest checkpoint also in memory."""

from __future__ import annotations

import msgspec
import safetensors.numpy

from mlless import checkpoint, keys
from mlless.channels.ports import Bytes, KeyValueStore, ObjectStore
from mlless.kernels.arrays import Floats
from mlless.mark import Mark
from mlless.messages import Plan
from mlless.report.files import RunFiles
from mlless.report.history import CHECKPOINT
from mlless.report.keeper import Keeper
from mlless.stopping import Progress
from mlless.supervisor import Safe


class Stand(msgspec.Struct, frozen=True):
    """How a job stood at its checkpoint, beside the tables: what follows, and its progress."""

    plan: Plan
    following: Plan | None
    progress: Progress


class RunSafe(Safe):
    """Keeps the models of a job whose ``initial`` one is these tables."""

    def __init__(
        self, files: RunFiles, objects: ObjectStore, store: KeyValueStore, initial: dict[str, Floats]
    ) -> None:
        self._files, self._objects, self._store, self._initial = files, objects, store, initial
        self._mark: Mark | None = None
        self._copy: tuple[str, Bytes] = "", b""
        self._marks = Keeper(self._write_mark, apart=0.0, share=1.0)
        files.closing(self._finish)

    def keep(self, key: str, step: int, heldout: dict[str, float]) -> None:
        """Put the best model so far into the run's place, beside the steps."""
        self._files.keep(step, heldout, lambda: checkpoint.read_snapshot(self._store, key))

    def mark(self, mark: Mark) -> None:
        """Put a checkpoint into the run's place, beside the steps."""
        self._mark = mark
        self._marks.want(mark.plan.step)
        self._marks.go_on()

    def restore(self, mark: Mark) -> None:
        """Put the origin of a mark into the store again."""
        self._marks.finish(0.0, last=False)
        if mark.origin.key == keys.INITIAL:
            checkpoint.save_snapshot(self._store, keys.INITIAL, self._initial)
        elif mark.origin.key == self._copy[0]:
            self._store.put(mark.origin.key, [self._copy[1]])
        else:
            super().restore(mark)

    def _write_mark(self) -> int:
        mark = self._mark
        assert mark is not None, "nothing is wanted before it is there"
        data = bytes(self._store.get([mark.origin.key])[0])
        self._copy = mark.origin.key, data
        stand = Stand(mark.plan, mark.following, mark.progress)
        metadata = checkpoint.metadata_of(data) | {"stand": msgspec.json.encode(stand).decode()}
        self._objects.put(CHECKPOINT, safetensors.numpy.save(safetensors.numpy.load(data), metadata))
        return mark.plan.step

    def _finish(self, within: float) -> None:
        self._marks.finish(within, last=False)
