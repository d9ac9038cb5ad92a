"""What closed steps come to: records, the best model, the end, and what is taken back."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import pytest

from mlless.autotuner.decision import Decision, Goal, Question
from mlless.autotuner.tuner import Tuner
from mlless.closing import Closing, Verdict, nobody
from mlless.costing import Costing
from mlless.errors import ReplicasDiffer
from mlless.job import Deadlines, Factorization, JobSpec, Nesterov, Stop, Sync, Target
from mlless.membership import Schedule
from mlless.messages import Evaluation, Plan, Report, Sums, Times
from mlless.records import StepRecord, StepTimes
from mlless.stopping import DIVERGED, Choice, Progress, Score

LAST = Plan(7, (0, 1), 3, 2, 0, evaluate=True, last=True)


class Job:
    """The closing of a job of two workers, its records, and its plans."""

    def __init__(
        self,
        *,
        asks_at: int = -1,
        leavers: Mapping[int, tuple[int, ...]] | None = None,
        tuner: Tuner | None = None,
        target: Target | None = None,
        patience: int | None = None,
        max_time: float | None = None,
        epochs: int = 3,
    ) -> None:
        spec = JobSpec(
            dataset="data",
            fingerprint="f",
            groups=4,
            rows=40,
            held_out=10,
            batch_size=10,
            model=Factorization(
                users=9, items=9, factors=2, l2=0.0, centre=0.0, deviation=1.0, low=1.0, high=5.0
            ),
            optimizer=Nesterov(learning_rate=0.1),
            sync=Sync(significance=0.0, half=False, merge="mean"),
            stop=Stop(epochs=epochs, target=target, patience=patience, max_time=max_time),
            workers=2,
            seed=0,
            deadlines=Deadlines(),
        )
        self.schedule = Schedule([10] * 4, spec.batch_size, epochs)
        self.records: list[StepRecord] = []
        self.asks_at = asks_at
        going = leavers or {}

        def leaving(record: StepRecord) -> Collection[int]:
            return going.get(record.step, ())

        costing = Costing(spec, None, parameters=0, grace=0.0)
        self.closing = Closing(
            spec,
            self.schedule,
            Progress(spec.stop, 1.0),
            start=100.0,
            costing=costing,
            listen=self.hear,
            leavers=leaving if leavers else nobody,
            tuner=tuner,
        )
        costing.open(100.0)
        costing.begin(100.0)
        self.now = 100.0
        self.plan = self.schedule.first(2)

    def hear(self, record: StepRecord) -> bool:
        self.records.append(record)
        return record.step == self.asks_at

    def close(
        self, *, loss: float = 1.0, rmse: float | None = None, finite: bool = True, samples: int = 5
    ) -> Verdict:
        """Close the step at hand, and go on to the next one as the verdict says."""
        plan, following = self.plan, self.schedule.after(self.plan)
        sums = Sums(2, 2 * rmse**2) if rmse is not None else Sums(0, 0.0)
        evaluation = Evaluation(sums, "d", reads=1, bytes=9) if plan.evaluate else None
        reports = [
            Report(
                worker,
                0,
                plan.step,
                samples,
                loss * samples,
                published=True,
                finite=finite,
                entries=3,
                bytes_out=20,
                bytes_in=10,
                reads=1,
                bytes_fetched=7,
                times=Times(
                    compute=1.0 + worker, publish=0.5, merge=0.25, wait=9.0, evaluate=0.5 * plan.evaluate
                ),
                evaluation=evaluation,
                bytes_kept=100,
            )
            for worker in plan.members
        ]
        self.closing.score(plan, {one.worker: one.evaluation for one in reports if one.evaluation})
        verdict = self.closing.close(plan, following, reports, self.now)
        self.plan = self.schedule.after(plan, verdict.leavers, end=verdict.stop) or plan
        return verdict


class Hasty:
    """A policy that lets the last worker go at once, and does so in no thread; it keeps what it was asked."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self._decided: Decision | None = None

    def due(self, *, steps: int, seconds: float) -> bool:
        return not self.questions

    def decide(self, question: Question) -> Decision:
        self.questions.append(question)
        return Decision(question.step, "leave", (question.workers[-1].worker,), "why not", {})

    def start(self, work: Callable[[], Decision]) -> None:
        self._decided = work()

    def result(self) -> Decision | None:
        return self._decided


def evaluated(**digests: str) -> dict[int, Evaluation]:
    return {int(worker[1:]): Evaluation(Sums(1, 4.0), digest, 0, 0) for worker, digest in digests.items()}


def test_a_record_sums_up_what_its_workers_report() -> None:
    job = Job()
    job.now = 103.0
    verdict = job.close(loss=2.0, rmse=0.5)
    [record] = job.records
    assert record == StepRecord(
        step=0,
        epoch=0.5,
        time=3.0,
        loss=2.0,
        train_loss=2.0,
        heldout={"rmse": 0.5},
        workers=2,
        samples=10,
        entries=6,
        bytes_out=40,
        bytes_in=20,
        bytes_fetched=14 + 18,
        times=StepTimes(0.0, 1.5, 0.0, 0.5, 9.0, 0.25, 0.5),
        bytes_kept=200,
    )
    assert (verdict.best, verdict.leavers, verdict.stop, verdict.diverged) == (True, (), False, False)
    assert verdict.progress.best == Score(0, {"rmse": 0.5}, 0.5)


def test_what_is_not_evaluated_has_no_metrics_and_is_not_the_best() -> None:
    job = Job()
    assert job.closing.heldout == {}
    assert job.close(rmse=0.5).best
    assert not job.close().best
    assert job.records[1].heldout is None


def test_time_counts_from_where_the_job_began() -> None:
    job = Job()
    job.closing.begin(101.0)
    job.now = 103.0
    job.close()
    assert job.records[0].time == 2.0


def test_a_tuner_sees_every_step_and_lets_workers_go() -> None:
    hasty = Hasty()
    goal = Goal(batches=6, target=Target(metric="rmse", value=0.1))
    job = Job(tuner=Tuner(hasty, hasty, floor=1, goal=goal))
    verdict = job.close(loss=2.0, rmse=0.5)
    assert verdict.leavers == (1,)
    decision = job.records[0].decision
    assert decision is not None
    assert (decision.step, decision.action, decision.workers) == (0, "leave", (1,))
    [question] = hasty.questions
    assert (question.losses.tolist(), question.heldout) == ([2.0], ((0, 0.5),))
    assert [one.seconds for one in question.workers] == [1.75, 2.75]
    assert (question.exchanged, question.merging) == (60.0, 0.25)


def test_seconds_of_an_evaluation_are_not_those_of_a_step() -> None:
    hasty = Hasty()
    hasty.due = lambda *, steps, seconds: steps == 2  # type: ignore[method-assign]
    job = Job(tuner=Tuner(hasty, hasty, floor=1, goal=Goal(batches=6)))
    for seconds in (1.0, 2.0, 4.0):
        job.now += seconds
        job.close(rmse=0.5)
    [question] = hasty.questions
    assert question.seconds[1:].tolist() == [2.0, 3.5]  # the third step has an evaluation


def test_two_who_let_workers_go_do_not_go_together() -> None:
    hasty = Hasty()
    with pytest.raises(AssertionError, match="a tuner and another"):
        Job(leavers={0: (1,)}, tuner=Tuner(hasty, hasty, floor=1, goal=Goal(batches=6)))


def test_a_step_of_flushes_has_no_loss_and_does_not_count_for_the_average() -> None:
    job = Job()
    job.close(loss=2.0)
    job.close(samples=0)
    assert (job.records[1].loss, job.records[1].train_loss) == (None, 2.0)


def test_held_out_rows_of_all_workers_count_together() -> None:
    job = Job()
    parts = {0: Evaluation(Sums(3, 3.0), "d", 0, 0), 1: Evaluation(Sums(1, 13.0), "d", 0, 0)}
    assert job.closing.score(job.plan, parts | {2: Evaluation(Sums(0, 0.0), "d", 0, 0)})
    assert job.closing.heldout == {"rmse": 2.0}


def test_models_that_differ_end_the_job_and_are_named() -> None:
    job = Job()
    with pytest.raises(ReplicasDiffer, match=r"step 0: .*worker 0: aa, worker 1: bb"):
        job.closing.score(job.plan, evaluated(w0="aa", w1="bb"))


def test_the_last_model_is_weighed_at_the_end_and_not_before() -> None:
    job = Job()
    job.close(rmse=0.9)
    assert not job.closing.score(LAST, evaluated(w0="d"))  # an RMSE of 2
    assert job.closing.chosen(7) == Choice(0, {"rmse": 0.9}, restored=True)
    assert not job.closing.score(LAST, {0: Evaluation(Sums(4, 1.0), "d", 0, 0)})
    assert job.closing.chosen(7) == Choice(7, {"rmse": 0.5}, restored=False)


def test_the_first_reason_to_end_counts() -> None:
    job = Job(asks_at=1)
    assert not job.close().stop
    assert job.close().stop
    job.closing.ask("interrupted")
    assert job.closing.reason == "callback"
    assert job.close().stop


@pytest.mark.parametrize(("target", "reason"), [(0.5, "target"), (0.4, None)])
def test_a_target_ends_the_job(target: float, reason: str | None) -> None:
    job = Job(target=Target(metric="rmse", value=target))
    assert job.close(rmse=0.5).stop == (reason is not None)
    assert job.closing.reason == reason


def test_patience_ends_the_job() -> None:
    job, ends = Job(patience=2, epochs=9), []
    for rmse in (0.5, 0.6, 0.7):
        ends.append(job.close(rmse=rmse).stop)
        job.close()
    assert ends == [False, False, True]
    assert job.closing.reason == "patience"


def test_time_that_allows_for_no_further_step_ends_the_job() -> None:
    job = Job(max_time=10.0)
    job.now = 102.0
    assert not job.close().stop
    job.now = 108.0
    assert job.close().stop
    assert job.closing.reason == "time"


def test_a_job_that_ends_anyway_does_not_end_for_want_of_time() -> None:
    job = Job(max_time=10.0, epochs=1)
    job.close()
    job.now = 111.0
    job.close()
    assert job.plan.flush
    job.close(samples=0)
    assert job.closing.reason is None


@pytest.mark.parametrize("way", ["not finite", "far too large"])
def test_a_model_that_came_to_nothing_ends_the_job_at_once_with_an_earlier_one(way: str) -> None:
    job = Job()
    job.close(rmse=0.5)
    job.closing.ask("interrupted")
    verdict = job.close(finite=way != "not finite", loss=1e3 * DIVERGED if way == "far too large" else 1.0)
    assert (verdict.diverged, verdict.stop, job.closing.reason) == (True, True, "diverged")
    job.plan = job.schedule.abandoned(job.plan)
    verdict = job.close(samples=0)
    assert (verdict.diverged, verdict.stop) == (False, True)  # there is nothing more to break off
    assert job.closing.chosen(2) == Choice(0, {"rmse": 0.5}, restored=True)


def test_nobody_leaves_a_job_that_ends() -> None:
    job = Job(leavers={0: (1,), 1: (0,)}, asks_at=1)
    assert job.close().leavers == (1,)
    assert job.close().leavers == ()


def test_a_loss_is_told_with_the_next_step_once() -> None:
    job = Job()
    job.closing.note_loss("worker 1 died in step 0")
    job.closing.note_loss("worker 0 died in step 0")
    job.close()
    job.close()
    assert [record.losses for record in job.records] == [
        ("worker 1 died in step 0", "worker 0 died in step 0"),
        (),
    ]
    assert [record.lost for record in job.records] == [2, 0]


def test_a_verdict_is_not_moved_by_what_comes_after_it() -> None:
    job = Job()
    first = job.close(loss=1.0, rmse=0.5)
    job.close(loss=3.0)
    assert first.progress.train_loss == 1.0


def test_going_back_takes_back_what_was_learnt_since_and_is_told_once() -> None:
    job = Job()
    first = job.close(loss=1.0, rmse=0.5)
    job.close(loss=9.0)
    job.close(loss=9.0, rmse=0.4)
    stored = Score(0, {"rmse": 0.5}, 0.5)
    job.closing.rewind(1, first.progress, stored)
    job.plan = job.schedule.after(job.schedule.first(2)) or job.plan
    job.close(loss=1.0)
    again = job.close(loss=1.0, rmse=0.45)
    assert [record.rewound_to for record in job.records] == [None, None, None, 1, None]
    assert [record.train_loss for record in job.records[3:]] == [1.0, 1.0]
    assert again.best  # 0.4 is lost
    assert first.progress.train_loss == 1.0  # one can go back there again
    assert first.progress.best == stored


def test_going_back_without_a_stored_model_leaves_none() -> None:
    job = Job()
    first = job.close(rmse=0.5)
    job.closing.rewind(0, first.progress, None)
    job.closing.score(LAST, evaluated(w0="d"))  # an RMSE of 2
    assert job.closing.chosen(7) == Choice(7, {"rmse": 2.0}, restored=False)


def test_a_best_model_that_is_lost_gives_way_to_the_one_that_is_stored() -> None:
    job = Job()
    job.close(rmse=0.9)
    job.close()
    job.close(rmse=0.5)
    job.closing.forget_best(Score(0, {"rmse": 0.9}, 0.9))
    job.closing.score(LAST, evaluated(w0="d"))
    assert job.closing.chosen(7) == Choice(0, {"rmse": 0.9}, restored=True)


@pytest.mark.parametrize("reason", ["target", "patience", "diverged"])
def test_a_judgement_on_steps_that_are_taken_back_is_taken_back(reason: str) -> None:
    job = Job(target=Target(metric="rmse", value=0.5), patience=1, epochs=9)
    first = job.close(rmse=0.6)
    job.close()
    match reason:
        case "diverged":
            job.close(finite=False)
        case _:
            job.close(rmse=0.5 if reason == "target" else 0.7)
    assert job.closing.reason == reason
    job.closing.rewind(1, first.progress, None)
    assert job.closing.reason is None
    job.plan = job.schedule.after(job.schedule.first(2)) or job.plan
    assert not job.close().stop


@pytest.mark.parametrize("reason", ["interrupted", "callback", "time", "cost"])
def test_a_wish_to_end_outlives_going_back(reason: str) -> None:
    job = Job()
    first = job.close(rmse=0.6)
    job.closing.ask(reason)
    job.closing.rewind(1, first.progress, None)
    assert job.close().stop
    assert job.closing.reason == reason


def test_metrics_without_a_value_are_left_out() -> None:
    job = Job()
    job.close(rmse=math.nan)
    assert job.closing.heldout == {}
    assert job.records[0].heldout == {}


def test_what_was_before_time_counts_is_no_part_of_the_first_step() -> None:
    job = Job(max_time=30.0)
    job.closing.begin(200.0)
    job.closing.costing.open(200.0)  # all functions are there, a hundred seconds after they were started
    job.now = 200.0
    assert not job.close().stop
