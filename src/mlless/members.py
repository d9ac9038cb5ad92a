"""PURE: the functions that take part in the open step of a job, and how far each has come."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass
from enum import Enum

from mlless.errors import MLLessError
from mlless.losses import late_start, silent
from mlless.messages import FunctionId


class Stage(Enum):
    """How far a function has come."""

    LAUNCHED = "launched"
    THERE = "there"  # it has said hello
    READY = "ready"  # it has prepared itself to be a successor
    AT_WORK = "at work"  # it has begun
    SUBSTITUTED = "substituted"  # another one is to take its part


@dataclass
class Member:
    """The newest function of a worker."""

    generation: int
    stage: Stage = Stage.LAUNCHED
    since: float = 0.0  # when what it is waited for was asked for
    substitute: int | None = None  # the worker that takes its part
    fresh: bool = True  # it has reported nothing yet: it has its rows to read
    until: float = math.inf  # when its time limit ends it


@dataclass(frozen=True)
class Patience:
    """Seconds after which a member counts as lost in a ``step``.

    At work, with rows still to read, not there yet.
    """

    step: int
    usual: float
    cold: float
    start: float


class Members(dict[int, Member]):
    """The members by worker. No generation of a worker comes twice, whatever becomes of it."""

    def __init__(self) -> None:
        super().__init__()
        self._generations: Counter[int] = Counter()

    def renew(self, worker: int, stage: Stage, now: float) -> FunctionId:
        """Make the next generation of a worker its newest one, and return it."""
        self[worker] = self.new(worker, stage, now)
        return worker, self[worker].generation

    def new(self, worker: int, stage: Stage, now: float) -> Member:
        """Return a new generation of a worker, which is no member yet."""
        return Member(self.next_generation(worker), stage, now)

    def next_generation(self, worker: int) -> int:
        """Return a generation of a worker that has not been there yet."""
        self._generations[worker] += 1
        return self._generations[worker] - 1

    def is_newest(self, worker: int, generation: int) -> bool:
        """Return whether a function is the newest of its worker."""
        member = self.get(worker)
        return member is not None and member.generation == generation

    def is_fresh(self, who: FunctionId) -> bool:
        """Return whether a function is a member that has reported nothing yet."""
        return self.is_newest(*who) and self[who[0]].fresh

    def retain(self, workers: Container[int]) -> None:
        """Let go of all but these; who is to take the part of one that is lost is an open question again."""
        for worker in [one for one in self if one not in workers]:
            del self[worker]
        for one in self.values():
            one.substitute = None

    @property
    def functions(self) -> tuple[FunctionId, ...]:
        """All of them, in order."""
        return tuple((worker, member.generation) for worker, member in sorted(self.items()))

    @property
    def at_work(self) -> dict[int, int]:
        """The generations of those at work, by worker, in order."""
        return {w: one.generation for w, one in sorted(self.items()) if one.stage is Stage.AT_WORK}

    @property
    def are_any_at_work(self) -> bool:
        """Whether one of them has the model."""
        return any(one.stage is Stage.AT_WORK for one in self.values())

    @property
    def substituted(self) -> list[int]:
        """The workers whose part another one takes."""
        return [worker for worker, one in self.items() if one.stage is Stage.SUBSTITUTED]

    def overdue(
        self, reported: Container[int], opened: float, patience: Patience, now: float
    ) -> Iterator[tuple[FunctionId, MLLessError]]:
        """Yield members whose time is over, each with its error.

        The step was ``opened`` then, and others have ``reported``.
        """
        for worker, member in self.items():
            if worker in reported:
                continue
            waited = now - max(opened, member.since)
            match member.stage:
                case Stage.AT_WORK if waited > (patience.cold if member.fresh else patience.usual):
                    yield (worker, member.generation), silent(worker, patience.step)
                case Stage.LAUNCHED if waited > patience.start:
                    yield (worker, member.generation), late_start(worker, patience.start)
                case Stage.SUBSTITUTED if member.substitute is not None and waited > patience.cold:
                    other = member.substitute
                    yield (other, self[other].generation), silent(other, patience.step)
