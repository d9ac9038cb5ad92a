"""Where a job's models are safe: in the run's place, and the newest checkpoint also in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlless import checkpoint, keys
from mlless.channels.ports import Bytes, KeyValueStore
from mlless.mark import Mark
from mlless.messages import Origin
from mlless.report.files import RunFiles
from mlless.report.keeper import Keeper
from mlless.report.left import Start
from mlless.stopping import Score
from mlless.supervisor import Safe


class Marks:
    """Puts the newest checkpoint into the run's place, beside the steps."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        self._newest: tuple[Mark, Callable[[], bytes]] | None = None
        self._keeper = Keeper(self._write, apart=0.0, share=1.0)
        files.closing(self.finish)

    def put_away(self, mark: Mark, seconds: float, read: Callable[[], bytes]) -> None:
        """Put a checkpoint away that has taken so many seconds; ``read`` gives its bytes in any thread."""
        self._files.count_checkpoint(seconds)
        self._newest = mark, read
        self._keeper.want(mark.plan.step)
        self._keeper.go_on()

    def finish(self, within: float, *, last: bool = False) -> None:
        """Wait at most so many seconds for the write under way, with ``last`` for the newest one too."""
        self._keeper.finish(within, last=last)

    def _write(self) -> int:
        assert self._newest is not None, "nothing is wanted before it is there"
        mark, read = self._newest
        self._files.mark(read(), mark)
        return mark.plan.step


class RunSafe(Safe):
    """Keeps the models of a job and where it has its ``start``."""

    def __init__(self, files: RunFiles, store: KeyValueStore, start: Start) -> None:
        self._files, self._store, self._start = files, store, start
        self._copy: tuple[str, Bytes] = "", b""
        self._marks = Marks(files)

    def keep_best(self, keys: Sequence[str], best: Score) -> None:
        """Put the best model so far into the run's place, beside the steps."""
        self._files.keep_best(best, lambda: checkpoint.read_snapshot(self._store, keys, self._start.tables))

    def mark(self, mark: Mark, seconds: float) -> None:
        """Put a checkpoint into the run's place, beside the steps."""
        self._marks.put_away(mark, seconds, lambda: self._read(mark.origin))

    def restore(self, mark: Mark) -> None:
        """Put the origin of a mark into the store again."""
        self._marks.finish(0.0)
        copies = {self._copy[0]: self._copy[1], keys.INITIAL: self._start.origin}
        if mark.origin.key not in copies:
            super().restore(mark)
        self._store.put(mark.origin.key, [copies[mark.origin.key]])

    def _read(self, origin: Origin) -> bytes:
        data = checkpoint.read_origin(self._store, origin, self._start.tables)
        self._copy = origin.key, data
        return data
