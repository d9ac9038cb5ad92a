"""Cirrus: a parameter server on a machine of its own, and functions that never wait for one another.

After Carreira et al., *Cirrus: a Serverless Framework for End-to-end ML Workflows* (SoCC 2019). A worker
pulls the rows that its mini-batch needs, takes the gradient, and pushes what of it, summed over the
mini-batch, is at least 1e-5. The server moves the model at once, with the job's optimizer: each push is a
step of its own. So one worker takes the very steps of a single process, but for what is too small to be
pushed. Who leads the job scores the model after each epoch, while the others go on.

Where it differs: an epoch uses each row once, by the worker that owns it, as in MLLess; Cirrus' workers take
mini-batches from the object store as they come. There is one server, not several.

A worker that is lost is started anew, and goes on with the first mini-batch of which nobody has heard; if
that has been pushed, the server does not take it twice. A job whose server is lost ends: nobody else has the
model.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

import mlless
from mlless.baselines import parameters as ps
from mlless.baselines.asynchronous import Leader
from mlless.baselines.contract import Function, Lead, System, Tables, Work, run_function
from mlless.baselines.gradients import Gradients
from mlless.baselines.parameter_process import Place, connect, open_server
from mlless.data.dataset import Dataset
from mlless.data.holding import Holding
from mlless.deployment import Deployment
from mlless.errors import ChannelError, JobError, UsageError
from mlless.job import JobSpec
from mlless.membership import groups_of
from mlless.messages import PROTOCOL, Begin, Hello, Plan, Report
from mlless.models import model_of
from mlless.stepping import Laps
from mlless.stopping import Choice
from mlless.wishes import Wishes

if TYPE_CHECKING:
    from mlless.baselines.leading import Stage
    from mlless.simulation.roles import Roles

LEAST = 1e-5  # of an entry of a gradient, to be pushed


class Task(msgspec.Struct, frozen=True):
    """Where a worker finds the server, and what an entry of a gradient has to be at least."""

    place: Place
    least: float


def main(payload: bytes) -> None:
    """Be the worker that ``payload`` describes."""
    run_function(payload, work)


def work(function: Function, connect: Callable[[Place, JobSpec], ps.Asks] = connect) -> None:
    """Pull, take the gradient, and push, mini-batch after mini-batch, until there are no more."""
    spec, (worker, generation) = function.launch.job, function.launch.me
    task = msgspec.json.decode(function.launch.task, type=Task)
    function.link.send(Hello(worker, generation, 0, PROTOCOL, mlless.__version__))
    begin = function.link.receive(spec.deadlines.commit)
    if not isinstance(begin, Begin):
        raise JobError("a message that does not fit", expected="Begin", found=type(begin).__name__)
    (plan,) = begin.plans
    with closing(connect(task.place, spec)) as way:
        descent = _Descent(function, way, plan, task.least)
        for number in range(begin.origin.step, plan.parts * spec.stop.epochs):
            report = descent.step(number)
            if report is None:
                return
            function.link.send(report)


class _Descent:
    """A worker's way: it holds its rows, and of the model what one mini-batch needs."""

    def __init__(self, function: Function, way: ps.Asks, plan: Plan, least: float) -> None:
        self._me, self._spec, self._way = function.launch.me, function.launch.job, way
        self._parts, self._least, self._clock = plan.parts, least, function.clock
        self._laps, self._gradients = Laps(function.clock), Gradients(self._spec)
        self._shapes = model_of(self._spec.model).shapes
        self._holding = Holding(function.dataset, self._spec.seed)
        self._holding.own(groups_of(plan.owners, self._me[0]))

    def step(self, number: int) -> Report | None:
        """Take a step on the mini-batch of a number, all epochs counted; None if the job is over."""
        epoch, part = divmod(number, self._parts)
        batch = self._holding.batch(epoch, self._parts, part)
        training, _ = self._holding.take_reads()
        self._clock.work("fetch", training.bytes)
        self._clock.work("assemble", self._holding.assembled)
        self._laps.lap("fetch")
        push, loss, entries, pulled = ps.Push(self._me[0], number, 0, ()), 0.0, 0, 0
        if batch is not None:
            values, sent, size = ps.ask(self._way, ps.Pull(tuple(rows.tobytes() for rows in batch.named)))
            self._laps.lap("merge")
            if not isinstance(values, ps.Values):
                return None
            directions, loss = self._gradients.at(ps.arrays(values, self._shapes), batch)
            self._laps.lap("compute")
            least = self._least / (batch.samples if self._gradients.mean else 1)
            named = zip(batch.named, directions, strict=True)
            parts, counts = zip(*(ps.part_of(*one, least) for one in named), strict=True)
            push = ps.Push(self._me[0], number, batch.samples, parts)
            entries, pulled = sum(counts), sent + size
            self._clock.work("gradient", batch.samples)
            self._laps.lap("filter")
        moved, sent, size = ps.ask(self._way, push)
        self._laps.lap("publish")
        if not isinstance(moved, ps.Moved):
            return None
        self._clock.work("step", 1)
        return Report(
            *self._me, number, push.samples, loss, entries > 0, moved.finite, entries, sent + size, pulled,
            training.files, training.bytes, self._laps.take(),
        )  # fmt: skip


class Served(Protocol):
    """A parameter server, as the one sees it that leads the job."""

    @property
    def place(self) -> Place:
        """Where workers find it."""
        ...

    @property
    def way(self) -> ps.Asks:
        """The way to it of who leads the job."""
        ...

    def fate(self) -> str:
        """Return what has become of it, in words, once it does not answer."""
        ...


OpenServer = Callable[[JobSpec, int, str], AbstractContextManager[Served]]


def lead(stage: Stage, least: float = LEAST, open_server: OpenServer = open_server) -> tuple[Tables, Choice]:
    """Lead a job; return the better of its best and its last model."""
    spec, plan = stage.spec, stage.schedule.first(stage.spec.workers)
    shapes = model_of(spec.model).shapes
    with open_server(spec, plan.parts * spec.workers, stage.session.addresses.job) as server:

        def ask(request: ps.Request) -> Any:
            """Return the server's answer; JobError if it is lost."""
            try:
                return ps.ask(server.way, request)[0]
            except ChannelError as error:
                what = "the parameter server is lost, and the model with it"
                raise JobError(what, found=f"{server.fate()}: {error}") from error

        def model(step: int | None) -> Tables:  # each push has been the server's at once
            """Return the model before a step, or the last one."""
            answer = ask(ps.Finish() if step is None else ps.Read(step * spec.workers))
            assert isinstance(answer, ps.Values)
            arrays = ps.arrays(answer, shapes)
            return {shape.name: table for shape, table in zip(shapes, arrays, strict=True)}

        def check() -> None:
            """Raise JobError if the server is lost."""
            ask(ps.Pull(tuple(b"" for _ in shapes)))

        return Leader(stage, plan, Task(server.place, least), model, check=check).run()


class _Cirrus(System):
    def halves(self, roles: Roles) -> tuple[Lead, Work]:
        """Return both halves, with a server that is no process."""
        from mlless.baselines.parameter_played import Playing

        playing = Playing(roles)
        lead: Any = self.lead
        return (
            partial(lead, open_server=playing.open_server),
            lambda function: work(function, lambda place, spec: playing.connect(function.launch.me)),
        )

    def plan(self, wishes: Wishes, dataset: Dataset) -> JobSpec:
        """Return a job with the server's price on its bill: that of the tariff's first."""
        spec = super().plan(wishes, dataset)
        if spec.tariff is None:
            return spec
        if not spec.tariff.servers:
            raise UsageError(
                "no price for a parameter server", where=spec.tariff.name, cure="give the tariff [[servers]]"
            )
        first = spec.tariff.servers[0]
        server = msgspec.structs.replace(first, name=f"parameter server, as {first.name}")
        return msgspec.structs.replace(spec, tariff=msgspec.structs.replace(spec.tariff, servers=(server,)))

    def run(self, *arguments: Any, deployment: Deployment, **more: Any) -> Any:
        """Run where the server is reached: on this machine."""
        if deployment.runtime != "processes":
            raise UsageError(
                "the parameter server of cirrus listens on this machine alone",
                expected="--runtime processes",
                found=f"--runtime {deployment.runtime}",
            )
        return super().run(*arguments, deployment=deployment, **more)


SYSTEMS = {
    "cirrus": _Cirrus(
        about="a parameter server on a VM; workers pull rows and push sparse gradients, asynchronously",
        wishes={"sync": "bsp"},
        entry="mlless.baselines.cirrus:main",
        lead=lead,
    )
}
