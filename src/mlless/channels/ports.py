"""The contracts of the channels. ``mlless.testing`` has one test class for each of them.

All keys are relative to the job (or data set) an adapter was opened for; an adapter never
touches anything outside of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from mlless.messages import FromWorker, FunctionId, ToWorker

Bytes = bytes | memoryview
Version = tuple[str | None, str | None]  # an entity tag, and a number where there is one


class ObjectStore(Protocol):
    """Files that outlive a job: data sets, runs.

    ``put`` is atomic: a reader sees the whole object or none. Paths use ``/`` and are relative to the place
    that the store was opened for. A request that fails for a moment is tried again. One that goes on failing
    is a ChannelError that names the place. Threads may share a store.
    """

    @property
    def distant(self) -> bool:
        """Whether a request takes so long that it is worth a thread of its own."""
        ...

    def get(self, path: str) -> bytes:
        """Return the whole object; MissingObject names it if it is not there."""
        ...

    def put(self, path: str, data: Bytes) -> None:
        """Store the object, replacing one of the same path."""
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Remove the objects; those that are absent are passed over."""
        ...

    def names(self) -> set[str]:
        """Return the names at the top: of objects, and the first parts of longer paths."""
        ...


class HeadStore(ObjectStore, Protocol):
    """One that need not read an object to its end."""

    def head(self, path: str, length: int) -> bytes:
        """Return so many of the object's first bytes, or all if there are fewer."""
        ...


class ConditionalStore(Protocol):
    """Objects that are put on condition that they are as they were: for who must not overwrite another."""

    def get_version(self, path: str) -> tuple[bytes, Version]:
        """Return the object, and what tells it from those before and after; MissingObject without one."""
        ...

    def put_version(self, path: str, data: Bytes, before: Version | None) -> bool:
        """Store the object in place of that version, None for no object; False if it is not so any more.

        A server that does not look at conditions stores it in any case.
        """
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Remove the objects; those that are absent are passed over."""
        ...


class KeyValueStore(Protocol):
    """Values shared by the functions of one job while it runs.

    A value may be read by anyone as soon as ``put`` has returned, whole or not at all. What
    ``get`` returns stays valid when the key is deleted or replaced afterwards. A job's driver
    deletes all of the job's keys at its end with ``destroy``. Should it not come to that, keys expire where
    the adapter's servers can do so: ``expiry`` seconds after they were put or renewed. Threads may share a
    store.
    """

    def put(self, key: str, value: Sequence[Bytes]) -> None:
        """Store the concatenation of ``value``; ChannelError with the cure when there is no room."""
        ...

    def put_all(self, values: Mapping[str, Bytes]) -> None:
        """Store several values, in one round trip unless they are large; what fails may have stored some."""
        ...

    def get(self, keys: Sequence[str]) -> list[Bytes]:
        """Return the values in order, in one round trip; MissingUpdate names the first absent key."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the keys; those that are absent are passed over."""
        ...

    def renew(self, keys: Iterable[str]) -> None:
        """Put off the expiry of keys that are needed for longer; those that are absent are passed over."""
        ...

    def destroy(self) -> None:
        """Remove everything of the job, and let go of the servers. May be called more than once."""
        ...


class Hub(Protocol):
    """The supervisor's end of the bus: many functions, one queue.

    Two generations of a worker are two functions: each gets what is sent to itself alone, and both are heard.

    A hub whose server was away goes on with it, if it had patience enough. Where the server has lost the bus,
    the hub warns, makes another one, and goes on: links of before are Disconnected, those of after are not.
    """

    def admit(self, functions: Iterable[FunctionId]) -> None:
        """Make ready for functions that are about to be launched: a link opens only after that.

        More may be admitted at any time, while others are at work. ``destroy`` removes what was made.
        """
        ...

    def receive(self, timeout: float) -> FromWorker | None:
        """Return the next message, or None once ``timeout`` seconds have passed without one.

        A message that is not one of the protocol raises CodecError naming its sender.
        """
        ...

    def broadcast(self, message: ToWorker, functions: Iterable[FunctionId]) -> None:
        """Send to those of ``functions`` that have been heard and are still there.

        It never blocks on a slow one. One that has not been heard yet may miss the message.
        """
        ...

    def close(self) -> None:
        """Let go of all links; they are told once they have read what was sent.

        May be called more than once.
        """
        ...

    def destroy(self) -> None:
        """Close, and remove all that the bus has made on a server. May be called more than once."""
        ...


class Link(Protocol):
    """A function's end of the bus. It opens only if the function was admitted.

    It waits for a server, or a supervisor, that is away; that time does not count as one without a message.
    """

    def send(self, message: FromWorker) -> None:
        """Send to the supervisor; Disconnected if it is gone."""
        ...

    def receive(self, timeout: float) -> ToWorker:
        """Return the next message; DeadlineExceeded after ``timeout`` seconds, Disconnected at the end."""
        ...

    def close(self) -> None:
        """Let go of the link. May be called more than once."""
        ...
