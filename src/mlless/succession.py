"""PURE: how a function hands over to its successor before its time limit ends it.

With each report a function tells how much time it has left. Some time before its end the next generation of
its worker is launched beside it, its *successor*, which reads what it is going to need. Once that is ready, a
commit asks the old one to hand over: it merges the step, stores all that the next one depends on, and exits.
From that commit on the successor is the member. It begins with what it is handed, to the same bits.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Collection, Container, Iterator

import msgspec

from mlless.errors import DeadlineExceeded, MLLessError
from mlless.instructions import Instruction, Launch, Send
from mlless.losses import late_start
from mlless.members import Member, Members, Patience, Stage
from mlless.messages import (
    Abort,
    FromWorker,
    FunctionId,
    HandedOver,
    Hello,
    Origin,
    Plan,
    Prepare,
    Ready,
    Report,
    Times,
)
from mlless.pace import Pace

# A successor is launched before the end by twice as long as all takes until it can begin, and by another
# second, or 5 % of the limit. What comes too early costs little; what comes too late costs the changes that
# are not published.
_SAFETY, _FLOOR, _SHARE = 2.0, 1.0, 0.05
_HURRY = 1.5  # usual steps: who has less time left does not begin another one


class Succession:
    """The successors of one job's members, and those who hand over in the open step."""

    def __init__(self, pace: Pace, workers: int, slack: int = 0) -> None:
        self._pace, self._slack = pace, slack
        self._successors: dict[int, Member] = {}
        self._leaving: dict[int, tuple[FunctionId, float]] = {}  # who hands over, and since when
        self._origins: dict[int, Origin] = {}  # what was handed to members of the open step
        self._rests: dict[int, HandedOver] = {}  # what was done for a hand-over that no report has told yet
        # Seconds that it took lately: from launch to hello; from there until rows are read, or a first step
        # is over; and from the commit that asks for a hand-over until it is there.
        self._starts: deque[float] = deque(maxlen=workers)
        self._warming: deque[float] = deque(maxlen=2 * workers)
        self._handing: deque[float] = deque(maxlen=workers)
        self._limit = 0.0

    @property
    def functions(self) -> tuple[FunctionId, ...]:
        """All functions that count and are no members."""
        return (*self._ids(self._successors), *(who for who, _ in self._leaving.values()))

    @property
    def lead(self) -> float:
        """How many seconds before its end a function's successor is launched."""
        parts = (self._starts, self._warming, self._handing)
        took = sum(max(seconds, default=0.0) for seconds in parts) + self._pace.launching + self._longest
        return _SAFETY * took + max(_FLOOR, _SHARE * self._limit)

    @property
    def is_near(self) -> bool:
        """Whether somebody has a successor, and is to hand over before long."""
        return bool(self._successors)

    @property
    def _longest(self) -> float:
        """How many seconds it may take until the next commit that can ask for a hand-over."""
        return self._pace.whole + self._slack * self._pace.usual

    def is_successor(self, who: FunctionId) -> bool:
        """Return whether a function is to be a member, and is none yet."""
        return who in self._ids(self._successors)

    def is_leaving(self, who: FunctionId) -> bool:
        """Return whether a function was asked to hand over and has not done so yet."""
        return any(who == one for one, _ in self._leaving.values())

    def is_awaited(self, worker: int) -> bool:
        """Return whether a worker's member is to be handed something."""
        return worker in self._leaving

    def feeds(self, workers: Collection[int]) -> bool:
        """Return whether one of the workers has something to go on from, or is going to have it."""
        return not self._leaving.keys().isdisjoint(workers) or not self._origins.keys().isdisjoint(workers)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """All that was handed over for the open step."""
        return tuple(self._origins.values())

    def origin(self, worker: int) -> Origin | None:
        """Return from where a worker's member goes on, if it was handed something."""
        return self._origins.get(worker)

    def greet(self, member: Member, hello: Hello, now: float) -> None:
        """Take in that a function is there."""
        self._starts.append(now - member.since)
        if hello.left is not None:
            self._limit = max(self._limit, hello.left)
            member.until = now + hello.left
        member.stage, member.since = Stage.THERE, now

    def receive(self, message: HandedOver, now: float) -> None:
        """Take in that a function has handed over."""
        _, since = self._leaving.pop(message.worker)
        self._handing.append(now - since)
        self._origins[message.worker], self._rests[message.worker] = message.origin, message

    def hear(self, message: FromWorker, plans: tuple[Plan, ...], now: float) -> Iterator[Instruction]:
        """Take in what a function says that counts and is no member."""
        who = message.worker, message.generation
        match message:
            case Hello() if self.is_successor(who):
                if (member := self._successors[message.worker]).stage is Stage.LAUNCHED:
                    self.greet(member, message, now)
                    yield Send(Prepare(plans), (who,))
            case Ready() if self.is_successor(who):
                if (member := self._successors[message.worker]).stage is Stage.THERE:
                    self._warming.append(now - member.since)
                    member.stage = Stage.READY

    def take(self, member: Member, report: Report, now: float) -> Report:
        """Return a member's report with what has been done for it by who handed over."""
        if report.left is not None:
            member.until = now + report.left
        if member.fresh:
            self._warming.append(now - member.since)
        rest = self._rests.pop(report.worker, None)
        if rest is None:
            return report
        own, more = msgspec.structs.astuple(report.times), msgspec.structs.astuple(rest.times)
        times = map(operator.add, own, more)
        return msgspec.structs.replace(
            report,
            bytes_in=report.bytes_in + rest.bytes_in,
            bytes_kept=report.bytes_kept + rest.bytes_kept,
            times=Times(*times),
        )

    def handing_over(
        self, members: Members, following: Plan, later: Plan | None, now: float
    ) -> tuple[tuple[FunctionId, ...], tuple[int, ...]]:
        """Return who is to hand over as a step is closed, and of which workers successors are needed soon.

        Who would not come to the end of the following step hands over though no successor is ready yet. Who
        trains no more after it most likely needs none.
        """
        if not self._limit:
            return (), ()
        handing, soon = [], []
        lead, training = self.lead, later.trainers if later else ()
        hurry = _HURRY * self._longest + max(self._handing, default=0.0) + self._pace.launching
        for worker in following.members:
            one, successor = members.get(worker), self._successors.get(worker)
            if one is None or one.stage is not Stage.AT_WORK:
                continue
            left, goes_on = one.until - now, worker in training
            ready = successor is not None and successor.stage is Stage.READY
            if left < hurry or (ready and (goes_on or left < lead / 2)):
                handing.append((worker, one.generation))
            elif successor is None and left < (lead if goes_on else lead / 2):
                soon.append(worker)
        soon = [worker for worker in soon if later is not None and worker in later.members]
        return tuple(handing), tuple(soon)

    def open_step(
        self,
        members: Members,
        handing: Collection[FunctionId],
        soon: Collection[int],
        now: float,
    ) -> Iterator[Instruction]:
        """Open a step: the successors of those who are to hand over become members.

        They are launched where that has not been done, and so are those that are needed ``soon``.
        """
        self.forget_handovers()
        yield from self.send_home(members)
        new = []
        for worker, generation in handing:
            self._leaving[worker] = (worker, generation), now
            if worker in self._successors:
                members[worker] = self.promote(worker, now)
            else:
                new.append(members.renew(worker, Stage.LAUNCHED, now))
        for worker in soon:
            self._successors[worker] = members.new(worker, Stage.LAUNCHED, now)
            new.append((worker, self._successors[worker].generation))
        if new:
            yield Launch(tuple(sorted(new)))

    def promote(self, worker: int, now: float) -> Member:
        """Return the successor of a worker, the member from now on."""
        member = self._successors.pop(worker)
        if member.stage is Stage.READY:
            member.stage, member.since = Stage.THERE, now
        return member

    def has(self, worker: int) -> bool:
        """Return whether a worker has a successor."""
        return worker in self._successors

    def lose(self, who: FunctionId) -> bool:
        """Take in that a function is lost; return whether that is all, for it is no member.

        Another successor is launched in time; and who was to be handed something starts from a donation.
        """
        if self.is_successor(who):
            del self._successors[who[0]]
        elif self.is_leaving(who):
            del self._leaving[who[0]]
        else:
            return False
        return True

    def lose_origin(self, worker: int) -> None:
        """Take in that what was handed to a worker's member is gone."""
        self._origins.pop(worker, None)

    def forget_handovers(self) -> None:
        """Take in that the open step is over, or given up."""
        self._leaving, self._origins, self._rests = {}, {}, {}

    def send_home(self, staying: Container[int] = ()) -> Iterator[Instruction]:
        """Let go of the successors of all workers but those that stay."""
        left = {worker: one for worker, one in self._successors.items() if worker not in staying}
        if left:
            yield Send(Abort("nothing is left for this one to do"), self._ids(left))
        for worker in left:
            del self._successors[worker]

    def overdue(self, patience: Patience, now: float) -> Iterator[tuple[FunctionId, MLLessError]]:
        """Yield functions whose time to do something is over, each with its error."""
        for worker, member in self._successors.items():
            who, waited = (worker, member.generation), now - member.since
            if member.stage is Stage.LAUNCHED and waited > patience.start:
                yield who, late_start(worker, patience.start)
            elif member.stage is Stage.THERE and waited > patience.cold:
                yield who, DeadlineExceeded(f"the successor of worker {worker} has not made ready in time")
        for worker, (who, since) in self._leaving.items():
            if now - since > patience.cold:
                yield who, DeadlineExceeded(f"worker {worker} has not handed over in time")

    @staticmethod
    def _ids(members: dict[int, Member]) -> tuple[FunctionId, ...]:
        return tuple((worker, member.generation) for worker, member in sorted(members.items()))
