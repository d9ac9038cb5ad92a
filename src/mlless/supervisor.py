"""Leads a job: turns what it hears into events for the ledger, and carries out what the ledger says.

The supervisor is a role, not a place: it talks to workers through the bus alone. Who takes part, is lost
or begins anew is the ledger's matter; what closed steps come to, and when to stop, is ``closing``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from mlless.autotuner.tuner import Tuner
from mlless.billing.budget import WRITES
from mlless.billing.meter import Bill, Meter, Usage
from mlless.channels.ports import Hub, KeyValueStore
from mlless.clock import Clock
from mlless.closing import Closing, Leavers, Listener, nobody
from mlless.costing import Costing
from mlless.errors import ChannelError, MissingUpdate, WorkerLost
from mlless.instructions import (
    Close,
    Delete,
    Dismiss,
    Done,
    Event,
    Fail,
    Forget,
    Instruction,
    Kept,
    Launch,
    Marked,
    Passed,
    Rewind,
    Send,
    Started,
)
from mlless.job import JobSpec
from mlless.ledger import Ledger
from mlless.mark import Mark, Past
from mlless.membership import Schedule
from mlless.messages import Abort, Evaluation, FunctionId, Hello
from mlless.models import tables_of
from mlless.reception import Reception
from mlless.records import RUNNING
from mlless.runtimes.ports import Ended, Runtime
from mlless.stopping import Choice, Score, finite

_LOOK = 0.1  # seconds between two looks at the clock
_GOES_ON = {
    "replace": "another one takes its place",
    "shrink": "the others go on without it",
    "fail": "its successor is launched again",  # all others end the job
}

Payload = Callable[[FunctionId], bytes]


class Safe:
    """Keeps what a job must not lose; this one keeps nothing."""

    def keep_best(self, keys: Sequence[str], best: Score) -> None:
        """Take in that the best model so far is in the store, its parts under ``keys``."""

    def mark(self, mark: Mark, seconds: float) -> None:
        """Take in that a checkpoint is in the store, which took its worker so many seconds."""

    def restore(self, mark: Mark) -> None:
        """Put the origin of a mark into the store again, which has lost it; MissingUpdate if that fails."""
        raise MissingUpdate(
            "not in the store", where=mark.origin.key, cure="the server came back empty: start the job again"
        )


@dataclass
class Outcome:
    """How a job ended.

    ``stop_reason`` is as in ``records.Summary``. A job that is ``running`` was suspended and will be resumed:
    it has neither model nor snapshot. ``seconds`` passed until the model was there. The model is in the
    store, its parts under the names in ``snapshot``. ``given_up`` says that somebody was waited for in vain.
    """

    stop_reason: str
    model: Choice
    started_at: float
    seconds: float
    pids: dict[FunctionId, int] = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    snapshot: tuple[str, ...] = ()
    given_up: bool = False


class Supervisor:
    """One job's supervisor.

    The job goes on from a ``mark``, whose origin is in the store; ``past`` is what one that is resumed has
    behind it. ``payload`` tells what a function is started with. ``listen`` hears of every closed step.
    ``leavers`` lets workers go, and so does a ``tuner``. A ``meter`` tells what the job costs. ``safe`` keeps
    models.
    """

    def __init__(
        self,
        spec: JobSpec,
        schedule: Schedule,
        *,
        hub: Hub,
        store: KeyValueStore,
        runtime: Runtime,
        clock: Clock,
        version: str,
        mark: Mark,
        payload: Payload,
        listen: Listener,
        leavers: Leavers = nobody,
        past: Past | None = None,
        safe: Safe | None = None,
        meter: Meter | None = None,
        tuner: Tuner | None = None,
    ) -> None:
        self._spec, self._hub, self._store, self._runtime, self._clock = spec, hub, store, runtime, clock
        self._payload, self._safe, self._meter = payload, safe or Safe(), meter
        self._past, self._first = past or Past(), mark.plan.step
        self._opened = self._start = self._renewed = self._looked = clock.now()
        shapes = tables_of(spec)
        self._costing = Costing(
            spec,
            meter,
            parameters=sum(shape.rows * shape.columns for shape in shapes),
            owned=sum(shape.rows * shape.columns for shape in shapes if shape.owned),
        )
        self._ledger = Ledger(spec, schedule, version, mark, self._past.best_key)
        self._closing = Closing(
            spec,
            schedule,
            mark.progress,
            start=self._start,
            costing=self._costing,
            listen=listen,
            leavers=leavers,
            tuner=tuner,
        )
        if past is not None:
            self._closing.resume(mark, past.records)
        self._reception = Reception(hub, runtime, clock, notice=self._note_ends)
        self._pids: dict[FunctionId, int] = {}
        self._started_at = 0.0
        self._launched = self._asked = self._suspending = False
        self._wanted_mark = False  # with the open step
        self._outcome: Outcome | None = None
        self._kept = {mark.origin.key, self._past.best_key} - {""}

    def request_stop(self, reason: str) -> None:
        """Ask for an orderly end after the step at hand. Safe to call from a signal handler."""
        self._closing.ask(reason)
        self._asked = True

    def request_suspension(self) -> None:
        """Ask for an end after the next checkpoint, from which another supervisor will go on.

        A job that comes to its end before that ends. Safe to call from any thread.
        """
        self._suspending = True

    def run(self) -> Outcome:
        """Start the job's functions and lead it to its end; JobError or ChannelError if it fails."""
        self._opened = self._clock.now()
        try:
            self._carry_out(self._ledger.start(self._reception.awake()))
            while self._outcome is None:
                for event in self._reception.next():
                    if isinstance(event, Hello):
                        self._pids[event.worker, event.generation] = event.pid
                    self._feed(event)
                    if self._outcome is not None:
                        break
                if self._clock.now() - self._looked >= _LOOK:
                    self._look()
            return self._outcome
        except Exception as error:  # an interrupt sends nothing: workers notice that the bus closes
            try:
                self._hub.broadcast(Abort(type(error).__name__), self._ledger.functions)
            except ChannelError as trouble:
                if isinstance(error, WorkerLost):
                    raise trouble from error  # it is why the worker died, and why it could not say so
            raise

    def _feed(self, event: Event) -> None:
        self._carry_out(self._ledger.handle(event, self._reception.awake()))

    def _look(self) -> None:
        """See what time it is, and what is due."""
        now = self._looked = self._clock.now()
        if self._ledger.step <= self._first:
            self._costing.check_start(now)
        if self._ledger.is_silent(self._reception.awake()):
            # It waits for a store that is away, and ``awake`` takes that off the time that counts.
            self._store.renew(self._kept)
        late = self._costing.late(now)
        if late:
            self._closing.ask("time")
        self._feed(Passed(asked=self._asked, late=late))
        if now - self._renewed > self._spec.deadlines.expiry / 8:
            self._store.renew(self._kept)  # by themselves they expire, as all keys do
            self._renewed = now

    def _carry_out(self, instructions: Sequence[Instruction]) -> None:
        for one in instructions:
            match one:
                case Launch():
                    self._launch(one.functions)
                case Send():
                    self._hub.broadcast(one.message, one.functions)
                case Close():  # the last one of its list: what follows on it is carried out inside
                    self._close(one)
                case Started():
                    self._started_at = self._clock.now() - self._opened
                    self._costing.begin(self._clock.now())
                case Dismiss():
                    self._closing.note_loss(f"{one.why}; {_GOES_ON[self._spec.on_loss]}", one.shards)
                    self._hub.broadcast(Abort(one.why), (one.function,))
                    self._runtime.end((one.function,))
                case Delete():
                    self._delete(one.keys)
                case Kept():
                    self._kept.update(one.keys)
                    self._safe.keep_best(one.keys, one.best)
                case Marked():
                    self._kept.update(one.mark.keys)
                    self._safe.mark(one.mark, one.seconds)
                    if self._wanted_mark:
                        self._suspend()
                        return  # no step is closed any more
                case Forget():
                    self._closing.forget_best(one.stored)
                case Rewind():
                    self._rewind(one)
                case Done():
                    self._end(one)
                case Fail():
                    raise one.error

    def _launch(self, functions: Sequence[FunctionId]) -> None:
        self._hub.admit(functions)
        before = self._clock.now()
        self._runtime.start({function: self._payload(function) for function in functions})
        now = self._clock.now()
        self._ledger.pace.launching = now - before
        if self._meter is not None:  # not before, for Lithops may have deployed its runtime first
            self._meter.start(functions, now)
        if not self._launched:
            self._launched = True
            self._start = now - self._past.seconds
            self._closing.begin(self._start)
            self._costing.open(self._start)

    def _close(self, step: Close) -> None:
        """Close a step, and give the ledger the verdict on it."""
        self._reception.hear_of_ends()  # for the bill
        evaluations: dict[int, Evaluation] = {
            report.worker: report.evaluation for report in step.reports if report.evaluation
        }
        self._closing.score(step.plan, evaluations)
        verdict = self._closing.close(
            step.plan,
            step.following,
            step.reports,
            self._clock.now(),
            handovers=step.handovers,
            further=step.further,
        )
        self._wanted_mark = self._suspending
        self._feed(replace(verdict, mark=self._suspending))

    def _suspend(self) -> None:
        """Let go of a job that stands at a checkpoint."""
        self._hub.broadcast(Abort("its supervisor hands over to another one"), self._ledger.functions)
        self._outcome = Outcome(
            RUNNING,
            Choice(0, {}, restored=False),
            self._started_at,
            self._clock.now() - self._start,
            self._pids,
            self._reception.ended,
        )

    def _rewind(self, back: Rewind) -> None:
        self._closing.rewind(back.mark.plan.step, back.mark.progress, back.stored)
        try:
            self._store.get(back.mark.keys)
        except MissingUpdate:  # a server came back empty, and the best model is gone as well
            self._safe.restore(back.mark)
            self._ledger.restored()
            self._closing.forget_best(None)

    def _end(self, done: Done) -> None:
        if done.given_up:
            assert done.best is not None, "given up without a model"
            model = Choice(done.best.step, finite(done.best.heldout), restored=True)
        else:
            model = self._closing.chosen(done.step)
        self._outcome = Outcome(
            self._closing.reason or "epochs",
            model,
            self._started_at,
            self._clock.now() - self._start,
            self._pids,
            self._reception.ended,
            done.best_keys if model.restored else done.result,
            done.given_up,
        )

    def _delete(self, keys: Collection[str]) -> None:
        self._kept -= set(keys)
        if keys:
            self._store.delete(keys)

    def _note_ends(self, ended: Collection[Ended]) -> None:
        note_ends(self._meter, ended, self._clock.now())


def note_ends(meter: Meter | None, ended: Collection[Ended], now: float) -> None:
    """Tell the meter, if there is one, of functions that ended by ``now``."""
    if meter is not None:
        for one in ended:
            meter.end((one.worker, one.generation), now, ran=one.seconds)


def final_bill(meter: Meter | None, ended: Collection[Ended], *, now: float, done: float) -> Bill | None:
    """Return the bill of a job whose last functions have ``ended`` by ``now``, None without a meter.

    No server was needed any more once it was ``done``; what is left is to write the run's files.
    """
    if meter is None:
        return None
    note_ends(meter, ended, now)
    meter.use(Usage(writes=WRITES))
    return meter.bill(done)
