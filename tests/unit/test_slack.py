"""Jobs in virtual time whose workers merge some steps late: how they run, and that time changes no bit."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
import trials
from lives import Fate, History

from mlless.channels.embedded_store import EmbeddedStore
from mlless.data.dataset import Dataset
from mlless.data.partition import partition
from mlless.data.synthetic import write_ratings
from mlless.errors import UsageError
from mlless.exchange.filter import SignificanceFilter
from mlless.exchange.pending import Pending
from mlless.exchange.reading import Reader
from mlless.job import JobSpec, Sync
from mlless.keys import update_key
from mlless.messages import Commit, Plan, Report
from mlless.recipes import changed, job_of
from mlless.records import StepRecord
from mlless.replica import Replica, TableShape
from mlless.report.history import that_count
from mlless.simulation.conditions import Durations, Uneven
from mlless.simulation.faults import SUPERVISOR, Blow, Faults
from mlless.simulation.jobs import Simulation, simulate
from mlless.simulation.trace import Dismissed, Heard, Sent, Struck, Trace
from mlless.wishes import Wishes


def uneven() -> Uneven:
    """Return durations in which one worker after another is slow for six steps in a row."""
    durations = {"work": trials.DURATIONS.work, "message": 2e-3, "request": 1e-3}
    return Uneven(**durations, slower=lambda worker, number: 7.0 if number // 6 % 4 == worker else 1.0)  # type: ignore[arg-type]


def job(kind: str, workers: int = 4, parts: int = 9, **wishes: object) -> JobSpec:
    manifest = trials.dataset(kind).manifest
    rows = sum(file.rows for file in manifest.train)
    options = {"batch_size": rows // (workers * parts), "epochs": 3, "workers": workers, "slack": 3, **wishes}
    return job_of(Wishes(**options), manifest, kind)  # type: ignore[arg-type]


def run(spec: JobSpec, durations: Durations | None = None, **options: object) -> Simulation:
    return simulate(spec, trials.dataset(spec.dataset), durations or uneven(), **options)  # type: ignore[arg-type]


def leave(record: StepRecord) -> Collection[int]:
    return {2: (1,), 9: (0,)}.get(record.step, ())


def assert_same_bits(one: Simulation, other: Simulation) -> None:
    assert one.outcome.model == other.outcome.model
    for name, table in one.tables.items():
        assert np.array_equal(table.view(np.uint32), other.tables[name].view(np.uint32)), name


def most_ahead(trace: Trace) -> int:
    """Return how many steps a report was ahead of the open one at most."""
    opened = most = 0
    for _, one in trace:
        if isinstance(one, Sent) and isinstance(one.message, Commit):
            opened = one.message.step + 1
        elif isinstance(one, Heard) and isinstance(one.message, Report):
            most = max(most, one.message.step - opened)
    return most


@pytest.mark.parametrize("slack", [1, 3])
@pytest.mark.parametrize("sync", ["bsp", "isp"])
@pytest.mark.parametrize("kind", ["mf", "lr"])
def test_who_is_slow_and_when_changes_no_bit(kind: str, sync: str, slack: int) -> None:
    """Workers leave on the way, too."""
    spec = job(kind, sync=sync, slack=slack)
    uneven, even = Trace(), Trace()
    one = run(spec, trace=uneven, leavers=leave)
    other = run(spec, Durations(), trace=even, leavers=leave)
    delayed = run(spec, faults=Faults(seed=3, delay=0.3), leavers=leave)
    assert_same_bits(one, other)
    assert_same_bits(one, delayed)
    assert most_ahead(uneven) == slack
    assert one.records[-1].workers == 2


@pytest.mark.parametrize("kind", ["mf", "lr"])
def test_slack_is_what_makes_the_difference(kind: str) -> None:
    without, others = run(job(kind, slack=0)), run(job(kind, slack=0), Durations())
    assert_same_bits(without, others)
    trace = Trace()
    run(job(kind, slack=0), trace=trace)
    assert most_ahead(trace) == 0
    late = run(job(kind, slack=1))
    assert any(not np.array_equal(table, without.tables[name]) for name, table in late.tables.items())


@cache
def ratings() -> Dataset:
    """Return generated ratings that are enough to tell models apart by a thousandth of RMSE."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_ratings(folder / "source.csv", users=300, items=120, rows=16_000, factors=3, seed=1)
        return trials.in_memory(partition(folder / "source.csv", folder / "data"), "ratings")


def straggler(worker: int, step: int) -> float:
    """In each step one of four workers, drawn by the step, takes five times as long."""
    return 5.0 if random.Random(step).randrange(4) == worker else 1.0


@pytest.mark.parametrize("sync", ["bsp", "isp"])
def test_slack_makes_up_for_a_worker_that_is_slow_now_and_then(sync: str) -> None:
    dataset, rates, errors = ratings(), [], []
    for slack in (0, 3):
        durations = Uneven(work={"compute": 1e-3, "evaluate": 1e-5}, message=1e-3, slower=straggler)
        wishes = Wishes(workers=4, epochs=4, sync=sync, slack=slack, batch_size=100)  # type: ignore[arg-type]
        done = simulate(job_of(wishes, dataset.manifest, "ratings"), dataset, durations)
        rates.append(len(done.records) / done.seconds)
        errors.append(done.outcome.model.heldout["rmse"])
    assert rates[1] > 1.7 * rates[0]
    assert errors[1] == pytest.approx(errors[0], abs=0.005)


def test_functions_with_a_time_limit_hand_over_when_nobody_is_ahead() -> None:
    spec, trace, even = job("mf", epochs=9), Trace(), replace(trials.DURATIONS, start=0.2)
    unlimited = run(spec, even)
    limited = run(spec, even, limit=max(4.0, unlimited.seconds / 4), trace=trace)
    assert not any(isinstance(one, Dismissed | Struck) for _, one in trace)
    assert sum(record.handovers for record in limited.records) >= 8
    drained = {plan.step for _, one in trace for plan in plans_of(one) if plan.due(3) == plan.step}
    handed = {record.step for record in limited.records if record.handovers}
    assert handed <= drained
    assert [one.samples for one in limited.records] == [one.samples for one in unlimited.records]
    assert near(limited, unlimited)


def plans_of(event: object) -> tuple[Plan, ...]:
    """Return the plans that a commit tells."""
    return event.message.plans if isinstance(event, Sent) and isinstance(event.message, Commit) else ()


def near(one: Simulation, other: Simulation) -> bool:
    """Return whether two jobs come to about the same, by some forty rows."""
    return all(
        abs(value - other.outcome.model.heldout[name]) < 0.05
        for name, value in one.outcome.model.heldout.items()
    )


@pytest.mark.parametrize("on_loss", ["replace", "shrink"])
@pytest.mark.parametrize("kind", ["mf", "lr"])
def test_who_is_lost_while_others_are_ahead_is_replaced(kind: str, on_loss: str) -> None:
    """Worker 0 is the slow one when it is killed; worker 2 has reported steps that are not open yet."""
    spec, trace = job(kind, on_loss=on_loss), Trace()
    faults = Faults(blows={(0, 0): Blow("kill", 12, after=False), (2, 0): Blow("kill", 24, after=True)})
    lost = run(spec, faults=faults, trace=trace)
    assert sum(len(one.functions) for _, one in trace if isinstance(one, Dismissed)) == 2
    calm = run(spec)
    assert sum(one.samples for one in lost.records) == sum(one.samples for one in calm.records)
    assert lost.records[-1].workers == (4 if on_loss == "replace" else 2)
    assert near(lost, calm)
    assert most_ahead(trace) == 3


def test_slack_is_refused_with_a_pattern_that_has_mergers() -> None:
    for pattern in ("scatter", "allreduce"):
        with pytest.raises(UsageError, match=f"`slack` 3 `pattern` {pattern}"):
            job("mf", pattern=pattern)
    with pytest.raises(UsageError, match="`slack` 3 `pattern` scatter"):  # as a job is resumed
        changed(job("mf"), {"pattern": "scatter"})
    for slack in (-1, 33):
        with pytest.raises(UsageError, match="slack"):
            job("mf", slack=slack)


def test_slack_without_effect_is_told() -> None:
    with pytest.warns(UserWarning, match="slack has no effect"):
        alone = job("mf", workers=1)
    with pytest.warns(UserWarning, match="the pattern has no effect"):
        other = job("mf", workers=1, slack=0, pattern="scatter")
    assert_same_bits(run(alone), run(other))


def bits(replica: Replica) -> list[bytes]:
    return [table.shared.tobytes() for table in replica.tables]


@pytest.mark.parametrize("merge", ["sum", "sqrt-members", "sqrt-publishers"])
def test_what_is_pending_is_seen_and_leaves_no_trace(merge: str, tmp_path: Path) -> None:
    """Three updates that touch the same rows: what is seen is what their merges alone would come to."""
    dice, me = np.random.default_rng(5), (1, 0)
    shapes = (TableShape("users", 20, 3, apart=True), TableShape("items", 12, 3))
    sync = Sync(significance=0.0, half=False, merge=merge)  # type: ignore[arg-type]
    replica, twin = Replica(shapes), Replica(shapes)
    start = {shape.name: dice.normal(size=(shape.rows, 3)).astype(np.float32) for shape in shapes}
    for one in (replica, twin):
        one.restore(start)
    reader, unused = Reader(EmbeddedStore(tmp_path), replica), SignificanceFilter(sync, replica)
    pending = Pending(reader, replica, sync, me)
    packed: list[bytes] = []
    for step in range(3):
        for table in replica.tables:
            table.residual[dice.permutation(table.shape.rows)[:5]] = dice.normal(size=(5, 3))
        update = unused.flush()
        reader.sealed({update_key(step, me): update}, sync.compression)
        pending.add(step, 4, update)
        packed.append(bytes(reader.own[update_key(step, me)]))
        pending.lay()
        twin.merge({"own": packed[-1]}, sync.merge, 4)
        assert bits(replica) == bits(twin)
    pending.add(3, 4, unused.flush())  # which is nothing, and is not published
    pending.lift()
    assert all(np.array_equal(table.shared, start[table.shape.name]) for table in replica.tables)
    replica.merge({"own": packed[0]}, sync.merge, 4)
    twin.restore(start)
    twin.merge({"own": packed[0]}, sync.merge, 4)
    below = bits(twin)
    pending.forget(0)
    pending.lay()
    for one in packed[1:]:
        twin.merge({"own": one}, sync.merge, 4)
    assert bits(replica) == bits(twin)
    pending.lift()
    pending.lift()
    assert bits(replica) == below


@pytest.mark.parametrize("call", range(67, 90, 7))
def test_who_was_to_leave_in_some_steps_still_leaves_where_the_job_is_resumed(call: int) -> None:
    """A checkpoint is made at each step; the supervisor dies near the one in which that is decided."""
    spec = msgspec.structs.replace(job("mf", slack=5), checkpoint_every=0.0)
    dead = Faults(blows={SUPERVISOR: Blow("kill", call, after=False)})
    history = History(Fate((dead, Faults()), (None, None), 0.0), trials.dataset("mf"), trials.DURATIONS, None)
    done = history.run(spec, lambda record: (1,) if record.step == 3 else ())
    assert len(history.lives) == 2
    assert [record.workers for record in done.records[-2:]] == [3, 3]
    counted = that_count(history.written)
    assert {record.step for record in counted if record.workers == 3} == {*range(11, len(counted))}


@pytest.mark.parametrize("slack", [0, 3])
def test_a_model_that_diverges_ends_the_job_after_the_steps_that_are_settled(slack: int) -> None:
    done = run(job("lr", slack=slack, optimizer="nesterov", learning_rate=1e30, sync="bsp"))
    assert done.outcome.stop_reason == "diverged"
    assert len(done.records) <= 6 + slack
    assert all(np.isfinite(table).all() for table in done.tables.values())
