"""RabbitMQ bus: one queue a role, and a fan-out exchange from the supervisor to all workers.

The hub makes the exchange and all queues, so that it can remove all of them, also those of workers
that never came. A message is numbered by its sender; a receiver passes over a number it has had, so
that what is sent or delivered twice around a lost connection is heard once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from typing import Annotated, TypeVar

import msgspec

from mlless.channels import rabbitmq_client
from mlless.errors import ChannelError, CodecError, DeadlineExceeded, Disconnected
from mlless.messages import FromWorker, ToWorker, decode_from_worker, decode_to_worker, encode

_LARGEST = 16 << 20  # bytes a message may have, well below a broker's own limit of 128 MiB
_SLICE = 5.0  # seconds of silence after which a link looks whether the supervisor is there
_ABSENCE = 20.0  # seconds that a supervisor may be away, to get a lost connection back


_Id = Annotated[int, msgspec.Meta(ge=0)]
_Number = Annotated[int, msgspec.Meta(ge=1)]


class _ToHub(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What a link sends: who it is, the number of this message, and the message."""

    worker: _Id
    generation: _Id
    number: _Number
    message: bytes


class _ToLinks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What the hub sends to all: the number of this message, who is meant, and the message; None ends it."""

    number: _Number
    workers: frozenset[_Id]
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


def _worker(job: str, worker: int) -> str:
    return f"{job}.worker-{worker}"


class RabbitHub:
    """The supervisor's end: its queue, and the exchange that leads to all workers."""

    def __init__(self, url: str, job: str, workers: int, expiry: float) -> None:
        self._url, self._job = url, job
        self._workers = [_worker(job, worker) for worker in range(workers)]
        self._heard: dict[tuple[int, int], int] = {}
        self._sent = 0
        self._closed = False
        try:
            rabbitmq_client.declare(url, _exchange(job), _supervisor(job), self._workers, expiry)
            self._connection = rabbitmq_client.Connection(url, _exchange(job), _supervisor(job))
        except (ChannelError, KeyboardInterrupt):
            self._remove()  # part of it may have been made
            raise

    def receive(self, timeout: float) -> FromWorker | None:
        """Return the next message not heard yet; None after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while (data := self._connection.receive(max(0.0, deadline - time.monotonic()))) is not None:
            if (message := self._opened(data)) is not None:
                return message
        return None

    def _opened(self, data: bytes) -> FromWorker | None:
        envelope = _unsealed(data, _ToHub, "message of a stranger")
        launch = envelope.worker, envelope.generation
        if envelope.number <= self._heard.get(launch, 0):
            return None
        sender = f"message of worker {envelope.worker}"
        try:
            message = decode_from_worker(envelope.message)
        except CodecError as error:
            raise CodecError(error.what, where=sender, found=error.found) from error
        if message.worker != envelope.worker:
            raise CodecError("in another worker's name", where=sender, found=f"worker {message.worker}")
        self._heard[launch] = envelope.number
        return message

    def broadcast(self, message: ToWorker, workers: Iterable[int]) -> None:
        """Publish to the exchange, once; who is not meant passes it over."""
        self._publish(frozenset(workers), encode(message))

    def _publish(self, workers: frozenset[int], message: bytes | None) -> None:
        self._sent += 1
        data = _sealed(_ToLinks(self._sent, workers, message))
        self._connection.publish(_exchange(self._job), "", data)

    def close(self) -> None:
        """Remove the supervisor's queue, so that sending to it fails, and tell the links."""
        if self._closed:
            return
        self._closed = True
        self._connection.hurry()
        with contextlib.suppress(ChannelError):  # without a broker no one is left to be told
            self._connection.delete(_supervisor(self._job))
            self._publish(frozenset(), None)
        self._connection.close()

    def destroy(self) -> None:
        """Close, and remove exchange and queues."""
        self.close()
        self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(ChannelError):  # they expire where the broker cannot be reached
            rabbitmq_client.delete(self._url, _exchange(self._job), [_supervisor(self._job), *self._workers])


class RabbitLink:
    """A worker's end: its own queue, and that of the supervisor to send to."""

    def __init__(self, url: str, job: str, worker: int, generation: int) -> None:
        self._job, self._worker, self._generation = job, worker, generation
        self._sent = self._heard = 0
        self._absent_since: float | None = None
        queue = _worker(job, worker)
        try:
            self._connection = rabbitmq_client.Connection(url, _exchange(job), queue, generation)
        except Disconnected as error:
            raise Disconnected("the supervisor is not there", where=queue) from error

    def send(self, message: FromWorker) -> None:
        """Publish to the supervisor's queue; Disconnected if that is gone."""
        self._send(encode(message))

    def _send(self, message: bytes) -> None:
        self._sent += 1
        data = _sealed(_ToHub(self._worker, self._generation, self._sent, message))
        self._connection.publish("", _supervisor(self._job), data)

    def receive(self, timeout: float) -> ToWorker:
        """Return the next message that is meant for this worker and not heard yet."""
        deadline = time.monotonic() + timeout
        while True:
            data = self._connection.receive(min(max(0.0, deadline - time.monotonic()), _SLICE))
            if data is None:
                self._look_for_supervisor()
            elif (message := self._opened(data)) is not None:
                return message
            if data is None and time.monotonic() >= deadline:
                raise DeadlineExceeded(f"no message from the supervisor for {timeout:g} s")

    def _opened(self, data: bytes) -> ToWorker | None:
        envelope = _unsealed(data, _ToLinks, f"message to worker {self._worker}")
        self._absent_since = None
        if envelope.message is None:
            raise Disconnected("the supervisor is gone")
        if envelope.number <= self._heard or self._worker not in envelope.workers:
            return None
        message = decode_to_worker(envelope.message)
        self._heard = envelope.number
        return message

    def _look_for_supervisor(self) -> None:
        """Raise Disconnected if no one has been at the other end for long: its process was killed."""
        now = time.monotonic()
        if self._connection.consumers(_supervisor(self._job)):
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now
        elif now - self._absent_since > _ABSENCE:
            raise Disconnected(f"the supervisor has been gone for {_ABSENCE:g} s")

    def close(self) -> None:
        """Let go of the broker."""
        self._connection.close()
