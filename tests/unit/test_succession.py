"""Functions that hand over to their successors, as the ledger has it: an event in, instructions out."""

from __future__ import annotations

import msgspec
import pytest
from unit.test_ledger import SCORE, Game, kinds, sent

from mlless.errors import ChannelError
from mlless.instructions import (
    Close,
    Delete,
    Dismiss,
    Done,
    Event,
    Exited,
    Fail,
    Forget,
    Instruction,
    Kept,
    Launch,
    Passed,
    Rewind,
    Send,
)
from mlless.messages import (
    PROTOCOL,
    Abort,
    Begin,
    Commit,
    Donate,
    Donated,
    Failure,
    HandedOver,
    Hello,
    Origin,
    Prepare,
    Ready,
    Report,
    Times,
)

LIMIT = 100.0
LEAD = 5.0 + 2.0  # a share of the limit, and twice a second's start


class Limited(Game):
    """A game whose functions have a limit of 100 s and take a second to start; steps take no time."""

    def __init__(self, workers: int = 2, on_loss: str = "replace", epochs: int = 9) -> None:
        super().__init__(workers, on_loss, epochs)
        self.left = dict.fromkeys([(worker, 0) for worker in range(workers)], LIMIT)
        self.now = 1.0
        self.begun()

    def hello(self, worker: int, generation: int = 0, version: str = "1.0") -> list[Instruction]:
        return self.tell(Hello(worker, generation, 1, PROTOCOL, version, LIMIT))

    def made(self, worker: int, generation: int = 0, step: int | None = None, keep: float = 0.0) -> Report:
        left = self.left.get((worker, generation), LIMIT)
        return msgspec.structs.replace(super().made(worker, generation, step, keep), left=left)

    def handed(self, worker: int, generation: int = 0) -> HandedOver:
        key = f"handover/{self.ledger.step}/{worker}.{generation}"
        times = Times(merge=0.25, keep=0.5)
        return HandedOver(worker, generation, Origin(key, self.ledger.step, "d"), 7, 9, times)

    def near(self, *workers: int, left: float = LEAD - 0.1) -> list[Instruction]:
        """Let the time of workers be nearly over, and close a step."""
        self.left |= {(worker, 0): left for worker in workers}
        return self.closed()

    def closed(self) -> list[Instruction]:
        """Have all members report that have begun; return what the verdict leads to."""
        for worker, generation in self.ledger._members.at_work.items():
            self.report(worker, generation)
        return self.verdict()

    def ready(self, worker: int, generation: int = 1) -> None:
        self.hello(worker, generation)
        self.tell(Ready(worker, generation))

    def handing(self, *workers: int) -> list[Instruction]:
        """Come to the step in which these workers hand over."""
        self.near(*workers)
        for worker in workers:
            self.ready(worker)
        return self.closed()


def test_a_successor_is_launched_before_the_time_of_a_function_is_over() -> None:
    game = Limited()
    assert kinds(game.near(1, left=LEAD + 0.1)) == ["Commit", "Delete"]
    *_, launch = game.near(1)
    assert launch == Launch(((1, 1),))
    assert kinds(game.closed()) == ["Commit", "Delete"]  # and only once


def test_what_a_runtime_takes_to_launch_functions_counts_twice() -> None:
    game = Limited()
    game.ledger.pace.launching = 3.0
    assert kinds(game.near(1, left=LEAD + 6.1)) == ["Commit", "Delete"]
    *_, launch = game.near(1, left=LEAD + 5.9)
    assert launch == Launch(((1, 1),))


def test_a_successor_prepares_itself_while_the_one_before_it_works_on() -> None:
    game = Limited()
    game.near(1)
    [(prepare, to)] = sent(game.hello(1, 1))
    assert isinstance(prepare, Prepare)
    assert [plan.step for plan in prepare.plans] == [1, 2]
    assert prepare.plans[0].owners
    assert to == ((1, 1),)
    assert game.hello(1, 1) == []
    [(commit, to)] = sent(game.closed())
    assert isinstance(commit, Commit)
    assert (commit.handover, to) == ((), ((0, 0), (1, 0)))
    assert game.tell(Ready(1, 1)) == []
    [(commit, to)] = sent(game.closed())
    assert isinstance(commit, Commit)
    assert (commit.handover, to) == (((1, 0),), ((0, 0), (1, 0)))


def test_a_successor_begins_with_what_it_is_handed_and_the_step_after_removes_that() -> None:
    game = Limited()
    game.handing(1)
    assert game.report(0) == []
    handed = game.handed(1)
    [(begin, to)] = sent(game.tell(handed))
    assert isinstance(begin, Begin)
    assert (begin.origin, begin.plans[0].step, to) == (handed.origin, 2, ((1, 1),))
    [close] = game.report(1, 1)
    assert isinstance(close, Close)
    assert close.handovers == 1
    commit, delete = game.verdict()
    assert isinstance(commit, Send)
    assert isinstance(commit.message, Commit)
    assert commit.message.published == ((0, 0), (1, 1))
    assert commit.functions == ((0, 0), (1, 1))
    assert delete == Delete(("update/1/0.0", "update/1/1.0", "handover/2/1.0"))
    *_, close = game.report(0), *game.report(1, 1)
    assert isinstance(close, Close)
    assert close.handovers == 0


def test_what_was_done_after_the_last_report_is_told_with_the_successors_first() -> None:
    game = Limited()
    game.handing(1)
    game.tell(game.handed(1))
    game.report(0)
    [close] = game.report(1, 1, keep=1.0)
    assert isinstance(close, Close)
    assert (close.reports[1].bytes_in, close.reports[1].bytes_kept) == (7, 9)
    assert (close.reports[1].times.merge, close.reports[1].times.keep) == (0.25, 1.5)
    assert (close.reports[0].bytes_in, close.reports[0].times.keep) == (0, 0.0)


def test_all_may_hand_over_at_once() -> None:
    game = Limited(workers=3)
    [(commit, _)] = sent(game.handing(0, 1, 2))
    assert isinstance(commit, Commit)
    assert commit.handover == ((0, 0), (1, 0), (2, 0))
    assert [kinds(game.tell(game.handed(worker))) for worker in (2, 0, 1)] == [["Begin"]] * 3
    assert kinds(game.closed()) == ["Commit", "Delete"]


def test_a_function_that_exits_before_its_last_word_comes_is_not_lost() -> None:
    game = Limited()
    game.handing(1)
    assert game.tell(Exited(1, 0, False, "exit code 0", done=True)) == []
    assert kinds(game.tell(game.handed(1))) == ["Begin"]
    assert game.tell(Exited(1, 0, False, "exit code 0", done=True)) == []


def test_what_the_old_one_says_again_changes_nothing() -> None:
    game = Limited()
    game.handing(1)
    handed = game.handed(1)
    assert game.report(1, 0, step=1) == game.hello(1, 0) == []
    game.tell(handed)
    home = Send(Abort("another function has taken this one's place"), ((1, 0),))
    assert game.tell(handed) == [home]
    game.closed()
    assert game.tell(handed) == [Delete((handed.origin.key,)), home]


@pytest.mark.parametrize(
    "end",
    [Exited(1, 0, True, "signal SIGALRM"), Failure(1, 0, 1, "cannot write", 7, "")],
    ids=["killed", "failed"],
)
def test_where_the_old_one_is_lost_its_successor_starts_from_a_donation(end: Event) -> None:
    game = Limited()
    game.handing(1)
    assert kinds(game.tell(end)) == ["Dismiss"]
    assert sent(game.report(0)) == [(Donate(2), ((0, 0),))]
    late = game.tell(game.handed(1))
    assert late[0] == Delete(("handover/2/1.0",))
    [(begin, to)] = sent(game.tell(Donated(0, 0, Origin("donation/2/0.0", 2, "x"))))
    assert isinstance(begin, Begin)
    assert (begin.origin.key, to) == ("donation/2/0.0", ((1, 1),))
    game.report(1, 1)
    *_, delete = game.verdict()
    assert isinstance(delete, Delete)
    assert "handover/2/1.0" in delete.keys


def test_who_does_not_hand_over_in_time_is_lost() -> None:
    game = Limited()
    game.handing(1)
    game.report(0)
    game.now += game.ledger.pace.cold + 0.1
    assert game.ledger.is_silent(game.now)
    dismiss, *_ = game.tell(Passed())
    assert dismiss == Dismiss((1, 0), "worker 1 has not handed over in time")


def test_a_successor_that_dies_while_it_waits_for_the_model_gets_one_that_is_handed_it() -> None:
    game = Limited()
    game.handing(1)
    assert kinds(game.dies(1, 1)) == ["Dismiss", "Launch"]
    game.report(0)
    assert game.tell(game.handed(1)) == []
    [(begin, to)] = sent(game.hello(1, 2))
    assert isinstance(begin, Begin)
    assert (begin.origin.key, to) == ("handover/2/1.0", ((1, 2),))


def test_a_successor_that_dies_at_its_work_gets_one_that_is_handed_the_same() -> None:
    game = Limited(workers=1)
    game.handing(0)
    game.tell(game.handed(0))
    assert kinds(game.dies(0, 1)) == ["Dismiss", "Launch"]  # and the job does not go back
    [(begin, _)] = sent(game.hello(0, 2))
    assert isinstance(begin, Begin)
    assert begin.origin.key == "handover/2/0.0"
    lost = game.tell(Failure(0, 2, 2, "not in the store", ChannelError.exit_code, ""))
    assert kinds(lost) == ["Dismiss", "Launch", "Rewind"]


def test_alone_it_goes_back_where_the_old_one_is_lost_and_the_successor_begins_there() -> None:
    game = Limited(workers=1)
    game.handing(0)
    dismiss, rewind, begin = game.dies(0, 0)
    assert isinstance(dismiss, Dismiss)
    assert isinstance(rewind, Rewind)
    assert isinstance(begin, Send)
    assert isinstance(begin.message, Begin)
    assert (begin.message.origin.key, begin.functions) == ("initial", ((0, 1),))
    late = game.tell(game.handed(0))
    assert late[0] == Delete(("handover/0/0.0",))


def test_a_successor_on_its_way_takes_the_place_of_one_that_is_lost() -> None:
    game = Limited()
    game.near(1)
    assert kinds(game.dies(1)) == ["Dismiss"]  # none is launched
    game.report(0)
    assert sent(game.hello(1, 1)) == [(Donate(1), ((0, 0),))]
    game = Limited()
    game.near(1)
    game.ready(1)
    assert kinds(game.dies(1)) == ["Dismiss"]
    assert sent(game.report(0)) == [(Donate(1), ((0, 0),))]


def test_a_successor_that_is_lost_before_it_is_needed_is_launched_again() -> None:
    game = Limited(on_loss="fail")
    game.near(1)
    assert game.dies(1, 1) == [Dismiss((1, 1), "worker 1 died in step 1: signal SIGKILL")]
    *_, launch = game.closed()
    assert launch == Launch(((1, 2),))
    game.dies(1, 2)
    game.closed()
    game.dies(1, 3)
    *_, launch = game.closed()
    assert launch == Launch(((1, 4),))
    game.hello(1, 4)
    game.now += game.ledger.pace.cold + 0.1
    game.closed()
    [dismiss] = game.tell(Passed())
    assert dismiss == Dismiss((1, 4), "the successor of worker 1 has not made ready in time")


def test_successors_that_are_lost_again_and_again_end_the_job() -> None:
    game = Limited()
    game.near(1)
    for generation in range(1, 20):
        *_, last = game.dies(1, generation)
        if isinstance(last, Fail):
            break
        game.closed()
    assert 8 <= generation <= 9


def test_a_late_successor_is_lost() -> None:
    game = Limited()
    game.closed()
    game.closed()  # so that steps which take no time are usual
    game.near(1)
    game.now += game.spec.deadlines.start + 0.1
    game.closed()
    assert kinds(game.tell(Passed())) == ["Dismiss"]


def test_who_has_no_time_for_another_step_hands_over_though_no_successor_is_there() -> None:
    game = Limited()
    for _ in range(4):  # so that ten seconds are usual
        game.now += 10.0
        game.closed()
    game.now += 10.0
    commit, _, launch = game.near(0, left=14.9)
    assert isinstance(commit, Send)
    assert isinstance(commit.message, Commit)
    assert commit.message.handover == ((0, 0),)
    assert launch == Launch(((0, 1),))
    assert game.tell(game.handed(0)) == []
    assert kinds(game.hello(0, 1)) == ["Begin"]


def test_the_successor_of_the_keeper_says_that_its_models_are_stored() -> None:
    game = Limited()
    game.near(0)
    game.ready(0)
    for worker in (0, 1):
        game.report(worker)
    [(commit, _)] = sent(game.verdict(best=True))
    assert isinstance(commit, Commit)
    assert commit.best == commit.handover == ((0, 0),)
    assert kinds(game.tell(game.handed(0))) == ["Begin"]
    assert game.report(0, 1)[0] == Kept(SCORE, ("best/0/0.0",))


def test_a_best_model_is_forgotten_with_who_was_to_store_it_and_to_hand_over() -> None:
    for after in (False, True):
        game = Limited()
        game.near(0)
        game.ready(0)
        for worker in (0, 1):
            game.report(worker)
        game.verdict(best=True)
        if after:
            game.tell(game.handed(0))
        assert Forget(None) in game.dies(0, int(after))


def test_whoever_comes_to_its_end_hands_over_only_if_it_must() -> None:
    game = Limited()
    game.near(0, 1)
    game.ready(0)
    game.ready(1)
    game.left[1, 0] = 1.0
    for worker in (0, 1):
        game.report(worker)
    [(commit, _), *_] = sent(game.verdict(stop=True))
    assert isinstance(commit, Commit)
    assert commit.handover == ((1, 0),)
    game.tell(game.handed(1))
    assert kinds(game.closed()) == ["Commit", "Delete"]  # in which everyone flushes
    assert kinds(game.closed()) == ["Commit", "Delete"]
    commit, home, done = game.closed()
    assert home == Send(Abort("nothing is left for this one to do"), ((0, 1),))
    assert isinstance(done, Done)


def test_the_successor_of_one_that_leaves_is_sent_home() -> None:
    game = Limited(workers=3)
    game.near(1)
    for worker in range(3):
        game.report(worker)
    game.verdict(leavers=(1,))
    assert (1, 1) in game.ledger.functions
    game.closed()
    _, _, home = game.closed()
    assert home == Send(Abort("nothing is left for this one to do"), ((1, 1),))
    assert game.ledger.functions == ((0, 0), (2, 0))
