"""Jobs in virtual time survive what befalls them, or fail for a reason: hundreds, each from a seed.

And the trials would notice: each of the mutations here is found by some of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from unittest.mock import patch

import msgspec
import pytest
import trials

from mlless import checkpoint, keys, succession
from mlless.closing import Closing
from mlless.errors import MLLessError
from mlless.exchange.pending import Pending
from mlless.exchange.reading import Reader
from mlless.exchange.reduction import Merger
from mlless.instructions import Delete, Instruction
from mlless.keeping import Keeping
from mlless.ledger import Ledger
from mlless.members import Members
from mlless.membership import Schedule
from mlless.messages import Merged, Report, Times
from mlless.report import left
from mlless.report.history import HistoryFile
from mlless.report.left import Left
from mlless.steps import Steps
from mlless.succession import Succession
from mlless.supervisor import Supervisor
from mlless.updates import Updates
from mlless.worker import Worker

SEEDS = 300


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_whatever_befalls_a_job_its_rows_and_its_model_are_those_of_the_undisturbed_one(first):
    wrong = {seed: complaints for seed in range(first, first + 50) if (complaints := trials.attempt(seed)[1])}
    assert not wrong


@pytest.mark.parametrize("seed", [949, 1889, 110, 1192, 103200])
def test_seeds_that_have_found_something_do_not_find_it_again(seed):
    assert trials.attempt(seed)[1] == []


def test_a_seed_makes_the_same_job_again():
    for seed in (0, 8, 9, 13):
        traces, records = ([], []), ([], [])
        for trace, record in zip(traces, records, strict=True):
            trials.run(trials.trial_of(seed), trace, record)
        assert traces[0] == traces[1]
        assert records[0] == records[1]


def test_a_seed_makes_the_same_lives_again():
    fated = [trial for seed in range(20) if (trial := trials.trial_of(seed)).fate is not None]
    most = 0
    for trial in fated[:3]:
        lives = []
        for history in (trials.history_of(trial, trial.fate), trials.history_of(trial, trial.fate)):
            with suppress(MLLessError), trials.awake(*trial.fate.faults):
                history.run(trial.spec, trial.leavers)
            lives.append([(life.trace, life.records) for life in history.lives])
        assert lives[0] == lives[1]
        most = max(most, len(lives[0]))
    assert most > 1


def complaint(first: int = 0, *, resumed: bool = False) -> str:
    """Return the first complaint that a mutation gives rise to; AssertionError if none does.

    It is one of trials whose job is ``resumed``, or none of whose jobs is.
    """
    for seed in range(first, first + SEEDS):
        with nullcontext() if resumed else patch.object(trials, "fate_of", lambda *_, **__: None):
            if resumed and trials.trial_of(seed).fate is None:
                continue
            if complaints := trials.attempt(seed)[1]:
                return complaints[0]
    raise AssertionError("no trial has noticed")


def test_messages_of_old_generations_that_are_taken_are_noticed(monkeypatch):
    monkeypatch.setattr(Members, "is_newest", lambda self, worker, generation: worker in self)
    assert re.search("counted as lost|failed for .* which nothing had befallen", complaint())


def test_a_donation_with_the_residual_of_its_donor_is_noticed(monkeypatch):
    save, load, residuals = checkpoint.save_origin, checkpoint.load_origin, {}

    def save_origin(store, key, replica, *rest, **options):
        residuals[key] = [table.residual.copy() for table in replica.tables]
        return save(store, key, replica, *rest, **options)

    def load_origin(store, origin, replica, batches, rows=None):
        loaded = load(store, origin, replica, batches, rows)
        for table, residual in zip(replica.tables, residuals.get(origin.key, ()), strict=False):
            table.residual[:] = residual
        return loaded

    monkeypatch.setattr(checkpoint, "save_origin", save_origin)
    monkeypatch.setattr(checkpoint, "load_origin", load_origin)
    assert "has a residual" in complaint()


def test_a_lost_part_that_counts_as_done_is_noticed(monkeypatch):
    lose = Ledger._lose

    def skipped(self, who, error, now) -> Iterator[Instruction]:
        yield from lose(self, who, error, now)
        worker, _ = who
        if worker in self._steps.plan.members and worker not in self._steps.reports:
            generation = self._members[worker].generation
            nothing = Report(worker, generation, self.step, 0, 0.0, False, True, 0, 0, 0, 0, 0, Times())
            self._steps.reports[worker] = nothing

    monkeypatch.setattr(Ledger, "_lose", skipped)
    assert "rows instead of" in complaint()


def test_a_report_that_counts_for_the_next_step_as_well_is_noticed(monkeypatch):
    take = Ledger._take

    def twice(self, report, now) -> Iterator[Instruction]:
        step = max(report.step, self.step)
        yield from take(self, msgspec.structs.replace(report, step=step), now)

    monkeypatch.setattr(Ledger, "_take", twice)
    assert "rows instead of" in complaint()


def test_keys_that_nobody_removes_are_noticed(monkeypatch):
    monkeypatch.setattr(Supervisor, "_delete", lambda self, keys: None)
    assert "is left after step" in complaint()


def test_an_update_that_is_removed_before_those_who_are_behind_have_merged_it_is_noticed(monkeypatch):
    close = Updates.close
    monkeypatch.setattr(Updates, "close", lambda self, step, merged: close(self, step, merged + 1))
    assert "counted as lost" in complaint()


def test_changes_of_its_own_that_a_worker_leaves_in_what_all_share_are_noticed(monkeypatch):
    monkeypatch.setattr(Pending, "lift", lambda self: None)
    assert "ReplicasDiffer" in complaint()


def test_reports_from_before_a_job_went_back_that_count_after_it_are_noticed(monkeypatch):
    go_back = Steps.go_back

    def kept(self, mark) -> None:
        early = getattr(self, "_early", {})
        go_back(self, mark)
        self._early |= early

    monkeypatch.setattr(Steps, "go_back", kept)
    assert re.search("counted as lost|rows instead of|MissingUpdate", complaint(first=80))


def test_a_worker_that_merges_more_or_less_as_it_happens_to_be_time_is_noticed(monkeypatch):
    due = Worker._due

    def by_time(self, step) -> int:
        return step if int(10 * self._clock.now()) % 2 else due(self, step)

    monkeypatch.setattr(Worker, "_due", by_time)
    assert "differs by" in complaint(first=90)


def test_shards_of_a_lost_merger_that_nobody_merges_are_noticed(monkeypatch):
    monkeypatch.setattr(Updates, "lose", lambda self, step, who: 0)
    assert re.search("counted as lost|was over at", complaint(first=130))


def test_pieces_that_are_removed_before_they_are_merged_are_noticed(monkeypatch):
    merge = Updates.merge

    def early(self, plan, reports, at_work, now) -> Iterator[Instruction]:
        yield from merge(self, plan, reports, at_work, now)
        if not self.are_merged:
            yield Delete(tuple(key for who in self.published for key in keys.pieces(plan.step, who, 8)))

    monkeypatch.setattr(Updates, "merge", early)
    assert "counted as lost, though nothing had befallen" in complaint()


def test_a_sum_that_counts_though_its_merger_does_not_is_noticed(monkeypatch):
    fence_off = Updates.fence_off

    def taken(self, message, reports):
        if isinstance(message, Merged) and message.shard in self._asked:
            self._asked.pop(message.shard)
            self._merged[message.shard] = message
        else:
            fence_off(self, message, reports)

    monkeypatch.setattr(Updates, "fence_off", taken)
    assert re.search("counted as lost|which did not count", complaint(first=50))


def test_a_sum_of_products_in_another_order_is_noticed(monkeypatch):
    total = Reader.sum
    monkeypatch.setattr(Reader, "sum", lambda self, names, *rule: total(self, names[::-1], *rule))
    assert "differs by" in complaint()


def test_a_donation_that_a_second_word_of_it_removes_is_noticed(monkeypatch):
    monkeypatch.setattr(Ledger, "_decline", lambda self, donation: iter([Delete((donation.key,))]))
    assert "counted as lost" in complaint(first=150)


def test_a_shard_that_goes_to_another_merger_though_its_own_is_there_is_noticed(monkeypatch):
    merge = Updates.merge

    def anyone(self, *step) -> Iterator[Instruction]:
        self._mergers = {shard: 1 + worker for shard, worker in self._mergers.items()}
        yield from merge(self, *step)

    monkeypatch.setattr(Updates, "merge", anyone)
    assert re.search("merge . in step|differs by", complaint())


def test_what_a_merger_keeps_that_leaves_is_noticed(monkeypatch):
    sent = Merger._sent

    def thinned(self, order, *sums):
        return sent(self, msgspec.structs.replace(order, whole=False), *sums)

    monkeypatch.setattr(Merger, "_sent", thinned)
    assert "ends, and keeps something" in complaint()


@pytest.mark.parametrize("section", ["residual", "state", "last"])
def test_a_hand_over_that_lacks_something_is_noticed(monkeypatch, section):
    load = checkpoint.load_origin

    def load_origin(store, origin, replica, batches, rows=None):
        loaded = load(store, origin, replica, batches, rows)
        if origin.key.startswith(keys.HANDOVER):
            for table in replica.tables:
                getattr(table, section)[:] = batches - 1 if section == "last" else 0
        return loaded

    monkeypatch.setattr(checkpoint, "load_origin", load_origin)
    assert re.match("table .* differs by|the model is of step", complaint(first=90))


def test_a_hand_over_without_what_a_merger_keeps_is_noticed(monkeypatch):
    origin_of = checkpoint.origin_of

    def without(*what, **how):
        arrays, metadata = origin_of(*what, **how)
        return {name: array for name, array in arrays.items() if not name.endswith("/kept")}, metadata

    monkeypatch.setattr(checkpoint, "origin_of", without)
    assert "differs by" in complaint(first=90)


def test_a_hand_over_with_other_exponents_is_noticed(monkeypatch):
    load = checkpoint.load_origin

    def load_origin(store, origin, replica, batches, rows=None):
        loaded, size = load(store, origin, replica, batches, rows)
        changed = msgspec.structs.replace(loaded, exponents=(-20, -20))
        return (changed if origin.key.startswith(keys.HANDOVER) else loaded), size

    monkeypatch.setattr(checkpoint, "load_origin", load_origin)
    assert "differs by" in complaint(first=90)


def test_what_is_handed_over_and_never_removed_is_noticed(monkeypatch):
    delete = Supervisor._delete

    def kept(self, names):
        delete(self, [name for name in names if not name.startswith(keys.HANDOVER)])

    monkeypatch.setattr(Supervisor, "_delete", kept)
    assert "is left after step" in complaint()


def test_a_function_that_does_not_hand_over_is_noticed(monkeypatch):
    monkeypatch.setattr(Succession, "lead", 0.0)
    monkeypatch.setattr(succession, "_HURRY", 0.0)
    assert "was over at" in complaint()


def test_a_model_that_counts_before_all_its_parts_are_there_is_noticed(monkeypatch):
    ask = Keeping.ask

    def hasty(self, keepers, *rest, **options):
        asked = ask(self, keepers, *rest, **options)
        self._keepers = set(keepers[:1]) & self._keepers
        return asked

    monkeypatch.setattr(Keeping, "ask", hasty)
    assert re.search("MissingUpdate|failed for", complaint())


def test_a_resume_that_forgets_the_seconds_of_before_is_noticed(monkeypatch):
    monkeypatch.setattr(Left, "seconds", 0.0)
    assert re.search("is told of at .* s, after", complaint(resumed=True))


def test_a_resume_that_forgets_what_was_paid_before_is_noticed(monkeypatch):
    monkeypatch.setattr(Left, "cost", 0.0)
    assert "dollars, where" in complaint(resumed=True)


def test_a_resume_that_forgets_the_best_model_is_noticed(monkeypatch):
    monkeypatch.setattr(left, "_best", lambda place, stand: (None, None))
    assert re.match("life .* goes on with the best model", complaint(resumed=True))


def changed_mark(monkeypatch, change):
    """Let jobs be resumed from another mark; ``change`` is given the one that is left, and the right one."""
    resumed = left.resumed
    monkeypatch.setattr(
        left,
        "resumed",
        lambda spec, schedule, mark, *rest: change(mark, resumed(spec, schedule, mark, *rest)),
    )


def test_a_resume_with_the_plan_that_was_to_follow_before_is_noticed(monkeypatch):
    changed_mark(monkeypatch, lambda mark, resumed: replace(resumed, following=mark.following))
    assert complaint(resumed=True)


def test_a_resume_from_a_step_further_on_is_noticed(monkeypatch):
    changed_mark(
        monkeypatch,
        lambda _, resumed: replace(
            resumed, plan=msgspec.structs.replace(resumed.plan, step=resumed.plan.step + 1)
        ),
    )
    assert complaint(resumed=True)


def test_another_number_of_workers_that_cuts_an_epoch_anew_is_noticed(monkeypatch):
    dealt = Schedule.dealt

    def cut(self, plan, workers):
        return msgspec.structs.replace(dealt(self, plan, workers), parts=self._parts(workers))

    monkeypatch.setattr(Schedule, "dealt", cut)
    assert re.match("part .* follows|.* counted as lost", complaint(first=1190, resumed=True))


def test_a_resume_that_does_not_say_to_which_step_it_has_gone_back_is_noticed(monkeypatch):
    resume = Closing.resume

    def silent(self, mark, records):
        resume(self, mark, records)
        self._rewound_to = None

    monkeypatch.setattr(Closing, "resume", silent)
    assert "was closed where" in complaint(resumed=True)


def test_a_checkpoint_that_is_there_before_the_history_is_noticed(monkeypatch):
    monkeypatch.setattr(HistoryFile, "store", lambda self, *, whole=False: 0)
    assert "the history has" in complaint(resumed=True)
