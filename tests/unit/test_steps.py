"""The ledger of a job with slack: some report steps before these are the open one."""

from __future__ import annotations

import pytest
from tests.unit.test_ledger import START, Game, kinds, sent, spec

from mlless.closing import Verdict
from mlless.instructions import Close, Delete, Dismiss, Fail, Instruction, Kept, Launch, Passed, Rewind, Send
from mlless.mark import Mark, beginning
from mlless.membership import Schedule
from mlless.messages import Begin, Commit, Donate, Donated, Origin, Plan, Substitute
from mlless.steps import Steps
from mlless.stopping import Progress

SLACK = 2


class Loose(Game):
    """A game of eight steps, with evaluations in 0 and 4, in which workers may be two steps ahead."""

    def __init__(self, on_loss: str = "replace", workers: int = 3) -> None:
        super().__init__(workers, on_loss, slack=SLACK)
        self.begun()

    def reports(self, worker: int, *steps: int, generation: int = 0) -> list[list[Instruction]]:
        return [self.report(worker, generation, step) for step in steps]

    def closed(self, **verdict: bool) -> tuple[Commit, list[str], list[Instruction]]:
        """Give a verdict; return the commit, what is deleted with it, and what follows after that."""
        commit, delete, *others = self.verdict(**verdict)  # type: ignore[arg-type]
        assert isinstance(commit, Send)
        assert isinstance(commit.message, Commit)
        assert isinstance(delete, Delete)
        return commit.message, list(delete.keys), others

    def go_to(self, step: int) -> Loose:
        while self.ledger.step < step:
            self.step()
        return self


def test_plans_are_told_further_ahead() -> None:
    game = Game(slack=SLACK)
    [(begin, _)] = sent(game.hello(0))
    assert isinstance(begin, Begin)
    assert [plan.step for plan in begin.plans] == [0, 1, 2, 3]
    loose = Loose()
    loose.reports(0, 0), loose.reports(1, 0), loose.reports(2, 0)
    commit, _, _ = loose.closed()
    assert [plan.step for plan in commit.plans] == [1, 2, 3, 4]


def test_steps_close_in_order_when_the_slowest_one_catches_up() -> None:
    game = Loose()
    assert game.reports(1, 0, 1, 2) == game.reports(2, 0, 1, 2) == [[], [], []]
    [[close]] = game.reports(0, 0)
    assert isinstance(close, Close)
    assert (close.plan.step, [plan.step for plan in close.further]) == (0, [2, 3])
    commit, keys, others = game.closed()
    assert (commit.step, keys, others) == (0, [], [])
    assert game.reports(1, 3) == [[]]
    [[close]] = game.reports(0, 1)
    assert isinstance(close, Close)
    assert [(one.worker, one.step) for one in close.reports] == [(0, 1), (1, 1), (2, 1)]


def test_a_step_of_which_all_have_told_before_closes_as_it_opens() -> None:
    game = Loose()
    game.reports(1, 0, 1), game.reports(2, 0, 1), game.reports(0, 1)
    [[close]] = game.reports(0, 0)
    _, _, [close] = game.closed()
    assert isinstance(close, Close)
    assert close.plan.step == 1


def test_nobody_may_be_further_ahead_than_the_slack_nor_ahead_of_a_step_for_which_all_is_merged() -> None:
    [fail] = Loose().report(1, step=3)
    assert isinstance(fail, Fail)
    game = Loose().go_to(2)
    assert game.reports(1, 2, 3) == [[], []]
    [fail] = game.report(1, step=4)  # it evaluates
    assert isinstance(fail, Fail)


def test_a_report_that_comes_twice_ahead_of_its_step_counts_once() -> None:
    game = Loose()
    game.report(1, step=1, keep=1.0)
    assert game.report(1, step=1, keep=7.0) == []
    game.reports(1, 0), game.reports(2, 0, 1), game.reports(0, 0)
    game.closed()
    [[close]] = game.reports(0, 1)
    assert isinstance(close, Close)
    assert [one.times.keep for one in close.reports] == [0.0, 1.0, 0.0]


def test_updates_stay_until_all_have_merged_them() -> None:
    game, deleted = Loose(), []
    for step in range(6):
        for worker in range(3):
            game.report(worker, step=step)
        _, keys, _ = game.closed()
        deleted.append(sorted({int(key.split("/")[1]) for key in keys}))
    # Step 3 is taken with step 0 merged, step 4 evaluates, 7 is taken with 4 merged.
    assert deleted == [[], [], [], [0], [1, 2, 3], []]


def test_a_decision_changes_no_step_that_some_may_have_begun() -> None:
    game = Loose()
    for worker in range(3):
        game.report(worker, step=0)
    commit, _, _ = game.closed(stop=True)
    assert [plan.flush for plan in commit.plans] == [(), (), (), (0, 1, 2)]
    game = Loose()
    for worker in range(3):
        game.report(worker, step=0)
    commit, _, _ = game.closed(diverged=True)
    assert [plan.last for plan in commit.plans] == [False, False, True]


def test_what_a_lost_worker_has_reported_ahead_counts_and_its_successor_begins_after_that() -> None:
    game = Loose()
    game.reports(0, 0, 1)
    assert game.dies(0) == [Dismiss((0, 0), "worker 0 died in step 0: signal SIGKILL"), Launch(((0, 1),))]
    assert game.hello(0, 1) == []
    game.reports(1, 0, 1)
    assert kinds(game.report(2, step=0)) == ["Close"]
    commit, keys, _ = game.closed()
    assert (commit.published, keys) == (
        ((0, 0), (1, 0), (2, 0)),
        ["update/2/0.0", "rows/3/0.0"],
    )  # that may be there
    assert kinds(game.report(2, step=1)) == ["Close"]
    commit, _, begins = game.closed()
    assert commit.published == ((0, 0), (1, 0), (2, 0))
    assert begins == []  # nobody has reported step 2 who could donate
    assert sent(game.report(1, step=2)) == [(Donate(2), ((1, 0),))]
    [(begin, to)] = sent(game.tell(Donated(1, 0, Origin("donation/2/1.0", 2, "x"))))
    assert isinstance(begin, Begin)
    assert ([plan.step for plan in begin.plans], to) == ([2, 3, 4, 5], ((0, 1),))


def test_a_donor_that_is_ahead_has_time_to_come_to_the_question() -> None:
    game = Loose().go_to(5)
    game.dies(0)
    game.hello(0, 1)
    assert sent(game.report(1)) == [(Donate(5), ((1, 0),))]
    game.reports(2, 5)
    usual = game.ledger.pace.patience(game.ledger._steps.plan)
    game.now += 0.9 * usual
    game.report(1, step=6)
    game.now += 0.9 * usual
    assert game.tell(Passed()) == []
    game.now += 0.2 * usual
    assert kinds(game.tell(Passed()))[:2] == ["Dismiss", "Launch"]


def test_a_word_of_a_lost_worker_that_comes_again_removes_nothing_that_is_needed() -> None:
    game = Loose()
    game.reports(0, 0, 1), game.reports(1, 0), game.reports(2, 0)
    game.closed()
    game.dies(0)
    game.reports(0, 0, 1)  # again, of a step that is closed, and of the open one
    game.reports(1, 1), game.reports(2, 1)
    _, keys, _ = game.closed()
    assert keys == ["update/2/0.0", "rows/3/0.0"]


def test_a_part_that_another_one_takes_is_asked_for_step_by_step() -> None:
    game = Loose("shrink")
    game.reports(1, 0, 1), game.reports(2, 0)
    assert sent(game.dies(0))[-1] == (Substitute(0, 0, 1), ((1, 0),))
    game.report(0, 1, 0)
    commit, _, asked = game.closed()
    assert [plan.members for plan in commit.plans] == [(0, 1, 2)] * 2 + [(1, 2)] * 2
    assert sent(asked) == [(Substitute(1, 0, 1), ((1, 0),))]


def test_a_model_is_kept_once_its_worker_has_come_so_far() -> None:
    game = Loose()
    for worker in range(3):
        game.reports(worker, 0, 1)
    commit, _, [close] = game.closed(best=True)
    assert (commit.best, kinds([close])) == (((0, 0),), ["Close"])
    commit, _, _ = game.closed()
    assert game.reports(0, 2) == [[]]  # it had nothing to merge before that
    [[kept]] = game.reports(0, 3)
    assert isinstance(kept, Kept)
    assert kept.keys == ("best/0/0.0",)


def test_a_job_that_goes_back_forgets_what_was_reported_ahead() -> None:
    game = Loose().go_to(1)
    game.reports(0, 1, 2), game.reports(1, 1)
    lost = [one for worker in (0, 1, 2) for one in game.dies(worker)]
    [back] = [one for one in lost if isinstance(one, Rewind)]
    assert back.mark.plan.step == 0
    for worker in range(3):
        game.hello(worker, 1)
    for worker in range(3):
        game.report(worker, 1, step=0)
    commit, keys, others = game.closed()
    assert commit.published == ((0, 1), (1, 1), (2, 1))
    assert {f"update/{one}" for one in ("0/0.0", "0/2.0", "1/0.0", "2/0.0", "1/1.0")} <= set(keys)
    assert others == []


def test_plans_of_a_mark_are_kept_as_far_as_the_slack_goes() -> None:
    schedule = Schedule([10] * 12, 10, 2)
    first = beginning(spec(), schedule, START)
    plans = [first.plan]
    while (later := schedule.after(plans[-1], (2,) if len(plans) == 3 else ())) is not None:
        plans.append(later)
    mark = Mark(plans[0], plans[1], START, first.progress, tuple(plans[2:4]))
    assert Steps(schedule, 2, mark).ahead == tuple(plans[1:4])
    assert Steps(schedule, 3, mark).ahead == tuple(plans[1:5])
    assert Steps(schedule, 0, mark).ahead == (plans[1],)
    assert plans[3].flush == (2,)


@pytest.mark.parametrize("slack", [0, 1, 4])
def test_a_drain_concerns_the_newest_plan_which_nobody_has_begun(slack: int) -> None:
    schedule = Schedule([10] * 120, 10, 2)  # 40 steps an epoch
    steps = Steps(schedule, slack, beginning(spec(), schedule, START))
    steps.drain()
    assert [plan.step for plan in steps.ahead if plan.drain] == ([] if slack == 0 else [slack + 1])
    steps.close(Verdict(False, (), False, False, Progress(spec().stop, 1.0)), ())
    steps.drain()
    drained = [plan.step for plan in steps.ahead if plan.drain]
    assert drained == ([] if slack == 0 else [slack + 1, slack + 2])


def test_how_many_steps_are_merged_before_one() -> None:
    plain = Plan(7, (0, 1), 1, 9, 3)
    assert [plain.due(slack) for slack in (0, 1, 3, 9)] == [7, 6, 4, 0]
    for whole in ({"drain": True}, {"evaluate": True}, {"flush": (1,)}, {"last": True}):
        assert Plan(7, (0, 1), 1, 9, 3, **whole).due(3) == 7  # type: ignore[arg-type]
