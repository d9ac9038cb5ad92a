"""Whose turn it is: every role in a thread of its own, of which one at a time moves.

Only the role that holds the baton moves. A role's clock goes on by what the conditions say of what it did;
when a role waits, the baton goes to whichever role is due first. So a job comes out the same every time,
down to its times.
"""

from __future__ import annotations

import heapq
import math
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mlless.errors import Disconnected
from mlless.messages import FunctionId
from mlless.simulation.conditions import Conditions, Spells
from mlless.simulation.faults import SUPERVISOR, Blow, Faults
from mlless.simulation.sharing import Flow, Sharing
from mlless.simulation.trace import Emptied, Struck, Trace, Traced

MOST_TURNS, LONGEST = 200_000, 50_000.0  # and virtual seconds, that no job of a test needs


class Killed(BaseException):
    """Ends a function as a signal does, which no role can catch."""


class Stuck(AssertionError):
    """A job has gone on for longer than any should."""


class Role:
    """One thread's place among the roles. As a Clock it tells the role's own time."""

    def __init__(self, roles: Roles, number: FunctionId, time: float) -> None:
        self._roles = roles
        self.number = number
        self.time = self.began = time
        self.inbox: list[tuple[float, int, bytes]] = []
        self.deadline: float | None = None
        self.flow: Flow | None = None  # that it waits for
        self.held = False  # it waits for others, who will release it
        self.stopped = 0.0  # until then
        self.killed = self.limit = math.inf  # at these times
        self.calls, self.busy = 0, 0.0  # seconds that a core has worked for it
        self.done = False
        self.baton = threading.Semaphore(0)

    def now(self) -> float:
        """Return the role's time in seconds."""
        return self.time

    def work(self, activity: str, units: int) -> None:
        """Let the time go by that the activity takes."""
        self.spend(self._roles.conditions.working(self.number, activity, units))

    def pause(self, seconds: float) -> None:
        """Move the role's time on, and let everyone go on who is due by then."""
        self.time += seconds
        self.take_turn()

    def spend(self, spells: Spells) -> None:
        """Let the time go by that spells take, one after the other.

        Where nothing is shared that is known at once, and others need not take their turns meanwhile.
        """
        for spell in spells:
            self.busy += spell.amount if spell.busy else 0.0
            if not spell.links:
                self.time += spell.amount / spell.most
            elif spell.amount > 0.0:
                self.take_turn()  # who shares with it is to have begun, if that was before
                self.flow = self._roles.sharing.begin(spell, self.time)
                self.take_turn()

    def due(self) -> float:
        """Return when the role can go on: now, or when it gets a message or gives up waiting."""
        time = math.inf if self.held or self.flow is not None else self.time
        if self.deadline is not None:
            arrival = self.inbox[0][0] if self.inbox else self.deadline
            time = max(time, min(arrival, self.deadline))
        return min(max(time, self.stopped), self.killed, self.limit)

    def hold(self) -> None:
        """Let the others go on until one of them releases this role."""
        self.held = True
        self.take_turn()

    def release(self, time: float) -> None:
        """Let a role that is held go on from a time."""
        self.time, self.held = max(self.time, time), False

    def take_turn(self) -> None:
        """Let everyone go on who is due before this role."""
        self._roles.pass_baton(self)
        self.time, self.deadline = self.due(), None
        if self.limit <= min(self.time, self.killed):
            self._roles.note(Struck(self.number, limit=True))
        if min(self.limit, self.killed) <= self.time:
            raise Killed

    def wait(self, timeout: float) -> bytes | None:
        """Pass the baton on until a message is here; None after ``timeout`` virtual seconds."""
        self.deadline = self.time + timeout
        self.take_turn()
        if self.inbox and self.inbox[0][0] <= self.time:
            return heapq.heappop(self.inbox)[2]
        return None

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Surround the effect of one call of a port, before which others take their turns."""
        self.take_turn()
        with self.acting():
            yield

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Surround an effect of this role: what is to befall it does so before or after."""
        call, self.calls = self.calls, self.calls + 1
        self._suffer(call, after=False)
        yield
        self._suffer(call, after=True)

    def _suffer(self, call: int, *, after: bool) -> None:
        blow = self._roles.blow(self, call, after)
        if blow is None:
            return
        self._roles.note(Struck(self.number))
        match blow.kind:
            case "kill":
                raise Killed
            case "raise":
                raise RuntimeError("a fault of the virtual world")
            case "stop":
                self.stopped = self.time + blow.seconds
                self.take_turn()


class Roles:
    """All roles of a job, each a function or the supervisor, and what goes wrong for them.

    Stuck once they have taken ``most_turns``, or the supervisor's time has passed ``longest``.
    """

    def __init__(
        self,
        conditions: Conditions,
        faults: Faults,
        trace: Trace,
        *,
        most_turns: float = MOST_TURNS,
        longest: float = LONGEST,
    ) -> None:
        self.conditions, self.faults, self.trace = conditions, faults, trace
        self._most_turns, self._longest = most_turns, longest
        self.sharing = Sharing(conditions.capacity)
        self.roles: dict[FunctionId, Role] = {}
        self.values: dict[str, bytes] = {}
        self.broken = False
        self._live: list[Role] = []
        self._turns = 0
        self._messages = 0
        self._dice = random.Random(faults.seed)
        self._arrived: dict[tuple[FunctionId, FunctionId], float] = {}  # the newest of a sender's messages
        self._struck: set[tuple[int, FunctionId]] = set()
        self._emptied = sorted(faults.emptied, reverse=True)

    def join(self, number: FunctionId, time: float) -> Role:
        """Add a role, which is due at ``time``."""
        role = self.roles[number] = Role(self, number, time)
        self._live.append(role)
        return role

    @property
    def others(self) -> bool:
        """Whether any role is left but the supervisor."""
        return len(self._live) > 1

    def note(self, event: Traced) -> None:
        """Add to the trace."""
        self.trace.append((self.roles[SUPERVISOR].time, event))

    def send(self, sender: Role, receiver: FunctionId, message: bytes) -> None:
        """Put a message on its way; one sender's arrive in order, but those that come again."""
        if receiver not in self.roles:
            return
        pair, faults = (sender.number, receiver), self.faults
        arrival = sender.time + self.conditions.on_its_way(len(message))
        if faults.delay:
            arrival = max(arrival + self._dice.uniform(0.0, faults.delay), self._arrived.get(pair, 0.0))
            self._arrived[pair] = arrival
        self._deliver(receiver, arrival, message)
        if faults.repeats and receiver == SUPERVISOR and self._dice.random() < faults.repeats:
            self._deliver(receiver, arrival + self._dice.expovariate(1.0), message)

    def _deliver(self, receiver: FunctionId, arrival: float, message: bytes) -> None:
        self._messages += 1
        heapq.heappush(self.roles[receiver].inbox, (arrival, self._messages, message))

    def pass_baton(self, me: Role) -> None:
        """Let whoever is due first go on; return when that is ``me``, at once if it is done."""
        if self.broken and me.number != SUPERVISOR:
            raise Disconnected("the job is over")
        self._turns += 1
        next_one = self._next()
        if self._turns > self._most_turns:
            next_one = self.roles[SUPERVISOR]
        if next_one is not me:
            next_one.baton.release()
            if me.done:
                return
            me.baton.acquire()
        if me.number == SUPERVISOR:
            if self._turns > self._most_turns or me.due() > self._longest:
                raise Stuck(f"{self._turns} turns, and at {me.due():.0f} s the job still goes on")
        elif self.broken:
            raise Disconnected("the job is over")

    def _next(self) -> Role:
        """Return who is due first, once all flows that end until then have let go of their roles."""
        while True:
            role = min(self._live, key=_due)
            ending = self.sharing.next_end()
            if ending is None or ending[0] > role.due():
                return role
            end, flow = ending
            self.sharing.end(flow, end)
            waiting = next(one for one in self._live if one.flow is flow)
            waiting.time, waiting.flow = end, None

    def enter(self, me: Role) -> None:
        """Wait for the baton for the first time."""
        me.baton.acquire()
        if self.broken:
            raise Disconnected("the job is over")

    def leave(self, me: Role) -> None:
        """Take a role out, and let the others go on."""
        me.done = True
        self._live.remove(me)
        if me.flow is not None:  # it was killed meanwhile
            self.sharing.end(me.flow, me.time)
            me.flow = None
        if not self.broken:
            self.pass_baton(me)

    def end(self) -> None:
        """Send every role that is left home."""
        self.broken = True
        for role in self.roles.values():
            role.baton.release()

    def blow(self, role: Role, call: int, after: bool) -> Blow | None:
        """Return what befalls a role now, before or after the effect of a call."""
        blow = self.faults.blows.get(role.number)
        if blow is not None and (blow.call, blow.after) == (call, after):
            return blow
        for number, strike in enumerate(self.faults.strikes):
            hit = role.number[0] in strike.workers and role.began < strike.time <= role.time
            if hit and (number, role.number) not in self._struck:
                self._struck.add((number, role.number))
                return Blow(strike.kind, call, after, strike.seconds)
        return None

    def reach_store(self, role: Role) -> None:
        """Let a role wait until the store is there, and the store lose what it is to lose by then."""
        for since, until in self.faults.away:
            if since <= role.time < until:
                role.time = until
                role.take_turn()
        while self._emptied and self._emptied[-1] <= role.time:
            self._emptied.pop()
            self.values.clear()
            self.note(Emptied())


def _due(role: Role) -> tuple[float, FunctionId]:
    return role.due(), role.number
