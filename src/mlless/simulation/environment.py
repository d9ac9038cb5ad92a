"""The conditions of a job in a world: its work on cores, its bytes through network cards."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Literal

from mlless.data.dataset import Dataset
from mlless.job import Factorization, JobSpec
from mlless.messages import FunctionId
from mlless.simulation.conditions import Spells
from mlless.simulation.faults import SUPERVISOR
from mlless.simulation.sharing import Spell
from mlless.simulation.world import Host, Model, Rate, TorchModel, World, usual_rates, usual_torch

_SERVER = "store's thread"
_ROWS = (
    "assemble",
    "compute",
    "evaluate",
    "gradient",
    "averaged",
    "matched",
    "gathered",
)  # what is about so many rows, not bytes


class Environment:
    """The conditions of one job; functions have so much ``memory``, or what is usual in the world.

    A link is used only by what may meet on it: who is alone on a host has nobody to share with.
    """

    def __init__(self, world: World, spec: JobSpec, dataset: Dataset, memory: int | None = None) -> None:
        self._world, self._seed = world, spec.seed
        self._rates = world.rates or usual_rates()
        self.memory = memory or world.functions.memory
        kind: Literal["mf", "lr"] = "mf" if isinstance(spec.model, Factorization) else "lr"
        self._model: Model = getattr(self._rates, kind)
        self._torch: TorchModel = getattr(world.pytorch or usual_torch(), kind)
        self._size = _size(spec, dataset)
        placed = [
            world.store.host,
            world.supervisor.host,
            *([] if world.functions.alone else 2 * [world.functions.host]),
        ]
        self.led_by_function = world.supervisor.function
        self._shared = {host for host in placed if placed.count(host) > 1}
        self._free: list[float] = []  # since when what functions ran in is idle

    def capacity(self, link: str) -> float:
        """Return what a link carries a second."""
        if link == _SERVER:
            return 1.0
        host, _, what = link.rpartition(" ")
        return self._world.hosts[host].cores if what == "cores" else self._world.hosts[host].network

    def working(self, who: FunctionId, activity: str, units: int) -> Spells:
        """Return what an activity takes of the role's core."""
        rates = self._rates
        for model in (self._model, self._torch):
            if activity in model.__struct_fields__:
                rate: Rate = getattr(model, activity)
                return self._busy(who, rate(units * self._size / model.size if activity in _ROWS else units))
        found: dict[str, Rate] = {
            "fetch": rates.fetch, "keep": rates.keep, "model": rates.model, "mean": rates.mean,
            "step": rates.step,
        }  # fmt: skip
        if activity not in found:
            raise ValueError(f"what {activity} takes is not known")
        return self._busy(who, found[activity](units)) if units else ()

    def at_store(self, who: FunctionId, sent: int, received: int) -> Spells:
        """Return a request's way: out of the role, through the server's thread, and both cards."""
        store, size = self._world.store, sent + received
        yield from self._busy(who, store.client(size))
        yield Spell(store.latency)
        yield from self._served(store.server(size))
        yield from self._moved(who, sent, received)

    def deleting(self, who: FunctionId) -> Spells:
        """Return the way of a request without bytes."""
        return self.at_store(who, 0, 0)

    def asking(self, who: FunctionId, sent: int) -> Spells:
        """Return a request's way to a server in the place of the store."""
        yield from self._busy(who, self._world.store.client(sent))
        yield Spell(self._world.store.latency)
        yield from self._moved(who, sent, 0)

    def answering(self, who: FunctionId, activity: str, sent: int, received: int) -> Spells:
        """Return the work of the server's thread, and the answer's way back."""
        rate: Rate = getattr(self._model, activity)
        yield from self._served(self._world.store.server(0) + rate(sent + received))
        yield from self._moved(who, 0, received)
        yield from self._busy(who, self._world.store.client.unit * received)

    def around(self, who: FunctionId, workers: int, size: int) -> Spells:
        """Return the rounds of a ring, in each of which all send at once; bytes go between machines."""
        machines = self._world.machines
        assert machines is not None, "nobody else has a ring"
        yield Spell(2 * (workers - 1) * machines.latency)
        if workers > machines.each:
            yield Spell(size, self._host_of(who).network)

    def at_objects(self, who: FunctionId, sent: int, received: int, at_once: int) -> Spells:
        """Return a request's way; of so many ``at_once``, which take as long together."""
        objects, host = self._world.objects, self._host_of(who)
        yield Spell(objects.first_byte / at_once)
        most = min(objects.rate * at_once, host.network)
        yield from self._links(who, most, sent, "out")
        yield from self._links(who, most, received, "in")

    def sending(self, who: FunctionId) -> Spells:
        """Return what it takes to send a message: at the role's core, and half of the server's part."""
        bus = self._world.bus
        yield from self._busy(who, bus.client(0))
        yield from self._served(bus.server(0) / 2)

    def handing(self) -> Spells:
        """Return the other half of the server's part, which it does for each who is to have the message."""
        return self._served(self._world.bus.server(0) / 2)

    def hearing(self, who: FunctionId) -> Spells:
        """Return what it takes to take in a message, and the supervisor to think about it."""
        seconds = self._world.bus.client(0)
        if who == SUPERVISOR:
            seconds += self._world.supervisor.hears(0)
        return self._busy(who, seconds)

    def on_its_way(self, size: int) -> float:
        """Return a message's way; it is too small for a card to notice."""
        return self._world.bus.way

    def starting(self, who: FunctionId, now: float) -> float:
        """Return a start, drawn for this function; a warm one takes the place that was idle last."""
        functions = self._world.functions
        idle = [since for since in self._free if now - functions.idle <= since <= now]
        if idle:
            self._free.remove(max(idle))
        start = functions.warm if idle else functions.cold
        dice = random.Random(f"the start of {who} for {self._seed}")
        return start.median * math.exp(dice.gauss(0.0, 1.0) * math.log(start.spread))

    def over(self, who: FunctionId, now: float) -> None:
        """Take in that what a function ran in is idle."""
        self._free.append(now)

    def deciding(self) -> float:
        """Return what a decision of the tuner takes."""
        return self._world.supervisor.decides

    def _host_of(self, who: FunctionId) -> Host:
        return self._world.hosts[self._place(who)]

    def _place(self, who: FunctionId) -> str:
        return self._world.supervisor.host if who == SUPERVISOR else self._world.functions.host

    def _busy(self, who: FunctionId, seconds: float) -> Spells:
        """Return so many seconds of a role's core, which may have to be shared."""
        place, functions = self._place(who), self._world.functions
        most = min(1.0, self._world.hosts[place].cores)
        if who != SUPERVISOR:
            seconds /= functions.speed
            if functions.whole_core is not None and self.memory is not None:
                most = min(most, self.memory / functions.whole_core)
        return (Spell(seconds, most, (f"{place} cores",) if place in self._shared else (), busy=True),)

    def _served(self, seconds: float) -> Spells:
        place = self._world.store.host
        links = (f"{place} cores", _SERVER) if place in self._shared else (_SERVER,)
        return (Spell(seconds, min(1.0, self._world.hosts[place].cores), links),)

    def _moved(self, who: FunctionId, sent: int, received: int) -> Iterator[Spell]:
        """Yield the way of bytes between a role and the store; none if both are on one host."""
        here, there = self._place(who), self._world.store.host
        if here == there:
            return
        most = min(self._world.hosts[here].network, self._world.hosts[there].network)
        for size, away, back in ((sent, "out", "in"), (received, "in", "out")):
            for spell in self._links(who, most, size, away):
                yield spell._replace(links=(*spell.links, f"{there} {back}"))

    def _links(self, who: FunctionId, most: float, size: int, way: str) -> Iterator[Spell]:
        place = self._place(who)
        if size:
            yield Spell(size, most, (f"{place} {way}",) if place in self._shared else ())


def _size(spec: JobSpec, dataset: Dataset) -> float:
    """Return the size of a row: a model's factors, or a click's bytes."""
    if isinstance(spec.model, Factorization):
        return spec.model.factors
    train = dataset.manifest.train
    return sum(file.bytes for file in train) / max(1, sum(file.rows for file in train))
