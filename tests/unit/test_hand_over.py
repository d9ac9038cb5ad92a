"""Jobs whose functions have a time limit, in virtual time: the same bits as without, and nobody is lost."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import trials

from mlless import checkpoint
from mlless.channels.embedded_store import EmbeddedStore
from mlless.checkpoint import Memory
from mlless.clock import SystemClock
from mlless.data.holding import Holding
from mlless.errors import JobError, WorkerLost
from mlless.job import JobSpec
from mlless.membership import Schedule
from mlless.models import model_of
from mlless.recipes import job_of
from mlless.replica import Replica
from mlless.simulation.jobs import Simulation, simulate
from mlless.simulation.trace import Dismissed, Launched, Struck, Trace
from mlless.stepping import Laps, Stepper
from mlless.wishes import Wishes

START = 0.3  # seconds that a function takes to start


def job(kind: str, workers: int, *, epochs: int = 12, parts: int = 3, **wishes: object) -> JobSpec:
    manifest = trials.dataset(kind).manifest
    rows = sum(file.rows for file in manifest.train)
    size = {"factors": 3} if kind == "mf" else {}
    wanted = Wishes(batch_size=rows // (workers * parts), epochs=epochs, workers=workers, **size, **wishes)
    spec = job_of(wanted, manifest, kind)
    return msgspec.structs.replace(spec, stop=msgspec.structs.replace(spec.stop, patience=None))


def run(
    spec: JobSpec, limit: float | None, trace: Trace | None = None, row: float = 5e-3, **options: object
) -> Simulation:
    work = {**trials.DURATIONS.work, "compute": row}
    durations = replace(trials.DURATIONS, work=work, start=START)
    return simulate(spec, trials.dataset(spec.dataset), durations, limit=limit, trace=trace, **options)


def assert_same_bits(one: Simulation, other: Simulation) -> None:
    assert one.outcome.model == other.outcome.model
    for name, table in one.tables.items():
        assert np.array_equal(table.view(np.uint32), other.tables[name].view(np.uint32)), name


def launches(trace: Trace) -> list[tuple[int, int]]:
    return [who for _, one in trace if isinstance(one, Launched) for who in one.functions]


@pytest.mark.parametrize("optimizer", ["nesterov", "adagrad"])
@pytest.mark.parametrize("sync", ["bsp", "isp"])
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("kind", ["mf", "lr"])
def test_a_job_with_a_time_limit_trains_the_same_model(kind, workers, sync, optimizer):
    spec = job(kind, workers, sync=sync, optimizer=optimizer, learning_rate=0.05)
    trace: Trace = []
    unlimited = run(spec, None)
    limited = run(spec, max(3.5, unlimited.seconds / 5), trace)
    assert_same_bits(limited, unlimited)
    assert not any(isinstance(one, Dismissed | Struck) for _, one in trace)
    handovers = sum(record.handovers for record in limited.records)
    assert handovers >= 2 * workers
    assert len(launches(trace)) >= workers + handovers
    for mine, others in zip(limited.records, unlimited.records, strict=True):
        assert (
            mine.step,
            mine.samples,
            mine.loss,
            mine.heldout,
            mine.entries,
            mine.bytes_out,
            mine.bytes_in,
        ) == (
            others.step,
            others.samples,
            others.loss,
            others.heldout,
            others.entries,
            others.bytes_out,
            others.bytes_in,
        )
        assert mine.losses == ()
        assert mine.bytes_kept > others.bytes_kept or not mine.handovers or mine.step == 0


def test_who_would_not_come_to_the_end_of_a_step_hands_over_before_its_successor_is_ready():
    """Steps take a third of the limit and more."""
    spec, trace = job("mf", 2, epochs=4, sync="isp"), list[object]()
    limited = run(spec, 4.0, trace, row=2e-2)
    assert_same_bits(limited, run(spec, None, row=2e-2))
    assert not any(isinstance(one, Dismissed | Struck) for _, one in trace)


@pytest.mark.parametrize("workers", [1, 3])
def test_steps_that_are_longer_than_the_limit_end_the_job(workers):
    with pytest.raises(WorkerLost, match=r"worker . died in step 0"):
        run(job("mf", workers), 4.0, row=workers * 5e-2)


def test_a_limit_in_which_nothing_can_be_trained_ends_the_job_at_once():
    with pytest.raises(JobError, match=r"functions end too soon to train anything: .* Raise `time_limit`"):
        run(job("mf", 2), 2.5)


def test_both_functions_are_paid_for_while_one_hands_over():
    spec = job("mf", 2, tariff="published-ibm", sync="isp")
    unlimited, limited = run(spec, None), run(spec, 4.0)
    assert_same_bits(limited, unlimited)
    assert limited.bill is not None
    assert unlimited.bill is not None
    assert limited.bill.items[0].what == unlimited.bill.items[0].what == "functions"
    assert limited.bill.items[0].quantity > 1.1 * unlimited.bill.items[0].quantity


def test_a_successor_flushes_as_the_one_before_it_would_have(tmp_path):
    """L2 is settled with the size of the newest mini-batch, which a successor has not seen."""
    spec, flushed = job("lr", 2, sync="isp", optimizer="adagrad"), []
    dataset = trials.dataset("lr")
    schedule = Schedule.of(spec, [file.rows for file in dataset.manifest.train])
    plan = schedule.first(2)
    store = EmbeddedStore(tmp_path)

    def stepper(replica: Replica) -> Stepper:
        clock = SystemClock()
        return Stepper(spec, Holding(dataset, spec.seed), replica, clock, Laps(clock))

    old = Replica(model_of(spec.model).shapes)
    first = stepper(old)
    first.take_part(plan, (1, 0))
    origin, _ = checkpoint.save_origin(store, "handover/1/1.0", old, 1, first.memory, whole=True)
    for forgetful in (False, True):
        new = Replica(old.shapes)
        second = stepper(new)
        second.memory, _ = checkpoint.load_origin(store, origin, new, origin.step)
        if forgetful:
            second.memory = Memory()
        flushed.append(second.flush(plan).update)
    expected = first.flush(plan).update
    values = [[table.values.tobytes() for table in update] for update in (expected, *flushed)]
    assert values[1] == values[0] != values[2]
