"""A function of the PyTorch systems, one rank of a process group over gloo; only it imports PyTorch.

A mini-batch holds the rows that MLLess' worker would train on, and the loss is that of our models. Its
gradient is PyTorch's. The tables that come out of it are scored by our kernels. All run on one thread.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from datetime import timedelta

import msgspec
import safetensors.numpy
import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

import mlless
from mlless.baselines.contract import Function, Tables, run_function
from mlless.baselines.pytorch import Task, model_name
from mlless.baselines.pytorch.exchange import AllGather, AllReduce, Moved, in_a_ring
from mlless.baselines.pytorch.losses import Batch, batch_of, losses_of
from mlless.data.holding import ROOM, Holding
from mlless.job import Adagrad, JobSpec, Nesterov
from mlless.kernels.arrays import Rule
from mlless.kernels.twin import ADAGRAD
from mlless.local import begin
from mlless.membership import order_of
from mlless.messages import PROTOCOL, Commit, Donate, Donated, Hello, Origin, Plan, Report
from mlless.models import model_of
from mlless.models.base import Moment
from mlless.stepping import Laps, Stepper, moment_before


def main(payload: bytes) -> None:
    """Take part in the training that ``payload`` tells of."""
    run_function(payload, work)


def work(function: Function) -> None:
    """Take step after step as they are told, until who leads says that it is over."""
    job, me, link = function.launch.job, function.launch.me, function.link
    task = msgspec.json.decode(function.launch.task, type=Task)
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{task.meeting}",
        rank=me[0],
        world_size=job.workers,
        timeout=timedelta(seconds=job.deadlines.step),
    )
    course = _Course(function, task)
    link.send(Hello(*me, os.getpid(), PROTOCOL, mlless.__version__))
    while True:
        match link.receive(job.deadlines.commit):
            case Commit(plans=(plan,)):
                link.send(course.step(plan))
            case Donate(step=step):
                function.objects.put(model_name(step), safetensors.numpy.save(course.before[step]))
                link.send(Donated(*me, Origin(model_name(step), step, "")))
            case _:
                distributed.destroy_process_group()
                return


class _Course:
    """A replica in PyTorch on its way, and the models ``before`` the last two steps that were scored."""

    def __init__(self, function: Function, task: Task) -> None:
        self._me, self._job, dataset = function.launch.me, function.launch.job, function.dataset
        job = self._job
        self._laps, self._replica = Laps(function.clock), begin(job.model, job.seed).replica
        self._holding = Holding(dataset, job.seed)
        self._scorer = Stepper(job, self._holding, self._replica, function.clock, self._laps)
        self._names = [shape.name for shape in self._replica.shapes]
        tables = [torch.from_numpy(table.shared.copy()) for table in self._replica.tables]
        self._trainer: _Averaging | _Matched
        if task.exchange == "average":
            self._trainer = _Averaging(job, tables, self._laps)
        else:
            kind = AllReduce if task.exchange == "all-reduce" else AllGather
            self._trainer = _Matched(job, tables, self._laps, kind)
        self._batches: dict[tuple[int, int], Batch] = {}
        self._free = ROOM  # bytes for mini-batches
        self.before: dict[int, Tables] = {}

    def step(self, plan: Plan) -> Report:
        """Score the model if that is due, and take a step; return the report."""
        if plan.evaluate:
            tables = (table.detach().numpy().copy() for table in self._trainer.tables)
            self.before = {
                **dict([*self.before.items()][-1:]),
                plan.step: dict(zip(self._names, tables, strict=True)),
            }
            self._replica.restore(self.before[plan.step])
        report, _ = self._scorer.take_part(msgspec.structs.replace(plan, flush=(), last=True), self._me)
        if plan.trainers:
            batch = self._batch(plan)
            self._laps.lap("fetch")
            loss, moved = self._trainer.step(batch, Moment(plan.step, plan.epoch, len(plan.trainers)))
            finite = math.isfinite(loss)
            report = msgspec.structs.replace(report, samples=batch.samples, loss=loss, finite=finite)
        else:
            moved = self._trainer.settle(moment_before(plan)) if plan.flush else Moved()
        return msgspec.structs.replace(
            report,
            published=moved.entries > 0,
            entries=moved.entries,
            bytes_out=moved.bytes,
            bytes_in=moved.bytes,
            times=self._laps.take(),
        )

    def _batch(self, plan: Plan) -> Batch:
        """Return the mini-batch of a step in tensors, which are kept as long as there is room."""
        key = plan.parts, order_of(self._job.seed, plan.epoch, plan.parts)[plan.part]
        if key not in self._batches:
            arrays = self._holding.batch(plan.epoch, plan.parts, plan.part)
            batch = batch_of(self._job.model, arrays, key, whole=isinstance(self._trainer, _Averaging))
            self._free -= batch.nbytes
            if self._free < 0:
                return batch
            self._batches[key] = batch
        return self._batches[key]


class _Model(torch.nn.Module):
    """Tables as PyTorch's parameters; what comes out are the losses of a mini-batch."""

    def __init__(self, job: JobSpec, tables: Sequence[Tensor]) -> None:
        super().__init__()
        self._spec, self._mean = job.model, isinstance(job.optimizer, Nesterov)
        self.tables = torch.nn.ParameterList(tables)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return losses_of(self._spec, list(self.tables), batch, mean=self._mean)


class _Averaging:
    """DistributedDataParallel, and an optimizer of PyTorch over dense gradients."""

    def __init__(self, job: JobSpec, tables: Sequence[Tensor], laps: Laps) -> None:
        self._job, self._model, self._laps = job, model_of(job.model), laps
        module = _Model(job, tables)
        self.tables = [*module.tables]
        self._module = DistributedDataParallel(module, gradient_as_bucket_view=True)
        groups = [{"params": [table]} for table in self.tables]
        how = job.optimizer
        self._optimizer: torch.optim.Optimizer
        if isinstance(how, Adagrad):
            self._optimizer = torch.optim.Adagrad(groups)
        else:
            self._optimizer = torch.optim.SGD(groups, momentum=how.momentum, nesterov=how.momentum > 0)
        entries = sum(table.numel() for table in tables)
        self._moved = Moved(entries, in_a_ring(4 * entries, job.workers))

    def step(self, batch: Batch, moment: Moment) -> tuple[float, Moved]:
        """Take a step; return the loss of this worker's mini-batch before it, and what was moved."""
        rules = self._model.rules(self._job.optimizer, moment, self._job.batch_size)  # the same on all
        for group, rule in zip(self._optimizer.param_groups, rules, strict=True):
            group.update(lr=rule.rate, eps=rule.epsilon, weight_decay=rule.decay)
        self._optimizer.zero_grad()
        loss, objective = self._module(batch)
        objective.backward()
        self._optimizer.step()
        self._laps.lap("compute")
        return loss.item(), self._moved

    def settle(self, moment: Moment) -> Moved:
        """Do nothing: PyTorch's L2 pulls at all rows in every step."""
        return Moved()


class _Matched:
    """The steps of MLLess with BSP: what each worker's own optimizer moves is added by the merge rule."""

    def __init__(
        self, job: JobSpec, tables: list[Tensor], laps: Laps, kind: type[AllReduce | AllGather]
    ) -> None:
        self._job, self._model, self._laps, self.tables = job, model_of(job.model), laps, tables
        self._states = [torch.zeros_like(table) for table in tables]
        self._last = [torch.full((len(table),), -1) for table in tables]
        self._samples = 1  # of the newest mini-batch
        self._exchange = kind(job, tables, [shape.apart for shape in self._model.shapes], laps)

    def step(self, batch: Batch, moment: Moment) -> tuple[float, Moved]:
        """Take a step; return the loss of this worker's mini-batch before it, and what was moved."""
        self._samples = batch.samples or self._samples
        rules = self._model.rules(self._job.optimizer, moment, self._samples)
        rows = [table[ids].requires_grad_() for table, ids in zip(self.tables, batch.rows, strict=True)]
        mean = isinstance(self._job.optimizer, Nesterov)
        loss, objective = losses_of(self._job.model, rows, batch, mean=mean)
        gradients = torch.autograd.grad(objective, rows)
        changes = [
            self._change(number, batch.rows[number], rule, gradients[number])
            for number, rule in enumerate(rules)
        ]
        self._laps.lap("compute")
        return loss.item(), self._exchange(batch.key, batch.rows, changes)

    def settle(self, moment: Moment) -> Moved:
        """Bring the L2 of all rows up to date, as who flushes does."""
        rules = self._model.rules(self._job.optimizer, moment, self._samples)
        if not any(rule.decay for rule in rules):
            return Moved()
        rows = [
            torch.arange(len(table) if rule.decay else 0)
            for table, rule in zip(self.tables, rules, strict=True)
        ]
        changes = [self._change(number, rows[number], rule, None) for number, rule in enumerate(rules)]
        return self._exchange((0, 0), rows, changes)

    def _change(self, number: int, ids: Tensor, rule: Rule, gradient: Tensor | None) -> Tensor:
        """Return what a rule changes of rows of a table; without a gradient, what L2 has still to pull."""
        state = self._states[number][ids]
        change = torch.zeros_like(state)
        if rule.kind == ADAGRAD:
            if gradient is not None:
                state.addcmul_(gradient, gradient)
            root = state.sqrt() + rule.epsilon
            eta = torch.where(root > 0, rule.rate / root, 0.0)
            if gradient is not None:
                change = -eta * gradient
        else:
            eta = torch.full_like(state, rule.rate)
            if gradient is not None:
                velocity = rule.momentum * state - rule.rate * gradient
                change = (1 + rule.momentum) * velocity - rule.momentum * state
                state = velocity
        self._states[number][ids] = state
        if not rule.decay:
            return change
        x, steps = self.tables[number][ids], rule.step - self._last[number][ids]
        self._last[number][ids] = rule.step
        return (x + change) / (1 + eta * rule.decay * steps[:, None]) - x
