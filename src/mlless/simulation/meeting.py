"""Where functions that reach one another meet in a virtual world: a ring, in which each waits for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mlless.messages import FunctionId
from mlless.simulation.roles import Roles

Brought = Sequence[Any]  # by worker


class Ring:
    """The meetings of so many ``workers``, of whom each takes part in all, one after the other."""

    def __init__(self, roles: Roles, workers: int) -> None:
        self._roles, self._workers = roles, workers
        self._open: dict[FunctionId, list[Any]] = {}  # who is there already, and where all will be

    def meet(
        self, me: FunctionId, mine: Any, then: Callable[[Brought], object] = lambda brought: None
    ) -> Brought:
        """Wait until all are there; return what they have brought. The last one does what comes ``then``."""
        role = self._roles.roles[me]
        role.take_turn()
        brought = next(iter(self._open.values()), [None] * self._workers)
        self._open[me], brought[me[0]] = brought, mine
        if len(self._open) < self._workers:
            role.hold()
            return brought
        waiting, self._open = [one for one in self._open if one != me], {}
        then(brought)
        for one in waiting:
            self._roles.roles[one].release(role.time)
        return brought

    def send_round(self, me: FunctionId, size: int) -> None:
        """Let the time go by in which each sends, and receives, so many bytes around the ring."""
        role = self._roles.roles[me]
        role.spend(self._roles.conditions.around(me, self._workers, size))
