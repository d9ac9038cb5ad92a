"""The training loop of one function.

A worker holds a full replica, trains on its own mini-batches, publishes what is significant,
waits until the supervisor has closed the step, and merges what everyone published. ``run`` is that
loop, to be read from top to bottom; what moves bytes or waits is behind a port.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlless import checkpoint, messages
from mlless.channels.ports import KeyValueStore, Link
from mlless.clock import Clock
from mlless.data.dataset import Dataset
from mlless.data.holding import Holding
from mlless.errors import Disconnected, JobError
from mlless.exchange.broadcast import Broadcast
from mlless.exchange.update import entries
from mlless.job import JobSpec
from mlless.membership import groups_of, understood
from mlless.messages import Abort, Commit, Evaluation, Finished, Hello, Report, Sums, failure_of
from mlless.models import model_of
from mlless.replica import Replica
from mlless.stepping import Laps, Stepper, Taken


@dataclass(frozen=True)
class Identity:
    """Which worker this is, in which launch, in which process, of which release."""

    worker: int
    generation: int
    pid: int
    version: str


class Worker:
    """One worker of a job."""

    def __init__(
        self, spec: JobSpec, me: Identity, *, store: KeyValueStore, link: Link, dataset: Dataset, clock: Clock
    ) -> None:
        self._spec, self._me, self._store, self._link, self._clock = spec, me, store, link, clock
        self._model = model_of(spec.model)
        self._replica = Replica(self._model.shapes)
        self._exchange = Broadcast(store, self._replica, spec.sync.compression, me.worker, me.generation)
        self._laps = Laps(clock)
        self._holding = Holding(dataset, spec.seed)
        self._stepper = Stepper(spec, self._holding, self._replica, clock, self._laps)
        self._step = -1

    def run(self) -> None:
        """Take part in the job until it ends or this worker leaves it.

        An error is sent to the supervisor before it is raised.
        """
        try:
            self._run()
        except Disconnected:
            raise  # no one is left to be told
        except Exception as error:  # whatever it is, the user is to see it
            self._link.send(failure_of(self._me.worker, self._me.generation, self._step, error))
            raise

    def _run(self) -> None:
        me = self._me
        checkpoint.load_snapshot(self._store, checkpoint.INITIAL, self._replica)
        self._link.send(
            Hello(me.worker, me.generation, me.pid, messages.PROTOCOL, me.version, self._replica.digest())
        )
        commit, owners, bytes_in = self._receive(self._spec.deadlines.start), b"", 0
        while True:
            plan, *later = understood(owners, commit.plans)
            owners, self._step = plan.owners, plan.step
            for one in later:
                self._holding.expect(groups_of(one.owners, me.worker))
            self._stepper.begin(plan, me.worker)
            evaluated = self._evaluate() if plan.evaluate else None
            # A step alone moves ``shared`` itself, and what may be kept is the model before it.
            before = self._replica.snapshot() if plan.evaluate and self._stepper.alone else None
            flushes = me.worker in plan.flush
            taken = self._stepper.flush(plan) if flushes else self._stepper.train(plan, me.worker)
            self._clock.work("step", len(plan.members))
            self._publish(taken, bytes_in, evaluated)

            commit = self._receive(self._spec.deadlines.commit)
            if commit.step != plan.step:
                raise JobError(
                    "commit of another step", expected=f"step {plan.step}", found=f"step {commit.step}"
                )
            lowest = min(plan.members) == me.worker
            if commit.keep and lowest:
                best = before or self._replica.snapshot()
                checkpoint.save_snapshot(self._store, checkpoint.BEST, best, plan.step)
            leaves = flushes and plan.trainers
            if not commit.end and not leaves:
                bytes_in = self._merge(commit, len(plan.members))
            self._exchange.discard(plan.step - 1)
            if commit.end and lowest:
                self._finish(commit)
            if commit.end or leaves:
                return

    def _publish(self, step: Taken, bytes_in: int, evaluated: tuple[Sums, str] | None) -> None:
        chunks = self._exchange.encode(step.update)
        size = sum(len(chunk) for chunk in chunks)
        self._clock.work("encode", size)
        self._laps.lap("filter")
        if chunks:
            self._exchange.publish(self._step, chunks)
        self._laps.lap("publish")
        training, scoring = self._stepper.take_reads()
        self._link.send(
            Report(
                worker=self._me.worker,
                generation=self._me.generation,
                step=self._step,
                samples=step.samples,
                loss=step.loss,
                published=bool(chunks),
                finite=step.finite,
                entries=entries(step.update),
                bytes_out=size,
                bytes_in=bytes_in,
                reads=training.files,
                bytes_fetched=training.bytes,
                times=self._laps.take(),
                evaluation=evaluated and Evaluation(*evaluated, scoring.files, scoring.bytes),
            )
        )

    def _receive(self, timeout: float) -> Commit:
        self._laps.restart()
        message = self._link.receive(timeout)
        self._laps.lap("wait")
        if isinstance(message, Abort):
            raise Disconnected(f"the job was given up: {message.reason}")
        return message

    def _merge(self, commit: Commit, members: int) -> int:
        size = self._exchange.merge(commit.step, commit.published, self._spec.sync.merge, members)
        self._clock.work("merge", size)
        self._laps.lap("merge")
        return size

    def _evaluate(self) -> tuple[Sums, str]:
        evaluated = self._stepper.evaluate(), self._replica.digest()
        self._laps.lap("evaluate")
        return evaluated

    def _finish(self, commit: Commit) -> None:
        """Store the job's result: the model as it is now, or the best one so far."""
        if commit.end == "best":
            checkpoint.load_snapshot(self._store, checkpoint.BEST, self._replica)
        checkpoint.save_snapshot(self._store, checkpoint.RESULT, self._replica.snapshot())
        self._link.send(Finished(self._me.worker, self._me.generation))
