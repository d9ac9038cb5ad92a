"""What a job has left in its run's place that did not come to its end: from there it is resumed.

Beside its tables a checkpoint tells how the job stood. The steps that were closed after it are taken again;
what they took of time and money stays paid. A job that was lost before its first checkpoint, and has no
model, begins with its first step again.
"""

from __future__ import annotations

import base64
import binascii
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import msgspec
import safetensors
import safetensors.numpy
import xxhash

from mlless import checkpoint, keys
from mlless.artifact import MODEL, read_artifact
from mlless.channels.opening import open_objects
from mlless.channels.ports import Bytes, KeyValueStore
from mlless.errors import DatasetError, MissingObject, UsageError
from mlless.job import JobSpec
from mlless.kernels.arrays import Floats
from mlless.local import Course, begin
from mlless.locations import Location, Place, place_of
from mlless.mark import Mark, Past, beginning, resumed
from mlless.membership import Schedule
from mlless.messages import Origin, Plan
from mlless.models import tables_of
from mlless.records import Checkpoints, StepRecord, Summary
from mlless.report.history import (
    CHECKPOINT,
    HISTORY,
    SUMMARY,
    decoded,
    is_finished,
    no_run,
    read_lines,
    read_summary,
    that_count,
)
from mlless.report.lease import Hold
from mlless.report.lock import locked
from mlless.stopping import Progress, Score

FORMAT = 1
_STAND, _FORMAT, _DIGEST = "stand", "stand_format", "digest"
_BEST = f"{keys.BEST}/before"


class Stand(msgspec.Struct, frozen=True):
    """How a job stood at its checkpoint: the plans to follow, its progress, and the job itself.

    ``seconds`` and ``cost`` are what it had taken when the checkpoint was written.
    """

    plan: Plan
    following: Plan | None
    progress: Progress
    job: JobSpec
    seconds: float
    cost: float
    checkpoints: Checkpoints
    resumed: tuple[int, ...]  # at which steps it was resumed before
    further: tuple[Plan, ...] = ()  # what was to follow after that


@dataclass(frozen=True)
class Start:
    """From where a job starts: its mark, the bytes of the mark's origin, and the same as a replica.

    One that is resumed has a ``past``, and maybe its ``best`` model.
    """

    mark: Mark
    origin: bytes
    course: Course
    past: Past | None = None
    best: dict[str, Floats] | None = None

    @property
    def tables(self) -> dict[str, Floats]:
        """The tables as views, for who assembles a model of the job: some of their rows may be nobody's."""
        return {table.shape.name: table.shared for table in self.course.replica.tables}

    def put(self, store: KeyValueStore) -> None:
        """Put into a job's store what it starts with."""
        store.put(self.mark.origin.key, [self.origin])
        if self.past is not None and self.best is not None:
            assert self.mark.progress.best is not None, "a best model without a score"
            checkpoint.save_snapshot(store, self.past.best_key, self.best, self.mark.progress.best.step)


def fresh(spec: JobSpec, schedule: Schedule) -> Start:
    """Return the start of a new job."""
    course = begin(spec.model, spec.seed, tables_of(spec))
    origin = Origin(keys.INITIAL, 0, course.replica.digest())
    return Start(
        beginning(spec, schedule, origin), checkpoint.packed(course.replica.snapshot(), {"step": "0"}), course
    )


@dataclass(frozen=True)
class Left:
    """What is left of a run: its checkpoint, its history, its best model and, if known, its score.

    It goes on with ``workers`` workers, or with as many as it had.
    """

    place: Place
    summary: Summary
    stand: Stand | None  # None, and no bytes, of a run that was lost before its first checkpoint
    checkpoint: bytes
    history: bytes
    records: Sequence[StepRecord]  # also of steps that are taken again
    score: Score | None
    best: dict[str, Floats] | None
    workers: int | None = None
    hold: Hold = field(default_factory=Hold)

    @property
    def job(self) -> JobSpec:
        """The job as it was."""
        return self.stand.job if self.stand else self.summary.job

    @property
    def step(self) -> int:
        """The step from which the job goes on."""
        return self.stand.plan.step if self.stand else 0

    @property
    def epoch(self) -> int:
        """The whole passes over the data that the job has made by then."""
        return self.stand.plan.epoch if self.stand else 0

    @property
    def seconds(self) -> float:
        """Seconds that the job has taken, as far as that is known."""
        return max([self.stand.seconds if self.stand else 0.0, *(record.time for record in self.records)])

    @property
    def cost(self) -> float:
        """Dollars that the job has cost, as far as that is known."""
        told = self.summary.bill.total if self.summary.bill else 0.0
        return max([told, self.stand.cost if self.stand else 0.0, *(one.cost or 0.0 for one in self.records)])

    def start(self, spec: JobSpec, schedule: Schedule) -> Start:
        """Return from where the job goes on, its rules being those of ``spec``."""
        start = fresh(spec, schedule)
        if self.stand is not None:
            replica, metadata = start.course.replica, checkpoint.metadata_of(self.checkpoint)
            batches = self.stand.plan.batches
            checkpoint.start_from(safetensors.numpy.load(self.checkpoint), batches, replica)
            origin = Origin(keys.INITIAL, self.step, replica.digest())
            stand = self.stand
            mark = Mark(stand.plan, stand.following, origin, stand.progress, stand.further)
            course = Course(self.step, replica, memory=checkpoint.memory_of(metadata))
            start = Start(mark, self.checkpoint, course)
        past = Past(
            self.seconds,
            self.cost,
            _BEST if self.best is not None else "",
            [record for record in that_count(self.records) if record.step < self.step],
        )
        mark = resumed(spec, schedule, start.mark, self.workers, self.score)
        return replace(start, mark=mark, past=past, best=self.best)


def with_stand(data: Bytes, stand: Stand) -> bytes:
    """Return the bytes of an origin with what it takes to resume a job from it."""
    text = base64.b64encode(msgspec.msgpack.encode(stand)).decode()
    metadata = checkpoint.metadata_of(data) | {_STAND: text, _FORMAT: str(FORMAT), _DIGEST: _digest(data)}
    return checkpoint.packed(safetensors.numpy.load(bytes(data)), metadata)


@contextmanager
def resuming(run: Location | Place, *, holder: str = "") -> Iterator[Left]:
    """Keep others out of a run, and give what is left of it; UsageError if it cannot be resumed.

    ``holder`` is that of ``locked``.
    """
    place = place_of(run)
    _check_unfinished(place)
    cure = "there is nothing to resume as long as it runs"
    with locked(place, cure=cure, holder=holder) as hold:
        _check_unfinished(place)
        yield replace(_read(place), hold=hold)


def _check_unfinished(place: Place) -> None:
    """Raise UsageError if a run has come to its end, DatasetError if there is none."""
    found = open_objects(place).names()
    if not {SUMMARY, HISTORY, CHECKPOINT} & found:
        raise no_run(place)
    if SUMMARY in found and is_finished(place):
        raise UsageError(
            "this run has come to its end",
            where=str(place),
            found=f"stop_reason {read_summary(place).stop_reason}",
            cure="use its model as it is, or train another one: mlless train DATASET --out ANOTHER",
        )


def _read(place: Place) -> Left:
    objects = open_objects(place)
    names = objects.names()
    try:
        summary = read_summary(place) if SUMMARY in names else None
        history = read_lines(place) if HISTORY in names else b""
        records = decoded(history)
    except msgspec.DecodeError as error:
        raise UsageError(
            "this run is damaged, or of another release",
            where=str(place),
            found=str(error),
            cure="resume it with the release with which it was begun",
        ) from error
    if summary is not None and summary.system != "mlless":
        raise UsageError(
            "only a run of MLLess itself can be resumed",
            where=str(place),
            found=f"a run of {summary.system}",
            cure="give the command of its comparison again",
        )
    if summary is None or (CHECKPOINT not in names and MODEL in names):
        raise UsageError(
            "this run has no checkpoint to go on from",
            where=str(place),
            found=_model_there(place, summary, MODEL in names),
            cure=_again(place, summary, MODEL in names),
        )
    if CHECKPOINT not in names:
        return Left(place, summary, None, b"", history, records, None, None)
    data = objects.get(CHECKPOINT)
    stand = _stand_of(place, data, summary, MODEL in names)
    score, best = _best(place, stand) if MODEL in names else (None, None)
    return Left(place, summary, stand, data, history, records, score, best)


def step_of_checkpoint(run: Place) -> int | None:
    """Return the step of a run's checkpoint, None if it has none; reads no more of it than its header."""
    objects = open_objects(run)
    try:
        size = 8 + int.from_bytes(objects.head(CHECKPOINT, 8), "little")
        return int(checkpoint.metadata_of(objects.head(CHECKPOINT, size))["step"])
    except MissingObject:
        return None
    except (ValueError, KeyError, msgspec.DecodeError) as error:
        raise DatasetError("the checkpoint is damaged", where=f"{run}/{CHECKPOINT}") from error


def _again(place: Place, summary: Summary | None, there: bool) -> str:
    """Return how to start a run again without losing its model."""
    dataset = summary.job.dataset if summary else "DATASET"
    return f"start it again: mlless train {dataset} --out {'ANOTHER' if there else place}"


def _model_there(place: Place, summary: Summary | None, there: bool) -> str:
    if not there:
        return "no model either"
    step = f", that of step {summary.model_step}," if summary and summary.model_step else ""
    return f"its best model so far{step} is in {place}"


def _stand_of(place: Place, data: bytes, summary: Summary, there: bool) -> Stand:
    where = f"{place}/{CHECKPOINT}"
    cure = f"{_again(place, summary, there)}; {_model_there(place, summary, there)}"
    try:
        safetensors.numpy.load(data)
        metadata = checkpoint.metadata_of(data)
        if (found := metadata.get(_FORMAT)) != str(FORMAT):
            raise UsageError(
                "a checkpoint of another release",
                where=where,
                expected=f"format {FORMAT}",
                found=f"format {found}" if found else "none",
                cure=f"resume it with mlless {summary.version}, with which it was begun; or {cure}",
            )
        if metadata.get(_DIGEST) != _digest(data):
            raise ValueError("its digest does not fit")
        return msgspec.msgpack.decode(base64.b64decode(metadata[_STAND], validate=True), type=Stand)
    except (safetensors.SafetensorError, msgspec.DecodeError, binascii.Error, KeyError, ValueError) as error:
        raise UsageError("the checkpoint is damaged", where=where, found=str(error), cure=cure) from error


def _best(place: Place, stand: Stand) -> tuple[Score | None, dict[str, Floats] | None]:
    """Return the best model so far and its score, if it is one of this job whose score is known."""
    try:
        found = read_artifact(place)
    except DatasetError as error:
        warnings.warn(f"the best model so far is passed over: {error}", RuntimeWarning, stacklevel=2)
        return None, None
    about = found.description
    if about.score is None or (about.model, about.trained_on) != (stand.job.model, stand.job.fingerprint):
        return None, None
    return about.score, found.tables


def _digest(data: Bytes) -> str:
    """Return the digest of the tables of a safetensors file: of all that follows its header."""
    begin = 8 + int.from_bytes(data[:8], "little")
    return xxhash.xxh3_128(memoryview(data)[begin:]).hexdigest()
