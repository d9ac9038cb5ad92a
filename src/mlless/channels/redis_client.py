"""One connection to a Redis or Valkey: addresses, time-outs, retries, and its errors told as ours.

With redis_routing, the only file that knows the client library. What is sent here may be sent twice, when a
connection is lost before the answer came: commands must bear that.
"""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import redis.connection
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from mlless.errors import ChannelError, UsageError

Command = Sequence[bytes | str | int]

_CONNECT_TIMEOUT = 5.0  # seconds; `?socket_connect_timeout=` of the address takes precedence
_TIMEOUT = 10.0  # seconds without a byte; `?socket_timeout=`
_OPENING_PATIENCE = 2.0  # seconds to go on trying a server that was never reached: a typing error shows soon
_LAST_TIMEOUT = 5.0  # seconds that cleaning up waits for a server
_LONGEST_PAUSE = 1.0  # seconds between two attempts
_LONGEST_BLOCK = 2.0  # seconds for which one command may block

_ADDRESS = "redis://USER:PASSWORD@HOST:PORT/DATABASE, rediss:// for TLS, or unix://USER:PASSWORD@/PATH?db=0"

# What went wrong and what to do about it, by the most special type of error that fits.
_TOLD: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str], ...] = (
    (
        exceptions.AuthenticationError,
        "the server does not let us in",
        "check user and password in its address; percent-encode special characters",
    ),
    (
        exceptions.NoPermissionError,
        "the server's user may not do this",
        "allow it in the server's ACL: ~mlless-* +@read +@write +@stream +@connection +eval +cluster",
    ),
    (
        exceptions.OutOfMemoryError,
        "the server is out of memory",
        "raise its maxmemory, take a larger server, or add one to the store",
    ),
    (
        exceptions.ReadOnlyError,
        "the server is a read-only replica",
        "name the primary",
    ),
    (
        exceptions.BusyLoadingError,
        "the server is still loading its data",
        "try again once it is ready",
    ),
    (
        (
            exceptions.AskError,
            exceptions.ClusterError,
            exceptions.ClusterCrossSlotError,
            exceptions.TryAgainError,
        ),
        "the Redis Cluster does not serve this key now",
        "look at CLUSTER INFO: each of its slots must have a node",
    ),
    (
        exceptions.TimeoutError,
        "the server does not answer",
        "is it overloaded, stopped, behind a firewall, or without the TLS that rediss:// asks for?",
    ),
    (
        exceptions.InvalidResponse,
        "the server does not speak the Redis protocol",
        "check the port",
    ),
    (
        exceptions.ConnectionError,
        "the server cannot be reached",
        "is it running, at this host and port, and does it want TLS (rediss://)?",
    ),
)
# Before Redis 7 the error of a command in a script is a part of the script's.
_IN_SCRIPT = {"-OOM ": exceptions.OutOfMemoryError, "-READONLY ": exceptions.ReadOnlyError}


class _Connection(Protocol):
    """What is used of the library's connection, which has no types."""

    def disconnect(self) -> None:
        """Close it."""
        ...

    def pack_commands(self, commands: Sequence[Command]) -> list[bytes]:
        """Return commands as bytes of the protocol."""
        ...

    def send_packed_command(self, command: list[bytes], check_health: bool) -> None:
        """Send such bytes."""
        ...

    def read_response(self) -> Any:
        """Return the next answer."""
        ...


class Client:
    """A connection, made anew when it is lost. For one thread.

    A server that was reached, by this client or, if ``known``, by another one, may be away for ``patience``
    seconds: a restart or a fail-over passes. Errors are ChannelErrors; when the server stays away, it is of
    the type ``lost``.
    """

    def __init__(
        self,
        url: str | dict[str, Any],
        patience: float,
        lost: type[ChannelError] = ChannelError,
        *,
        known: bool = False,
    ) -> None:
        settings = _settings(url) if isinstance(url, str) else url
        self.where, self.host = _place(settings), str(settings.get("host", "localhost"))
        self.block = min(_LONGEST_BLOCK, settings["socket_timeout"] / 2)
        self._lost = lost
        self._settings = settings
        self._connection = _connection(settings)
        self._commands: Sequence[Command] = ()
        self._sent, self._deadline = False, 0.0
        self._error: exceptions.RedisError | None = None
        self.patience = patience if known else _OPENING_PATIENCE
        self.calls([("PING",)])
        self.patience = patience

    def beside(self, host: str, port: int) -> Client:
        """Return a client of another server of the same kind, which has no patience."""
        settings = {name: value for name, value in self._settings.items() if name != "path"}
        if settings.get("connection_class") is redis.connection.UnixDomainSocketConnection:
            del settings["connection_class"]
        return Client(settings | {"host": host, "port": port}, 0.0, self._lost, known=True)

    def call(self, *command: bytes | str | int) -> Any:
        """Return the server's answer to one command."""
        return self.calls([command])[0]

    def calls(self, commands: Sequence[Command]) -> list[Any]:
        """Return the answers to commands that are sent together: one round trip."""
        return together([(self, commands)])[0]

    def send(self, commands: Sequence[Command]) -> None:
        """Send commands, whose ``answers`` are to be taken next."""
        self._commands, self._deadline = commands, time.monotonic() + self.patience
        self._sent, self._error = False, None
        try:
            self._write()
        except exceptions.RedisError as error:
            self._error = error  # which ``answers`` deals with

    def answers(self) -> list[Any]:
        """Return the answers to the commands sent, if need be after sending them again."""
        pause = 0.0
        while True:
            if self._error is not None:
                self.close()
                if not passes(self._error):
                    raise self._told(self._error) from self._error
                if time.monotonic() >= self._deadline:
                    self.patience = 0.0  # given up once, it is given up: the end must not wait again
                    raise self._told(self._error) from self._error
                time.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(_LONGEST_PAUSE, 2 * pause or 0.05)
            try:
                if not self._sent:
                    self._write()
                return [self._connection.read_response() for _ in self._commands]
            except exceptions.RedisError as error:
                self._error = error

    def hurry(self) -> None:
        """Have no patience from now on: a server that is gone must not hold up the end."""
        self.close()
        self.patience = 0.0
        limits = {"socket_timeout": _LAST_TIMEOUT, "socket_connect_timeout": _LAST_TIMEOUT}
        self._connection = _connection(self._settings | limits)

    def close(self) -> None:
        """Let go of the connection; a further command makes another one."""
        self._sent = False
        self._connection.disconnect()

    def _write(self) -> None:
        self._connection.send_packed_command(
            self._connection.pack_commands(self._commands), check_health=False
        )
        self._sent = True

    def _told(self, error: exceptions.RedisError) -> ChannelError:
        found, cause = str(error).rstrip("."), error.__context__
        raised = self._lost if passes(error) else ChannelError
        if isinstance(cause, ssl.SSLError):
            return raised(
                "no secure connection to the server",
                where=self.where,
                found=cause.reason or str(cause),
                cure="check its certificate against ?ssl_ca_certs=FILE of the address"
                if isinstance(cause, ssl.SSLCertVerificationError)
                else "does it speak TLS at this port? redis:// is without",
            )
        for code, inner in _IN_SCRIPT.items():
            error = inner(found) if code in found else error
        for kind, what, cure in _TOLD:
            if isinstance(error, kind):
                return raised(what, where=self.where, found=found, cure=cure)
        return ChannelError("the server refused a command", where=self.where, found=found)


class Asked(Protocol):
    """Who takes commands and answers them later."""

    def send(self, commands: Sequence[Command]) -> None:
        """Send commands, whose ``answers`` are to be taken next."""
        ...

    def answers(self) -> list[Any]:
        """Return the answers to the commands sent."""
        ...

    def close(self) -> None:
        """Let go of what is under way."""
        ...


def together(work: Sequence[tuple[Asked, Sequence[Command]]]) -> list[list[Any]]:
    """Return the answers of several servers, all of which work at the same time."""
    try:
        for client, commands in work:
            client.send(commands)
        return [client.answers() for client, _ in work]
    except BaseException:
        for client, _ in work:
            client.close()  # an answer that nobody has read would be taken for that to the next command
        raise


def passes(error: exceptions.RedisError) -> bool:
    """Return whether trying again may help."""
    return (
        isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError)
        and not isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError)
        and not isinstance(error.__context__, ssl.SSLCertVerificationError)
    )


def _settings(url: str) -> dict[str, Any]:
    try:
        asked = _parse(url)
        if not url.startswith("unix") and urlsplit(url).path.strip("/") and "db" not in asked:
            raise ValueError("the database is no number, which the library passes over")
    except ValueError:
        # What the library says may quote a part of the password.
        raise UsageError("not the address of a Redis server", expected=_ADDRESS) from None
    limits = {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _CONNECT_TIMEOUT}
    ours = {"protocol": 2, "decode_responses": False, "retry": Retry(NoBackoff(), 0)}
    return limits | asked | ours


_parse = cast(Callable[[str], dict[str, Any]], redis.connection.parse_url)


def _place(settings: dict[str, Any]) -> str:
    """Return the server's address without what is secret."""
    kind = settings.get("connection_class")
    if kind is redis.connection.UnixDomainSocketConnection:
        return f"unix://{settings.get('path', '')}"
    scheme = "rediss" if kind is redis.connection.SSLConnection else "redis"
    return f"{scheme}://{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"


def _connection(settings: dict[str, Any]) -> _Connection:
    rest = dict(settings)
    make: Callable[..., object] = rest.pop("connection_class", redis.connection.Connection)
    try:
        return cast(_Connection, make(**rest))
    except (TypeError, ValueError, exceptions.RedisError) as error:
        raise UsageError(
            "not a setting of a Redis address", where=_place(settings), found=str(error)
        ) from None
