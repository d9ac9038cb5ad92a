"""Closes the steps of a job: collects reports, decides, commits.

The supervisor is a role, not a place: it talks to workers through the bus alone, and asks pure
rooms what to decide (membership who takes part, stopping when to end, autotuner who may leave) and
what it costs (billing).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from mlless import checkpoint
from mlless.autotuner.decision import Contribution, Observation
from mlless.autotuner.tuner import Tuner
from mlless.billing.budget import WRITES
from mlless.billing.meter import Bill, Meter, Usage
from mlless.channels.ports import Hub, KeyValueStore
from mlless.clock import Clock
from mlless.costing import Costing
from mlless.errors import ChannelError, ReplicasDiffer, WorkerLost
from mlless.exchange.broadcast import update_key
from mlless.job import JobSpec
from mlless.membership import Schedule, told
from mlless.messages import Abort, Commit, FunctionId, Plan, Report
from mlless.models import model_of
from mlless.models.base import add
from mlless.reception import Reception
from mlless.records import StepRecord, StepTimes
from mlless.runtimes.ports import Ended, Runtime
from mlless.stopping import Choice, Progress, Score, finite

# Seconds of silence, or twice the usual step: then one who asks for the end gets the best model so far.
_LAST_WAIT = 5.0

Leavers = Callable[[StepRecord], Collection[int]]
Keeper = Callable[[int, dict[str, float]], None]


def nobody(record: StepRecord) -> Collection[int]:
    """Let no worker go: the membership policy of a job without an auto-tuner."""
    return ()


@dataclass
class Outcome:
    """How a job ended. ``stop_reason`` as in ``records.Summary``; ``seconds`` until the model was there.

    The model is in the store under the name ``snapshot``.
    """

    stop_reason: str
    model: Choice
    started_at: float
    seconds: float
    pids: dict[tuple[int, int], int] = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    snapshot: str = checkpoint.RESULT


class _GivenUp(Exception):
    """The job is to end, and a worker is silent: it ends without that worker's last words."""


class Supervisor:
    """One job's supervisor. The data set has groups of so many rows to train on, their ``sizes``.

    ``listen`` hears of every closed step, ``kept`` of every best model that is in the store: its step and
    held-out metrics. ``leavers`` lets workers go, and so does a ``tuner``. A
    ``meter``, which knows who was started, tells what the job costs.
    """

    def __init__(
        self,
        spec: JobSpec,
        sizes: Sequence[int],
        *,
        hub: Hub,
        store: KeyValueStore,
        runtime: Runtime,
        clock: Clock,
        version: str,
        initial_digest: str,
        listen: Callable[[StepRecord], None],
        leavers: Leavers = nobody,
        kept: Keeper = lambda step, heldout: None,
        meter: Meter | None = None,
        tuner: Tuner | None = None,
    ) -> None:
        self._spec, self._hub, self._store, self._runtime, self._clock = spec, hub, store, runtime, clock
        self._version, self._digest, self._listen, self._leavers = version, initial_digest, listen, leavers
        self._kept_best, self._meter, self._tuner = kept, meter, tuner
        assert tuner is None or leavers is nobody, "a tuner and another who lets workers go"
        self._model = model_of(spec.model)
        self._schedule = Schedule(sizes, spec.batch_size, spec.stop.epochs)
        self._progress = Progress(spec.stop, self._model.null_loss)
        self._reason: str | None = None
        self._start = self._kept = clock.now()
        parameters = sum(shape.rows * shape.columns for shape in self._model.shapes)
        self._costing = Costing(spec, meter, parameters=parameters)
        self._left_behind: list[str] = []
        self._step = -1
        self._reception = Reception(
            hub, runtime, clock, spec.deadlines, watch=self._check_end, notice=self._note_ends
        )
        self._asked = False
        self._started_at = 0.0
        self._stored: Score | None = None  # the best model that is sure to be in the store

    def request_stop(self, reason: str) -> None:
        """Ask for an orderly end after the step at hand. Safe to call from a signal handler."""
        self._reason = self._reason or reason
        self._asked = True

    def run(self) -> Outcome:
        """Lead the job, whose functions have started, to its end; JobError or ChannelError if it fails."""
        self._start = self._kept = self._clock.now()
        self._costing.open(self._start)
        try:
            return self._run()
        except _GivenUp:
            self._hub.broadcast(
                Abort("the job ends without a worker that is silent"), _first(range(self._spec.workers))
            )
            return self._without_a_word()
        except Exception as error:  # one who interrupts does not wait for a bus: its closing tells enough
            try:
                self._hub.broadcast(Abort(type(error).__name__), _first(range(self._spec.workers)))
            except ChannelError as trouble:
                if isinstance(error, WorkerLost):
                    raise trouble from error  # it is why the worker died, and why it could not say so
            raise

    def _run(self) -> Outcome:
        plan = self._schedule.first(self._spec.workers)
        following = self._schedule.after(plan)
        self._reception.greet(plan.members, self._version, self._digest)
        self._started_at = self._clock.now() - self._start
        self._costing.begin(self._clock.now())
        self._hub.broadcast(Commit(-1, (), told(b"", _known(plan, following))), _first(plan.members))
        keep = False
        while True:
            self._step = plan.step
            reports = self._reception.collect(plan)
            # Who stores the best model has done so before it reported the step after.
            self._stored = self._progress.best
            if keep and self._stored:
                self._kept_best(self._stored.step, finite(self._stored.heldout))
            heldout = self._heldout(plan, reports) if plan.evaluate else None
            keep = not plan.last and heldout is not None and self._progress.add_evaluation(plan.step, heldout)
            record = self._close(plan, reports, heldout)
            later = self._decide(plan, following, record, reports)
            chosen = self._chosen(plan, heldout)
            published = tuple((r.worker, r.generation) for r in reports if r.published)
            plans = told(plan.owners, _known(following, later))
            end: Literal["", "best", "final"] = (
                "" if chosen is None else "best" if chosen.restored else "final"
            )
            self._hub.broadcast(Commit(plan.step, published, plans, keep, end), _first(plan.members))
            # Everyone who reported this step has merged the one before; who left in it cannot tidy up.
            self._store.delete(self._left_behind)
            self._keep_snapshots()
            leavers = plan.flush if plan.trainers else ()
            self._left_behind = [update_key(plan.step, *who) for who in published if who[0] in leavers]
            if chosen is not None:
                reason = self._reason or "epochs"  # a Ctrl-C from now on changes nothing
                self._reception.await_model(min(plan.members))
                return self._outcome(reason, chosen)
            assert following is not None
            plan, following = following, later

    def _outcome(self, reason: str, model: Choice) -> Outcome:
        seconds = self._clock.now() - self._start
        pids, ended = self._reception.pids, self._reception.ended
        return Outcome(reason, model, self._started_at, seconds, pids, ended)

    def _without_a_word(self) -> Outcome:
        """Return how a job ends that no longer waits for a silent worker: with the best model so far."""
        assert self._reason is not None
        assert self._stored is not None
        model = Choice(self._stored.step, finite(self._stored.heldout), restored=True)
        outcome = self._outcome(self._reason, model)
        outcome.snapshot = checkpoint.BEST
        return outcome

    def _keep_snapshots(self) -> None:
        """See to it that the snapshots outlive a long job: by themselves they expire, as all keys do."""
        if self._clock.now() - self._kept > self._spec.deadlines.expiry / 8:
            self._store.keep(checkpoint.NAMES)
            self._kept = self._clock.now()

    def _close(self, plan: Plan, reports: list[Report], heldout: dict[str, float] | None) -> StepRecord:
        """Return the step's record."""
        samples = sum(report.samples for report in reports)
        loss = sum(report.loss for report in reports) / samples if samples else None
        if loss is not None:
            self._progress.add_step(loss)
        record = StepRecord(
            step=plan.step,
            epoch=plan.done,
            time=self._clock.now() - self._start,
            loss=loss,
            train_loss=self._progress.train_loss,
            heldout=None if heldout is None else finite(heldout),
            workers=len(plan.members),
            samples=samples,
            entries=sum(report.entries for report in reports),
            bytes_out=sum(report.bytes_out for report in reports),
            bytes_in=sum(report.bytes_in for report in reports),
            bytes_fetched=sum(report.bytes_fetched for report in reports)
            + sum(one.evaluation.bytes for one in reports if one.evaluation),
            times=_mean_times(reports),
            cost=self._charge(plan, reports),
        )
        if self._tuner is not None:
            decision = self._tuner.observe(_observation(record, plan, reports))
            record = msgspec.structs.replace(record, decision=decision)
        self._listen(record)
        return record

    def _charge(self, plan: Plan, reports: list[Report]) -> float | None:
        """Meter the step; return what the job has cost so far."""
        self._reception.hear_of_ends()
        return self._costing.add_step(plan, reports, self._clock.now())

    def _spent(self, following: Plan | None) -> Literal["cost", "time"] | None:
        """Return which budget allows for no step beyond the ``following``, if that makes a difference."""
        if following is None or not self._costing.limited:
            return None
        later = self._schedule.after(following)
        if later == self._schedule.after(following, end=True):
            return None
        return self._costing.spent(self._clock.now(), _known(following, later))

    def _heldout(self, plan: Plan, reports: list[Report]) -> dict[str, float]:
        evaluations = {report.worker: report.evaluation for report in reports if report.evaluation}
        digests = {worker: evaluation.digest for worker, evaluation in evaluations.items()}
        if len(set(digests.values())) > 1:
            listing = ", ".join(f"worker {worker}: {digest}" for worker, digest in digests.items())
            raise ReplicasDiffer(
                "workers no longer share the same model", where=f"step {plan.step}", found=listing
            )
        total = None
        for evaluation in evaluations.values():
            if evaluation.sums.samples:
                total = evaluation.sums if total is None else add(total, evaluation.sums)
        return self._model.metrics(total) if total else {}

    def _decide(
        self, plan: Plan, following: Plan | None, record: StepRecord, reports: list[Report]
    ) -> Plan | None:
        """Return the plan of the step after the following one; decisions take effect there."""
        if self._progress.diverged(finite=all(report.finite for report in reports)):
            self._reason = "diverged"
        elif record.loss is not None:
            spent = self._spent(following)
            reason = self._progress.reason(evaluated=plan.evaluate, spent=spent)
            self._reason = self._reason or reason
        leavers = () if self._reason else self._leavers(record)
        if record.decision is not None:
            leavers = (*leavers, *record.decision.workers)
        if following is None:
            return None
        return self._schedule.after(following, leavers, end=self._reason is not None)

    def _chosen(self, plan: Plan, heldout: dict[str, float] | None) -> Choice | None:
        """Return the model that the job ends with, None if it does not end with this step."""
        if self._reason == "diverged":
            return self._progress.choose(plan.step, None)
        return self._progress.choose(plan.step, heldout or {}) if plan.last else None

    def _check_end(self, silent: float) -> None:
        """Raise what ends a wait in which no message has come for so many seconds.

        That is an error if a budget was used up before anything was trained. It is _GivenUp if the job is to
        end now, and has a model to end with.
        """
        now = self._clock.now()
        if self._step <= 0:
            self._costing.check_start(now)
        if self._costing.late(now):
            self._reason = self._reason or "time"
        elif not self._asked or silent < max(_LAST_WAIT, 2 * self._reception.usual):
            return
        if silent and self._stored is not None:
            raise _GivenUp

    def _note_ends(self, ended: Collection[Ended]) -> None:
        note_ends(self._meter, ended, self._clock.now())


def note_ends(meter: Meter | None, ended: Collection[Ended], now: float) -> None:
    """Tell the meter, if there is one, of functions that ended by ``now``."""
    if meter is not None:
        for one in ended:
            meter.end((one.worker, one.generation), now, ran=one.seconds)


def _first(workers: Iterable[int]) -> list[FunctionId]:
    """Return the first generation of workers."""
    return [(worker, 0) for worker in workers]


def final_bill(meter: Meter | None, ended: Collection[Ended], *, now: float, done: float) -> Bill | None:
    """Return the bill of a job whose last functions have ``ended`` by ``now``, None without a meter.

    No server was needed any more once it was ``done``; what is left is to write the run's files.
    """
    if meter is None:
        return None
    note_ends(meter, ended, now)
    meter.use(Usage(writes=WRITES))
    return meter.bill(done)


def _known(*plans: Plan | None) -> tuple[Plan, ...]:
    return tuple(plan for plan in plans if plan is not None)


def _observation(record: StepRecord, plan: Plan, reports: list[Report]) -> Observation:
    return Observation(
        step=record.step,
        time=record.time,
        loss=record.loss,
        workers=tuple(Contribution(one.worker, _busy(one), one.entries) for one in reports),
        evaluating=max(report.times.evaluate for report in reports) if plan.evaluate else 0.0,
        heldout=record.heldout,
        merging=record.times.merge,
        exchanged=record.bytes_out + record.bytes_in,
        cost=record.cost,
    )


def _busy(report: Report) -> float:
    """Return how long others may have waited for a worker."""
    times = report.times
    return times.fetch + times.compute + times.filter + times.publish + times.merge


def _mean_times(reports: list[Report]) -> StepTimes:
    count = len(reports)
    names = StepTimes.__struct_fields__
    return StepTimes(*(sum(getattr(r.times, name) for r in reports) / count for name in names))
