"""LambdaML: functions that average gradients or models, agree by ADMM, or wait for nobody.

After Jiang et al., *Towards Demystifying Serverless Machine Learning Training* (SIGMOD 2021). Its workers
merge what all have computed by AllReduce, where one leader adds for all, or by ScatterReduce, where each
adds a share of the rows. These are MLLess' own patterns of movement, with its merge rule ``mean`` and
without a filter: so the systems that wait for one another are MLLess' driver, supervisor and worker. What is
theirs is what a worker does between two exchanges:

- ``lambdaml-allreduce`` and ``lambdaml-scatter``: a mini-batch. Its change is averaged.
- ``lambdaml-averaging``: an epoch of local steps from the common model. The models are averaged.
- ``lambdaml-admm``: ten epochs of the local problem of consensus ADMM, of logistic regression alone.

In ``lambdaml-async`` one model lies in the object store. Each worker reads it, takes a mini-batch, and
writes it back, without a look at the others: it overwrites what they have written meanwhile. So it goes
through all rows that it owns, epoch by epoch.

Where it differs: a supervisor tells that all have published, while LambdaML's workers list the channel. Only
changed entries move, not whole vectors, and optimizers are MLLess'. Of the channels that LambdaML has for
all, systems that wait have the key-value store, and the last one the object store. A worker that is lost is
replaced, as in MLLess; its dual in ADMM begins at zero again, from which ADMM comes to the same model.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import safetensors.numpy

import mlless
from mlless import launch
from mlless.baselines.asynchronous import Leader
from mlless.baselines.contract import Function, System, Tables, run_function
from mlless.baselines.itself import Itself
from mlless.billing.meter import Usage
from mlless.clock import Clock
from mlless.data.dataset import Dataset
from mlless.data.holding import Holding
from mlless.errors import DeadlineExceeded, JobError, NotFinite, UsageError
from mlless.job import JobSpec, Logistic, PatternName
from mlless.kernels.arrays import Floats
from mlless.local import begin
from mlless.messages import PROTOCOL, Begin, Hello, Plan, Report
from mlless.models import model_of
from mlless.models.base import BatchArrays, Moment
from mlless.models.logistic import LogisticModel
from mlless.models.optimizers import step_sizes
from mlless.replica import Replica
from mlless.stepping import Laps, Rows, Stepper, Taken
from mlless.stopping import Choice
from mlless.wishes import Wishes

if TYPE_CHECKING:
    from mlless.baselines.leading import Stage

RHO, PASSES = 24.0, 10  # of ADMM: penalty times rows, and local epochs a round
_AVERAGED = {"sync": "bsp", "merge": "mean", "slack": 0, "local_steps": 1}
_OWN = ("slack", "local_steps")
_MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class _Averaging(Itself):
    """Has all parameters in common: users are nobody's own, as with LambdaML."""

    def plan(self, wishes: Wishes, dataset: Dataset) -> JobSpec:
        """Return a job in which everything that moves is published."""
        return msgspec.structs.replace(super().plan(wishes, dataset), share_users=True)


@dataclass(frozen=True, kw_only=True)
class _Locally(_Averaging):
    """Exchanges once an epoch: by AllReduce, or by ScatterReduce if that is wished."""

    def plan(self, wishes: Wishes, dataset: Dataset) -> JobSpec:
        """Return a job in which a step is an epoch of local steps, however many parts that has."""
        spec = super().plan(wishes, dataset)
        if spec.workers == 1:
            raise UsageError("one worker has no models to average", cure="use --workers 2, or more")
        pattern: PatternName = "scatter" if wishes.pattern == "scatter" else "allreduce"
        return msgspec.structs.replace(spec, pattern=pattern, local_steps=spec.rows, local_since=0)


class Averaging(Stepper):
    """One worker's part in the averaging of models, which all publish whole after their local steps."""

    def _train(self, plan: Plan, worker: int) -> Taken:
        return self._train_locally(plan) if worker in plan.trainers else Taken()

    def _train_locally(self, plan: Plan) -> Taken:
        return self._published(self._walk_alone(plan, plan.epoch))

    def _walk_alone(
        self,
        plan: Plan,
        epoch: int,
        then: Callable[[Moment, BatchArrays], object] = lambda moment, batch: None,
    ) -> Taken:
        """Take the mini-batches of a step as one that is alone and begins anew; nothing is pending then."""
        for table in self._replica.tables:
            table.last[:] = -1  # nothing was pending before
        taken = self._walk(plan, epoch, Moment(0, plan.epoch, 1), then)
        if taken.finite:
            end = Moment(plan.length - 1, plan.epoch, 1)
            self._model.settle(self._replica, self._spec.optimizer, end, self._samples)
            self._laps.lap("compute")
        return taken

    def _published(self, taken: Taken) -> Taken:
        """Return what was taken with all that has changed, to be published."""
        try:
            return replace(taken, update=self._filter.flush()) if taken.finite else taken
        except NotFinite:
            return replace(taken, finite=False)

    def flush(self, plan: Plan) -> Taken:
        """Publish the whole residual."""
        return self._published(Taken())


class Consensus(Averaging):
    """One worker's part in consensus ADMM (Boyd et al., 2011, sections 7.1 and 8.2), in scaled form.

    A worker's x is to minimise its mean loss plus rho / 2 times the squared distance to z - u. It takes
    mini-batches with the job's optimizer. After each comes the proximal step of that distance, in O(model).
    The common z minimises L2 plus rho / 2 times the squared distances to all x + u: it is their mean, shrunk.
    So all publish their shrunk x + u less z, and what the rule ``mean`` makes of these is the next z. The
    intercept is not shrunk. Workers own about as many rows, and their mean losses count alike.
    """

    def __init__(self, spec: JobSpec, holding: Rows, replica: Replica, clock: Clock, laps: Laps) -> None:
        super().__init__(spec, holding, replica, clock, laps)
        assert isinstance(spec.model, Logistic)
        self._model: LogisticModel = LogisticModel(msgspec.structs.replace(spec.model, l2=0.0))
        self._rho = RHO / spec.rows
        self._shrink = self._rho / (self._rho + spec.model.l2), 1.0
        self._sums: list[Floats] = []  # x + u of the round before

    def _train_locally(self, plan: Plan) -> Taken:
        tables = self._replica.tables
        common = [table.shared.copy() for table in tables]
        duals = [s - z for s, z in zip(self._sums or common, common, strict=True)]
        centres = [z - u for z, u in zip(common, duals, strict=True)]
        for table in tables:
            table.state[:] = 0  # a new problem

        def pull(moment: Moment, batch: BatchArrays) -> None:
            """Take the proximal step towards the centre."""
            rule, _ = self._model.rules(self._spec.optimizer, moment, batch.samples)
            for table, centre in zip(tables, centres, strict=True):
                apart = table.shared + table.residual - centre
                table.residual[:] = centre + apart / (1 + self._rho * step_sizes(table, rule)) - table.shared

        total = Taken()
        for number in range(PASSES):
            taken = self._walk_alone(plan, plan.epoch * PASSES + number, pull)
            total = Taken(total.samples + taken.samples, total.loss + taken.loss, taken.finite)
            if not taken.finite:
                return total
        self._sums = [table.shared + table.residual + u for table, u in zip(tables, duals, strict=True)]
        for table, own, shrink in zip(tables, self._sums, self._shrink, strict=True):
            table.residual[:] = own * shrink - table.shared
        return self._published(total)


def averaging(payload: bytes, left: float | None = None) -> None:
    """Run the worker that ``payload`` describes, as one whose models are averaged."""
    launch.main(payload, left, Averaging)


def admm(payload: bytes, left: float | None = None) -> None:
    """Run the worker that ``payload`` describes, as one of ADMM."""
    launch.main(payload, left, Consensus)


class Task(msgspec.Struct, frozen=True):
    """What a function is to do that waits for nobody: nothing but its job."""


def main(payload: bytes) -> None:
    """Run the function that ``payload`` describes, which waits for nobody."""
    run_function(payload, work)


def work(function: Function) -> None:
    """Read the model, move it along a mini-batch, write it back: for all epochs, or until it is over."""
    job, me, link = function.launch.job, function.launch.me, function.link
    link.send(Hello(*me, os.getpid(), PROTOCOL, mlless.__version__))
    begin = link.receive(job.deadlines.commit)
    if not isinstance(begin, Begin):
        raise JobError("a message that does not fit", expected="Begin", found=type(begin).__name__)
    (plan,) = begin.plans
    free = _Free(function, plan)
    for number in range(begin.origin.step, plan.parts * job.stop.epochs):
        link.send(free.turn(number))
        with suppress(DeadlineExceeded):
            link.receive(0.0)
            return  # there is no other message than that it is over


class _Free:
    """A function's replica, which is the model in the store as it was last read."""

    def __init__(self, function: Function, plan: Plan) -> None:
        job, clock = function.launch.job, function.clock
        self._me, self._plan, self._objects, self._clock = function.launch.me, plan, function.objects, clock
        self._replica, self._laps = Replica(model_of(job.model).shapes), Laps(clock)
        alone = msgspec.structs.replace(job, workers=1)  # each change goes straight into the model
        holding = Holding(function.dataset, job.seed)
        self._stepper = Stepper(alone, holding, self._replica, clock, self._laps)

    def turn(self, number: int) -> Report:
        """Take the mini-batch of a number, all epochs counted; return the report."""
        (epoch, part), size = divmod(number, self._plan.parts), self._load()
        plan = msgspec.structs.replace(self._plan, step=number, epoch=epoch, part=part, evaluate=False)
        report, _ = self._stepper.take_part(plan, self._me)
        self._stepper.flush(msgspec.structs.replace(plan, step=number + 1))  # L2 pulls at once, at all rows
        data = safetensors.numpy.save(self._replica.snapshot())
        self._objects.put(_MODEL, data)
        self._clock.work("encode", len(data))
        self._laps.lap("publish")
        return msgspec.structs.replace(
            report,
            published=True,
            reads=report.reads + 1,
            bytes_in=size,
            bytes_out=len(data),
            times=self._laps.take(),
        )

    def _load(self) -> int:
        data = self._objects.get(_MODEL)
        self._replica.restore(safetensors.numpy.load(data))
        self._clock.work("merge", len(data))
        self._laps.lap("merge")
        return len(data)


def lead(stage: Stage) -> tuple[Tables, Choice]:
    """Lead functions that wait for nobody; return the better of the best and the last model."""
    spec, objects = stage.spec, stage.objects
    objects.put(_MODEL, safetensors.numpy.save(begin(spec.model, spec.seed).replica.snapshot()))

    def model(step: int | None) -> Tables:
        """Return the model that is stored."""
        stage.use(Usage(reads=1))
        return safetensors.numpy.load(objects.get(_MODEL))

    first = stage.schedule.first(spec.workers)
    return Leader(stage, first, Task(), model, each=Usage(writes=1)).run()


SYSTEMS: dict[str, System] = {
    "lambdaml-allreduce": _Averaging(
        about="LambdaML: gradients averaged by AllReduce",
        wishes={**_AVERAGED, "pattern": "allreduce"},
        keeps=("pattern", *_OWN),
    ),
    "lambdaml-scatter": _Averaging(
        about="LambdaML: gradients averaged by ScatterReduce",
        wishes={**_AVERAGED, "pattern": "scatter"},
        keeps=("pattern", *_OWN),
    ),
    "lambdaml-averaging": _Locally(
        about="LambdaML: models averaged once an epoch",
        wishes=_AVERAGED,
        keeps=_OWN,
        entry="mlless.baselines.lambdaml:averaging",
        stepper=Averaging,
    ),
    "lambdaml-admm": _Locally(
        about="LambdaML: consensus ADMM, an exchange every ten epochs",
        kinds=("lr",),
        wishes=_AVERAGED,
        keeps=_OWN,
        entry="mlless.baselines.lambdaml:admm",
        stepper=Consensus,
    ),
    "lambdaml-async": System(
        about="LambdaML: one model in the object store, and nobody waits",
        kinds=("lr",),
        wishes={"sync": "bsp"},
        entry="mlless.baselines.lambdaml:main",
        lead=lead,
    ),
}
