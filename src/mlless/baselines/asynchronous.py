"""Leads a job whose workers take mini-batch after mini-batch and never wait for one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from mlless.baselines.contract import Tables
from mlless.baselines.judging import Judge
from mlless.billing.meter import Usage
from mlless.messages import Begin, Commit, Evaluation, FunctionId, Hello, Origin, Plan, Report, Times
from mlless.runtimes.ports import Ended
from mlless.stopping import Choice

if TYPE_CHECKING:
    from mlless.baselines.leading import Stage


class Leader:
    """Tells each worker with which of its mini-batches it begins, and scores the model after each epoch.

    A worker that is lost is started anew with the same ``task``. It begins with the first mini-batch of which
    nobody has heard. ``model`` returns the model before a step, or for None the one with which the job ends.
    ``each`` mini-batch uses that besides what its report tells. ``check`` raises an error where the loss of a
    worker is that of the job.
    """

    def __init__(
        self,
        stage: Stage,
        plan: Plan,
        task: msgspec.Struct,
        model: Callable[[int | None], Tables],
        *,
        each: Usage | None = None,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        self._stage, self._plan, self._task = stage, plan, task
        self._model, self._each, self._check = model, each or Usage(), check
        self._judge = Judge(stage.spec, stage.dataset, stage.clock)
        self._functions, self._there = set[FunctionId](), set[FunctionId]()
        self._heard, self._began = Counter[int](), False
        self._models: dict[int | None, Tables] = {}  # that of the newest evaluation, and None for the last

    def run(self) -> tuple[Tables, Choice]:
        """Start the workers, let them begin together, and lead all steps."""
        self._functions = set(self._stage.start(dict.fromkeys(self._plan.members, self._task)))
        while self._functions - self._there:
            self._hear()
        self._stage.begin()
        self._began = True
        for function in sorted(self._functions):
            self._send_off(function)
        ending = self._stage.steps(self._take, self._read)
        self._read(None)  # the end of the training, for all that are still at work
        return ending

    def _take(self, plan: Plan) -> list[Report]:
        """Wait for as many reports as there are workers, whoever they are from."""
        evaluation, seconds = self._score(plan) if plan.evaluate else (None, 0.0)
        reports: list[Report] = []
        while len(reports) < len(plan.trainers):
            reports += self._hear()
        if not reports:  # the end
            self._read(None)
            reports = [Report(0, 0, plan.step, 0, 0.0, False, True, 0, 0, 0, 0, 0, Times())]
        times = msgspec.structs.replace(reports[0].times, evaluate=seconds)
        return [msgspec.structs.replace(reports[0], times=times, evaluation=evaluation), *reports[1:]]

    def _read(self, step: int | None) -> Tables:
        """Return the model before a step that has been scored, or else that with which the training ends."""
        if step not in self._models and None not in self._models:
            over = Commit(self._plan.step, (), (), end=True)
            self._stage.session.hub.broadcast(over, self._functions)
            self._models[None] = self._model(None)
        return self._models[step if step in self._models else None]

    def _score(self, plan: Plan) -> tuple[Evaluation, float]:
        if not plan.last:
            self._models = {plan.step: self._model(plan.step)}
        return self._judge.score(self._read(plan.step))

    def _hear(self) -> list[Report]:
        """Take in a message; return it if it is the next report of its worker."""
        message = self._stage.receive(self._lost)
        who = message.worker, message.generation
        if who in self._functions and isinstance(message, Hello):
            self._there.add(who)
            if self._began:
                self._send_off(who)
        elif who in self._functions and isinstance(message, Report):
            assert message.step == self._heard[message.worker], "a worker is out of step"
            self._heard[message.worker] += 1
            self._stage.use(self._each)
            return [message]
        return []  # of one that has been replaced

    def _send_off(self, function: FunctionId) -> None:
        """Tell a worker from which of its mini-batches on it has to go."""
        begin = Begin(Origin("", self._heard[function[0]], ""), (self._plan,))
        self._stage.session.hub.broadcast(begin, [function])

    def _lost(self, ended: Ended) -> None:
        self._check()
        self._functions.discard((ended.worker, ended.generation))
        self._functions.add(self._stage.replace(ended, "worker", self._task))
