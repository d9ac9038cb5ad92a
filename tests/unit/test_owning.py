"""Rows that one worker owns: the same bits as if all had them, wherever they pass through."""

from __future__ import annotations

import random
import tracemalloc
import weakref
from collections.abc import Collection
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import pytest
import trials

from mlless import checkpoint, keys
from mlless.channels.embedded_store import EmbeddedStore
from mlless.checkpoint import Memory
from mlless.clock import SystemClock
from mlless.data.dataset import Dataset
from mlless.data.groups import Group, RatingsGroup
from mlless.data.holding import Holding
from mlless.data.manifest import File
from mlless.deployment import Deployment
from mlless.driver import _Job
from mlless.exchange.codec import pack, seal
from mlless.exchange.filter import SignificanceFilter
from mlless.exchange.update import entries
from mlless.interrupts import Interrupts
from mlless.job import Factorization, JobSpec
from mlless.kernels.arrays import Ids, RatingsArrays
from mlless.membership import Schedule, deal, groups_of
from mlless.messages import Origin, Plan
from mlless.models import model_of, tables_of
from mlless.models.base import Moment
from mlless.models.factorization import FactorizationModel
from mlless.models.ridge import PULL, fit_users
from mlless.owning import Estate
from mlless.recipes import job_of
from mlless.records import StepRecord
from mlless.replica import Replica
from mlless.report.files import RunFiles
from mlless.report.left import fresh
from mlless.simulation.conditions import Durations
from mlless.simulation.faults import Blow, Faults
from mlless.simulation.jobs import Simulation, simulate
from mlless.wishes import Wishes

DATA = trials.dataset("mf")


def job(workers: int = 4, *, shared: bool = False, **wishes: object) -> JobSpec:
    rows = sum(file.rows for file in DATA.manifest.train)
    wanted = Wishes(batch_size=rows // (workers * 3), epochs=4, workers=workers, factors=3, **wishes)  # type: ignore[arg-type]
    return msgspec.structs.replace(job_of(wanted, DATA.manifest, "mf"), share_users=shared)


def run(spec: JobSpec, **options: object) -> Simulation:
    return simulate(spec, DATA, Durations(message=1e-3), **options)  # type: ignore[arg-type]


def same(one: Simulation, other: Simulation) -> bool:
    return one.outcome.model == other.outcome.model and all(
        np.array_equal(table.view(np.uint32), other.tables[name].view(np.uint32))
        for name, table in one.tables.items()
    )


def leave(record: StepRecord) -> Collection[int]:
    return {1: (1,), 5: (0, 3)}.get(record.step, ())


@pytest.mark.parametrize("how", [{}, {"pattern": "scatter"}, {"pattern": "allreduce"}, {"slack": 2}])
def test_where_all_is_published_owned_rows_have_the_bits_of_shared_ones(how: dict[str, object]) -> None:
    """A user has one trainer: to publish all of its change and to merge that alone is to move it."""
    owned, shared = (run(job(sync="bsp", shared=share, **how)) for share in (False, True))
    assert same(owned, shared)
    assert sum(one.bytes_in for one in owned.records) < sum(one.bytes_in for one in shared.records)


@pytest.mark.parametrize("how", [{}, {"pattern": "scatter"}, {"slack": 2}])
def test_rows_pass_to_heirs_and_to_successors_whole(how: dict[str, object]) -> None:
    """Without an optimizer's state that is a worker's own, it makes no difference who trains a user."""
    spec = job(sync="bsp", optimizer="nesterov", learning_rate=0.1, **how)
    still = msgspec.structs.replace(spec.optimizer, momentum=0.0)
    spec = msgspec.structs.replace(spec, optimizer=still)
    owned, shared = (
        run(msgspec.structs.replace(spec, share_users=share), leavers=leave) for share in (False, True)
    )
    assert same(owned, shared)
    assert {record.workers for record in owned.records} == {4, 3, 1}


def test_the_state_passes_with_the_rows() -> None:
    """Groups change hands, and Adagrad goes on as if they had not: with one trainer all is as before."""
    straight = run(job(sync="bsp"), leavers=lambda record: (1,) if record.step == 1 else ())
    kept = run(
        job(sync="bsp"),
        leavers=lambda record: (1,) if record.step == 1 else (),
        limit=9.0,
    )
    assert same(straight, kept)


@pytest.mark.parametrize("on_loss", ["replace", "shrink"])
@pytest.mark.parametrize("how", [{}, {"pattern": "scatter"}, {"slack": 2}])
def test_rows_of_an_owner_that_dies_are_computed_anew(on_loss: str, how: dict[str, object]) -> None:
    spec, straight = job(on_loss=on_loss, **how), run(job(**how))
    value = straight.outcome.model.heldout["rmse"]
    for call in (9, 25, 40):
        faults = Faults(blows={(1, 0): Blow("kill", call, after=False)})
        hurt = run(spec, faults=faults)
        assert hurt.outcome.model.heldout["rmse"] < value * 1.05
        assert sum(one.samples for one in hurt.records) == sum(one.samples for one in straight.records)


def test_of_a_model_in_parts_each_row_is_its_owners(tmp_path: Path) -> None:
    spec, store = job(3), EmbeddedStore(tmp_path)
    dice, start = np.random.default_rng(1), {"users": np.full((40, 4), 9, np.float32)}
    owners = [np.array(sorted(some), np.uint32) for some in ((3, 5, 8), (0, 1), (2, 30))]
    expected, parts = start["users"].copy(), []
    for number, rows in enumerate(owners):
        replica = Replica(tables_of(spec))
        users, items = replica.tables
        items.shared[:] = 1
        users.shared[:] = dice.normal(size=users.shared.shape)  # also of others': worth nothing
        users.state[:] = dice.normal(size=users.shared.shape)
        key = f"part/{number}"
        checkpoint.save_origin(store, key, replica, 7, Memory(), rows=rows, shared=number == 0)
        parts.append((key, replica, rows))
        expected[rows] = users.shared[rows]
    names = [key for key, _, _ in parts]
    tables, step = checkpoint.read_snapshot(store, names, start)
    assert step == 7
    assert np.array_equal(tables["users"], expected)
    assert (tables["items"] == 1).all()
    # Who begins with it takes the rows that it is to own, whoever had them.
    wanted, heir = np.array([1, 5, 30], np.uint32), Replica(tables_of(spec))
    origin = Origin(names[0], 7, "", tuple(names[1:]))
    checkpoint.load_origin(store, origin, heir, origin.step, wanted)
    assert np.array_equal(heir.tables[0].shared[wanted], expected[wanted])
    assert not heir.tables[0].shared[np.setdiff1d(np.arange(40), wanted)].any()
    for _, replica, rows in parts:
        both = np.intersect1d(rows, wanted)
        assert np.array_equal(heir.tables[0].state[both], replica.tables[0].state[both])
    whole = checkpoint.read_origin(store, origin, start)
    store.put("whole", [whole])
    again = Replica(tables_of(spec))
    checkpoint.load_origin(store, Origin("whole", 7, ""), again, 7, wanted)
    assert np.array_equal(again.tables[0].rows.data, heir.tables[0].rows.data)


def test_a_digest_covers_what_is_shared() -> None:
    replica = Replica(tables_of(job()))
    before = replica.digest()
    replica.tables[0].shared[3] = 1
    assert replica.digest() == before
    replica.tables[1].shared[3] = 1
    assert replica.digest() != before


@pytest.mark.parametrize("half", [False, True])
def test_what_is_owned_is_no_part_of_an_update_and_has_no_residual(half: bool) -> None:
    spec = job(sync="isp", significance=0.3 if half else 0.0)
    replica, holding = Replica(tables_of(spec)), Holding(DATA, 0)
    model = model_of(spec.model)
    replica.restore(model.initial(np.random.default_rng(1)))
    holding.own(groups_of(deal([file.rows for file in DATA.manifest.train], range(4)), 2))
    publisher, before = SignificanceFilter(spec.sync, replica), replica.tables[0].shared.copy()
    batch = holding.batch(0, 1, 0)
    assert batch is not None
    ready = publisher.prepare(0, batch.touched)
    _, sent = model.step(replica, batch, spec.optimizer, Moment(0, 0, 4), ready)
    update = publisher.take(ready, sent)
    users, items = update
    assert (len(users.rows), len(users.values)) == (0, 0)
    assert len(items.rows) > 0
    seal(pack(update, "none"), "none")  # its values are of one kind
    moved = (replica.tables[0].shared != before).any(axis=1)
    assert set(np.flatnonzero(moved)) <= set(batch.named[0].tolist())
    assert moved.any()
    assert not replica.tables[0].residual.any()
    assert entries(publisher.flush()[:1]) == 0


def test_the_users_of_a_worker_are_all_that_its_groups_have() -> None:
    owners = deal([file.rows for file in DATA.manifest.train], range(3))
    found = []
    for room in (1 << 30, 1):
        for worker in range(3):
            holding = Holding(DATA, 0, room)
            holding.own(groups_of(owners, worker))
            users = holding.users()
            named = [batch.named[0] for batch in holding.whole(groups_of(owners, worker))]
            assert set(np.concatenate(named).tolist()) <= set(users.tolist())
            found.append(users)
    everyone = np.concatenate(found[:3])
    assert len(np.unique(everyone)) == len(everyone)  # nobody has two owners
    for one, other in zip(found[:3], found[3:], strict=True):
        assert np.array_equal(one, other)


def test_who_is_computed_anew_fits_its_ratings_best() -> None:
    spec = job()
    model = model_of(spec.model)
    assert isinstance(model, FactorizationModel)
    store, replica = None, Replica(tables_of(spec))
    replica.restore(model.initial(np.random.default_rng(2)))
    replica.tables[1].shared[:] = np.random.default_rng(3).normal(size=replica.tables[1].shared.shape)
    replica.tables[0].state[:] = 5
    plan = Schedule([file.rows for file in DATA.manifest.train], spec.batch_size, 1).first(4)
    plan = msgspec.structs.replace(plan, epoch=2, part=1)
    holding = Holding(DATA, 0)
    estate = Estate(store, model, replica, holding, SystemClock())  # type: ignore[arg-type]
    assert estate.enter(plan, 1, {}) == 0
    ratings: dict[int, list[tuple[int, float]]] = {}
    for group in groups_of(plan.owners, 1):
        for batch in holding.whole([group]):
            users = np.repeat(batch.users, np.diff(batch.starts))  # type: ignore[union-attr]
            for user, item, value in zip(users, batch.items[batch.local], batch.ratings, strict=True):  # type: ignore[union-attr]
                ratings.setdefault(int(user), []).append((int(item), float(value)))
    assert ratings
    items = replica.tables[1].shared.astype(np.float64)
    for user, rated in ratings.items():
        row = replica.tables[0].shared[user].astype(np.float64)
        numbers = np.array([item for item, _ in rated])
        x = items[numbers].copy()
        wanted = (np.array([value for _, value in rated]) - model.spec.centre) / model.spec.deviation
        wanted -= x[:, -1]
        x[:, -1] = 1
        pull = model.spec.l2 * row
        gradient = x.T @ (x @ row - wanted) + len(rated) * pull + PULL * row
        assert np.abs(gradient).max() < 1e-3 * len(rated)
        squares = ((x * (x @ row - wanted)[:, None] + pull) ** 2).sum(axis=0)
        passes = plan.epoch + plan.part / plan.parts
        assert replica.tables[0].state[user] == pytest.approx(passes * squares, rel=1e-3, abs=1e-6)
    others = np.setdiff1d(np.arange(40), estate.rows)
    assert (replica.tables[0].state[others] == 5).all()


def test_what_a_merger_keeps_is_no_part_of_the_rows_that_it_leaves() -> None:
    replica, rows = Replica(tables_of(job(3))), np.array([1, 4], np.uint32)
    replica.kept[1][:] = 1
    for shared in (False, True):
        arrays, _ = checkpoint.origin_of(replica, 5, Memory(), whole=True, rows=rows, shared=shared)
        assert ("items/kept" in arrays) == shared


def test_to_know_whose_they_are_no_more_than_one_group_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that do not fit are read one by one."""
    refs: list[weakref.ref[Ids]] = []
    held = []
    read = Dataset.read

    def watched(self: Dataset, file: File) -> Group:
        held.append(sum(one() is not None for one in refs))
        group = read(self, file)
        assert isinstance(group, RatingsGroup)
        refs.append(weakref.ref(group.users))
        return group

    holding = Holding(DATA, 0, 1)
    holding.own(tuple(range(len(DATA.manifest.train))))
    monkeypatch.setattr(Dataset, "read", watched)
    assert len(holding.users()) == 40
    assert len(held) > 4
    assert max(held[: len([file for file in DATA.manifest.train if file.rows])]) <= 1


def test_users_are_computed_in_the_memory_of_a_few() -> None:
    """Whatever their number, and that of the factors."""
    count, factors = 3000, 60
    shape = Factorization(
        users=count, items=50, factors=factors, l2=0.0, centre=3.0, deviation=1.0, low=1.0, high=5.0
    )
    model, dice = FactorizationModel(shape), np.random.default_rng(1)
    replica = Replica(model.shapes)
    replica.restore(model.initial(dice))
    local = dice.integers(0, 50, 3 * count).astype(np.uint16)
    batch = RatingsArrays(
        np.arange(count, dtype=np.uint32),
        np.arange(0, 3 * count + 1, 3, dtype=np.uint32),
        np.arange(50, dtype=np.uint32),
        local,
        2,
        dice.uniform(1, 5, 3 * count).astype(np.float32),
    )
    tracemalloc.start()
    fit_users(model, replica, batch, passes=2.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 4 * count * (factors + 1)  # four times what is found; a matrix for each has 90 MB


def test_heirs_take_what_was_left_and_compute_the_rest(tmp_path: Path) -> None:
    """Worker 1 leaves its rows, worker 2 is lost: worker 0 has groups of both in the end."""
    spec, store, sizes = job(3), EmbeddedStore(tmp_path), [file.rows for file in DATA.manifest.train]
    model, before = model_of(spec.model), deal(sizes, range(3))
    first = Plan(4, (0, 1, 2), 0, 3, 1, before)
    later = Plan(5, (0, 1), 0, 3, 2, deal(sizes, (0,), before), flush=(1,))
    replicas, estates = [], []
    for worker in (0, 1):
        replica = Replica(tables_of(spec))
        replica.tables[1].shared[:] = 0.5
        replica.tables[0].shared[:] = worker + 1
        replica.tables[0].state[:] = worker + 1
        estate = Estate(store, model, replica, Holding(DATA, 0), SystemClock())
        store.put("start", [checkpoint.packed({"items": replica.tables[1].shared.copy()}, {})])
        estate.own(first, worker)
        replicas.append(replica)
        estates.append(estate)
    leaver, heir = replicas[1], replicas[0]
    key = keys.model_key(keys.ROWS, 5, (1, 0))
    rows = estates[1].rows
    checkpoint.save_origin(store, key, leaver, 5, Memory(), whole=True, rows=rows, shared=False)
    own = estates[0].rows
    assert own is not None
    assert rows is not None
    assert estates[0].enter(later, 0, {1: key}) > 0
    users = heir.tables[0]
    assert (users.shared[own] == 1).all()
    assert (users.shared[rows] == 2).all()
    assert (users.state[rows] == 2).all()
    lost = np.setdiff1d(estates[0].rows, np.union1d(own, rows))
    assert len(lost)
    assert (users.shared[lost] != 1).any()
    assert (users.state[lost] != 1).any()
    assert estates[0].enter(later, 0, {1: key}) == 0


def test_what_is_owned_is_no_part_of_the_flush_that_a_budget_keeps_time_for() -> None:
    spec = job(max_time=30.0)
    many = msgspec.structs.replace(spec.model, users=100_000)
    stop = msgspec.structs.replace(spec.stop, epochs=1000)
    slowly = Durations(message=1e-3, work={"compute": 1e-2}, byte=1e-6)
    done = simulate(msgspec.structs.replace(spec, model=many, stop=stop), DATA, slowly)
    assert done.outcome.stop_reason == "time"
    assert 27.0 <= done.outcome.seconds <= 30.0  # to move all users would take ten seconds


def test_what_is_owned_has_room_once_in_the_store_and_not_once_a_worker() -> None:
    needed = []
    for shared in (False, True):
        spec = job(shared=shared)
        schedule = Schedule.of(spec, [file.rows for file in DATA.manifest.train])
        start, where = fresh(spec, schedule), Deployment(time_limit=60.0)
        files = cast(RunFiles, None)
        run = _Job(spec, DATA, schedule, start, where, None, list, Interrupts(), files, "")
        needed.append(run.needed)
    users, items = 40 * 4 * 4, 20 * 4 * 4
    assert needed == [10 * (users + items) + 6 * (users + 4 * items), (10 + 6 * 4) * (users + items)]


def test_one_worker_has_no_use_for_it_and_clicks_have_no_users() -> None:
    assert not job(1).owns_users
    assert not any(shape.owned for shape in tables_of(job(1)))
    clicks = job_of(Wishes(workers=4), trials.dataset("lr").manifest, "lr")
    assert not clicks.owns_users
    assert not any(shape.owned for shape in tables_of(clicks))


def test_the_seed_makes_the_same_bits_again() -> None:
    dice = random.Random(1)
    faults = Faults(blows={(dice.randrange(4), 0): Blow("kill", 20, after=True)})
    assert same(run(job(), faults=faults), run(job(), faults=faults))
