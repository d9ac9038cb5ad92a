"""Functions of a virtual world: threads, each of which is a role."""

from __future__ import annotations

import math
import signal
import threading
import traceback
from collections.abc import Callable, Collection, Mapping

from mlless.errors import MLLessError
from mlless.messages import FunctionId
from mlless.runtimes.ports import Ended
from mlless.simulation.faults import SUPERVISOR
from mlless.simulation.roles import Killed, Role, Roles
from mlless.simulation.trace import Dismissed, Launched

_LOOK = 0.05  # virtual seconds between two looks at whether functions are over
Run = Callable[[Role, bytes], None]  # what a function does with its payload


class VirtualRuntime:
    """A Runtime whose functions are threads of a virtual world; a ``time_limit`` is in its seconds."""

    def __init__(self, roles: Roles, run: Run, time_limit: float | None = None) -> None:
        self._roles, self._run, self.time_limit = roles, run, time_limit
        self._threads: list[threading.Thread] = []
        self._ended: list[tuple[float, Ended]] = []  # and when it is noticed

    @property
    def memory(self) -> int | None:
        """What a function has in this world."""
        return self._roles.conditions.memory

    def start(self, functions: Mapping[FunctionId, bytes]) -> None:
        """Give every function a thread; it moves once the baton comes to it."""
        supervisor = self._roles.roles[SUPERVISOR]
        self._roles.note(Launched(tuple(functions)))
        with supervisor.acting():
            for function, payload in functions.items():
                begin = supervisor.time + self._roles.conditions.starting(function, supervisor.time)
                role = self._roles.join(function, begin)
                role.limit = role.began + (math.inf if self.time_limit is None else self.time_limit)
                thread = threading.Thread(
                    target=self._live, args=(role, payload, supervisor.time), daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def end(self, functions: Collection[FunctionId]) -> None:
        """End functions at their next call of a port, if the world is one in which that is possible."""
        self._roles.note(Dismissed(tuple(functions)))
        if self._roles.faults.ends:
            for function in functions:
                self._roles.roles[function].killed = self._roles.roles[SUPERVISOR].time

    def ended(self) -> list[Ended]:
        """Return the functions that ended since the last call, once their last words have arrived."""
        return self._until(self._roles.roles[SUPERVISOR].time)

    def finish(self, grace: float) -> None:
        """Let functions come to their end by themselves, in so many virtual seconds at most."""
        supervisor = self._roles.roles[SUPERVISOR]
        until = supervisor.time + grace
        while self._roles.others and supervisor.time < until:
            supervisor.pause(_LOOK)

    def stop(self, grace: float) -> list[Ended]:
        """End the world and every thread in it; ``grace`` is in real seconds."""
        self._roles.end()
        for thread in self._threads:
            thread.join(grace)
        return self._until(math.inf)

    def _until(self, time: float) -> list[Ended]:
        ended = [one for noticed, one in self._ended if noticed <= time]
        self._ended = [(noticed, one) for noticed, one in self._ended if noticed > time]
        return ended

    def _live(self, role: Role, payload: bytes, launched: float) -> None:
        code, cause = 0, ""
        try:
            self._roles.enter(role)
            self._run(role, payload)
        except MLLessError as error:
            code = error.exit_code
        except Killed:
            code = -signal.SIGKILL
        except Exception:  # as a process would end
            code, cause = 1, traceback.format_exc()
        finally:
            seconds = role.time - launched  # its start is billed, as clouds and the meter of a real job do
            ended = Ended(*role.number, code, cpu_seconds=role.busy, cause=cause, seconds=seconds)
            conditions = self._roles.conditions
            noticed = role.time + conditions.on_its_way(0) + self._roles.faults.notice
            self._ended.append((noticed, ended))
            conditions.over(role.number, role.time)
            self._roles.leave(role)
