"""The ledger: an event in, instructions out."""

from __future__ import annotations

import pytest

from mlless.closing import Verdict
from mlless.errors import DeadlineExceeded, JobError, WorkerFailed, WorkerLost
from mlless.instructions import (
    Close,
    Delete,
    Dismiss,
    Done,
    Ended,
    Event,
    Fail,
    Forget,
    Instruction,
    Kept,
    Launch,
    Marked,
    Passed,
    Rewind,
    Send,
    Started,
)
from mlless.job import Deadlines, Factorization, JobSpec, Nesterov, Stop, Sync
from mlless.ledger import Ledger
from mlless.membership import Schedule
from mlless.messages import (
    PROTOCOL,
    Abort,
    Begin,
    Commit,
    Donate,
    Donated,
    Failure,
    FunctionId,
    Hello,
    Origin,
    Report,
    Substitute,
    Substituted,
    Times,
)
from mlless.stopping import Progress, Score

START = Origin("initial", 0, "d")
SCORE = Score(0, {"rmse": 1.0}, 1.0)


def spec(workers: int = 3, on_loss: str = "replace", epochs: int = 2) -> JobSpec:
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
        deadlines=Deadlines(),
        on_loss=on_loss,  # type: ignore[arg-type]
    )


class Game:
    """A ledger, and events for it; time stands still unless it is moved."""

    def __init__(self, workers: int = 3, on_loss: str = "replace", epochs: int = 2) -> None:
        self.spec = spec(workers, on_loss, epochs)
        schedule = Schedule([10] * 12, self.spec.batch_size, epochs)
        self.progress = Progress(self.spec.stop, 1.0)
        self.ledger = Ledger(self.spec, schedule, "1.0", START, self.progress)
        self.now = 0.0
        self.began = self.ledger.start(0.0)

    def tell(self, event: Event) -> list[Instruction]:
        return self.ledger.handle(event, self.now)

    def hello(self, worker: int, generation: int = 0, version: str = "1.0") -> list[Instruction]:
        return self.tell(Hello(worker, generation, 1, PROTOCOL, version))

    def report(
        self, worker: int, generation: int = 0, step: int | None = None, keep: float = 0.0
    ) -> list[Instruction]:
        return self.tell(self.made(worker, generation, step, keep))

    def made(self, worker: int, generation: int = 0, step: int | None = None, keep: float = 0.0) -> Report:
        step = self.ledger.step if step is None else step
        return Report(worker, generation, step, 5, 1.0, True, True, 1, 1, 0, 0, 0, Times(keep=keep))

    def dies(self, worker: int, generation: int = 0) -> list[Instruction]:
        return self.tell(Ended(worker, generation, True, "signal SIGKILL"))

    def verdict(self, *, best: bool = False, stop: bool = False, diverged: bool = False) -> list[Instruction]:
        progress = Progress(self.spec.stop, 1.0, best=SCORE)
        return self.tell(Verdict(best, (), stop, diverged, progress))

    def begun(self) -> Game:
        for worker in range(self.spec.workers):
            self.hello(worker)
        return self

    def step(self, generations: dict[int, int] | None = None, **verdict: bool) -> list[Instruction]:
        """Have all members report; return what the verdict leads to."""
        for worker, generation in self.ledger.functions:
            self.report(worker, (generations or {}).get(worker, generation))
        return self.verdict(**verdict)


def kinds(instructions: list[Instruction]) -> list[str]:
    return [
        type(one.message).__name__ if isinstance(one, Send) else type(one).__name__ for one in instructions
    ]


def sent(instructions: list[Instruction]) -> list[tuple[object, tuple[FunctionId, ...]]]:
    return [(one.message, one.functions) for one in instructions if isinstance(one, Send)]


def test_a_job_begins_with_all_functions() -> None:
    game = Game()
    assert game.began == [Launch(((0, 0), (1, 0), (2, 0)))]
    [(begin, to)] = sent(game.hello(1))
    assert isinstance(begin, Begin)
    assert (begin.origin, [plan.step for plan in begin.plans], to) == (START, [0, 1], ((1, 0),))
    assert kinds(game.hello(0)) == ["Begin"]
    assert kinds(game.hello(2)) == ["Begin", "Started"]


def test_a_function_of_another_release_ends_the_job() -> None:
    [fail] = Game().hello(0, version="0.9")
    assert isinstance(fail, Fail)
    assert "mlless 0.9" in str(fail.error)


def test_a_step_closes_with_its_last_report_and_a_verdict() -> None:
    game = Game().begun()
    assert game.report(2) == game.report(0) == []
    [close] = game.report(1)
    assert isinstance(close, Close)
    assert [report.worker for report in close.reports] == [0, 1, 2]
    commit, delete = game.verdict()
    assert isinstance(commit, Send)
    assert isinstance(commit.message, Commit)
    assert commit.message.published == ((0, 0), (1, 0), (2, 0))
    assert [plan.step for plan in commit.message.plans] == [1, 2]
    assert commit.functions == ((0, 0), (1, 0), (2, 0))
    assert delete == Delete(())
    *_, delete = game.step()
    assert delete == Delete(("update/0/0.0", "update/0/1.0", "update/0/2.0"))


def test_a_report_that_comes_twice_or_late_counts_once() -> None:
    game = Game().begun()
    game.report(0)
    assert game.report(0) == []
    game.report(1)
    game.report(2)
    game.verdict()
    assert game.report(0, step=0) == []
    assert game.report(0) == game.report(1) == []
    assert kinds(game.report(2)) == ["Close"]


def test_a_lost_worker_gets_a_successor_that_starts_from_a_donation() -> None:
    game = Game().begun()
    game.step()
    assert game.dies(1) == [Dismiss((1, 0), "worker 1 died in step 1: signal SIGKILL"), Launch(((1, 1),))]
    assert game.hello(1, 1) == []  # nobody has reported yet
    assert sent(game.report(2)) == [(Donate(1), ((2, 0),))]
    assert game.report(0) == []
    origin = Origin("donation/1/2.0", 1, "x")
    [(begin, to)] = sent(game.tell(Donated(2, 0, origin)))
    assert isinstance(begin, Begin)
    assert (begin.origin, begin.plans[0].step, to) == (origin, 1, ((1, 1),))
    [close] = game.report(1, 1)
    assert isinstance(close, Close)
    commit, delete = game.verdict()
    assert isinstance(commit, Send)
    assert isinstance(commit.message, Commit)
    assert commit.message.published == ((0, 0), (1, 1), (2, 0))
    assert isinstance(delete, Delete)
    assert {"update/1/1.0", "donation/1/2.0"} <= set(delete.keys)


def test_who_is_lost_after_its_report_is_replaced_in_the_next_step() -> None:
    game = Game().begun()
    game.report(1)
    assert kinds(game.dies(1)) == ["Dismiss", "Launch"]
    game.report(0)
    assert kinds(game.report(2)) == ["Close"]
    [(commit, to)] = sent(game.verdict())
    assert isinstance(commit, Commit)
    assert commit.published == ((0, 0), (1, 0), (2, 0))
    assert to == ((0, 0), (2, 0))
    game.hello(1, 1)
    assert sent(game.report(0)) == [(Donate(1), ((0, 0),))]


def test_another_donates_where_the_donor_dies() -> None:
    game = Game().begun()
    game.step()
    game.dies(1)
    game.hello(1, 1)
    game.report(0)
    game.report(2)
    assert sent(game.dies(0)) == [(Donate(1), ((2, 0),))]
    late = game.tell(Donated(0, 0, Origin("donation/1/0.0", 1, "x")))
    assert late[0] == Delete(("donation/1/0.0",))


def test_what_an_older_generation_says_is_passed_over() -> None:
    game = Game().begun()
    game.step()
    game.dies(1)
    home = Send(Abort("another function has taken this one's place"), ((1, 0),))
    assert game.report(1, 0) == [home]
    assert game.hello(1, 0) == [home]
    assert game.tell(Failure(1, 0, 1, "oh", 0, "")) == []
    assert game.dies(1, 0) == []
    game.report(0)
    assert "Close" not in kinds(game.report(2))


def test_with_nobody_left_the_job_goes_back_to_its_start() -> None:
    game = Game().begun()
    game.step()
    game.step()
    game.dies(0)
    game.dies(1)
    *_, rewind = game.dies(2)
    assert isinstance(rewind, Rewind)
    assert (rewind.mark.plan.step, rewind.mark.origin) == (0, START)
    assert game.ledger.step == 0
    assert [kinds(game.hello(worker, 1)) for worker in range(3)] == [["Begin"]] * 3


def test_with_nobody_left_the_job_goes_back_to_its_checkpoint() -> None:
    game = Game().begun()
    game.now = 100.0
    [(commit, _)] = sent(game.step(best=True))
    assert isinstance(commit, Commit)
    assert commit.best == commit.checkpoint == (0, 0)
    kept, delete, marked = game.report(0)
    assert delete == Delete(("initial",))
    assert kept == Kept(SCORE, "best/0/0.0")
    assert isinstance(marked, Marked)
    assert marked.mark.origin.key == "checkpoint/1/0.0"
    game.dies(0)
    game.dies(1)
    *_, rewind = game.dies(2)
    assert rewind == Rewind(marked.mark, SCORE)


def test_a_model_is_not_taken_for_kept_before_its_keeper_has_reported() -> None:
    game = Game().begun()
    game.step(best=True)
    assert Forget(None) in game.dies(0)


def test_a_checkpoint_is_not_due_again_at_once_or_when_it_is_dear() -> None:
    game = Game().begun()
    game.now = 100.0
    game.step()
    game.report(0, keep=5.0)
    game.now = 200.0
    game.report(1)
    game.report(2)
    [(commit, _)] = sent(game.verdict())
    assert isinstance(commit, Commit)
    assert commit.checkpoint is None  # it took more than 2 percent of the time


def test_others_take_the_part_of_a_lost_worker_if_it_is_not_to_be_replaced() -> None:
    game = Game(on_loss="shrink").begun()
    game.step()
    assert kinds(game.dies(1)) == ["Dismiss"]
    assert sent(game.report(2)) == [(Substitute(1, 1, 1), ((2, 0),))]
    game.report(0)
    [close] = game.tell(Substituted(2, 0, game.made(1, 1)))
    assert isinstance(close, Close)
    [(commit, to)] = sent(game.verdict())
    assert isinstance(commit, Commit)
    assert commit.published == ((0, 0), (1, 1), (2, 0))
    assert [plan.members for plan in commit.plans] == [(0, 2), (0, 2)]
    assert to == ((0, 0), (2, 0))
    assert game.ledger.functions == ((0, 0), (2, 0))


def test_another_takes_the_part_where_the_substitute_dies() -> None:
    game = Game(on_loss="shrink").begun()
    game.step()
    game.dies(1)
    game.report(2)
    game.report(0)
    asked = sent(game.dies(2))
    assert asked == [(Substitute(1, 1, 1), ((0, 0),))]


def test_a_job_may_fail_with_its_first_loss() -> None:
    [fail] = Game(on_loss="fail").begun().dies(1)
    assert isinstance(fail, Fail)
    assert isinstance(fail.error, WorkerLost)


def test_a_flush_that_is_lost_is_empty_and_a_survivor_scores_for_the_lost() -> None:
    game = Game(epochs=1).begun()
    while not game.ledger._plan.flush:
        game.step()
    flushing = game.ledger.step
    game.report(0)
    game.report(2)
    assert kinds(game.dies(1)) == ["Dismiss", "Close"]
    [(commit, _)] = sent(game.verdict())
    assert isinstance(commit, Commit)
    assert commit.published == ((0, 0), (2, 0))
    assert (commit.plans[0].step, commit.plans[0].members, commit.plans[0].last) == (
        flushing + 1,
        (0, 2),
        True,
    )
    game.report(0)
    assert sent(game.dies(2)) == [(Substitute(flushing + 1, 2, 1), ((0, 0),))]
    assert kinds(game.tell(Substituted(0, 0, game.made(2, 1)))) == ["Close"]
    commit, done = game.verdict()
    assert isinstance(done, Done)
    assert done.result == f"result/{flushing + 1}/0.0"


def test_a_job_that_diverged_ends_with_the_next_step() -> None:
    game = Game().begun()
    [(commit, _)] = sent(game.step(diverged=True, stop=True))
    assert isinstance(commit, Commit)
    assert [(plan.step, plan.last, plan.evaluate) for plan in commit.plans] == [(1, True, False)]
    commit, done = game.step()
    assert kinds([commit, done]) == ["Commit", "Done"]


def test_who_is_lost_three_times_in_a_step_ends_the_job() -> None:
    game = Game().begun()
    game.dies(1)
    game.dies(1, 1)
    [fail] = game.dies(1, 2)
    assert isinstance(fail, Fail)


def test_too_many_losses_in_a_minute_end_the_job() -> None:
    game, lost = Game(epochs=50).begun(), 0
    while True:
        generation = dict(game.ledger.functions)[1]
        if isinstance(game.dies(1, generation)[-1], Fail):
            break
        lost += 1
        game.hello(1, generation + 1)
        game.report(0)
        game.tell(Donated(0, 0, Origin("donation", game.ledger.step, "")))
        game.report(1, generation + 1)
        game.report(2)
        game.verdict()
    assert lost == 12  # four times three workers


@pytest.mark.parametrize("code", [2, 3, 4, 6])
def test_a_failure_that_would_come_again_ends_the_job(code: int) -> None:
    [fail] = Game().begun().tell(Failure(1, 0, 0, "a damaged file", code, ""))
    assert isinstance(fail, Fail)
    assert isinstance(fail.error, WorkerFailed)
    assert fail.error.exit_code == code


@pytest.mark.parametrize("code", [0, 5])
def test_a_failure_that_may_pass_is_a_loss(code: int) -> None:
    game = Game().begun()
    game.step()
    assert kinds(game.tell(Failure(1, 0, 1, "oh", code, "Traceback"))) == ["Dismiss", "Launch"]


def test_silence_is_a_loss_after_its_time() -> None:
    game = Game().begun()
    for _ in range(4):
        game.now += 1.0
        game.step()
    game.report(0)
    game.report(2)
    game.now += 9.9
    assert not game.ledger.is_silent(game.now)
    assert game.tell(Passed()) == []
    game.now += 0.2
    assert game.ledger.is_silent(game.now)
    assert kinds(game.tell(Passed())) == ["Dismiss", "Launch"]


def test_a_function_that_does_not_start_is_started_anew() -> None:
    game = Game()
    game.hello(0)
    game.hello(1)
    game.now = Deadlines().start + 1
    _, launch = game.tell(Passed())
    assert launch == Launch(((2, 1),))
    game.now = 2 * game.now
    game.tell(Passed())
    game.now = 2 * game.now
    fail = game.tell(Passed())[-1]
    assert isinstance(fail, Fail)
    assert isinstance(fail.error, DeadlineExceeded)


def test_who_asks_for_the_end_does_not_wait_for_the_silent() -> None:
    game = Game().begun()
    game.step(best=True)
    game.report(0)
    game.now += 4.0
    assert game.tell(Passed(asked=True)) == []
    game.now += 2.0
    abort, done = game.tell(Passed(asked=True))
    assert kinds([abort, done]) == ["Abort", "Done"]
    assert isinstance(done, Done)
    assert (done.given_up, done.best) == (True, SCORE)
    assert game.report(1) == []  # it is over


def test_a_report_on_a_step_to_come_is_an_error() -> None:
    [fail] = Game().begun().report(0, step=3)
    assert isinstance(fail, Fail)
    assert isinstance(fail.error, JobError)


def test_all_are_told_when_they_are_there() -> None:
    game = Game(workers=1)
    assert kinds(game.hello(0)) == ["Begin", "Started"]
    assert Started() not in game.dies(0)
    assert kinds(game.hello(0, 1)) == ["Begin"]
