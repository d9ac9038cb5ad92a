"""A TCP proxy on this machine whose connections can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Leads to a port of this machine, from a port of its own unless it is to have that of one before."""

    def __init__(self, port: int, own: int = 0) -> None:
        self._target = port
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._pumps: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", own))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pumps.append(threading.Thread(target=_pump, args=(source, sink), daemon=True))
                self._pumps[-1].start()

    @property
    def connections(self) -> int:
        """How many connections there have been."""
        with self._lock:
            return len(self._pairs)

    def cut(self, which: int | None = None) -> None:
        """Cut the connection of this number, in the order they were made, or all; new ones may be made."""
        with self._lock:
            pairs = self._pairs[:] if which is None else [self._pairs[which]]
        for pair in pairs:
            _cut(pair)

    def close(self) -> None:
        """Accept no more connections, and cut those that are."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        self.cut()
        for pump in self._pumps:
            pump.join()
        for pair in self._pairs:
            for end in pair:
                end.close()


def _cut(pair: tuple[socket.socket, socket.socket]) -> None:
    for end in pair:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    _cut((source, sink))
