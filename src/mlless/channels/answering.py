"""Requests and answers over a socket: for a server that one job has for itself.

Who connects has to say the job's token first, and soon; until then next to nothing is read. A request has a
largest size. One thread answers one request after the other. Who does not take its answer is not listened to.
"""

from __future__ import annotations

import contextlib
import hmac
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable

from mlless.channels.framing import LENGTH, Frames, framed, length_of
from mlless.errors import CodecError, DeadlineExceeded, Disconnected

LOOPBACK = "127.0.0.1"
_STRANGERS, _PATIENCE = 64, 10.0  # connections without a token, and seconds until they have to have said it
_CHUNK = 1 << 18
_HERE = "the job's own server"


def listen(host: str = LOOPBACK) -> socket.socket:
    """Return a socket that listens at a port of its own."""
    return socket.create_server((host, 0), backlog=256)


class _Peer:
    """A connection. Of one that is not ``known`` yet, no more is read than a token has."""

    def __init__(self, connection: socket.socket, now: float, largest: int) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection, self.since, self.known, self._said = connection, now, False, b""
        self._frames, self.requests, self.unsent = Frames(largest), deque[bytes](), memoryview(b"")

    def read(self, token: bytes) -> bool:
        """Take in what is there; return whether the peer is still one to listen to."""
        try:
            data = self.connection.recv(_CHUNK if self.known else len(token) - len(self._said))
            if self.known:
                self.requests += self._frames.feed(data, _HERE)
        except BlockingIOError:
            return True
        except (OSError, CodecError):
            return False
        if not self.known:
            self._said += data
            self.known = hmac.compare_digest(self._said, token)
        return bool(data) and (self.known or len(self._said) < len(token))

    def write(self) -> bool:
        """Send what is taken now; return whether the peer is still there."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.connection.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True


def serve(
    listener: socket.socket, token: bytes, largest: int, answer: Callable[[bytes], bytes], ending: int
) -> None:
    """Answer requests, of at most so many bytes, until there is something to read from ``ending``."""
    listener.setblocking(False)
    with selectors.DefaultSelector() as selector:
        selector.register(ending, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(_PATIENCE):
                if key.fileobj == ending:
                    for peer in [peer for one in selector.get_map().values() if (peer := one.data)]:
                        _drop(peer, selector)
                    return
                if key.fileobj is listener:
                    with contextlib.suppress(OSError):  # it has gone again
                        peer = _Peer(listener.accept()[0], time.monotonic(), largest)
                        selector.register(peer.connection, selectors.EVENT_READ, peer)
                elif not _go_on(key.data, token, answer, selector):
                    _drop(key.data, selector)
            strangers = [p for k in selector.get_map().values() if (p := k.data) and not p.known]
            late = time.monotonic() - _PATIENCE
            for number, peer in enumerate(reversed(strangers)):
                if number >= _STRANGERS or peer.since < late:
                    _drop(peer, selector)


def _go_on(
    peer: _Peer, token: bytes, answer: Callable[[bytes], bytes], selector: selectors.BaseSelector
) -> bool:
    """Read, or write what is left of an answer; return whether the peer is still there."""
    waited = bool(peer.unsent)
    there = peer.write() if waited else peer.read(token)
    while there and peer.requests and not peer.unsent:
        peer.unsent = memoryview(framed(answer(peer.requests.popleft())))
        there = peer.write()
    if there and bool(peer.unsent) != waited:
        wanted = selectors.EVENT_WRITE if peer.unsent else selectors.EVENT_READ
        selector.modify(peer.connection, wanted, peer)
    return there


def _drop(peer: _Peer, selector: selectors.BaseSelector) -> None:
    selector.unregister(peer.connection)
    peer.connection.close()


class Asking:
    """The other end: waits at most ``timeout`` seconds for an answer of at most ``largest`` bytes."""

    def __init__(self, address: tuple[str, int], token: bytes, *, largest: int, timeout: float) -> None:
        self._largest, self._timeout, self._until = largest, timeout, 0.0
        where = f"{address[0]}:{address[1]}"
        try:
            self._socket = socket.create_connection(address, timeout)
        except OSError as error:
            raise Disconnected(f"{_HERE} is not there", where=where) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._token = token  # goes with the first request

    def ask(self, request: bytes) -> bytes:
        """Return the answer to a request; DeadlineExceeded without one, Disconnected if nobody is there."""
        self._until = time.monotonic() + self._timeout
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(self._token + framed(request))
            self._token = b""
            return bytes(self._receive(length_of(self._receive(LENGTH.size), self._largest, _HERE)))
        except TimeoutError as error:
            raise DeadlineExceeded(f"{_HERE} has not answered within {self._timeout:g} s") from error
        except OSError as error:
            raise Disconnected(f"{_HERE} is gone", found=str(error)) from error

    def _receive(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            self._socket.settimeout(max(0.001, self._until - time.monotonic()))
            count = self._socket.recv_into(view)
            if not count:
                raise ConnectionResetError("it has closed the connection")
            view = view[count:]
        return data

    def close(self) -> None:
        """Let go of the connection. May be called more than once."""
        self._socket.close()
