"""What goes wrong in a virtual world, drawn from one number: the same number, the same faults."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mlless.messages import FunctionId

SUPERVISOR: FunctionId = (-1, 0)  # who leads the job, among those that something befalls

Kind = Literal["kill", "raise", "stop"]


@dataclass(frozen=True)
class Blow:
    """What befalls a function at its ``call``-th call of a port, from 0, before or ``after`` its effect.

    It is killed, or an error is raised that nobody foresaw, or it is stopped for so many ``seconds``, as a
    signal can do it.
    """

    kind: Kind
    call: int
    after: bool
    seconds: float = math.inf


@dataclass(frozen=True)
class Strike:
    """What befalls the functions that these ``workers`` have at this ``time``, at their next port call."""

    time: float
    workers: frozenset[int]
    kind: Kind
    seconds: float = math.inf


@dataclass(frozen=True)
class Faults:
    """All that goes wrong in one job.

    ``blows`` befall functions, and ``SUPERVISOR``, whose end is that of the whole job.
    Messages take up to ``delay`` seconds longer, each sender's in order. So large a share as ``repeats`` of
    those to the supervisor comes a second time. The store is ``away`` from one time to another, for calls
    then take that long, and it loses all that it has at the times ``emptied``. ``asked`` is when the job is
    asked to stop. The supervisor is ``asleep`` from a time on for so many seconds. ``ends`` says whether the
    runtime can end functions one by one; it takes ``notice`` seconds to tell of one that is over.
    """

    seed: int = 0
    blows: Mapping[FunctionId, Blow] = field(default_factory=dict)
    strikes: tuple[Strike, ...] = ()
    delay: float = 0.0
    repeats: float = 0.0
    away: tuple[tuple[float, float], ...] = ()
    emptied: tuple[float, ...] = ()
    asked: float | None = None
    asleep: tuple[tuple[float, float], ...] = ()
    ends: bool = True
    notice: float = 0.0


NO_FAULTS = Faults()


def draw(seed: int, workers: int, *, calls: int, seconds: float) -> Faults:
    """Return faults for a job which, if undisturbed, makes so many ``calls`` a worker in so many seconds."""
    dice = random.Random(seed)

    def kind() -> Kind:
        """Draw how a function is lost."""
        return dice.choices(("kill", "raise", "stop"), (6, 2, 2))[0]

    def pause() -> float:
        """Draw the seconds of a pause."""
        return dice.choice((math.inf, dice.uniform(0.0, seconds), dice.uniform(0.0, 60.0)))

    def time() -> float:
        """Draw when something happens, in seconds."""
        return dice.uniform(0.0, 1.2 * seconds)

    def likely(chance: float) -> bool:
        """Draw whether something happens."""
        return dice.random() < chance

    blows = {}
    for worker in range(workers):
        generation = 0
        while generation < 4 and likely(0.5 if generation == 0 else 0.25):
            call = dice.choice((dice.randrange(4), dice.randrange(calls), dice.randrange(calls)))
            blows[worker, generation] = Blow(kind(), call, likely(0.5), pause())
            generation += 1
    strikes: list[Strike] = []
    while len(strikes) < 2 and likely(0.3):
        everyone = likely(0.4)
        some = frozenset(one for one in range(workers) if everyone or likely(0.5))
        strikes.append(Strike(time(), some, kind(), pause()))
    away: list[tuple[float, float]] = []
    if likely(0.2):
        since = time()
        away.append((since, since + dice.choice((0.5, 3.0, 12.0, 40.0))))
    return Faults(
        seed,
        blows,
        tuple(strikes),
        delay=dice.choice((0.0, 0.0, 0.05, 1.0)),
        repeats=dice.choice((0.0, 0.0, 0.1, 0.5)),
        away=tuple(away),
        emptied=(time(),) if likely(0.1) else (),
        asked=time() if likely(0.15) else None,
        asleep=((time(), dice.choice((2.0, 30.0))),) if likely(0.1) else (),
        ends=likely(0.6),
        notice=dice.choice((0.0, 0.0, 0.0, 1.0, 15.0, math.inf)),
    )
