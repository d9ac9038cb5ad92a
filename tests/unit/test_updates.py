"""What is published in a step: who merges it for all, whoever is lost, and when it is removed."""

from __future__ import annotations

import pytest
from tests.unit.test_ledger import START, Game, kinds, sent

from mlless.errors import DeadlineExceeded
from mlless.instructions import Close, Delete, Dismiss, Instruction, Launch, Passed, Rewind
from mlless.keys import pieces
from mlless.messages import Abort, Commit, FunctionId, Merge, Merged, Substituted

EVERYONE = ((0, 0), (1, 0), (2, 0))


class Merging(Game):
    """A game in which updates are merged for all."""

    def __init__(self, workers: int = 3, pattern: str = "scatter", on_loss: str = "replace") -> None:
        super().__init__(workers, on_loss, pattern=pattern)
        self.begun()

    def reported(self) -> list[Instruction]:
        """Have all members report the open step; return what the last report leads to."""
        done: list[Instruction] = []
        for worker, generation in self.ledger.functions:
            done = self.report(worker, generation)
        return done

    def merged(self, who: FunctionId, shard: int, step: int | None = None) -> list[Instruction]:
        step = self.ledger.step if step is None else step
        return self.tell(Merged(*who, step, shard, bytes_in=100, bytes_out=10))

    def commit(self) -> tuple[Commit, Delete]:
        """Return the commit of a step that is merged, and what is deleted with it."""
        done = self.verdict()
        commit, _ = sent(done)[0]
        [delete] = [one for one in done if isinstance(one, Delete)]
        assert isinstance(commit, Commit)
        return commit, delete

    def whole_step(self) -> tuple[Commit, Delete]:
        for merge, (who,) in sent(self.reported()):
            assert isinstance(merge, Merge)
            self.merged(who, merge.shard)
        return self.commit()


def orders(instructions: list[Instruction]) -> list[tuple[int, FunctionId]]:
    return [(one.shard, who) for one, (who,) in sent(instructions) if isinstance(one, Merge)]


def test_a_step_is_merged_once_all_have_reported_and_closed_once_all_is_merged() -> None:
    game = Merging()
    done = game.reported()
    assert [one for one, _ in sent(done)] == [Merge(0, shard, EVERYONE) for shard in range(3)]
    assert orders(done) == [(0, (0, 0)), (1, (1, 0)), (2, (2, 0))]
    assert game.merged((2, 0), 2) == game.merged((0, 0), 0) == []
    [close] = game.merged((1, 0), 1)
    assert isinstance(close, Close)
    assert [(one.bytes_in, one.bytes_out) for one in close.reports] == [(100, 11)] * 3
    commit, delete = game.commit()
    assert (commit.published, commit.mergers) == (EVERYONE, EVERYONE)
    assert delete == Delete(())


def test_one_leader_merges_all() -> None:
    game = Merging(pattern="allreduce")
    assert orders(game.reported()) == [(0, (0, 0))]
    [close] = game.merged((0, 0), 0)
    assert isinstance(close, Close)
    assert [(one.bytes_in, one.bytes_out) for one in close.reports] == [(100, 11), (0, 1), (0, 1)]
    commit, _ = game.commit()
    assert commit.mergers == ((0, 0),)


def test_pieces_and_sums_are_removed_when_the_next_step_is_closed() -> None:
    game = Merging(workers=2)
    game.whole_step()
    for step in (1, 2):
        _, delete = game.whole_step()
        before = [key for who in ((0, 0), (1, 0)) for key in pieces(step - 1, who, 2)]
        assert delete == Delete((*before, f"merged/{step - 1}/0.0/0", f"merged/{step - 1}/1.0/1"))


def test_where_nobody_publishes_there_is_nothing_to_merge() -> None:
    game = Merging(workers=2)
    for worker in range(2):
        done = game.tell(game.made(worker, published=False))
    assert kinds(done) == ["Close"]
    commit, _ = game.commit()
    assert commit.mergers == ()


def test_more_shards_than_workers_are_spread_over_those_at_work() -> None:
    game = Merging(workers=5, on_loss="shrink")
    for worker in (3, 4):
        game.dies(worker)
    game.report(0)
    for part in (3, 4):
        game.tell(Substituted(0, 0, game.made(part, 1)))
    game.report(1)
    assert orders(game.report(2)) == [
        (0, (0, 0)),
        (1, (1, 0)),
        (2, (2, 0)),
        (3, (0, 0)),
        (4, (1, 0)),
    ]


def test_the_heir_of_a_lost_merger_merges_again_and_the_lost_one_is_fenced_off() -> None:
    game = Merging()
    game.reported()
    game.merged((0, 0), 0)
    dismissed, launched, *rest = game.dies(1)
    assert isinstance(dismissed, Dismiss)
    assert launched == Launch(((1, 1),))
    assert orders(rest) == [(1, (0, 0))]  # who has nothing left to do
    assert sent(game.merged((1, 0), 1)) == [(Abort("another function has taken this one's place"), ((1, 0),))]
    game.merged((2, 0), 2)
    assert kinds(game.merged((0, 0), 1)) == ["Close"]
    commit, delete = game.commit()
    assert (commit.published, commit.mergers) == (EVERYONE, ((0, 0), (0, 0), (2, 0)))
    assert set(delete.keys) == {"merged/0/1.0/1"}


def test_what_one_has_merged_who_is_lost_afterwards_stands() -> None:
    game = Merging()
    game.reported()
    game.merged((1, 0), 1)
    assert orders(game.dies(1)) == []
    game.merged((1, 0), 1)  # told a second time
    game.merged((0, 0), 0)
    assert kinds(game.merged((2, 0), 2)) == ["Close"]
    commit, delete = game.commit()
    assert (commit.mergers, delete) == (EVERYONE, Delete(()))


def test_a_sum_that_is_told_twice_or_late_or_by_another_counts_once() -> None:
    game = Merging()
    game.reported()
    for _ in range(2):
        assert game.merged((0, 0), 0) == game.merged((2, 0), 2) == game.merged((2, 0), 1) == []
    [close] = game.merged((1, 0), 1)
    assert isinstance(close, Close)
    assert [one.bytes_in for one in close.reports] == [100, 100, 100]
    game.commit()
    game.reported()
    assert game.merged((0, 0), 0, step=0) == []
    assert game.merged((1, 0), 1) == game.merged((2, 0), 2) == []
    assert kinds(game.merged((0, 0), 0)) == ["Close"]


def test_a_merger_that_is_silent_counts_as_lost() -> None:
    game = Merging()
    for _ in range(4):
        game.whole_step()
    game.reported()
    game.merged((0, 0), 0)
    game.merged((1, 0), 1)
    game.now = 4.0
    assert not game.ledger.is_silent(game.now)
    game.now = 6.0
    assert game.ledger.is_silent(game.now)
    dismissed, *rest = game.tell(Passed())
    assert isinstance(dismissed, Dismiss)
    assert dismissed.function == (2, 0)
    assert orders(rest) == [(2, (0, 0))]
    [error] = [error for who, error in game.ledger._updates.overdue(4, 5.0, 12.0)]
    assert isinstance(error, DeadlineExceeded)


@pytest.mark.parametrize("step", [0, 1])
def test_with_no_merger_left_the_job_goes_back(step: int) -> None:
    """Also in the first step, whose start is still there: the step is merged by nobody."""
    game = Merging()
    for _ in range(step):
        game.whole_step()
    game.reported()
    game.merged((0, 0), 0)
    assert kinds(game.dies(0)) == ["Dismiss", "Launch"]
    game.dies(1)
    done = game.dies(2)
    [rewind] = [one for one in done if isinstance(one, Rewind)]
    assert (rewind.mark.plan.step, rewind.mark.origin) == (0, START)
    assert [kinds(game.hello(worker, 1)) for worker in range(2)] == [["Begin"]] * 2
    game.hello(2, 1)
    assert orders(game.reported()) == [(shard, (shard, 1)) for shard in range(3)]
    for shard in range(3):
        game.merged((shard, 1), shard)
    _, delete = game.commit()
    left = {key for who in EVERYONE for key in pieces(step, who, 3)}
    left |= {f"merged/{step}/{who}.0/{who}" for who in range(3)}
    assert left <= set(delete.keys)


def test_a_newcomer_that_is_there_while_others_merge_waits_for_the_next_step() -> None:
    game = Merging()
    game.reported()
    game.dies(2)
    assert game.hello(2, 1) == []
    game.merged((0, 0), 0)
    game.merged((1, 0), 1)
    assert kinds(game.merged((0, 0), 2)) == ["Close"]
    game.commit()
    assert "Donate" in kinds(game.report(0))


def test_who_leaves_merges_in_its_last_step() -> None:
    game = Merging()
    for merge, (who,) in sent(game.reported()):
        assert isinstance(merge, Merge)
        game.merged(who, merge.shard)
    game.verdict(leavers=(2,))
    game.whole_step()
    assert orders(game.reported()) == [(0, (0, 0)), (1, (1, 0)), (2, (2, 0))]
    for shard in range(3):
        game.merged((shard, 0), shard)
    commit, _ = game.commit()
    assert commit.mergers == EVERYONE
    assert orders(game.reported()) == [(0, (0, 0)), (1, (1, 0)), (2, (0, 0))]
