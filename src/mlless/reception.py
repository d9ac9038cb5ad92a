"""Hears the workers of a job, and tells who is lost: who failed, died, or was silent for too long."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection

from mlless.channels.ports import Hub
from mlless.clock import Clock
from mlless.errors import DeadlineExceeded, JobError, WorkerFailed, WorkerLost
from mlless.job import Deadlines
from mlless.messages import PROTOCOL, Failure, Finished, FromWorker, Hello, Plan, Report
from mlless.pace import Pace
from mlless.runtimes.ports import Ended, Runtime

_POLL = 0.25  # seconds between looks at the runtime while no message comes
_ASLEEP = 5.0  # seconds beyond that in which this process cannot have run


class Reception:
    """Where the messages of one job's workers come in.

    ``watch`` is called whenever it has been waited for a while, with the seconds since the last message, and
    may raise what ends the wait.
    ``notice`` hears of functions that have ended.
    """

    def __init__(
        self,
        hub: Hub,
        runtime: Runtime,
        clock: Clock,
        deadlines: Deadlines,
        *,
        watch: Callable[[float], None],
        notice: Callable[[Collection[Ended]], None],
    ) -> None:
        self._hub, self._runtime, self._clock, self._deadlines = hub, runtime, clock, deadlines
        self._watch, self._notice = watch, notice
        self._pace = Pace(deadlines)
        self._step = 0
        self.pids: dict[tuple[int, int], int] = {}
        self.ended: list[Ended] = []
        self.slept = 0.0  # seconds in which this process did not run

    def greet(self, members: Collection[int], version: str, digest: str) -> None:
        """Wait until all members are there, of this release and with the same start."""
        missing = set(members)
        deadline = self._clock.now() + self._deadlines.start
        while missing:
            hello = self._next(deadline, "start", missing)
            if not isinstance(hello, Hello):
                raise JobError(f"worker {hello.worker} sent a {type(hello).__name__} before its Hello")
            ours = (PROTOCOL, version, digest)
            theirs = (hello.protocol, hello.version, hello.digest)
            if ours != theirs:
                raise JobError(
                    f"worker {hello.worker} does not fit this driver",
                    expected="protocol {}, mlless {}, start {}".format(*ours),
                    found="protocol {}, mlless {}, start {}".format(*theirs),
                    cure="install the same release of mlless on both sides; where only the start differs, "
                    "the worker's file of it is damaged",
                )
            self.pids[hello.worker, hello.generation] = hello.pid
            missing.discard(hello.worker)

    def collect(self, plan: Plan) -> list[Report]:
        """Return the reports of all members on a step, in order of worker id."""
        self._step, opened = plan.step, self._clock.now()
        reports: dict[int, Report] = {}
        deadline = opened + self._pace.patience(plan)
        while missing := set(plan.members) - set(reports):
            report = self._next(deadline, f"report on step {plan.step}", missing)
            if not isinstance(report, Report) or report.step != plan.step:
                raise JobError(
                    f"worker {report.worker} is out of step",
                    expected=f"a report on step {plan.step}",
                    found=type(report).__name__ + f" on step {getattr(report, 'step', '-')}",
                )
            reports[report.worker] = report
        evaluating = max(report.times.evaluate for report in reports.values())
        self._pace.add(plan, self._clock.now() - opened, evaluating)
        return [reports[worker] for worker in sorted(reports)]

    def await_model(self, finisher: int) -> None:
        """Wait until a worker has stored the job's model."""
        message = self._next(self._clock.now() + self._deadlines.commit, "model", {finisher})
        if not isinstance(message, Finished):
            raise JobError(f"worker {message.worker} sent a {type(message).__name__} at the end")

    @property
    def usual(self) -> float:
        """The seconds that a step usually takes."""
        return self._pace.usual

    def hear_of_ends(self) -> None:
        """Ask the runtime which functions have ended."""
        ended = self._runtime.ended()
        self.ended += ended
        self._notice(ended)

    def _next(self, deadline: float, awaited: str, missing: Collection[int]) -> FromWorker:
        """Return the next message; a worker's failure, silent death or delay is an error."""
        slept, since = self.slept, self._clock.now()
        while True:
            message = self._receive()
            self._watch(0.0 if message else self._clock.now() - since - (self.slept - slept))
            if message is None and (lost := self._lost(missing)):
                message = self._hub.receive(0.0)  # its last words may have come meanwhile
                if message is None:
                    raise self._died(lost)
            if isinstance(message, Failure):
                raise _failed(message)
            if message is not None:
                return message
            if self._clock.now() >= deadline + self.slept - slept:  # the workers cannot help its sleep
                who = ", ".join(map(str, sorted(missing)))
                raise DeadlineExceeded(
                    f"no {awaited} from worker {who} within its deadline",
                    cure="was it stopped? If its steps may take longer, raise --worker-timeout",
                )

    def _receive(self) -> FromWorker | None:
        """Return the next message, None if none comes for a while."""
        before = self._clock.now()
        message = self._hub.receive(_POLL)
        asleep = self._clock.now() - before - _POLL
        if asleep > _ASLEEP:
            self.slept += asleep
            warnings.warn(
                f"the driver did not run for {asleep:.0f} s: was it stopped, or the machine suspended?",
                RuntimeWarning,
                stacklevel=2,
            )
        return message

    def _lost(self, missing: Collection[int]) -> Ended | None:
        self.hear_of_ends()
        return next((one for one in self.ended if one.worker in missing), None)

    def _died(self, lost: Ended) -> WorkerLost:
        what = f"worker {lost.worker} died in step {self._step}"
        if "\n" in lost.cause:
            *_, last = lost.cause.splitlines()
            return WorkerLost(f"{what}: {last}", cure=f"its traceback:\n{lost.cause}")
        if lost.cause:
            return WorkerLost(f"{what}: {lost.cause}")
        if lost.code < 0:
            cure = "was it out of memory, or killed from outside?"
        else:
            cure = "set MLLESS_DEBUG=1 to see its own traceback"
        return WorkerLost(what, found=lost.describe(), cure=cure)


def _failed(failure: Failure) -> WorkerFailed:
    what = f"worker {failure.worker} failed in step {max(failure.step, 0)}: {failure.error}"
    error = WorkerFailed(what, cure=f"its traceback:\n{failure.traceback}" if failure.traceback else None)
    error.exit_code = failure.exit_code or error.exit_code
    return error
