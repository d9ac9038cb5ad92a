"""Fits a world to this machine, and writes it as a file for ``mlless compare --world FILE``.

    python benchmarks/fit_world.py this-machine.toml [--store redis://127.0.0.1:6379] [--ratings DATASET]

What work takes is measured in jobs on generated data, by the real roles one at a time. It is the CPU time of
each role between two things that it says to its clock or to a port. So a rate holds all of Python, too. What
store and bus take is measured at the server named: CPU of who asks, and of the server. Both are measured
while all cores are at it, for in a job they are. Functions, servers and the supervisor share the cores of one
host.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import redis

import mlless
from mlless.channels.opening import open_hub, open_link, open_objects, open_store
from mlless.data.dataset import open_dataset
from mlless.data.synthetic import write_clicks, write_ratings
from mlless.deployment import Addresses, Deployment
from mlless.locations import place_of
from mlless.messages import PROTOCOL, Commit, FunctionId, Hello, Plan
from mlless.recipes import job_of
from mlless.runtimes.ports import Ended
from mlless.session import open_session
from mlless.simulation.conditions import Durations, Spells
from mlless.simulation.faults import SUPERVISOR
from mlless.simulation.jobs import simulate
from mlless.turns import SYSTEMS
from mlless.wishes import Wishes

ME: FunctionId = (0, 0)
HELLO = Hello(*ME, 1, PROTOCOL, "0")
CORES = len(os.sched_getaffinity(0))
Samples = dict[str, list[tuple[float, float]]]  # units and seconds, by activity
ACTIVITIES = ("assemble", "compute", "evaluate", "encode", "cut", "sum", "merge")
OTHERS, THEIRS = (
    ("cirrus", "pywren"),
    ("gradient", "pull", "push", "model", "mean"),
)  # systems, and what they alone do
PATTERNS = ("broadcast", "allreduce", "scatter")
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
SIZES = (0, 1_000, 30_000, 100_000, 300_000, 1_000_000)  # of values in the store


class Measuring(Durations):
    """Conditions that take no time, and note the CPU time of what roles do between two of their calls."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "samples", defaultdict(list))
        object.__setattr__(self, "_here", threading.local())
        object.__setattr__(self, "led", [0, 0.0])

    def _gap(self) -> float:
        now = time.thread_time()
        gap, self._here.mark = now - getattr(self._here, "mark", now), now
        return gap

    def _rest(self, who: FunctionId) -> Spells:
        gap = self._gap()
        if who == SUPERVISOR:
            self.led[1] += gap
        else:
            self._here.rest = getattr(self._here, "rest", 0.0) + gap
        self._here.mark = time.thread_time()
        return ()

    def working(self, who: FunctionId, activity: str, units: int) -> Spells:
        """Note what an activity took."""
        gap = self._gap()
        if activity == "step":
            gap += getattr(self._here, "rest", 0.0)
            self._here.rest = 0.0
        if units:
            self.samples[activity].append((units, gap))
        self._here.mark = time.thread_time()
        return ()

    def at_store(self, who: FunctionId, sent: int, received: int) -> Spells:
        """Note what was done before a request."""
        return self._rest(who)

    def at_objects(self, who: FunctionId, sent: int, received: int, at_once: int) -> Spells:
        """Note what was done before a request to the object store."""
        return self._rest(who)

    def asking(self, who: FunctionId, sent: int) -> Spells:
        """Note what was done before a request to a parameter server."""
        return self._rest(who)

    def answering(self, who: FunctionId, activity: str, sent: int, received: int) -> Spells:
        """Note what the server did, which is a part of the thread that asks."""
        return self.working(who, activity, sent + received)

    def sending(self, who: FunctionId) -> Spells:
        """Note what was done before a message."""
        return self._rest(who)

    def hearing(self, who: FunctionId) -> Spells:
        """Note what was done before a message was heard."""
        if who == SUPERVISOR:
            self.led[0] += 1
        return self._rest(who)


def line(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return seconds a call and a unit, by least squares without the slowest tenth, neither below zero."""
    units, seconds = np.array(samples, float).T
    for _ in range(2):
        design = np.stack([np.ones_like(units), units], axis=1)
        (call, unit), *_ = np.linalg.lstsq(design, seconds, rcond=None)
        if unit < 0.0 or np.ptp(units) == 0.0:
            call, unit = float(np.median(seconds)), 0.0
        elif call < 0.0:
            call, unit = 0.0, float(units @ seconds / (units @ units))
        residual = seconds - call - unit * units
        kept = residual <= np.quantile(residual, 0.9)
        units, seconds = units[kept], seconds[kept]
    return float(call), float(unit)


def share(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return seconds a unit alone, where all samples are of about one size."""
    return 0.0, statistics.median(seconds / units for units, seconds in samples)


def rate(call: float, unit: float) -> str:
    """Return a rate in TOML."""
    return f"{{ call = {call:.3g}, unit = {unit:.3g} }}"


def measured(location: str, sizes: Sequence[int]) -> tuple[Samples, list[float]]:
    """Run jobs of a worker a core with mini-batches of these sizes; return what was measured."""
    dataset, found = open_dataset(location), Measuring()
    for size, pattern in product(sizes, PATTERNS):
        wishes = Wishes(workers=2, batch_size=size, epochs=2, pattern=pattern)
        spec = job_of(wishes, dataset.manifest, dataset.location)
        simulate(spec, dataset, found, longest=1e9, most_turns=1e9, listen=lambda one: one.step >= 100)
    others = Measuring()
    for size, name in product(sizes, OTHERS):
        system = SYSTEMS[name]
        spec = system.plan(Wishes(workers=2, batch_size=size, epochs=2), dataset)
        system.play(spec, dataset, Deployment())(others, lambda one: one.step >= 100)
    return {**found.samples, **{one: others.samples[one] for one in THEIRS}}, found.led


def at_once(location: str, sizes: Sequence[int]) -> tuple[Samples, float]:
    """Measure on all cores at once, for what one is at work on slows the others; seconds a message heard."""
    with ProcessPoolExecutor(CORES) as pool:
        parts = list(pool.map(measured, [location] * CORES, [sizes] * CORES))
    samples = {one: [each for part, _ in parts for each in part[one]] for one in parts[0][0]}
    return samples, sum(led[1] for _, led in parts) / sum(led[0] for _, led in parts)


def model(name: str, size: float, found: Samples) -> str:
    """Return the rates of a model in TOML."""
    lines = [f"[rates.{name}]", f"size = {size:.4g}"]
    named = (*ACTIVITIES, *THEIRS[:3])
    fits = {one: share(found[one]) if one == "evaluate" else line(found[one]) for one in named}
    return "\n".join(lines + [f"{one} = {rate(*fit)}" for one, fit in fits.items()])


def ask(address: str, name: str, size: int, times: int) -> float:
    """Put values of a size into the store and get as many of others, and return the CPU seconds a request."""
    store = open_store(Deployment(store=address).addresses("fit-store", None), 600.0)
    values, ring = [os.urandom(size) for _ in range(8)], 8
    for turn in range(ring):
        store.put(f"{name}-{turn}", [values[turn]])
    begin = time.process_time()
    for turn in range(times):
        store.put(f"{name}-{turn % ring}", [values[turn * 3 % ring]])
        store.get([f"{name}-{turn * 5 % ring}"])
    return (time.process_time() - begin) / (2 * times)


def cpu_of(server: redis.Redis) -> float:
    """Return the CPU seconds that a server has used."""
    told = server.info("cpu")
    return told["used_cpu_user"] + told["used_cpu_sys"]


def store_costs(address: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the rates of who asks the store and of its server.

    A request is measured alone, for who asks waits for the answer; its bytes while two a core ask.
    """
    server = redis.Redis.from_url(address)
    found: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    with ProcessPoolExecutor(2 * CORES) as pool:
        for size, many in [(0, 1), *((size, 2 * CORES) for size in SIZES)]:
            names, times = [f"fit-{n}" for n in range(many)], 600 if size < 200_000 else 100
            same = [[address] * many, names, [size] * many]
            list(pool.map(ask, *same, [1] * many))
            for _ in range(3):
                before = cpu_of(server)
                mine = statistics.mean(pool.map(ask, *same, [times] * many))
                found[size, many].append((mine, (cpu_of(server) - before) / (many * (2 * times + 8))))
    open_store(Deployment(store=address).addresses("fit-store", None), 600.0).destroy()
    alone = np.median(found.pop((0, 1)), axis=0)
    rates = []
    for end in (0, 1):
        _, unit = line([(size, one[end]) for (size, _), some in found.items() for one in some])
        rates.append((float(alone[end]), unit))
    return rates[0], rates[1]


def starts(times: int = 20) -> tuple[float, float]:
    """Return the seconds that the first functions of a job take to do nothing, and that later ones take."""
    begun, seconds = time.perf_counter(), []
    with open_session(Deployment(), "builtins:len", expiry=60.0) as session:
        for number in range(times):
            session.runtime.start({(worker, number): b"nothing" for worker in range(2 * CORES)})
            ended: list[Ended] = []
            while len(ended) < 2 * CORES:
                ended += session.runtime.ended()
                time.sleep(0.001)
            if not number:
                cold = time.perf_counter() - begun
            seconds += [one.seconds or 0.0 for one in ended]
    return cold, statistics.median(seconds)


def objects_costs() -> tuple[float, float]:
    """Return the seconds of a request to an object store that is a folder in memory, and of a byte."""
    samples = []
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        objects = open_objects(place_of(name))
        for size in SIZES:
            data = os.urandom(size)
            begin = time.perf_counter()
            for number in range(50):
                objects.put(f"{number % 8}", data)
                objects.get(f"{number % 8}")
            samples.append((float(size), (time.perf_counter() - begin) / 100))
    return line(samples)


def answer(addresses: Addresses, times: int) -> float:
    """Answer messages of the bus as a worker; return the CPU seconds that they took."""
    link = open_link(addresses, *ME)
    link.send(HELLO)
    begin = time.process_time()
    for _ in range(times):
        link.receive(30.0)
        link.send(HELLO)
    seconds = time.process_time() - begin
    link.close()
    return seconds


def bus_costs(address: str) -> tuple[float, float, float]:
    """Return what a message takes at one end of the bus, at its server, and beyond that on its way."""
    addresses = Deployment(store=address).addresses("fit-bus", None)
    server, hub = redis.Redis.from_url(address), open_hub(addresses, 600.0)
    commit = Commit(step=1, published=(), plans=(Plan(2, (0,), 0, 9, 1),))
    times = 1500
    try:
        hub.admit([ME])
        with ProcessPoolExecutor(1) as pool:
            other = pool.submit(answer, addresses, times)
            assert hub.receive(30.0) is not None
            before, mine, wall = cpu_of(server), time.process_time(), time.perf_counter()
            for _ in range(times):
                hub.broadcast(commit, [ME])
                assert hub.receive(30.0) is not None
            wall, mine = time.perf_counter() - wall, time.process_time() - mine
            its, ends = cpu_of(server) - before, mine + other.result()
    finally:
        hub.destroy()
    messages = 2 * times  # each of which is sent and taken in
    return ends / (2 * messages), its / messages, max(0.0, wall - ends - its) / messages


def main() -> None:
    """Measure, and write the world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--store", default="redis://127.0.0.1:6379")
    parser.add_argument("--ratings", help="a data set, in place of a generated one")
    parser.add_argument("--clicks", help="a data set, in place of a generated one")
    parser.add_argument("--rates-only", action="store_true", help="write the table of rates alone")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.ratings is None:
            write_ratings(folder / "r.csv", users=20_000, items=4_000, rows=400_000)
            mlless.partition(folder / "r.csv", folder / "ratings")
        if asked.clicks is None:
            write_clicks(folder / "c.svm", rows=60_000, features=1 << 18, per_row=39)
            mlless.partition(folder / "c.svm", folder / "clicks")
        ratings = open_dataset(asked.ratings or str(folder / "ratings"))
        clicks = open_dataset(asked.clicks or str(folder / "clicks"))
        mf, mf_heard = at_once(ratings.location, (1_000, 4_000, 12_000))
        lr, lr_heard = at_once(clicks.location, (200, 800, 1_500))
        train = clicks.manifest.train
        size = sum(one.bytes for one in train) / sum(one.rows for one in train)
        fetched = []
        for dataset in (ratings, clicks):
            for one in dataset.manifest.train:
                begin = time.thread_time()
                dataset.read(one)
                fetched.append((one.bytes, time.thread_time() - begin))
    source = f'source = "benchmarks/fit_world.py on {platform.machine()}, {os.cpu_count()} cores"'
    date = f'date = "{datetime.date.today()}"'
    both: Callable[[str], str] = lambda one: rate(*line([*mf[one], *lr[one]]))  # noqa: E731
    rates = "\n".join(
        [
            f"fetch = {rate(*line(fetched))}",
            f"keep = {both('keep')}",
            f"model = {both('model')}",
            f"mean = {both('mean')}",
            f"step = {rate(statistics.median(one for _, one in [*mf['step'], *lr['step']]), 0.0)}",
        ]
    )
    if asked.rates_only:
        told = [source, date, rates, "", model("mf", 20, mf), "", model("lr", size, lr)]
        asked.out.write_text("\n".join(told).replace("[rates.", "[") + "\n")
        return
    client, served = store_costs(asked.store)
    end, its, way = bus_costs(asked.store)
    heard = (mf_heard + lr_heard) / 2
    cold, warm = starts()
    first, byte = objects_costs()
    world = f'''name = "This machine, its store and bus at {asked.store.rpartition("@")[2]}"
note = """
Functions, servers and the supervisor are on one host, and share its cores."""

[hosts.machine]
cores = {CORES}
network = 1e12  # nothing leaves the host
{source}
{date}

[functions]
host = "machine"
alone = false
cold = {{ median = {cold:.3g} }}
warm = {{ median = {warm:.3g} }}
idle = 1e6
{source}
{date}

[store]
host = "machine"
latency = 0  # what there is of it is work
client = {rate(*client)}
server = {rate(*served)}
{source}
{date}

[bus]
way = {way:.3g}
client = {rate(end, 0.0)}
server = {rate(its, 0.0)}
{source}
{date}

[objects]
first_byte = {first:.3g}
rate = {1 / byte:.3g}
{source}
{date}

[supervisor]
host = "machine"
hears = {rate(heard, 0.0)}
decides = 0.5
{source}
{date}

[rates]
{rates}
{source}
{date}

{model("mf", 20, mf)}

{model("lr", size, lr)}
'''
    asked.out.write_text(world)


if __name__ == "__main__":
    main()
