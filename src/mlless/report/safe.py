"""Where a job's models are safe: in the run's place, and the newest checkpoint also in memory."""

from __future__ import annotations

from mlless import checkpoint, keys
from mlless.channels.ports import Bytes, KeyValueStore
from mlless.mark import Mark
from mlless.report.files import RunFiles
from mlless.report.keeper import Keeper
from mlless.stopping import Score
from mlless.supervisor import Safe


class RunSafe(Safe):
    """Keeps the models of a job that starts from the bytes of an ``origin``."""

    def __init__(self, files: RunFiles, store: KeyValueStore, origin: bytes) -> None:
        self._files, self._store, self._origin = files, store, origin
        self._mark: Mark | None = None
        self._copy: tuple[str, Bytes] = "", b""
        self._marks = Keeper(self._write_mark, apart=0.0, share=1.0)
        files.closing(self._finish)

    def keep(self, key: str, best: Score) -> None:
        """Put the best model so far into the run's place, beside the steps."""
        self._files.keep(best, lambda: checkpoint.read_snapshot(self._store, key))

    def mark(self, mark: Mark, seconds: float) -> None:
        """Put a checkpoint into the run's place, beside the steps."""
        self._files.count_checkpoint(seconds)
        self._mark = mark
        self._marks.want(mark.plan.step)
        self._marks.go_on()

    def restore(self, mark: Mark) -> None:
        """Put the origin of a mark into the store again."""
        self._marks.finish(0.0, last=False)
        copies = {self._copy[0]: self._copy[1], keys.INITIAL: self._origin}
        if mark.origin.key not in copies:
            super().restore(mark)
        self._store.put(mark.origin.key, [copies[mark.origin.key]])

    def _write_mark(self) -> int:
        mark = self._mark
        assert mark is not None, "nothing is wanted before it is there"
        data = bytes(self._store.get([mark.origin.key])[0])
        self._copy = mark.origin.key, data
        self._files.mark(data, mark)
        return mark.plan.step

    def _finish(self, within: float) -> None:
        self._marks.finish(within, last=False)
