"""The training loop of one function.

A worker holds a full replica, trains on its own mini-batches, publishes what is significant,
waits until the supervisor has closed the step, and merges what everyone published. With slack it merges some
steps later, in the same order, and so takes the next ones while others are behind. ``run`` is that
loop, to be read from top to bottom; what moves bytes or waits is behind a port.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from mlless import checkpoint, keys
from mlless.channels.ports import KeyValueStore, Link
from mlless.clock import Clock
from mlless.data.dataset import Dataset
from mlless.data.holding import Holding
from mlless.errors import Disconnected, JobError
from mlless.exchange.pattern import Pattern, open_pattern
from mlless.exchange.pending import Pending
from mlless.exchange.reading import Reader
from mlless.exchange.reduction import Merger
from mlless.exchange.update import Update
from mlless.job import JobSpec
from mlless.kernels.arrays import Ids
from mlless.keys import model_key
from mlless.membership import groups_of, leaves, understood
from mlless.messages import (
    PROTOCOL,
    Abort,
    Begin,
    Commit,
    Donate,
    Donated,
    FunctionId,
    HandedOver,
    Hello,
    Merge,
    Merged,
    Origin,
    Plan,
    Prepare,
    Ready,
    Report,
    Substitute,
    Substituted,
    ToWorker,
    failure_of,
)
from mlless.models import model_of, tables_of
from mlless.owning import Estate
from mlless.replica import Replica
from mlless.stepping import Laps, Stepper


@dataclass(frozen=True)
class Identity:
    """Which worker this is, in which launch, in which process, of which release."""

    worker: int
    generation: int
    pid: int
    version: str

    @property
    def function(self) -> FunctionId:
        """The worker and its generation."""
        return self.worker, self.generation


@dataclass(frozen=True)
class _Part:
    """A function's part in a job: its rows, its steps, what it publishes, and what it owns."""

    who: FunctionId
    holding: Holding
    stepper: Stepper
    pattern: Pattern
    estate: Estate


class Worker:
    """One worker of a job, whose function is ended when the clock shows ``until``, if ever.

    Its ``stepper`` takes its steps.
    """

    def __init__(
        self,
        spec: JobSpec,
        me: Identity,
        *,
        store: KeyValueStore,
        link: Link,
        dataset: Dataset,
        clock: Clock,
        until: float | None = None,
        stepper: type[Stepper] = Stepper,
    ) -> None:
        self._until = until
        self._spec, self._me, self._store, self._link, self._clock = spec, me, store, link, clock
        self._dataset = dataset
        self._replica = Replica(tables_of(spec))
        reader = Reader(store, self._replica)
        self._merger = Merger(reader, self._replica, spec.sync, spec.shards, me.function)
        self._pending = Pending(reader, self._replica, spec.sync, me.function)
        self._laps = Laps(clock)
        self._stepper_type = stepper
        self._part = self._part_of(me.function, reader)
        self._before: checkpoint.Arrays = {}  # of the model before the newest evaluation what has moved since
        self._heritage: dict[int, str] = {}  # where those who trained in the step before have left their rows
        self._step = -1
        self._plans: dict[int, Plan] = {}  # of the steps that are not merged, as far as they are known
        self._merged = 0  # steps from step 0 on
        self._bytes_kept = 0  # of models, since the last report

    def run(self) -> None:
        """Take part in the job until it ends or this worker leaves it.

        An error is sent to the supervisor before it is raised.
        """
        try:
            self._run()
        except Disconnected:
            raise  # no one is left to be told
        except Exception as error:  # whatever it is, the user is to see it
            self._link.send(failure_of(*self._me.function, self._step, error))
            raise

    def _run(self) -> None:
        me = self._me.function
        self._link.send(Hello(*me, self._me.pid, PROTOCOL, self._me.version, self._left()))
        begin = self._receive(self._spec.deadlines.commit)  # of the step in which it was launched, maybe
        if isinstance(begin, Prepare):
            self._prepare(begin.plans)
            begin = self._receive(self._spec.deadlines.commit)
        if not isinstance(begin, Begin):
            raise self._out_of_step(begin, "a beginning")
        self._plans = {plan.step: plan for plan in understood(b"", begin.plans)}
        step = self._merged = begin.plans[0].step
        self._begin(self._plans[step], begin.origin)
        bytes_in = 0
        while True:
            plan, self._step = self._plans[step], step
            for one in self._plans.values():
                if one.step > step:
                    self._part.holding.expect(groups_of(one.owners, me[0]))
            report, update = self._take_part(self._part, plan, bytes_in)
            self._clock.work("step", len(plan.members))
            self._link.send(report)

            if self._spec.ahead:
                self._pending.add(plan.step, len(plan.members), update)
            step, bytes_in = step + 1, 0
            while self._merged < self._due(step):  # once, without slack
                self._pending.lift()
                plan = self._plans[self._merged]
                commit = self._await_commit(plan)
                if me in commit.best:
                    self._keep_best(plan.step, first=me == commit.best[0])
                if plan.evaluate:
                    self._before = {}
                # After a flush of all everyone stays, to score the finished model.
                if commit.end or (me[0] in plan.flush and plan.trainers):
                    return
                size = self._part.pattern.merge(commit, len(plan.members))
                self._clock.work("merge", size)
                self._laps.lap("merge")
                self._pending.forget(plan.step)
                self._merged, bytes_in = plan.step + 1, bytes_in + size
                rows = self._part.estate.rows
                if me in commit.checkpoint:
                    self._save_origin(keys.CHECKPOINT, self._merged, rows, shared=me == commit.checkpoint[0])
                self._plans = {one.step: one for one in understood(plan.owners, commit.plans)}
                self._heritage = {who[0]: model_key(keys.ROWS, self._merged, who) for who in commit.left}
                if me in commit.handover:
                    self._enter(self._part, self._plans[self._merged])
                    rows = self._part.estate.rows
                    origin = self._save_origin(keys.HANDOVER, self._merged, rows, whole=True)
                    self._link.send(HandedOver(*me, origin, bytes_in, self._bytes_kept, self._laps.take()))
                    return
            if self._spec.ahead:
                self._pending.lay()
                self._laps.lap("merge")

    def _due(self, step: int) -> int:
        """Return how many steps this worker merges before a step; who has no part in it waits for its end."""
        plan = self._plans.get(step)
        if plan is None or self._me.worker not in plan.members:
            return step
        return plan.due(self._spec.ahead)

    def _prepare(self, plans: tuple[Plan, ...]) -> None:
        """Make ready for what the function before this one still does."""
        self._part.stepper.prepare(understood(b"", plans)[-1], self._me.worker)
        self._laps.take()  # no step has waited for it
        self._link.send(Ready(*self._me.function))

    def _begin(self, plan: Plan, origin: Origin) -> None:
        """Start from where ``origin`` says."""
        self._part.estate.own(plan, self._me.worker)
        self._laps.lap("fetch")
        memory, size = self._part.estate.begin(plan, self._me.worker, origin)
        self._part.stepper.memory = memory
        self._account(size)

    def _part_of(self, who: FunctionId, reader: Reader) -> _Part:
        """Return the part of a function in the job, on this replica."""
        spec, holding = self._spec, Holding(self._dataset, self._spec.seed)
        return _Part(
            who,
            holding,
            self._stepper_type(spec, holding, self._replica, self._clock, self._laps),
            open_pattern(spec, reader, who),
            Estate(self._store, model_of(spec.model), self._replica, holding, self._clock),
        )

    def _enter(self, part: _Part, plan: Plan) -> None:
        """Own what a part has to own in a step."""
        size = part.estate.enter(plan, part.who[0], self._heritage)
        self._laps.lap("fetch")
        if size:
            self._account(size)

    def _take_part(self, part: _Part, plan: Plan, bytes_in: int) -> tuple[Report, Update]:
        """Take a part in a step and publish it; return the report on it, and the update."""
        who = part.who
        self._enter(part, plan)
        report, update = part.stepper.take_part(plan, who, lambda evaluation: self._scored(part))
        pieces = part.pattern.encode(plan.step, update)
        size = sum(map(len, pieces.values()))
        self._clock.work("cut" if self._spec.shards > 1 else "encode", size)
        self._laps.lap("filter")
        if pieces:
            self._store.put_all(pieces)
        self._laps.lap("publish")
        rows, later = part.estate.rows, self._plans.get(plan.step + 1)
        if plan.last and (rows is not None or who[0] == plan.lowest):
            tables = checkpoint.part_of(self._replica, rows, shared=who[0] == plan.lowest)
            self._save_snapshot(model_key(keys.RESULT, plan.step, who), tables, plan.step)
        elif rows is not None and later is not None and leaves(who[0], plan, later):
            self._save_origin(keys.ROWS, later.step, rows, who=who, whole=True, shared=False)
        kept, self._bytes_kept = self._bytes_kept, 0
        report = msgspec.structs.replace(
            report,
            published=bool(pieces),
            bytes_out=size,
            bytes_in=bytes_in,
            bytes_kept=kept,
            times=self._laps.take(),
            left=self._left(),
        )
        return report, update

    def _await_commit(self, plan: Plan) -> Commit:
        """Wait until the step is closed; meanwhile help where others are lost."""
        while True:
            match message := self._receive(self._spec.deadlines.commit):
                case Commit(step=plan.step):
                    return message
                case Merge(step=plan.step):
                    self._merge(message, len(plan.members))
                case Donate(step=plan.step):
                    origin = self._save_origin(keys.DONATION, plan.step)
                    self._link.send(Donated(*self._me.function, origin))
                case Substitute(step=plan.step):
                    self._substitute(plan, (message.worker, message.generation))
                case _:
                    raise self._out_of_step(message, f"the commit of step {plan.step}")

    def _merge(self, order: Merge, members: int) -> None:
        """Merge a shard for all."""
        merged, size = self._merger.merge(order, members)
        self._clock.work("sum", size)
        self._store.put_all(merged)
        self._laps.lap("merge")
        written = sum(map(len, merged.values()))
        self._link.send(Merged(*self._me.function, order.step, order.shard, size, written))

    def _substitute(self, plan: Plan, who: FunctionId) -> None:
        """Take the part of a lost worker in a step, with its rows and this replica."""
        part = self._part_of(who, Reader(self._store, self._replica))
        part.stepper.memory = self._part.stepper.memory
        report, _ = self._take_part(part, plan, 0)
        self._link.send(Substituted(*self._me.function, report))

    def _scored(self, part: _Part) -> None:
        """Remember of the model before a step what is not in ``shared`` of all once it has moved."""
        if part.stepper.alone:
            self._before = dict(self._replica.snapshot())
        elif part is self._part:
            self._before = dict(checkpoint.part_of(self._replica, part.estate.rows, shared=False))

    def _keep_best(self, step: int, *, first: bool) -> None:
        """Store this one's part of the model before a step, the ``first`` one what all share."""
        shared = checkpoint.part_of(self._replica, None, shared=True) if first else {}
        self._save_snapshot(model_key(keys.BEST, step, self._me.function), shared | self._before, step)

    def _save_snapshot(self, key: str, arrays: checkpoint.Arrays, step: int) -> None:
        self._account(checkpoint.save_snapshot(self._store, key, arrays, step))

    def _save_origin(
        self,
        kind: str,
        step: int,
        rows: Ids | None = None,
        *,
        who: FunctionId | None = None,
        whole: bool = False,
        shared: bool = True,
    ) -> Origin:
        """Store from where another one can start in ``step``, with these ``rows`` of those that are owned.

        It does so in the name of ``who``, or else in its own.
        """
        key, memory = model_key(kind, step, who or self._me.function), self._part.stepper.memory
        origin, size = checkpoint.save_origin(
            self._store, key, self._replica, step, memory, whole=whole, rows=rows, shared=shared
        )
        self._account(size)
        return origin

    def _account(self, size: int) -> None:
        self._bytes_kept += size
        self._clock.work("keep", size)
        self._laps.lap("keep")

    def _left(self) -> float | None:
        """Return for how many seconds this function may still run."""
        return None if self._until is None else self._until - self._clock.now()

    def _receive(self, timeout: float) -> ToWorker:
        self._laps.restart()
        message = self._link.receive(timeout)
        self._laps.lap("wait")
        if isinstance(message, Abort):
            raise Disconnected(f"this worker is not needed any more: {message.reason}")
        return message

    def _out_of_step(self, message: ToWorker, expected: str) -> JobError:
        found = f"{type(message).__name__} of step {getattr(message, 'step', '-')}"
        return JobError("a message that does not fit", expected=expected, found=found)
