"""Starts a job, listens, assembles the result, cleans up."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import msgspec

import mlless
from mlless import checkpoint
from mlless.artifact import read_artifact
from mlless.autotuner.opening import open_tuner
from mlless.billing.amount import money
from mlless.billing.meter import MEMORY, SUPERVISOR, Bill, Usage
from mlless.billing.meter import Meter as CostMeter
from mlless.channels.opening import check_servers
from mlless.clock import SystemClock
from mlless.closing import Leavers, Listener, nobody
from mlless.data.dataset import Dataset, open_dataset
from mlless.data.findings import check_two_classes
from mlless.deployment import Deployment
from mlless.errors import UsageError, not_installed
from mlless.interrupts import Interrupts, interruptible
from mlless.job import JobSpec
from mlless.launch import ENTRY, launch_of
from mlless.local import train_here
from mlless.locations import Directory, Location, Place, place_of
from mlless.membership import Schedule
from mlless.memory import peak_memory
from mlless.options import anew, chosen, declared, made, takes_options
from mlless.prediction import Predictor
from mlless.recipes import changed, job_of
from mlless.records import StepRecord, Summary
from mlless.report.files import RunFiles
from mlless.report.history import read_history
from mlless.report.left import Left, Start, fresh, resuming
from mlless.report.leftover import make_way
from mlless.report.progress import progress
from mlless.report.safe import Marks, RunSafe
from mlless.report.underway import Detached, heeding, underway
from mlless.report.wording import duration
from mlless.runtimes.background import BackgroundRunner
from mlless.runtimes.ports import Ended
from mlless.session import open_session
from mlless.supervisor import Outcome, Supervisor, final_bill
from mlless.train_options import ResumeOptions, TrainOptions
from mlless.wishes import Wishes

if TYPE_CHECKING:
    import pandas

_GRACE = 10.0  # seconds for workers to exit once the model is there
LOCAL = Deployment()


def _silent(record: StepRecord) -> None:
    """Hear of a step and say nothing."""


@dataclass(frozen=True, repr=False)
class Run:
    """A finished training: where its files are, a folder or a URL, and its summary."""

    place: Place
    summary: Summary

    @property
    def location(self) -> str:
        """Where the files are, as it was given."""
        return str(self.place)

    def __repr__(self) -> str:
        heldout = ", ".join(f"{name} {value:.4f}" for name, value in self.summary.heldout.items())
        return f"<Run {self.location}: {self.summary.steps} steps, {heldout or 'nothing held out'}>"

    def __fspath__(self) -> str:
        """Return the location: a run can be given wherever its folder is asked for."""
        return self.location

    @property
    def bill(self) -> Bill | None:
        """What the run cost by its tariff, item by item; None without one."""
        return self.summary.bill

    def model(self) -> Predictor:
        """Return the trained model, ready to score."""
        return Predictor(read_artifact(self.place), self.place)

    @overload
    def history(self, *, frame: Literal[False] = False) -> list[StepRecord]: ...

    @overload
    def history(self, *, frame: Literal[True]) -> pandas.DataFrame: ...

    def history(self, *, frame: bool = False) -> list[StepRecord] | pandas.DataFrame:
        """Return the record of every step; as a ``frame`` of pandas, one row a step.

        Its columns are the fields of ``StepRecord``; for what these hold in turn ``times_wait``,
        ``heldout_rmse``, ``decision_action`` and their like. What a step has not is NaN.
        """
        records = read_history(self.place)
        if not frame:
            return records
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise not_installed("a history as a frame", "pandas") from error
        rows = [
            {name: value for name, value in row.items() if name not in ("heldout", "decision") or value}
            for row in msgspec.to_builtins(records)
        ]
        return pandas.json_normalize(rows, sep="_", max_level=1)

    @property
    def folder(self) -> Path:
        """The run's folder; UsageError if it is in an object store."""
        if not isinstance(self.place, Directory):
            raise UsageError("this run has no folder on this machine", where=self.location)
        return self.place.path


@takes_options(*declared(Wishes), *declared(Deployment))
def train(
    dataset: Location | Dataset,
    *,
    out: Location,
    overwrite: bool = False,
    verbose: bool = True,
    listen: Listener = _silent,
    **options: Unpack[TrainOptions],
) -> Run:
    """Train a model on a partitioned data set: on this machine, or by functions elsewhere.

    A Ctrl-C or SIGTERM does not raise: the run comes back with the model so far and the
    ``summary.stop_reason`` ``interrupted``. A second one raises KeyboardInterrupt.

    Parameters
    ----------
    dataset : str, path or Dataset
        The data set's folder, or the URL of its prefix in an object store.
    out : str or path
        The run's folder or URL: for ``model.safetensors``, ``history.jsonl`` and ``summary.json``.
    overwrite : bool, default False
        Whether to replace a run that is there.
    verbose : bool, default True
        Tell how it goes: live on a terminal, elsewhere in a line an evaluation.
    listen : callable
        Hears of every step: it is called with its ``StepRecord``. If it returns True the training ends.
    **options
        See below. Only what is given here counts: settings in files and variables are for the command line.

    Returns
    -------
    Run
        Where the files are, and the summary.

    Raises
    ------
    UsageError
        What was asked for does not fit the data set, or does not go together.
    MLLessError
        The training failed; its class says how.
    """
    wishes, deployment = made(Wishes, options), made(Deployment, options)
    data = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    spec = plan_job(wishes, data, deployment)
    with progress(spec) if verbose else nullcontext(_silent) as display:

        def hear(record: StepRecord) -> object:
            display(record)
            return listen(record)

        return run_job(spec, data, out, overwrite=overwrite, listen=hear, deployment=deployment)


@takes_options(*anew(Wishes), *declared(Deployment))
def resume(
    run: Location,
    *,
    dataset: Location | Dataset | None = None,
    verbose: bool = True,
    listen: Listener = _silent,
    **options: Unpack[ResumeOptions],
) -> Run:
    """Go on with a training whose process was killed, or that failed: from its newest checkpoint.

    Steps after the checkpoint are taken again. Time and money go on from where they were, and so do
    history, patience and the best model. It may go on with other workers, and elsewhere.

    Parameters
    ----------
    run : str or path
        The run's folder or URL: what ``train`` was given as ``out``.
    dataset : str, path or Dataset, optional
        Where the same data set is now, if it was moved.
    verbose : bool, default True
        Tell how it goes, as ``train`` does.
    listen : callable
        Hears of every further step, as that of ``train`` does.
    **options
        See below. Where functions run and meet is to be given again.

    Returns
    -------
    Run
        Where the files are, and the summary of the whole run.

    Raises
    ------
    UsageError
        There is no run, or none to resume: it runs, has ended, or has no checkpoint; or the options do not
        go together.
    MLLessError
        The training failed; its class says how.
    """
    deployment = made(Deployment, options)
    with resuming(run) as left:
        job = plan_resume(left, chosen(anew(Wishes), options), dataset)
        with (
            progress(job.spec, elapsed=left.seconds, earlier=left.records)
            if verbose
            else nullcontext(_silent) as display
        ):

            def hear(record: StepRecord) -> object:
                display(record)
                return listen(record)

            return run_job(
                job.spec, job.dataset, left.place, listen=hear, deployment=deployment, left=job.left
            )


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
    data = dataset if isinstance(dataset, Dataset) else open_dataset(dataset or before.dataset)
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
    workers = spec.workers if isinstance(options.get("workers"), int) else None
    return Resumed(spec, data, replace(left, workers=workers))


def plan_job(
    wishes: Wishes, dataset: Dataset, deployment: Deployment = LOCAL, *, least_steps: int = 0
) -> JobSpec:
    """Return the job that ``run_job`` is to run; see ``recipes.job_of``."""
    here = deployment == LOCAL
    return job_of(wishes, dataset.manifest, dataset.address, least_steps=least_steps, here=here)


def run_job(
    spec: JobSpec,
    dataset: Dataset,
    out: Location | Place,
    *,
    overwrite: bool = False,
    listen: Listener = _silent,
    leavers: Leavers = nobody,
    deployment: Deployment = LOCAL,
    keeps: bool = True,
    detached: Detached | None = None,
    left: Left | None = None,
) -> Run:
    """Run a job where ``deployment`` says; ``out`` then holds model, history, summary.

    ``leavers`` decides after each step which workers to let go. While the job runs every new best model is
    put into ``out``, unless ``keeps`` is False. With ``left`` the run that left it is resumed. A Ctrl-C, or a
    request to stop, ends the job in order, with the model so far; a second Ctrl-C at once. Whatever happens,
    nothing of the job is left behind but the run's files. ``detached`` says how it runs without a terminal.
    """
    check_two_classes(dataset.manifest, dataset.location)
    place = place_of(out)
    with (
        interruptible() as interrupts,
        RunFiles(place, spec, dataset, overwrite=overwrite, keeps=keeps, left=left) as files,
        heeding(place, interrupts.request) as looks,
    ):

        def hear(record: StepRecord) -> object:
            files.hear(record)
            return listen(record)

        make_way(files.lost, deployment)
        say = partial(underway, mlless.__version__, spec, deployment, detached=detached)
        schedule = Schedule([file.rows for file in dataset.manifest.train], spec.batch_size, spec.stop.epochs)
        start = left.start(spec, schedule) if left else fresh(spec, schedule)
        if _is_for_here(spec, deployment) and leavers is nobody:
            files.begin(say())
            return Run(place, _run_here(spec, dataset, start, hear, interrupts, files))
        size = sum(table.shared.nbytes for table in start.course.replica.tables)
        # Initial, best and final model, a checkpoint and a donation, each of which has the optimizer's state
        # and an older one beside it for a moment; and of each worker two updates, and what it hands over.
        needed = (10 + (6 if deployment.time_limit else 2) * spec.workers) * size
        check_servers(deployment)
        # On an error the best model is to be saved before the store goes.
        with (
            open_session(deployment, ENTRY, expiry=spec.deadlines.expiry, needed=needed) as session,
            files.failing(),
        ):
            files.begin(say(addresses=session.addresses))
            start.put(session.store)
            clock, limit = SystemClock(), session.runtime.time_limit
            memory = session.runtime.memory or MEMORY
            earlier = start.past.cost if start.past else 0.0
            costs = None
            if spec.tariff is not None:
                costs = CostMeter(spec.tariff, opened=clock.now(), memory=memory, earlier=earlier)
            if costs:
                if detached:
                    costs.start([SUPERVISOR], clock.now())
                files.bill = lambda: costs.bill(clock.now())
            supervisor = Supervisor(
                spec,
                schedule,
                hub=session.hub,
                store=session.store,
                runtime=session.runtime,
                clock=clock,
                version=mlless.__version__,
                mark=start.mark,
                past=start.past,
                payload=lambda function: launch_of(spec, session.addresses, *function, limit),
                listen=hear,
                leavers=leavers,
                safe=RunSafe(files, session.store, start.origin),
                meter=costs,
                tuner=open_tuner(spec, costs, BackgroundRunner()),
            )
            interrupts.ask = lambda: supervisor.request_stop("interrupted")
            started = files.meter.wall()
            outcome = supervisor.run()
            tables, _ = checkpoint.read_snapshot(session.store, outcome.snapshot)
            done = clock.now()  # no server is needed any more
            files.end(outcome, tables)  # first of all, for a slow clean-up may be broken off
            written = clock.now() - done
            # Who was waited for in vain does not exit by itself.
            stopped = session.runtime.stop(0.0 if outcome.given_up else _GRACE)
            outcome.ended += stopped
            if costs:
                costs.use(Usage(reads=looks.made + files.hold.writes, writes=files.hold.writes))
                if detached:
                    costs.end(SUPERVISOR, clock.now())
            # Functions have long ended while files are written.
            bill = final_bill(costs, stopped, now=clock.now() - written, done=done)
            return Run(place, files.close(outcome, started, bill))


def _is_for_here(spec: JobSpec, deployment: Deployment) -> bool:
    """Return whether this process trains by itself: one worker that nothing asks to be elsewhere."""
    return spec.workers == 1 and deployment == LOCAL and spec.tariff is None


def _run_here(
    spec: JobSpec, dataset: Dataset, start: Start, hear: Listener, interrupts: Interrupts, files: RunFiles
) -> Summary:
    """Train in this process; return the summary of the run."""
    clock, asked = SystemClock(), threading.Event()
    interrupts.ask = asked.set
    began, cpu, earlier = clock.now(), time.process_time(), start.past.seconds if start.past else 0.0
    ending = train_here(
        spec,
        dataset,
        start.course,
        clock=clock,
        listen=hear,
        stop=lambda: "interrupted" if asked.is_set() else None,
        kept=lambda best, read: files.keep(best, lambda: (read(), best.step)),
        marked=Marks(files).put_away,
        mark=start.mark,
        past=start.past,
        best=start.best,
    )
    seconds = clock.now() - began
    started = files.meter.wall() - seconds
    outcome = Outcome(ending.stop_reason, ending.model, 0.0, earlier + seconds, {(0, 0): os.getpid()})
    outcome.ended.append(Ended(0, 0, 0, time.process_time() - cpu, peak=peak_memory()))
    files.end(outcome, start.course.replica.snapshot())
    return files.close(outcome, started, None)
