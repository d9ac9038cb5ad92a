"""Checks a deployment end to end: store, bus, data set, functions. Every check does the real thing.

``diagnosis`` puts into words what comes of it. What is put on servers is under the name of a job of its own
and gone afterwards.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import msgspec

from mlless import kernels
from mlless.channels.opening import open_hub, open_link, open_objects, open_store
from mlless.channels.ports import Hub, KeyValueStore
from mlless.channels.redis_health import inspect
from mlless.clock import Clock, SystemClock
from mlless.deployment import EMBEDDED, Deployment, is_redis
from mlless.diagnosis import (
    Finding,
    channels_from_there,
    clocks_finding,
    dataset_from_there,
    functions_finding,
    milliseconds,
    server_finding,
    speeds,
    versions_finding,
)
from mlless.errors import CodecError, DeadlineExceeded, MLLessError, hidden
from mlless.instructions import Exited
from mlless.interrupts import interruptible
from mlless.job import Deadlines
from mlless.locations import Directory, place_of
from mlless.losses import died, failed
from mlless.messages import Commit, Failure, Hello
from mlless.probe import ENTRY, ROUNDS, Sight, dataset_speed, greeting, probe_of, sight_key, store_speed
from mlless.reception import Reception
from mlless.report.wording import size
from mlless.runtimes.ports import Runtime
from mlless.session import meeting, open_session

_NAME = "mlless-doctor"
_PINGS = 15
_ANSWER = Commit(-1, (), ())
_DEADLINE = 20.0  # seconds a message may take
_GRACE = 10.0
_OUT = 1 << 20  # bytes


def examine(
    deployment: Deployment, *, workers: int, dataset: str | None = None, out: str | None = None
) -> Generator[Finding, None, None]:
    """Yield the findings as they come; nothing of the checks is left behind.

    ``workers`` functions are started, all at once as a job does. ``dataset`` is read from here and from
    there, ``out`` written to from here, as a run is.
    """
    if kernels.MISSING:
        text = f"not compiled, so NumPy computes, about eight times slower: {kernels.MISSING}"
        yield Finding(check="kernels", outcome="warning", text=text, cure=kernels.CURE)
    with interruptible():
        channels: list[Finding] = []
        for address in deployment.servers:
            yield from _tried("store", channels, _check_store(deployment, address))
        if deployment.meeting not in deployment.servers or not _any_failed(channels):
            yield from _tried("bus", channels, _check_bus(deployment))
        if dataset is not None:
            address = place_of(dataset).address  # as functions read it
            reading: list[Finding] = []
            yield from _tried("data set", reading, _check_dataset(address))
            dataset = None if _any_failed(reading) else address
        if out is not None:
            yield from _tried("out", [], _check_out(out))
        if _any_failed(channels):
            text = "not started: what has failed above is to be mended first"
            yield Finding(check="functions", outcome="warning", text=text)
        else:
            yield from _tried("functions", [], _check_functions(deployment, workers, dataset))


def _any_failed(findings: list[Finding]) -> bool:
    return any(finding.outcome == "failed" for finding in findings)


def _tried(check: str, seen: list[Finding], findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield the findings, which ``seen`` keeps, and an error as the last of them."""
    try:
        for finding in findings:
            seen.append(finding)
            yield finding
    except MLLessError as error:
        bare = MLLessError(error.what, where=error.where, expected=error.expected, found=error.found)
        cure = hidden(error.cure) if error.cure else None
        failed = Finding(
            check=check, outcome="failed", text=hidden(bare.as_typed), cure=cure, exit_code=error.exit_code
        )
        seen.append(failed)
        yield failed


def _check_store(deployment: Deployment, address: str) -> Iterator[Finding]:
    yield from _check_server(address)
    with meeting(deployment, name=_NAME) as (addresses, _):
        if address != EMBEDDED:
            addresses = msgspec.structs.replace(addresses, store=(address,))
        store = open_store(addresses, Deadlines().expiry)
        try:
            speed = store_speed(store, "probe")
            free = shutil.disk_usage(addresses.store[0]).free if address == EMBEDDED else None
        finally:
            store.destroy()
    name = hidden(address)
    if free is not None:
        name = f"files in {Path(addresses.store[0]).parent}, {size(free)} free"
    text = f"{name}: {milliseconds(speed.latency)} a round trip, {speeds(speed.put, speed.get)}"
    yield Finding(
        check="store", text=text, facts={"address": hidden(address), **msgspec.structs.asdict(speed)}
    )


def _check_bus(deployment: Deployment) -> Iterator[Finding]:
    if deployment.meeting not in deployment.servers:
        yield from _check_server(deployment.meeting)
    with meeting(deployment, name=_NAME) as (addresses, _), ExitStack() as stack:
        hub = open_hub(addresses, Deadlines().expiry)
        stack.callback(hub.destroy)
        hub.admit([(0, 0)])
        link = open_link(addresses, 0, 0)
        stack.callback(link.close)
        pings = []
        for _ in range(_PINGS):
            start = time.perf_counter()
            link.send(greeting(0))
            if hub.receive(_DEADLINE) is None:
                raise DeadlineExceeded(f"no message for {_DEADLINE:g} s", where=hidden(deployment.meeting))
            hub.broadcast(_ANSWER, [(0, 0)])
            link.receive(_DEADLINE)
            pings.append(time.perf_counter() - start)
    address = hidden(deployment.meeting)
    name = "a local socket" if address == EMBEDDED else address
    text = f"{name}: {milliseconds(median(pings))} a message there and back"
    yield Finding(check="bus", text=text, facts={"address": address, "latency": median(pings)})


def _check_server(address: str) -> Iterator[Finding]:
    if is_redis(address):
        yield server_finding(hidden(address), inspect(address))


def _check_dataset(dataset: str) -> Iterator[Finding]:
    speed = dataset_speed(dataset)
    text = (
        f"{dataset}: opened in {milliseconds(speed.latency)}, "
        f"a group of {size(speed.group)} read at {size(speed.get)}/s"
    )
    yield Finding(check="data set", text=text, facts=msgspec.structs.asdict(speed))


def _check_out(out: str) -> Iterator[Finding]:
    """Put an object where a run would put its model, or as near as there is a folder, and remove it."""
    place = place_of(out)
    if isinstance(place, Directory):
        path = place.path.resolve()
        place = Directory(next(path for path in (path, *path.parents) if path.exists()))
    objects = open_objects(place)
    name = f".mlless-doctor-{secrets.token_hex(6)}"
    start = time.perf_counter()
    objects.put(name, bytes(_OUT))
    took = time.perf_counter() - start
    objects.delete([name])
    text = f"{place}: an object of {size(_OUT)} written at {size(_OUT / took)}/s, and removed"
    yield Finding(check="out", text=text, facts={"place": str(place), "put": _OUT / took})


def _check_functions(deployment: Deployment, workers: int, dataset: str | None) -> Iterator[Finding]:
    deadlines, clock = Deadlines(), SystemClock()
    with open_session(deployment, ENTRY, expiry=deadlines.expiry, name=_NAME) as session:
        started = clock.now()
        functions = {
            (worker, 0): probe_of(session.addresses, deadlines.expiry, dataset, worker)
            for worker in range(workers)
        }
        session.hub.admit(functions)
        session.runtime.start(functions)
        heard, there = gather(session.hub, session.runtime, clock, workers, patience=deadlines.start)
        sights = [_sight(session.store, worker) for worker in range(workers)]
        limit = session.runtime.time_limit
        session.runtime.stop(_GRACE)
    yield functions_finding(sights, there - started, limit)
    yield versions_finding(sights)
    yield clocks_finding(sights, heard)
    yield channels_from_there(sights)
    if dataset is not None:
        yield dataset_from_there(sights)


def gather(
    hub: Hub, runtime: Runtime, clock: Clock, workers: int, *, patience: float
) -> tuple[dict[int, list[float]], float]:
    """Answer the greetings of functions until every one has left its report.

    The first is answered when all are there: as in a job they have to run at the same time. Returns at which
    times of day each function has greeted, and when all were there, by ``clock``. MLLessError if a function
    is lost, or if it takes more than ``patience`` seconds.
    """
    heard: dict[int, list[float]] = {worker: [] for worker in range(workers)}
    reception, all_there = Reception(hub, runtime, clock, notice=lambda ended: None), 0.0
    deadline = reception.awake() + patience
    while min(map(len, heard.values())) <= ROUNDS:
        events, now = reception.next(), reception.awake()
        for event in events:
            times = heard[event.worker]
            match event:
                case Hello():
                    times.append(time.time())
                    if len(times) == 1 and all(heard.values()):
                        all_there = clock.now()
                        hub.broadcast(_ANSWER, [(worker, 0) for worker in heard])
                    elif 1 < len(times) <= ROUNDS:
                        hub.broadcast(_ANSWER, [(event.worker, 0)])
                case Failure():
                    raise failed(event, f"function {event.worker} failed")
                case Exited() if len(times) <= ROUNDS:
                    raise died(event, f"function {event.worker} ended before it had reported")
        if not events and now >= deadline:
            raise DeadlineExceeded(
                "not all functions run at the same time, or some do not go on",
                expected=f"all of {workers}",
                found=f"{sum(map(bool, heard.values()))} that have reported",
                cure="check how many functions your account may run at the same time, and that they "
                "can reach store and bus",
            )
    return heard, all_there


def _sight(store: KeyValueStore, worker: int) -> Sight:
    [data] = store.get([sight_key(worker)])
    try:
        return msgspec.json.decode(data, type=Sight)
    except msgspec.DecodeError as error:
        raise CodecError(
            "not what a function says it sees", where=f"function {worker}", found=str(error)
        ) from error
