"""Runs a job of any system: its functions, the books of its steps, and the files that it leaves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

import mlless
from mlless import losses
from mlless.baselines.contract import System, Tables, failure_name, launch_of
from mlless.billing.meter import MEMORY, Meter, Usage
from mlless.channels.opening import check_servers, open_objects
from mlless.channels.ports import ObjectStore
from mlless.clock import Clock, SystemClock
from mlless.closing import Closing, Listener, Verdict
from mlless.costing import Costing
from mlless.data.dataset import Dataset
from mlless.data.findings import check_two_classes
from mlless.deployment import Deployment
from mlless.errors import ChannelError, DeadlineExceeded, MissingObject, MLLessError
from mlless.interrupts import interruptible
from mlless.job import JobSpec
from mlless.locations import Directory, Place, Prefix
from mlless.membership import Schedule
from mlless.messages import Evaluation, Failure, FromWorker, FunctionId, Plan, Report, decode_from_worker
from mlless.models import model_of
from mlless.reception import event_of
from mlless.records import StepRecord, Summary
from mlless.report.files import RunFiles
from mlless.report.history import PART
from mlless.report.underway import heeding, underway
from mlless.runtimes.ports import Ended
from mlless.session import Session, open_session
from mlless.stopping import Choice, Progress, Score
from mlless.supervisor import Outcome, final_bill, note_ends

_GRACE = 10.0  # seconds for functions to exit once the model is there
_LATE, _SOONEST, _LATEST = (
    0.05,
    0.002,
    0.1,
)  # looks at functions come so late, of their time so far or in seconds
Keep = Callable[[Score, Callable[[], tuple[Tables, int]]], None]


class Stage:
    """What a system has to lead a job: ports, the schedule of its steps, and the books.

    ``objects`` at ``place`` are the job's own. Who leads starts functions with ``start`` or ``call``, closes
    each step with ``close``, or leaves all steps to ``steps``. While those are taken, ``following`` is the
    step after the one that is being taken. ``keep_best`` hears of every best model.
    """

    def __init__(
        self,
        system: System,
        spec: JobSpec,
        dataset: Dataset,
        session: Session,
        objects: ObjectStore,
        place: str,
        clock: Clock,
        *,
        listen: Listener = lambda record: None,
        keep_best: Keep = lambda best, read: None,
        meter: Meter | None = None,
    ) -> None:
        self.spec, self.dataset, self.session, self.clock = spec, dataset, session, clock
        self.objects, self._place, self._talks = objects, place, system.talks
        self.schedule = Schedule.of(spec, [file.rows for file in dataset.manifest.train])
        model = model_of(spec.model)
        size = sum(shape.rows * shape.columns for shape in model.shapes)
        self._meter, self._costing, self._keep = meter, Costing(spec, meter, parameters=size), keep_best
        progress = Progress(spec.stop, model.null_loss)
        self.opened = self.began = self._look = clock.now()
        self.closing = Closing(
            spec, self.schedule, progress, start=self.opened, costing=self._costing, listen=listen
        )
        self._losses = losses.Losses(spec.workers)
        self._generations: dict[int, int] = {}
        self._ended: dict[int, Ended] = {}
        self._begun = self._closed = False
        self.following: Plan | None = None

    def start(self, tasks: Mapping[int, msgspec.Struct]) -> tuple[FunctionId, ...]:
        """Start a function for each of these workers, its next generation, with its task."""
        functions: dict[FunctionId, bytes] = {}
        for worker, task in tasks.items():
            generation = self._generations[worker] = self._generations.get(worker, -1) + 1
            me = worker, generation
            functions[me] = launch_of(self.spec, self.session.addresses, self._place, me, task)
        if self._talks:
            self.session.hub.admit(functions)
        self.session.runtime.start(functions)
        now = self.clock.now()
        if self._meter is not None:
            self._meter.start(functions, now)
        if not self._begun:
            self.begin()
            self._costing.begin(now)
        return tuple(functions)

    def begin(self) -> None:
        """Count time from now on, as ``start`` does when it is first called."""
        self._begun, self.began = True, self.clock.now()
        self.closing.begin(self.began)
        self._costing.open(self.began)

    def ended(self) -> list[Ended]:
        """Return the functions that have ended since the last call, and put them into the books."""
        ended = self.session.runtime.ended()
        self.note(ended)
        if not self._closed:
            self._costing.check_start(self.clock.now())
        return ended

    def note(self, ended: Collection[Ended]) -> None:
        """Put functions that are over into the books."""
        note_ends(self._meter, ended, self.clock.now())
        for one in ended:
            before = self._ended.get(one.worker)
            self._ended[one.worker] = one if before is None else _both(before, one)

    def error_of(self, ended: Ended, what: str) -> MLLessError:
        """Return why a function has failed; ``what`` names it."""
        try:
            failure = decode_from_worker(self.objects.get(failure_name((ended.worker, ended.generation))))
        except MissingObject:
            return losses.died(event_of(ended), f"{what} died")
        assert isinstance(failure, Failure)
        return losses.failed(failure, f"{what} failed")

    def call(
        self, tasks: Mapping[int, msgspec.Struct], what: str, seconds: float | None = None
    ) -> dict[int, FunctionId]:
        """Start functions and return, by worker, those that have done their task, once all have.

        Who is lost is started anew, as long as that does not happen too often. Those that have not done it
        within so many ``seconds`` are ended, and left out.
        """
        began, within, late = self.clock.now(), self.spec.deadlines.commit, False
        running, done = set(self.start(tasks)), dict[int, FunctionId]()
        while running:
            for one in self.ended():
                me = one.worker, one.generation
                running.discard(me)
                if one.code == 0:
                    done[one.worker] = me
                elif not late:
                    running.add(self.replace(one, what, tasks[one.worker]))
            waited = self.clock.now() - began
            if seconds is not None and waited > seconds and not late:
                late = True
                self.session.runtime.end(running)
            if waited > within:
                self.session.runtime.end(running)
                raise DeadlineExceeded(f"{what}: {len(running)} functions are not done within {within:g} s")
            if running:
                self.clock.pause(min(max(_SOONEST, _LATE * waited), _LATEST))
        return done

    def replace(self, ended: Ended, what: str, task: msgspec.Struct) -> FunctionId:
        """Start a lost function anew, with a task; raise its error if that would be of no use."""
        error = self.error_of(ended, f"{what} {ended.worker}")
        if ended.code in losses.REPEATS or self._losses.add(ended.worker, self.clock.now()):
            raise error
        self.closing.note_loss(f"{error.what}, and was started anew")
        (function,) = self.start({ended.worker: task})
        return function

    def receive(self, lost: Callable[[Ended], object] | None = None) -> FromWorker:
        """Return the next message of a function.

        Who has failed or died is ``lost``, or without that its error is raised.
        """
        until = self.clock.now() + self.spec.deadlines.commit
        while (now := self.clock.now()) < until:
            if now >= self._look:  # also where others are heard all the time
                self._look = now + _LATEST
                for one in self.ended():
                    if one.code and lost is None:
                        raise self.error_of(one, f"worker {one.worker}")
                    if one.code and lost is not None:
                        lost(one)
            message = self.session.hub.receive(_LATEST)
            if isinstance(message, Failure):
                raise losses.failed(message, f"worker {message.worker} failed")
            if message is not None:
                return message
        raise DeadlineExceeded(f"no function was heard for {self.spec.deadlines.commit:g} s")

    def keep_best(self, step: int, tables: Tables) -> None:
        """Let the run's files have the model before a step, which is the best so far."""
        assert self.closing.best is not None
        self._keep(self.closing.best, lambda: (tables, step))

    def cost(self) -> float:
        """Return the dollars that the job has cost so far; nothing without a tariff."""
        return 0.0 if self._meter is None else self._meter.cost(self.clock.now())

    def use(self, usage: Usage) -> None:
        """Put requests and traffic on the bill that no report tells of."""
        if self._meter is not None:
            self._meter.use(usage)

    def close(self, plan: Plan, following: Plan | None, reports: Sequence[Report]) -> Verdict:
        """Close a step, of which these are the reports; return what is to follow on it."""
        now = self.clock.now()
        if self._costing.late(now):
            self.closing.ask("time")
        evaluations: dict[int, Evaluation] = {one.worker: one.evaluation for one in reports if one.evaluation}
        self.closing.score(plan, evaluations)
        self._closed = True
        self._losses.go_on()
        return self.closing.close(plan, following, reports, now)

    def steps(
        self, take: Callable[[Plan], Sequence[Report]], read: Callable[[int], Tables]
    ) -> tuple[Tables, Choice]:
        """Lead all steps; return the model that is chosen in the end.

        ``take`` has a planned step taken, and returns the reports of all that took part. ``read`` returns the
        model before a step, that of the step just taken.
        """
        plan: Plan | None = self.schedule.first(self.spec.workers)
        assert plan is not None
        following, best = self.schedule.after(plan), dict[int, Tables]()
        while True:
            self.following = following
            verdict = self.close(plan, following, take(plan))
            if verdict.best:
                best = {plan.step: read(plan.step)}
                self.keep_best(plan.step, best[plan.step])
            if following is None:
                chosen = self.closing.chosen(plan.step)
                return best[chosen.step] if chosen.restored else read(plan.step), chosen
            if verdict.diverged:
                plan, following = self.schedule.abandoned(plan), None
            else:
                plan, following = following, self.schedule.after(following, end=verdict.stop)

    def outcome(self, chosen: Choice) -> Outcome:
        """Return how the job has ended, with its model there now."""
        pids = dict.fromkeys(self._generations.items(), 0)  # nobody tells
        return Outcome(
            self.closing.reason or "epochs",
            chosen,
            self.began - self.opened,
            self.clock.now() - self.began,
            pids,
            list(self._ended.values()),
        )


def _both(before: Ended, now: Ended) -> Ended:
    """Return two functions of a worker as if they were one."""
    return msgspec.structs.replace(
        now,
        cpu_seconds=before.cpu_seconds + now.cpu_seconds,
        seconds=(before.seconds or 0.0) + (now.seconds or 0.0),
        peak=max(before.peak or 0, now.peak or 0) or None,
    )


def run_led(
    system: System,
    name: str,
    spec: JobSpec,
    dataset: Dataset,
    out: Place,
    *,
    deployment: Deployment,
    listen: Listener,
) -> Summary:
    """Run a job of a system that leads itself, over real ports; a run that is in ``out`` is replaced.

    As with a job of MLLess, a Ctrl-C ends it in order, and nothing is left but the run's files.
    """
    assert system.lead is not None, f"{name} does not lead"
    check_two_classes(dataset.manifest, dataset.location)
    check_servers(deployment)
    parameters = sum(shape.rows * shape.columns for shape in model_of(spec.model).shapes)
    with (
        interruptible() as interrupts,
        RunFiles(out, spec, dataset, overwrite=True, system=name) as files,
        heeding(out, interrupts.request) as looks,
        open_session(
            deployment,
            system.entry,
            expiry=spec.deadlines.expiry,
            needed=(10 + 2 * spec.workers) * 4 * parameters,
        ) as session,
        _own_objects(out) as (objects, place),
        files.failing(),
    ):
        files.begin(underway(mlless.__version__, spec, deployment, addresses=session.addresses))

        def hear(record: StepRecord) -> object:
            """Note a step in the run's files, and tell who listens."""
            files.hear(record)
            return listen(record)

        clock = SystemClock()
        memory = session.runtime.memory or MEMORY
        meter = Meter(spec.tariff, opened=clock.now(), memory=memory) if spec.tariff else None
        if meter:
            files.bill = lambda: meter.bill(clock.now())
        stage = Stage(
            system, spec, dataset, session, objects, place.address, clock,
            listen=hear, keep_best=files.keep_best, meter=meter,
        )  # fmt: skip
        interrupts.ask = lambda: stage.closing.ask("interrupted")
        started = files.watch.wall()
        tables, chosen = system.lead(stage)
        outcome = stage.outcome(chosen)
        done = clock.now()  # nothing is needed any more
        files.end(outcome, tables)
        written = clock.now() - done
        stopped = session.runtime.stop(_GRACE)
        stage.note(stopped)
        stage.use(Usage(reads=looks.made))
        bill = final_bill(meter, (), now=clock.now() - written, done=done)
        outcome.ended = stage.outcome(chosen).ended
        return files.close(outcome, started, bill)


@contextmanager
def _own_objects(run: Place) -> Iterator[tuple[ObjectStore, Place]]:
    """Give an empty place within the run's for the objects of its job, which is emptied at the end."""
    name = f"{PART}objects"
    place = (
        Directory(run.path / name)
        if isinstance(run, Directory)
        else Prefix(run.scheme, run.bucket, f"{run.path}/{name}".lstrip("/"))
    )
    objects = open_objects(place)
    objects.delete(objects.names())  # of a job that was killed
    try:
        yield objects, place
    finally:
        with contextlib.suppress(ChannelError):  # there may be an error to tell already
            objects.delete(objects.names())
        if isinstance(place, Directory):
            with contextlib.suppress(OSError):
                place.path.rmdir()
