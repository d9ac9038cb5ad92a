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
from mlless.keys import model_key
from mlless.membership import groups_of, understood
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
from mlless.models import model_of
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
        self._replica = Replica(model_of(spec.model).shapes)
        reader = Reader(store, self._replica)
        self._pattern = open_pattern(spec, reader, me.function)
        self._merger = Merger(reader, spec.sync, me.function)
        self._pending = Pending(reader, self._replica, spec.sync, me.function)
        self._laps = Laps(clock)
        self._stepper = stepper(spec, Holding(dataset, spec.seed), self._replica, clock, self._laps)
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
        self._begin(begin.origin)
        self._plans = {plan.step: plan for plan in understood(b"", begin.plans)}
        step = self._merged = begin.plans[0].step
        bytes_in = 0
        while True:
            plan, self._step = self._plans[step], step
            for one in self._plans.values():
                if one.step > step:
                    self._stepper.holding.expect(groups_of(one.owners, me[0]))
            # A step alone moves ``shared`` itself, and what may be kept is the model before it.
            before = self._replica.snapshot() if plan.evaluate and self._stepper.alone else None
            report, update = self._take_part(self._stepper, self._pattern, plan, me, bytes_in)
            self._clock.work("step", len(plan.members))
            self._link.send(report)

            if self._spec.ahead:
                self._pending.add(plan.step, len(plan.members), update)
            step, bytes_in = step + 1, 0
            while self._merged < self._due(step):  # once, without slack
                self._pending.lift()
                plan = self._plans[self._merged]
                commit = self._await_commit(plan)
                if commit.best == me:
                    best = before or self._replica.snapshot()
                    key = model_key(keys.BEST, plan.step, me)
                    self._account(checkpoint.save_snapshot(self._store, key, best, plan.step))
                # After a flush of all everyone stays, to score the finished model.
                if commit.end or (me[0] in plan.flush and plan.trainers):
                    return
                size = self._pattern.merge(commit, len(plan.members))
                self._clock.work("merge", size)
                self._laps.lap("merge")
                self._pending.forget(plan.step)
                self._merged, bytes_in = plan.step + 1, bytes_in + size
                if commit.checkpoint == me:
                    self._save_origin(keys.CHECKPOINT, self._merged)
                if me in commit.handover:
                    origin = self._save_origin(keys.HANDOVER, self._merged, whole=True)
                    self._link.send(HandedOver(*me, origin, bytes_in, self._bytes_kept, self._laps.take()))
                    return
                self._plans = {one.step: one for one in understood(plan.owners, commit.plans)}
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
        self._stepper.prepare(understood(b"", plans)[-1], self._me.worker)
        self._laps.take()  # no step has waited for it
        self._link.send(Ready(*self._me.function))

    def _begin(self, origin: Origin) -> None:
        """Start from where ``origin`` says."""
        self._stepper.memory, size = checkpoint.load_origin(self._store, origin, self._replica)
        self._account(size)

    def _take_part(
        self, stepper: Stepper, pattern: Pattern, plan: Plan, who: FunctionId, bytes_in: int
    ) -> tuple[Report, Update]:
        """Take the part of ``who`` in a step and publish it; return the report on it, and the update."""
        report, update = stepper.take_part(plan, who)
        pieces = pattern.encode(plan.step, update)
        size = sum(map(len, pieces.values()))
        self._clock.work("cut" if self._spec.shards > 1 else "encode", size)
        self._laps.lap("filter")
        if pieces:
            self._store.put_all(pieces)
        self._laps.lap("publish")
        if plan.last and who[0] == plan.lowest:
            key = model_key(keys.RESULT, plan.step, who)
            self._account(checkpoint.save_snapshot(self._store, key, self._replica.snapshot(), plan.step))
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
        holding = Holding(self._dataset, self._spec.seed)
        stepper = type(self._stepper)(self._spec, holding, self._replica, self._clock, self._laps)
        stepper.memory = self._stepper.memory
        pattern = open_pattern(self._spec, Reader(self._store, self._replica), who)
        report, _ = self._take_part(stepper, pattern, plan, who, 0)
        self._link.send(Substituted(*self._me.function, report))

    def _save_origin(self, kind: str, step: int, *, whole: bool = False) -> Origin:
        """Store from where another one can start in ``step``."""
        key, memory = model_key(kind, step, self._me.function), self._stepper.memory
        origin, size = checkpoint.save_origin(self._store, key, self._replica, step, memory, whole=whole)
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
