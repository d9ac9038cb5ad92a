"""Budgets of money and time: whole jobs that use them up and do not go over them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from integration.jobs import job
from integration.money import DURATIONS, ENDLESS, dollars, own_tariff

from mlless import driver
from mlless.billing.tariff import TARIFFS
from mlless.clock import SystemClock
from mlless.data.dataset import Dataset
from mlless.driver import run_job
from mlless.errors import JobError, UsageError
from mlless.records import StepRecord
from mlless.report import summary
from mlless.runtimes.processes import ProcessRuntime
from mlless.simulation.conditions import Durations
from mlless.simulation.jobs import simulate

WORKERS = 6


def taking(seconds: Callable[[int], float]) -> Durations:
    """Return durations of steps by their number; other things take next to no time."""
    reports = count()
    return Durations(work={"step": lambda _: seconds(next(reports) // WORKERS)}, message=1e-3)


@pytest.mark.parametrize("tariff", TARIFFS.names())
@pytest.mark.parametrize("budget", [0.02, 0.035])
def test_a_budget_is_used_up_and_holds(ratings: Dataset, tariff: str, budget: float) -> None:
    spec = job(ratings, workers=6, epochs=ENDLESS, max_cost=budget, tariff=tariff)
    done = simulate(spec, ratings, DURATIONS)
    assert done.outcome.stop_reason == "cost"
    assert 0.98 * budget <= dollars(done) <= budget
    costs = [record.cost for record in done.records]
    assert costs == sorted(costs)  # type: ignore[type-var]
    assert costs[-1] <= dollars(done)  # type: ignore[operator]


@pytest.mark.parametrize("workers", [1, 4])
def test_groups_that_have_been_read_are_not_paid_for_twice(ratings: Dataset, workers: int) -> None:
    """Reading the groups takes half of this budget; the rest is for training."""
    quick = Durations(work={"step": lambda _: 1e-3}, message=1e-4)
    spec = job(ratings, workers=workers, epochs=ENDLESS, max_cost=0.00045, tariff="aws-lambda-x86")
    done = simulate(spec, ratings, quick)
    assert done.outcome.stop_reason == "cost"
    assert len(done.records) > 200
    assert dollars(done) <= 0.00045


@pytest.mark.parametrize("seconds", [60.0, 100.0])
def test_time_is_used_up_and_holds(ratings: Dataset, seconds: float) -> None:
    spec = job(ratings, workers=6, epochs=ENDLESS, max_time=seconds)
    done = simulate(spec, ratings, DURATIONS)
    assert done.outcome.stop_reason == "time"
    assert 0.97 * seconds <= done.seconds <= seconds


def test_whichever_budget_runs_out_first_ends_the_job(ratings: Dataset) -> None:
    def reason(**limits: float) -> str:
        spec = job(ratings, workers=6, epochs=ENDLESS, tariff="published-ibm", **limits)
        return simulate(spec, ratings, DURATIONS).outcome.stop_reason

    assert reason(max_cost=0.01, max_time=1000.0) == "cost"
    assert reason(max_cost=1.0, max_time=30.0) == "time"


@pytest.mark.parametrize("limits", [{"max_cost": 0.005, "tariff": "published-ibm"}, {"max_time": 60.0}])
def test_a_start_that_uses_up_a_budget_is_an_error_and_not_a_training(ratings: Dataset, limits: dict) -> None:
    spec = job(ratings, workers=WORKERS, epochs=ENDLESS, **limits)
    steps: list[object] = []
    with pytest.raises(JobError, match=r"was used up before the first step was over: .* `max_"):
        simulate(spec, ratings, Durations(request=100.0), listen=steps.append)
    assert not steps


def test_nor_does_a_first_step_that_uses_it_up_lead_to_others(ratings: Dataset) -> None:
    spec = job(ratings, workers=WORKERS, epochs=ENDLESS, max_time=60.0)
    steps: list[object] = []
    with pytest.raises(JobError, match="the time was used up before the first step was over"):
        simulate(spec, ratings, taking(lambda step: 70.0), listen=steps.append)
    assert not steps


@pytest.mark.parametrize("limits", [{"max_cost": 0.02, "tariff": "published-ibm"}, {"max_time": 60.0}])
def test_a_cold_first_step_is_not_taken_for_all_others(ratings: Dataset, limits: dict) -> None:
    spec = job(ratings, workers=WORKERS, epochs=ENDLESS, **limits)
    done = simulate(spec, ratings, taking(lambda step: 15.0 if step == 0 else 0.3))
    share = done.seconds / limits["max_time"] if "max_time" in limits else dollars(done) / limits["max_cost"]
    assert 0.95 <= share <= 1.0


@pytest.mark.parametrize("limit", [40.0 + 3.7 * n for n in range(12)])
def test_stalls_that_recur_are_reckoned_with(ratings: Dataset, limit: float) -> None:
    spec = job(ratings, workers=WORKERS, epochs=ENDLESS, max_time=limit)
    done = simulate(spec, ratings, taking(lambda step: 4.0 if step % 40 == 10 else 0.5))
    assert done.outcome.stop_reason == "time"
    assert 0.7 * limit <= done.seconds <= limit


@pytest.mark.parametrize("limit", [60.0 + 3.7 * n for n in range(6)])
def test_evaluations_that_take_long_are_reckoned_with(ratings: Dataset, limit: float) -> None:
    durations = Durations(work={"step": lambda _: 0.3, "evaluate": 1e-2}, message=1e-3)
    spec = job(ratings, workers=WORKERS, epochs=ENDLESS, max_time=limit)
    done = simulate(spec, ratings, durations)
    assert done.outcome.stop_reason == "time"
    # Twelve seconds of the last worker for each of two evaluations, of which it may need but one.
    assert limit - 12 - 8 <= done.seconds <= limit


def test_a_cold_first_evaluation_is_not_taken_for_all_others(ratings: Dataset) -> None:
    scored = count()

    def evaluation(rows: int) -> float:
        return 1e-3 * rows * (50 if next(scored) < len(ratings.manifest.validation) else 1)

    durations = Durations(work={"step": lambda _: 0.3, "evaluate": evaluation}, message=1e-3)
    spec = job(ratings, workers=WORKERS, epochs=ENDLESS, max_time=140.0)
    done = simulate(spec, ratings, durations)
    assert 0.9 * 140.0 <= done.seconds <= 140.0


def test_a_flush_that_takes_long_is_reckoned_with(ratings: Dataset) -> None:
    durations = Durations(work={"step": lambda _: 0.2, "merge": 1e-5}, message=1e-3, byte=1e-5)
    for limits in ({"max_time": 100.0}, {"max_cost": 0.03, "tariff": "published-ibm"}):
        done = simulate(job(ratings, workers=WORKERS, epochs=ENDLESS, **limits), ratings, durations)
        share = done.seconds / 100.0 if "max_time" in limits else dollars(done) / 0.03
        assert 0.85 <= share <= 1.0


@pytest.mark.parametrize("error", [JobError("oh no"), ValueError("oh no"), KeyboardInterrupt("oh no")])
def test_a_job_that_fails_tells_what_it_has_cost(
    ratings: Dataset, run_folder: Path, error: BaseException
) -> None:
    def fail(record: StepRecord) -> None:
        if record.step == 20:
            raise error

    spec = job(ratings, workers=2, epochs=ENDLESS, tariff="published-ibm")
    with pytest.raises(type(error), match="oh no") as failed:
        run_job(spec, ratings, run_folder, listen=fail)
    (note,) = failed.value.__notes__
    assert re.fullmatch(r"it has cost \$0\.0\d+ by IBM Cloud Functions, as published", note)


class ClockAhead(SystemClock):
    """The driver's clock, ahead by what a test says has passed; what really passes is little beside that."""

    ahead = 0.0

    def now(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ClockAhead:
    clock = ClockAhead()
    monkeypatch.setattr(driver, "SystemClock", lambda: clock)
    monkeypatch.setattr(summary, "time", SimpleNamespace(monotonic=clock.now, process_time=time.process_time))
    return clock


def test_the_time_that_a_runtime_takes_to_start_is_not_the_jobs(
    ratings: Dataset, run_folder: Path, clock: ClockAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ProcessRuntime.start

    def slow(self: ProcessRuntime, functions: dict) -> None:
        start(self, functions)
        clock.ahead += 1500.0  # with functions that have not begun to be billed

    def step(record: StepRecord) -> None:
        clock.ahead += 100.0

    monkeypatch.setattr(ProcessRuntime, "start", slow)
    spec = job(ratings, workers=2, epochs=ENDLESS, max_time=1400.0)
    run = run_job(spec, ratings, run_folder, listen=step)
    assert run.summary.stop_reason == "time"
    assert run.summary.steps > 5
    assert run.summary.startup_seconds > 1500.0
    assert run.summary.seconds < run.summary.wall_seconds - 1400.0


def test_a_budget_that_makes_no_difference_is_no_reason_to_end(ratings: Dataset) -> None:
    plain = simulate(job(ratings, workers=WORKERS, epochs=2, tariff="published-ibm"), ratings, DURATIONS)
    shares = []
    for share in (1.05, 1.1, 1.15, 1.2, 1.3, 1.5):
        for limits in ({"max_cost": share * dollars(plain)}, {"max_time": share * plain.seconds}):
            spec = job(ratings, workers=WORKERS, epochs=2, tariff="published-ibm", **limits)
            done = simulate(spec, ratings, DURATIONS)
            ended = done.outcome.stop_reason == "epochs"
            assert ended == (len(done.records) == len(plain.records))
            shares.append((share, ended))
    assert {share for share, ended in shares if not ended} <= {1.05, 1.1, 1.15, 1.2}
    assert (1.5, True) in shares


def test_a_budget_holds_where_traffic_is_what_costs(ratings: Dataset, tmp_path: Path) -> None:
    tariff = own_tariff(tmp_path / "own.toml", "[traffic]\ngb_exchanged = 1.0")
    spec = job(ratings, workers=6, epochs=ENDLESS, max_cost=0.05, tariff=tariff)
    done = simulate(spec, ratings, DURATIONS)
    assert done.outcome.stop_reason == "cost"
    assert 0.95 * 0.05 <= dollars(done) <= 0.05


def test_a_budget_below_the_minimum_charge_is_refused_before_anything_starts(
    ratings: Dataset, run_folder: Path
) -> None:
    spec = job(ratings, workers=3, max_cost=1e-6, tariff="published-ibm")
    with pytest.raises(UsageError, match="below the minimum charge"):
        run_job(spec, ratings, run_folder)
    with pytest.raises(UsageError, match="below the minimum charge"):
        simulate(spec, ratings, DURATIONS)


def test_processes_come_close_to_their_budget(
    ratings: Dataset, run_folder: Path, clock: ClockAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = ProcessRuntime._take

    def step(record: StepRecord) -> None:
        clock.ahead += 20.0

    # Functions would say how long they really ran. Where that is not known, the driver's clock counts.
    monkeypatch.setattr(
        ProcessRuntime,
        "_take",
        lambda self: [msgspec.structs.replace(ended, seconds=None) for ended in take(self)],
    )
    # Two functions of 2 GB and two servers: $1.57e-4 a second, so some 1,600 seconds.
    budget = 0.25
    spec = job(ratings, workers=2, epochs=ENDLESS, max_cost=budget, tariff="published-ibm")
    run = run_job(spec, ratings, run_folder, listen=step)
    assert run.summary.stop_reason == "cost"
    assert run.bill is not None
    assert run.bill == run.summary.bill
    assert 0.9 * budget <= run.bill.total <= 1.05 * budget
    functions = run.bill.items[0]
    # Started, ended and billed by tenths of a second, 2 GB each.
    assert 0 < functions.quantity <= 2 * 2 * (run.summary.wall_seconds + 0.1)
    costs = [record.cost for record in run.history()]
    assert costs == sorted(costs)  # type: ignore[type-var]
    assert costs[-1] <= run.bill.total  # type: ignore[operator]
