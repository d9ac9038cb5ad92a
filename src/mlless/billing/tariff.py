"""A provider's prices as a value, and the tariffs that come with the package.

A tariff is a TOML file. A file like those in ``tariffs/``, named by its path, is a tariff, too. Every entry
says where its figure is from and on which day it was right.
"""

from __future__ import annotations

import math

import msgspec

from mlless.book import Book


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    source: str
    date: str


class FunctionPrice(_Entry, frozen=True, kw_only=True):
    """Functions: dollars per GB-second (GiB of memory) and per million invocations.

    A run is billed in whole units of ``granularity`` seconds, and for ``minimum`` seconds at least.
    """

    gb_second: float
    million_invocations: float = 0.0
    granularity: float = 0.001
    minimum: float = 0.0

    def __post_init__(self) -> None:
        _prices(gb_second=self.gb_second, million_invocations=self.million_invocations, minimum=self.minimum)
        if not 0 < self.granularity < math.inf:
            raise ValueError(f"granularity is to be seconds above 0, not {self.granularity}")


class ServerPrice(_Entry, frozen=True, kw_only=True):
    """A server that runs for as long as the job: dollars an hour, of which a job pays its seconds."""

    name: str
    hour: float

    def __post_init__(self) -> None:
        _prices(hour=self.hour)


class MachinePrice(ServerPrice, frozen=True, kw_only=True):
    """A machine for processes that reach one another, as functions do not: so many run on ``each``."""

    each: int = 1

    def __post_init__(self) -> None:
        _prices(hour=self.hour)
        if self.each < 1:
            raise ValueError(f"each machine is to have processes from 1, not {self.each}")


class RequestPrice(_Entry, frozen=True, kw_only=True):
    """Requests to the object store: dollars per thousand that read, and that write."""

    thousand_reads: float
    thousand_writes: float

    def __post_init__(self) -> None:
        _prices(thousand_reads=self.thousand_reads, thousand_writes=self.thousand_writes)


class TrafficPrice(_Entry, frozen=True, kw_only=True):
    """Traffic: dollars per GB (1e9 bytes) read from the object store, and of updates published and read.

    It is free where functions, store and servers are side by side; between zones or regions it may cost more
    than everything else.
    """

    gb_fetched: float = 0.0
    gb_exchanged: float = 0.0

    def __post_init__(self) -> None:
        _prices(gb_fetched=self.gb_fetched, gb_exchanged=self.gb_exchanged)


class Tariff(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All prices that a job is billed by."""

    name: str
    note: str
    function: FunctionPrice
    servers: tuple[ServerPrice, ...] = ()
    machine: MachinePrice | None = None
    requests: RequestPrice | None = None
    traffic: TrafficPrice | None = None

    def __post_init__(self) -> None:
        names = [server.name for server in self.servers]
        if len(set(names)) < len(names):
            raise ValueError("two servers of one name")

    def of_machines(self, processes: int) -> Tariff:
        """Return the tariff of a job whose functions are processes on machines, which alone cost anything."""
        assert self.machine is not None
        machine, count = self.machine, -(-processes // self.machine.each)
        free = msgspec.structs.replace(self.function, gb_second=0.0, million_invocations=0.0)
        machines = ServerPrice(
            name=f"{count} x {machine.name}",
            hour=count * machine.hour,
            source=machine.source,
            date=machine.date,
        )
        return msgspec.structs.replace(self, function=free, servers=(*self.servers, machines))


def _prices(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is to be a number from 0, not {value}")


TARIFFS = Book("tariff", "mlless.billing", "tariffs")


def load_tariff(name: str) -> Tariff:
    """Return a tariff of the package by its name, or the one in the TOML file ``name``."""
    return TARIFFS.read(name, Tariff, "aws-lambda-x86")
