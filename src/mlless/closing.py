"""PURE: what closed steps come to: their losses, the best model, the bill, and whether to go on.

The same for a job's supervisor and for training in the process, which has one report a step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from mlless.autotuner.decision import Contribution, Observation
from mlless.autotuner.tuner import Tuner
from mlless.costing import Costing
from mlless.errors import ReplicasDiffer
from mlless.job import JobSpec
from mlless.mark import Mark
from mlless.membership import Schedule
from mlless.messages import Evaluation, Plan, Report
from mlless.models import model_of
from mlless.models.base import add
from mlless.records import StepRecord, StepTimes
from mlless.stopping import Choice, Progress, Score, finite

_JUDGEMENTS = ("target", "patience", "diverged")  # reasons to stop that hold only as long as their steps do

Listener = Callable[[StepRecord], object]
Leavers = Callable[[StepRecord], Collection[int]]


def nobody(record: StepRecord) -> Collection[int]:
    """Let no worker go: the membership policy of a job without an auto-tuner."""
    return ()


@dataclass(frozen=True)
class Verdict:
    """What is to follow on a closed step.

    ``best``: the model before it is the best so far. ``leavers`` are to go. ``stop`` asks for the end,
    ``diverged`` for one without another mini-batch. ``progress`` is how the job stands. ``mark`` asks for a
    checkpoint now.
    """

    best: bool
    leavers: tuple[int, ...]
    stop: bool
    diverged: bool
    progress: Progress
    mark: bool = False


class Closing:
    """Closes the steps of one job, which stands at ``progress``, from ``start`` on.

    ``listen`` hears of every closed step; True from it ends the training. ``leavers`` lets workers go, and
    so does a ``tuner``.
    """

    def __init__(
        self,
        spec: JobSpec,
        schedule: Schedule,
        progress: Progress,
        *,
        start: float,
        costing: Costing,
        listen: Listener,
        leavers: Leavers = nobody,
        tuner: Tuner | None = None,
    ) -> None:
        assert tuner is None or leavers is nobody, "a tuner and another who lets workers go"
        self.costing = costing
        self.reason: str | None = None
        self._start, self._schedule, self._listen, self._leavers = start, schedule, listen, leavers
        self._tuner, self._model = tuner, model_of(spec.model)
        self._progress = dataclasses.replace(progress)
        self._heldout: dict[str, float] | None = None
        self._best = False
        self._losses: list[str] = []
        self._lost = self._sums_lost = 0
        self._rewound_to: int | None = None

    def begin(self, now: float) -> None:
        """Count time from ``now`` on."""
        self._start = now

    def ask(self, reason: str) -> None:
        """Ask for an orderly end; the first ``reason`` counts."""
        self.reason = self.reason or reason

    def note_loss(self, text: str, shards: int = 0) -> None:
        """Take in that a worker was lost, to be told with the next step.

        What it had kept of the sums of so many ``shards`` is lost with it.
        """
        if shards:
            text += f"; what it had kept of the sums of {shards} shard{'s' if shards > 1 else ''} is lost"
        self._losses.append(text)
        self._lost += 1
        self._sums_lost += shards

    def resume(self, mark: Mark, records: Iterable[StepRecord]) -> None:
        """Go on from a mark, the steps before it having come to these records."""
        self._rewound_to = mark.plan.step
        workers = len(mark.plan.trainers)
        self._losses.append(f"the job is resumed, with {workers} worker{'s' if workers > 1 else ''}")
        if self._tuner is None:
            return
        for record in records:
            self._tuner.recall(_recalled(record), record.decision)
        ahead = (mark.plan, *mark.ahead)
        self._tuner.expect(who for plan in ahead if plan.trainers for who in plan.flush)

    def rewind(self, step: int, progress: Progress, stored: Score | None) -> None:
        """Go back to where the job stood before ``step``; the best model that is stored is still there."""
        self._progress = dataclasses.replace(progress)
        self._rewound_to = step
        if self.reason in _JUDGEMENTS:
            self.reason = None
        self.forget_best(stored)

    def forget_best(self, stored: Score | None) -> None:
        """Take in that a better model than the one that is stored has been lost."""
        self._progress.best = stored

    @property
    def best(self) -> Score | None:
        """The best model so far."""
        return self._progress.best

    @property
    def heldout(self) -> dict[str, float]:
        """The held-out metrics that have a value, of the newest evaluation."""
        return finite(self._heldout or {})

    def score(self, plan: Plan, evaluations: Mapping[int, Evaluation]) -> bool:
        """Take in evaluations of the model before a step, by worker; return whether it is the best.

        ReplicasDiffer if their models are not the same bits.
        """
        digests = {worker: evaluation.digest for worker, evaluation in evaluations.items()}
        if len(set(digests.values())) > 1:
            listing = ", ".join(f"worker {worker}: {digest}" for worker, digest in digests.items())
            raise ReplicasDiffer(
                "workers no longer share the same model", where=f"step {plan.step}", found=listing
            )
        self._heldout, self._best = None, False
        if plan.evaluate:
            total = None
            for evaluation in evaluations.values():
                if evaluation.sums.samples:
                    total = evaluation.sums if total is None else add(total, evaluation.sums)
            self._heldout = self._model.metrics(total) if total else {}
            self._best = not plan.last and self._progress.add_evaluation(plan.step, self._heldout)
        return self._best

    def close(
        self,
        plan: Plan,
        following: Plan | None,
        reports: Sequence[Report],
        now: float,
        *,
        handovers: int = 0,
        further: Sequence[Plan] = (),
    ) -> Verdict:
        """Close a step that has been scored; tell of it, and decide what is to follow.

        So many functions have handed over to their successors before it: ``handovers``. With slack more is
        settled than the ``following`` plan: that of ``further`` steps.
        """
        cost = self.costing.add_step(plan, reports, now)
        record = self._record(plan, reports, now, cost, handovers)
        if self._tuner is not None:
            decision = self._tuner.observe(_observation(record, plan, reports))
            record = msgspec.structs.replace(record, decision=decision)
        if self._listen(record) is True:
            self.ask("callback")
        diverged = self._progress.diverged(finite=all(report.finite for report in reports))
        if diverged:
            self.reason = "diverged"
        elif record.loss is not None and self.reason is None:
            spent = self._spent(() if following is None else (following, *further), now)
            self.reason = self._progress.reason(evaluated=plan.evaluate, spent=spent)
        leavers = () if self.reason else tuple(self._leavers(record))
        if record.decision is not None:
            leavers = (*leavers, *record.decision.workers)
        return Verdict(
            self._best,
            leavers,
            self.reason is not None,
            diverged and not plan.last,
            dataclasses.replace(self._progress),
        )

    def chosen(self, step: int) -> Choice:
        """Return the model with which the job ends, the last step being ``step``."""
        return self._progress.choose(step, None if self.reason == "diverged" else self._heldout)

    def _record(
        self, plan: Plan, reports: Sequence[Report], now: float, cost: float | None, handovers: int
    ) -> StepRecord:
        samples = sum(report.samples for report in reports)
        loss = sum(report.loss for report in reports) / samples if samples else None
        if loss is not None:
            self._progress.add_step(loss)
        losses, self._losses = tuple(self._losses), []
        lost, self._lost = self._lost, 0
        sums_lost, self._sums_lost = self._sums_lost, 0
        rewound_to, self._rewound_to = self._rewound_to, None
        return StepRecord(
            step=plan.step,
            epoch=plan.done,
            time=now - self._start,
            loss=loss,
            train_loss=self._progress.train_loss,
            heldout=None if self._heldout is None else finite(self._heldout),
            workers=len(plan.members),
            samples=samples,
            entries=sum(report.entries for report in reports),
            bytes_out=sum(report.bytes_out for report in reports),
            bytes_in=sum(report.bytes_in for report in reports),
            bytes_fetched=sum(report.bytes_fetched for report in reports)
            + sum(one.evaluation.bytes for one in reports if one.evaluation),
            times=_mean_times(reports),
            cost=cost,
            losses=losses,
            rewound_to=rewound_to,
            bytes_kept=sum(report.bytes_kept for report in reports),
            handovers=handovers,
            lost=lost,
            sums_lost=sums_lost,
        )

    def _spent(self, ahead: Sequence[Plan], now: float) -> Literal["cost", "time"] | None:
        """Return which budget allows for no step beyond those ``ahead``, if that makes a difference."""
        if not ahead or not self.costing.limited:
            return None
        later = self._schedule.after(ahead[-1])
        if later is None or later == self._schedule.after(ahead[-1], end=True):
            return None
        return self.costing.spent(now, [*ahead, later])


def _observation(record: StepRecord, plan: Plan, reports: Sequence[Report]) -> Observation:
    return Observation(
        step=record.step,
        time=record.time,
        loss=record.loss,
        workers=tuple(Contribution(one.worker, _busy(one), one.entries) for one in reports),
        evaluating=max(report.times.evaluate for report in reports) if plan.evaluate else 0.0,
        heldout=record.heldout,
        merging=record.times.merge,
        exchanged=record.bytes_out + record.bytes_in,
        cost=record.cost,
    )


def _recalled(record: StepRecord) -> Observation:
    return Observation(
        step=record.step,
        time=record.time,
        loss=record.loss,
        workers=tuple(Contribution(-1 - number, 0.0, 0) for number in range(record.workers)),
        evaluating=record.times.evaluate,
        heldout=record.heldout,
        merging=record.times.merge,
        exchanged=record.bytes_out + record.bytes_in,
        cost=record.cost,
    )


def _busy(report: Report) -> float:
    """Return how long others may have waited for a worker."""
    times = report.times
    return times.fetch + times.compute + times.filter + times.publish + times.merge


def _mean_times(reports: Sequence[Report]) -> StepTimes:
    count = len(reports)
    names = StepTimes.__struct_fields__
    return StepTimes(*(sum(getattr(r.times, name) for r in reports) / count for name in names))
