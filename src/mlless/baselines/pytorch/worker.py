"""A function of the PyTorch systems, one rank of a process group over gloo; only it imports PyTorch.

A mini-batch holds the rows that MLLess' worker would train on, and the loss is that of our models. Its
gradient is PyTorch's. The tables that come out of it are scored by our kernels. All run on one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import msgspec
import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from mlless.baselines.contract import Function, Tables, run_function
from mlless.baselines.pytorch import Task
from mlless.baselines.pytorch.course import Course, Moved, Taken, Trainer, in_a_ring
from mlless.baselines.pytorch.exchange import AllGather, AllReduce
from mlless.baselines.pytorch.losses import Batch, batch_of, losses_of
from mlless.data.holding import ROOM, Holding
from mlless.job import Adagrad, JobSpec, Nesterov
from mlless.kernels.arrays import Rule
from mlless.kernels.twin import ADAGRAD
from mlless.local import begin
from mlless.membership import order_of
from mlless.messages import Plan
from mlless.models import model_of
from mlless.models.base import Moment
from mlless.stepping import Laps, moment_before


def main(payload: bytes) -> None:
    """Take part in the training that ``payload`` tells of."""
    run_function(payload, work)


def work(function: Function) -> None:
    """Meet the others, and follow who leads."""
    job, me = function.launch.job, function.launch.me
    task = msgspec.json.decode(function.launch.task, type=Task)
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{task.meeting}",
        rank=me[0],
        world_size=job.workers,
        timeout=timedelta(seconds=job.deadlines.step),
    )
    laps, holding = Laps(function.clock), Holding(function.dataset, job.seed)
    tables = [torch.from_numpy(table.shared.copy()) for table in begin(job.model, job.seed).replica.tables]
    batches = _Batches(job, holding, laps, whole=task.exchange == "average")
    trainer: Trainer
    if task.exchange == "average":
        trainer = _Averaging(job, tables, batches, laps)
    else:
        kind = AllReduce if task.exchange == "all-reduce" else AllGather
        trainer = _Matched(job, tables, batches, laps, kind)
    Course(function, holding, laps, trainer).follow()
    distributed.destroy_process_group()


class _Batches:
    """The mini-batches of a function in tensors, which are kept as long as there is room."""

    def __init__(self, job: JobSpec, holding: Holding, laps: Laps, *, whole: bool) -> None:
        self._job, self._holding, self._laps, self._whole = job, holding, laps, whole
        self._made: dict[tuple[int, int], Batch] = {}
        self._free = ROOM  # bytes for mini-batches

    def of(self, plan: Plan) -> Batch:
        """Return that of a step."""
        key = plan.parts, order_of(self._job.seed, plan.epoch, plan.parts)[plan.part]
        batch = self._made.get(key)
        if batch is None:
            arrays = self._holding.batch(plan.epoch, plan.parts, plan.part)
            batch = batch_of(self._job.model, arrays, key, whole=self._whole)
            self._free -= batch.nbytes
            if self._free >= 0:
                self._made[key] = batch
        self._laps.lap("fetch")
        return batch


def _named(job: JobSpec, tables: Sequence[Tensor]) -> Tables:
    """Return a copy of tables by their names."""
    names = [shape.name for shape in model_of(job.model).shapes]
    return {name: table.detach().numpy().copy() for name, table in zip(names, tables, strict=True)}


class _Model(torch.nn.Module):
    """Tables as PyTorch's parameters; what comes out are the losses of a mini-batch."""

    def __init__(self, job: JobSpec, tables: Sequence[Tensor]) -> None:
        super().__init__()
        self._spec, self._mean = job.model, isinstance(job.optimizer, Nesterov)
        self.tables = torch.nn.ParameterList(tables)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the losses of a mini-batch."""
        return losses_of(self._spec, list(self.tables), batch, mean=self._mean)


class _Averaging:
    """DistributedDataParallel, and an optimizer of PyTorch over dense gradients."""

    def __init__(self, job: JobSpec, tables: Sequence[Tensor], batches: _Batches, laps: Laps) -> None:
        self._job, self._model, self._batches, self._laps = job, model_of(job.model), batches, laps
        module = _Model(job, tables)
        self._tables = [*module.tables]
        self._module = DistributedDataParallel(module, gradient_as_bucket_view=True)
        groups = [{"params": [table]} for table in self._tables]
        how = job.optimizer
        self._optimizer: torch.optim.Optimizer
        if isinstance(how, Adagrad):
            self._optimizer = torch.optim.Adagrad(groups)
        else:
            self._optimizer = torch.optim.SGD(groups, momentum=how.momentum, nesterov=how.momentum > 0)
        entries = sum(table.numel() for table in tables)
        self._moved = Moved(entries, in_a_ring(4 * entries, job.workers))

    def tables(self) -> Tables:
        """Return a copy of the parameters."""
        return _named(self._job, self._tables)

    def step(self, plan: Plan) -> Taken:
        """Take a step along the mean of all gradients."""
        batch, moment = self._batches.of(plan), Moment(plan.step, plan.epoch, len(plan.trainers))
        rules = self._model.rules(self._job.optimizer, moment, self._job.batch_size)  # the same on all
        for group, rule in zip(self._optimizer.param_groups, rules, strict=True):
            group.update(lr=rule.rate, eps=rule.epsilon, weight_decay=rule.decay)
        self._optimizer.zero_grad()
        loss, objective = self._module(batch)
        objective.backward()
        self._optimizer.step()
        self._laps.lap("compute")
        return Taken(batch.samples, loss.item(), self._moved)

    def settle(self, plan: Plan) -> Moved:
        """Do nothing: PyTorch's L2 pulls at all rows in every step."""
        return Moved()


class _Matched:
    """The steps of MLLess with BSP: what each worker's own optimizer moves is added by the merge rule."""

    def __init__(
        self,
        job: JobSpec,
        tables: list[Tensor],
        batches: _Batches,
        laps: Laps,
        kind: type[AllReduce | AllGather],
    ) -> None:
        self._job, self._model, self._batches, self._laps = job, model_of(job.model), batches, laps
        self._tables = tables
        self._states = [torch.zeros_like(table) for table in tables]
        self._last = [torch.full((len(table),), -1) for table in tables]
        self._samples = 1  # of the newest mini-batch
        self._exchange = kind(job, tables, [shape.apart for shape in self._model.shapes], laps)

    def tables(self) -> Tables:
        """Return a copy of the tables."""
        return _named(self._job, self._tables)

    def step(self, plan: Plan) -> Taken:
        """Add what all workers' optimizers change."""
        batch, moment = self._batches.of(plan), Moment(plan.step, plan.epoch, len(plan.trainers))
        self._samples = batch.samples or self._samples
        rules = self._model.rules(self._job.optimizer, moment, self._samples)
        rows = [table[ids].requires_grad_() for table, ids in zip(self._tables, batch.rows, strict=True)]
        mean = isinstance(self._job.optimizer, Nesterov)
        loss, objective = losses_of(self._job.model, rows, batch, mean=mean)
        gradients = torch.autograd.grad(objective, rows)
        changes = [
            self._change(number, batch.rows[number], rule, gradients[number])
            for number, rule in enumerate(rules)
        ]
        self._laps.lap("compute")
        return Taken(batch.samples, loss.item(), self._exchange(batch.key, batch.rows, changes))

    def settle(self, plan: Plan) -> Moved:
        """Bring the L2 of all rows up to date, as who flushes does."""
        rules = self._model.rules(self._job.optimizer, moment_before(plan), self._samples)
        if not any(rule.decay for rule in rules):
            return Moved()
        rows = [
            torch.arange(len(table) if rule.decay else 0)
            for table, rule in zip(self._tables, rules, strict=True)
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
        x, steps = self._tables[number][ids], rule.step - self._last[number][ids]
        self._last[number][ids] = rule.step
        return (x + change) / (1 + eta * rule.decay * steps[:, None]) - x
