"""Whole jobs in one process on a virtual clock: deterministic, and as fast as the arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from mlless import checkpoint, keys
from mlless.autotuner.decision import Decision
from mlless.autotuner.opening import open_tuner
from mlless.billing.meter import MEMORY, Bill, Meter
from mlless.billing.meter import SUPERVISOR as LEADER
from mlless.channels.ports import KeyValueStore
from mlless.closing import Leavers, nobody
from mlless.data.dataset import Dataset
from mlless.data.holding import AT_ONCE
from mlless.deployment import Addresses
from mlless.job import JobSpec
from mlless.kernels.arrays import Floats
from mlless.launch import Launch, launch_of
from mlless.mark import Mark
from mlless.membership import Schedule
from mlless.records import StepRecord
from mlless.report.left import Start, fresh
from mlless.simulation.conditions import Conditions
from mlless.simulation.faults import NO_FAULTS, SUPERVISOR, Faults
from mlless.simulation.functions import VirtualRuntime
from mlless.simulation.ports import Beside, Hub, Link, Objects, Store
from mlless.simulation.roles import LONGEST, MOST_TURNS, Role, Roles
from mlless.simulation.trace import Trace
from mlless.stepping import Stepper
from mlless.supervisor import Outcome, Safe, Supervisor, final_bill
from mlless.worker import Identity, Worker

_VERSION = "virtual"
GRACE = 10.0  # virtual seconds for functions to exit once the model is there, and real ones for their threads
NOWHERE = Addresses("virtual", ("",), "")


def worker_in(
    roles: Roles, dataset: Dataset, stepper: type[Stepper] = Stepper
) -> Callable[[Role, bytes], None]:
    """Return what a function of MLLess does in a world; its ``stepper`` takes its steps."""

    def run(role: Role, payload: bytes) -> None:
        """Be the worker that the payload tells of."""
        launch = msgspec.json.decode(payload, type=Launch)
        Worker(
            launch.job,
            Identity(launch.worker, launch.generation, 0, _VERSION),
            store=Store(roles, role),
            link=Link(roles, role),
            dataset=replace(dataset, objects=Objects(roles, role, dataset.objects, AT_ONCE)),
            clock=role,
            until=None if launch.limit is None else role.began + launch.limit,
            stepper=stepper,
        ).run()

    return run


class _Copies(Safe):
    """Keeps copies of models in memory."""

    def __init__(self, store: Store, aside: Store, start: Start) -> None:
        self._store, self._aside, self._copy, self._start = store, aside, ("", b""), start

    def mark(self, mark: Mark, seconds: float) -> None:
        """Copy a checkpoint, unless the store has lost it already."""
        if self._store.values.keys() >= set(mark.keys):
            data = checkpoint.read_origin(self._aside, mark.origin, self._start.tables)
            self._copy = mark.origin.key, data

    def restore(self, mark: Mark) -> None:
        """Put the origin of a mark into the store again."""
        copies = {keys.INITIAL: self._start.origin, self._copy[0]: self._copy[1]}
        if mark.origin.key not in copies:
            super().restore(mark)
        self._store.put(mark.origin.key, [copies[mark.origin.key]])


class _Fits:
    """A tuner's Runner: the work is done at once, and what came of it is there after its duration."""

    def __init__(self, role: Role, seconds: float) -> None:
        self._role, self._seconds = role, seconds
        self._done: tuple[float, Decision] | None = None

    def start(self, work: Callable[[], Decision]) -> None:
        """Work at once, and give the result later."""
        self._done = (self._role.time + self._seconds, work())

    def result(self) -> Decision | None:
        """Return the decision once its time has come, and only once."""
        if self._done is None or self._role.time < self._done[0]:
            return None
        decision, self._done = self._done[1], None
        return decision


@dataclass(frozen=True)
class Simulation:
    """What a simulated job came to.

    ``seconds`` are virtual; a core has worked so many of them for its supervisor (``busy``). ``left`` are the
    keys that are in the store in the end.
    """

    outcome: Outcome
    tables: dict[str, Floats]
    records: list[StepRecord]
    seconds: float
    busy: float
    bill: Bill | None
    left: frozenset[str]


def simulate(
    spec: JobSpec,
    dataset: Dataset,
    conditions: Conditions,
    *,
    memory: int = MEMORY,
    leavers: Leavers = nobody,
    listen: Callable[[StepRecord], object] = lambda record: None,
    faults: Faults = NO_FAULTS,
    trace: Trace | None = None,
    limit: float | None = None,
    start: Start | None = None,
    safe: Callable[[Role, KeyValueStore], Safe] | None = None,
    most_turns: float = MOST_TURNS,
    longest: float = LONGEST,
    stepper: type[Stepper] = Stepper,
) -> Simulation:
    """Run a job with its real roles and real gradients on a virtual clock.

    ``faults`` befall it, each at its time: the same ones make the same job. What came and went is added to
    the ``trace``. Functions are ended after ``limit`` virtual seconds. Stuck if it does not come to an end;
    Killed if its supervisor is. The job goes on from a ``start``, if given. ``safe`` is given the supervisor
    and a way to the store for what runs beside it. The ``stepper`` of each worker takes its steps.
    """
    roles = Roles(conditions, faults, [] if trace is None else trace, most_turns=most_turns, longest=longest)
    role = roles.join(SUPERVISOR, 0.0)
    store, aside, records = Store(roles, role), Beside(roles, role), list[StepRecord]()
    runtime = VirtualRuntime(roles, worker_in(roles, dataset, stepper), limit)
    schedule = Schedule.of(spec, [file.rows for file in dataset.manifest.train])
    start = start or fresh(spec, schedule)
    start.put(store)
    earlier = start.past.cost if start.past else 0.0
    meter = Meter(spec.tariff, opened=0.0, memory=memory, earlier=earlier) if spec.tariff else None
    if meter is not None and conditions.led_by_function:
        meter.start([LEADER], 0.0)

    def hear(record: StepRecord) -> object:
        """Keep a step, and tell who listens."""
        records.append(record)
        return listen(record)

    hub = Hub(roles, role)
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
        payload=lambda function: launch_of(spec, NOWHERE, *function, limit),
        listen=hear,
        leavers=leavers,
        safe=safe(role, aside) if safe else _Copies(store, aside, start),
        meter=meter,
        tuner=open_tuner(spec, meter, _Fits(role, conditions.deciding())),
    )
    hub.ask = supervisor.request_stop
    try:
        outcome = supervisor.run()
        tables, _ = checkpoint.read_snapshot(store, outcome.snapshot, start.tables)
        seconds = role.time
        runtime.finish(0.0 if outcome.given_up else GRACE)
        outcome.ended += (stopped := runtime.stop(GRACE))
        if meter is not None and conditions.led_by_function:
            meter.end(LEADER, seconds)
        bill = final_bill(meter, stopped, now=role.time, done=seconds)
        return Simulation(outcome, tables, records, seconds, role.busy, bill, frozenset(roles.values))
    finally:
        runtime.stop(GRACE)
