"""What a system is given, and what it gives back.

A system has two halves, written against ports and a clock alone. ``lead`` runs where the user is: it starts
functions, hears of them, closes steps in the ``Books``, and returns the model. ``work`` is one function, from
its start to its end. Functions of a system meet in the key-value store, in the objects of the job, over the
bus, or in several of them, as the published one does. A file that has both halves is light to import.

Objects of a job are in a place of its own, which is emptied at its end: their names have no slash.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import msgspec

import mlless
from mlless.channels.opening import open_link, open_objects, open_store
from mlless.channels.ports import KeyValueStore, Link, ObjectStore
from mlless.clock import Clock, SystemClock
from mlless.closing import Listener
from mlless.data.dataset import Dataset
from mlless.deployment import Addresses, Deployment
from mlless.errors import Disconnected
from mlless.job import JobSpec
from mlless.kernels.arrays import Floats
from mlless.launch import check_sender, dataset_of
from mlless.locations import Place, place_of
from mlless.messages import PROTOCOL, FunctionId, encode, failure_of
from mlless.recipes import job_of
from mlless.stopping import Choice
from mlless.wishes import Wishes

if TYPE_CHECKING:
    from mlless.baselines.leading import Stage
    from mlless.records import Summary
    from mlless.simulation.roles import Roles
    from mlless.simulation.running import Play
    from mlless.simulation.world import World

Tables = dict[str, Floats]
Lead = Callable[["Stage"], tuple[Tables, Choice]]
Work = Callable[["Function"], None]
# Options for MLLess' supervisor.
MLLESS_ALONE = (
    "pattern",
    "local_steps",
    "store_rate",
    "store_latency",
    "merged_significance",
    "slack",
    "worker_timeout",
    "on_loss",
    "checkpoint_every",
)
PLAINLY = {"pattern": "broadcast", "local_steps": 1}  # as was published: nobody merges for all


@dataclass(frozen=True, kw_only=True)
class System:
    """One way to train, as a comparison names it.

    ``about`` says in a line what it is. It trains models of these ``kinds``. Its own ``wishes`` go over those
    of a user. ``packages`` have to be there: by what they are imported as, what is to be installed.
    ``priced``: it needs a tariff. ``served``: its functions meet over servers, which then are on its bill.
    ``talks``: they use the bus. ``here``: they run on this machine, whatever the deployment.
    ``reach``: they reach one another, so that in a world they are processes on its machines.
    ``keeps``: options of a training that have no effect on it. Its ``wishes`` go over how it ``moves``.
    Functions start at the dotted name ``entry``, which calls ``run_function`` with its module's ``work``.
    ``real`` says why it cannot run in a virtual world: what of it is not over ports and a clock.
    """

    about: str
    kinds: Sequence[Literal["mf", "lr"]] = ("mf", "lr")
    wishes: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    priced: bool = False
    served: bool = True
    talks: bool = True
    here: bool = False
    reach: bool = False
    keeps: Sequence[str] = MLLESS_ALONE
    moves: Mapping[str, Any] = field(default_factory=lambda: PLAINLY)
    entry: str = ""
    real: str = ""
    lead: Lead | None = None

    def plan(self, wishes: Wishes, dataset: Dataset) -> JobSpec:
        """Return the job that is to be run for a user's wishes; UsageError if they do not fit."""
        own = msgspec.structs.replace(wishes, **{**self.moves, **self.wishes})
        if dataset.manifest.kind != "ratings":  # what a system does with users says nothing of clicks
            own = msgspec.structs.replace(own, share_users=wishes.share_users)
        spec = job_of(own, dataset.manifest, dataset.address)
        if spec.tariff is None:
            return spec
        tariff = spec.tariff if self.served else msgspec.structs.replace(spec.tariff, servers=())
        if self.reach and tariff.machine is not None:
            tariff = tariff.of_machines(spec.workers)
        return msgspec.structs.replace(spec, tariff=tariff)

    def run(
        self,
        name: str,
        spec: JobSpec,
        dataset: Dataset,
        out: Place,
        *,
        deployment: Deployment,
        listen: Listener,
    ) -> Summary:
        """Run a job on real functions; ``out`` then holds model, history and summary."""
        # Not above: functions import this module, too, and need nothing of what leads a job.
        from mlless.baselines.leading import run_led

        where = Deployment() if self.here else deployment
        return run_led(self, name, spec, dataset, out, deployment=where, listen=listen)

    def placed(self, world: World) -> World:
        """Return a world in which functions are where those of the system are."""
        return world.on_machines() if self.reach else world

    def halves(self, roles: Roles) -> tuple[Lead, Work]:
        """Return who leads a job and what a function does in a virtual world: the same as for real.

        What one of them is beside ports and a clock is to be given another way here.
        """
        assert self.lead is not None
        return self.lead, importlib.import_module(self.entry.partition(":")[0]).work

    def play(self, spec: JobSpec, dataset: Dataset, deployment: Deployment) -> Play:
        """Return how a job is played in a virtual world."""
        from mlless.baselines.playing import play_led

        return play_led(self, spec, dataset, deployment)


class Launch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a function is told; ``objects`` is where those of the job are, ``task`` the system's own."""

    protocol: int
    version: str
    job: JobSpec
    addresses: Addresses
    objects: str
    worker: int
    generation: int
    task: msgspec.Raw

    @property
    def me(self) -> FunctionId:
        """The function."""
        return self.worker, self.generation


def launch_of(
    job: JobSpec, addresses: Addresses, objects: str, function: FunctionId, task: msgspec.Struct
) -> bytes:
    """Return the payload of a function."""
    own = msgspec.Raw(msgspec.json.encode(task))
    return msgspec.json.encode(Launch(PROTOCOL, mlless.__version__, job, addresses, objects, *function, own))


@dataclass
class Function:
    """What one function has in its hands; what it does not ask for is not opened."""

    launch: Launch
    objects: ObjectStore
    clock: Clock
    open_dataset: Callable[[], Dataset]
    open_store: Callable[[], KeyValueStore]
    open_link: Callable[[], Link]

    @cached_property
    def dataset(self) -> Dataset:
        """The job's data set."""
        return self.open_dataset()

    @cached_property
    def store(self) -> KeyValueStore:
        """The job's key-value store."""
        return self.open_store()

    @cached_property
    def link(self) -> Link:
        """The function's end of the job's bus."""
        return self.open_link()


_launch = msgspec.json.Decoder(Launch)


def run_function(payload: bytes, work: Work) -> None:
    """Do the ``work`` of the function that ``payload`` describes, over real ports.

    An error is left among the objects for who leads the job, and raised.
    """
    check_sender(payload)
    launch = _launch.decode(payload)
    function = Function(
        launch,
        open_objects(place_of(launch.objects)),
        SystemClock(),
        lambda: dataset_of(launch.job),
        lambda: open_store(launch.addresses, launch.job.deadlines.expiry),
        lambda: open_link(launch.addresses, launch.worker, launch.generation),
    )
    try:
        do(function, work)
    finally:
        if "link" in vars(function):
            function.link.close()


def do(function: Function, work: Work) -> None:
    """Do a function's work; an error is left among the objects before it is raised."""
    try:
        work(function)
    except Disconnected:
        raise  # no one is left to be told
    except Exception as error:  # whatever it is, the user is to see it
        failure = failure_of(*function.launch.me, -1, error)
        function.objects.put(failure_name(function.launch.me), encode(failure))
        raise


def failure_name(function: FunctionId) -> str:
    """Return the name of the object that says why a function has failed."""
    worker, generation = function
    return f"failure-{worker}.{generation}"
