"""A function of the PyTorch systems on its way, whatever takes its steps. It imports no PyTorch."""

from __future__ import annotations

import math
import os
from typing import NamedTuple, Protocol

import msgspec
import safetensors.numpy

import mlless
from mlless.baselines.contract import Function, Tables
from mlless.baselines.pytorch import model_name
from mlless.data.holding import Holding
from mlless.local import begin
from mlless.messages import PROTOCOL, Commit, Donate, Donated, Hello, Origin, Plan, Report
from mlless.stepping import Laps, Stepper


class Moved(NamedTuple):
    """What an exchange has come to: published entries, and bytes sent, which are as many as received."""

    entries: int = 0
    bytes: int = 0


def in_a_ring(size: int, workers: int) -> int:
    """Return the bytes that each sends, and receives, in an all-reduce of so many in a ring."""
    return 2 * (workers - 1) * size // workers


class Taken(NamedTuple):
    """What a step has come to: samples, the sum of their losses before it, and what was moved."""

    samples: int
    loss: float
    moved: Moved


class Trainer(Protocol):
    """Takes the steps of a replica together with those of the other functions."""

    def tables(self) -> Tables:
        """Return a copy of the model as it is."""
        ...

    def step(self, plan: Plan) -> Taken:
        """Take a planned step on one's own mini-batch."""
        ...

    def settle(self, plan: Plan) -> Moved:
        """Bring up to date what is still to be moved, in the planned step, which trains on nothing."""
        ...


class Course:
    """Scores the model and tells of its steps; it has the models ``before`` the last two that were scored."""

    def __init__(self, function: Function, holding: Holding, laps: Laps, trainer: Trainer) -> None:
        self._function, self._trainer, self._laps = function, trainer, laps
        job = function.launch.job
        self._replica = begin(job.model, job.seed).replica
        self._scorer = Stepper(job, holding, self._replica, function.clock, laps)
        self._before: dict[int, Tables] = {}

    def follow(self) -> None:
        """Take step after step as they are told, until who leads says that it is over."""
        me, deadlines, link = (
            self._function.launch.me,
            self._function.launch.job.deadlines,
            self._function.link,
        )
        link.send(Hello(*me, os.getpid(), PROTOCOL, mlless.__version__))
        while True:
            match link.receive(deadlines.commit):
                case Commit(plans=(plan,)):
                    link.send(self._step(plan))
                case Donate(step=step):
                    self._function.objects.put(model_name(step), safetensors.numpy.save(self._before[step]))
                    link.send(Donated(*me, Origin(model_name(step), step, "")))
                case _:
                    return

    def _step(self, plan: Plan) -> Report:
        """Score the model if that is due, and take a step; return the report."""
        if plan.evaluate:
            self._before = {**dict([*self._before.items()][-1:]), plan.step: self._trainer.tables()}
            self._replica.restore(self._before[plan.step])
        scoring = msgspec.structs.replace(plan, flush=(), last=True)
        report, _ = self._scorer.take_part(scoring, self._function.launch.me)
        if plan.trainers:
            samples, loss, moved = self._trainer.step(plan)
            report = msgspec.structs.replace(report, samples=samples, loss=loss, finite=math.isfinite(loss))
        else:
            moved = self._trainer.settle(plan) if plan.flush else Moved()
        return msgspec.structs.replace(
            report,
            published=moved.entries > 0,
            entries=moved.entries,
            bytes_out=moved.bytes,
            bytes_in=moved.bytes,
            times=self._laps.take(),
        )
