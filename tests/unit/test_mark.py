"""Marks: from where a job starts, goes on, and how often it makes one."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

from mlless.billing.tariff import load_tariff
from mlless.errors import UsageError
from mlless.job import Factorization, JobSpec, Nesterov, Scaling, Stop, Sync, Target
from mlless.mark import Mark, Rhythm, beginning, resumed
from mlless.membership import Schedule
from mlless.messages import Origin, Plan
from mlless.recipes import changed
from mlless.stopping import Progress, Score

ORIGIN = Origin("initial", 0, "d")
SCORE = Score(2, {"rmse": 1.0}, 1.0)


def spec_of(workers: int = 3, epochs: int = 2) -> JobSpec:
    return JobSpec(
        dataset="data",
        fingerprint="f",
        groups=12,
        rows=120,
        held_out=10,
        batch_size=10,
        model=Factorization(
            users=9, items=9, factors=2, l2=0.0, centre=0.0, deviation=1.0, low=1.0, high=5.0
        ),
        optimizer=Nesterov(learning_rate=0.1),
        sync=Sync(significance=0.0, half=False, merge="mean"),
        stop=Stop(epochs=epochs),
        workers=workers,
        seed=0,
    )


SPEC, SCHEDULE = spec_of(), Schedule([10] * 12, 10, 2)


def mark_at(step: int, **changes: object) -> Mark:
    """Return the mark of a step of a job of three workers."""
    plan: Plan | None = SCHEDULE.first(3)
    for _ in range(step):
        assert plan is not None
        plan = SCHEDULE.after(plan)
    assert plan is not None
    plan = msgspec.structs.replace(plan, **changes)
    return Mark(plan, SCHEDULE.after(plan), ORIGIN, Progress(SPEC.stop, 1.0, since_best=2))


def owned(plan: Plan) -> list[int]:
    """Return how many groups each worker owns."""
    owners = np.frombuffer(plan.owners, "<u2")
    return np.bincount(owners, minlength=len(plan.members)).tolist()


def test_a_new_job_begins_with_its_first_plan() -> None:
    mark = beginning(SPEC, SCHEDULE, ORIGIN)
    assert (mark.plan, mark.following) == (SCHEDULE.first(3), SCHEDULE.after(SCHEDULE.first(3)))
    assert mark.progress == Progress(SPEC.stop, 1.0)


def test_a_job_goes_on_as_it_was() -> None:
    mark = mark_at(5)
    again = resumed(SPEC, SCHEDULE, mark, None, SCORE)
    assert (again.plan, again.following, again.origin) == (mark.plan, mark.following, mark.origin)
    assert again.progress == dataclasses.replace(mark.progress, best=SCORE)
    assert resumed(SPEC, SCHEDULE, mark, 3, None).plan == mark.plan


@pytest.mark.parametrize("workers", [1, 2, 6])
def test_with_other_workers_groups_are_dealt_anew_and_the_epoch_keeps_its_parts(workers: int) -> None:
    mark = mark_at(5)
    again = resumed(spec_of(workers), SCHEDULE, mark, workers, None)
    assert again.plan.members == tuple(range(workers))
    assert owned(again.plan) == [12 // workers] * workers
    assert (again.plan.epoch, again.plan.part, again.plan.parts) == (1, 1, 4)
    plan: Plan | None = again.plan
    places = []
    while plan is not None and plan.trainers:
        places.append((plan.epoch, plan.part, plan.parts))
        plan = SCHEDULE.after(plan)
    assert places == [(1, part, 4) for part in (1, 2, 3)]


def test_an_epoch_that_begins_is_parted_for_those_who_go_on() -> None:
    assert resumed(spec_of(6), SCHEDULE, mark_at(4), 6, None).plan.parts == 2


def test_an_end_that_was_decided_on_is_decided_on_anew() -> None:
    mark = mark_at(2)
    mark = dataclasses.replace(mark, following=SCHEDULE.after(mark.plan, end=True))
    again = resumed(SPEC, SCHEDULE, mark, None, None)
    assert again.following is not None
    assert again.following.trainers == (0, 1, 2)


def test_steps_that_were_planned_further_ahead_stay_planned_up_to_the_end() -> None:
    mark = mark_at(2)
    plans = [mark.plan]
    for leavers, end in (((1,), False), ((), False), ((), True)):
        later = SCHEDULE.after(plans[-1], leavers, end=end)
        assert later is not None
        plans.append(later)
    mark = dataclasses.replace(mark, following=plans[1], further=(plans[2], plans[3]))
    assert mark.ahead == tuple(plans[1:])
    again = resumed(SPEC, SCHEDULE, mark, None, None)
    assert again.ahead == (plans[1], plans[2])
    assert plans[1].flush == (1,)
    other = resumed(spec_of(2), SCHEDULE, mark, 2, None)
    assert other.ahead == (SCHEDULE.after(other.plan),)


def test_more_epochs_take_the_end_back() -> None:
    mark = mark_at(7)
    assert mark.following is not None
    assert not mark.following.trainers
    again = resumed(spec_of(epochs=3), Schedule([10] * 12, 10, 3), mark, None, None)
    assert again.following is not None
    assert (again.following.epoch, again.following.trainers) == (2, (0, 1, 2))
    assert again.progress.rules.epochs == 3


def test_who_was_to_leave_leaves_unless_a_number_of_workers_is_asked_for() -> None:
    mark = mark_at(5)
    mark = dataclasses.replace(mark, following=SCHEDULE.after(mark.plan, [1]))
    again = resumed(SPEC, SCHEDULE, mark, None, None)
    assert again.following is not None
    assert again.following.flush == (1,)
    leaving = mark_at(5, flush=(1,))
    again = resumed(SPEC, SCHEDULE, leaving, 3, None)
    assert (again.plan.flush, again.plan.trainers) == ((), (0, 1, 2))


# Rhythm


def due(rhythm: Rhythm, now: float, *, evaluate: bool = False) -> bool:
    return rhythm.is_due(msgspec.structs.replace(SCHEDULE.first(3), evaluate=evaluate), now)


def test_a_checkpoint_is_due_soon_at_an_evaluation_and_later_at_any_step() -> None:
    rhythm = Rhythm(None)
    rhythm.begin(100.0)
    assert not due(rhythm, 100.4, evaluate=True)
    assert due(rhythm, 100.5, evaluate=True)
    assert not due(rhythm, 109.9)
    assert due(rhythm, 110.0)
    rhythm.make(110.0)
    assert not due(rhythm, 119.0)


def test_it_takes_no_more_than_a_fiftieth_of_the_time_unless_that_is_asked_for() -> None:
    for every in (None, 15.0):
        rhythm = Rhythm(every)
        rhythm.begin(0.0)
        rhythm.make(10.0)
        rhythm.made(1.0)
        assert not due(rhythm, 24.9)
        assert due(rhythm, 25.0) == (every is not None)
        assert due(rhythm, 50.0)


# What is changed when a run is resumed


def test_what_is_not_given_anew_stays() -> None:
    assert changed(SPEC, {}) == SPEC
    assert changed(SPEC, {"workers": "auto"}) == SPEC


def test_what_is_given_anew_holds() -> None:
    given = {
        "workers": 2,
        "epochs": 7,
        "patience": 4,
        "target": "rmse=0.9",
        "max_time": 60.0,
        "max_cost": 0.5,
        "worker_timeout": 9.0,
        "on_loss": "shrink",
        "tariff": "published-ibm",
        "tuner": "economy",
        "min_workers": 2,
        "checkpoint_every": 3.0,
    }
    spec = changed(SPEC, given)
    assert spec.workers == 2
    assert spec.stop == Stop(
        epochs=7, patience=4, target=Target(metric="rmse", value=0.9), max_time=60.0, max_cost=0.5
    )
    assert spec.deadlines.silence == 9.0
    assert spec.tariff == load_tariff("published-ibm")
    assert spec.scaling == Scaling(policy="economy", min_workers=2)
    assert (spec.on_loss, spec.checkpoint_every) == ("shrink", 3.0)
    assert spec.model == SPEC.model


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(UsageError, match="more workers than groups"):
        changed(SPEC, {"workers": 13})
    with pytest.raises(UsageError, match="needs a tariff"):
        changed(SPEC, {"max_cost": 1.0})
