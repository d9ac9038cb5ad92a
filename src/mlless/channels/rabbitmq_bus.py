"""RabbitMQ bus: one queue of the supervisor, one of each function, and an exchange that leads to these.

The hub makes the exchange and all queues, so that it can remove all of them, also those of functions
that never came. A message is numbered by its sender. A receiver passes over a number it has had, so
that what is sent or delivered twice around a lost connection is heard once. A link gets what is for
others, too, and knows by a number left out that a message is lost.

Where a broker has lost exchange and queues, the hub makes its own anew. A link finds its queue gone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from typing import Annotated, TypeVar

import msgspec

from mlless.channels import rabbitmq_client
from mlless.channels.receipt import gap, heard, message_of
from mlless.errors import ChannelError, CodecError, DeadlineExceeded, Disconnected
from mlless.messages import FromWorker, FunctionId, ToWorker, decode_to_worker, encode

_LARGEST = 16 << 20  # bytes a message may have, well below a broker's own limit of 128 MiB
_GAP = 2  # generations without a queue, after which no further ones are looked for
_SLICE = 5.0  # seconds of silence after which a link looks whether the supervisor is there


_Id = Annotated[int, msgspec.Meta(ge=0)]
_Number = Annotated[int, msgspec.Meta(ge=1)]


class _ToHub(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What a link sends: who it is, the number of this message, and the message."""

    who: tuple[_Id, _Id]
    number: _Number
    message: bytes


class _ToLinks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What the hub sends to all: the message, its number and its addressees; no message ends the bus."""

    number: _Number
    functions: frozenset[tuple[_Id, _Id]]
    message: bytes | None


_Envelope = TypeVar("_Envelope", _ToHub, _ToLinks)


def _sealed(envelope: _ToHub | _ToLinks) -> bytes:
    data = msgspec.msgpack.encode(envelope)
    if len(data) > _LARGEST:
        raise CodecError(
            "message too long", expected=f"at most {_LARGEST:,} bytes", found=f"{len(data):,} bytes"
        )
    return data


def _unsealed(data: bytes, kind: type[_Envelope], where: str) -> _Envelope:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CodecError("not a message of this bus", where=where, found=str(error)) from error


def _exchange(job: str) -> str:
    return f"{job}.broadcast"


def _supervisor(job: str) -> str:
    return f"{job}.supervisor"


def _function(job: str, who: FunctionId) -> str:
    return f"{job}.worker-{who[0]}.{who[1]}"


def clear(url: str, job: str, workers: int) -> int:
    """Remove the exchange and the queues of a job of so many workers; return how many queues there were.

    A broker does not list queues. They are found by their names, generation by generation; those after a gap
    are left to expire.
    """
    found = rabbitmq_client.present(url, [_supervisor(job)])
    generation = last = 0
    while generation <= last + _GAP:
        names = [_function(job, (worker, generation)) for worker in range(workers)]
        if some := rabbitmq_client.present(url, names):
            found, last = [*found, *some], generation
        generation += 1
    rabbitmq_client.delete(url, _exchange(job), found)
    return len(found)


class RabbitHub:
    """The supervisor's end: its queue, and the exchange that leads to all functions."""

    def __init__(self, url: str, job: str, expiry: float, patience: float) -> None:
        self._url, self._job = url, job
        self._heard: dict[FunctionId, int] = {}
        self._sent = 0
        self._closed = False
        names = _exchange(job), _supervisor(job)
        try:
            self._connection = rabbitmq_client.Owner(url, *names, patience, expiry)
        except (ChannelError, KeyboardInterrupt):
            self._remove(names[0], names[1:])  # part of it may have been made
            raise

    def admit(self, functions: Iterable[FunctionId]) -> None:
        """Make the functions' queues."""
        self._connection.subscribe([_function(self._job, who) for who in functions])

    def receive(self, timeout: float) -> FromWorker | None:
        """Return the next message not heard yet; None after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while (data := self._connection.receive(max(0.0, deadline - time.monotonic()))) is not None:
            if (message := self._opened(data)) is not None:
                return message
        return None

    def _opened(self, data: bytes) -> FromWorker | None:
        envelope = _unsealed(data, _ToHub, message_of(None))
        if envelope.number <= self._heard.get(envelope.who, 0):
            return None
        message = heard(envelope.message, envelope.who)
        self._heard[envelope.who] = envelope.number
        return message

    def broadcast(self, message: ToWorker, functions: Iterable[FunctionId]) -> None:
        """Publish to the exchange, once; who is not meant passes it over."""
        self._connection.publish_to_all(self._next(frozenset(functions), encode(message)))

    def _next(self, functions: frozenset[FunctionId], message: bytes | None) -> bytes:
        data = _sealed(_ToLinks(self._sent + 1, functions, message))
        self._sent += 1  # of one that is not sent no link may think that it is lost
        return data

    def close(self) -> None:
        """Remove the supervisor's queue, so that sending to it fails, and tell the links."""
        if self._closed:
            return
        self._closed = True
        self._connection.hurry()
        with contextlib.suppress(ChannelError):  # without a broker no one is left to be told
            self._connection.retire(self._next(frozenset(), None))
        self._connection.close()

    def destroy(self) -> None:
        """Close, and remove exchange and queues."""
        self.close()
        self._remove(*self._connection.made)

    def _remove(self, exchange: str, queues: Iterable[str]) -> None:
        with contextlib.suppress(ChannelError):  # they expire where the broker cannot be reached
            rabbitmq_client.delete(self._url, exchange, queues)


class RabbitLink:
    """A function's end: its own queue, and that of the supervisor to send to."""

    def __init__(self, url: str, job: str, worker: int, generation: int, patience: float) -> None:
        self._job, self._who = job, (worker, generation)
        # A supervisor that is away knows of it when it misses the broker's heartbeats, and then has patience.
        self._longest_absence = rabbitmq_client.HEARTBEAT + patience
        self._sent, self._heard = 0, 0  # the number of the last message; 0 before the first
        self._absent_since: float | None = None
        queue = _function(job, self._who)
        try:
            self._connection = rabbitmq_client.Connection(url, _exchange(job), queue, patience)
        except Disconnected as error:
            raise Disconnected("the supervisor is not there", where=queue) from error

    def send(self, message: FromWorker) -> None:
        """Publish to the supervisor's queue; Disconnected if that is gone."""
        self._send(encode(message))

    def _send(self, message: bytes) -> None:
        self._sent += 1
        data = _sealed(_ToHub(self._who, self._sent, message))
        self._connection.publish("", _supervisor(self._job), data)

    def receive(self, timeout: float) -> ToWorker:
        """Return the next message that is meant for this function and not heard yet.

        The time for which the broker is away does not count.
        """
        left = timeout
        while True:
            part, began = min(left, _SLICE), time.monotonic()
            data = self._connection.receive(part)
            left -= min(time.monotonic() - began, part)
            if data is None:
                self._look_for_supervisor()
            elif (message := self._opened(data)) is not None:
                return message
            if data is None and left <= 0:
                raise DeadlineExceeded(f"no message from the supervisor for {timeout:g} s")

    def _opened(self, data: bytes) -> ToWorker | None:
        envelope = _unsealed(data, _ToLinks, f"message to worker {self._who[0]}")
        self._absent_since = None
        if envelope.number <= self._heard:
            return None
        if self._heard and envelope.number > self._heard + 1:
            raise gap(self._heard + 1, envelope.number)
        self._heard = envelope.number
        if envelope.message is None:
            raise Disconnected("the supervisor is gone")
        return decode_to_worker(envelope.message) if self._who in envelope.functions else None

    def _look_for_supervisor(self) -> None:
        """Raise Disconnected if no one has been at the other end for long: its process was killed."""
        now = time.monotonic()
        if self._connection.consumers(_supervisor(self._job)):
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now
        elif now - self._absent_since > self._longest_absence:
            raise Disconnected(f"the supervisor has been gone for {self._longest_absence:g} s")

    def close(self) -> None:
        """Let go of the broker."""
        self._connection.close()
