"""SIREN: asynchronous functions over one model in the object store, and a scheduler that sets their number.

After Wang, Niu and Li, *Distributed Machine Learning with a Serverless Architecture* (INFOCOM 2019). An
epoch is a call of functions. Each reads the whole model, takes a step on a mini-batch, and writes the model
back, without waiting for the others: who writes last wins, and what others wrote meanwhile is lost. One
function takes the steps of a single process. Before each epoch a scheduler says how many functions it has,
and how large; a budget is never exceeded (``scheduling.py``). Without ``--max-cost`` nothing but the job's
other rules limits it.

Where it differs: the published scheduler is a deep network that has learnt from many jobs. This one is a
fixed policy, as many functions as the job has workers, until one has learnt. The memory of functions is what
the runtime gives; other sizes are for a runtime that has them. What an optimizer remembers is part of the
model's object. A function that is lost is started anew, and takes its mini-batches of the epoch again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from mlless.baselines.contract import Function, System, Tables, run_function
from mlless.baselines.judging import Judge
from mlless.baselines.scheduling import GRACE, Action, BudgetRule, Fixed, Policy, State, Taken, rewards
from mlless.baselines.stored_model import StoredModel
from mlless.billing.budget import WRITES
from mlless.billing.meter import MEMORY, Usage
from mlless.checkpoint import Memory
from mlless.data.holding import Holding
from mlless.errors import JobError, MissingObject
from mlless.job import JobSpec
from mlless.local import begin
from mlless.messages import Plan, Report, Times, decode_from_worker, encode
from mlless.models import model_of
from mlless.stepping import Stepper
from mlless.stopping import Choice

if TYPE_CHECKING:
    from mlless.baselines.leading import Stage


class Task(msgspec.Struct, frozen=True):
    """The epoch that a function has a part in, and for how many seconds it may go on; None for no limit."""

    plan: Plan
    seconds: float | None


def main(payload: bytes) -> None:
    """Be the function that ``payload`` describes."""
    run_function(payload, work)


def work(function: Function) -> None:
    """Take a function's mini-batches of an epoch as long as its time lasts; leave its report."""
    job, (worker, generation), clock = function.launch.job, function.launch.me, function.clock
    task, began = msgspec.json.decode(function.launch.task, type=Task), clock.now()
    model, holding = StoredModel(function.objects, clock, job), Holding(function.dataset, job.seed)
    alone = msgspec.structs.replace(job, workers=1)  # each change goes straight into the model
    stepper = Stepper(alone, holding, model.replica, clock, model.laps)
    samples, loss, finite, reads, fetched = 0, 0.0, True, 1, 0
    for part in range(task.plan.parts):
        if task.seconds is not None and clock.now() - began > task.seconds:
            break
        step, stepper.memory = model.read()
        plan = msgspec.structs.replace(task.plan, step=step, members=(worker,), part=part, evaluate=False)
        taken, _ = stepper.take_part(plan, function.launch.me)
        model.write(step + 1, stepper.memory)
        samples, loss, finite = samples + taken.samples, loss + taken.loss, finite and taken.finite
        reads, fetched = reads + taken.reads + 1, fetched + taken.bytes_fetched
    entries = model.writes * parameters(job)  # each write is of all
    report = Report(
        worker, generation, task.plan.step, samples, loss, model.writes > 0, finite, entries,
        model.written_bytes, model.read_bytes, reads, fetched, model.laps.take(),
    )  # fmt: skip
    function.objects.put(_report(task.plan.step, worker), encode(report))


def _report(step: int, worker: int) -> str:
    return f"report-{step}-{worker}"


Scheduler = Callable[[Sequence[Action], JobSpec], Policy]


def all_workers(actions: Sequence[Action], spec: JobSpec) -> Policy:
    """Return the policy that always takes as many functions as the job has workers, of the first size."""
    return Fixed(next(n for n, action in enumerate(actions) if action.workers == spec.workers))


def lead(
    stage: Stage, scheduler: Scheduler = all_workers, sizes: Sequence[int] = ()
) -> tuple[Tables, Choice]:
    """Lead a job, epoch by epoch; return the better of its best and its last model.

    ``sizes`` are the MB that a function may have, for a runtime that gives what a task asks for.
    """
    leader = _Leader(stage, scheduler, sizes or (stage.session.runtime.memory or MEMORY,))
    ending = leader.run()
    leader.teach()
    return ending


class _Leader:
    def __init__(self, stage: Stage, scheduler: Scheduler, sizes: Sequence[int]) -> None:
        self._stage, spec = stage, stage.spec
        counts = [2**n for n in range(spec.workers.bit_length()) if 2**n < spec.workers] + [spec.workers]
        self._actions = [Action(workers, size) for size in sizes for workers in counts]
        self._policy = scheduler(self._actions, spec)
        self._rule: BudgetRule | None = None
        self._judge = Judge(spec, stage.dataset, stage.clock)
        self._model = StoredModel(stage.objects, stage.clock, spec)
        self._taken, self._seconds, self._losses = list[tuple[State, int]](), list[float](), list[float]()
        if spec.tariff is not None and spec.stop.max_cost is not None:
            # The last reads of the model and of held-out rows, and the run's files.
            ahead = Usage(reads=spec.groups + 2, writes=WRITES)
            self._rule = BudgetRule(spec.tariff, spec.stop.max_cost, ahead)

    def run(self) -> tuple[Tables, Choice]:
        """Lead one epoch after the other, and score the model before each of them and at the end."""
        stage, epoch, best, going = self._stage, 0, Tables(), True
        self._model.replica.restore(begin(stage.spec.model, stage.spec.seed).replica.snapshot())
        self._model.write(0, Memory())
        stage.use(Usage(writes=1))
        while True:
            allowed = self._allowed(epoch) if going and epoch < stage.spec.stop.epochs else None
            action, seconds = allowed or (self._actions[0], None)
            plan = stage.schedule.first(action.workers)
            plan = msgspec.structs.replace(plan, step=epoch, epoch=epoch, last=allowed is None)
            tables = self._tables(plan)
            evaluation, scoring = self._judge.score(tables)
            reports = [_nothing(plan)] if plan.last else self._epoch(plan, seconds)
            times = msgspec.structs.replace(reports[0].times, evaluate=scoring)
            reports[0] = msgspec.structs.replace(reports[0], times=times, evaluation=evaluation)
            # In the books a step is an epoch. What follows on it is decided here.
            verdict = stage.close(msgspec.structs.replace(plan, parts=1), None, reports)
            if verdict.best:
                best = tables
                stage.keep_best(plan.step, tables)
            if plan.last:
                chosen = stage.closing.chosen(plan.step)
                return best if chosen.restored else tables, chosen
            self._losses.append(verdict.progress.train_loss or math.inf)
            epoch, going = epoch + 1, not verdict.stop

    def teach(self) -> None:
        """Let the policy learn from the job."""
        first = self._actions[self._taken[0][1]].workers if self._taken else 1
        gained = rewards(self._seconds, first, reached=self._stage.closing.reason == "target")
        self._policy.learn([Taken(*one, reward) for one, reward in zip(self._taken, gained, strict=True)])

    def _allowed(self, epoch: int) -> tuple[Action, float | None] | None:
        """Return the action of an epoch, and the seconds that it may take; None if the job is to end."""
        stage, stop = self._stage, self._stage.spec.stop
        state, spent = self._state(epoch), stage.cost()
        number = self._policy.act(state)
        action, seconds = self._actions[number], math.inf
        if self._rule is not None:
            paid = self._rule.seconds(action, spent, self._usage(action))
            if paid is None:
                stage.closing.ask("cost")
                return None
            seconds = paid
        if stop.max_time is not None:
            passed = stage.clock.now() - stage.began if epoch else 0.0
            seconds = min(seconds, stop.max_time - passed - GRACE)
            if seconds <= 0.0:
                stage.closing.ask("time")
                return None
        self._taken.append((state, number))
        return action, None if seconds == math.inf else seconds

    def _state(self, epoch: int) -> State:
        stop, most = self._stage.spec.stop, max(one.workers for one in self._actions)
        if not epoch:
            return State(0.0, 1.0, 1.0, 0.0, 1.0)
        left = 1.0 if stop.max_cost is None else max(0.0, 1.0 - self._stage.cost() / stop.max_cost)
        loss = self._losses[-1] / self._losses[0] if math.isfinite(self._losses[-1]) else 1.0
        workers = self._actions[self._taken[-1][1]].workers / most
        return State(epoch / stop.epochs, loss, left, workers, self._seconds[-1] / self._seconds[0])

    def _usage(self, action: Action) -> Usage:
        """Return the most that an epoch uses of the object store, if nobody is lost."""
        spec, files = self._stage.spec, self._stage.dataset.manifest.train
        steps = action.workers * self._stage.schedule.first(action.workers).parts
        moved = (
            2 * steps * (4096 + 13 * parameters(spec))
        )  # a row is shared, state and the step it was last in
        return Usage(
            spec.groups + steps + 2 * action.workers + 1,
            steps + action.workers,
            sum(file.bytes for file in files),
            moved,
        )

    def _epoch(self, plan: Plan, seconds: float | None) -> list[Report]:
        """Call the functions of an epoch; return the reports of those that came to their end."""
        stage, began = self._stage, self._stage.clock.now()
        limit = None if seconds is None else seconds + GRACE / 2
        done = stage.call(dict.fromkeys(plan.members, Task(plan, seconds)), "function", limit)
        self._seconds.append(stage.clock.now() - began)
        names = [_report(plan.step, worker) for worker in done]
        try:
            reports = [decode_from_worker(stage.objects.get(name)) for name in names]
        except MissingObject as error:
            cure = "do functions run elsewhere? Then let --out be in an object store that they reach"
            raise JobError("a function has left no report", where=error.where, cure=cure) from error
        stage.objects.delete(names)
        told = [one for one in reports if isinstance(one, Report)]
        writes = sum(one.entries for one in told) // parameters(stage.spec)
        stage.use(Usage(reads=len(names) + 1, writes=writes + len(names)))
        for _ in range(len(plan.members) - len(done)):  # what one that was ended has used, nobody knows
            stage.use(Usage(reads=stage.spec.groups + plan.parts + 1, writes=plan.parts))
        return told or [_nothing(plan)]

    def _tables(self, plan: Plan) -> Tables:
        """Return the model as it is now; before the last step with all that L2 has still to pull."""
        step, memory = self._model.read()
        if plan.last:
            alone = msgspec.structs.replace(self._stage.spec, workers=1)
            holding = Holding(self._stage.dataset, alone.seed)  # of nothing
            stepper = Stepper(alone, holding, self._model.replica, self._stage.clock, self._model.laps)
            stepper.memory = memory
            stepper.flush(Plan(step, (0,), plan.epoch, 1, 0))
        return self._model.replica.snapshot()


def parameters(spec: JobSpec) -> int:
    """Return how many parameters a job's model has."""
    return sum(shape.rows * shape.columns for shape in model_of(spec.model).shapes)


def _nothing(plan: Plan) -> Report:
    return Report(0, 0, plan.step, 0, 0.0, False, True, 0, 0, 0, 0, 0, Times())


SYSTEMS = {
    "siren": System(
        about="asynchronous functions over one model in the object store, scheduled epoch by epoch",
        wishes={"sync": "bsp"},
        served=False,
        talks=False,
        entry="mlless.baselines.siren:main",
        lead=lead,
    )
}
