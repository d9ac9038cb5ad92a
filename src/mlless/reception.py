"""Where events come in: the messages of functions, and what their runtime tells of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection

from mlless import instructions
from mlless.channels.ports import Hub
from mlless.clock import Clock
from mlless.messages import FromWorker
from mlless.runtimes.ports import Ended, Runtime

_POLL = 0.1  # seconds between looks at the runtime while no message comes
_STALLED = 1.0  # seconds beyond that in which nothing can have come in
_TOLD = 5.0  # seconds of that which are told


class Reception:
    """Hears of one job's functions. ``notice`` hears of those that have ended, as soon as that is known."""

    def __init__(
        self, hub: Hub, runtime: Runtime, clock: Clock, *, notice: Callable[[Collection[Ended]], None]
    ) -> None:
        self._hub, self._runtime, self._clock, self._notice = hub, runtime, clock, notice
        self._fresh: list[Ended] = []
        self._looked, self._slept = clock.now(), 0.0
        self.ended: list[Ended] = []

    def awake(self) -> float:
        """Return the time but for that in which nothing could come in: no function can help that.

        It is to be called in every turn: what lies between two calls is at most a poll and some work.
        """
        now = self._clock.now()
        stalled, self._looked = now - self._looked - _POLL, now
        if stalled > _STALLED:
            self._slept += stalled
        return now - self._slept

    def next(self) -> list[FromWorker | instructions.Exited]:
        """Return what comes next, in order; nothing if it takes a while."""
        message = self._receive()
        if message is not None:
            return [message]
        self.hear_of_ends()
        ended, self._fresh = self._fresh, []
        words: list[FromWorker | instructions.Exited] = []
        while ended and (message := self._hub.receive(0.0)) is not None:  # their last words come first
            words.append(message)
        return [*words, *map(event_of, ended)]

    def hear_of_ends(self) -> None:
        """Ask the runtime which functions have ended."""
        if ended := self._runtime.ended():
            self._fresh += ended
            self.ended += ended
            self._notice(ended)

    def _receive(self) -> FromWorker | None:
        before = self._clock.now()
        message = self._hub.receive(_POLL)
        if (stalled := self._clock.now() - before - _POLL) > _TOLD:
            warnings.warn(
                f"for {stalled:.0f} s nothing could come in: was the driver stopped, the machine suspended, "
                "or the bus away?",
                RuntimeWarning,
                stacklevel=2,
            )
        return message


def event_of(one: Ended) -> instructions.Exited:
    """Return what the ledger is told of a function that is over."""
    return instructions.Exited(
        one.worker, one.generation, one.code < 0, one.describe(), one.cause, one.peak, one.code == 0
    )
