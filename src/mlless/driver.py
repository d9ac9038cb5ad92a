"""Starts a job, listens, assembles the result, cleans up."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec

import mlless
from mlless import checkpoint
from mlless.autotuner.opening import open_tuner
from mlless.billing.amount import money
from mlless.billing.meter import MEMORY, SUPERVISOR, Meter, Usage
from mlless.channels.opening import check_servers
from mlless.clock import Clock, SystemClock
from mlless.closing import Leavers, Listener, nobody
from mlless.data.dataset import Dataset, open_dataset
from mlless.data.findings import check_two_classes
from mlless.deployment import Addresses, Deployment
from mlless.errors import DatasetError, MissingObject, UsageError
from mlless.interrupts import Interrupts, interruptible
from mlless.job import JobSpec
from mlless.launch import ENTRY, launch_of
from mlless.local import train_here
from mlless.locations import Location, Place, place_of
from mlless.membership import Schedule
from mlless.memory import peak_memory
from mlless.recipes import changed, job_of
from mlless.records import RUNNING, StepRecord, Summary
from mlless.report.files import RunFiles
from mlless.report.left import Left, Start, fresh
from mlless.report.leftover import make_way
from mlless.report.safe import Marks, RunSafe
from mlless.report.underway import Detached, Looks, heeding, underway
from mlless.report.wording import duration
from mlless.run import Run
from mlless.runtimes.background import BackgroundRunner
from mlless.runtimes.ports import Ended
from mlless.session import open_session
from mlless.supervisor import Outcome, Supervisor, final_bill
from mlless.tracking.callback import Beginning, Callback, Callbacks, ending_of, telling
from mlless.tracking.log import Log
from mlless.tracking.opening import open_trackers
from mlless.wishes import Wishes

_GRACE = 10.0  # seconds for workers to exit once the model is there
LOCAL = Deployment()


def unheard(record: StepRecord) -> None:
    """Hear of a step and say nothing."""


@dataclass(frozen=True)
class Resumed:
    """A job to be resumed, what is left of it, and its data set: for ``run_job``."""

    spec: JobSpec
    dataset: Dataset
    left: Left


def plan_resume(left: Left, options: Mapping[str, Any], dataset: Location | Dataset | None = None) -> Resumed:
    """Return the job that goes on from what is left, with what ``options`` say anew, by name.

    UsageError if they do not fit, or the data set is another one than before.
    """
    before = left.job
    data = dataset if isinstance(dataset, Dataset) else _found(dataset, before.dataset)
    if data.manifest.fingerprint != before.fingerprint:
        raise UsageError(
            "not the data set of this run",
            where=data.location,
            expected=f"fingerprint {before.fingerprint}",
            found=data.manifest.fingerprint,
            cure="was it partitioned again? Name the one of before with --dataset, or train on this one",
        )
    spec = msgspec.structs.replace(changed(before, options), dataset=data.address)
    for most, spent, option, shown in (
        (spec.stop.max_time, left.seconds, "--max-time", duration),
        (spec.stop.max_cost, left.cost, "--max-cost", money),
    ):
        if most is not None and spent >= most:
            raise UsageError(
                f"the run has used up what {option} allows",
                where=str(left.place),
                expected=f"below {shown(most)}",
                found=shown(spent),
                cure=f"raise {option}",
            )
    if left.epoch >= spec.stop.epochs:
        raise UsageError(
            "the run has made its passes over the data",
            where=str(left.place),
            expected=f"--epochs above {left.epoch}, for those so far count",
            found=f"--epochs {spec.stop.epochs}",
            cure="raise --epochs",
        )
    workers = spec.workers if isinstance(options.get("workers"), int) else None
    return Resumed(spec, data, replace(left, workers=workers))


def _found(now: Location | None, before: str) -> Dataset:
    """Return the data set of a run that is resumed; the error that it is gone says how to name its place."""
    try:
        return open_dataset(now or before)
    except (DatasetError, MissingObject) as error:
        if now is not None:
            raise
        cure = "if the data set was moved, say where it is now: --dataset"
        raise type(error)(
            error.what,
            where=error.where,
            expected=error.expected,
            found=error.found,
            cure=f"{error.cure}; {cure}" if error.cure else cure,
        ) from error


def plan_job(
    wishes: Wishes, dataset: Dataset, deployment: Deployment = LOCAL, *, least_steps: int = 0
) -> JobSpec:
    """Return the job that ``run_job`` is to run; see ``recipes.job_of``."""
    here = deployment.is_plain
    return job_of(wishes, dataset.manifest, dataset.address, least_steps=least_steps, here=here)


def run_job(
    spec: JobSpec,
    dataset: Dataset,
    out: Location | Place,
    *,
    overwrite: bool = False,
    listen: Listener = unheard,
    callbacks: Sequence[Callback] = (),
    leavers: Leavers = nobody,
    deployment: Deployment = LOCAL,
    keeps: bool = True,
    detached: Detached | None = None,
    left: Left | None = None,
    within: float | None = None,
    entry: str = ENTRY,
    system: str = "mlless",
) -> Run:
    """Run a job where ``deployment`` says; ``out`` then holds model, history and summary.

    Whatever happens, nothing of the job is left behind but the files of the run. While the job runs every new
    best model goes into ``out``, unless ``keeps`` is False. A Ctrl-C, or a request to stop, ends the job in
    order, with the model so far. A second Ctrl-C ends it at once.

    ``listen`` hears of every step, and so do ``callbacks``, those that ``deployment`` names, and the log.
    ``leavers`` decides after each step which workers to let go. ``left`` is a run to resume. ``detached``
    says how it runs without a terminal. After ``within`` seconds a job of functions is suspended at its next
    checkpoint. The summary then says ``running``, and the run is kept for the next supervisor of the same
    detached job. Functions start at the dotted name ``entry``. ``system`` names what trains.
    """
    check_two_classes(dataset.manifest, dataset.location)
    place = place_of(out)
    told = Callbacks([Log(), *callbacks, *open_trackers(deployment)])
    with (
        interruptible() as interrupts,
        RunFiles(
            place,
            spec,
            dataset,
            overwrite=overwrite,
            keeps=keeps,
            left=left,
            deployment=deployment,
            detached=detached,
            system=system,
        ) as files,
        heeding(place, interrupts.request) as looks,
    ):

        def hear(record: StepRecord) -> object:
            """Note a step in the run's files, and tell callbacks and who listens."""
            files.hear(record)
            stop = told.hear(record)
            return listen(record) is True or stop

        make_way(files.lost, deployment)
        schedule = Schedule.of(spec, [file.rows for file in dataset.manifest.train])
        start = left.start(spec, schedule) if left else fresh(spec, schedule)
        job = _Job(spec, dataset, schedule, start, deployment, detached, hear, interrupts, files, entry)
        with telling(told, Beginning(spec, place.address, start.mark.plan.step)):
            if leavers is nobody and job.is_for_here:
                summary = _run_here(job)
            else:
                summary = _run_by_functions(job, leavers, looks, within)
            if summary.stop_reason != RUNNING:
                told.finish(summary.heldout)
            told.end(ending_of(summary))
        return Run(place, summary)


@dataclass(frozen=True)
class _Job:
    """A job that is about to begin: from where it starts and where it runs, who hears of it and keeps it."""

    spec: JobSpec
    dataset: Dataset
    schedule: Schedule
    start: Start
    deployment: Deployment
    detached: Detached | None
    hear: Listener
    interrupts: Interrupts
    files: RunFiles
    entry: str

    @property
    def is_for_here(self) -> bool:
        """Whether this process trains by itself: one worker that nothing asks to be elsewhere."""
        alone = self.spec.workers == 1 and self.spec.tariff is None
        return alone and self.deployment.is_plain and self.entry == ENTRY

    @property
    def needed(self) -> int:
        """The bytes that it takes to hold all that the functions store."""
        tables = self.start.course.replica.tables
        size = sum(table.shared.nbytes for table in tables)
        owned = sum(table.shared.nbytes for table in tables if table.shape.owned)  # by one worker each row
        # Initial, best and final model, a checkpoint and a donation, each of which has the optimizer's state
        # and an older one beside it for a moment; and of each worker two updates, and what it hands over.
        all_workers = owned + (size - owned) * self.spec.workers
        return 10 * size + (6 if self.deployment.time_limit else 2) * all_workers

    def begin(self, addresses: Addresses | None = None) -> None:
        """Say in the run's place that the job is under way, and where its functions meet."""
        self.files.begin(underway(mlless.__version__, self.spec, self.deployment, addresses, self.detached))


def _run_here(job: _Job) -> Summary:
    """Train in this process; return the summary of the run."""
    job.begin()
    clock, asked, past = SystemClock(), threading.Event(), job.start.past
    job.interrupts.ask = asked.set
    began, cpu = clock.now(), time.process_time()
    ending = train_here(
        job.spec,
        job.dataset,
        job.start.course,
        clock=clock,
        listen=job.hear,
        stop=lambda: "interrupted" if asked.is_set() else None,
        kept=lambda best, read: job.files.keep_best(best, lambda: (read(), best.step)),
        marked=Marks(job.files).put_away,
        mark=job.start.mark,
        past=past,
        best=job.start.best,
    )
    seconds, earlier = clock.now() - began, past.seconds if past else 0.0
    started = job.files.watch.wall() - seconds
    outcome = Outcome(ending.stop_reason, ending.model, 0.0, earlier + seconds, {(0, 0): os.getpid()})
    outcome.ended.append(Ended(0, 0, 0, time.process_time() - cpu, peak=peak_memory()))
    job.files.end(outcome, job.start.course.replica.snapshot())
    return job.files.close(outcome, started, None)


def _run_by_functions(job: _Job, leavers: Leavers, looks: Looks, within: float | None) -> Summary:
    """Start functions and lead them; return the summary of the run."""
    spec, files, start, clock = job.spec, job.files, job.start, SystemClock()
    check_servers(job.deployment)
    with (
        open_session(job.deployment, job.entry, expiry=spec.deadlines.expiry, needed=job.needed) as session,
        files.failing(),  # on an error the best model is to be saved before the store goes
    ):
        job.begin(session.addresses)
        start.put(session.store)
        costs = _meter(job, session.runtime.memory or MEMORY, clock)
        supervisor = Supervisor(
            spec,
            job.schedule,
            hub=session.hub,
            store=session.store,
            runtime=session.runtime,
            clock=clock,
            version=mlless.__version__,
            mark=start.mark,
            past=start.past,
            payload=lambda who: launch_of(spec, session.addresses, *who, session.runtime.time_limit),
            listen=job.hear,
            leavers=leavers,
            safe=RunSafe(files, session.store, start),
            meter=costs,
            tuner=open_tuner(spec, costs, BackgroundRunner()),
        )
        job.interrupts.ask = lambda: supervisor.request_stop("interrupted")
        started = files.watch.wall()
        with _suspending(supervisor, files, within):
            outcome = supervisor.run()
        if outcome.stop_reason == RUNNING:
            return files.suspend()
        tables, _ = checkpoint.read_snapshot(session.store, outcome.snapshot, start.tables)
        done = clock.now()  # no server is needed any more
        files.end(outcome, tables)  # first of all, for a slow clean-up may be broken off
        written = clock.now() - done
        # Who was waited for in vain does not exit by itself.
        stopped = session.runtime.stop(0.0 if outcome.given_up else _GRACE)
        outcome.ended += stopped
        if costs:
            costs.use(Usage(reads=looks.made + files.hold.writes, writes=files.writes))
            if job.detached:
                costs.end(SUPERVISOR, clock.now())
        # Functions have long ended while files are written.
        bill = final_bill(costs, stopped, now=clock.now() - written, done=done)
        return files.close(outcome, started, bill)


@contextmanager
def _suspending(supervisor: Supervisor, files: RunFiles, within: float | None) -> Iterator[None]:
    """Ask a supervisor to suspend its job after ``within`` seconds, if that is set."""
    if within is None:
        yield
        return

    def ask() -> None:
        """Make the run's place the job's, and have the job suspended."""
        files.claim()
        supervisor.request_suspension()

    timer = threading.Timer(max(within, 0.0), ask)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _meter(job: _Job, memory: int, clock: Clock) -> Meter | None:
    """Return the meter of a job whose functions have ``memory`` MB each; None without a tariff."""
    if job.spec.tariff is None:
        return None
    past = job.start.past
    meter = Meter(job.spec.tariff, opened=clock.now(), memory=memory, earlier=past.cost if past else 0.0)
    if job.detached:
        meter.start([SUPERVISOR], clock.now())
    job.files.bill = lambda: meter.bill(clock.now())
    return meter
