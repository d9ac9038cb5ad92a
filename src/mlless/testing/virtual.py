"""The same roles in one process on a virtual clock: deterministic, and as fast as the arithmetic.

Each role runs in a thread of its own and only the one that holds the baton moves. A role's clock goes
on by what a table of durations says it did; when a role waits, the baton goes to whichever role is due
first. So a job comes out the same every time, down to its times, and with real gradients.
"""

from __future__ import annotations

import heapq
import math
import random
import signal
import threading
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import msgspec

from mlless import checkpoint, keys
from mlless.autotuner.decision import Decision
from mlless.autotuner.opening import open_tuner
from mlless.billing.meter import MEMORY, Bill, Meter
from mlless.channels.ports import Bytes, KeyValueStore, ObjectStore
from mlless.closing import Leavers, nobody
from mlless.data.dataset import Dataset
from mlless.deployment import Addresses
from mlless.errors import DeadlineExceeded, Disconnected, MissingUpdate, MLLessError
from mlless.job import JobSpec
from mlless.kernels.arrays import Floats
from mlless.launch import Launch, launch_of
from mlless.mark import Mark
from mlless.membership import Schedule
from mlless.messages import (
    FromWorker,
    FunctionId,
    ToWorker,
    decode_from_worker,
    decode_to_worker,
    encode,
)
from mlless.records import StepRecord
from mlless.report.left import Start, fresh
from mlless.runtimes.ports import Ended
from mlless.supervisor import Outcome, Safe, Supervisor, final_bill
from mlless.testing.faults import NO_FAULTS, SUPERVISOR, Blow, Faults
from mlless.worker import Identity, Worker

_VERSION = "virtual"
_NOWHERE = Addresses("virtual", ("",), "")
_MOST_PASSES, _LONGEST = 200_000, 50_000.0  # turns, and virtual seconds, that no job of a test needs


@dataclass(frozen=True)
class Launched:
    """Trace: functions were started."""

    functions: tuple[FunctionId, ...]


@dataclass(frozen=True)
class Dismissed:
    """Trace: the runtime was told to end functions."""

    functions: tuple[FunctionId, ...]


@dataclass(frozen=True)
class Heard:
    """Trace: the supervisor received a message."""

    message: FromWorker


@dataclass(frozen=True)
class Sent:
    """Trace: the supervisor sent a message to functions."""

    message: ToWorker
    functions: tuple[FunctionId, ...]


@dataclass(frozen=True)
class Emptied:
    """Trace: the store lost all that it had."""


@dataclass(frozen=True)
class Struck:
    """Trace: a function was killed, broken or stopped, or it is over for its time limit."""

    function: FunctionId
    limit: bool = False


Traced = Launched | Dismissed | Heard | Sent | Emptied | Struck
Trace = list[tuple[float, Traced]]  # and when, on the supervisor's clock


@dataclass(frozen=True)
class Durations:
    """What things take, in seconds.

    ``work`` is per unit of an activity of ``Clock.work`` (``compute``: a row, ``fetch``, ``encode``
    and ``merge``: a byte, ``evaluate``: a row, ``step``: a member), or gives it for so many units.
    ``message`` is a message's way, ``request`` a request to the store, ``byte`` each byte that one moves,
    ``fit`` what the tuner takes to come to a decision, ``start`` a function until it runs.
    """

    work: Mapping[str, float | Callable[[int], float]] = field(default_factory=dict)
    message: float = 0.0
    request: float = 0.0
    byte: float = 0.0
    fit: float = 0.0
    start: float = 0.0


class Killed(BaseException):
    """Ends a function as a signal does, which no role can catch."""


class Stuck(AssertionError):
    """A job has gone on for longer than any should."""


class Role:
    """One thread's place in the world. As a Clock it tells the role's own time."""

    def __init__(self, world: _World, number: FunctionId, time: float) -> None:
        self._world = world
        self.number = number
        self.time = self.began = time
        self.inbox: list[tuple[float, int, bytes]] = []
        self.deadline: float | None = None
        self.stopped = 0.0  # until then
        self.killed = self.limit = math.inf  # at these times
        self.calls = 0
        self.done = False
        self.baton = threading.Semaphore(0)

    def now(self) -> float:
        """Return the role's time in seconds."""
        return self.time

    def work(self, activity: str, units: int) -> None:
        """Move the role's time on by the activity's duration."""
        duration = self._world.durations.work.get(activity, 0.0)
        self.time += duration(units) if callable(duration) else duration * units

    def pause(self, seconds: float) -> None:
        """Move the role's time on, and let everyone go on who is due by then."""
        self.time += seconds
        self.take_turn()

    def due(self) -> float:
        """Return when the role can go on: now, or when it gets a message or gives up waiting."""
        time = self.time
        if self.deadline is not None:
            arrival = self.inbox[0][0] if self.inbox else self.deadline
            time = max(time, min(arrival, self.deadline))
        return min(max(time, self.stopped), self.killed, self.limit)

    def take_turn(self) -> None:
        """Let everyone go on who is due before this role."""
        self._world.pass_baton(self)
        self.time, self.deadline = self.due(), None
        if self.limit <= min(self.time, self.killed):
            self._world.note(Struck(self.number, limit=True))
        if min(self.limit, self.killed) <= self.time:
            raise Killed

    def wait(self, timeout: float) -> bytes | None:
        """Pass the baton on until a message is here; None after ``timeout`` virtual seconds."""
        self.deadline = self.time + timeout
        self.take_turn()
        if self.inbox and self.inbox[0][0] <= self.time:
            return heapq.heappop(self.inbox)[2]
        return None

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Surround the effect of one call of a port, before which others take their turns."""
        self.take_turn()
        with self.acting():
            yield

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Surround an effect of this role: what is to befall it does so before or after."""
        call, self.calls = self.calls, self.calls + 1
        self._suffer(call, after=False)
        yield
        self._suffer(call, after=True)

    def _suffer(self, call: int, *, after: bool) -> None:
        blow = self._world.blow(self, call, after)
        if blow is None:
            return
        self._world.note(Struck(self.number))
        match blow.kind:
            case "kill":
                raise Killed
            case "raise":
                raise RuntimeError("a fault of the virtual world")
            case "stop":
                self.stopped = self.time + blow.seconds
                self.take_turn()


class _World:
    """All roles of a job, each a function or the supervisor, and what goes wrong for them."""

    def __init__(self, durations: Durations, faults: Faults, trace: Trace) -> None:
        self.durations, self.faults, self.trace = durations, faults, trace
        self.roles: dict[FunctionId, Role] = {}
        self.values: dict[str, bytes] = {}
        self.broken = False
        self._live: list[Role] = []
        self._passes = 0
        self._messages = 0
        self._dice = random.Random(faults.seed)
        self._arrived: dict[tuple[FunctionId, FunctionId], float] = {}  # the newest of a sender's messages
        self._struck: set[tuple[int, FunctionId]] = set()
        self._emptied = sorted(faults.emptied, reverse=True)

    def join(self, number: FunctionId, time: float) -> Role:
        """Add a role, which is due at ``time``."""
        role = self.roles[number] = Role(self, number, time)
        self._live.append(role)
        return role

    def note(self, event: Traced) -> None:
        """Add to the trace."""
        self.trace.append((self.roles[SUPERVISOR].time, event))

    def send(self, sender: Role, receiver: FunctionId, message: bytes) -> None:
        """Put a message on its way; one sender's arrive in order, but those that come again."""
        if receiver not in self.roles:
            return
        pair, faults = (sender.number, receiver), self.faults
        arrival = sender.time + self.durations.message
        if faults.delay:
            arrival = max(arrival + self._dice.uniform(0.0, faults.delay), self._arrived.get(pair, 0.0))
            self._arrived[pair] = arrival
        self._deliver(receiver, arrival, message)
        if faults.repeats and receiver == SUPERVISOR and self._dice.random() < faults.repeats:
            self._deliver(receiver, arrival + self._dice.expovariate(1.0), message)

    def _deliver(self, receiver: FunctionId, arrival: float, message: bytes) -> None:
        self._messages += 1
        heapq.heappush(self.roles[receiver].inbox, (arrival, self._messages, message))

    def pass_baton(self, me: Role) -> None:
        """Let whoever is due first go on; return when that is ``me``, at once if it is done."""
        if self.broken and me.number != SUPERVISOR:
            raise Disconnected("the job is over")
        self._passes += 1
        next_one = min(self._live, key=_due)
        if self._passes > _MOST_PASSES:
            next_one = self.roles[SUPERVISOR]
        if next_one is not me:
            next_one.baton.release()
            if me.done:
                return
            me.baton.acquire()
        if me.number == SUPERVISOR:
            if self._passes > _MOST_PASSES or me.due() > _LONGEST:
                raise Stuck(f"{self._passes} turns, and at {me.due():.0f} s the job still goes on")
        elif self.broken:
            raise Disconnected("the job is over")

    def enter(self, me: Role) -> None:
        """Wait for the baton for the first time."""
        me.baton.acquire()
        if self.broken:
            raise Disconnected("the job is over")

    def leave(self, me: Role) -> None:
        """Take a role out, and let the others go on."""
        me.done = True
        self._live.remove(me)
        if not self.broken:
            self.pass_baton(me)

    def end(self) -> None:
        """Send every role that is left home."""
        self.broken = True
        for role in self.roles.values():
            role.baton.release()

    def blow(self, role: Role, call: int, after: bool) -> Blow | None:
        """Return what befalls a role now, before or after the effect of a call."""
        blow = self.faults.blows.get(role.number)
        if blow is not None and (blow.call, blow.after) == (call, after):
            return blow
        for number, strike in enumerate(self.faults.strikes):
            hit = role.number[0] in strike.workers and role.began < strike.time <= role.time
            if hit and (number, role.number) not in self._struck:
                self._struck.add((number, role.number))
                return Blow(strike.kind, call, after, strike.seconds)
        return None

    def reach_store(self, role: Role) -> None:
        """Let a role wait until the store is there, and the store lose what it is to lose by then."""
        for since, until in self.faults.away:
            if since <= role.time < until:
                role.time = until
                role.take_turn()
        while self._emptied and self._emptied[-1] <= role.time:
            self._emptied.pop()
            self.values.clear()
            self.note(Emptied())


def _due(role: Role) -> tuple[float, FunctionId]:
    return role.due(), role.number


class _Store:
    """A KeyValueStore in memory, as one role sees it."""

    def __init__(self, world: _World, role: Role) -> None:
        self._world, self._role = world, role

    @property
    def values(self) -> dict[str, bytes]:
        """What is there, as nobody has to ask a server for it."""
        return self._world.values

    def put(self, key: str, value: Sequence[Bytes]) -> None:
        with self._calling():
            self._world.values[key] = b"".join(value)
            self._charge(len(self._world.values[key]))

    def put_all(self, values: Mapping[str, Bytes]) -> None:
        with self._calling():
            self._world.values.update({key: bytes(value) for key, value in values.items()})
            self._charge(sum(map(len, values.values())))

    def get(self, keys: Sequence[str]) -> list[Bytes]:
        with self._calling():
            for key in keys:
                if key not in self._world.values:
                    raise MissingUpdate("not in the store", where=key)
            values: list[Bytes] = [self._world.values[key] for key in keys]
            self._charge(sum(len(value) for value in values))
        return values

    def delete(self, keys: Iterable[str]) -> None:
        with self._calling():
            for key in keys:
                self._world.values.pop(key, None)

    def keep(self, keys: Iterable[str]) -> None:
        with self._calling():
            pass

    def destroy(self) -> None:
        self._world.values.clear()

    @contextmanager
    def _calling(self) -> Iterator[None]:
        with self._role.calling():
            self._world.reach_store(self._role)
            yield

    def _charge(self, size: int) -> None:
        self._role.time += self._world.durations.request + self._world.durations.byte * size


class _Beside(_Store):
    """The store as a thread beside a role uses it: it takes nobody's turn, and none of the role's time."""

    @contextmanager
    def _calling(self) -> Iterator[None]:
        yield

    def _charge(self, size: int) -> None:
        pass


class _Objects:
    """The files of a data set, as one role sees them."""

    distant = False

    def __init__(self, role: Role, objects: ObjectStore) -> None:
        self._role, self._objects = role, objects

    def get(self, path: str) -> bytes:
        with self._role.calling():
            return self._objects.get(path)

    def put(self, path: str, data: Bytes) -> None:
        self._objects.put(path, data)

    def delete(self, paths: Iterable[str]) -> None:
        self._objects.delete(paths)

    def names(self) -> set[str]:
        return self._objects.names()


class _Hub:
    """The supervisor's end of the bus."""

    def __init__(self, world: _World, role: Role) -> None:
        self._world, self._role = world, role
        self.ask: Callable[[str], None] = lambda reason: None
        self._asleep = sorted(world.faults.asleep, reverse=True)

    def receive(self, timeout: float) -> FromWorker | None:
        if self._asleep and self._asleep[-1][0] <= self._role.time:
            self._role.time += self._asleep.pop()[1]
        data = self._role.wait(timeout)
        asked = self._world.faults.asked
        if asked is not None and self._role.time >= asked:
            self.ask("interrupted")
        if data is None:
            return None
        message = decode_from_worker(data)
        self._world.note(Heard(message))
        with self._role.acting():
            return message

    def admit(self, functions: Iterable[FunctionId]) -> None:
        pass

    def broadcast(self, message: ToWorker, functions: Iterable[FunctionId]) -> None:
        data, functions = encode(message), tuple(functions)
        self._world.note(Sent(message, functions))
        with self._role.acting():
            for function in functions:
                self._world.send(self._role, function, data)

    def close(self) -> None:
        self._world.end()

    def destroy(self) -> None:
        self._world.end()


class _Link:
    """A worker's end of the bus."""

    def __init__(self, world: _World, role: Role) -> None:
        self._world, self._role = world, role

    def send(self, message: FromWorker) -> None:
        with self._role.calling():
            self._world.send(self._role, SUPERVISOR, encode(message))

    def receive(self, timeout: float) -> ToWorker:
        with self._role.calling():
            message = self._role.wait(timeout)
        if message is None:
            raise DeadlineExceeded(f"no message from the supervisor for {timeout:g} s")
        return decode_to_worker(message)

    def close(self) -> None:
        pass


class VirtualRuntime:
    """A Runtime whose functions are threads of a virtual world; a ``time_limit`` is in its seconds."""

    def __init__(self, world: _World, dataset: Dataset, time_limit: float | None = None) -> None:
        self._world, self._dataset, self.time_limit = world, dataset, time_limit
        self._threads: list[threading.Thread] = []
        self._ended: list[tuple[float, Ended]] = []  # and when it is noticed

    @property
    def memory(self) -> None:
        """A thread may take what this machine has."""
        return None

    def start(self, functions: Mapping[FunctionId, bytes]) -> None:
        """Give every function a thread; it moves once the baton comes to it."""
        supervisor = self._world.roles[SUPERVISOR]
        self._world.note(Launched(tuple(functions)))
        with supervisor.acting():
            for function, payload in functions.items():
                role = self._world.join(function, supervisor.time + self._world.durations.start)
                role.limit = role.began + (math.inf if self.time_limit is None else self.time_limit)
                thread = threading.Thread(target=self._run, args=(role, payload), daemon=True)
                self._threads.append(thread)
                thread.start()

    def end(self, functions: Collection[FunctionId]) -> None:
        """End functions at their next call of a port, if the world is one in which that is possible."""
        self._world.note(Dismissed(tuple(functions)))
        if self._world.faults.ends:
            for function in functions:
                self._world.roles[function].killed = self._world.roles[SUPERVISOR].time

    def ended(self) -> list[Ended]:
        """Return the functions that ended since the last call, once their last words have arrived."""
        return self._until(self._world.roles[SUPERVISOR].time)

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

    def _run(self, role: Role, payload: bytes) -> None:
        launch = msgspec.json.decode(payload, type=Launch)
        code, cause = 0, ""
        try:
            self._world.enter(role)
            Worker(
                launch.job,
                Identity(launch.worker, launch.generation, 0, _VERSION),
                store=_Store(self._world, role),
                link=_Link(self._world, role),
                dataset=self._seen_by(role),
                clock=role,
                until=None if launch.limit is None else role.began + launch.limit,
            ).run()
        except MLLessError as error:
            code = error.exit_code
        except Killed:
            code = -signal.SIGKILL
        except Exception:
            code, cause = 1, traceback.format_exc()
        finally:
            seconds = role.time - role.began
            ended = Ended(
                launch.worker, launch.generation, code, cpu_seconds=seconds, cause=cause, seconds=seconds
            )
            noticed = role.time + self._world.durations.message + self._world.faults.notice
            self._ended.append((noticed, ended))
            self._world.leave(role)

    def _seen_by(self, role: Role) -> Dataset:
        """Return the data set; who reads a distant one does so in threads, which have no turns."""
        objects = self._dataset.objects
        return self._dataset if objects.distant else replace(self._dataset, objects=_Objects(role, objects))


class _Copies(Safe):
    """Keeps copies of models in memory."""

    def __init__(self, store: _Store, origin: bytes) -> None:
        self._store, self._copy, self._initial = store, ("", b""), origin

    def mark(self, mark: Mark, seconds: float) -> None:
        """Copy a checkpoint, unless the store has lost it already."""
        key = mark.origin.key
        if key in self._store.values:
            self._copy = key, self._store.values[key]

    def restore(self, mark: Mark) -> None:
        """Put the origin of a mark into the store again."""
        copies = {keys.INITIAL: self._initial, self._copy[0]: self._copy[1]}
        if mark.origin.key not in copies:
            super().restore(mark)
        self._store.put(mark.origin.key, [copies[mark.origin.key]])


class _Fits:
    """A tuner's Runner: the work is done at once, and what came of it is there after its duration."""

    def __init__(self, role: Role, seconds: float) -> None:
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
    """What a simulated job came to; ``seconds`` are virtual, ``left`` the keys that it left in the store."""

    outcome: Outcome
    tables: dict[str, Floats]
    records: list[StepRecord]
    seconds: float
    bill: Bill | None
    left: frozenset[str]


def simulate(
    spec: JobSpec,
    dataset: Dataset,
    durations: Durations,
    *,
    memory: int = MEMORY,
    leavers: Leavers = nobody,
    listen: Callable[[StepRecord], object] = lambda record: None,
    faults: Faults = NO_FAULTS,
    trace: Trace | None = None,
    limit: float | None = None,
    start: Start | None = None,
    safe: Callable[[Role, KeyValueStore], Safe] | None = None,
) -> Simulation:
    """Run a job with its real roles and real gradients on a virtual clock.

    ``faults`` befall it, each at its time: the same ones make the same job. What came and went is added to
    the ``trace``. Functions are ended after ``limit`` virtual seconds. Stuck if it does not come to an end;
    Killed if its supervisor is. The job goes on from a ``start``, if given. ``safe`` is given the supervisor
    and a way to the store for what runs beside it.
    """
    world = _World(durations, faults, [] if trace is None else trace)
    role = world.join(SUPERVISOR, 0.0)
    store, runtime, records = _Store(world, role), VirtualRuntime(world, dataset, limit), []
    schedule = Schedule([file.rows for file in dataset.manifest.train], spec.batch_size, spec.stop.epochs)
    start = start or fresh(spec, schedule)
    start.put(store)
    earlier = start.past.cost if start.past else 0.0
    meter = Meter(spec.tariff, opened=0.0, memory=memory, earlier=earlier) if spec.tariff else None

    def hear(record: StepRecord) -> object:
        records.append(record)
        return listen(record)

    hub = _Hub(world, role)
    supervisor = Supervisor(
        spec,
        schedule,
        hub=hub,
        store=store,
        runtime=runtime,
        clock=role,
        version=_VERSION,
        mark=start.mark,
        past=start.past,
        payload=lambda function: launch_of(spec, _NOWHERE, *function, limit),
        listen=hear,
        leavers=leavers,
        safe=safe(role, _Beside(world, role)) if safe else _Copies(store, start.origin),
        meter=meter,
        tuner=open_tuner(spec, meter, _Fits(role, durations.fit)),
    )
    hub.ask = supervisor.request_stop
    try:
        outcome = supervisor.run()
        tables, _ = checkpoint.read_snapshot(store, outcome.snapshot)
        bill = final_bill(meter, runtime.stop(10.0), now=role.time, done=role.time)
        return Simulation(outcome, tables, records, role.time, bill, frozenset(world.values))
    finally:
        runtime.stop(10.0)
