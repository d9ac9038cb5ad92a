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
    Event,
    Exited,
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
from mlless.losses import LEAST
from mlless.mark import Mark, beginning
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


def spec(
    workers: int = 3,
    on_loss: str = "replace",
    epochs: int = 2,
    pattern: str = "broadcast",
    slack: int = 0,
    *,
    owned: bool = False,
) -> JobSpec:
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
        pattern=pattern,  # type: ignore[arg-type]
        slack=slack,
        share_users=not owned,
    )


class Game:
    """A ledger, and events for it; time stands still unless it is moved."""

    def __init__(
        self,
        workers: int = 3,
        on_loss: str = "replace",
        epochs: int = 2,
        mark: Mark | None = None,
        best_key: str = "",
        pattern: str = "broadcast",
        slack: int = 0,
        *,
        owned: bool = False,
    ) -> None:
        self.spec = spec(workers, on_loss, epochs, pattern, slack, owned=owned)
        schedule = Schedule([10] * 12, self.spec.batch_size, epochs)
        self.mark = mark or beginning(self.spec, schedule, START)
        self.ledger = Ledger(self.spec, schedule, "1.0", self.mark, best_key)
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

    def made(
        self,
        worker: int,
        generation: int = 0,
        step: int | None = None,
        keep: float = 0.0,
        *,
        published: bool = True,
    ) -> Report:
        step = self.ledger.step if step is None else step
        return Report(worker, generation, step, 5, 1.0, published, True, 1, 1, 0, 0, 0, Times(keep=keep))

    def dies(self, worker: int, generation: int = 0) -> list[Instruction]:
        return self.tell(Exited(worker, generation, True, "signal SIGKILL"))

    def verdict(
        self,
        *,
        best: bool = False,
        leavers: tuple[int, ...] = (),
        stop: bool = False,
        diverged: bool = False,
    ) -> list[Instruction]:
        progress = Progress(self.spec.stop, 1.0, best=SCORE)
        return self.tell(Verdict(best, leavers, stop, diverged, progress))

    def begun(self) -> Game:
        for worker in range(self.spec.workers):
            self.hello(worker)
        return self

    def step(
        self,
        *,
        best: bool = False,
        leavers: tuple[int, ...] = (),
        stop: bool = False,
        diverged: bool = False,
    ) -> list[Instruction]:
        """Have all members report; return what the verdict leads to."""
        for worker, generation in self.ledger.functions:
            self.report(worker, generation)
        return self.verdict(best=best, leavers=leavers, stop=stop, diverged=diverged)

    def flushing(self) -> Game:
        """Ask for the end, and go on to the step in which everyone flushes."""
        self.step(stop=True)
        self.step()
        return self


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
    *_, delete = game.step()
    assert delete == Delete(("update/1/0.0", "update/1/1.0", "update/1/2.0"))


def test_a_report_that_comes_twice_or_late_counts_once() -> None:
    game = Game().begun()
    game.report(0)
    assert game.report(0, keep=7.0) == []
    game.report(1)
    [close] = game.report(2)
    assert isinstance(close, Close)
    assert [one.times.keep for one in close.reports] == [0.0, 0.0, 0.0]
    game.verdict()
    assert game.report(0, step=0) == []
    assert game.report(1) == game.report(2) == []
    assert kinds(game.report(0)) == ["Close"]


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
    *_, delete = game.step()
    assert delete == Delete(("update/1/0.0", "update/1/1.1", "update/1/2.0"))


def test_who_is_lost_after_its_report_is_replaced_in_the_next_step() -> None:
    game = Game().begun()
    game.report(1)
    assert kinds(game.dies(1)) == ["Dismiss", "Launch"]
    game.report(0)
    assert kinds(game.report(2)) == ["Close"]
    game.report(1, 0)  # told a second time: it stands, whoever has sent it
    commit, delete = game.verdict()
    assert isinstance(commit, Send)
    assert isinstance(commit.message, Commit)
    assert commit.message.published == ((0, 0), (1, 0), (2, 0))
    assert commit.functions == ((0, 0), (2, 0))
    assert delete == Delete(())
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
    game.hello(1, 1)
    game.tell(Donated(0, 0, Origin("donation/1/0.0", 1, "x")))
    game.report(1, 1)
    game.verdict()
    game.report(1, 0, step=2)  # it was only stopped, and has begun on what comes next
    _, delete = game.step()
    assert isinstance(delete, Delete)
    assert "update/2/1.0" in delete.keys


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
    assert commit.best == commit.checkpoint == ((0, 0),)
    kept, delete, marked = game.report(0)
    assert delete == Delete(("initial",))
    assert kept == Kept(SCORE, ("best/0/0.0",))
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
    assert commit.checkpoint == ()  # it took more than 2 percent of the time


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
    assert asked == [(Substitute(1, 1, 2), ((0, 0),))]


def test_a_job_may_fail_with_its_first_loss() -> None:
    [fail] = Game(on_loss="fail").begun().dies(1)
    assert isinstance(fail, Fail)
    assert isinstance(fail.error, WorkerLost)


def test_a_flush_that_is_lost_is_empty_and_a_survivor_scores_for_the_lost() -> None:
    game = Game().begun().flushing()
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
    assert done.result == (f"result/{flushing + 1}/0.0",)


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
    assert game.dies(2) == []  # it is over


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
    dismiss, launch = game.tell(Passed())
    assert isinstance(dismiss, Dismiss)
    assert (dismiss.function, launch) == ((1, 0), Launch(((1, 1),)))
    assert "no report on step 4" in dismiss.why


def test_a_step_in_which_somebody_was_lost_tells_nothing_of_what_is_usual() -> None:
    game = Game(workers=2).begun()
    for _ in range(4):
        game.now += 1.0
        game.step()
    usual = game.ledger.pace.usual
    for generation in range(6):
        game.report(0)
        game.dies(1, generation)
        game.hello(1, generation + 1)
        game.tell(Donated(0, 0, Origin("donation", game.ledger.step, "")))
        game.now += 50.0
        game.report(1, generation + 1)
        game.verdict()
    assert game.ledger.pace.usual == usual == 1.0


def test_a_function_that_does_not_start_is_started_anew() -> None:
    game = Game()
    game.hello(0)
    game.hello(1)
    game.now = Deadlines().start + 1
    dismiss, launch = game.tell(Passed())
    assert isinstance(dismiss, Dismiss)
    assert "no start from worker 2" in dismiss.why
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
    game.now += 3.0
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


def test_a_hello_that_comes_twice_begins_once() -> None:
    game = Game()
    assert kinds(game.hello(1)) == ["Begin"]
    assert game.hello(1) == []


def test_all_newcomers_of_a_step_start_from_one_donation() -> None:
    game = Game().begun()
    game.step()
    game.report(0)
    game.dies(1)
    game.dies(2)
    assert sent(game.hello(1, 1)) == [(Donate(1), ((0, 0),))]
    assert game.hello(2, 1) == []
    origin = Origin("donation/1/0.0", 1, "x")
    begun = game.tell(Donated(0, 0, origin))
    assert kinds(begun) == ["Begin", "Begin"]
    assert [to for _, to in sent(begun)] == [((1, 1),), ((2, 1),)]
    assert game.tell(Donated(0, 0, origin)) == []  # told a second time, while it is in use
    game.dies(2, 1)
    [(begin, _)] = sent(game.hello(2, 2))
    assert isinstance(begin, Begin)
    assert begin.origin == origin


def test_a_donation_of_a_step_that_is_over_is_removed() -> None:
    game = Game(on_loss="shrink").begun()
    game.step()
    late = Donated(0, 0, Origin("donation/0/0.0", 0, "x"))
    assert game.tell(late) == [Delete(("donation/0/0.0",))]


@pytest.mark.parametrize(("worker", "step"), [(2, 1), (0, 0)])
def test_nobody_starts_from_a_donation_that_was_not_asked_for(worker: int, step: int) -> None:
    game = Game().begun()
    game.step()
    game.report(0)
    game.dies(1)
    game.hello(1, 1)  # worker 0 is to donate
    key = f"donation/{step}/{worker}.0"
    assert game.tell(Donated(worker, 0, Origin(key, step, "x"))) == [Delete((key,))]


def test_a_newcomer_that_cannot_load_its_origin_gets_another_one() -> None:
    game = Game().begun()
    game.step()
    game.report(0)
    game.dies(1)
    game.hello(1, 1)
    game.tell(Donated(0, 0, Origin("donation/1/0.0", 1, "x")))
    game.tell(Failure(1, 1, 1, "donation/1/0.0: not in the store", 5, ""))
    assert sent(game.hello(1, 2)) == [(Donate(1), ((0, 0),))]


@pytest.mark.parametrize(("worker", "code"), [(1, 0), (2, 5)])
def test_a_failure_for_another_reason_leaves_the_origin(worker: int, code: int) -> None:
    game = Game().begun()
    game.step()
    game.report(0)
    game.dies(1)
    game.hello(1, 1)
    game.tell(Donated(0, 0, Origin("donation/1/0.0", 1, "x")))
    generation = dict(game.ledger.functions)[worker]
    game.tell(Failure(worker, generation, 1, "oh", code, ""))
    assert kinds(game.hello(worker, generation + 1)) == ["Begin"]


def test_a_donor_that_is_silent_is_lost() -> None:
    game = Game().begun()
    for _ in range(4):
        game.now += 1.0
        game.step()
    game.report(0)
    game.report(2)
    game.dies(1)
    game.hello(1, 1)  # worker 0 is to donate
    assert game.tell(Passed()) == []
    game.now += 10.1
    dismiss, launch, donate = game.tell(Passed())
    assert isinstance(dismiss, Dismiss)
    assert dismiss.function == (0, 0)
    assert launch == Launch(((0, 1),))
    assert donate == Send(Donate(4), ((2, 0),))


def test_a_substitute_that_is_silent_is_lost() -> None:
    game = Game(on_loss="shrink").begun()
    game.step()
    game.dies(1)
    game.report(0)
    game.report(2)
    game.now += Deadlines().step
    assert game.tell(Passed()) == []
    game.now += 0.1
    dismiss, substitute = game.tell(Passed())
    assert isinstance(dismiss, Dismiss)
    assert dismiss.function == (0, 0)
    assert sent([substitute])[0][1] == ((2, 0),)


def test_what_a_lost_substitute_still_writes_is_not_what_the_next_one_writes() -> None:
    game = Game(on_loss="shrink").begun()
    game.step()
    game.dies(1)
    game.report(0)
    game.report(2)
    [(again, _)] = sent(game.dies(0))
    assert again == Substitute(1, 1, 2)
    game.tell(Substituted(2, 0, game.made(1, 2)))
    commit, delete = game.verdict()
    assert isinstance(commit, Send)
    assert isinstance(commit.message, Commit)
    assert commit.message.published == ((0, 0), (1, 2), (2, 0))
    assert isinstance(delete, Delete)
    assert {"update/1/1.0", "update/1/1.1"} <= set(delete.keys)
    assert "update/1/1.2" not in delete.keys
    game.tell(Substituted(0, 0, game.made(1, 1, step=1)))  # it was only stopped
    _, delete = game.step()
    assert isinstance(delete, Delete)
    assert {"update/1/1.1", "update/1/1.2"} <= set(delete.keys)


def test_a_part_stands_whose_substitute_is_lost_after_it() -> None:
    game = Game(on_loss="shrink").begun()
    game.step()
    game.dies(1)
    game.report(0)
    game.tell(Substituted(0, 0, game.made(1, 1)))
    game.dies(0)
    game.report(2)
    commit, delete = game.verdict()
    assert isinstance(commit, Send)
    assert isinstance(commit.message, Commit)
    assert commit.message.published == ((0, 0), (1, 1), (2, 0))
    assert isinstance(delete, Delete)
    assert not {"update/1/0.0", "update/1/1.1"} & set(delete.keys)


def test_a_part_that_nobody_has_taken_yet_is_nobody_s_fault() -> None:
    game = Game(on_loss="shrink").begun()
    game.step()
    game.dies(1)
    game.now += Deadlines().step + 1
    lost = [one.function for one in game.tell(Passed()) if isinstance(one, Dismiss)]
    assert lost == [(0, 0), (2, 0)]


def test_parts_of_which_all_takers_are_lost_begin_anew_where_all_began() -> None:
    game = Game(workers=2, on_loss="shrink").begun()
    assert kinds(game.dies(0)) == ["Dismiss"]
    assert sent(game.report(1)) == [(Substitute(0, 0, 1), ((1, 0),))]
    _, *launches = game.dies(1)
    assert launches == [Launch(((1, 1),)), Launch(((0, 3),))]
    assert kinds(game.hello(0, 3)) == ["Begin"]
    assert kinds(game.report(0, 3)) == ["Close"]  # worker 1 had reported


def test_if_those_who_could_substitute_are_lost_as_well_somebody_is_launched() -> None:
    game = Game(on_loss="shrink").begun()
    game.step()
    assert kinds(game.dies(1)) == kinds(game.dies(2)) == ["Dismiss"]
    dismiss, launch_last, rewind, launch = game.dies(0)
    assert (kinds([dismiss]), launch_last) == (["Dismiss"], Launch(((0, 1),)))
    assert isinstance(rewind, Rewind)
    assert isinstance(launch, Launch)
    assert [worker for worker, _ in launch.functions] == [1, 2]


def test_nobody_is_dispensable_who_is_the_last_one() -> None:
    game = Game(workers=1, on_loss="shrink").begun()
    assert kinds(game.dies(0)) == ["Dismiss", "Launch"]
    game = Game(workers=2, on_loss="shrink").begun()
    game.step(leavers=(1,))
    assert kinds(game.dies(0)) == ["Dismiss", "Launch"]  # worker 1 is going to flush and leave


def test_a_leaver_flushes_is_told_the_commit_and_gone() -> None:
    game = Game().begun()
    [(commit, _)] = sent(game.step(leavers=(1,)))
    assert isinstance(commit, Commit)
    assert [(plan.step, plan.flush, plan.members) for plan in commit.plans] == [
        (1, (), (0, 1, 2)),
        (2, (1,), (0, 1, 2)),
    ]
    game.step()
    [(commit, to)] = sent(game.step())
    assert isinstance(commit, Commit)
    assert to == ((0, 0), (1, 0), (2, 0))
    assert commit.published == ((0, 0), (1, 0), (2, 0))
    assert [plan.members for plan in commit.plans] == [(0, 2), (0, 2)]
    assert game.ledger.functions == ((0, 0), (2, 0))
    assert game.dies(1) == []  # its part is done
    game.report(0)
    assert kinds(game.report(2)) == ["Close"]
    _, delete = game.verdict()
    assert isinstance(delete, Delete)
    assert "update/2/1.0" in delete.keys


def test_a_leaver_that_is_lost_while_it_is_to_help_is_not_waited_for() -> None:
    game = Game().begun()
    game.step(leavers=(0,))
    game.step()
    game.report(0)
    game.dies(1)
    assert sent(game.hello(1, 1)) == [(Donate(2), ((0, 0),))]
    assert kinds(game.dies(0)) == ["Dismiss"]  # its flush stands: nobody takes its place
    assert sent(game.report(2)) == [(Donate(2), ((2, 0),))]
    game.tell(Donated(2, 0, Origin("donation/2/2.0", 2, "x")))
    [close] = game.report(1, 1)
    assert isinstance(close, Close)
    [(commit, to)] = sent(game.verdict())
    assert isinstance(commit, Commit)
    assert commit.published == ((0, 0), (1, 1), (2, 0))
    assert to == game.ledger.functions == ((1, 1), (2, 0))


def test_a_substitute_that_dies_in_the_last_step_is_not_waited_for() -> None:
    game = Game().begun().flushing()
    game.step()
    last = game.ledger.step
    game.report(0)
    game.report(1)
    assert sent(game.dies(2)) == [(Substitute(last, 2, 1), ((0, 0),))]
    dismiss, again = game.dies(0)
    assert isinstance(dismiss, Dismiss)
    assert again == Send(Substitute(last, 2, 2), ((1, 0),))
    assert kinds(game.tell(Substituted(1, 0, game.made(2, 2)))) == ["Close"]
    _, done = game.verdict()
    assert isinstance(done, Done)
    assert done.result == (f"result/{last}/0.0",)  # stored before it was reported


def test_all_may_not_leave_where_others_were_lost() -> None:
    game = Game(on_loss="shrink").begun()
    game.step()
    game.dies(1)
    game.dies(2)
    game.report(0)
    game.tell(Substituted(0, 0, game.made(1, 1)))
    game.tell(Substituted(0, 0, game.made(2, 1)))
    [(commit, _)] = sent(game.verdict(leavers=(0,)))
    assert isinstance(commit, Commit)
    assert [(plan.members, plan.flush) for plan in commit.plans] == [((0,), ()), ((0,), ())]


def test_checkpoints_are_due_after_a_time_at_evaluations_or_after_a_longer_one() -> None:
    game, made = Game(epochs=9).begun(), []
    for step in range(12):
        game.now += 3.0
        [(commit, _)] = sent(game.step())
        assert isinstance(commit, Commit)
        if commit.checkpoint:
            made.append(step)
    # Epochs of four steps: evaluations in 0, 4, 8, at which three seconds are enough; ten elsewhere.
    assert made == [0, 4, 8]
    game = Game(epochs=9).begun()
    game.step()  # the first evaluation comes too soon
    game.now += 9.9
    [(commit, _)] = sent(game.step())
    assert isinstance(commit, Commit)
    assert commit.checkpoint == ()
    game.now += 0.1
    [(commit, _)] = sent(game.step())
    assert isinstance(commit, Commit)
    assert commit.checkpoint == ((0, 0),)


def test_a_checkpoint_of_a_keeper_that_is_lost_is_none_and_removed() -> None:
    game = Game().begun()
    game.now = 100.0
    game.step(best=True)
    assert Forget(None) in game.dies(0)
    game.dies(1)
    *_, rewind = game.dies(2)
    assert isinstance(rewind, Rewind)
    assert rewind.mark.origin == START
    for worker in range(3):
        game.hello(worker, 1)
    _, delete = game.step()
    assert isinstance(delete, Delete)
    assert {"best/0/0.0", "checkpoint/1/0.0"} <= set(delete.keys)


def test_a_job_that_goes_back_fetches_those_who_have_left_and_clears_up() -> None:
    game = Game(workers=2).begun()
    game.step(leavers=(1,))
    game.step()
    game.step()
    dismiss, launch, rewind, fetch = game.dies(0)
    assert kinds([dismiss, launch, rewind]) == ["Dismiss", "Launch", "Rewind"]
    assert fetch == Launch(((1, 1),))
    assert game.ledger.functions == ((0, 1), (1, 1))
    game.hello(0, 1)
    game.hello(1, 1)
    assert game.ledger.step == 0
    _, delete = game.step()
    assert isinstance(delete, Delete)
    assert {"update/3/0.0", "update/2/0.0", "update/2/1.0"} <= set(delete.keys)
    game.report(0, 1)
    assert game.report(0, 0, step=3)[0] == Send(
        Abort("another function has taken this one's place"), ((0, 0),)
    )


def test_reports_of_before_do_not_count_where_a_job_goes_back_to() -> None:
    game = Game().begun()
    game.step()
    game.report(0)
    for worker in range(3):
        game.dies(worker)
    for worker in range(3):
        game.hello(worker, 1)
    assert game.report(1, 1) == game.report(2, 1) == []
    assert kinds(game.report(0, 1)) == ["Close"]
    _, delete = game.verdict()
    assert isinstance(delete, Delete)
    assert {"update/1/0.0", "update/0/0.0", "update/0/1.0", "update/0/2.0"} <= set(delete.keys)


def test_with_only_a_leaver_left_the_job_goes_back() -> None:
    game = Game().begun()
    game.step(leavers=(1,))
    game.step()
    for worker in (0, 2):
        game.report(worker)
        game.dies(worker)
    assert kinds(game.report(1)) == ["Close"]
    [(commit, to)], forget = sent(done := game.verdict(best=True)), Forget(None)
    assert isinstance(commit, Commit)
    assert (to, commit.best, commit.checkpoint) == (((1, 0),), (), ())
    assert forget in done
    assert isinstance(done[-2], Rewind)
    assert done[-1] == Launch(((1, 1),))


def test_a_second_loss_of_all_in_the_same_place_begins_there_again() -> None:
    game = Game(workers=1).begun()
    game.step()
    assert kinds(game.dies(0)) == ["Dismiss", "Launch", "Rewind"]
    game.hello(0, 1)
    assert kinds(game.dies(0, 1)) == ["Dismiss", "Launch"]
    [(begin, _)] = sent(game.hello(0, 2))
    assert isinstance(begin, Begin)
    assert begin.origin == START


def test_losses_in_several_steps_are_not_tries_of_one() -> None:
    game = Game(workers=1, epochs=9).begun()
    for generation in range(4):
        game.step()
        game.dies(0, generation)
        assert kinds(game.hello(0, generation + 1)) == ["Begin"]
        game.step()


def test_losses_of_long_ago_are_forgotten() -> None:
    game = Game(workers=1, epochs=50).begun()
    for generation in range(20):
        game.now += 61.0
        game.step()
        game.step()
        assert not any(isinstance(one, Fail) for one in game.dies(0, generation))
        game.hello(0, generation + 1)


def test_a_job_that_comes_no_further_ends_with_the_error_of_its_newest_loss() -> None:
    game = Game(workers=1, epochs=50).begun()
    for generation in range(LEAST):
        game.now += 61.0
        game.step()  # the checkpoint that is due is not there before the next report
        assert kinds(game.dies(0, generation))[-1] == "Rewind"
        game.hello(0, generation + 1)
    game.now += 61.0
    game.step()
    [*_, fail] = game.dies(0, LEAST)
    assert isinstance(fail, Fail)
    assert "worker 0 died in step 1" in str(fail.error)


def test_without_a_model_that_is_stored_an_end_waits_for_the_silent() -> None:
    game = Game().begun()
    game.now = 50.0
    assert game.tell(Passed(asked=True, late=True)) == []
    game.now = Deadlines().step + 1
    assert kinds(game.tell(Passed(asked=True, late=True)))[:2] == ["Dismiss", "Launch"]


def test_a_job_that_is_late_ends_with_what_is_stored() -> None:
    game = Game().begun()
    game.step(best=True)
    game.report(0)
    game.now += 6.0
    assert game.tell(Passed()) == []  # nobody has asked
    game.report(1)
    assert game.tell(Passed(late=True)) == []
    game.now += 0.1
    abort, done = game.tell(Passed(late=True))
    assert abort == Send(Abort("the job ends without a worker that is silent"), ((0, 0), (1, 0), (2, 0)))
    assert done == Done(0, ("best/0/0.0",), SCORE, ("best/0/0.0",), given_up=True)


def test_a_job_whose_best_model_the_store_has_lost_has_none() -> None:
    game = Game().begun()
    game.step(best=True)
    game.report(0)
    game.ledger.restored()
    game.now += 6.0
    assert game.tell(Passed(asked=True)) == []


def test_a_better_model_takes_the_place_of_the_best() -> None:
    game = Game().begun()
    game.step(best=True)
    assert game.report(0) == [Kept(SCORE, ("best/0/0.0",))]
    assert [kinds([one]) for one in game.dies(0)] == [["Dismiss"], ["Launch"]]  # what it kept is there
    game.report(1)
    game.hello(0, 1)
    game.report(2)
    game.verdict(best=True)
    delete, kept = (one for one in game.report(1) if isinstance(one, Delete | Kept))
    assert (delete, kept) == (Delete(("best/0/0.0",)), Kept(SCORE, ("best/0/1.0",)))


def test_time_counts_from_where_all_were_there() -> None:
    game = Game()
    game.now = 1000.0
    game.began = game.ledger.start(1000.0)
    assert game.tell(Passed()) == []
    game.hello(0)
    game.hello(1)
    game.now = 1050.0
    game.hello(2)
    game.now = 1050.4
    [(commit, _)] = sent(game.step())
    assert isinstance(commit, Commit)
    assert commit.checkpoint == ()


def test_there_is_no_checkpoint_of_a_flush() -> None:
    game = Game().begun()
    game.step(stop=True)
    game.now += 100.0
    [(commit, _)] = sent(game.step())
    assert isinstance(commit, Commit)
    assert commit.checkpoint == ()


def further(workers: int = 3) -> Mark:
    """Return the mark of a job that was resumed: a few steps on, with a best model."""
    schedule = Schedule([10] * 12, 10, 2)
    plan = schedule.first(workers)
    for _ in range(3):
        plan = schedule.after(plan)  # type: ignore[assignment]
    origin = Origin("initial", plan.step, "d")
    return Mark(plan, schedule.after(plan), origin, Progress(spec().stop, 1.0, best=SCORE))


def test_a_resumed_job_begins_at_its_mark() -> None:
    mark = further()
    game = Game(mark=mark, best_key="best")
    assert game.began == [Launch(((0, 0), (1, 0), (2, 0)))]
    assert game.ledger.step == 3
    assert game.hello(0) == [Send(Begin(mark.origin, (mark.plan, mark.following)), ((0, 0),))]  # type: ignore[arg-type]
    game.hello(1)
    game.hello(2)
    game.step()
    assert game.ledger.step == 4


def test_a_resumed_job_with_nobody_left_goes_back_to_its_mark() -> None:
    mark = further()
    game = Game(mark=mark, best_key="best").begun()
    game.step()
    game.dies(0)
    game.dies(1)
    *_, rewind = game.dies(2)
    assert rewind == Rewind(mark, SCORE)
    assert [kinds(game.hello(worker, 1)) for worker in range(3)] == [["Begin"]] * 3


def test_the_best_model_of_before_stays_until_there_is_a_better_one() -> None:
    game = Game(mark=further(), best_key="best").begun()
    game.step(best=True)
    assert game.report(0) == [Delete(("best",)), Kept(SCORE, ("best/0/0.0",))]


def test_a_resumed_job_may_be_given_up_with_the_best_model_of_before() -> None:
    game = Game(mark=further(), best_key="best").begun()
    game.now += 6.0
    *_, done = game.tell(Passed(asked=True))
    assert done == Done(SCORE.step, ("best",), SCORE, ("best",), given_up=True)


def test_a_resumed_job_whose_best_model_is_lost_has_none() -> None:
    game = Game(mark=further()).begun()
    game.now += 6.0
    assert game.tell(Passed(asked=True)) == []
