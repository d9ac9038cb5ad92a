"""Embedded bus: messages over a local socket in the job's folder, framed by their length."""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from mlless.channels.framing import Frames, framed
from mlless.channels.receipt import heard, message_of
from mlless.errors import DeadlineExceeded, Disconnected
from mlless.messages import FromWorker, FunctionId, ToWorker, decode_to_worker, encode

_SOCKET = "bus"
_LARGEST = 16 << 20  # bytes a message may have
_SEND_DEADLINE = 60.0  # seconds a supervisor may leave a full socket unread


def _framed(message: FromWorker | ToWorker) -> bytes:
    return framed(encode(message))


class _Peer:
    """The supervisor's side of one function's socket. Whose it is, its first message says."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.frames = Frames(_LARGEST)
        self.unsent = bytearray()
        self.has_rest = False
        self.who: FunctionId | None = None

    def flush(self) -> bool:
        """Send as much as the socket takes now; return whether there is a rest."""
        while self.unsent:
            try:
                del self.unsent[: self.connection.send(self.unsent)]
            except BlockingIOError:
                return True
            except OSError:
                self.unsent.clear()  # it is gone; its runtime says so
        return False


class EmbeddedHub:
    """The supervisor's end: a listening socket and one connection a function."""

    def __init__(self, folder: Path) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(folder / _SOCKET))
        self._listener.listen(256)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: list[_Peer] = []
        self._queue: deque[FromWorker] = deque()

    def admit(self, functions: Iterable[FunctionId]) -> None:
        """Do nothing: a socket takes all comers."""

    def receive(self, timeout: float) -> FromWorker | None:
        """Return the next message, serving all sockets meanwhile; None after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not self._queue:
            ready = self._selector.select(max(0.0, deadline - time.monotonic()))
            if not ready and time.monotonic() >= deadline:
                return None
            for key, events in ready:
                if key.data is None:
                    self._accept()
                    continue
                if events & selectors.EVENT_WRITE:
                    self._flush(key.data)
                if events & selectors.EVENT_READ:
                    self._read(key.data)
        return self._queue.popleft()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        peer = _Peer(connection)
        self._peers.append(peer)
        self._selector.register(connection, selectors.EVENT_READ, peer)

    def _read(self, peer: _Peer) -> None:
        try:
            data = peer.connection.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(peer.connection)
            peer.connection.close()
            self._peers.remove(peer)
            return
        for frame in peer.frames.feed(data, message_of(peer.who)):
            message = heard(frame, peer.who)
            peer.who = message.worker, message.generation
            self._queue.append(message)

    def broadcast(self, message: ToWorker, functions: Iterable[FunctionId]) -> None:
        """Send to the functions' sockets; what one does not take at once follows during receives."""
        data, wanted = _framed(message), set(functions)
        for peer in self._peers:
            if peer.who in wanted:
                peer.unsent += data
                self._flush(peer)

    def _flush(self, peer: _Peer) -> None:
        """Send what the peer takes now; the selector tells when it can take the rest."""
        had_rest, peer.has_rest = peer.has_rest, peer.flush()
        if peer.has_rest != had_rest:
            wait_for = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.has_rest else 0)
            self._selector.modify(peer.connection, wait_for, peer)

    def close(self) -> None:
        """Close every socket, which tells workers that are left to exit."""
        for peer in self._peers:
            peer.flush()
            peer.connection.close()
        self._peers.clear()
        self._listener.close()
        self._selector.close()

    def destroy(self) -> None:
        """Close; the socket goes with the job's folder."""
        self.close()


class EmbeddedLink:
    """A worker's end: one socket."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._frames = Frames(_LARGEST)
        self._queue: deque[bytes] = deque()
        try:
            self._socket.connect(str(folder / _SOCKET))
        except OSError as error:
            self._socket.close()
            raise Disconnected("the supervisor is not there", where=str(folder)) from error

    def send(self, message: FromWorker) -> None:
        """Write the message to the socket."""
        try:
            self._socket.settimeout(_SEND_DEADLINE)
            self._socket.sendall(_framed(message))
        except OSError as error:
            raise Disconnected("the supervisor is gone") from error

    def receive(self, timeout: float) -> ToWorker:
        """Read the next message from the socket."""
        deadline = time.monotonic() + timeout
        while not self._queue:
            try:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                data = self._socket.recv(1 << 16)
            except TimeoutError as error:
                raise DeadlineExceeded(f"no message from the supervisor for {timeout:g} s") from error
            except OSError as error:
                raise Disconnected("the supervisor is gone") from error
            if not data:
                raise Disconnected("the supervisor is gone")
            self._queue += self._frames.feed(data, "message of the supervisor")
        return decode_to_worker(self._queue.popleft())

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
