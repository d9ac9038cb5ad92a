"""Who trains on what: every mini-batch exactly once an epoch, whoever leaves."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlless.membership import batch_at, first_plan, next_plan, position_of
from mlless.messages import Plan


@given(seed=st.integers(0, 2**63), batches=st.integers(1, 60), epochs=st.integers(1, 4))
@settings(max_examples=60)
def test_each_epoch_is_a_permutation(seed: int, batches: int, epochs: int) -> None:
    for epoch in range(epochs):
        positions = range(epoch * batches, (epoch + 1) * batches)
        assert sorted(batch_at(p, batches=batches, seed=seed) for p in positions) == list(range(batches))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [batch_at(epoch * 50 + n, batches=50, seed=seed) for n in range(50)]

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


class Course:
    """A job's plans from its start to everyone's flush."""

    def __init__(
        self, workers: int, batches: int, epochs: int, leavers: list[frozenset[int]], end: int | None = None
    ) -> None:
        self.plans: list[Plan] = []
        plan: Plan | None = first_plan(workers)
        while plan is not None:
            self.plans.append(plan)
            going = leavers[plan.step] if plan.step < len(leavers) else frozenset()
            plan = next_plan(plan, batches=batches, epochs=epochs, leavers=going, end=plan.step == end)


courses = st.integers(1, 8).flatmap(
    lambda workers: st.builds(
        Course,
        st.just(workers),
        st.integers(workers, 40),
        st.integers(1, 3),
        st.lists(st.frozensets(st.integers(0, workers - 1), max_size=2), max_size=30),
        st.none() | st.integers(0, 20),
    )
)


@given(
    workers=st.integers(1, 8),
    batches=st.integers(8, 40),
    epochs=st.integers(1, 4),
    leavers=st.lists(st.frozensets(st.integers(1, 7), max_size=2), max_size=60),
)
@settings(max_examples=200)
def test_every_batch_is_trained_on_exactly_once_an_epoch(
    workers: int, batches: int, epochs: int, leavers: list[frozenset[int]]
) -> None:
    course = Course(workers, batches, epochs, leavers)
    used: Counter[tuple[int, int]] = Counter()
    for plan in course.plans:
        for worker in plan.members:
            position = position_of(plan, worker)
            if position is not None and position < batches * epochs:
                used[position // batches, batch_at(position, batches=batches, seed=3)] += 1
    # Worker 0 never leaves, so the job goes on to its end.
    assert used == Counter({(epoch, batch): 1 for epoch in range(epochs) for batch in range(batches)})


@given(course=courses)
@settings(max_examples=200)
def test_plans_follow_on_one_another(course: Course) -> None:
    plans = course.plans
    assert [plan.step for plan in plans] == list(range(len(plans)))
    assert plans[0].evaluate
    for before, plan in pairwise(plans):
        assert plan.members == before.trainers, "who flushed is gone"
        assert plan.position == before.position + len(before.trainers)
        assert set(plan.flush) <= set(plan.members)
        assert list(plan.members) == sorted(plan.members)
    assert plans[-1].flush == plans[-1].members, "everyone flushes at last"
    assert not plans[-1].evaluate
    assert all(plan.trainers for plan in plans[:-1])


@given(course=courses)
@settings(max_examples=100)
def test_members_that_train_share_out_consecutive_positions(course: Course) -> None:
    for plan in course.plans:
        positions = [position_of(plan, worker) for worker in plan.members if worker not in plan.flush]
        assert positions == list(range(plan.position, plan.position + len(plan.trainers)))
        assert all(position_of(plan, worker) is None for worker in plan.flush)
    assert position_of(course.plans[0], 99) is None


def test_an_evaluation_is_due_once_an_epoch() -> None:
    course = Course(4, 10, 3, [])
    assert [plan.position for plan in course.plans if plan.evaluate] == [0, 12, 20]
    assert course.plans[-1].position == 32


def test_who_leaves_flushes_and_the_rest_go_on() -> None:
    plan = Plan(step=4, members=(0, 2, 5), position=40)
    after = next_plan(plan, batches=100, epochs=1, leavers={2, 9})
    assert after == Plan(step=5, members=(0, 2, 5), position=43, flush=(2,))
    assert after is not None
    assert position_of(after, 5) == 44
    assert next_plan(after, batches=100, epochs=1) == Plan(step=6, members=(0, 5), position=45)


@pytest.mark.parametrize("way", ["end", "everyone leaves", "epochs used up"])
def test_the_end_is_everyones_flush_and_then_nothing(way: str) -> None:
    plan = Plan(step=4, members=(1, 3), position=98)
    after = next_plan(
        plan,
        batches=100,
        epochs=1 if way == "epochs used up" else 9,
        leavers={1, 3, 7} if way == "everyone leaves" else (),
        end=way == "end",
    )
    assert after == Plan(step=5, members=(1, 3), position=100, flush=(1, 3))
    assert after is not None
    assert next_plan(after, batches=100, epochs=9) is None
