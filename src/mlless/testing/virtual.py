"""The same roles in one process on a virtual clock: deterministic, and as fast as the arithmetic.

Each role runs in a thread of its own and only the one that holds the baton moves. A role's clock goes
on by what a table of durations says it did; when a role waits, the baton goes to whichever role is due
first. So a job comes out the same every time, down to its times, and with real gradients.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from mlless import checkpoint, keys
from mlless.autotuner.decision import Decision
from mlless.autotuner.opening import open_tuner
from mlless.billing.meter import MEMORY, Bill, Meter
from mlless.channels.ports import Bytes
from mlless.closing import Leavers, nobody
from mlless.data.dataset import Dataset
from mlless.deployment import Addresses
from mlless.errors import DeadlineExceeded, Disconnected, MissingUpdate, MLLessError
from mlless.job import JobSpec
from mlless.kernels.arrays import Floats
from mlless.launch import Launch, launch_of
from mlless.messages import (
    FromWorker,
    FunctionId,
    Origin,
    ToWorker,
    decode_from_worker,
    decode_to_worker,
    encode,
)
from mlless.models import model_of
from mlless.records import StepRecord
from mlless.replica import Replica
from mlless.runtimes.ports import Ended
from mlless.supervisor import Outcome, Supervisor, final_bill
from mlless.worker import Identity, Worker

_VERSION = "virtual"
_SUPERVISOR = (-1, 0)
_NOWHERE = Addresses("virtual", ("",), "")


@dataclass(frozen=True)
class Durations:
    """What things take, in seconds.

    ``work`` is per unit of an activity of ``Clock.work`` (``compute``: a row, ``fetch``, ``encode``
    and ``merge``: a byte, ``evaluate``: a row, ``step``: a member), or gives it for so many units.
    ``message`` is a message's way, ``request`` a request to the store, ``byte`` each byte that one moves,
    ``fit`` what the tuner takes to come to a decision.
    """

    work: Mapping[str, float | Callable[[int], float]] = field(default_factory=dict)
    message: float = 0.0
    request: float = 0.0
    byte: float = 0.0
    fit: float = 0.0


class _Role:
    """One thread's place in the world. As a Clock it tells the role's own time."""

    def __init__(self, world: _World, number: FunctionId) -> None:
        self._world = world
        self.number = number
        self.time = 0.0
        self.inbox: list[tuple[float, int, bytes]] = []
        self.deadline: float | None = None
        self.done = False

    def now(self) -> float:
        """Return the role's time in seconds."""
        return self.time

    def work(self, activity: str, units: int) -> None:
        """Move the role's time on by the activity's duration."""
        duration = self._world.durations.work.get(activity, 0.0)
        self.time += duration(units) if callable(duration) else duration * units

    def due(self) -> float:
        """Return when the role can go on: now, or when it gets a message or gives up waiting."""
        if self.deadline is None:
            return self.time
        arrival = self.inbox[0][0] if self.inbox else self.deadline
        return max(self.time, min(arrival, self.deadline))

    def wait(self, timeout: float) -> bytes | None:
        """Pass the baton on until a message is here; None after ``timeout`` virtual seconds."""
        self.deadline = self.time + timeout
        self._world.pass_baton(self)
        self.time, self.deadline = self.due(), None
        if self.inbox and self.inbox[0][0] <= self.time:
            return heapq.heappop(self.inbox)[2]
        return None


class _World:
    """All roles of a job, each a function or the supervisor."""

    def __init__(self, durations: Durations) -> None:
        self.durations = durations
        self.roles: dict[FunctionId, _Role] = {}
        self.values: dict[str, bytes] = {}
        self.broken = False
        self._turn = threading.Condition()
        self._holder = _SUPERVISOR
        self._messages = 0

    def join(self, number: FunctionId, time: float) -> _Role:
        """Add a role, which is due at ``time``."""
        role = self.roles[number] = _Role(self, number)
        role.time = time
        return role

    def send(self, sender: _Role, receiver: FunctionId, message: bytes) -> None:
        """Put a message on its way."""
        self._messages += 1
        arrival = sender.time + self.durations.message
        if receiver in self.roles:
            heapq.heappush(self.roles[receiver].inbox, (arrival, self._messages, message))

    def pass_baton(self, me: _Role) -> None:
        """Let whoever is due first go on; return when that is ``me``, at once if it is done."""
        with self._turn:
            waiting = [role for role in self.roles.values() if not role.done]
            if waiting:
                self._holder = min(waiting, key=lambda role: (role.due(), role.number)).number
            self._turn.notify_all()
            if not me.done:
                self._turn.wait_for(lambda: self._holder == me.number or self.broken)
        if self.broken and me.number != _SUPERVISOR:
            raise Disconnected("the job is over")

    def enter(self, me: _Role) -> None:
        """Wait for the baton for the first time."""
        with self._turn:
            self._turn.wait_for(lambda: self._holder == me.number or self.broken)

    def end(self) -> None:
        """Send every role that is left home."""
        with self._turn:
            self.broken = True
            self._turn.notify_all()


class _Store:
    """A KeyValueStore in memory, as one role sees it."""

    def __init__(self, world: _World, role: _Role) -> None:
        self._world, self._role = world, role

    def put(self, key: str, value: Sequence[Bytes]) -> None:
        self._world.values[key] = b"".join(value)
        self._charge(len(self._world.values[key]))

    def get(self, keys: Sequence[str]) -> list[Bytes]:
        for key in keys:
            if key not in self._world.values:
                raise MissingUpdate("not in the store", where=key)
        values: list[Bytes] = [self._world.values[key] for key in keys]
        self._charge(sum(len(value) for value in values))
        return values

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._world.values.pop(key, None)

    def keep(self, keys: Iterable[str]) -> None:
        pass

    def destroy(self) -> None:
        self._world.values.clear()

    def _charge(self, size: int) -> None:
        self._role.time += self._world.durations.request + self._world.durations.byte * size


class _Hub:
    """The supervisor's end of the bus."""

    def __init__(self, world: _World, role: _Role) -> None:
        self._world, self._role = world, role

    def receive(self, timeout: float) -> FromWorker | None:
        message = self._role.wait(timeout)
        return None if message is None else decode_from_worker(message)

    def admit(self, functions: Iterable[FunctionId]) -> None:
        pass

    def broadcast(self, message: ToWorker, functions: Iterable[FunctionId]) -> None:
        data = encode(message)
        for function in functions:
            self._world.send(self._role, function, data)

    def close(self) -> None:
        self._world.end()

    def destroy(self) -> None:
        self._world.end()


class _Link:
    """A worker's end of the bus."""

    def __init__(self, world: _World, role: _Role) -> None:
        self._world, self._role = world, role

    def send(self, message: FromWorker) -> None:
        self._world.send(self._role, _SUPERVISOR, encode(message))

    def receive(self, timeout: float) -> ToWorker:
        message = self._role.wait(timeout)
        if message is None:
            raise DeadlineExceeded(f"no message from the supervisor for {timeout:g} s")
        return decode_to_worker(message)

    def close(self) -> None:
        self._role.done = True


class VirtualRuntime:
    """A Runtime whose functions are threads of a virtual world."""

    def __init__(self, world: _World, dataset: Dataset) -> None:
        self._world, self._dataset = world, dataset
        self._threads: list[threading.Thread] = []
        self._ended: list[tuple[float, Ended]] = []  # and when it is noticed

    @property
    def time_limit(self) -> None:
        """A thread may take all the time it needs."""
        return None

    @property
    def memory(self) -> None:
        """A thread may take what this machine has."""
        return None

    def start(self, functions: Mapping[FunctionId, bytes]) -> None:
        """Give every function a thread; it moves once the baton comes to it."""
        for function, payload in functions.items():
            role = self._world.join(function, self._world.roles[_SUPERVISOR].time)
            thread = threading.Thread(target=self._run, args=(role, payload), daemon=True)
            self._threads.append(thread)
            thread.start()

    def end(self, functions: Collection[FunctionId]) -> None:
        """Do nothing: a thread cannot be ended from outside."""

    def ended(self) -> list[Ended]:
        """Return the functions that ended since the last call, once their last words have arrived."""
        return self._until(self._world.roles[_SUPERVISOR].time)

    def stop(self, grace: float) -> list[Ended]:
        """End the world and every thread in it; ``grace`` is in real seconds."""
        self._world.end()
        for thread in self._threads:
            thread.join(grace)
        return self._until(math.inf)

    def _until(self, time: float) -> list[Ended]:
        ended = [one for noticed, one in self._ended if noticed <= time]
        self._ended = [(noticed, one) for noticed, one in self._ended if noticed > time]
        return ended

    def _run(self, role: _Role, payload: bytes) -> None:
        launch = msgspec.json.decode(payload, type=Launch)
        self._world.enter(role)
        code, start = 0, role.time
        try:
            Worker(
                launch.job,
                Identity(launch.worker, launch.generation, 0, _VERSION),
                store=_Store(self._world, role),
                link=_Link(self._world, role),
                dataset=self._dataset,
                clock=role,
            ).run()
        except MLLessError as error:
            code = error.exit_code
        finally:
            role.done = True
            seconds = role.time - start
            ended = Ended(launch.worker, launch.generation, code, cpu_seconds=seconds, seconds=seconds)
            self._ended.append((role.time + self._world.durations.message, ended))
            if not self._world.broken:
                self._world.pass_baton(role)


class _Fits:
    """A tuner's Runner: the work is done at once, and what came of it is there after its duration."""

    def __init__(self, role: _Role, seconds: float) -> None:
        self._role, self._seconds = role, seconds
        self._done: tuple[float, Decision] | None = None

    def start(self, work: Callable[[], Decision]) -> None:
        self._done = (self._role.time + self._seconds, work())

    def result(self) -> Decision | None:
        if self._done is None or self._role.time < self._done[0]:
            return None
        decision, self._done = self._done[1], None
        return decision


@dataclass(frozen=True)
class Simulation:
    """What a simulated job came to; ``seconds`` are virtual."""

    outcome: Outcome
    tables: dict[str, Floats]
    records: list[StepRecord]
    seconds: float
    bill: Bill | None


def simulate(
    spec: JobSpec,
    dataset: Dataset,
    durations: Durations,
    *,
    memory: int = MEMORY,
    leavers: Leavers = nobody,
    listen: Callable[[StepRecord], None] = lambda record: None,
) -> Simulation:
    """Run a job with its real roles and real gradients on a virtual clock."""
    world = _World(durations)
    role = world.join(_SUPERVISOR, 0.0)
    store, model = _Store(world, role), model_of(spec.model)
    replica = Replica(model.shapes)
    replica.restore(model.initial(np.random.Generator(np.random.PCG64(spec.seed))))
    checkpoint.save_snapshot(store, keys.INITIAL, replica.snapshot())
    runtime, records = VirtualRuntime(world, dataset), []
    meter = Meter(spec.tariff, opened=0.0, memory=memory) if spec.tariff else None

    def hear(record: StepRecord) -> None:
        records.append(record)
        listen(record)

    supervisor = Supervisor(
        spec,
        [file.rows for file in dataset.manifest.train],
        hub=_Hub(world, role),
        store=store,
        runtime=runtime,
        clock=role,
        version=_VERSION,
        initial=Origin(keys.INITIAL, 0, replica.digest()),
        payload=lambda function: launch_of(spec, _NOWHERE, *function),
        listen=hear,
        leavers=leavers,
        meter=meter,
        tuner=open_tuner(spec, meter, _Fits(role, durations.fit)),
    )
    try:
        outcome = supervisor.run()
        tables, _ = checkpoint.read_snapshot(store, outcome.snapshot)
        bill = final_bill(meter, runtime.stop(10.0), now=role.time, done=role.time)
        return Simulation(outcome, tables, records, role.time, bill)
    finally:
        runtime.stop(10.0)
