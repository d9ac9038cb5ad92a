"""PyTorch: data-parallel training over gloo, as one runs it on machines that reach one another.

``pytorch`` is what the MLLess paper (Middleware 2021) compares with: DistributedDataParallel averages dense
gradients, and PyTorch's optimizer takes the learning rate of MLLess. Part of the difference is then one of
steps, for MLLess sums what its workers change. So two others take the very steps of MLLess with BSP, to
rounding. Each worker's own optimizer moves the rows of its mini-batch, and what it moved is added by MLLess'
merge rule. ``pytorch-matched`` moves whole tables for that, by all-reduce. ``pytorch-sparse`` moves the rows
that were touched, by all-gather; which rows those are is told once, in the first epoch. Nothing that its
users could do by hand is left out on purpose.

Processes are started by the runtime, not by ``torchrun``: so their CPU seconds, memory, limits, bill and
losses are in the same books as everyone's. They all run on this machine, for functions cannot reach one
another, and they meet in a file. A process that is lost ends the job, as it does with PyTorch.

Nobody waits for who leads: a step is told while the one before it is taken. PyTorch is imported once, before
processes are forked, and not by who leads: here are the systems and who leads, in ``worker`` is a function.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict, deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import safetensors.numpy

from mlless.baselines.contract import MLLESS_ALONE, Lead, System, Tables, Work
from mlless.data.dataset import Dataset
from mlless.job import JobSpec
from mlless.messages import Commit, Donate, Donated, Hello, Plan, Report
from mlless.stopping import Choice
from mlless.wishes import Wishes

if TYPE_CHECKING:
    from mlless.baselines.leading import Stage
    from mlless.simulation.roles import Roles

Exchange = Literal["average", "all-reduce", "all-gather"]


class Task(msgspec.Struct, frozen=True):
    """How functions exchange what they have learnt, and the file in which they meet."""

    exchange: Exchange
    meeting: str


def model_name(step: int) -> str:
    """Return the name of the object that holds the model before a step."""
    return f"model-{step}"


class _Leader:
    def __init__(self, stage: Stage, exchange: Exchange) -> None:
        self._stage, self._exchange = stage, exchange
        self._told: Plan | None = None  # the newest step that functions know of
        self._heard = defaultdict[int, deque[Report]](deque)

    def run(self) -> tuple[Tables, Choice]:
        """Lead all steps; return the model that is chosen."""
        with tempfile.TemporaryDirectory(prefix="mlless-pytorch-") as folder:
            task = Task(self._exchange, str(Path(folder) / "meeting"))
            self._us = self._stage.start(dict.fromkeys(range(self._stage.spec.workers), task))
            for _ in self._us:
                assert isinstance(self._stage.receive(), Hello)
            self._stage.begin()
            ending = self._stage.steps(self._take, self._read)
            self._stage.session.hub.broadcast(Commit(-1, (), (), end=True), self._us)
        return ending

    def _take(self, plan: Plan) -> list[Report]:
        """Return the reports of a step, having told of the one that follows it."""
        stale = self._told not in (None, plan)  # the model has diverged: that step counts no more
        if plan != self._told:
            self._tell(plan)
        self._told = self._stage.following
        if self._told is not None:
            self._tell(self._told)
        if stale:
            for worker in plan.members:
                self._next(worker)
        return [self._next(worker) for worker in plan.members]

    def _next(self, worker: int) -> Report:
        """Return the next report of a worker; they come in the order of its steps."""
        while not self._heard[worker]:
            report = self._stage.receive()
            assert isinstance(report, Report)
            self._heard[report.worker].append(report)
        return self._heard[worker].popleft()

    def _tell(self, plan: Plan) -> None:
        self._stage.session.hub.broadcast(Commit(plan.step - 1, (), (plan,)), self._us)

    def _read(self, step: int) -> Tables:
        self._stage.session.hub.broadcast(Donate(step), self._us[:1])
        while isinstance(message := self._stage.receive(), Report):
            self._heard[message.worker].append(message)
        assert isinstance(message, Donated)
        return safetensors.numpy.load(self._stage.objects.get(model_name(step)))


def _leads(exchange: Exchange) -> Lead:
    return lambda stage: _Leader(stage, exchange).run()


class _PyTorch(System):
    def plan(self, wishes: Wishes, dataset: Dataset) -> JobSpec:
        """Return a job in which all move all rows: in PyTorch nobody owns one."""
        return msgspec.structs.replace(super().plan(wishes, dataset), share_users=True)

    def halves(self, roles: Roles) -> tuple[Lead, Work]:
        """Return who leads, and functions that need no PyTorch and meet in a ring."""
        from mlless.baselines.pytorch import played

        assert self.lead is not None
        return self.lead, played.Together(roles).work


_pytorch = partial(
    _PyTorch,
    packages={"torch": "torch"},
    served=False,
    here=True,
    reach=True,
    keeps=(*MLLESS_ALONE, "compression"),
    entry="mlless.baselines.pytorch.worker:main",
)
SYSTEMS = {
    "pytorch": _pytorch(
        about="PyTorch's DistributedDataParallel over gloo: dense gradients averaged, the same learning rate",
        wishes={"sync": "bsp", "merge": "mean"},
        lead=_leads("average"),
    ),
    "pytorch-matched": _pytorch(
        about="PyTorch with the steps of MLLess with BSP; whole tables in an all-reduce",
        wishes={"sync": "bsp"},
        lead=_leads("all-reduce"),
    ),
    "pytorch-sparse": _pytorch(
        about="PyTorch with the steps of MLLess with BSP; touched rows in an all-gather",
        wishes={"sync": "bsp"},
        lead=_leads("all-gather"),
    ),
}
