"""Where a job runs: the servers its functions meet at, and the runtime that starts them.

What a job trains (``job.JobSpec``) knows nothing of it: the same job runs anywhere. An address is a
URL or, of the embedded channel, a folder.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from mlless.errors import UsageError, hidden
from mlless.options import Option

EMBEDDED = "embedded"
PATIENCE = 60.0  # seconds
_WHERE = "Where it runs"
_REDIS = ("redis", "rediss", "unix")
_RABBITMQ = ("amqp", "amqps")
TOOLS = ("mlflow", "tensorboard", "wandb")
_SECRETS = ("username", "password", "ssl_password")  # options of an address
_BETWEEN = re.compile(rf"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://|{EMBEDDED}\Z)")


def scheme(address: str) -> str:
    """Return the kind of an address: the scheme of a URL, ``embedded`` for a folder."""
    return urlsplit(address).scheme if "://" in address else EMBEDDED


def bare(address: str) -> str:
    """Return an address without user and password, fit to be written to a file."""
    head, mark, rest = address.partition("://")
    if not mark:
        return address
    place, _, query = rest.rpartition("@")[2].partition("?")
    kept = [option for option in query.split("&") if option.partition("=")[0].lower() not in _SECRETS]
    return f"{head}://{place}" + (f"?{'&'.join(kept)}" if any(kept) else "")


def is_redis(address: str) -> bool:
    """Return whether a Redis or Valkey is meant."""
    return scheme(address) in _REDIS


def is_rabbitmq(address: str) -> bool:
    """Return whether a RabbitMQ is meant."""
    return scheme(address) in _RABBITMQ


class Addresses(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the functions of one job meet. ``job`` names it: all it makes has the name as its prefix.

    ``patience`` is for how many seconds a server that was reached before may be away.
    """

    job: str
    store: tuple[str, ...]
    bus: str
    patience: float = 0.0

    def bare(self) -> Addresses:
        """Return them without credentials."""
        store = tuple(map(bare, self.store))
        return msgspec.structs.replace(self, store=store, bus=bare(self.bus))

    def __repr__(self) -> str:
        return f"Addresses({self.job}, {', '.join(map(hidden, self.store))}; {hidden(self.bus)})"


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a user wants a job to run: a store and a bus for its functions to meet at, and their runtime."""

    store: Annotated[
        str,
        Option(
            _WHERE,
            "Redis or Valkey for updates, as in redis://HOST:6379. embedded: files of this machine.",
            metavar="URL",
        ),
    ] = EMBEDDED
    bus: Annotated[
        str | None,
        Option(
            _WHERE,
            "Redis or RabbitMQ for messages, as in amqp://HOST.",
            "the first server of the store",
            metavar="URL",
        ),
    ] = None
    patience_channel: Annotated[
        float | None,
        Option(
            _WHERE,
            "How long a Redis or RabbitMQ that was reached before may be away.",
            f"{PATIENCE:g}",
            metavar="SECONDS",
        ),
    ] = None
    runtime: Annotated[
        Literal["processes", "lithops"],
        Option(_WHERE, "Processes of this machine, or functions of a cloud as Lithops is configured."),
    ] = "processes"
    memory: Annotated[
        int | None,
        Option(
            _WHERE,
            "Memory of a function. A process of this machine that takes more is ended.",
            "what the runtime gives",
            metavar="MB",
        ),
    ] = None
    time_limit: Annotated[
        int | None,
        Option(
            _WHERE,
            "Time after which a function, or a process of this machine, is ended.",
            "what the runtime gives",
            metavar="SECONDS",
        ),
    ] = None
    log_to: Annotated[
        str | None,
        Option(
            "Who follows it",
            "Passes steps on to other tools: mlflow:URI, tensorboard:FOLDER, wandb:PROJECT, or several.",
            metavar="TOOL:PLACE",
        ),
    ] = None

    def __post_init__(self) -> None:
        _check(self.servers, "a store", _REDIS)
        _check((self.meeting,), "a bus", _REDIS + _RABBITMQ)
        self._check_patience()
        self._check_trackers()
        for what, value in (("memory", self.memory), ("time limit", self.time_limit)):
            if value is not None and value < 1:
                raise UsageError(f"no such {what}", expected="a number from 1", found=str(value))
        if self.runtime != "processes":
            for what, address in (("store", self.servers[0]), ("bus", self.meeting)):
                if address == EMBEDDED:
                    raise UsageError(
                        f"the embedded {what} reaches no further than this machine",
                        expected=f"a {what} that functions of the runtime {self.runtime} can reach",
                        found=EMBEDDED,
                        cure=f"name a server: --{what} redis://HOST:6379",
                    )

    def _check_patience(self) -> None:
        if self.patience_channel is None:
            return
        if not (math.isfinite(self.patience_channel) and self.patience_channel > 0):
            raise UsageError(
                "no such patience with channels",
                expected="seconds above 0",
                found=f"{self.patience_channel:g}",
            )
        if not self.patience:
            raise UsageError(
                "embedded channels are never away, so that no patience with them is to be set",
                cure="leave it out, or name a server: --store redis://HOST:6379",
            )

    def _check_trackers(self) -> None:
        for tool, place in self.trackers:
            if tool not in TOOLS:
                raise UsageError(
                    "not a tool that a training can be passed on to",
                    expected=", ".join(TOOLS),
                    found=hidden(tool),
                    cure="--log-to mlflow:URI, tensorboard:FOLDER or wandb:PROJECT",
                )
            if tool == "tensorboard" and not place:
                raise UsageError(
                    "no folder for TensorBoard", found=tool, cure="name it: --log-to tensorboard:FOLDER"
                )

    def __repr__(self) -> str:
        return f"Deployment({', '.join(map(hidden, self.servers))}; {hidden(self.meeting)}; {self.runtime})"

    def bare(self) -> Deployment:
        """Return it without credentials."""
        bus = None if self.bus is None else bare(self.bus)
        log_to = None if self.log_to is None else " ".join(map(bare, self.log_to.split()))
        store = ",".join(map(bare, self.servers))
        return msgspec.structs.replace(self, store=store, bus=bus, log_to=log_to)

    @property
    def is_plain(self) -> bool:
        """Whether nothing is asked of where a job runs: who follows it makes no difference."""
        return msgspec.structs.replace(self, log_to=None) == Deployment()

    @property
    def trackers(self) -> tuple[tuple[str, str], ...]:
        """The tools that steps are passed on to, and the place in each, which may be empty."""
        parts = (one.partition(":") for one in (self.log_to or "").split())
        return tuple((tool, place) for tool, _, place in parts)

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses of the store."""
        # A new one begins only where its scheme does: a comma may well be in a password.
        return tuple(filter(None, _BETWEEN.split(self.store.strip(" ,\t\n")))) or (EMBEDDED,)

    @property
    def meeting(self) -> str:
        """The address of the bus."""
        return self.bus or self.servers[0]

    def addresses(self, job: str, folder: str | None) -> Addresses:
        """Return where the job of this name meets; ``folder`` is that of the embedded channel."""

        def place(address: str) -> str:
            """Return an address, that of the embedded channel as its folder."""
            if address != EMBEDDED:
                return address
            assert folder is not None, "an embedded channel without a folder"
            return folder

        return Addresses(job, tuple(map(place, self.servers)), place(self.meeting), self.patience)

    @property
    def patience(self) -> float:
        """Seconds for which a server may be away; 0 where there is none."""
        served = {*self.servers, self.meeting} != {EMBEDDED}
        return (self.patience_channel or PATIENCE) if served else 0.0

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
                # Without a scheme there is no telling what of it is a password.
                found=hidden(address) if "@" not in address or "://" in address else "no scheme before the @",
            )
        credentials, _, place = address.rpartition("@")
        if re.search(r"\s", address) or "," in place or ("," in credentials and "@" in credentials):
            raise UsageError(
                f"a blank or a comma in the address of {what}",
                found=hidden(address),
                cure="give each server its scheme; in a password write %20 for a blank",
            )
        if scheme(address) not in ("unix", EMBEDDED) and "@" in urlsplit(address).path:
            raise UsageError(
                f"the password in the address of {what} is not percent-encoded",
                found=hidden(address),
                cure="write %40 for @, %2F for /, %3A for :",
            )
    if len(addresses) > 1 and EMBEDDED in addresses:
        raise UsageError(f"{what} is embedded or on servers, not both")
