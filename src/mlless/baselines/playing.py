"""Plays a job of a system that leads itself in a virtual world, by the same two halves as for real."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec

from mlless.baselines.contract import Function, Launch, System, do
from mlless.baselines.leading import Stage
from mlless.billing.meter import MEMORY, Meter
from mlless.billing.meter import SUPERVISOR as LEADER
from mlless.closing import Listener
from mlless.data.dataset import Dataset
from mlless.data.holding import AT_ONCE
from mlless.data.memory import MemoryObjects
from mlless.deployment import Deployment
from mlless.job import JobSpec
from mlless.records import StepRecord
from mlless.session import Session
from mlless.simulation.conditions import Conditions
from mlless.simulation.faults import NO_FAULTS, SUPERVISOR
from mlless.simulation.functions import VirtualRuntime
from mlless.simulation.jobs import GRACE, NOWHERE, Simulation
from mlless.simulation.ports import Hub, Link, Objects, Store
from mlless.simulation.roles import Role, Roles
from mlless.simulation.running import Play
from mlless.supervisor import final_bill


def play_led(system: System, spec: JobSpec, dataset: Dataset, deployment: Deployment) -> Play:
    """Return how a job of a system that leads itself is played."""

    def play(environment: Conditions, listen: Listener) -> Simulation:
        """Play the job in an environment."""
        roles = Roles(environment, NO_FAULTS, [], most_turns=math.inf, longest=math.inf)
        role, kept, records = roles.join(SUPERVISOR, 0.0), MemoryObjects(), list[StepRecord]()
        lead, work = system.halves(roles)

        def run(own: Role, payload: bytes) -> None:
            """Do the work of one function."""
            launch, objects = msgspec.json.decode(payload, type=Launch), Objects(roles, own, kept)
            there = replace(dataset, objects=Objects(roles, own, dataset.objects, AT_ONCE))
            store, link = Store(roles, own), Link(roles, own)
            do(Function(launch, objects, own, lambda: there, lambda: store, lambda: link), work)

        def hear(record: StepRecord) -> object:
            """Keep a step, and tell who listens."""
            records.append(record)
            return listen(record)

        runtime, hub = VirtualRuntime(roles, run, deployment.time_limit), Hub(roles, role)
        session = Session(NOWHERE, Store(roles, role), hub, runtime)
        memory = environment.memory or MEMORY
        meter = Meter(spec.tariff, opened=role.now(), memory=memory) if spec.tariff else None
        if meter is not None and environment.led_by_function:
            meter.start([LEADER], role.now())
        objects = Objects(roles, role, kept)
        stage = Stage(system, spec, dataset, session, objects, "", role, listen=hear, meter=meter)
        try:
            tables, chosen = lead(stage)
            seconds = role.now()
            runtime.finish(GRACE)
            stage.note(runtime.stop(GRACE))
            if meter is not None and environment.led_by_function:
                meter.end(LEADER, seconds)
            bill = final_bill(meter, (), now=seconds, done=seconds)
            left = frozenset(roles.values)
            return Simulation(stage.outcome(chosen), tables, records, seconds, role.busy, bill, left)
        finally:
            runtime.stop(GRACE)

    return play
