"""A RabbitMQ broker through pika: what is published and consumed outlives a lost connection.

What the messages say, and who reads them, is the business of ``rabbitmq_bus``.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from mlless.errors import ChannelError, Disconnected, UsageError, not_installed, warn

try:
    import pika
    from pika import exceptions
    from pika.adapters.utils.connection_workflow import AMQPConnectorException
except ModuleNotFoundError as error:
    raise not_installed("a RabbitMQ bus", "pika", extra="rabbitmq") from error

_T = TypeVar("_T")
_Channel = Any  # pika has no types

_CONNECT = 5.0  # seconds for a TCP connection; twice that until the broker has let us in
HEARTBEAT = 30  # seconds of silence after which either side takes the other for gone
_BACK_OFF = (0.05, 2.0)  # seconds between two attempts: at first, at most
_TICK = 1.0  # seconds between two looks at a connection that no one waits on
_LONGEST_EXPIRY = 2**32 - 1  # milliseconds
_KEPT = 1000  # messages in a queue that nobody reads, such as that of a dead function
_ALL = "all"  # the key of what is published to every subscriber
_TLS_OPTIONS = ("cacertfile", "certfile", "keyfile", "verify")

_FOREIGN = (exceptions.AMQPError, AMQPConnectorException, OSError)
_LOST = (exceptions.AMQPConnectionError, AMQPConnectorException, OSError)
_NOT_FOUND, _ACCESS_REFUSED, _NOT_ALLOWED = 404, 403, 530
_PASSING = (320, 541)  # an operator closed the connection; an internal error of the broker


def delete(url: str, exchange: str, queues: Iterable[str]) -> None:
    """Remove the exchange and the queues; those that are absent are passed over."""
    with _short(url) as channel:
        _remove(channel, exchange, queues)


def present(url: str, queues: Iterable[str]) -> list[str]:
    """Return those of the queues that there are."""
    found = []
    for name in queues:
        with contextlib.suppress(Disconnected), _short(url) as channel:
            channel.queue_declare(name, passive=True)
            found.append(name)
    return found


def _remove(channel: _Channel, exchange: str, queues: Iterable[str]) -> None:
    for name in queues:
        channel.queue_delete(name)
    channel.exchange_delete(exchange)


@contextlib.contextmanager
def _short(url: str) -> Iterator[_Channel]:
    """Yield a channel of a connection for a few calls; errors are turned into ours."""
    parameters = _parameters(url, _CONNECT)
    try:
        connection = pika.BlockingConnection(parameters)
        try:
            yield connection.channel()
        finally:
            _close(connection)
    except _FOREIGN as error:
        raise _explained(error, parameters) from error


class Connection:
    """One end's connection with the broker: it publishes, and consumes one queue.

    Whoever waits for a message serves the connection meanwhile; while no one does, because a step takes
    its time, a thread of its own answers heartbeats and takes in messages. A message is acknowledged as
    soon as it is taken in, so that the broker's acknowledgement time-out never depends on a step. A lost
    connection is replaced: then unconfirmed messages are published, and unacknowledged ones delivered,
    once more; it is for sender and receiver to know them by their numbers. A broker may be away, or short of
    memory or disk, for ``patience`` seconds. Disconnected if exchange or queue are not there.
    """

    def __init__(self, url: str, exchange: str, queue: str, patience: float) -> None:
        self._parameters = _parameters(url, patience)
        self._exchange, self._queue = exchange, queue
        self._inbox: deque[bytes] = deque()
        self._connection: Any = None
        self._channel: _Channel = None
        self._failure: ChannelError | None = None
        self._patience = patience
        self._lock = threading.Lock()  # pika knows one thread at a time
        self._closed = threading.Event()
        try:
            self._open()
        except _FOREIGN as error:
            self._drop()
            raise self._explained(error) from error
        self._keeper = threading.Thread(target=self._keep, name=f"mlless {queue}", daemon=True)
        self._keeper.start()

    def publish(self, exchange: str, key: str, body: bytes) -> None:
        """Return once the broker has the message; Disconnected if it was for a queue that is not there."""
        # Only the default exchange, which leads to one queue, tells of a message that has no way to go.
        mandatory = not exchange
        self._do(lambda: self._channel.basic_publish(exchange, key, body, mandatory=mandatory))

    def receive(self, timeout: float) -> bytes | None:
        """Return the next message, or None once ``timeout`` seconds have passed without one.

        Disconnected once the queue is gone and its last message taken.
        """
        deadline = time.monotonic() + timeout
        while not self._inbox:
            left = max(0.0, deadline - time.monotonic())
            self._do(partial(self._serve, left))
            if not self._inbox and time.monotonic() >= deadline:
                return None
        return self._inbox.popleft()

    def consumers(self, queue: str) -> int:
        """Return how many consume a queue; Disconnected if it is not there."""
        count: int = self._do(lambda: self._channel.queue_declare(queue, passive=True).method.consumer_count)
        return count

    def hurry(self) -> None:
        """Have no patience from now on: a broker that is gone must not hold up the end."""
        self._patience = 0.0

    def close(self) -> None:
        """Let go of the broker. May be called more than once."""
        self._closed.set()
        with self._lock:
            self._drop()
        self._keeper.join()

    def _keep(self) -> None:
        """Serve the connection while no one else does."""
        while not self._closed.wait(_TICK):
            if self._lock.acquire(blocking=False):
                try:
                    self._attempt(partial(self._serve, 0.0))
                except ChannelError:
                    return  # whoever comes next is told
                finally:
                    self._lock.release()

    def _do(self, action: Callable[[], _T]) -> _T:
        with self._lock:
            return self._attempt(action)

    def _attempt(self, action: Callable[[], _T]) -> _T:
        """Return what ``action`` does, on a new connection if the old one is lost on the way."""
        lost, pause = 0.0, _BACK_OFF[0]
        while True:
            if self._failure:
                raise self._failure
            if self._closed.is_set():
                raise Disconnected("the connection is closed", where=self._queue)
            try:
                if self._channel is None:
                    self._open()
                return action()
            except _FOREIGN as error:
                self._drop()
                lost = lost or time.monotonic()
                if not self._passing(error) or time.monotonic() >= lost + self._patience:
                    self._failure = self._explained(error)
                    raise self._failure from error
            except BaseException:
                self._drop()  # interrupted in mid-sentence, it cannot be gone on with
                raise
            self._closed.wait(pause)
            pause = min(2 * pause, _BACK_OFF[1])

    def _open(self) -> None:
        self._unacknowledged, self._cancelled = 0, False
        self._connection = pika.BlockingConnection(self._parameters)
        self._prepare()
        channel = self._connection.channel()
        channel.exchange_declare(self._exchange, passive=True)
        channel.confirm_delivery()
        channel.add_on_cancel_callback(self._on_cancel)
        channel.basic_consume(self._queue, self._on_message)
        self._channel = channel

    def _prepare(self) -> None:
        """Do what there is to do on a new connection, before exchange and queue are looked for."""

    def _passing(self, error: Exception) -> bool:
        """Return whether another attempt may well go better."""
        return _passing(error)

    def _on_message(self, channel: _Channel, method: Any, properties: object, body: bytes) -> None:
        self._inbox.append(body)
        self._unacknowledged = method.delivery_tag

    def _on_cancel(self, method: object) -> None:
        self._cancelled = True

    def _serve(self, timeout: float) -> None:
        """Take in what has come, waiting up to ``timeout`` seconds for it, and acknowledge it."""
        self._connection.process_data_events(0.0 if self._inbox or self._cancelled else timeout)
        if not self._channel.is_open:
            raise self._channel._closing_reason  # what pika itself raises in calls of the channel
        if self._unacknowledged:
            self._acknowledge()
        if self._cancelled and not self._inbox:
            self._bereft()

    def _bereft(self) -> None:
        """Go on without the queue, which someone has removed."""
        self._failure = _gone(self._queue)
        raise self._failure

    def _acknowledge(self) -> None:
        tag, self._unacknowledged = self._unacknowledged, 0
        self._channel.basic_ack(tag, multiple=True)

    def _drop(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            _close(connection)

    def _explained(self, error: Exception) -> ChannelError:
        return _explained(error, self._parameters, self._queue)


class Owner(Connection):
    """The connection of who makes the exchange, and all queues: that which it consumes, and subscribers'.

    The broker forgets a queue that no one has used for ``expiry`` seconds, and the exchange with the last
    of its queues. Queues are durable as newer brokers want it; the exchange is not, so that a broker that
    was restarted, and has lost the messages, is known by its absence. Then the owner removes all queues
    before it makes the exchange and its own queue anew: no subscriber of before is taken for one of after.
    """

    def __init__(self, url: str, exchange: str, queue: str, patience: float, expiry: float) -> None:
        self._arguments = {"x-expires": max(1, min(int(expiry * 1000), _LONGEST_EXPIRY))}
        self._subscribers: list[str] = []
        self._opened = self._retired = False
        super().__init__(url, exchange, queue, patience)
        self._opened = True

    def subscribe(self, queues: list[str]) -> None:
        """Make queues that get what is published from now on; those that nobody reads, the end of it."""

        def declare() -> None:
            """Declare the queue of each reader."""
            for queue in queues:
                self._declare(queue, _ALL, **{"x-max-length": _KEPT})

        self._subscribers += queues
        self._do(declare)

    def publish_to_all(self, body: bytes) -> None:
        """Publish to every subscriber."""
        self.publish(self._exchange, _ALL, body)

    def retire(self, body: bytes) -> None:
        """Remove the queue that is consumed, and publish a last message to every subscriber."""

        def remove_and_tell() -> None:
            """Delete the queue, and send the last word."""
            self._channel.queue_delete(self._queue)
            self._channel.basic_publish(self._exchange, _ALL, body)

        self._retired = True
        self._do(remove_and_tell)

    @property
    def made(self) -> tuple[str, list[str]]:
        """The exchange, and the queues."""
        return self._exchange, [self._queue, *self._subscribers]

    def _prepare(self) -> None:
        if self._opened:
            try:
                channel = self._connection.channel()
                channel.exchange_declare(self._exchange, passive=True)
                channel.queue_declare(self._queue, passive=True)
                return
            except exceptions.ChannelClosedByBroker as error:
                if error.reply_code != _NOT_FOUND or self._retired:
                    raise
            warn(
                f"{_place(self._parameters)}: the broker has lost the job's messages. Was it restarted?",
                RuntimeWarning,
            )
        self._channel = self._connection.channel()
        _remove(self._channel, *self.made)
        self._channel.exchange_declare(self._exchange, "direct", auto_delete=True)
        # Nobody uses this key. It ties the exchange to a queue that is there from the start to the end.
        self._declare(self._queue, "owner")

    def _declare(self, queue: str, key: str, **limits: int) -> None:
        self._channel.queue_declare(queue, durable=True, arguments=self._arguments | limits)
        self._channel.queue_bind(queue, self._exchange, key)

    def _passing(self, error: Exception) -> bool:
        missing = isinstance(error, exceptions.ChannelClosedByBroker) and error.reply_code == _NOT_FOUND
        return super()._passing(error) or (missing and not self._retired)

    def _bereft(self) -> None:
        if self._retired:
            super()._bereft()
        self._drop()
        self._open()


def _close(connection: Any) -> None:
    with contextlib.suppress(*_FOREIGN):  # it is gone, then
        connection.close()


def _place(parameters: pika.ConnectionParameters) -> str:
    return f"RabbitMQ at {parameters.host}:{parameters.port}"


def _parameters(url: str, patience: float) -> pika.ConnectionParameters:
    """Return what a URL says, as RabbitMQ's own URI specification has it; UsageError if it is nonsense."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        # The URL is not shown: what is wrong with it may be what should hide its password.
        raise UsageError(
            "not the URL of a RabbitMQ",
            expected="amqp://USER:PASSWORD@HOST:PORT/VHOST",
            cure="in a user's name or password, write %2F for / and %40 for @",
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    secure = parts.scheme == "amqps"
    known = _TLS_OPTIONS if secure else ()
    if unknown := sorted(options.keys() - set(known)):
        raise UsageError(
            f"no such option of {parts.scheme}://: {', '.join(unknown)}",
            expected=", ".join(known) or f"none; {', '.join(_TLS_OPTIONS)} are for amqps://",
        )
    return pika.ConnectionParameters(
        host=host,
        port=port or (5671 if secure else 5672),
        virtual_host=unquote(parts.path[1:]) or "/",
        credentials=pika.PlainCredentials(
            unquote(parts.username or "guest"), unquote(parts.password or "guest"), erase_on_connect=False
        ),
        ssl_options=pika.SSLOptions(_tls(options), host) if secure else None,
        heartbeat=HEARTBEAT,
        socket_timeout=_CONNECT,
        stack_timeout=2 * _CONNECT,
        blocked_connection_timeout=patience,
        client_properties={"connection_name": "mlless"},
    )


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    verify = options.get("verify", "verify_peer")
    if verify not in ("verify_peer", "verify_none"):
        raise UsageError("no such verify", expected="verify_peer or verify_none", found=verify)
    try:
        context = ssl.create_default_context(cafile=options.get("cacertfile"))
        if "certfile" in options:
            context.load_cert_chain(options["certfile"], options.get("keyfile"))
    except OSError as error:  # ssl's own errors are some, too
        files = ", ".join(options[name] for name in _TLS_OPTIONS[:3] if name in options)
        raise UsageError("cannot use the certificates of the bus", where=files, found=str(error)) from error
    if verify == "verify_none":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _passing(error: Exception) -> bool:
    """Return whether another attempt may well go better: a connection lost or not yet there again."""
    if isinstance(error, exceptions.ConnectionClosedByBroker):
        return error.reply_code in _PASSING
    if isinstance(error, (exceptions.ConnectionBlockedTimeout, ssl.SSLCertVerificationError)):
        return False
    return isinstance(error, _LOST)


def _gone(queue: str) -> Disconnected:
    return Disconnected(
        "what the job had made is gone from the broker",
        where=queue,
        cure="is the job over, or was the broker restarted?",
    )


def _explained(error: Exception, parameters: pika.ConnectionParameters, queue: str = "") -> ChannelError:
    """Return an error of pika as ours."""
    where = _place(parameters)
    user, vhost = parameters.credentials.username, parameters.virtual_host
    code = getattr(error, "reply_code", None)
    if isinstance(error, exceptions.UnroutableError) or code == _NOT_FOUND:
        # A channel is told so, and no connection: the exchange or a queue of the job.
        return _gone(queue)
    if isinstance(error, exceptions.ChannelClosed):
        cure = "the broker's log says more"
        if code == _ACCESS_REFUSED:
            cure = f"this would do: rabbitmqctl set_permissions -p {vhost} {user} '^mlless-.*' '.*' '.*'"
        return ChannelError("the broker refuses", where=where, found=error.reply_text, cure=cure)
    if isinstance(error, exceptions.NackError):
        return ChannelError(
            "the broker did not take a message", where=where, cure="does a policy limit queues?"
        )
    if isinstance(error, exceptions.ConnectionBlockedTimeout):
        return ChannelError(
            f"the broker took no message for {parameters.blocked_connection_timeout:g} s",
            where=where,
            cure="is it short of memory or disk? rabbitmqctl list_alarms",
        )
    if code == _ACCESS_REFUSED or isinstance(
        error, (exceptions.AuthenticationError, exceptions.ProbableAuthenticationError)
    ):
        return ChannelError(
            f"the broker does not let user {user!r} in",
            where=where,
            cure="check user and password in its URL",
        )
    if code == _NOT_ALLOWED or isinstance(error, exceptions.ProbableAccessDeniedError):
        return ChannelError(
            f"no virtual host {vhost!r} for user {user!r}",
            where=where,
            cure="the path of the URL names it: rabbitmqctl list_vhosts, list_permissions",
        )
    if isinstance(error, ssl.SSLError):
        return ChannelError(
            "no secure connection with the broker",
            where=where,
            found=str(error),
            cure="is this its port for TLS? ?cacertfile=FILE names the authority that signed its certificate",
        )
    return ChannelError(
        "no connection with the broker",
        where=where,
        found=str(error) or repr(error),
        cure="is it running, and to be reached from here?",
    )
