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
from mlless.data.stream import BatchStream
from mlless.errors import Disconnected, JobError, NotFinite
from mlless.exchange.broadcast import Broadcast
from mlless.exchange.filter import SignificanceFilter
from mlless.exchange.update import Update, entries
from mlless.heldout import score_heldout
from mlless.job import JobSpec
from mlless.kernels.arrays import Floats
from mlless.membership import position_of
from mlless.messages import Abort, Commit, Evaluation, Finished, Hello, Plan, Report, Sums, Times, failure_of
from mlless.models import model_of
from mlless.replica import Replica
from mlless.stopping import better


@dataclass(frozen=True)
class Identity:
    """Which worker this is, in which launch, in which process, of which release."""

    worker: int
    generation: int
    pid: int
    version: str


@dataclass
class _Step:
    """What a step has come to, for its report."""

    samples: int = 0
    loss: float = 0.0
    fetched: int = 0
    finite: bool = True
    update: Update = ()


class Worker:
    """One worker of a job."""

    def __init__(
        self, spec: JobSpec, me: Identity, *, store: KeyValueStore, link: Link, dataset: Dataset, clock: Clock
    ) -> None:
        self._spec, self._me, self._store, self._link, self._clock = spec, me, store, link, clock
        self._dataset = dataset
        self._model = model_of(spec.model)
        self._replica = Replica(self._model.shapes)
        self._filter = SignificanceFilter(spec.sync, self._replica)
        self._exchange = Broadcast(store, self._replica, spec.sync.compression, me.worker, me.generation)
        self._stream = BatchStream(dataset, spec)
        self._times: dict[str, float] = {}
        self._since = 0.0
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
            step = self._flush() if me.worker in plan.flush else self._train(plan)
            self._clock.work("step", len(plan.members))
            self._publish(step, bytes_in, evaluation)
            self._prefetch(commit.plans[1:])

            commit = self._receive(self._spec.deadlines.commit)
            if commit.step != plan.step:
                raise JobError(
                    "commit of another step", expected=f"step {plan.step}", found=f"step {commit.step}"
                )
            lowest, flushed = min(plan.members) == me.worker, me.worker in plan.flush
            if commit.keep and lowest:
                checkpoint.save_snapshot(self._store, checkpoint.BEST, self._replica.snapshot())
            if commit.end != "restore" and (not flushed or (commit.end and lowest)):
                bytes_in = self._merge(commit, len(plan.members))
            self._exchange.discard(plan.step - 1)
            if commit.end and lowest:
                self._finish(commit, bytes_in)
            if commit.end or flushed:
                return

    def _train(self, plan: Plan) -> _Step:
        position = self._position(plan)
        if position is None:
            return _Step()
        fetched = self._stream.take(position)
        batch = fetched.batch
        self._clock.work("fetch", fetched.bytes)
        self._lap("fetch")
        publish = self._filter.prepare(plan.step, batch.touched)
        loss, sent = self._model.step(
            self._replica, batch.arrays, self._spec.optimizer, plan.step, len(plan.trainers), publish
        )
        self._clock.work("compute", len(batch))
        self._lap("compute")
        try:
            return _Step(len(batch), loss, fetched.bytes, update=self._filter.take(publish, sent))
        except NotFinite:
            return _Step(len(batch), loss, fetched.bytes, finite=False)

    def _flush(self) -> _Step:
        self._model.settle(self._replica, self._spec.optimizer, self._step - 1)
        try:
            return _Step(update=self._filter.flush())
        except NotFinite:
            return _Step(finite=False)

    def _publish(self, step: _Step, bytes_in: int, evaluation: Evaluation | None) -> None:
        chunks = self._exchange.encode(step.update)
        size = sum(len(chunk) for chunk in chunks)
        self._clock.work("encode", size)
        self._lap("filter")
        if chunks:
            self._exchange.publish(self._step, chunks)
        self._lap("publish")
        times, self._times = Times(**self._times), {}
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
                times=times,
                evaluation=evaluation,
            )
        )

    def _position(self, plan: Plan) -> int | None:
        """Return the position that is this worker's in a step, None if it has none to train on."""
        position, end = position_of(plan, self._me.worker), self._spec.batches * self._spec.stop.epochs
        return position if position is not None and position < end else None

    def _announce(self, later: tuple[Plan, ...]) -> None:
        for plan in later:
            if (position := self._position(plan)) is not None:
                self._stream.announce(position)

    def _prefetch(self, later: tuple[Plan, ...]) -> None:
        self._since = self._clock.now()
        for plan in later:
            if (position := self._position(plan)) is not None:
                self._stream.prefetch(position)
        self._lap("fetch")

    def _receive(self, timeout: float) -> Commit:
        self._since = self._clock.now()
        message = self._link.receive(timeout)
        self._lap("wait")
        if isinstance(message, Abort):
            raise Disconnected(f"the job was given up: {message.reason}")
        return message

    def _merge(self, commit: Commit, members: int) -> int:
        size = self._exchange.merge(commit.step, commit.published, self._spec.sync.merge, members)
        self._clock.work("merge", size)
        self._lap("merge")
        return size

    def _evaluate(self, plan: Plan) -> Evaluation:
        rank = plan.members.index(self._me.worker)
        sums, _, _ = self._score(rank, len(plan.members))
        read = sum(file.bytes for file in self._dataset.manifest.validation[rank :: len(plan.members)])
        evaluation = Evaluation(sums, self._replica.digest(), read)
        self._lap("evaluate")
        return evaluation

    def _score(self, rank: int, of: int) -> tuple[Sums, Floats, Floats]:
        return score_heldout(self._model, self._replica, self._dataset, self._clock, rank=rank, of=of)

    def _finish(self, commit: Commit, bytes_in: int) -> None:
        """Store the job's result: the model as it is now, or the best one if that was better."""
        heldout = self._model.exact(*self._score(0, 1)) if commit.end == "merge" else {}
        value = next(iter(heldout.values()), None)
        best = commit.best
        restored = best is not None and (
            commit.end == "restore" or (value is not None and better(best.value, value))
        )
        if restored:
            checkpoint.load_snapshot(self._store, checkpoint.BEST, self._replica)
            heldout = self._model.exact(*self._score(0, 1))
        checkpoint.save_snapshot(self._store, checkpoint.RESULT, self._replica.snapshot())
        step = best.step if restored and best is not None else commit.step + 1
        finite = {name: value for name, value in heldout.items() if math.isfinite(value)}
        self._link.send(Finished(self._me.worker, self._me.generation, step, finite, restored, bytes_in))

    def _lap(self, activity: str) -> None:
        """Say what the time since the last lap was spent on."""
        now = self._clock.now()
        self._times[activity] = self._times.get(activity, 0.0) + now - self._since
        self._since = now
