"""Several mini-batches an exchange: all rows that have moved are tested, and no change is lost."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import trials

from mlless.billing.tariff import load_tariff
from mlless.job import JobSpec
from mlless.messages import Plan
from mlless.models.base import Moment
from mlless.recipes import job_of
from mlless.replica import Replica
from mlless.simulation.conditions import Durations
from mlless.simulation.jobs import Simulation, simulate
from mlless.stepping import Stepper
from mlless.wishes import Wishes


def job(kind: str, steps: int, **wishes: object) -> JobSpec:
    manifest = trials.dataset(kind).manifest
    rows = sum(file.rows for file in manifest.train)
    size = {"factors": 9} if kind == "mf" else {}
    own = {"workers": 3, "epochs": 3, "batch_size": rows // (3 * 5), "local_steps": steps}
    spec = job_of(msgspec.convert({**own, **size, **wishes}, Wishes), manifest, kind)
    return msgspec.structs.replace(spec, local_since=0)


def run(spec: JobSpec, **options: object) -> Simulation:
    return simulate(spec, trials.dataset(spec.dataset), Durations(message=1e-3), **options)


@pytest.mark.parametrize("kind", ["mf", "lr"])
def test_an_exchange_takes_so_many_mini_batches_and_the_last_of_an_epoch_what_is_left(kind: str) -> None:
    single, double = (run(job(kind, steps)) for steps in (1, 2))
    epoch = sum(record.samples for record in single.records[:5])
    assert [record.epoch for record in single.records[:5]] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert [record.epoch for record in double.records[:3]] == pytest.approx([0.4, 0.8, 1.0])
    assert sum(record.samples for record in double.records[:3]) == epoch
    assert len(double.records) == 3 * 3 + 2
    assert sum(record.bytes_in for record in double.records) < sum(
        record.bytes_in for record in single.records
    )


class Watched(Stepper):
    """Notes of every step what it moved, and what is left of it."""

    moments: list[Moment]
    left: list[tuple[Plan, float, int]]  # the most that is kept of an entry, as a share of what is shared

    def take_part(self, plan, who, *rest):  # type: ignore[no-untyped-def]
        before = [table.residual.copy() for table in self._replica.tables]
        taken = super().take_part(plan, who, *rest)
        if plan.trainers and not plan.flush:
            limit = self._spec.sync.significance / np.sqrt(plan.step + 1)
            for table, old in zip(self._replica.tables, before, strict=True):
                moved = (table.residual != old).any(axis=1)
                over = np.abs(table.residual) > limit * np.abs(table.shared) + 1e-6
                Watched.left.append((plan, float(np.abs(table.residual).max()), int(over[moved].sum())))
        return taken

    def _step(self, batch, moment, publish):  # type: ignore[no-untyped-def]
        Watched.moments.append(moment)
        return super()._step(batch, moment, publish)


@pytest.mark.parametrize("kind", ["mf", "lr"])
@pytest.mark.parametrize("sync", ["bsp", "isp"])
def test_all_rows_that_have_moved_since_the_last_exchange_are_tested(kind: str, sync: str) -> None:
    """In BSP nothing is left of any; in ISP nothing that is significant, but what float16 rounds off."""
    Watched.moments, Watched.left = [], []
    spec = job(kind, 3, sync=sync)
    plain = msgspec.structs.replace(spec.sync, half=False, merged_significance=None)
    run(msgspec.structs.replace(spec, sync=plain), stepper=Watched)
    assert max(plan.length for plan, *_ in Watched.left) == 3
    assert not any(over for _, _, over in Watched.left)
    kept = max(most for _, most, _ in Watched.left)
    assert (kept == 0) == (sync == "bsp")


def test_rate_decay_and_warm_up_count_mini_batches() -> None:
    Watched.moments, Watched.left = [], []
    run(job("mf", 3), stepper=Watched)
    assert sorted({moment.step for moment in Watched.moments}) == list(range(15))
    assert {(moment.step // 5, moment.epoch) for moment in Watched.moments} == {(0, 0), (1, 1), (2, 2)}
    assert {moment.members for moment in Watched.moments} == {3}


@pytest.mark.parametrize("kind", ["mf", "lr"])
def test_local_steps_give_the_same_bits_by_every_pattern_and_once_more(kind: str) -> None:
    """Where sums are sent as they are; also if a worker leaves on the way."""
    runs = [
        run(
            job(kind, 2, pattern=pattern, merged_significance="exact"),
            leavers=lambda record: (1,) if record.step == 2 else (),
        )
        for pattern in ("broadcast", "allreduce", "scatter", "scatter")
    ]
    for name, table in runs[0].tables.items():
        assert all(np.array_equal(table.view(np.uint32), one.tables[name].view(np.uint32)) for one in runs), (
            name
        )


def test_nothing_is_pending_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """L2 counts mini-batches: the flush settles up to the last one of them."""
    replicas: list[Replica] = []
    made = Replica.__init__
    monkeypatch.setattr(
        Replica, "__init__", lambda self, shapes: (made(self, shapes), replicas.append(self))[0]
    )
    run(job("lr", 2))
    trained = [replica for replica in replicas if (replica.tables[0].last >= 0).any()]
    assert len(trained) >= 3
    assert all((replica.tables[0].last == 14).all() for replica in trained)


class TestStepsThatBecomeLonger:
    """In epoch 2 a step has eight mini-batches for the first time, and takes eight times as long."""

    SLOWLY = Durations(message=1e-3, work={"compute": 0.1}, start=0.3)

    def spec(self, **limits: float) -> JobSpec:
        rows = sum(file.rows for file in trials.dataset("mf").manifest.train)
        spec = job("mf", 8, workers=2, epochs=6, batch_size=rows // (2 * 24), factors=3)
        stop = msgspec.structs.replace(spec.stop, patience=None, **limits)
        return msgspec.structs.replace(spec, local_since=2, stop=stop, tariff=load_tariff("published-ibm"))

    def run(self, limit: float | None = None, **limits: float) -> Simulation:
        return simulate(self.spec(**limits), trials.dataset("mf"), self.SLOWLY, limit=limit)

    @pytest.mark.parametrize("limit", [28.0, 34.0, 49.0, 58.0])
    def test_a_function_begins_none_that_it_cannot_end(self, limit: float) -> None:
        done = self.run(limit)
        assert sum(record.lost for record in done.records) == 0
        assert sum(record.handovers for record in done.records) > 0

    @pytest.mark.parametrize("seconds", [52.0, 55.0, 62.0])
    def test_a_job_that_has_no_time_for_one_ends_in_order(self, seconds: float) -> None:
        """With all that it has learnt, and not with the best model of an epoch before."""
        done = self.run(max_time=seconds)
        assert done.outcome.stop_reason == "time"
        assert not done.outcome.given_up
        assert done.outcome.model.step > 48
        assert done.seconds <= seconds

    @pytest.mark.parametrize("dollars", [0.0077, 0.0080, 0.0085])
    def test_nor_does_it_go_over_its_budget(self, dollars: float) -> None:
        done = self.run(max_cost=dollars)
        assert done.outcome.stop_reason == "cost"
        assert done.bill is not None
        assert done.bill.total <= dollars
