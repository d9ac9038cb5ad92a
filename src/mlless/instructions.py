"""PURE: what the ledger hears, its events, and what it says, its instructions."""

from __future__ import annotations

from dataclasses import dataclass

from mlless.closing import Verdict
from mlless.errors import MLLessError
from mlless.mark import Mark
from mlless.messages import FromWorker, FunctionId, Plan, Report, ToWorker
from mlless.stopping import Score


@dataclass(frozen=True)
class Exited:
    """Event: a function is over. ``killed`` by a signal, or for what ``cause`` the runtime knows.

    ``peak``: the bytes of memory that it had at most, where the runtime knows. ``done``: it has come to its
    end by itself.
    """

    worker: int
    generation: int
    killed: bool
    description: str
    cause: str = ""
    peak: int | None = None
    done: bool = False


@dataclass(frozen=True)
class Passed:
    """Event: time has passed. ``asked``: somebody waits for the end; ``late``: it is to come at once."""

    asked: bool = False
    late: bool = False


Event = FromWorker | Exited | Passed | Verdict


@dataclass(frozen=True)
class Launch:
    """Instruction: start these functions."""

    functions: tuple[FunctionId, ...]


@dataclass(frozen=True)
class Send:
    """Instruction: send a message to these functions."""

    message: ToWorker
    functions: tuple[FunctionId, ...]


@dataclass(frozen=True)
class Dismiss:
    """Instruction: a function is lost, for this reason; end it if that is possible.

    With it is lost what it had kept of the sums of so many ``shards``.
    """

    function: FunctionId
    why: str
    shards: int = 0


@dataclass(frozen=True)
class Started:
    """Instruction: all workers are there for the first time."""


@dataclass(frozen=True)
class Close:
    """Instruction: all reports on a step are in; decide what is to follow, and answer with a Verdict.

    So many functions have handed over to their successors before it: ``handovers``. With slack ``further``
    steps than the following one are planned.
    """

    plan: Plan
    following: Plan | None
    reports: tuple[Report, ...]
    handovers: int = 0
    further: tuple[Plan, ...] = ()


@dataclass(frozen=True)
class Delete:
    """Instruction: remove what nobody needs any more from the store."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class Kept:
    """Instruction: the best model so far is sure to be in the store, its parts under ``keys``."""

    best: Score
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Marked:
    """Instruction: there is a new checkpoint of the job, which took its worker ``seconds``."""

    mark: Mark
    seconds: float


@dataclass(frozen=True)
class Forget:
    """Instruction: the best model is lost; the one that is ``stored``, if any, takes its place."""

    stored: Score | None


@dataclass(frozen=True)
class Rewind:
    """Instruction: the job goes back to a mark; see to it that its origin is in the store."""

    mark: Mark
    stored: Score | None


@dataclass(frozen=True)
class Done:
    """Instruction: the job is over, and under which keys the parts of its model and of the best one are."""

    step: int
    result: tuple[str, ...]
    best: Score | None
    best_keys: tuple[str, ...]
    given_up: bool = False


@dataclass(frozen=True)
class Fail:
    """Instruction: the job cannot go on."""

    error: MLLessError


Instruction = (
    Launch | Send | Dismiss | Started | Close | Delete | Kept | Marked | Forget | Rewind | Done | Fail
)
