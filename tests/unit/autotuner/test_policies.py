"""Both policies: who leaves, when, and why; and that no history of losses upsets them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from unit.autotuner.curves_of import contributions, falling, question

from mlless.autotuner.decision import Contribution, Decision, Floats, Goal, Observation, Question
from mlless.autotuner.economy import DOUBT, Economy
from mlless.autotuner.knee import published_knee, relative_knee
from mlless.autotuner.leaver import choose
from mlless.autotuner.published import Published
from mlless.autotuner.tuner import Tuner
from mlless.job import Target

FUNCTIONS = Economy(function=3.4e-5, servers=0.0)
SERVERS = Economy(function=3.4e-5, servers=100 * 3.4e-5)
POLICIES = [Published(), FUNCTIONS, SERVERS]


def course(counts: tuple[int, ...], steps: int) -> tuple[Floats, Floats]:
    """Return members and seconds of so many steps at each number of workers, at the published speed."""
    members = np.repeat(np.array(counts, float), steps)
    return members, 1 / (4.438 - 0.2425 * members)


def fuzzed(seed: int) -> Question:
    """Return a question about a history that no job should have."""
    random = np.random.default_rng(seed)
    steps = int(random.integers(1, 500))
    kinds: list[Callable[[], Floats]] = [
        lambda: falling(steps, noise=float(10 ** random.uniform(-4, 0)), seed=seed),
        lambda: np.full(steps, random.choice([0.0, 1e-300, 0.7, 1e300])),
        lambda: random.normal(size=steps) * 10 ** random.uniform(-8, 8),
        lambda: np.cumsum(random.normal(size=steps)),
        lambda: np.exp(random.uniform(-0.5, 0.5) * np.arange(steps)),
        lambda: falling(steps) + (np.arange(steps) > steps // 2) * random.normal(),
        lambda: np.round(falling(steps), 1),
    ]
    with np.errstate(over="ignore"):
        losses = kinds[seed % len(kinds)]()
    losses[random.random(steps) < 0.05] = random.choice([0.0, 1e6, losses[0]])
    seconds = np.abs(random.normal(1, random.choice([0.0, 0.1, 10.0]), size=steps))
    seconds[random.random(steps) < 0.1] = np.nan
    members = np.sort(random.integers(1, 12, size=steps))[::-1].astype(float)
    if random.random() < 0.5:
        members = np.full(steps, 10.0)
    return question(
        losses,
        members=members,
        seconds=seconds,
        floor=int(random.integers(1, 12)),
        target=random.choice([None, -1.0, 0.0, 0.6, 1e9]),
        budget=random.choice([None, 1e-9, 10.0]),
        cost=float(random.random()),
        batches=int(random.integers(1, 10_000)),
    )


@pytest.mark.parametrize("seed", range(200))
def test_every_history_ends_in_a_decision(seed: int) -> None:
    asked = fuzzed(seed)
    for policy in POLICIES:
        decision = policy.decide(asked)
        assert (decision.action == "leave") == bool(decision.workers)
        assert len(decision.workers) <= asked.spare
        assert decision.why
        assert all(np.isfinite(value) for value in decision.numbers.values())
        if decision.action == "leave":
            knee = published_knee if policy is POLICIES[0] else relative_knee
            assert knee(asked.losses) is not None


@pytest.mark.parametrize("seed", range(25))
def test_what_is_injected_upstream_reaches_no_policy(seed: int) -> None:
    random = np.random.default_rng(seed)
    asked: list[Question] = []

    class Watching:
        def due(self, *, steps: int, seconds: float) -> bool:
            return True

        def decide(self, question: Question) -> Decision:
            asked.append(question)
            return Published().decide(question)

    tuner = Tuner(
        Watching(), Inline(), floor=1, goal=Goal(batches=99, target=Target(metric="rmse", value=0.1))
    )
    for step in range(60):
        loss = random.choice([None, np.nan, np.inf, -np.inf, 0.5, 1.0 / (step + 1)])
        heldout = random.choice([None, {"rmse": np.nan}, {"rmse": 0.5}, {}])  # type: ignore[arg-type]
        tuner.observe(seen(step, loss, heldout=heldout))
    assert all(np.isfinite(one.losses).all() for one in asked)
    assert all(len(one.losses) == len(one.members) == len(one.seconds) == len(one.settled) for one in asked)
    assert all(np.isfinite(value) for one in asked for _, value in one.heldout)


class Inline:
    """A Runner that has done its work at once."""

    def __init__(self) -> None:
        self.done: Decision | None = None

    def start(self, work: Callable[[], Decision]) -> None:
        assert self.done is None
        self.done = work()

    def result(self) -> Decision | None:
        done, self.done = self.done, None
        return done


def seen(step: int, loss: float | None, workers: int = 4, **more: object) -> Observation:
    return Observation(step=step, time=float(step), loss=loss, workers=contributions(workers), **more)  # type: ignore[arg-type]


class TestPublished:
    def test_nothing_before_the_knee(self) -> None:
        decision = Published().decide(question(np.linspace(1.0, 0.5, 400)))
        assert (decision.action, decision.why) == ("stay", "before the knee")

    def test_the_first_to_leave_is_untested(self) -> None:
        losses = np.concatenate([np.linspace(1.0, 0.5, 200), np.full(200, 0.5)])
        decision = Published().decide(question(losses))
        assert decision.workers == (9,)
        assert "past the knee" in decision.why

    def history(self, after: float) -> Question:
        losses = falling(600, exponent=1.5)
        members = np.where(np.arange(600) < 500, 10.0, 9.0)
        losses[500:] += after * np.linspace(0.3, 1, 100)
        return question(losses, members=members)

    def test_the_next_one_while_the_loss_keeps_to_its_course(self) -> None:
        decision = Published().decide(self.history(0.0))
        assert decision.action == "leave"
        assert decision.numbers["excess"] < decision.numbers["tolerance"] == 1.0
        decision = Published().decide(self.history(0.2))
        assert decision.action == "stay"
        assert decision.numbers["excess"] > 1.0
        assert Published(tolerance=100.0).decide(self.history(0.2)).action == "leave"

    def test_the_local_curve_counts_from_the_last_change_and_both_look_ahead(self) -> None:
        asked = dataclasses.replace(self.history(0.0), seconds=np.full(600, 0.5))
        numbers = Published().decide(asked).numbers
        # Ten seconds at two steps a second.
        t = 600 + 10 * 2
        assert numbers["reference"] == pytest.approx(1 / (0.05 * t**1.5 + 0.8) + 0.5, rel=1e-3)
        assert numbers["projected"] == pytest.approx(numbers["reference"], rel=1e-2)
        near = Published(horizon=0.0).decide(asked).numbers
        assert near["reference"] > numbers["reference"]
        # As far ahead as the curves go that it records.
        reference, local = Published().decide(asked).curves
        assert (reference.name, reference.steps[0], reference.steps[-1]) == ("reference", 1, t)
        assert (local.name, local.steps[0], local.steps[-1]) == ("local", 501, t)
        assert local.losses[-1] == pytest.approx(numbers["projected"], rel=1e-4)

    def test_only_the_first_goes_untested_however_slow_the_steps_are(self) -> None:
        losses = np.concatenate([np.linspace(1.0, 0.5, 200), np.full(200, 0.5)])
        first = Published().decide(question(losses))
        assert first.action == "leave"
        # The next look comes before it has gone: those who would stay are one fewer than took part.
        waiting = dataclasses.replace(question(losses), workers=contributions(9))
        assert Published().decide(waiting).why == "the last one is still leaving"

    def test_a_loss_that_rises_at_first_is_not_past_its_knee(self) -> None:
        losses = np.concatenate([np.linspace(1.0, 1.05, 15), 1.05 - 0.0018 * np.arange(300)])
        assert published_knee(losses) is None
        flat = np.concatenate([losses, np.full(200, losses[-1])])
        knee = published_knee(flat)
        assert knee is not None
        assert knee > 300

    def test_roots_of_mean_squares_are_looked_at_where_losses_are_those(self) -> None:
        asked = self.history(0.2)
        squared = dataclasses.replace(asked, losses=asked.losses**2)
        plain, root = Published().decide(asked), Published(root=True).decide(squared)
        assert root.numbers == pytest.approx(plain.numbers)
        for curve, other in zip(root.curves, plain.curves, strict=True):
            assert curve.losses == pytest.approx([loss**2 for loss in other.losses], rel=1e-3)

    def test_it_looks_every_twenty_seconds(self) -> None:
        assert not Published().due(steps=50, seconds=19.9)
        assert Published().due(steps=50, seconds=20.0)


class TestEconomy:
    def asked(self, counts: tuple[int, ...] = (10,), **more: object) -> Question:
        members, seconds = course(counts, 120)
        losses = falling(len(members), exponent=0.9, noise=0.001)
        return question(losses, members=members, seconds=seconds, **more)  # type: ignore[arg-type]

    def test_nothing_before_the_knee(self) -> None:
        members, seconds = course((10,), 60)
        decision = FUNCTIONS.decide(question(np.linspace(1, 0.5, 60), members=members, seconds=seconds))
        assert (decision.action, decision.why) == ("stay", "before the knee")

    def test_one_leaves_as_a_probe(self) -> None:
        decision = FUNCTIONS.decide(self.asked())
        assert decision.workers == (9,)
        assert "to see what one less does" in decision.why

    def test_then_as_many_as_the_next_look_down_allows(self) -> None:
        decision = FUNCTIONS.decide(self.asked((10, 9)))
        assert decision.numbers["workers"] == 8
        decision = FUNCTIONS.decide(self.asked((10, 9, 8)))
        assert decision.workers == (6, 7)
        assert decision.numbers["dollars"] < decision.numbers["dollars_if_all_stay"]

    def test_the_floor_holds(self) -> None:
        decision = FUNCTIONS.decide(self.asked((10, 9, 8), floor=7))
        assert decision.workers == (7,)
        decision = FUNCTIONS.decide(self.asked((10, 9, 8), floor=8))
        assert (decision.action, decision.why) == ("stay", "no worker can be spared")

    def test_where_servers_dominate_more_stay(self) -> None:
        assert SERVERS.decide(self.asked()).action == "stay"
        assert SERVERS.decide(self.asked((10, 9))).action == "stay"
        assert FUNCTIONS.decide(self.asked((10, 9))).action == "leave"

    def test_where_traffic_is_what_costs_fewer_stay(self) -> None:
        asked = dataclasses.replace(self.asked((10, 9)), exchanged=1e7)
        assert SERVERS.decide(asked).action == "stay"
        dear = dataclasses.replace(SERVERS, traffic=1e-8)
        assert dear.decide(asked).numbers["workers"] == 8
        # Everyone reads of everyone: a step of 8 moves 64 / 81 of the bytes of one of 9.
        free = Economy(function=0.0, servers=0.0, traffic=1e-8).decide(asked).numbers
        ratio = free["dollars"] / free["dollars_if_all_stay"]
        assert ratio == pytest.approx(8 / 9)
        # Where one merges for all, bytes grow with the workers: as many steps more eat up what one saves.
        merged = Economy(function=0.0, servers=0.0, traffic=1e-8, growth=1).decide(asked).numbers
        assert merged["dollars"] / merged["dollars_if_all_stay"] == pytest.approx(1.0)

    def test_the_numbers_are_those_of_the_model(self) -> None:
        numbers = FUNCTIONS.decide(self.asked((10, 9))).numbers
        ratio = (4.438 - 9 * 0.2425) / (4.438 - 8 * 0.2425)
        assert numbers["dollars"] / numbers["dollars_if_all_stay"] == pytest.approx(ratio, rel=1e-6)
        # To a target a step of fewer workers is worth a bit more than its share.
        target = float(falling(900, exponent=0.9)[-1])
        numbers = FUNCTIONS.decide(self.asked((10, 9), target=target)).numbers
        ratio *= (8 / 9) ** 0.05
        assert numbers["dollars"] / numbers["dollars_if_all_stay"] == pytest.approx(ratio, rel=1e-6)
        # All that is left by the tail, at the speed that was seen.
        speed = 4.438 - 9 * 0.2425
        assert numbers["seconds_if_all_stay"] == pytest.approx(numbers["left"] / 9**0.95 / speed, rel=1e-6)
        # It is too little, and within what is doubted.
        assert 0.9 * (900 - 240) < DOUBT * numbers["left"] / 9**0.95 < DOUBT * (900 - 240)

    def test_with_a_target_and_a_budget_the_quickest_that_can_be_paid_for(self) -> None:
        target = float(falling(400, exponent=0.9)[-1])
        first = FUNCTIONS.decide(self.asked(target=target, budget=1e3, cost=0.0))
        why = "no other number of workers than 10 is quicker and can be paid for"
        assert (first.action, first.why) == ("stay", why)
        assert FUNCTIONS.decide(self.asked(target=target, budget=1e3, cost=1e3)).action == "leave"
        plenty = FUNCTIONS.decide(self.asked((10, 9), target=target, budget=1e3, cost=0.0))
        scarce = FUNCTIONS.decide(self.asked((10, 9), target=target, budget=1e-6, cost=0.0))
        assert plenty.numbers["seconds"] == min(plenty.numbers["seconds"], scarce.numbers["seconds"])
        assert scarce.numbers["workers"] <= plenty.numbers["workers"]
        assert scarce.action == "leave"

    def heldout(self, asked: Question, **goal: object) -> Question:
        """Return the question with a held-out metric of 0.3 above the losses, evaluated every 40 steps."""
        found = tuple((index, float(asked.losses[index]) + 0.3) for index in range(0, len(asked.losses), 40))
        return dataclasses.replace(asked, heldout=found, goal=Goal(batches=100_000, **goal))  # type: ignore[arg-type]

    def test_a_held_out_target_is_looked_at_by_the_training_loss(self) -> None:
        asked = self.asked((10, 9))
        loss = float(falling(900, exponent=0.9)[-1])
        by_loss = self.asked((10, 9), target=loss)
        by_metric = self.heldout(asked, target=Target(metric="rmse", value=loss + 0.3))
        left, expected = (FUNCTIONS.decide(one).numbers["left"] for one in (by_metric, by_loss))
        assert left == pytest.approx(expected, rel=0.1)
        turned = tuple((index, -1.0 - value) for index, value in by_metric.heldout)  # more would be better
        assert FUNCTIONS.decide(dataclasses.replace(by_metric, heldout=turned)).numbers["doubt"] == 1.0

    def test_before_a_target_can_be_seen_a_budget_keeps_everyone(self) -> None:
        target = Target(metric="rmse", value=0.1)
        unseen = dataclasses.replace(self.heldout(self.asked((10, 9)), target=target), heldout=())
        assert FUNCTIONS.decide(unseen).action == "leave"
        for limit in ({"budget": 1.0}, {"max_time": 1e3}):
            goal = Goal(batches=100_000, target=target, **limit)  # type: ignore[arg-type]
            decision = FUNCTIONS.decide(dataclasses.replace(unseen, goal=goal, cost=0.0))
            assert (decision.action, decision.why) == ("stay", "how far the target is cannot be told yet")

    def test_no_one_leaves_who_is_needed_in_time(self) -> None:
        asked = self.asked((10, 9), batches=100_000)
        seconds = FUNCTIONS.decide(asked).numbers["seconds"]
        for spare, action in ((1.01, "leave"), (0.99, "stay")):
            goal = Goal(batches=100_000, max_time=asked.time + spare * seconds)
            decision = FUNCTIONS.decide(dataclasses.replace(asked, goal=goal))
            assert decision.action == action
        assert decision.why == "fewer workers may be too late"
        # A forecast of a target is in doubt.
        near = float(falling(900, exponent=0.9)[-1])
        aimed = self.asked((10, 9), target=near)
        seconds = FUNCTIONS.decide(aimed).numbers["seconds"]
        for spare, action in ((DOUBT + 0.01, "leave"), (DOUBT - 0.01, "stay")):
            goal = dataclasses.replace(aimed.goal, max_time=spare * seconds)
            assert FUNCTIONS.decide(dataclasses.replace(aimed, goal=goal)).action == action

    def test_what_hardly_saves_anything_is_not_worth_it(self) -> None:
        # Of a function and a server at one price; speed falls with workers, hardly or much.
        members = np.repeat([10.0, 9.0], 120)
        losses = falling(240, exponent=0.9, noise=0.001)
        for slope, action in ((-0.03, "stay"), (-0.2425, "leave")):
            seconds = 1 / (2.0 + slope * (members - 10.0))
            asked = question(losses, members=members, seconds=seconds)
            dear = Economy(function=3.4e-5, servers=3.4e-5)
            assert dear.decide(asked).action == action

    def test_near_the_end_nothing_is_worth_a_change(self) -> None:
        members, _ = course((10, 9), 120)
        decision = FUNCTIONS.decide(self.asked((10, 9), batches=int(members.sum()) + 100))
        assert (decision.action, decision.why) == ("stay", "the end is near")

    def test_a_target_brings_down_what_is_left(self) -> None:
        near, far = (
            FUNCTIONS.decide(self.asked((10, 9), target=target)).numbers["left"]
            for target in (falling(250, exponent=0.9)[-1], falling(900, exponent=0.9)[-1])
        )
        assert near < far < FUNCTIONS.decide(self.asked((10, 9))).numbers["left"]


class TestLeaver:
    def test_a_straggler_goes_first(self) -> None:
        workers = (Contribution(0, 1.0, 5), Contribution(1, 1.5, 99), Contribution(2, 1.0, 4))
        assert choose(workers, 1) == ((1,), "worker 1 keeps the others waiting")
        chosen, why = choose(workers, 2)
        assert chosen == (1, 2)
        assert why == "worker 1 keeps the others waiting, worker 2 publishes the least"

    def test_of_equals_the_highest_id(self) -> None:
        assert choose(tuple(Contribution(n, 1.0, 7) for n in range(4)), 2)[0] == (2, 3)

    def test_without_times_entries_decide(self) -> None:
        assert choose((Contribution(0, 0.0, 3), Contribution(1, 0.0, 9)), 1)[0] == (0,)


class TestTuner:
    class Letting:
        """Lets the two highest go at every look."""

        def __init__(self) -> None:
            self.asked: list[Question] = []

        def due(self, *, steps: int, seconds: float) -> bool:
            return steps >= 5

        def decide(self, question: Question) -> Decision:
            self.asked.append(question)
            return question.leave(tuple(one.worker for one in question.workers[-2:]), "because")

    def test_it_asks_when_due_and_leavers_are_no_candidates_again(self) -> None:
        policy = self.Letting()
        tuner = Tuner(policy, Inline(), floor=1, goal=Goal(batches=99))
        decided = [tuner.observe(seen(step, 1.0, workers=6)) for step in range(11)]
        assert [one.step if one else None for one in decided] == [None] * 5 + [5] + [None] * 4 + [10]
        assert [one.workers for one in decided if one] == [(4, 5), (2, 3)]

    def test_a_decision_that_would_go_below_the_floor_does_not_hold(self) -> None:
        tuner = Tuner(self.Letting(), Inline(), floor=3, goal=Goal(batches=99))
        decided = [tuner.observe(seen(step, 1.0)) for step in range(6)]
        assert decided[-1] is not None
        assert (decided[-1].action, decided[-1].workers) == ("stay", ())

    def test_it_does_not_wait_for_an_answer(self) -> None:
        class Slow(Inline):
            asked = 0

            def result(self) -> Decision | None:
                self.asked += 1
                return super().result() if self.asked > 8 else None

        policy = self.Letting()
        tuner = Tuner(policy, Slow(), floor=1, goal=Goal(batches=99))
        decided = [tuner.observe(seen(step, 1.0)) for step in range(14)]
        assert len(policy.asked) == 1
        assert [n for n, one in enumerate(decided) if one] == [13]
        assert decided[13].step == 5  # type: ignore[union-attr]

    def test_the_knee_stays_behind_once_someone_has_left(self) -> None:
        class Past(TestTuner.Letting):
            def decide(self, question: Question) -> Decision:
                self.asked.append(question)
                return question.leave((question.workers[-1].worker,), "because", knee=3 + len(self.asked))

        policy = Past()
        tuner = Tuner(policy, Inline(), floor=1, goal=Goal(batches=99))
        for step in range(16):
            tuner.observe(seen(step, 1.0, workers=6))
        assert [one.knee for one in policy.asked] == [None, 4, 4]

    def test_a_metric_of_which_more_is_better_is_turned_round(self) -> None:
        goal = Goal(batches=9, target=Target(metric="auc", value=0.8))
        policy = self.Letting()
        tuner = Tuner(policy, Inline(), floor=1, goal=goal)
        for step in range(6):
            tuner.observe(seen(step, 1.0, heldout={"auc": 0.7} if step == 3 else None))
        assert policy.asked[0].heldout == ((3, -0.7),)

    def test_the_time_of_an_evaluation_is_not_that_of_its_step(self) -> None:
        policy = self.Letting()
        tuner = Tuner(policy, Inline(), floor=1, goal=Goal(batches=99))
        for step in range(6):
            tuner.observe(seen(step, 1.0, evaluating=0.25))
        assert np.isnan(policy.asked[0].seconds[0])
        assert policy.asked[0].seconds[1:] == pytest.approx(0.75)

    def test_what_a_step_takes_is_that_of_as_many_workers(self) -> None:
        policy = self.Letting()
        tuner = Tuner(policy, Inline(), floor=1, goal=Goal(batches=99))
        for step in range(6):
            many = step < 4
            tuner.observe(seen(step, 1.0, workers=6 if many else 4, exchanged=36 if many else 16))
        assert policy.asked[0].exchanged == 16
        assert policy.asked[0].time == 5.0

    def test_what_was_seen_before_a_job_was_lost_counts(self) -> None:
        """All but who has done what in single steps."""
        policy, goal = self.Letting(), Goal(batches=99, target=Target(metric="auc", value=0.8))
        tuner = Tuner(policy, Inline(), floor=1, goal=goal)
        before = Decision(4, "leave", (4, 5), "because", {"knee": 3.0})
        for step in range(18):
            heldout = {"auc": 0.7} if step == 3 else None
            record = seen(step, 1.0 - step / 40, workers=6 if step < 8 else 4, heldout=heldout)
            if step >= 12:
                tuner.observe(record)
                continue
            nobody = tuple(Contribution(-1 - number, 0.0, 0) for number in range(len(record.workers)))
            record = msgspec.structs.replace(record, workers=nobody)
            tuner.recall(record, before if step == 4 else None)
        (question,) = policy.asked
        assert (question.knee, question.heldout) == (3, ((3, -0.7),))
        assert question.losses == pytest.approx([1.0 - step / 40 for step in range(18)])
        assert question.members.tolist() == [6.0] * 8 + [4.0] * 10
        assert question.settled.tolist() == [*range(8), *range(10)]
        assert question.seconds[1:] == pytest.approx(1.0)
        assert [one.worker for one in question.workers] == [0, 1, 2, 3]
        assert all(one.seconds > 0 for one in question.workers)

    def test_who_is_to_leave_anyway_is_no_candidate(self) -> None:
        policy = self.Letting()
        tuner = Tuner(policy, Inline(), floor=1, goal=Goal(batches=99))
        tuner.expect([4, 5])
        for step in range(6):
            tuner.observe(seen(step, 1.0, workers=6))
        assert [one.worker for one in policy.asked[0].workers] == [0, 1, 2, 3]
