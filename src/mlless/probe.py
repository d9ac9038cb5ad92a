"""A function that trains nothing: it looks about where it runs, and says what it sees.

``doctor`` starts it as a job starts its workers, through the runtime and with a payload that tells
where to meet. What it sees goes into the store; on the bus there are only greetings.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from statistics import median

import msgspec

import mlless
from mlless.channels.opening import open_link, open_store
from mlless.channels.ports import KeyValueStore, Link
from mlless.deployment import Addresses
from mlless.errors import ChannelError, Disconnected, MissingUpdate, MLLessError
from mlless.memory import memory_limit
from mlless.messages import PROTOCOL, Hello, failure_of

ENTRY = "mlless.probe:main"
ROUNDS = 8  # greetings that are answered; one more says that the report is in the store
_GETS = 15
_BLOB = 4 << 20  # bytes; long enough to tell bandwidth from latency
_SLOWEST = 300.0  # seconds: an answer comes, or the link says that no one is there any more


class Probe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a probe is told; ``protocol`` and ``version`` first, as in ``launch.Launch``."""

    protocol: int
    version: str
    addresses: Addresses
    expiry: float
    dataset: str | None
    worker: int
    generation: int


class StoreSpeed(msgspec.Struct, frozen=True):
    """Seconds of a small round trip; bytes per second there and back."""

    latency: float
    put: float
    get: float


class DatasetSpeed(msgspec.Struct, frozen=True):
    """Seconds to read the manifest, the mean bytes of a group's file, and bytes per second of reading one."""

    latency: float
    group: int
    get: float


class Sight(msgspec.Struct, frozen=True):
    """What a probe sees.

    ``greetings`` are the times by its own clock at which it sent each and had the answer. ``memory``
    is the least of the limits it knows of, in bytes. ``dataset_error`` says why the data set could
    not be read from there.
    """

    protocol: int
    version: str
    python: str
    machine: str
    kernels: str
    import_seconds: float
    memory: int
    store: StoreSpeed
    greetings: tuple[tuple[float, float], ...]
    dataset: DatasetSpeed | None = None
    dataset_error: str | None = None


def probe_of(addresses: Addresses, expiry: float, dataset: str | None, worker: int) -> bytes:
    """Return the payload of a probe."""
    return msgspec.json.encode(Probe(PROTOCOL, mlless.__version__, addresses, expiry, dataset, worker, 0))


def sight_key(worker: int) -> str:
    """Return under which key a probe leaves what it has seen."""
    return f"sight.{worker}"


def greeting(worker: int) -> Hello:
    """Return what goes over the bus."""
    return Hello(worker, 0, os.getpid(), PROTOCOL, mlless.__version__)


def main(payload: bytes) -> None:
    """Look about as ``payload`` says."""
    start = time.perf_counter()
    from mlless.launch import check_sender  # brings all that a worker imports

    imported = time.perf_counter() - start
    check_sender(payload)
    probe = msgspec.json.decode(payload, type=Probe)
    link = open_link(probe.addresses, probe.worker, probe.generation)
    try:
        _look(probe, link, imported)
    except Disconnected:
        raise  # no one is left to be told
    except Exception as error:  # whatever it is, the user is to see it
        link.send(failure_of(probe.worker, probe.generation, -1, error))
        raise
    finally:
        link.close()


def _look(probe: Probe, link: Link, import_seconds: float) -> None:
    from mlless import kernels

    greetings = tuple(_greet(link, probe.worker) for _ in range(ROUNDS))
    store = open_store(probe.addresses, probe.expiry)
    dataset, dataset_error = None, None
    try:
        dataset = dataset_speed(probe.dataset) if probe.dataset else None
    except MLLessError as error:
        dataset_error = error.as_typed
    sight = Sight(
        protocol=PROTOCOL,
        version=mlless.__version__,
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}",
        kernels=kernels.NAME,
        import_seconds=import_seconds,
        memory=memory_limit(),
        store=store_speed(store, f"probe.{probe.worker}"),
        greetings=greetings,
        dataset=dataset,
        dataset_error=dataset_error,
    )
    store.put(sight_key(probe.worker), [msgspec.json.encode(sight)])
    link.send(greeting(probe.worker))


def _greet(link: Link, worker: int) -> tuple[float, float]:
    sent = time.time()
    link.send(greeting(worker))
    link.receive(_SLOWEST)
    return sent, time.time()


def store_speed(store: KeyValueStore, key: str) -> StoreSpeed:
    """Put, get and delete under ``key``; return how quick that was, ChannelError if it does not work."""
    store.put(key, [b"x"])
    latency = median(_seconds(lambda: store.get([key])) for _ in range(_GETS))
    blob = os.urandom(_BLOB)
    put = _seconds(lambda: store.put(key, [blob]))
    start = time.perf_counter()
    [back] = store.get([key])
    get = time.perf_counter() - start
    if bytes(back) != blob:
        raise ChannelError("the store gives back other bytes than were put", where=key)
    store.delete([key])
    try:
        store.get([key])
    except MissingUpdate:
        return StoreSpeed(latency, _BLOB / put, _BLOB / get)
    raise ChannelError("a deleted value is still in the store", where=key)


def dataset_speed(location: str) -> DatasetSpeed:
    """Read a data set's manifest and the rows of a group; return how quick that was."""
    from mlless.data.dataset import open_dataset

    start = time.perf_counter()
    dataset = open_dataset(location)
    latency = time.perf_counter() - start
    files = [file for file in dataset.manifest.train if file.rows]
    took = _seconds(lambda: dataset.read(files[0]))
    mean = sum(file.bytes for file in files) // len(files)
    return DatasetSpeed(latency, mean, files[0].bytes / took)


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
