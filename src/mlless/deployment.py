"""Where a job runs: the servers its functions meet at, and the runtime that starts them.

What a job trains (``job.JobSpec``) knows nothing of it: the same job runs anywhere. An address is a
URL or, of the embedded channel, a folder.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from mlless.errors import UsageError

EMBEDDED = "embedded"
_REDIS = ("redis", "rediss", "unix")
_RABBITMQ = ("amqp", "amqps")
# Rather too much than too little: a password may hold what would have had to be escaped.
_SECRET = re.compile(r"(?<=://)([^:,\s]*):([^,\s]*)@|((?:password|secret|token|key)=)[^&,\s]*", re.IGNORECASE)


def hidden(text: str) -> str:
    """Return ``text`` with the passwords of the URLs in it replaced, fit to be shown or logged."""
    return _SECRET.sub(lambda m: f"{m[3]}***" if m[3] else f"{m[1]}:***@", text)


def scheme(address: str) -> str:
    """Return the kind of an address: the scheme of a URL, ``embedded`` for a folder."""
    return urlsplit(address).scheme if "://" in address else EMBEDDED


def is_redis(address: str) -> bool:
    """Return whether a Redis or Valkey is meant."""
    return scheme(address) in _REDIS


def is_rabbitmq(address: str) -> bool:
    """Return whether a RabbitMQ is meant."""
    return scheme(address) in _RABBITMQ


class Addresses(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the functions of one job meet. ``job`` names it: all it makes has the name as its prefix."""

    job: str
    store: tuple[str, ...]
    bus: str

    def __repr__(self) -> str:
        return f"Addresses({self.job}, {', '.join(map(hidden, self.store))}; {hidden(self.bus)})"


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a user asks for.

    Attributes
    ----------
    store
        ``embedded``, or the URLs of one or more Redis or Valkey servers, separated by commas or blanks.
    bus
        ``embedded``, or the URL of a Redis or RabbitMQ. By default the first server of the store.
    runtime
        ``processes`` of this machine, or ``lithops``, by the configuration that Lithops itself finds.
    memory
        MB that a function gets; None leaves it to the runtime.
    time_limit
        Seconds after which a runtime ends a function; None leaves it to the runtime.
    """

    store: str = EMBEDDED
    bus: str | None = None
    runtime: Literal["processes", "lithops"] = "processes"
    memory: int | None = None
    time_limit: int | None = None

    def __post_init__(self) -> None:
        if self.runtime not in ("processes", "lithops"):  # from Python anything can be asked for
            raise UsageError("no such runtime", expected="processes or lithops", found=str(self.runtime))
        _check(self.servers, "a store", _REDIS)
        _check((self.meeting,), "a bus", _REDIS + _RABBITMQ)
        for what, value in (("memory", self.memory), ("time limit", self.time_limit)):
            if value is not None and value < 1:
                raise UsageError(f"no such {what}", expected="a number from 1", found=str(value))
            if value is not None and self.runtime == "processes":
                raise UsageError(
                    f"processes of this machine have no {what} to be set",
                    cure="leave it out, or --runtime lithops",
                )
        if self.runtime != "processes":
            for what, address in (("store", self.servers[0]), ("bus", self.meeting)):
                if address == EMBEDDED:
                    raise UsageError(
                        f"the embedded {what} reaches no further than this machine",
                        expected=f"a {what} that functions of the runtime {self.runtime} can reach",
                        found=EMBEDDED,
                        cure=f"name a server: --{what} redis://HOST:6379",
                    )

    def __repr__(self) -> str:
        return f"Deployment({', '.join(map(hidden, self.servers))}; {hidden(self.meeting)}; {self.runtime})"

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses of the store."""
        return tuple(self.store.replace(",", " ").split()) or (EMBEDDED,)

    @property
    def meeting(self) -> str:
        """The address of the bus."""
        return self.bus or self.servers[0]

    def addresses(self, job: str, folder: str | None) -> Addresses:
        """Return where the job of this name meets; ``folder`` is that of the embedded channel."""

        def place(address: str) -> str:
            if address != EMBEDDED:
                return address
            assert folder is not None, "an embedded channel without a folder"
            return folder

        return Addresses(job, tuple(map(place, self.servers)), place(self.meeting))

    @property
    def embedded(self) -> bool:
        """Whether a folder of this machine is needed."""
        return EMBEDDED in (*self.servers, self.meeting)


def _check(addresses: tuple[str, ...], what: str, schemes: tuple[str, ...]) -> None:
    for address in addresses:
        if address != EMBEDDED and scheme(address) not in schemes:
            raise UsageError(
                f"not the address of {what}",
                expected=f"{EMBEDDED}, or a URL with {', '.join(schemes)}",
                # A password with a comma or a blank in it has been taken apart; this may be the rest of it.
                found=hidden(address) if "@" not in address or "://" in address else "a part of a URL",
                cure="percent-encode special characters in user and password" if "@" in address else None,
            )
        if scheme(address) not in ("unix", EMBEDDED) and "@" in urlsplit(address).path:
            raise UsageError(
                f"the password in the address of {what} is not percent-encoded",
                found=hidden(address),
                cure="write %40 for @, %2F for /, %3A for :",
            )
    if len(addresses) > 1 and EMBEDDED in addresses:
        raise UsageError(f"{what} is embedded or on servers, not both")
