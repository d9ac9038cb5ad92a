"""The files of a run, from its first step to its end, whatever end that is.

While the job runs its summary says so, and every new best model goes beside it. A run that will be replaced
stays as it is until there is a model to replace its own.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

import mlless
from mlless.artifact import FORMAT, MODEL, Artifact, Description, write_artifact
from mlless.billing.meter import Bill
from mlless.channels.opening import open_objects
from mlless.channels.ports import Bytes
from mlless.data.dataset import Dataset
from mlless.data.manifest import Clicks
from mlless.deployment import Deployment
from mlless.errors import ChannelError, MLLessError, UsageError, hidden
from mlless.job import JobSpec
from mlless.kernels.arrays import Floats
from mlless.locations import Directory, Place
from mlless.mark import Mark
from mlless.records import FAILED, RUNNING, Checkpoints, StepRecord, Summary
from mlless.report.account import left_by
from mlless.report.history import (
    CHECKPOINT,
    HISTORY,
    PART,
    SUMMARY,
    HistoryFile,
    Totals,
    readable,
    write_summary,
)
from mlless.report.keeper import Finish, Keeper
from mlless.report.lease import Hold
from mlless.report.left import Left, Stand, with_stand
from mlless.report.lock import locked
from mlless.report.summary import Stopwatch, summarize
from mlless.report.underway import (
    STOP,
    UNDERWAY,
    Detached,
    Underway,
    options_of,
    read_underway,
    write_underway,
)
from mlless.report.vacancy import check_run_folder, make_run_folder
from mlless.stopping import Choice, Score, finite
from mlless.supervisor import Outcome

Tables = dict[str, Floats]

_PATIENCE = 300.0  # seconds for the write under way, and for the last one of a job that has failed
_SHORT = 1  # bytes, or some more: a summary takes one request
_AT_ONCE = 2.0  # or that is stopped at once


class RunFiles:
    """Writes the files of a run under way. Leave its context after everything else of the job is over.

    ``bill`` returns what the job has cost so far. With ``keeps`` False no model is written before the end.
    ``left`` is a locked run to go on with. ``deployment`` and ``detached`` say where it can be resumed.
    ``lost`` is an earlier job that was killed. ``system`` names what trains.
    """

    def __init__(
        self,
        place: Place,
        spec: JobSpec,
        dataset: Dataset,
        *,
        overwrite: bool = False,
        keeps: bool = True,
        left: Left | None = None,
        deployment: Deployment | None = None,
        detached: Detached | None = None,
        system: str = "mlless",
    ) -> None:
        self.spec, self._place, self._dataset, self._system = spec, place, dataset, system
        self._overwrite, self._keeps, self._left = overwrite, keeps, left
        self._options = options_of(deployment, detached) if deployment else ()
        self._detached = detached
        self.watch, self._totals = Stopwatch(), Totals()
        self.bill: Callable[[], Bill | None] = lambda: None
        self.lost: Underway | None = None
        self.resumed = tuple[int, ...]()
        self.hold = left.hold if left else Hold()
        self._made, self._making = 0, 0.0  # checkpoints, and the seconds that they took
        self._put = self._puts = 0  # bytes and requests that put them away
        self._before = 0  # of these, before this job resumed the run
        self._others = 0  # other requests to an object store: models, summaries
        self._marked: int | None = None  # the step of the one that is in the run's place
        self._keeper = Keeper(self._write_best)
        self._scores: dict[int, Score] = {}
        self._read: Callable[[], tuple[Tables, int]] | None = None
        self._begun = self._over = self._refused = False
        self._closings: list[Finish] = []

    def begin(self, job: Underway) -> None:
        """Say where the job runs, until the run is closed."""
        self._begun = True
        write_underway(self._place, job)

    def closing(self, finish: Finish) -> None:
        """Have ``finish`` called before the run is closed."""
        self._closings.append(finish)

    def __enter__(self) -> RunFiles:
        with ExitStack() as stack:
            if self._left is None:
                check_run_folder(self._place, self._overwrite)
                if make_run_folder(self._place):
                    stack.callback(self._remove_folder)
                holder = self._detached.holder if self._detached else ""
                self.hold = stack.enter_context(locked(self._place, holder=holder))
                check_run_folder(self._place, self._overwrite)  # nothing may have come there since
            with readable(self._place):
                objects = open_objects(self._place)
            objects.delete([name for name in objects.names() if name.startswith(PART)])  # of who was killed
            self.lost = read_underway(self._place)
            if not (self._detached and self._detached.number):
                objects.delete([STOP])  # it was for another job
            stack.callback(self._clear)
            # Now, for a data set may be replaced while the job runs.
            self._ids = self._dataset.ids() if self._dataset.manifest.kind == "ratings" else None
            if self._left is not None:
                self._go_on(self._left)
            else:
                self._replaces = MODEL in open_objects(self._place).names()
            before = self._left.history if self._left else b""
            history = HistoryFile(self._place, replaces=self._replaces, before=before)
            self._history = stack.enter_context(history)
            if not self._replaces:
                self._own()
                write_summary(self._place, self._so_far(RUNNING, self._keeper.step))
            stack.enter_context(self.failing())
            self._stack = stack.pop_all()
        return self

    def _clear(self) -> None:
        if not self.hold.lost and not self.hold.passed_on:
            with contextlib.suppress(ChannelError):
                open_objects(self._place).delete([UNDERWAY, STOP] if self._begun else [STOP])
                if self._refused:
                    open_objects(self._place).delete([HISTORY, SUMMARY])

    def _remove_folder(self) -> None:
        """Remove the folder that was made for a job which was refused."""
        if self._refused:
            with contextlib.suppress(OSError):  # something is in it by now
                Path(str(self._place)).rmdir()

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def _go_on(self, left: Left) -> None:
        """Take in what is there of the run."""
        self._replaces = False
        if left.stand is not None:
            before = left.stand.checkpoints
            self._made, self._making, self._marked = before.count, before.seconds, left.step
            self._put, self._puts = before.bytes, before.writes
            self._before = before.writes
        self.resumed = (*(left.stand.resumed if left.stand else left.summary.resumed), left.step)
        for record in left.records:
            self._totals.add(record)
        if left.score is not None:
            self._keeper.want(left.score.step)
            self._keeper.step, self._scores[left.score.step] = left.score.step, left.score

    def _own(self) -> None:
        """Make the run's place this job's: a checkpoint of another one that is there is none of it."""
        if self._left is None:
            open_objects(self._place).delete([CHECKPOINT])

    def hear(self, record: StepRecord) -> None:
        """Take in a step; JobError if the run's place is this job's no more."""
        self.hold.check()
        self.watch.mark_start()
        self._totals.add(record)
        self._history.add(record)
        if self._read is not None:
            self._keeper.go_on()

    def keep_best(self, best: Score, read: Callable[[], tuple[Tables, int]]) -> None:
        """Say that there is a new best model, which ``read`` returns with its step, in any thread.

        It may be a newer one by then. The model that a training starts with is none.
        """
        if best.step and self._keeps:
            self._scores[best.step] = best
            self._read = read
            self._keeper.want(best.step)

    def count_checkpoint(self, seconds: float) -> None:
        """Take in that a worker has made a checkpoint, in so many seconds."""
        self._made, self._making = self._made + 1, self._making + seconds

    def mark(self, data: Bytes, mark: Mark) -> None:
        """Put a checkpoint into the run's place, after the history of the steps before; in any thread.

        As long as another run is there that may yet stay, nothing is written.
        """
        if self._replaces:
            return
        last, left = self._totals.last, self._left
        seconds = max(last.time if last else 0.0, left.seconds if left else 0.0)
        stand = Stand(
            mark.plan,
            mark.following,
            mark.progress,
            self.spec,
            seconds=seconds,
            cost=max((last and last.cost) or 0.0, left.cost if left else 0.0),
            checkpoints=self._checkpoints(seconds),
            resumed=self.resumed,
            further=mark.further,
        )
        lines, whole = self._history.store(), with_stand(data, stand)
        open_objects(self._place).put(CHECKPOINT, whole)
        self._marked = mark.plan.step
        self._put += lines + len(whole)
        self._puts += self._writes_of(lines, len(whole))

    def claim(self) -> None:
        """Make the run's place this job's, even if it has no model yet to replace another run's by."""
        if self._replaces:
            open_objects(self._place).delete([MODEL, CHECKPOINT])
            self._replaces = False

    def suspend(self) -> Summary:
        """Write what the next supervisor goes on with, leave the run to it; return the summary so far."""
        self._finish(_PATIENCE, last=True)
        self.hold.check()
        self._over = self.hold.passed_on = True
        self._history.store()
        summary = self._so_far(RUNNING, self._keeper.step)
        write_summary(self._place, summary)
        return summary

    def end(self, outcome: Outcome, tables: Tables) -> None:
        """Write the model with which the job has ended; what its clean-up may lose is written then."""
        self._finish(_PATIENCE, last=False)
        self.hold.check()
        model = outcome.model
        score = Score(model.step, model.heldout, next(iter(model.heldout.values()), math.inf))
        self._write_model(self._artifact(tables, score))  # who is killed now leaves a model
        self._over, self._marked = True, None
        self._history.store(whole=True)
        write_summary(self._place, self._summary(outcome, self.bill()))
        open_objects(self._place).delete([CHECKPOINT])  # not before: until then the run can be resumed

    def close(self, outcome: Outcome, started: float, bill: Bill | None) -> Summary:
        """Write and return the summary of a job of which nothing is left, the bill being the last."""
        summary = self._summary(outcome, bill, started)
        write_summary(self._place, summary)
        return summary

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Save on an error what there is, and note in the error what that is."""
        try:
            yield
        except BaseException as error:  # also an interrupt, or what a listener raises
            if not self._over:
                self._over = True
                self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        if self.hold.lost:
            return  # what is there is another job's
        self._finish(_PATIENCE if isinstance(error, Exception) else _AT_ONCE, last=True)
        kept = self._replaces or self._left is not None or self._detached is not None
        if isinstance(error, UsageError) and self._totals.last is None and not kept:
            self._refused = True  # the request was wrong: there is no run to tell of
            return
        told, code = (error.as_typed, error.exit_code) if isinstance(error, MLLessError) else (str(error), 1)
        summary = self._so_far(FAILED, self._keeper.step, hidden(told) or type(error).__name__, code)
        if summary.model_step or not self._replaces:
            self._history.store(whole=True)
            with contextlib.suppress(MLLessError):  # there is an error to tell already
                write_summary(self._place, summary)
        for note in left_by(summary, self._place):
            error.add_note(note)

    def _checkpoints(self, seconds: float) -> Checkpoints:
        share = self._making / seconds if seconds else 0.0
        return Checkpoints(self._made, self._making, share, self._marked, self._put, self._puts)

    @property
    def writes(self) -> int:
        """How many requests to an object store this job has made so far, its end not included."""
        return self.hold.writes + self._others + self._puts - self._before

    def _writes_of(self, *sizes: int) -> int:
        """Return how many requests to an object store put objects of so many bytes, none for no bytes."""
        if isinstance(self._place, Directory):
            return 0
        from mlless.channels.remote_objects import writes_of

        return sum(writes_of(size) for size in sizes if size)

    def _finish(self, within: float, *, last: bool) -> None:
        self._keeper.finish(within, last=last)
        for finish in self._closings:
            finish(within, last=last)

    def _write_best(self) -> int:
        """Put the newest best model into the run's place; return its step."""
        assert self._read is not None, "nothing is wanted before it is there"
        tables, step = self._read()
        if self._replaces:
            self._own()
        size = write_artifact(self._place, self._artifact(tables, self._scores.get(step)))
        self._others += self._writes_of(size, self._history.store(), _SHORT)
        write_summary(self._place, self._so_far(RUNNING, step))
        self._replaces = False
        return step

    def _write_model(self, artifact: Artifact) -> None:
        """Write the model; where that fails keep it on this machine, for the training is not to be lost."""
        try:
            write_artifact(self._place, artifact)
        except ChannelError as error:
            folder = tempfile.mkdtemp(prefix="mlless-run-")
            write_artifact(Directory(Path(folder)), artifact)
            raise ChannelError(
                f"the model is trained, but not stored: {error.what}",
                where=error.where,
                found=error.found,
                cure=f"it is kept in {folder}: copy it from there",
            ) from error

    def _artifact(self, tables: Tables, score: Score | None = None) -> Artifact:
        """Return the model with all that it takes to score with it, and the score if it can be told."""
        shape = self._dataset.manifest.shape
        about = Description(
            FORMAT,
            mlless.__version__,
            self.spec.model,
            self.spec.fingerprint,
            self.spec.seed,
            shape.columns if isinstance(shape, Clicks) else None,
            score._replace(heldout=finite(score.heldout)) if score and math.isfinite(score.value) else None,
        )
        return Artifact(about, tables, self._ids)

    def _so_far(self, reason: str, step: int, error: str | None = None, code: int = 0) -> Summary:
        """Return the summary of a job that is not over, the model in its place being that of ``step``."""
        last = self._totals.last
        score = self._scores.get(step)
        best = Choice(step, finite(score.heldout) if score else {}, restored=step > 0)
        outcome = Outcome(reason, best, started_at=0.0, seconds=last.time if last else 0.0)
        summary = self._summary(outcome, self.bill())
        return msgspec.structs.replace(summary, error=error, exit_code=code)

    def _summary(self, outcome: Outcome, bill: Bill | None, started: float = 0.0) -> Summary:
        notes = self._dataset.manifest.notes
        summary = summarize(
            self.spec, outcome, self._totals, self.watch, started=started, bill=bill, notes=notes
        )
        return msgspec.structs.replace(
            summary,
            wall_seconds=summary.wall_seconds + (self._left.seconds if self._left else 0.0),
            checkpoints=self._checkpoints(outcome.seconds),
            resumed=self.resumed,
            options=self._options,
            system=self._system,
        )
