"""Watches a job and asks a policy from time to time, off the way of the steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import numpy as np

from mlless.autotuner.decision import Contribution, Decision, Goal, Observation, Policy, Question

_RECENT = 20  # steps over which the contributions of workers are averaged


class Runner(Protocol):
    """Port: does one piece of work beside the job's steps."""

    def start(self, work: Callable[[], Decision]) -> None:
        """Begin; nothing else may be under way."""
        ...

    def result(self) -> Decision | None:
        """Return what came of it, once; None while it is under way, without waiting."""
        ...


class Tuner:
    """Lets workers go by a policy; at least ``floor`` workers stay."""

    def __init__(self, policy: Policy, runner: Runner, *, floor: int, goal: Goal) -> None:
        self._policy, self._runner, self._floor, self._goal = policy, runner, floor, goal
        self._losses: list[float] = []
        self._members: list[int] = []
        self._seconds: list[float] = []
        self._settled: list[int] = []
        self._heldout: list[tuple[int, float]] = []
        self._recent: deque[Observation] = deque(maxlen=_RECENT)
        self._leaving: set[int] = set()
        self._asked: Observation | None = None
        self._waiting = False
        self._knee: int | None = None

    def recall(self, seen: Observation, decision: Decision | None) -> None:
        """Take in a step of before, where a job goes on that was lost, and what was decided after it.

        Its contributions may be those of nobody: how they were spread is not known any more.
        """
        self._add(seen)
        if decision is not None:
            self._note_knee(decision)

    def expect(self, leaving: Iterable[int]) -> None:
        """Take in who is to leave anyway."""
        self._leaving |= set(leaving)

    def observe(self, seen: Observation) -> Decision | None:
        """Take in a closed step; return a decision if one has come about."""
        self._add(seen)
        self._asked = asked = self._asked or seen
        due = self._policy.due(steps=seen.step - asked.step, seconds=seen.time - asked.time)
        if due and not self._waiting:
            self._asked, self._waiting = seen, True
            self._runner.start(partial(self._policy.decide, self._question(seen)))
        if not self._waiting or (decision := self._runner.result()) is None:
            return None
        self._waiting = False
        return self._checked(decision, seen)

    def _add(self, seen: Observation) -> None:
        before = self._recent[-1] if self._recent else None
        self._recent.append(seen)
        metric = self._goal.target.metric if self._goal.target else ""
        value = (seen.heldout or {}).get(metric, np.nan)
        if np.isfinite(value):
            self._heldout.append((len(self._losses), self._goal.lower(value)))
        if seen.loss is None or not np.isfinite(seen.loss):
            return
        count = len(seen.workers)
        same = bool(self._members) and self._members[-1] == count
        self._losses.append(seen.loss)
        self._members.append(count)
        self._settled.append(self._settled[-1] + 1 if same else 0)
        seconds = np.nan if before is None else seen.time - before.time - seen.evaluating
        self._seconds.append(max(seconds, 0.0))

    def _question(self, seen: Observation) -> Question:
        alike = [one for one in self._recent if len(one.workers) == len(seen.workers)]
        return Question(
            step=seen.step,
            losses=np.array(self._losses, float),
            members=np.array(self._members, float),
            seconds=np.array(self._seconds, float),
            settled=np.array(self._settled, float),
            heldout=tuple(self._heldout),
            workers=self._contributions(seen),
            floor=self._floor,
            goal=self._goal,
            knee=self._knee,
            merging=float(np.median([one.merging for one in alike])),
            exchanged=float(np.median([one.exchanged for one in alike])),
            cost=seen.cost,
            time=seen.time,
        )

    def _contributions(self, seen: Observation) -> tuple[Contribution, ...]:
        """Return what those who are to stay did over the last steps, in the mean."""
        means = []
        for worker in (one.worker for one in seen.workers if one.worker not in self._leaving):
            parts = [one for step in self._recent for one in step.workers if one.worker == worker]
            seconds = float(np.median([part.seconds for part in parts]))
            means.append(Contribution(worker, seconds, sum(part.entries for part in parts) // len(parts)))
        return tuple(means)

    def _checked(self, decision: Decision, seen: Observation) -> Decision:
        """Return the decision if it still holds: others may have left while it came about."""
        staying = {one.worker for one in seen.workers} - self._leaving
        leavers = set(decision.workers) & staying
        if leavers != set(decision.workers) or len(staying) - len(leavers) < min(self._floor, len(staying)):
            return Decision(seen.step, "stay", (), "others have left meanwhile", decision.numbers)
        self._leaving |= leavers
        self._note_knee(decision)
        return decision

    def _note_knee(self, decision: Decision) -> None:
        if decision.workers and self._knee is None and "knee" in decision.numbers:
            self._knee = int(decision.numbers["knee"])
