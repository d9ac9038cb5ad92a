"""A parameter server in a virtual world: beside the store, where it answers when a request has arrived."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlless.baselines import parameters as ps
from mlless.baselines.parameter_process import Place
from mlless.job import JobSpec
from mlless.local import begin
from mlless.messages import FunctionId
from mlless.simulation.faults import SUPERVISOR
from mlless.simulation.ports import Asking
from mlless.simulation.roles import Roles


class Played:
    """The server of a job, as who leads it sees it, and the ways of all to it."""

    place = Place(0, "")  # nobody needs to find it

    def __init__(self, roles: Roles, server: ps.ParameterServer) -> None:
        self._roles, self._server = roles, server
        self.way = self.way_of(SUPERVISOR)

    def way_of(self, who: FunctionId) -> Asking:
        """Return the way of a role."""
        return Asking(self._roles, self._roles.roles[who], self._server.answer, ps.work_of)

    def fate(self) -> str:
        """Return what has become of it."""
        return "in a world it is always there"


class Playing:
    """Opens the server of a job, and gives functions their ways to it."""

    def __init__(self, roles: Roles) -> None:
        self._roles = roles
        self._played: Played | None = None

    @contextmanager
    def open_server(self, spec: JobSpec, epoch: int, job: str) -> Iterator[Played]:
        """Have a server at the start of the job's model."""
        replica = begin(spec.model, spec.seed).replica
        self._played = Played(self._roles, ps.ParameterServer(spec, replica, epoch))
        yield self._played

    def connect(self, who: FunctionId) -> Asking:
        """Return the way of a function to the server that is open."""
        assert self._played is not None
        return self._played.way_of(who)
