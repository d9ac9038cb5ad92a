"""A job in a world as a run: it leaves the files of any run, with virtual times and money."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable

import mlless
from mlless.billing.meter import MEMORY
from mlless.closing import Listener
from mlless.data.dataset import Dataset
from mlless.data.findings import check_two_classes
from mlless.deployment import Deployment
from mlless.errors import UsageError
from mlless.interrupts import interruptible
from mlless.job import JobSpec
from mlless.locations import Place
from mlless.records import StepRecord, Summary
from mlless.report.files import RunFiles
from mlless.report.summary import Stopwatch
from mlless.report.underway import underway
from mlless.runtimes.ports import Ended
from mlless.simulation.conditions import Conditions
from mlless.simulation.environment import Environment
from mlless.simulation.jobs import Simulation, simulate
from mlless.simulation.world import World
from mlless.stepping import Stepper

Play = Callable[[Conditions, Listener], Simulation]  # of a job, whose steps are heard of


class _VirtualStopwatch(Stopwatch):
    """Wall and CPU seconds of a job in its world."""

    def __init__(self, done: Simulation) -> None:
        super().__init__()
        ended: Iterable[Ended] = done.outcome.ended
        self._virtual = done.seconds, done.busy + sum(one.cpu_seconds for one in ended)

    def startup_cpu(self, workers: float) -> float:
        """Return nothing: what a start takes of a core is not told."""
        return 0.0

    def wall(self) -> float:
        """Return the virtual seconds of the job."""
        return self._virtual[0]

    def cpu(self) -> float:
        """Return the CPU seconds of its roles."""
        return self._virtual[1]


def run_in_world(
    play: Play,
    name: str,
    spec: JobSpec,
    dataset: Dataset,
    out: Place,
    *,
    world: World,
    deployment: Deployment,
    listen: Listener,
) -> Summary:
    """Have a job played in a world; ``out`` then holds model, history and summary, in place of those before.

    Of the ``deployment`` memory and time limit of a function hold. A Ctrl-C ends the job in order.
    """
    check_two_classes(dataset.manifest, dataset.location)
    asked = threading.Event()
    with (
        interruptible() as interrupts,
        RunFiles(out, spec, dataset, overwrite=True, keeps=False, system=name) as files,
        files.failing(),
    ):
        files.begin(underway(mlless.__version__, spec, deployment))
        interrupts.ask = asked.set

        def hear(record: StepRecord) -> object:
            """Note a step in the run's files, and tell who listens."""
            files.hear(record)
            return listen(record) is True or asked.is_set()

        done = play(Environment(world, spec, dataset, deployment.memory), hear)
        files.watch = _VirtualStopwatch(done)
        files.end(done.outcome, done.tables)
        return files.close(done.outcome, 0.0, done.bill)


def play_mlless(spec: JobSpec, dataset: Dataset, deployment: Deployment, stepper: type[Stepper]) -> Play:
    """Return how a job of MLLess is played; the ``stepper`` of each worker takes its steps."""

    def play(environment: Conditions, listen: Listener) -> Simulation:
        """Play the job in an environment."""
        return simulate(
            spec,
            dataset,
            environment,
            memory=environment.memory or MEMORY,
            listen=listen,
            limit=deployment.time_limit,
            most_turns=math.inf,
            longest=math.inf,
            stepper=stepper,
        )

    return play


def check_deployment(deployment: Deployment) -> None:
    """Raise UsageError if a job in a world is asked to be elsewhere."""
    own = Deployment(memory=deployment.memory, time_limit=deployment.time_limit)
    other = [name for name in own.__struct_fields__ if getattr(own, name) != getattr(deployment, name)]
    if other:
        raise UsageError(
            f"a world has a {' and '.join(other)} of its own",
            expected="--memory and --time-limit at most beside --world",
            cure="leave the others out; the world's file says what it has",
        )
