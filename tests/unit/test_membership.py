"""Who trains on what: every row exactly once an epoch, whoever leaves."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlless.membership import Schedule, bounds_of, deal, groups_of, order_of, parts_of, told, understood
from mlless.messages import Plan


@given(seed=st.integers(0, 2**63), parts=st.integers(1, 60), epochs=st.integers(1, 4))
@settings(max_examples=60)
def test_each_epoch_takes_its_parts_in_an_order_of_its_own(seed: int, parts: int, epochs: int) -> None:
    for epoch in range(epochs):
        assert sorted(order_of(seed, epoch, parts)) == list(range(parts))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    assert order_of(1, 0, 50) == order_of(1, 0, 50)
    assert len({order_of(seed, epoch, 50) for seed in (1, 2) for epoch in (0, 1)}) == 4


@given(sizes=st.lists(st.integers(0, 1000), min_size=1, max_size=20), parts=st.integers(1, 50))
def test_parts_cut_groups_without_gap_or_overlap(sizes: list[int], parts: int) -> None:
    rows, groups = np.array(sizes, np.int64), np.arange(len(sizes))
    bounds = [bounds_of(groups, rows, part, parts) for part in range(parts)]
    assert (bounds[0][0] == 0).all()
    assert (bounds[-1][1] == rows).all()
    for (begin, end), (following, _) in pairwise(bounds):
        assert (end == following).all()
        assert ((end - begin) >= 0).all()
    lengths = np.array([end - begin for begin, end in bounds])
    assert (lengths.max(axis=0) - lengths.min(axis=0) <= 1).all()


@pytest.mark.parametrize(("size", "parts"), [(10, 30), (10, 3), (100, 30), (31, 30), (1, 7)])
def test_groups_of_one_size_give_parts_of_one_size(size: int, parts: int) -> None:
    groups, sizes = np.arange(480), np.full(480, size)
    for owned in (groups, groups[7::24], groups[:20]):
        bounds = [bounds_of(owned, sizes[owned], part, parts) for part in range(parts)]
        lengths = [int((end - begin).sum()) for begin, end in bounds]
        expected = len(owned) * size / parts
        assert max(lengths) - expected <= 5
        assert expected - min(lengths) <= 5


@pytest.mark.parametrize(
    ("rows", "size", "workers", "parts"),
    [(900_000, 6250, 4, 36), (900_000, 6250, 24, 6), (100, 64, 4, 1), (0, 1, 1, 1), (10, 3, 1, 3)],
)
def test_a_part_has_about_a_mini_batch_a_worker(rows: int, size: int, workers: int, parts: int) -> None:
    assert parts_of(rows, size, workers) == parts


class Course:
    """A job's plans from its start to its last step."""

    def __init__(
        self,
        workers: int,
        sizes: list[int],
        batch_size: int,
        epochs: int,
        leavers: list[frozenset[int]],
        end: int | None = None,
        local: tuple[int, int] = (1, 0),
    ) -> None:
        self.sizes, self.epochs, self.local, self.plans = sizes, epochs, local, list[Plan]()
        schedule = Schedule(sizes, batch_size, epochs, *local)
        plan: Plan | None = schedule.first(workers)
        while plan is not None:
            self.plans.append(plan)
            going = leavers[plan.step] if plan.step < len(leavers) else frozenset()
            plan = schedule.after(plan, going, end=plan.step == end)


courses = st.integers(1, 8).flatmap(
    lambda workers: st.builds(
        Course,
        st.just(workers),
        st.lists(st.integers(0, 60), min_size=workers, max_size=30),
        st.integers(1, 30),
        st.integers(1, 3),
        st.lists(st.frozensets(st.integers(0, workers - 1), max_size=2), max_size=30),
        st.none() | st.integers(0, 20),
        st.tuples(st.integers(1, 5), st.integers(0, 2)),
    )
)


@given(
    workers=st.integers(1, 8),
    sizes=st.lists(st.integers(0, 40), min_size=8, max_size=24),
    batch_size=st.integers(1, 30),
    epochs=st.integers(1, 4),
    leavers=st.lists(st.frozensets(st.integers(1, 7), max_size=2), max_size=60),
    local=st.tuples(st.integers(1, 5), st.integers(0, 2)),
)
@settings(max_examples=200)
def test_every_row_is_trained_on_exactly_once_an_epoch(
    workers: int,
    sizes: list[int],
    batch_size: int,
    epochs: int,
    leavers: list[frozenset[int]],
    local: tuple[int, int],
) -> None:
    # Worker 0 never leaves, so the job goes on to its end.
    course, rows = Course(workers, sizes, batch_size, epochs, leavers, local=local), np.array(sizes, np.int64)
    used: Counter[tuple[int, int, int]] = Counter()
    batches = 0
    for plan in course.plans:
        if plan.trainers:
            assert plan.batches == batches
            batches += plan.length
        for worker in plan.trainers:
            for part in order_of(3, plan.epoch, plan.parts)[plan.part : plan.part + plan.length]:
                begins, ends = bounds_of(np.arange(len(rows)), rows, part, plan.parts)
                for group in groups_of(plan.owners, worker):
                    used.update((plan.epoch, group, row) for row in range(begins[group], ends[group]))
    every = [(group, row) for group, size in enumerate(sizes) for row in range(size)]
    assert used == Counter({(epoch, *one): 1 for epoch in range(epochs) for one in every})


@given(course=courses)
@settings(max_examples=200)
def test_plans_follow_on_one_another(course: Course) -> None:
    *plans, last = course.plans
    assert [plan.step for plan in course.plans] == list(range(len(plans) + 1))
    assert plans[0].evaluate
    for before, plan in pairwise(plans):
        assert plan.members == before.trainers, "who flushed is gone"
        assert plan.parts == before.parts or plan.part == 0, "within an epoch its parts stay"
        done = before.epoch * before.parts + before.part + before.length
        assert (plan.epoch, plan.part) == divmod(done, before.parts)
        steps, since = course.local
        most = steps if plan.epoch >= since and plan.trainers else 1
        assert plan.length == min(most, plan.parts - plan.part), "the last one of an epoch may be short"
        assert set(plan.flush) <= set(plan.members)
        assert list(plan.members) == sorted(plan.members)
        assert plan.evaluate == (plan.part == 0 and bool(plan.trainers)), "once an epoch"
    assert plans[-1].flush == plans[-1].members, "everyone flushes at last"
    assert all(plan.trainers for plan in plans[:-1])
    assert (last.members, last.flush, last.trainers) == (plans[-1].members, (), ())
    assert last.evaluate
    assert last.last


@given(course=courses)
@settings(max_examples=100)
def test_every_group_is_owned_by_one_who_trains(course: Course) -> None:
    for plan in course.plans:
        owners = plan.trainers or plan.members
        owned = [group for worker in owners for group in groups_of(plan.owners, worker)]
        assert sorted(owned) == list(range(len(course.sizes)))
        assert groups_of(plan.owners, 99) == ()


@given(course=courses)
@settings(max_examples=100)
def test_who_stays_keeps_its_groups(course: Course) -> None:
    for before, plan in pairwise(course.plans):
        for worker in plan.trainers:
            assert set(groups_of(before.owners, worker)) <= set(groups_of(plan.owners, worker))


@given(course=courses, after=st.integers(0, 5))
def test_owners_are_told_where_they_change(course: Course, after: int) -> None:
    plans = tuple(course.plans[after:])
    before = course.plans[after - 1].owners if after and after <= len(course.plans) else b""
    brief = told(before, plans)
    assert understood(before, brief) == plans
    changes = [bool(plan.owners) for plan in brief]
    known = [before, *(plan.owners for plan in plans)]
    assert changes == [one != other for one, other in pairwise(known)]


@pytest.mark.parametrize(("workers", "most"), [(7, 1.01), (23, 1.01), (24, 1.01), (64, 1.08)])
def test_groups_of_one_size_are_dealt_evenly(workers: int, most: float) -> None:
    sizes = np.random.default_rng(1).normal(2000, 20, 480).astype(int).tolist()
    owners = deal(sizes, range(workers))
    loads = [sum(sizes[group] for group in groups_of(owners, worker)) for worker in range(workers)]
    assert max(loads) <= most * sum(loads) / workers


def test_a_leavers_groups_go_to_whoever_has_the_least() -> None:
    sizes = [50, 40, 30, 20, 10]
    first = deal(sizes, (0, 1, 2))
    assert [groups_of(first, worker) for worker in range(3)] == [(0,), (1, 4), (2, 3)]
    assert [groups_of(deal(sizes, (0, 2), first), worker) for worker in range(3)] == [(0, 1), (), (2, 3, 4)]


def test_an_epoch_keeps_its_parts_when_someone_leaves_and_the_next_has_more() -> None:
    course = Course(4, [10] * 12, 10, 2, [frozenset(), frozenset({2})])
    assert [(plan.epoch, plan.part, plan.parts) for plan in course.plans] == [
        *[(0, part, 3) for part in range(3)],
        *[(1, part, 4) for part in range(4)],
        (2, 0, 4),
        (2, 0, 4),
    ]
    assert [plan.flush for plan in course.plans if plan.flush] == [(2,), (0, 1, 3)]
    assert [plan.step for plan in course.plans if plan.evaluate] == [0, 3, 8]
    assert course.plans[-1].done == 2


@pytest.mark.parametrize("way", ["end", "everyone leaves", "epochs used up"])
def test_the_end_is_everyones_flush_and_a_last_look(way: str) -> None:
    sizes = [10] * 10
    schedule = Schedule(sizes, 5, 1 if way == "epochs used up" else 9)
    plan = Plan(step=4, members=(1, 3), epoch=0, parts=10, part=9, owners=deal(sizes, (1, 3)))
    leavers = {1, 3, 7} if way == "everyone leaves" else set()
    after = schedule.after(plan, leavers, end=way == "end")
    assert after == Plan(5, (1, 3), epoch=1, parts=10, part=0, owners=plan.owners, flush=(1, 3))
    assert after is not None
    last = schedule.after(after)
    assert last == Plan(6, (1, 3), 1, 10, 0, plan.owners, evaluate=True, last=True)
    assert last is not None
    assert schedule.after(last) is None


@given(course=courses, step=st.integers(0, 60), lost=st.frozensets(st.integers(0, 7), min_size=1, max_size=3))
@settings(max_examples=200)
def test_a_plan_without_the_lost_is_the_same_step_of_those_who_are_left(
    course: Course, step: int, lost: frozenset[int]
) -> None:
    plan = course.plans[min(step, len(course.plans) - 1)]
    if set(plan.members) <= lost:
        return
    without = Schedule(course.sizes, 10, course.epochs).without(plan, lost)
    assert without.members == tuple(member for member in plan.members if member not in lost)
    assert without.flush == tuple(member for member in plan.flush if member not in lost)
    assert (
        msgspec.structs.replace(without, members=plan.members, flush=plan.flush, owners=plan.owners) == plan
    ), "where it is in its epoch stays as it was"
    owners = without.trainers or without.members
    owned = [group for worker in owners for group in groups_of(without.owners, worker)]
    assert sorted(owned) == list(range(len(course.sizes))), "every row is still taken"
    for worker in owners:
        assert set(groups_of(plan.owners, worker)) <= set(groups_of(without.owners, worker))


def test_with_those_who_stay_lost_nobody_is_left_to_train() -> None:
    schedule = Schedule([10] * 6, 5, 9)
    plan = Plan(4, (0, 1, 2), 1, 4, 2, deal([10] * 6, (0, 2)), flush=(1,))
    without = schedule.without(plan, {0, 2})
    assert (without.members, without.flush, without.trainers) == ((1,), (1,), ())
    assert groups_of(without.owners, 1) == tuple(range(6))
    last = schedule.after(without)
    assert last is not None
    assert (last.members, last.last) == ((1,), True)


@pytest.mark.parametrize(("flush", "members"), [((), (0, 1, 2)), ((1,), (0, 2)), ((0, 1, 2), (0, 1, 2))])
def test_a_job_that_is_abandoned_has_one_more_step_in_which_nobody_does_anything(
    flush: tuple[int, ...], members: tuple[int, ...]
) -> None:
    schedule = Schedule([10] * 6, 5, 9)
    plan = Plan(4, (0, 1, 2), 1, 4, 2, deal([10] * 6, (0, 2)), flush, evaluate=True)
    last = schedule.abandoned(plan)
    assert last == Plan(5, members, 1, 4, 2, plan.owners, last=True)
    assert last.trainers == ()
    assert schedule.after(last) is None
