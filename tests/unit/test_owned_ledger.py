"""What the ledger makes of rows that are owned: models in parts, and heirs of those who leave."""

from __future__ import annotations

from unit.test_ledger import SCORE, START, Game, sent

from mlless.closing import Verdict
from mlless.instructions import Delete, Done, Forget, Instruction, Kept, Marked, Rewind
from mlless.messages import Begin, Commit, Donated, Origin
from mlless.stopping import Progress

PARTS = tuple(f"best/0/{worker}.0" for worker in range(3))


def game(**options: object) -> Game:
    return Game(**options, owned=True).begun()  # type: ignore[arg-type]


def committed(done: list[Instruction]) -> Commit:
    commit = next(one.message for one in done if hasattr(one, "message") and isinstance(one.message, Commit))
    assert isinstance(commit, Commit)
    return commit


def test_all_owners_store_their_part_and_the_model_is_there_once_all_have_done_so() -> None:
    job = game()
    job.now = 100.0
    commit = committed(job.step(best=True))
    assert commit.best == commit.checkpoint == ((0, 0), (1, 0), (2, 0))
    assert job.report(1, keep=3.0) == job.report(0, keep=1.0) == []
    kept, delete, marked, *_ = job.report(2, keep=2.0)
    assert kept == Kept(SCORE, PARTS)
    assert delete == Delete(("initial",))
    assert isinstance(marked, Marked)
    assert marked.mark.keys == tuple(f"checkpoint/1/{worker}.0" for worker in range(3))
    assert marked.seconds == 3.0  # that of the slowest one


def test_as_long_as_a_part_is_missing_the_model_before_it_stands() -> None:
    job = game()
    job.step(best=True)
    job.report(0)
    job.report(1)
    assert Forget(None) in job.dies(2)
    job.hello(2, 1)
    job.report(2, 1)
    _, delete = job.verdict()
    assert isinstance(delete, Delete)
    assert set(PARTS) <= set(delete.keys)  # not before: others may have written theirs late


def test_a_model_of_which_an_owner_is_lost_is_not_asked_for() -> None:
    job = game()
    job.report(0)
    job.report(1)
    job.report(2)
    job.dies(2)
    done = job.verdict(best=True)
    assert (committed(done).best, committed(done).checkpoint) == ((), ())
    assert Forget(None) in done


def test_a_better_model_takes_the_place_of_all_parts() -> None:
    job = game()
    job.step(best=True)
    job.step(best=True)
    for worker in (0, 1):
        job.report(worker)
    assert Delete(PARTS) in job.report(2)


def test_who_leaves_has_left_its_rows_before_its_heirs_need_them() -> None:
    job = game()
    assert committed(job.step(leavers=(1,))).left == ()
    assert job.ledger.step == 1
    commit = committed(job.step())
    plan = commit.plans[0]
    assert (plan.step, plan.flush, commit.left) == (2, (1,), ((1, 0),))
    _, delete = job.step()
    assert isinstance(delete, Delete)
    assert "rows/2/1.0" in delete.keys


def test_rows_of_a_leaver_that_dies_before_it_tells_of_them_are_removed() -> None:
    job = game()
    job.step(leavers=(1,))
    job.dies(1)
    job.report(0)
    job.report(2)
    job.hello(1, 1)
    job.tell(Donated(0, 0, Origin("donation/1/0.0", 1, "x", owned=False)))
    job.report(1, 1)
    commit, delete = job.verdict()
    assert committed([commit]).left == ((1, 1),)
    assert isinstance(delete, Delete)
    assert "rows/2/1.0" in delete.keys
    assert "rows/2/1.1" not in delete.keys


def test_at_the_end_nobody_leaves_its_rows_and_all_parts_are_the_result() -> None:
    job = game()
    job.step(stop=True)
    assert committed(job.step()).left == ()
    job.step()
    [*_, done] = job.step()
    assert isinstance(done, Done)
    assert done.result == tuple(f"result/3/{worker}.0" for worker in range(3))


def test_a_job_that_goes_back_begins_from_all_parts() -> None:
    job = game()
    job.now = 100.0
    job.step()
    for worker in range(3):
        job.report(worker)
    job.verdict()
    job.dies(0)
    job.dies(1)
    *_, rewind = job.dies(2)
    assert isinstance(rewind, Rewind)
    [(begin, _)] = sent(job.hello(0, 1))
    assert isinstance(begin, Begin)
    assert (begin.origin.key, *begin.origin.parts) == rewind.mark.keys
    assert len(rewind.mark.keys) == 3


def test_what_is_restored_is_in_one_part() -> None:
    job = game()
    job.now = 100.0
    job.step()
    for worker in range(3):
        job.report(worker)
    job.verdict()
    for worker in range(3):
        job.dies(worker)
    job.ledger.restored()
    [(begin, _)] = sent(job.hello(0, 1))
    assert isinstance(begin, Begin)
    assert begin.origin.key.startswith("checkpoint/")
    assert begin.origin.parts == ()
    assert begin.origin != START


def test_with_slack_a_checkpoint_waits_until_nobody_is_ahead() -> None:
    job, made = game(slack=1, epochs=9), []
    for _ in range(9):
        job.now += 100.0
        if committed(job.step()).checkpoint:
            made.append(job.ledger.step)
    assert made == [4, 8]  # some have moved their rows on, but not before an evaluation


def test_a_suspension_has_all_wait_for_its_checkpoint() -> None:
    job, commit = game(slack=1, epochs=99), None
    for _ in range(4):
        job.step()
    while commit is None or not commit.checkpoint:
        for worker, generation in job.ledger.functions:
            job.report(worker, generation)
        progress = Progress(job.spec.stop, 1.0, best=SCORE)
        commit = committed(job.tell(Verdict(False, (), False, False, progress, mark=True)))
        assert job.ledger.step <= 7  # the step after is one with an evaluation
    assert job.ledger.step == 7
    assert commit.plans[0].drain
