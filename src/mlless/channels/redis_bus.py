"""Bus on Redis Streams: one of the workers to the supervisor, one of the supervisor to all functions.

Every reader goes on from the entry that it has read last, so a lost connection loses nothing. A message may
be sent twice because its answer was lost. Its number shows the reader that it has seen it. The hub alone
makes the streams. It keeps a third key from expiring, its sign of life. Workers whose driver is killed find
this key gone.

If a server has lost the streams, the hub makes others under new names, which the sign of life tells. A link
of before finds its own streams gone, whenever it looks, and never reaches the new ones.
"""

from __future__ import annotations

import math
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from mlless.channels.receipt import gap, heard, message_of
from mlless.channels.redis_routing import Router
from mlless.errors import ChannelError, CodecError, DeadlineExceeded, Disconnected, warn
from mlless.messages import FromWorker, FunctionId, ToWorker, decode_to_worker, encode

_RENEWAL = 5.0  # seconds between two signs of life
_LOOK = 3.0  # seconds without a message after which a link looks for one
_LOOKS = 2  # looks in vain until it gives up: a server that was away may have come back before the hub
# By so much a sign of life outlasts an absence: one renewal may just have been due, the next takes a while.
_MARGIN = 2 * _RENEWAL
# Broadcasts that are kept. A worker is at most two behind; a broadcast waits for nobody all the same, so
# there is room for many, and a link that is left further behind notices it by the numbers.
_KEPT = 1000
_AT_ONCE = 100  # messages read in one round trip
_FIELDS = (_FROM, _NUMBER, _BODY) = (b"f", b"n", b"m")
_NAME = re.compile(rb"(\d{1,9})\.(\d{1,9})\.[0-9a-f]{16}")
# Adds an entry to a stream, but makes none: what was removed with the job must not come back. NOMKSTREAM, 4
# microseconds quicker, is not known before Redis 6.2.
_ADD = """
if redis.call('EXISTS', KEYS[1]) == 1 then
    return redis.call('XADD', KEYS[1], unpack(ARGV))
end
"""
# Renews the streams and the sign of life, which is none without them.
_BEAT = """
if redis.call('PEXPIRE', KEYS[1], ARGV[1]) + redis.call('PEXPIRE', KEYS[2], ARGV[1]) == 2 then
    return redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
end
"""
_EVERYBODY = b"*"  # in place of functions: the hub has closed


class _Keys:
    """The names of a job's bus; the streams have that of an incarnation in theirs."""

    def __init__(self, job: str, incarnation: str) -> None:
        self.incarnation, self.alive = incarnation, _sign(job)
        self.up, self.down = f"{_own(job)}|{incarnation}|up", f"{_own(job)}|{incarnation}|down"


def _sign(job: str) -> str:
    return f"{_own(job)}|alive"


def _own(job: str) -> str:
    """Return how all names of a job's bus begin: what is in braces has a cluster keep them on one node."""
    return f"{job}|{{{job}}}"


class _Reader:
    """Reads a stream, entry by entry."""

    def __init__(self, client: Router, stream: str, last: bytes, *, remove: bool) -> None:
        self._client, self._stream, self._last, self._remove = client, stream, last, remove
        self._read: list[bytes] = [last] if remove else []

    def wait(self, timeout: float) -> list[Any]:
        """Return the fields of new entries; none once ``timeout`` seconds, at most one block, have passed.

        Those that were returned before are removed in the same round trip, if that is wanted.
        """
        block = math.ceil(min(timeout, self._client.block) * 1000)
        waiting = ("BLOCK", block) if block > 0 else ()
        read = ("XREAD", "COUNT", _AT_ONCE, *waiting, "STREAMS", self._stream, self._last)
        if self._read:
            _, streams = self._client.calls([("XDEL", self._stream, *self._read), read])
        else:
            streams = self._client.call(*read)
        entries = streams[0][1] if streams else []
        if entries:
            self._last = entries[-1][0]
        self._read = [entry[0] for entry in entries] if self._remove else []
        return [entry[1] for entry in entries]


class RedisHub:
    """The supervisor's end. A thread with a connection of its own says that it is alive."""

    def __init__(self, url: str, job: str, expiry: float, patience: float) -> None:
        self._job = job
        self._life = math.ceil(expiry * 1000), math.ceil((patience + _MARGIN) * 1000)
        self._client = Router(url, patience)
        self._queue: deque[Any] = deque()
        self._seen: dict[bytes, int] = {}
        self._number = 0
        try:
            self._make()
            self._pulse = _Pulse(Router(url, patience), self._beat, min(_RENEWAL, expiry / 4))
        except (ChannelError, KeyboardInterrupt):
            self._client.hurry()
            self._remove()  # part of it may have been made
            raise

    def _make(self) -> None:
        self._keys = keys = _Keys(self._job, secrets.token_hex(8))
        self._beat = _Beat(keys, *self._life)
        start = ("*", _FROM, _EVERYBODY, _NUMBER, self._number, _BODY, b"")
        first, *_ = self._client.calls(
            [("XADD", keys.up, *start), ("XADD", keys.down, *start), self._beat.command]
        )
        self._reader = _Reader(self._client, keys.up, first, remove=True)

    def _make_anew(self) -> None:
        """Go on with other streams, after the server has lost these; what is left of them is removed."""
        warn(
            f"{self._client.where}: the server has lost the job's messages. It was restarted, flushed, or "
            f"evicts keys: its maxmemory-policy must be noeviction",
            RuntimeWarning,
        )
        self._client.call("UNLINK", self._keys.up, self._keys.down)
        self._make()
        self._pulse.beat = self._beat

    def admit(self, functions: Iterable[FunctionId]) -> None:
        """See to it that there is a bus to join; one is for all."""
        if not self._client.call(*self._beat.command):
            self._make_anew()

    def receive(self, timeout: float) -> FromWorker | None:
        """Return the next message; None after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            while self._queue:
                message = self._take(self._queue.popleft())
                if message is not None:
                    return message
            if self._pulse.failure is not None:
                raise self._pulse.failure
            if self._beat.in_vain:
                self._make_anew()
            self._queue += self._reader.wait(deadline - time.monotonic())
            if not self._queue and time.monotonic() >= deadline:
                return None

    def _take(self, entry: Any) -> FromWorker | None:
        """Return the entry's message; None if it has been returned before."""
        name, number, body = _fields(entry)
        sender = _NAME.fullmatch(name)
        if sender is None:
            raise CodecError("not a message of ours", where=message_of(None))
        if number <= self._seen.get(name, -1):
            return None
        self._seen[name] = number
        return heard(body, (int(sender[1]), int(sender[2])))

    def broadcast(self, message: ToWorker, functions: Iterable[FunctionId]) -> None:
        """Add one entry, whomever it is for; whom it is for is gone where the server has lost the bus."""
        if not self._add(_to(functions), encode(message)):
            self._make_anew()

    def _add(self, to: bytes, body: bytes) -> bool:
        number = self._number + 1
        entry = ("MAXLEN", "~", _KEPT, "*", _FROM, to, _NUMBER, number, _BODY, body)
        if self._client.call("EVAL", _ADD, 1, self._keys.down, *entry) is None:
            return False
        self._number = number
        return True

    def close(self) -> None:
        """Add the last entry; nothing can be sent to the hub any more."""
        if self._pulse.stop():
            self._client.hurry()
            with suppress(ChannelError):  # links find the sign of life gone
                self._add(_EVERYBODY, b"")
                self._client.call("UNLINK", self._keys.up, self._keys.alive)
            self._client.close()

    def destroy(self) -> None:
        """Close, and remove the bus; where the server is out of reach it is left to expire."""
        self.close()
        self._remove()

    def _remove(self) -> None:
        with suppress(ChannelError):
            self._client.call("UNLINK", self._keys.up, self._keys.down, self._keys.alive)
        self._client.close()


class _Beat:
    """A sign of life for one incarnation of the bus, and whether the server has said that this is gone."""

    def __init__(self, keys: _Keys, lifetime: int, silence: int) -> None:
        names = keys.up, keys.down, keys.alive
        self.command = ("EVAL", _BEAT, len(names), *names, lifetime, keys.incarnation, silence)
        self.in_vain = False


class _Pulse:
    """Says every few seconds that the hub is alive, and puts off the expiry of the bus."""

    def __init__(self, client: Router, beat: _Beat, interval: float) -> None:
        self.failure: ChannelError | None = None
        self.beat = beat
        self._client, self._interval = client, interval
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlless bus", daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """End the thread; return whether it was not ended before."""
        if self._stopped.is_set():
            return False
        self._stopped.set()
        # Wait for it, lest it renews what is removed next. One that waits for a lost server is left alone.
        self._thread.join(_RENEWAL)
        return True

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            beat = self.beat
            try:
                beat.in_vain = not self._client.call(*beat.command)  # ``receive`` does what is to be done
            except ChannelError as error:
                self.failure = error  # ``receive`` raises it
                break
        self._client.close()


class RedisLink:
    """A worker's end."""

    def __init__(self, url: str, job: str, worker: int, generation: int, patience: float) -> None:
        self._client = Router(url, patience, lost=Disconnected)
        # A link of its own name: numbers start anew with each.
        self._name = f"{worker}.{generation}.{secrets.token_hex(8)}"
        self._number = -1
        self._address = _to([(worker, generation)])
        self._queue: deque[Any] = deque()
        self._closed = False
        self._looked, self._in_vain = time.monotonic(), 0
        sign = self._client.call("GET", _sign(job)) or b""
        self._keys = keys = _Keys(job, sign.decode(errors="replace"))
        newest = self._client.call("XREVRANGE", keys.down, "+", "-", "COUNT", 1)
        if not newest:
            self._client.close()
            raise Disconnected("the supervisor is not there", where=self._client.where)
        self._reader = _Reader(self._client, keys.down, newest[0][0], remove=False)
        self._expected = _fields(newest[0][1])[1] + 1

    def send(self, message: FromWorker) -> None:
        """Add the message to the supervisor's stream."""
        self._add(encode(message))

    def _add(self, body: bytes) -> None:
        self._number += 1
        entry = ("*", _FROM, self._name, _NUMBER, self._number, _BODY, body)
        if self._client.call("EVAL", _ADD, 1, self._keys.up, *entry) is None:
            raise Disconnected("the supervisor is gone")

    def receive(self, timeout: float) -> ToWorker:
        """Read on in the stream to all until there is something for this function.

        The time for which the server is away does not count.
        """
        left = timeout
        while True:
            while self._queue:
                body = self._take(self._queue.popleft())
                if body is not None:
                    return decode_to_worker(body)
            if self._closed:
                raise Disconnected("the supervisor is gone")
            began = time.monotonic()
            self._queue += self._reader.wait(left)
            left -= min(time.monotonic() - began, self._client.block)
            if self._queue:
                self._looked, self._in_vain = time.monotonic(), 0
            elif time.monotonic() >= self._looked + _LOOK:
                self._look()
            if not self._queue and left <= 0:
                raise DeadlineExceeded(f"no message from the supervisor for {timeout:g} s")

    def _take(self, entry: Any) -> bytes | None:
        """Return the entry's message; None if it has been read before or is for others."""
        to, number, body = _fields(entry)
        if number < self._expected:
            return None
        if number > self._expected:
            raise gap(self._expected, number)
        self._expected += 1
        self._closed = to == _EVERYBODY
        return body if self._address in to else None

    def _look(self) -> None:
        """Raise Disconnected if the supervisor is no longer there."""
        self._looked = time.monotonic()
        alive, stream = self._client.calls([("EXISTS", self._keys.alive), ("EXISTS", self._keys.down)])
        if not stream:
            raise Disconnected(
                "the supervisor is gone, or the server was restarted or emptied", where=self._client.where
            )
        self._in_vain = 0 if alive else self._in_vain + 1
        if self._in_vain >= _LOOKS:
            raise Disconnected("the supervisor is gone")

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def _to(functions: Iterable[FunctionId]) -> bytes:
    """Return the functions as addressees; those of one alone are a part of those of several."""
    return f",{','.join(f'{worker}.{generation}' for worker, generation in functions)},".encode()


def _fields(entry: Any) -> tuple[bytes, int, bytes]:
    """Return a stream entry's sender or addressees, number and message."""
    if entry[::2] != list(_FIELDS) or not re.fullmatch(rb"\d{1,18}", entry[3]):
        raise CodecError("not a message of ours", where=message_of(None))
    return entry[1], int(entry[3]), entry[5]
