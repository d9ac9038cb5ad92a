"""PyWren: functions without memory, over an object store alone.

After Jonas et al., *Occupy the Cloud: Distributed Computing for the 99 %* (SoCC 2017), as Lithops, once
PyWren-IBM, runs it, and as the MLLess paper (Middleware 2021) compares with it. A step is a map of fresh
calls over mini-batches and a reduce call over whole models. Models, mini-batches, results and errors are
objects; there is no server. A call that dies is made again, for it has changed nothing.

``pywren`` reduces to the mean of the models, as published. ``pywren-updates`` passes updates instead,
which one call merges by MLLess' rule: the same steps as MLLess with BSP, bit for bit. What is left
between these two is what a step takes.

Where it differs: mini-batches are cut out of the data set by a first map, for MLLess' own files hold groups
of rows. What an optimizer remembers, a call finds in an object that the call of the step before has
left. Who leads hears from the runtime that calls are over; PyWren lists the object store instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
import safetensors.numpy

from mlless.baselines.contract import Function, System, Tables, run_function
from mlless.baselines.pieces import Pieces, cut
from mlless.billing.meter import Usage
from mlless.checkpoint import Memory
from mlless.data.manifest import Clicks, Ratings
from mlless.errors import JobError, MissingObject
from mlless.exchange import codec
from mlless.exchange.update import entries
from mlless.local import begin
from mlless.membership import groups_of
from mlless.messages import FunctionId, Plan, Report, Times, decode_from_worker, encode
from mlless.models import model_of
from mlless.replica import Replica
from mlless.stepping import Laps, Stepper
from mlless.stopping import Choice

if TYPE_CHECKING:
    from mlless.baselines.leading import Stage

Kind = Literal["cut", "map", "reduce"]


class Task(msgspec.Struct, frozen=True):
    """What a call is to do in a step: with ``whole`` models or updates, ``of`` these calls if it reduces."""

    kind: Kind
    whole: bool
    plan: Plan
    shape: Ratings | Clicks
    of: tuple[FunctionId, ...] = ()


def main(payload: bytes) -> None:
    """Make the call that ``payload`` describes."""
    run_function(payload, work)


def work(function: Function) -> None:
    """Do the task of one call, and leave its report."""
    call = _Call(function, msgspec.json.decode(function.launch.task, type=Task))
    report = call.report(**getattr(call, call.task.kind)())
    function.objects.put(_name("report", report.step, function.launch.me), encode(report))


def _name(kind: str, step: int, function: FunctionId) -> str:
    return f"{kind}-{step}-{function[0]}.{function[1]}"


def _model(step: int) -> str:
    return f"model-{step}"


def _memory(step: int, worker: int) -> str:
    return f"memory-{step}-{worker}"


class _Call:
    """One call: a fresh replica, filled from objects and left as objects."""

    def __init__(self, function: Function, task: Task) -> None:
        self.task, self._function, self._objects = task, function, function.objects
        self._job, self._me, self._plan = function.launch.job, function.launch.me, task.plan
        self._laps, self._replica = Laps(function.clock), Replica(model_of(self._job.model).shapes)
        self._report = Report(*self._me, task.plan.step, 0, 0.0, False, True, 0, 0, 0, 0, 0, Times())
        self._reads = 0

    def report(self, **changes: object) -> Report:
        """Return the report of the call, with these ``changes``."""
        reads = self._report.reads + self._reads
        return msgspec.structs.replace(
            self._report, generation=self._me[1], reads=reads, times=self._laps.take(), **changes
        )

    def cut(self) -> dict[str, int]:
        """Store the mini-batches of a worker's groups, and its held-out rows."""
        groups = groups_of(self._plan.owners, self._me[0])
        reads, size = cut(self._objects, self._function.dataset, self._me[0], groups, self._plan.parts)
        self._reads = reads.files + 1  # and the manifest
        self._laps.lap("fetch")
        return {"bytes_fetched": reads.bytes, "bytes_kept": size}

    def map(self) -> dict[str, int]:
        """Take a worker's step from the model before it; leave the model after it, or what it publishes."""
        worker, plan, whole = self._me[0], self._plan, self.task.whole
        size = self._load_model()
        # Who is alone puts each change straight into the model.
        job = msgspec.structs.replace(self._job, workers=1) if whole else self._job
        pieces = Pieces(self._objects, job.seed, worker, self.task.shape)
        stepper = Stepper(job, pieces, self._replica, self._function.clock, self._laps)
        kept = self._recall(_memory(plan.step, worker), stepper) if plan.step else 0
        self._report, update = stepper.take_part(plan, (worker, 0))
        if plan.last:
            return {"bytes_in": size, "bytes_kept": kept}
        out: bytes | memoryview = b""
        if whole:
            out = safetensors.numpy.save(self._replica.snapshot())
        elif entries(update):
            out = codec.seal(codec.pack(update, job.sync.compression), job.sync.compression)
        self._function.clock.work("model" if whole else "encode", len(out))
        self._laps.lap("filter")
        if out:
            self._objects.put(_name("map", plan.step, self._me), out)
        self._laps.lap("publish")
        kept += self._remember(_memory(plan.step + 1, worker), stepper)
        return {"published": bool(out), "bytes_out": len(out), "bytes_in": size, "bytes_kept": kept}

    def reduce(self) -> dict[str, int]:
        """Make one model of what the calls of a map have left."""
        step, names = self._plan.step, [_name("map", self._plan.step, who) for who in self.task.of]
        size = 0 if self.task.whole else self._load_model()
        values = {name: self._get(name) for name in names}
        size += sum(map(len, values.values()))
        if self.task.whole:
            model = mean([safetensors.numpy.load(value) for value in values.values()])
        else:
            shapes = self._replica.shapes
            updates = {name: codec.opened(value, shapes, name) for name, value in values.items()}
            self._replica.merge(updates, self._job.sync.merge, len(self._plan.members))
            model = self._replica.snapshot()
        self._function.clock.work("mean" if self.task.whole else "merge", size)
        self._laps.lap("merge")
        data = safetensors.numpy.save(model)
        self._objects.put(_model(step + 1), data)
        self._laps.lap("publish")
        return {"bytes_in": size, "bytes_out": len(data)}

    def _load_model(self) -> int:
        data = self._get(_model(self._plan.step))
        self._replica.restore(safetensors.numpy.load(data))
        self._function.clock.work("model", len(data))
        self._laps.lap("merge")
        return len(data)

    def _remember(self, name: str, stepper: Stepper) -> int:
        """Store what the optimizer will need in the next step; return its bytes."""
        arrays = {"samples": np.array([stepper.memory.samples])}
        for table in self._replica.tables:
            arrays[f"{table.shape.name}/state"] = table.state.copy()
            arrays[f"{table.shape.name}/last"] = table.last.copy()
        data = safetensors.numpy.save(arrays)
        self._function.clock.work("model", len(data))
        self._objects.put(name, data)
        self._laps.lap("keep")
        return len(data)

    def _recall(self, name: str, stepper: Stepper) -> int:
        data = self._get(name)
        arrays = safetensors.numpy.load(data)
        for table in self._replica.tables:
            table.state[:] = arrays[f"{table.shape.name}/state"]
            table.last[:] = arrays[f"{table.shape.name}/last"]
        stepper.memory = Memory(samples=int(arrays["samples"][0]))
        self._function.clock.work("model", len(data))
        self._laps.lap("keep")
        return len(data)

    def _get(self, name: str) -> bytes:
        self._reads += 1
        return self._objects.get(name)


def mean(models: Sequence[Tables]) -> Tables:
    """Return the mean of models, entry by entry; summed in double precision, rounded once."""
    total = {name: np.zeros(table.shape) for name, table in models[0].items()}
    for model in models:
        for name, table in model.items():
            total[name] += table
    return {name: (table / len(models)).astype(np.float32) for name, table in total.items()}


class _Leader:
    def __init__(self, stage: Stage, whole: bool) -> None:
        self._stage, self._whole, self._reports = stage, whole, list[Report]()
        shape = stage.dataset.manifest.shape  # how columns were made is no matter of a call's
        self._shape = msgspec.structs.replace(shape, columns=None) if isinstance(shape, Clicks) else shape

    def run(self) -> tuple[Tables, Choice]:
        """Lead all steps; return the model that is chosen."""
        spec, first = self._stage.spec, self._stage.schedule.first(self._stage.spec.workers)
        start = begin(spec.model, spec.seed).replica.snapshot()
        self._stage.objects.put(_model(0), safetensors.numpy.save(start))
        self._call("cut", first.members, first, writes=first.parts + 2)
        return self._stage.steps(self._take, self._read)

    def _take(self, plan: Plan) -> Sequence[Report]:
        """Have all take a step; return the reports of its calls."""
        began = self._stage.clock.now()
        of = [(one.worker, one.generation) for one in self._call("map", plan.members, plan) if one.published]
        if not plan.last:
            self._call("reduce", [len(plan.members)], plan, of)
        old = [_name("map", plan.step, who) for who in of]
        old += [_model(plan.step - 1), *(_memory(plan.step, worker) for worker in plan.members)]
        self._stage.objects.delete(old)
        taken = self._stage.clock.now() - began
        reports, self._reports = self._reports, []
        return [_waiting(one, taken) for one in reports]

    def _call(
        self, kind: Kind, workers: Collection[int], plan: Plan, of: Sequence[FunctionId] = (), writes: int = 3
    ) -> list[Report]:
        """Make calls, one a worker, each of which stores so many objects; return their reports."""
        stage, task = self._stage, Task(kind, self._whole, plan, self._shape, tuple(of))
        calls = stage.call(dict.fromkeys(workers, task), kind)
        names = [_name("report", plan.step, calls[worker]) for worker in workers]
        stage.use(Usage(reads=len(names), writes=writes * len(names)))
        try:
            reports = [decode_from_worker(stage.objects.get(name)) for name in names]
        except MissingObject as error:
            cure = "do functions run elsewhere? Then let --out be in an object store that they reach"
            raise JobError("a call has left no report", where=error.where, cure=cure) from error
        stage.objects.delete(names)
        self._reports += (told := [one for one in reports if isinstance(one, Report)])
        return told

    def _read(self, step: int) -> Tables:
        return safetensors.numpy.load(self._stage.objects.get(_model(step)))


def _waiting(report: Report, taken: float) -> Report:
    """Return a report with the time of a step that its call was not at work."""
    busy = sum(getattr(report.times, name) for name in Times.__struct_fields__)
    times = msgspec.structs.replace(report.times, wait=max(0.0, taken - busy))
    return msgspec.structs.replace(report, times=times)


def _leads(whole: bool) -> Callable[[Stage], tuple[Tables, Choice]]:
    return lambda stage: _Leader(stage, whole).run()


_pywren = partial(System, served=False, talks=False, entry="mlless.baselines.pywren:main")
SYSTEMS = {
    "pywren": _pywren(
        about="map over mini-batches, reduce to the mean of models; object store only",
        wishes={"sync": "bsp", "merge": "mean"},
        lead=_leads(whole=True),
    ),
    "pywren-updates": _pywren(
        about="PyWren with updates in place of models, merged as by MLLess with BSP",
        wishes={"sync": "bsp"},
        lead=_leads(whole=False),
    ),
}
