"""What things take in a virtual world: asked by the roles' ports, told in spells of time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from mlless.messages import FunctionId
from mlless.simulation.sharing import Spell

Spells = Iterable[Spell]  # one after the other


class Conditions(Protocol):
    """What things take, and what is shared meanwhile."""

    def capacity(self, link: str) -> float:
        """Return what a link carries a second."""
        ...

    @property
    def led_by_function(self) -> bool:
        """Whether who leads is billed as a function."""
        ...

    @property
    def memory(self) -> int | None:
        """MB that a function has; None where it has what the machine has."""
        ...

    def working(self, who: FunctionId, activity: str, units: int) -> Spells:
        """Return what so many units of an activity of ``Clock.work`` take a role."""
        ...

    def at_store(self, who: FunctionId, sent: int, received: int) -> Spells:
        """Return what a request to the key-value store takes that moves so many bytes."""
        ...

    def deleting(self, who: FunctionId) -> Spells:
        """Return what it takes to have the key-value store forget keys."""
        ...

    def at_objects(self, who: FunctionId, sent: int, received: int, at_once: int) -> Spells:
        """Return what one of so many requests ``at_once`` takes that moves so many bytes."""
        ...

    def asking(self, who: FunctionId, sent: int) -> Spells:
        """Return what it takes until a request of so many bytes is with a server."""
        ...

    def answering(self, who: FunctionId, activity: str, sent: int, received: int) -> Spells:
        """Return what it takes that server to answer, and the answer to be back."""
        ...

    def around(self, who: FunctionId, workers: int, size: int) -> Spells:
        """Return what it takes in a ring of so many workers to send, and to receive, so many bytes."""
        ...

    def sending(self, who: FunctionId) -> Spells:
        """Return what it takes until a message of a role is with the bus, whomever it is for."""
        ...

    def handing(self) -> Spells:
        """Return what it takes the bus to hand a message to one of those that it is for."""
        ...

    def hearing(self, who: FunctionId) -> Spells:
        """Return what it takes a role to take in a message."""
        ...

    def on_its_way(self, size: int) -> float:
        """Return the seconds that a message of so many bytes is on its way."""
        ...

    def starting(self, who: FunctionId, now: float) -> float:
        """Return the seconds from the launch of a function until it runs."""
        ...

    def over(self, who: FunctionId, now: float) -> None:
        """Take in that a function is over: what it ran in may serve another one."""
        ...

    def deciding(self) -> float:
        """Return the seconds that the tuner takes to come to a decision."""
        ...


@dataclass(frozen=True)
class Durations:
    """Conditions in which nobody is in anybody's way: what things take, in seconds.

    ``work`` is per unit of an activity of ``Clock.work``, or gives it for so many units. The unit of
    ``assemble``, ``compute`` and ``evaluate`` is a row, that of ``step`` a member. For ``fetch``, ``encode``,
    ``cut``, ``sum``, ``merge`` and ``keep`` it is a byte. ``message`` is a message's way, ``request`` a
    request to the store, and ``byte`` each byte that one moves. ``fit`` is what the tuner takes to come to a
    decision, and ``start`` a function until it runs.
    """

    work: Mapping[str, float | Callable[[int], float]] = field(default_factory=dict)
    message: float = 0.0
    request: float = 0.0
    byte: float = 0.0
    fit: float = 0.0
    start: float = 0.0

    memory = None
    led_by_function = False

    def capacity(self, link: str) -> float:
        """Return the nothing that a link carries: none is used."""
        return 0.0

    def working(self, who: FunctionId, activity: str, units: int) -> Spells:
        """Return the activity's duration."""
        duration = self.work.get(activity, 0.0)
        return (Spell(duration(units) if callable(duration) else duration * units, busy=True),)

    def at_store(self, who: FunctionId, sent: int, received: int) -> Spells:
        """Return what the request and its bytes take."""
        return (Spell(self.request + self.byte * (sent + received)),)

    def deleting(self, who: FunctionId) -> Spells:
        """Return nothing."""
        return ()

    def at_objects(self, who: FunctionId, sent: int, received: int, at_once: int) -> Spells:
        """Return nothing: ``fetch`` tells of the bytes."""
        return ()

    def asking(self, who: FunctionId, sent: int) -> Spells:
        """Return what the request and its bytes take."""
        return self.at_store(who, sent, 0)

    def answering(self, who: FunctionId, activity: str, sent: int, received: int) -> Spells:
        """Return what the server's work takes by its bytes, and those of the answer."""
        return (*self.working(who, activity, sent + received), Spell(self.byte * received))

    def around(self, who: FunctionId, workers: int, size: int) -> Spells:
        """Return what the bytes take."""
        return (Spell(self.byte * size),)

    def sending(self, who: FunctionId) -> Spells:
        """Return nothing: a message's way is all that it takes."""
        return ()

    def handing(self) -> Spells:
        """Return nothing, either."""
        return ()

    def hearing(self, who: FunctionId) -> Spells:
        """Return nothing, either."""
        return ()

    def on_its_way(self, size: int) -> float:
        """Return a message's way."""
        return self.message

    def starting(self, who: FunctionId, now: float) -> float:
        """Return what every start takes."""
        return self.start

    def over(self, who: FunctionId, now: float) -> None:
        """Do nothing: every start takes the same."""

    def deciding(self) -> float:
        """Return what every decision takes."""
        return self.fit


@dataclass(frozen=True)
class Uneven(Durations):
    """Durations of one job. A worker takes a mini-batch, its n-th from 0, so many times ``slower``."""

    slower: Callable[[int, int], float] = lambda worker, number: 1.0
    _taken: Counter[int] = field(default_factory=Counter)

    def working(self, who: FunctionId, activity: str, units: int) -> Spells:
        """Return the activity's duration, a longer one for a mini-batch of who is slow."""
        spells = super().working(who, activity, units)
        if activity != "compute":
            return spells
        worker, number = who[0], self._taken[who[0]]
        self._taken[worker] += 1
        return tuple(one._replace(amount=one.amount * self.slower(worker, number)) for one in spells)
