"""A virtual world as a value: its hosts, what runs on them, and what things take there.

A world is a TOML file; whoever wants another one writes a file like those in ``worlds/`` and names its path.
Every table says where its figures are from and on which day they were right. Times are in seconds, sizes in
bytes, memory in MB.
"""

from __future__ import annotations

import math
from typing import TypeVar

import msgspec

from mlless.book import Book

_S = TypeVar("_S", bound=msgspec.Struct)
WORLDS = Book("world", "mlless.simulation", "worlds")
_RATES = Book("set of rates", "mlless.simulation", "rates")


def _from_zero(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 <= value < math.inf:
            raise ValueError(f"{name} is to be a number from 0, not {value}")


def _above_zero(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name} is to be a number above 0, not {value}")


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    source: str
    date: str


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Host(_Entry, frozen=True, kw_only=True):
    """A kind of machine: its cores, and what its network card carries each way a second."""

    cores: float
    network: float

    def __post_init__(self) -> None:
        _above_zero(cores=self.cores, network=self.network)


class Start(_Value, frozen=True, kw_only=True):
    """From a function's launch until it runs: two of three are within a ``spread`` of the ``median``."""

    median: float
    spread: float = 1.0

    def __post_init__(self) -> None:
        _from_zero(median=self.median)
        if not 1.0 <= self.spread < math.inf:
            raise ValueError(f"spread is to be a factor from 1, not {self.spread}")


class Rate(_Value, frozen=True, kw_only=True):
    """Seconds of a core: for each ``call``, and for each ``unit`` of what it is about."""

    call: float = 0.0
    unit: float = 0.0

    def __post_init__(self) -> None:
        _from_zero(call=self.call, unit=self.unit)

    def __call__(self, units: float) -> float:
        """Return what so many units take in one call."""
        return self.call + self.unit * units


class Functions(_Entry, frozen=True, kw_only=True):
    """Where functions run: each ``alone`` on a host of its own, or all of them on one.

    One has ``memory``, unless a job asks for another size, and with less than ``whole_core`` a part of a core
    in proportion. Its core is so many times as quick (``speed``) as the one that the rates were measured on.
    A start is ``cold`` unless a function has ended there within ``idle`` seconds: then it is ``warm``.
    """

    host: str
    alone: bool = True
    memory: int | None = None
    whole_core: int | None = None
    speed: float = 1.0
    cold: Start
    warm: Start
    idle: float = 0.0

    def __post_init__(self) -> None:
        _above_zero(speed=self.speed)
        _from_zero(idle=self.idle)
        for name, value in (("memory", self.memory), ("whole_core", self.whole_core)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is to be MB from 1, not {value}")
        if self.whole_core is not None and self.memory is None:
            raise ValueError("with a whole_core there has to be a memory")


class Store(_Entry, frozen=True, kw_only=True):
    """The key-value store: the way to it and back, and what a request and its bytes take of cores.

    That is at the ``client``, which asks, and at the ``server``, which has one thread.
    """

    host: str
    latency: float
    client: Rate = Rate()
    server: Rate = Rate()

    def __post_init__(self) -> None:
        _from_zero(latency=self.latency)


class Bus(_Entry, frozen=True, kw_only=True):
    """The message bus: a message's way, what it takes to send or take in one, and what the server takes.

    Its server is beside the key-value store.
    """

    way: float
    client: Rate = Rate()
    server: Rate = Rate()

    def __post_init__(self) -> None:
        _from_zero(way=self.way)


class ObjectStore(_Entry, frozen=True, kw_only=True):
    """The object store: seconds to a request's first byte, and bytes a second of one request."""

    first_byte: float
    rate: float

    def __post_init__(self) -> None:
        _from_zero(first_byte=self.first_byte)
        _above_zero(rate=self.rate)


class Machines(_Entry, frozen=True, kw_only=True):
    """Machines that reach one another, for systems whose processes do: so many run on ``each``.

    A process has a core of its own there, so many times as quick as that of the rates. In a ring one process
    of a machine sends to another machine, and so has its network card for itself.
    """

    host: str
    each: int = 1
    speed: float = 1.0
    latency: float
    start: Start

    def __post_init__(self) -> None:
        _above_zero(each=self.each, speed=self.speed)
        _from_zero(latency=self.latency)


class Supervisor(_Entry, frozen=True, kw_only=True):
    """Who leads: where, what it does for each message that it hears, how long a tuner takes to decide.

    ``function`` says that it is billed as one.
    """

    host: str
    function: bool = False
    hears: Rate = Rate()
    decides: float = 0.0

    def __post_init__(self) -> None:
        _from_zero(decides=self.decides)


class Model(_Value, frozen=True, kw_only=True):
    """What the work on a model takes: on a row of so large a ``size``, and on a byte of updates.

    The size of a row is the number of factors, or of a click's bytes in a file. Rows of another size take as
    much more or less. ``cut`` is to encode an update in pieces, ``sum`` to add pieces for others.
    ``gradient`` is what a worker does with a mini-batch that has no more of the model than its rows need.
    ``pull`` and ``push`` are what a parameter server does for a byte of a request and its answer.
    """

    size: float
    assemble: Rate
    compute: Rate
    evaluate: Rate
    encode: Rate
    cut: Rate
    sum: Rate
    merge: Rate
    gradient: Rate
    pull: Rate
    push: Rate

    def __post_init__(self) -> None:
        _above_zero(size=self.size)


class Rates(_Entry, frozen=True, kw_only=True):
    """What work takes of a core: ``fetch`` and ``keep`` a byte, a ``step`` all the rest of it.

    Two are of functions that have nothing but an object store. ``model`` is to take a byte of a model apart
    or put it together, and ``mean`` a byte of those of which the mean is taken.
    """

    fetch: Rate
    keep: Rate
    step: Rate
    model: Rate
    mean: Rate
    mf: Model
    lr: Model


class TorchModel(_Value, frozen=True, kw_only=True):
    """What PyTorch takes for a mini-batch's rows of so large a ``size``, and for whole tables.

    Gradients are ``averaged`` and the optimizer moves ``dense`` tables; or steps are ``matched`` and whole
    tables ``added``; or touched rows are ``gathered``.
    """

    size: float
    averaged: Rate
    dense: Rate
    matched: Rate
    added: Rate
    gathered: Rate


class TorchRates(_Entry, frozen=True, kw_only=True):
    """What PyTorch takes of a core, for both models."""

    mf: TorchModel
    lr: TorchModel


class World(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that is to be known of a world; without ``rates`` and ``pytorch`` those of the package hold."""

    name: str
    note: str
    hosts: dict[str, Host]
    functions: Functions
    store: Store
    bus: Bus
    objects: ObjectStore
    supervisor: Supervisor
    machines: Machines | None = None
    rates: Rates | None = None
    pytorch: TorchRates | None = None

    def __post_init__(self) -> None:
        for what, host in (
            ("functions", self.functions.host),
            ("store", self.store.host),
            ("supervisor", self.supervisor.host),
            ("machines", self.machines.host if self.machines else self.functions.host),
        ):
            if host not in self.hosts:
                raise ValueError(f"{what} are on the host {host!r}, and hosts are {', '.join(self.hosts)}")
        if self.functions.alone and self.functions.host in (self.store.host, self.supervisor.host):
            raise ValueError(f"functions are alone on hosts {self.functions.host!r}, where others are, too")

    def slowed(self, speed: float) -> World:
        """Return a world whose networks carry so many times as much, and whose cores do, of rows and bytes.

        What is to be done once in a call, and every way, takes what it took.
        """
        hosts = {
            name: msgspec.structs.replace(host, network=host.network * speed)
            for name, host in self.hosts.items()
        }
        objects = msgspec.structs.replace(self.objects, rate=self.objects.rate * speed)
        return msgspec.structs.replace(_slower(self, 1 / speed), hosts=hosts, objects=objects)

    def on_machines(self) -> World:
        """Return the world of a job whose functions are processes on the machines, which it has."""
        there = self.machines
        assert there is not None
        functions = Functions(
            host=there.host, speed=there.speed, cold=there.start, warm=there.start,
            source=there.source, date=there.date,
        )  # fmt: skip
        supervisor = msgspec.structs.replace(self.supervisor, function=False)
        return msgspec.structs.replace(self, functions=functions, supervisor=supervisor)


def _slower(value: _S, times: float) -> _S:
    """Return a value in which a unit of every rate takes so many times as long."""
    if isinstance(value, Rate):
        return msgspec.structs.replace(value, unit=value.unit * times)
    inner = {name: getattr(value, name) for name in value.__struct_fields__}
    changed = {name: _slower(one, times) for name, one in inner.items() if isinstance(one, msgspec.Struct)}
    return msgspec.structs.replace(value, **changed)


def load_world(name: str) -> World:
    """Return a world of the package by its name, or the one in the TOML file ``name``."""
    world = WORLDS.read(name, World, "lan")
    return msgspec.structs.replace(
        world, rates=world.rates or usual_rates(), pytorch=world.pytorch or usual_torch()
    )


def usual_rates() -> Rates:
    """Return the rates of the package."""
    return msgspec.toml.decode(_RATES.text("measured"), type=Rates)


def usual_torch() -> TorchRates:
    """Return the rates of PyTorch in the package."""
    return msgspec.toml.decode(_RATES.text("pytorch"), type=TorchRates)
