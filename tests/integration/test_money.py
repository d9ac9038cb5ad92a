"""What a job costs, that its budget holds, and that workers leave by a policy: whole jobs."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
from integration.jobs import job
from integration.money import DURATIONS, dollars, own_tariff

from mlless.data.dataset import Dataset
from mlless.driver import run_job
from mlless.errors import UsageError
from mlless.membership import deal, groups_of
from mlless.records import StepRecord
from mlless.simulation.conditions import Durations
from mlless.simulation.jobs import Simulation, simulate


def test_a_leaver_is_billed_until_it_has_left(ratings: Dataset) -> None:
    def leave(record: StepRecord) -> tuple[int, ...]:
        return (1, 2) if record.step == 9 else ()

    spec = job(ratings, workers=3, epochs=4, tariff="aws-lambda-x86")
    done = simulate(spec, ratings, Durations(work={"step": lambda _: 1.0}), leavers=leave)
    assert done.bill is not None
    (functions, invocations, node, reads, writes) = done.bill.items
    # In step 11 both flush, the twelfth: they exit once it is committed.
    assert functions.quantity == pytest.approx(2 * (done.seconds + 2 * 12))
    assert invocations.quantity == 3
    assert node.quantity == pytest.approx(done.seconds / 3600)
    # Three manifests, and the files of the groups: those of who has left again by their heirs.
    manifest = ratings.manifest
    owners = deal([file.rows for file in manifest.train], range(3))
    inherited = [*groups_of(owners, 1), *groups_of(owners, 2)]
    files = [*manifest.train, *manifest.validation]
    again = [part[group] for group in inherited for part in (manifest.train, manifest.validation)]
    assert reads.quantity == 3 + sum(file.rows > 0 for file in files + again)
    assert writes.quantity == 3


def test_processes_are_billed_for_what_they_ran(ratings: Dataset, run_folder: Path) -> None:
    def leave(record: StepRecord) -> tuple[int, ...]:
        return (1, 2) if record.step == 20 else ()

    spec = job(ratings, workers=3, epochs=30, patience=30, tariff="published-ibm")
    run = run_job(spec, ratings, run_folder, leavers=leave)
    assert run.bill is not None
    ran = [worker.seconds for worker in run.summary.workers]
    assert all(seconds is not None for seconds in ran)
    tenths = [math.ceil(10 * seconds - 1e-6) / 10 for seconds in ran]  # type: ignore[operator]
    assert run.bill.items[0].quantity == pytest.approx(2 * sum(tenths))
    assert max(ran[1:]) < ran[0]  # type: ignore[operator, type-var]


def test_traffic_is_all_that_was_moved(ratings: Dataset, tmp_path: Path) -> None:
    tariff = own_tariff(tmp_path / "own.toml", "[traffic]\ngb_fetched = 0.02\ngb_exchanged = 0.01")
    spec = job(ratings, workers=3, epochs=3, tariff=tariff)
    done = simulate(spec, ratings, DURATIONS)
    assert done.bill is not None
    fetched, exchanged = done.bill.items[-2:]
    files = ratings.manifest.train + ratings.manifest.validation
    assert fetched.quantity * 1e9 == pytest.approx(sum(file.bytes for file in files))
    moved = sum(one.bytes_out + one.bytes_in + one.bytes_kept for one in done.records)
    assert sum(one.bytes_kept for one in done.records) > 0
    assert exchanged.quantity * 1e9 == pytest.approx(moved)


def test_without_a_tariff_nothing_is_metered(ratings: Dataset) -> None:
    done = simulate(job(ratings, workers=2, epochs=1), ratings, DURATIONS)
    assert done.bill is None
    assert {record.cost for record in done.records} == {None}


def test_what_needs_a_tariff_says_so(ratings: Dataset) -> None:
    for wishes in ({"max_cost": 1.0}, {"tuner": "economy"}):
        with pytest.raises(UsageError, match=r"needs a tariff to count by\. Name one with `tariff`"):
            job(ratings, **wishes)
    with pytest.raises(UsageError, match="without a tuner no worker leaves"):
        job(ratings, min_workers=2)
    with pytest.raises(UsageError, match="least number of workers: expected 1 to 3, found 4"):
        job(ratings, workers=3, min_workers=4, tuner="published")


# The published rule waits until the loss has all but come to rest.
EPOCHS = {"published": 100, "economy": 40}


def tuned(dataset: Dataset, tuner: str, floor: int, tariff: str = "aws-lambda-x86") -> Simulation:
    epochs = EPOCHS[tuner]
    spec = job(
        dataset, workers=8, epochs=epochs, patience=epochs, tuner=tuner, min_workers=floor, tariff=tariff
    )
    return simulate(spec, dataset, DURATIONS)


def counts(done: Simulation) -> list[int]:
    return [record.workers for record in done.records]


@pytest.mark.parametrize("floor", [1, 3, 8])
@pytest.mark.parametrize("tuner", ["published", "economy"])
def test_workers_leave_by_decisions_and_never_below_the_floor(
    ratings: Dataset, tuner: str, floor: int
) -> None:
    done = tuned(ratings, tuner, floor)
    workers = counts(done)
    assert workers == sorted(workers, reverse=True)
    assert min(workers) >= floor
    left = [r.decision for r in done.records if r.decision and r.decision.action == "leave"]
    assert bool(left) == (floor < 8)
    assert workers[0] - sum(len(decision.workers) for decision in left) == workers[-1]
    for record in done.records:
        if record.decision and record.decision.action == "leave":
            # A fit takes longer than a step, and the steps do not wait for it.
            assert record.step > record.decision.step >= record.decision.numbers["knee"]
            # It takes effect in two steps, in which leavers flush; then they are gone.
            gone = workers[record.step + 2] - workers[record.step + 3]
            assert gone == len(record.decision.workers)
    # Exactly once, whoever leaves.
    assert sum(r.samples for r in done.records) == EPOCHS[tuner] * sum(
        file.rows for file in ratings.manifest.train
    )


def to_target(dataset: Dataset, workers: int, tuner: str = "off", **limits: float) -> Simulation:
    """Simulate a job of 180 mini-batches an epoch: enough steps to its target for workers to leave."""
    wishes = {"target": "rmse=0.665", "epochs": 60, "tariff": "aws-lambda-x86", "workers": workers}
    wishes |= {"batch_size": 60}
    done = simulate(job(dataset, tuner=tuner, **wishes, **limits), dataset, DURATIONS)
    assert done.outcome.stop_reason == "target"
    return done


def test_economy_saves_and_yet_comes_to_a_target_that_can_be_paid_for_or_reached_in_time(
    ratings: Dataset,
) -> None:
    off, free = to_target(ratings, 8), to_target(ratings, 8, "economy")
    assert dollars(free) < 0.9 * dollars(off)
    paid = to_target(ratings, 8, "economy", max_cost=1.25 * dollars(free))
    quick = to_target(ratings, 8, "economy", max_time=1.25 * off.seconds)
    assert dollars(paid) <= 1.25 * dollars(free)
    assert quick.seconds <= 1.25 * off.seconds


def test_no_fixed_number_of_workers_is_better_in_money_and_time(ratings: Dataset) -> None:
    def mean(workers: int, tuner: str = "off") -> tuple[float, float]:
        """Dollars and seconds. Where a target is met is told in whole epochs, so one seed says little."""
        jobs = [to_target(ratings, workers, tuner, seed=seed) for seed in (1, 2, 3)]
        return sum(map(dollars, jobs)) / 3, sum(one.seconds for one in jobs) / 3

    fixed = [mean(workers) for workers in (2, 4, 8)]
    for tuner in ("published", "economy"):
        cost, seconds = mean(8, tuner)
        assert all(cost <= other_cost or seconds <= other for other_cost, other in fixed)


def test_where_servers_dominate_more_workers_stay(ratings: Dataset, tmp_path: Path) -> None:
    functions = own_tariff(tmp_path / "functions.toml", "")
    servers = own_tariff(tmp_path / "servers.toml", '[[servers]]\nname = "one"\nhour = 10.0')
    by_functions = counts(tuned(ratings, "economy", 1, functions))
    by_servers = counts(tuned(ratings, "economy", 1, servers))
    assert by_functions[-2] < by_servers[-2]
    assert by_functions[-2] <= 2


@pytest.mark.parametrize("tuner", ["published", "economy"])
def test_a_tuned_job_of_processes_ends_as_any_other(ratings: Dataset, run_folder: Path, tuner: str) -> None:
    spec = job(ratings, workers=3, epochs=40, patience=40, tuner=tuner, min_workers=2, tariff="published-ibm")
    run = run_job(spec, ratings, run_folder)
    history = run.history()
    workers = [record.workers for record in history]
    assert workers == sorted(workers, reverse=True)
    assert min(workers) >= 2
    assert sum(record.samples for record in history) == 40 * sum(f.rows for f in ratings.manifest.train)
    decided = [record.decision for record in history if record.decision]
    assert sum(len(one.workers) for one in decided) == 3 - workers[-1]
    if tuner == "economy":
        assert decided
    assert msgspec.json.decode((run_folder / "summary.json").read_bytes())["bill"]["total"] > 0
