"""Trials: small jobs in virtual time, each with faults that follow from its seed; and what must hold of them.

``make trials`` makes 5,000. ``python tests/trials.py 1 --first 17`` repeats that of seed 17.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
from lives import Fate, History, fate_of

from mlless import checkpoint, keys
from mlless.billing.tariff import load_tariff
from mlless.channels.ports import KeyValueStore
from mlless.checkpoint import Memory
from mlless.data.dataset import Dataset
from mlless.data.memory import MemoryObjects
from mlless.data.partition import partition
from mlless.data.synthetic import write_clicks, write_ratings
from mlless.errors import DeadlineExceeded, MissingUpdate, MLLessError, WorkerFailed, WorkerLost
from mlless.job import Deadlines, JobSpec, PatternName
from mlless.kernels.arrays import Ids
from mlless.losses import PER_WORKER, TRIES
from mlless.membership import bounds_of, order_of
from mlless.messages import (
    Begin,
    Commit,
    Failure,
    FunctionId,
    HandedOver,
    Merge,
    Merged,
    Origin,
    Plan,
    Report,
    Substitute,
    Substituted,
)
from mlless.recipes import job_of
from mlless.records import StepRecord
from mlless.replica import Replica
from mlless.report.history import that_count
from mlless.simulation.conditions import Durations
from mlless.simulation.faults import Faults, draw
from mlless.simulation.jobs import Simulation, simulate
from mlless.simulation.trace import Dismissed, Emptied, Heard, Launched, Sent, Struck, Trace
from mlless.wishes import Wishes
from mlless.worker import Worker

DURATIONS = Durations(
    work={"compute": 5e-3, "evaluate": 2e-3, "fetch": 1e-6, "sum": 1e-6, "merge": 1e-6},
    message=2e-3,
    request=1e-3,
)
PATTERNS: tuple[PatternName, ...] = ("broadcast", "allreduce", "scatter")
BOUND = 0.15  # by which the held-out metric, of some forty rows, may be worse: a share of the undisturbed one


@dataclass(frozen=True)
class Trial:
    """A job, whether its bits must be those of the undisturbed one, and what befalls it.

    Its functions take so many seconds to ``start`` and are ended after ``limit`` seconds. With a ``fate`` its
    supervisor dies, and it is resumed.
    """

    seed: int
    spec: JobSpec
    exact: bool
    leaves: tuple[int, int] | None  # after which step who leaves
    faults: Faults
    limit: float | None
    start: float
    fate: Fate | None

    def leavers(self, record: StepRecord) -> Collection[int]:
        """Let the one who leaves go."""
        return (self.leaves[1],) if self.leaves is not None and record.step == self.leaves[0] else ()


@cache
def dataset(kind: str) -> Dataset:
    """Return a tiny generated data set of a kind, in memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "mf":
            write_ratings(folder / "source.csv", users=40, items=20, rows=500, factors=2, seed=1)
            made = partition(folder / "source.csv", folder / "data")
        else:
            write_clicks(folder / "source.svm", rows=400, features=60, per_row=6, seed=1)
            made = partition(folder / "source.svm", folder / "data")
        return in_memory(made, kind)


def in_memory(made: Dataset, name: str) -> Dataset:
    """Return a copy of a data set that is in no folder, under a name."""
    objects = MemoryObjects()
    for file in made.manifest.files:
        objects.put(file.path, made.objects.get(file.path))
    return replace(made, objects=objects, address=name)


def trial_of(seed: int) -> Trial:
    """Return the trial of a seed."""
    dice = random.Random(f"a limit for {seed}")
    limited = dice.random() < 0.4
    limit, start = (dice.uniform(4.0, 12.0), dice.uniform(0.0, 0.5)) if limited else (None, 0.0)
    epochs = dice.randint(3, 12) if limited else 3
    pattern, slack, steps = exchange_of(seed)
    dice = random.Random(-1 - seed)
    kind = dice.choice(("mf", "lr"))
    workers = dice.randint(1, 5)
    steps = steps if workers > 1 else 1
    exact = dice.random() < 0.6
    on_loss = dice.choices(("replace", "shrink", "fail"), (8, 3, 1))[0]
    parts = (dice.randint(2, 4) + 2 * slack) * min(steps, 2)
    held = dataset(kind)
    rows = sum(file.rows for file in held.manifest.train)
    wishes = Wishes(
        batch_size=rows // (workers * parts),
        epochs=epochs,
        workers=workers,
        on_loss=on_loss,
        optimizer="nesterov" if exact else "adagrad",
        sync="bsp" if exact else "isp",
        learning_rate=0.1 if exact else None,
        max_time=dice.uniform(2.0, 60.0) if dice.random() < 0.1 else None,
        **({"factors": 3} if kind == "mf" else {}),
    )
    spec = job_of(wishes, held.manifest, kind)
    if exact:
        still = msgspec.structs.replace(spec.optimizer, momentum=0.0)
        model = msgspec.structs.replace(spec.model, l2=0.0)
        spec = msgspec.structs.replace(spec, optimizer=still, model=model)
    deadlines = Deadlines(start=20.0, step=20.0, commit=200.0)
    since = random.Random(f"the first local steps for {seed}").randrange(2) if steps > 1 else 0
    shared = kind == "mf" and random.Random(f"users of {seed}").random() < 0.3
    spec = msgspec.structs.replace(
        spec,
        deadlines=deadlines,
        pattern=pattern,
        slack=slack,
        local_steps=steps,
        local_since=since,
        share_users=shared,
    )
    leaves = (
        (dice.randrange(epochs * parts), dice.randrange(1, workers))
        if workers > 1 and dice.random() < 0.2
        else None
    )
    faults = draw(seed, workers, calls=8 * epochs * parts, seconds=0.3 * epochs * parts)
    fate = fate_of(seed, workers, faults, steps=epochs * parts)
    if fate is not None:
        every = random.Random(f"checkpoints for {seed}").choice((None, 0.2, 1.0))
        spec = msgspec.structs.replace(spec, checkpoint_every=every, tariff=load_tariff("aws-lambda-x86"))
    if limit is not None:
        # What is said of the time left is as old as that; a step with mergers has twice as many messages, and
        # with slack a hand-over waits until nobody is ahead.
        delay = max(one.delay for one in (fate.faults if fate else (faults,)))
        limit += (20 if spec.shards or slack else 10) * delay
    return Trial(seed, spec, exact and on_loss == "replace", leaves, faults, limit, start, fate)


def exchange_of(seed: int) -> tuple[PatternName, int, int]:
    """Return the pattern of movement of a seed's trial, its slack, and its local steps."""
    pattern = random.Random(f"a pattern for {seed}").choice(PATTERNS)
    steps = random.Random(f"the mini-batches of {seed}").choice((1, 1, 2, 3))
    if pattern != "broadcast":
        return pattern, 0, steps
    slack = random.Random(f"slack for {seed}").choice((0, 1, 2, 5))
    return pattern, slack, 1 if slack else steps


def run(trial: Trial, trace: Trace, records: list[StepRecord]) -> Simulation:
    """Run a trial's job with its faults."""
    return simulate(
        trial.spec,
        dataset(trial.spec.dataset),
        lasting(trial),
        leavers=trial.leavers,
        listen=records.append,
        faults=trial.faults,
        trace=trace,
        limit=trial.limit,
    )


def lasting(trial: Trial) -> Durations:
    """Return what things take in a trial."""
    return replace(DURATIONS, start=trial.start)


def undisturbed(trial: Trial, trained: int) -> Simulation:
    """Return a trial's job without faults, which is told to end so that it trains for so many steps.

    Everyone adds for itself in it where other patterns give the same bits: where sums are sent as they are.
    """
    asked = trained - 2 - trial.spec.ahead
    stop = msgspec.structs.replace(trial.spec.stop, max_time=None)
    kept = trial.spec.sync.merged_significance is not None
    pattern = trial.spec.pattern if kept else "broadcast"
    spec = msgspec.structs.replace(trial.spec, stop=stop, pattern=pattern)
    return simulate(
        spec,
        dataset(spec.dataset),
        Durations(),
        leavers=trial.leavers,
        listen=lambda record: record.step == asked,
    )


def attempt(seed: int) -> tuple[str, list[str]]:
    """Run the trial of a seed; return how it ended, and what did not hold."""
    trial, trace, records, wrong = trial_of(seed), [], [], []
    if trial.fate is not None:
        return attempt_lives(trial, trial.fate)
    try:
        with beginnings(wrong), endings(wrong), awake(trial.faults):
            done = run(trial, trace, records)
    except MLLessError as error:
        wrong += [
            *failed_rightly(trial, trace, error),
            *course_of(trial, [(trace, records)]),
            *went_on(trial, trace, error),
        ]
        return type(error).__name__, wrong
    except Exception:
        return "raised", [*wrong, traceback.format_exc()]
    return done.outcome.stop_reason, [
        *wrong,
        *went_on(trial, trace),
        *course_of(trial, [(trace, records)]),
        *committed(trial, trace),
        *stayed(trial, trace),
        *ended_rightly(trial, trace, done),
        *result_of(trial, trace, records, done, same=same_bits(trial, [trace]), lost=bool(lost(trace))),
        *kept_clean(trial, trace, done),
        *handed_over(trial, trace, records),
    ]


def attempt_lives(trial: Trial, fate: Fate) -> tuple[str, list[str]]:
    """Run a trial whose supervisor dies; return how it ended at last, and what did not hold."""
    history, wrong = history_of(trial, fate), []
    lives, done, failure = history.lives, None, None
    try:
        with beginnings(wrong), endings(wrong), awake(*fate.faults):
            done = history.run(trial.spec, trial.leavers)
    except MLLessError as error:
        failure = error
    except Exception:
        return "raised", [*wrong, traceback.format_exc()]
    for life in lives:
        part = replace(trial, spec=life.spec, faults=life.faults)
        if failure is not None and life is lives[-1]:
            wrong += [*went_on(part, life.trace, failure), *failed_rightly(part, life.trace, failure)]
        else:
            wrong += [*went_on(part, life.trace), *committed(part, life.trace), *stayed(part, life.trace)]
            wrong += handed_over(part, life.trace, life.records)
    wrong += course_of(trial, [(life.trace, life.records) for life in lives])
    wrong += told_rightly(history, done)
    if done is None:
        return type(failure).__name__ if failure else "refused", wrong
    trace = [one for life in lives for one in life.trace]
    records = [one for life in lives for one in life.records]
    exact = trial.exact and all(workers is None for workers in fate.workers[: len(lives)])
    exact = exact and same_bits(trial, [life.trace for life in lives])
    wrong += ended_rightly(part, trace, done)
    wrong += result_of(part, trace, records, done, same=exact, lost=True)
    wrong += kept_clean(trial, life.trace, done)
    return f"{done.outcome.stop_reason} (resumed)" if len(lives) > 1 else done.outcome.stop_reason, wrong


def history_of(trial: Trial, fate: Fate) -> History:
    """Return the lives of a trial's job, which are yet to be run."""
    return History(fate, dataset(trial.spec.dataset), lasting(trial), trial.limit)


def told_rightly(history: History, done: Simulation | None) -> Iterator[str]:
    """Complain of a run that does not tell of all its lives: of steps, time, money, and of the best model."""
    written, lives = history.written, history.lives
    paid = dearest = 0.0
    for before, after in pairwise([None, *written]):
        if before is not None and after.time < before.time:
            yield f"step {after.step} is told of at {after.time} s, after {before.time} s"
        if any("the job is resumed" in loss for loss in after.losses):
            paid = dearest
        dearest = max(dearest, after.cost or 0.0)
        if (after.cost or 0.0) < paid:  # within a life the end of a function may be told of late
            yield f"step {after.step} is told of for {after.cost} dollars, where {paid} were paid before"
    counted = that_count(written)
    if [record.step for record in counted] != list(range(len(counted))):
        yield f"the history has the steps {[record.step for record in counted]}"
    for number, life in enumerate(lives[1:], start=1):
        if life.records and not any("the job is resumed" in loss for loss in life.records[0].losses):
            yield f"life {number} does not tell that the job is resumed"
        if life.score and life.mark and life.mark.progress.best != life.score:
            yield f"life {number} goes on with the best model {life.mark.progress.best}, not {life.score}"
        before, after = life.score, lives[number + 1].score if life is not lives[-1] else life.score
        if before and not emptied(life.trace) and (after is None or after.value > before.value):
            yield f"the best model was {before}, and after another life it is {after}"
    if done is None:
        return
    heard = that_count(one for life in lives for one in life.records)
    if counted != heard and lives[-1].records:  # without, a line that was lost is not taken again
        yield f"the history has {len(counted)} steps that count, and not the {len(heard)} that were heard of"
    told = written[-1].time if written else 0.0
    if done.outcome.seconds < told or (done.bill and done.bill.total < paid):
        yield f"it ends after {done.outcome.seconds} s for {done.bill}, where {paid} dollars were paid before"
    best = lives[-1].score
    if best is not None and not emptied(lives[-1].trace):
        found = next(iter(done.outcome.model.heldout.values()), math.inf)
        if found > best.value:
            yield f"the model is worth {found}, which had been {best.value}"


@contextmanager
def awake(*faults: Faults) -> Iterator[None]:
    """Let nobody warn of anything, but that nothing could come in for long where faults explain it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=RuntimeWarning)
        if any(one.away or one.asleep for one in faults):
            warnings.filterwarnings("ignore", "for .* s nothing could come in", RuntimeWarning)
        yield


@contextmanager
def beginnings(wrong: list[str]) -> Iterator[None]:
    """Complain of a replica that begins with changes of its own, which somebody else is going to publish."""
    load = checkpoint.load_origin

    def checked(
        store: KeyValueStore, origin: Origin, replica: Replica, batches: int, rows: Ids | None = None
    ) -> tuple[Memory, int]:
        loaded = load(store, origin, replica, batches, rows)
        if not origin.key.startswith(keys.HANDOVER) and any(table.residual.any() for table in replica.tables):
            wrong.append(f"who begins with {origin.key} has a residual")
        return loaded

    with patch.object(checkpoint, "load_origin", checked):
        yield


def emptied(trace: Trace) -> bool:
    """Return whether the store has lost what it had."""
    return any(isinstance(one, Emptied) for _, one in trace)


def begun(trace: Trace) -> set[FunctionId]:
    """Return the functions that had a part in the job; others have only waited for one."""
    return {who for one in begins(trace) for who in one.functions}


def begins(trace: Trace) -> list[Sent]:
    return [one for _, one in trace if isinstance(one, Sent) and isinstance(one.message, Begin)]


def lost(trace: Trace) -> set[FunctionId]:
    """Return the functions that counted as lost and whose part was to be done by others."""
    gone = {who for _, one in trace if isinstance(one, Dismissed) for who in one.functions}
    return {who for who in gone if who in begun(trace) or who[1] == 0}


def same_bits(trial: Trial, lives: Sequence[Trace]) -> bool:
    """Return whether a job must come to the bits of the undisturbed one, or only to about the same.

    Users whose owner was lost are computed anew. With slack who takes another one's place, or goes on with a
    job, begins with a model that has more merged; and when all wait for a hand-over depends on time.
    """
    if not trial.spec.ahead:
        kept = trial.exact and not trial.spec.owns_users
        return kept or not any(lost(trace) for trace in lives)
    sent = (one.message for trace in lives for _, one in trace if isinstance(one, Sent))
    drained = any(plan.drain for message in sent if isinstance(message, Commit) for plan in message.plans)
    return len(lives) == 1 and not lost(lives[0]) and not drained


def went_on(trial: Trial, trace: Trace, error: MLLessError | None = None) -> Iterator[str]:
    """Complain of a time in which nothing came or went, where nobody was stopped, and of false alarms."""
    dismissed: set[FunctionId] = set()
    faults = trial.faults
    stops = [one for one in (*faults.blows.values(), *faults.strikes) if one.kind == "stop"]
    heard = not stops and not faults.away  # then nobody is silent for long
    prompt = heard and not faults.asleep and not faults.delay and faults.notice <= 1.0
    explained = heard and faults.notice <= 1.0 and not emptied(trace)
    before, struck = 0.0, set[FunctionId]()
    for when, one in trace:
        if prompt and when - before > 5.0:
            yield f"nothing came or went from {before:.1f} to {when:.1f} s"
        before = when
        match one:
            case Struck(function):
                struck.add(function)
            case Dismissed(functions):
                if explained and not struck.issuperset(functions):
                    yield f"{functions} counted as lost, though nothing had befallen them"
                dismissed.update(functions)
            case Heard(Failure() as failure) if "no message from the supervisor" in failure.error:
                if (failure.worker, failure.generation) not in dismissed:
                    yield f"{failure.worker, failure.generation} was left alone"
    if explained and isinstance(error, WorkerLost | WorkerFailed):
        worker = int(error.what.split()[1])  # as in "worker 3 died"
        launched = [who for _, one in trace if isinstance(one, Launched) for who in one.functions]
        *_, newest = [who for who in launched if who[0] == worker and (who in begun(trace) or who in struck)]
        if newest not in struck:
            yield f"failed for {newest}, which nothing had befallen: {error}"


def failed_rightly(trial: Trial, trace: Trace, error: MLLessError) -> Iterator[str]:
    """Complain about a failure that the faults do not explain."""
    lost = sum(len(one.functions) for _, one in trace if isinstance(one, Dismissed))
    tries: Counter[int] = Counter()
    for _, one in trace:
        if isinstance(one, Dismissed):
            tries.update(worker for worker, _ in one.functions)
        elif isinstance(one, Sent) and isinstance(one.message, Commit):
            tries.clear()
    workers = trial.spec.workers
    if trial.spec.on_loss == "fail" and isinstance(error, (WorkerLost, WorkerFailed, DeadlineExceeded)):
        return
    if max(tries.values(), default=0) + 1 >= TRIES or lost + 1 > max(8, PER_WORKER * workers):
        return
    if isinstance(error, MissingUpdate) and emptied(trace):
        return
    if max(Counter(one.message.plans[0].step for one in begins(trace)).values(), default=0) > 8:
        return  # it has begun so often at the same step
    if trial.spec.stop.max_time is not None and "was used up before the first step" in str(error):
        return
    yield f"failed after {lost} losses: {type(error).__name__}: {error}"


def course_of(trial: Trial, lives: Iterable[tuple[Trace, Sequence[StepRecord]]]) -> Iterator[str]:
    """Complain unless each closed step has trained on just the rows of its part of the epoch."""
    closed: list[Plan] = []
    told = (
        (record, plans) for trace, records in lives for plans in [closed_plans(trace)] for record in records
    )
    for record, plans in told:
        if record.rewound_to is not None:
            del closed[record.rewound_to :]
        if record.step != len(closed):
            yield f"step {record.step} was closed where {len(closed)} was due"
            return
        plan = next(plans, None)
        if plan is None:  # the job failed before it could say so
            continue
        if plan.step != record.step:
            yield f"step {plan.step} was committed where the record is of {record.step}"
            return
        closed.append(plan)
        if record.samples != rows_of(trial, plan):
            yield f"step {plan.step} took {record.samples} rows instead of {rows_of(trial, plan)}"
    places = [(plan.epoch, plan.part, plan.parts, plan.length) for plan in closed if plan.trainers]
    for (epoch, part, parts, length), after in pairwise(places):
        if after[:2] != (divmod(epoch * parts + part + length, parts)):
            yield f"part {after} follows {epoch, part, parts, length}"


def ended_rightly(trial: Trial, trace: Trace, done: Simulation) -> Iterator[str]:
    """Complain of a job that ends for no reason, or another one than what befell it."""
    *_, last = closed_plans(trace)
    match done.outcome.stop_reason:
        case "epochs" if last.epoch * last.parts + last.part < trial.spec.stop.epochs * last.parts:
            yield f"it ended in epoch {last.epoch} of {trial.spec.stop.epochs}"
        case "interrupted" if trial.faults.asked is None:
            yield "nobody has asked it to end"
        case "time" if trial.spec.stop.max_time is None:
            yield "it ended for want of time, of which it had no end"
        case "epochs" | "interrupted" | "time":
            pass
        case other:
            yield f"it ended for {other}"


def closed_plans(trace: Trace) -> Iterator[Plan]:
    """Yield the plan of each step that was committed."""
    plans: dict[int, Plan] = {}
    for _, one in trace:
        if isinstance(one, Sent) and isinstance(one.message, Begin | Commit):
            if isinstance(one.message, Commit):
                yield plans[one.message.step]
            plans |= {plan.step: plan for plan in one.message.plans}


def rows_of(trial: Trial, plan: Plan) -> int:
    """Return the rows of a plan's part of the epoch."""
    if not plan.trainers:
        return 0
    sizes = np.array([file.rows for file in dataset(trial.spec.dataset).manifest.train])
    rows = 0
    for part in order_of(trial.spec.seed, plan.epoch, plan.parts)[plan.part : plan.part + plan.length]:
        begins, ends = bounds_of(np.arange(len(sizes)), sizes, part, plan.parts)
        rows += int((ends - begins).sum())
    return rows


def committed(trial: Trial, trace: Trace) -> Iterator[str]:
    """Complain of a commit that names a function whose word was not taken while it counted."""
    if trial.spec.on_loss == "fail" and lost(trace):
        yield "it went on without somebody"
    dismissed: set[FunctionId] = set()
    reported: set[tuple[int, FunctionId]] = set()
    merged: set[tuple[int, int, FunctionId]] = set()
    for _, one in trace:
        match one:
            case Dismissed(functions):
                dismissed.update(functions)
            case Heard(Report() as report):
                who = report.worker, report.generation
                if who not in dismissed:
                    reported.add((report.step, who))
            case Heard(Substituted() as word):
                who = word.report.worker, word.report.generation
                if (word.worker, word.generation) not in dismissed and who not in dismissed:
                    reported.add((word.report.step, who))
            case Heard(Merged() as merge):
                who = merge.worker, merge.generation
                if who not in dismissed:
                    merged.add((merge.step, merge.shard, who))
            case Sent(Commit() as commit):
                if len(commit.mergers) != (trial.spec.shards if commit.published or commit.mergers else 0):
                    yield f"the commit of step {commit.step} has {len(commit.mergers)} mergers"
                for shard, who in enumerate(commit.mergers):
                    if (commit.step, shard, who) not in merged:
                        yield f"the commit of step {commit.step} has {who} merge {shard}, which did not count"
                for who in commit.published:
                    if (commit.step, who) not in reported:
                        yield f"the commit of step {commit.step} names {who}, which did not count"
                workers = [worker for worker, _ in commit.published]
                if workers != sorted(set(workers)):
                    yield f"the commit of step {commit.step} names {commit.published}"


def stayed(trial: Trial, trace: Trace) -> Iterator[str]:
    """Complain of a shard that goes to another merger though the one before is there and keeps some of it.

    And of one that ends by plan and keeps something.
    """
    mergers: dict[int, FunctionId] = {}  # who keep something
    gone: set[FunctionId] = set()
    whole: set[tuple[int, int]] = set()
    for _, one in trace:
        match one:
            case Dismissed(functions):
                gone.update(functions)
                mergers = {shard: who for shard, who in mergers.items() if who not in gone}
            case Heard(HandedOver() as word):
                successor = word.worker, word.generation
                mergers = {shard: who for shard, who in mergers.items() if who != successor}
            case Sent(Merge() as merge, functions):
                if merge.shard in mergers and mergers[merge.shard] not in functions:
                    yield f"{functions} merge {merge.shard} in step {merge.step}, not {mergers[merge.shard]}"
                if merge.whole:
                    whole.add((merge.step, merge.shard))
            case Sent(Commit() as commit):
                for shard, who in enumerate(commit.mergers):
                    mergers.pop(shard, None)
                    if who not in gone and (commit.step, shard) not in whole:
                        mergers[shard] = who


@contextmanager
def endings(wrong: list[str]) -> Iterator[None]:
    """Complain of a worker that comes to its end, hands nothing over, and keeps something of sums."""
    run, save = Worker._run, checkpoint.save_origin
    handed = set()

    def saved(store: KeyValueStore, key: str, replica: Replica, *rest: Any, **how: bool) -> Any:
        if key.startswith(keys.HANDOVER):
            handed.add(id(replica))
        return save(store, key, replica, *rest, **how)

    def checked(self: Worker) -> None:
        run(self)
        if id(self._replica) not in handed and any(kept.any() for kept in self._replica.kept):
            wrong.append(f"{self._me.function} ends, and keeps something of its sums")

    with patch.object(Worker, "_run", checked), patch.object(checkpoint, "save_origin", saved):
        yield


def result_of(
    trial: Trial, trace: Trace, records: Sequence[StepRecord], done: Simulation, *, same: bool, lost: bool
) -> Iterator[str]:
    """Complain of a model that is not that of the undisturbed job: the ``same`` bits, or about as good.

    If something was ``lost`` the best one may be an earlier one.
    """
    plans = {plan.step: plan for plan in closed_plans(trace)}
    last = records[-1].step
    trained = sum(1 for plan in plans.values() if plan.trainers and plan.step <= last)
    if done.outcome.given_up or trained < 2:
        return
    other = undisturbed(trial, trained)
    if same:
        mine, others = done.outcome.model, other.outcome.model
        if (mine.step, mine.restored) != (others.step, others.restored):
            if not emptied(trace) and not lost:
                yield f"the model is of step {mine.step}, not {others.step}"
            return
        for name, table in other.tables.items():
            if not np.array_equal(table.view(np.uint32), done.tables[name].view(np.uint32)):
                yield f"table {name} differs by up to {np.abs(table - done.tables[name]).max()}"
        return
    for name, value in other.outcome.model.heldout.items():
        found = done.outcome.model.heldout.get(name, math.nan)
        worse = (value - found if name == "auc" else found - value) / value
        if not worse <= BOUND:
            yield f"held-out {name} is {found}, undisturbed {value}"


def kept_clean(trial: Trial, trace: Trace, done: Simulation) -> Iterator[str]:
    """Complain of keys that nobody needs, unless a function has written them that no longer counts."""
    dismissed = {who for _, one in trace if isinstance(one, Dismissed) for who in one.functions}
    for _, one in trace:
        if (
            isinstance(one, Sent)
            and isinstance(one.message, Substitute)
            and dismissed.issuperset(one.functions)
        ):
            dismissed.add((one.message.worker, one.message.generation))  # in whose name it may write late
    newest = dict(sorted(who for _, one in trace if isinstance(one, Launched) for who in one.functions))
    last = 0
    for _, one in trace:
        if isinstance(one, Sent) and isinstance(one.message, Commit):
            last = one.message.step
        elif isinstance(one, Sent) and isinstance(one.message, Begin):  # maybe after it has gone back
            last = min(last, one.message.plans[0].step)
    models: defaultdict[str, set[str]] = defaultdict(set)  # the steps of those of a kind
    for key in done.left - {keys.INITIAL}:
        if key == f"{keys.BEST}/before":  # the job was lost
            models[keys.BEST].add("before")
            continue
        kind, step, function, *_ = key.split("/")
        worker, _, generation = function.partition(".")
        old = int(generation) < newest[int(worker)] and kind != keys.HANDOVER
        if (int(worker), int(generation)) in dismissed or old:
            continue
        models[kind].add(step)
        passing = keys.UPDATE, keys.MERGED, keys.DONATION, keys.HANDOVER, keys.ROWS
        if kind in passing and int(step) < last - 1 - trial.spec.ahead:
            yield f"{key} is left after step {last}"
    for kind in (keys.BEST, keys.CHECKPOINT, keys.RESULT):
        if len(models[kind]) > 2:
            yield f"{len(models[kind])} models are left as {kind}"


def handed_over(trial: Trial, trace: Trace, records: Sequence[StepRecord]) -> Iterator[str]:
    """Complain of a function whose time was over though nothing held it up, and of records that are wrong."""
    faults = trial.faults
    stops = [one for one in (*faults.blows.values(), *faults.strikes) if one.kind == "stop"]
    if not stops and not faults.away and not faults.asleep and faults.notice <= 1.0:
        for when, one in trace:
            if isinstance(one, Struck) and one.limit:
                yield f"the time of {one.function} was over at {when:.1f} s"
    handed, told = Counter[int](), {record.step: record.handovers for record in records}
    for _, one in trace:
        if isinstance(one, Sent) and isinstance(one.message, Commit):
            handed[one.message.step + 1] = len(one.message.handover)
    back = any(record.rewound_to is not None for record in records)
    for step, handovers in {} if back else told.items():
        if handed[step] != handovers:
            yield f"{handed[step]} have handed over before step {step}, of which {handovers} are told"
    if any(handed.values()) and trial.limit is None:
        yield "functions have handed over that had no limit"


def main() -> int:
    """Make trials in two processes and tell of those that found something; 1 if any did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", type=int, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    wanted = parser.parse_args()
    began, ends, wrong = time.perf_counter(), Counter[str](), 0
    with ProcessPoolExecutor(2) as pool:
        seeds = range(wanted.first, wanted.first + wanted.trials)
        for seed, (ending, complaints) in zip(seeds, pool.map(attempt, seeds, chunksize=20), strict=True):
            ends[ending] += 1
            if complaints:
                wrong += 1
                print(f"seed {seed}, {ending}:", *complaints[:5], sep="\n    ", flush=True)
    endings = ", ".join(f"{count} {ending}" for ending, count in ends.most_common())
    print(f"{wanted.trials} trials in {time.perf_counter() - began:.0f} s, {wrong} of them wrong: {endings}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
