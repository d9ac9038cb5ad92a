"""The ports of a virtual world, as one role sees them: store, objects, and both ends of the bus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from mlless.channels.ports import Bytes, ObjectStore
from mlless.errors import DeadlineExceeded, MissingUpdate
from mlless.messages import (
    FromWorker,
    FunctionId,
    ToWorker,
    decode_from_worker,
    decode_to_worker,
    encode,
)
from mlless.simulation.faults import SUPERVISOR
from mlless.simulation.roles import Role, Roles
from mlless.simulation.trace import Heard, Sent


class Store:
    """A KeyValueStore in memory. What is put is there once it has arrived; ``get`` sees what was there."""

    def __init__(self, roles: Roles, role: Role) -> None:
        self._roles, self._role = roles, role

    @property
    def values(self) -> dict[str, bytes]:
        """What is there, as nobody has to ask a server for it."""
        return self._roles.values

    def put(self, key: str, value: Sequence[Bytes]) -> None:
        """Store a value."""
        self._put({key: b"".join(value)})

    def put_all(self, values: Mapping[str, Bytes]) -> None:
        """Store values, in one request."""
        self._put({key: bytes(value) for key, value in values.items()})

    def _put(self, values: dict[str, bytes]) -> None:
        with self._calling():
            self._charge(sent=sum(map(len, values.values())))
            self._roles.values.update(values)

    def get(self, keys: Sequence[str]) -> list[Bytes]:
        """Return values, in one request."""
        with self._calling():
            for key in keys:
                if key not in self._roles.values:
                    raise MissingUpdate("not in the store", where=key)
            values: list[Bytes] = [self._roles.values[key] for key in keys]
            self._charge(received=sum(map(len, values)))
        return values

    def delete(self, keys: Iterable[str]) -> None:
        """Remove keys."""
        with self._calling():
            self._role.spend(self._roles.conditions.deleting(self._role.number))
            for key in keys:
                self._roles.values.pop(key, None)

    def renew(self, keys: Iterable[str]) -> None:
        """Do nothing: no key expires."""
        with self._calling():
            pass

    def destroy(self) -> None:
        """Remove everything."""
        self._roles.values.clear()

    @contextmanager
    def _calling(self) -> Iterator[None]:
        with self._role.calling():
            self._roles.reach_store(self._role)
            yield

    def _charge(self, sent: int = 0, received: int = 0) -> None:
        self._role.spend(self._roles.conditions.at_store(self._role.number, sent, received))


class Beside(Store):
    """The store as a thread beside a role uses it: it takes nobody's turn, and none of the role's time."""

    @contextmanager
    def _calling(self) -> Iterator[None]:
        yield

    def _charge(self, sent: int = 0, received: int = 0) -> None:
        pass

    def delete(self, keys: Iterable[str]) -> None:
        """Remove keys."""
        for key in keys:
            self._roles.values.pop(key, None)


class Objects:
    """Objects of a place, of which a role would ask for several ``at_once``; here it does so one by one."""

    distant = False

    def __init__(self, roles: Roles, role: Role, objects: ObjectStore, at_once: int = 1) -> None:
        self._roles, self._role, self._objects, self._at_once = roles, role, objects, at_once

    def get(self, path: str) -> bytes:
        """Return an object, as it was when it was asked for."""
        with self._role.calling():
            data = self._objects.get(path)
            self._charge(received=len(data))
            return data

    def put(self, path: str, data: Bytes) -> None:
        """Store an object; it is there once all of it has arrived."""
        with self._role.calling():
            self._charge(sent=len(data))
            self._objects.put(path, data)

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects, which nobody waits for."""
        with self._role.calling():
            self._objects.delete(paths)

    def names(self) -> set[str]:
        """Return the names at the top."""
        with self._role.calling():
            self._charge()
            return self._objects.names()

    def _charge(self, sent: int = 0, received: int = 0) -> None:
        self._role.spend(self._roles.conditions.at_objects(self._role.number, sent, received, self._at_once))


class Asking:
    """A way to a server beside the store, which ``answers`` one request after the other.

    What it does for a request is an activity that ``named`` tells.
    """

    def __init__(
        self, roles: Roles, role: Role, answers: Callable[[bytes], bytes], named: Callable[[bytes], str]
    ) -> None:
        self._roles, self._role, self._answers, self._named = roles, role, answers, named

    def ask(self, request: bytes) -> bytes:
        """Return the answer to a request, which is taken in when it arrives."""
        conditions, who = self._roles.conditions, self._role.number
        with self._role.calling():
            self._role.spend(conditions.asking(who, len(request)))
            self._role.take_turn()
            answer = self._answers(request)
            self._role.spend(conditions.answering(who, self._named(request), len(request), len(answer)))
        return answer

    def close(self) -> None:
        """Do nothing: nothing is held."""


class Hub:
    """The supervisor's end of the bus. ``ask`` is called once the job is asked to stop."""

    def __init__(self, roles: Roles, role: Role) -> None:
        self._roles, self._role = roles, role
        self.ask: Callable[[str], None] = lambda reason: None
        self._asleep = sorted(roles.faults.asleep, reverse=True)

    def receive(self, timeout: float) -> FromWorker | None:
        """Return the next message, or None after ``timeout`` virtual seconds."""
        if self._asleep and self._asleep[-1][0] <= self._role.time:
            self._role.time += self._asleep.pop()[1]
        data = self._role.wait(timeout)
        asked = self._roles.faults.asked
        if asked is not None and self._role.time >= asked:
            self.ask("interrupted")
        if data is None:
            return None
        message = decode_from_worker(data)
        self._roles.note(Heard(message))
        with self._role.acting():
            self._role.spend(self._roles.conditions.hearing(self._role.number))
            return message

    def admit(self, functions: Iterable[FunctionId]) -> None:
        """Do nothing: every function is heard."""

    def broadcast(self, message: ToWorker, functions: Iterable[FunctionId]) -> None:
        """Send to functions."""
        data, functions = encode(message), tuple(functions)
        self._roles.note(Sent(message, functions))
        with self._role.acting():
            self._role.spend(self._roles.conditions.sending(self._role.number))
            for function in functions:  # one after the other: they do not all begin at the same moment
                self._role.spend(self._roles.conditions.handing())
                self._roles.send(self._role, function, data)

    def close(self) -> None:
        """Send every role home."""
        self._roles.end()

    def destroy(self) -> None:
        """Send every role home."""
        self._roles.end()


class Link:
    """A worker's end of the bus."""

    def __init__(self, roles: Roles, role: Role) -> None:
        self._roles, self._role = roles, role

    def send(self, message: FromWorker) -> None:
        """Send to the supervisor."""
        with self._role.calling():
            self._role.spend(self._roles.conditions.sending(self._role.number))
            self._role.spend(self._roles.conditions.handing())
            self._roles.send(self._role, SUPERVISOR, encode(message))

    def receive(self, timeout: float) -> ToWorker:
        """Return the next message; DeadlineExceeded after ``timeout`` virtual seconds."""
        with self._role.calling():
            message = self._role.wait(timeout)
        if message is None:
            raise DeadlineExceeded(f"no message from the supervisor for {timeout:g} s")
        self._role.spend(self._roles.conditions.hearing(self._role.number))
        return decode_to_worker(message)

    def close(self) -> None:
        """Do nothing: nothing is held."""
