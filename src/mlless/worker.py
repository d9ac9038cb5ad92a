"""The training loop of one function.

A worker holds a full replica, trains on its own mini-batches, publishes what is significant,
waits until the supervisor has closed the step, and merges what everyone published. ``run`` is that
loop, to be read from top to bottom; what moves bytes or waits is behind a port.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlless import checkpoint, messages
from mlless.channels.ports import KeyValueStore, Link
from mlless.clock import Clock
from mlless.data.dataset import Dataset
from mlless.errors import Disconnected, JobError
from mlless.exchange.broadcast import Broadcast
from mlless.exchange.update import entries
from mlless.heldout import score_heldout
from mlless.job import JobSpec
from mlless.kernels.arrays import Floats
from mlless.messages import Abort, Commit, Evaluation, Finished, Hello, Plan, Report, Sums, failure_of
from mlless.models import model_of
from mlless.replica import Replica
from mlless.stepping import Laps, Stepper, Taken
from mlless.stopping import goes_back


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
        self._dataset = dataset
        self._model = model_of(spec.model)
        self._replica = Replica(self._model.shapes)
        self._exchange = Broadcast(store, self._replica, spec.sync.compression, me.worker, me.generation)
        self._laps = Laps(clock)
        self._stepper = Stepper(spec, dataset, self._replica, clock, self._laps)
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
        commit, bytes_in = self._receive(self._spec.deadlines.start), 0
        while True:
            plan = commit.plans[0]
            self._step = plan.step
            self._announce(commit.plans[1:])
            evaluation = self._evaluate(plan) if plan.evaluate else None
            # A step alone moves ``shared`` itself, and what may be kept is the model before it.
            before = self._replica.snapshot() if plan.evaluate and self._stepper.alone else None
            flushed = me.worker in plan.flush
            taken = self._stepper.flush(plan) if flushed else self._stepper.train(plan, me.worker)
            self._clock.work("step", len(plan.members))
            self._publish(taken, bytes_in, evaluation)
            self._prefetch(commit.plans[1:])

            commit = self._receive(self._spec.deadlines.commit)
            if commit.step != plan.step:
                raise JobError(
                    "commit of another step", expected=f"step {plan.step}", found=f"step {commit.step}"
                )
            lowest = min(plan.members) == me.worker
            if commit.keep and lowest:
                checkpoint.save_snapshot(self._store, checkpoint.BEST, before or self._replica.snapshot())
            if commit.end != "restore" and (not flushed or (commit.end and lowest)):
                bytes_in = self._merge(commit, len(plan.members))
            self._exchange.discard(plan.step - 1)
            if commit.end and lowest:
                self._finish(commit, bytes_in)
            if commit.end or flushed:
                return

    def _publish(self, step: Taken, bytes_in: int, evaluation: Evaluation | None) -> None:
        chunks = self._exchange.encode(step.update)
        size = sum(len(chunk) for chunk in chunks)
        self._clock.work("encode", size)
        self._laps.lap("filter")
        if chunks:
            self._exchange.publish(self._step, chunks)
        self._laps.lap("publish")
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
                bytes_fetched=step.fetched,
                times=self._laps.take(),
                evaluation=evaluation,
            )
        )

    def _announce(self, later: tuple[Plan, ...]) -> None:
        for plan in later:
            if (position := self._stepper.position(plan, self._me.worker)) is not None:
                self._stepper.stream.announce(position)

    def _prefetch(self, later: tuple[Plan, ...]) -> None:
        self._laps.restart()
        for plan in later:
            if (position := self._stepper.position(plan, self._me.worker)) is not None:
                self._stepper.stream.prefetch(position)
        self._laps.lap("fetch")

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

    def _evaluate(self, plan: Plan) -> Evaluation:
        rank = plan.members.index(self._me.worker)
        sums, _, _ = self._score(rank, len(plan.members))
        read = sum(file.bytes for file in self._dataset.manifest.validation[rank :: len(plan.members)])
        evaluation = Evaluation(sums, self._replica.digest(), read)
        self._laps.lap("evaluate")
        return evaluation

    def _score(self, rank: int, of: int) -> tuple[Sums, Floats, Floats]:
        batches = self._dataset.batches(self._dataset.manifest.validation[rank::of])
        return score_heldout(self._model, self._replica, batches, self._clock)

    def _finish(self, commit: Commit, bytes_in: int) -> None:
        """Store the job's result: the model as it is now, or the best one if that was better."""
        heldout = self._model.exact(*self._score(0, 1)) if commit.end == "merge" else {}
        best = commit.best
        restored = best is not None and (commit.end == "restore" or goes_back(best, heldout))
        if restored:
            checkpoint.load_snapshot(self._store, checkpoint.BEST, self._replica)
            heldout = self._model.exact(*self._score(0, 1))
        checkpoint.save_snapshot(self._store, checkpoint.RESULT, self._replica.snapshot())
        step = best.step if restored and best is not None else commit.step + 1
        finite = {name: value for name, value in heldout.items() if math.isfinite(value)}
        self._link.send(Finished(self._me.worker, self._me.generation, step, finite, restored, bytes_in))
