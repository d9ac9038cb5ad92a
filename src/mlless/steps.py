"""PURE: the steps of a job that are under way: the open one, and those that some have begun before it closes.

Without slack nobody begins a step before the one before is closed. With a slack of s a step needs only the
commit of s + 1 steps before. So plans are settled s steps further ahead. A report on a later step waits until
that step is the open one. Steps are still closed one by one, in order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from mlless.closing import Verdict
from mlless.mark import Mark
from mlless.membership import Schedule, leaves
from mlless.messages import FunctionId, Plan, Report


class Steps:
    """The plan of the open step and those ``ahead`` of it, and the reports on them; it begins at a mark."""

    def __init__(self, schedule: Schedule, slack: int, mark: Mark) -> None:
        self._schedule, self.slack = schedule, slack
        self.go_back(mark)

    def go_back(self, mark: Mark) -> None:
        """Begin again at a mark."""
        self.plan = mark.plan
        self.reports: dict[int, Report] = {}  # on the open step, by worker,
        self._early: dict[int, dict[int, Report]] = {}  # and on later ones, by step
        ahead = [*mark.ahead[: self.slack + 1]]
        while len(ahead) <= self.slack and (later := self._schedule.after(ahead[-1] if ahead else self.plan)):
            ahead.append(later)
        self.ahead = tuple(ahead)

    @property
    def planned(self) -> tuple[Plan, ...]:
        """The plans of all these steps. All but the newest are settled once the step before opens."""
        return (self.plan, *self.ahead)

    @property
    def following(self) -> Plan | None:
        """The plan of the next step, None in the last one."""
        return self.ahead[0] if self.ahead else None

    @property
    def is_drained(self) -> bool:
        """Whether nobody could begin the open step before the one before was closed."""
        return self.merged(self.plan) == self.plan.step

    @property
    def missing(self) -> list[int]:
        """The members whose reports on the open step are not there."""
        return [worker for worker in self.plan.members if worker not in self.reports]

    def merged(self, plan: Plan) -> int:
        """Return how many steps a member has merged when it takes its part in one."""
        return plan.due(self.slack)

    @property
    def leaving(self) -> tuple[FunctionId, ...]:
        """The functions that have trained in the open step and, while others go on, do so no more."""
        later = self.following
        told = [one for one in self.reports.values() if later and leaves(one.worker, self.plan, later)]
        return tuple((one.worker, one.generation) for one in told)

    def under_way(self, step: int) -> tuple[Plan, dict[int, Report]] | None:
        """Return the plan of a step, and the reports on it to add to; None if it cannot have begun."""
        if step == self.plan.step:
            return self.plan, self.reports
        for plan in self.ahead:
            if plan.step == step and self.merged(plan) <= self.plan.step:
                return plan, self._early.setdefault(step, {})
        return None

    def reports_on(self, step: int) -> Mapping[int, Report]:
        """Return the reports on a step that are there, by worker."""
        return self.reports if step == self.plan.step else self._early.get(step, {})

    @property
    def taken(self) -> list[Report]:
        """All reports that are there."""
        return [one for step in (self.reports, *self._early.values()) for one in step.values()]

    def others(self, worker: int, *, shrink: bool) -> set[int]:
        """Return who may take the part of a worker that is lost now; nobody, if another is to be launched.

        That is so unless the others are to go on without it, or it takes no mini-batch any more.
        """
        newest = self.planned[-1]
        spared = shrink or worker not in self.plan.trainers
        return set(newest.trainers or newest.members) - {worker} if spared else set()

    def untold(self, worker: int) -> int | None:
        """Return the step that a worker may be at work on, the first without its report; None if none is."""
        step = self.plan.step
        while worker in self.reports_on(step):
            step += 1
        return step if self.under_way(step) else None

    def close(self, verdict: Verdict, lost: Collection[int]) -> None:
        """Close the open step, which is not the last one, and open the next one.

        Nobody takes the place of members that are ``lost``. No plan changes that some may have begun.
        """
        settled, newest = self.ahead[: self.slack], self.ahead[self.slack :]
        for planned in newest:  # none where the last step is settled
            before = settled[-1] if settled else self.plan
            planned = self._schedule.abandoned(before) if verdict.diverged else planned
            planned, later = self._schedule.onward(planned, lost, verdict.leavers, end=verdict.stop)
            settled = (*settled, planned, *(() if later is None else (later,)))
        self.plan, *ahead = settled
        self.ahead = tuple(ahead)
        self.reports = self._early.pop(self.plan.step, {})

    def drain(self) -> None:
        """Have all steps merged before the newest one that is planned begins."""
        if self.slack and self.ahead:
            *settled, newest = self.ahead
            self.ahead = (*settled, msgspec.structs.replace(newest, drain=True))
