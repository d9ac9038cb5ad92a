"""Jobs in virtual time whose updates move by one pattern or another: the same bits, and no byte untold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import msgspec
import numpy as np
import pytest
import trials

from mlless import keys
from mlless.billing.tariff import TrafficPrice, load_tariff
from mlless.channels.ports import Bytes
from mlless.errors import UsageError
from mlless.exchange.reduction import Merger
from mlless.job import JobSpec
from mlless.messages import Merge
from mlless.options import made
from mlless.recipes import changed, job_of
from mlless.records import StepRecord
from mlless.replica import Replica, TableShape
from mlless.simulation.conditions import Durations
from mlless.simulation.faults import Faults, Strike
from mlless.simulation.jobs import Simulation, simulate
from mlless.simulation.ports import Store
from mlless.wishes import Wishes

PATTERNS = ("broadcast", "allreduce", "scatter")


def job(kind: str, workers: int, **wishes: object) -> JobSpec:
    manifest = trials.dataset(kind).manifest
    rows = sum(file.rows for file in manifest.train)
    size = {"factors": 9} if kind == "mf" else {}
    wanted = Wishes(
        **{"batch_size": rows // (workers * 3), "epochs": 3, "workers": workers, **size, **wishes}
    )
    return job_of(wanted, manifest, kind)


def leave(record: StepRecord) -> Collection[int]:
    return {1: (1,), 4: (0, 3)}.get(record.step, ())


def run(spec: JobSpec, **options: object) -> Simulation:
    return simulate(spec, trials.dataset(spec.dataset), Durations(message=1e-3), **options)


@pytest.mark.parametrize("kind", ["mf", "lr"])
@pytest.mark.parametrize("sync", ["bsp", "isp"])
@pytest.mark.parametrize("workers", [2, 9])
def test_every_pattern_gives_the_same_bits(kind: str, sync: str, workers: int) -> None:
    """Where sums are sent as they are. Workers leave on the way: in the end there are fewer than shards."""
    broadcast, *others = (
        run(job(kind, workers, sync=sync, pattern=pattern, merged_significance="exact"), leavers=leave)
        for pattern in PATTERNS
    )
    for other in others:
        assert other.outcome.model == broadcast.outcome.model
        for name, table in broadcast.tables.items():
            assert np.array_equal(table.view(np.uint32), other.tables[name].view(np.uint32)), name


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", ["mf", "lr"])
def test_every_byte_that_is_read_or_written_is_told_and_billed(
    kind: str, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of a leaver that has merged for others, which reports no further step."""
    moved: Counter[str] = Counter()
    put_all, get = Store.put_all, Store.get

    def counted_put(self, values):
        put_all(self, values)
        moved["out"] += sum(map(len, values.values()))

    def counted_get(self, names):
        values = get(self, names)
        if any(name.startswith((keys.UPDATE, keys.MERGED)) for name in names):
            moved["in"] += sum(map(len, values))
        return values

    monkeypatch.setattr(Store, "put_all", counted_put)
    monkeypatch.setattr(Store, "get", counted_get)
    tariff = msgspec.structs.replace(
        load_tariff("aws-lambda-x86"),
        traffic=TrafficPrice(source="a test", date="2024-01-01", gb_exchanged=0.1),
    )
    spec = msgspec.structs.replace(job(kind, 5, pattern=pattern), tariff=tariff)
    done = run(spec, leavers=leave)
    assert moved == {
        "out": sum(record.bytes_out for record in done.records),
        "in": sum(record.bytes_in for record in done.records),
    }
    kept = sum(record.bytes_kept for record in done.records)
    assert done.bill is not None
    [traffic] = [item for item in done.bill.items if item.what == "updates, traffic"]
    assert traffic.quantity == pytest.approx((moved.total() + kept) / 1e9)


def test_the_shards_of_a_job_follow_from_its_pattern_and_its_workers() -> None:
    shards = {
        (pattern, workers): msgspec.structs.replace(
            job("lr", 3, pattern=pattern), workers=workers, groups=30
        ).shards
        for pattern in PATTERNS
        for workers in (1, 2, 8, 24)
    }
    assert [shards["broadcast", workers] for workers in (1, 2, 8, 24)] == [0, 0, 0, 0]
    assert [shards["allreduce", workers] for workers in (1, 2, 8, 24)] == [0, 1, 1, 1]
    assert [shards["scatter", workers] for workers in (1, 2, 8, 24)] == [0, 2, 8, 8]


@pytest.mark.parametrize("kind", ["mf", "lr"])
def test_what_mergers_keep_is_in_the_model_in_the_end(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever leaves on the way: the sum of what all publish is what the model has moved by."""
    replicas: list[Replica] = []
    made = Replica.__init__

    def remembered(self: Replica, shapes: Sequence[TableShape]) -> None:
        made(self, shapes)
        replicas.append(self)

    kept = 0

    def counted(self: Merger, order: Merge, members: int) -> tuple[dict[str, Bytes], int]:
        nonlocal kept
        merged = merge(self, order, members)
        kept += any(table.any() for table in self._replica.kept)
        return merged

    merge = Merger.merge
    monkeypatch.setattr(Merger, "merge", counted)
    monkeypatch.setattr(Replica, "__init__", remembered)
    spec = job(kind, 9, pattern="scatter", merged_significance=0.7, significance=0.1)
    done = run(spec, leavers=leave)
    assert kept > 0
    assert sum(record.sums_lost for record in done.records) == 0
    assert not any(table.any() for replica in replicas for table in replica.kept)


def test_what_a_merger_kept_that_is_lost_is_counted_and_told() -> None:
    spec = job("mf", 4, pattern="scatter", significance=0.1)
    done = run(spec, faults=Faults(strikes=(Strike(0.02, frozenset({2}), "kill"),)))
    [record] = [record for record in done.records if record.sums_lost]
    assert (record.sums_lost, record.lost) == (1, 1)
    assert "what it had kept of the sums of 1 shard is lost" in record.losses[0]


def test_a_pattern_without_effect_is_told() -> None:
    with pytest.warns(UserWarning, match="the pattern has no effect"):
        alone = job("mf", 1, pattern="scatter")
    assert run(alone).outcome.stop_reason == "epochs"
    with pytest.warns(UserWarning, match="the pattern has no effect"):
        changed(job("mf", 1), {"pattern": "allreduce"})
    assert changed(job("mf", 3), {"pattern": "allreduce"}).pattern == "allreduce"
    with pytest.raises(UsageError, match="pattern"):
        made(Wishes, {"pattern": "ring"})
