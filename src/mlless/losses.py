"""PURE: how functions are lost: in which words that is told, and how often it may happen."""

from __future__ import annotations

from collections import Counter, deque

from mlless.errors import (
    DatasetError,
    DeadlineExceeded,
    InputError,
    JobError,
    UsageError,
    WorkerFailed,
    WorkerLost,
)
from mlless.instructions import Exited
from mlless.memory import megabytes
from mlless.messages import PROTOCOL, Failure, Hello, Report

TRIES = 3  # times that a worker may be lost in one step
WINDOW, PER_WORKER, LEAST = 60.0, 4, 8  # seconds in which so many may be lost, for each launched or in all
SHORTEST = 3.0  # seconds that a function must have once it is there
# Exit codes of errors that would come again.
REPEATS = tuple(kind.exit_code for kind in (UsageError, InputError, DatasetError, JobError))


class Losses:
    """Counts the losses of a job with this number of ``workers``."""

    def __init__(self, workers: int) -> None:
        self._most = max(LEAST, PER_WORKER * workers)
        self._recent: deque[float] = deque()
        self._tries: Counter[int] = Counter()
        self._returns: Counter[int] = Counter()

    def add(self, worker: int, now: float) -> bool:
        """Take in that a worker is lost; return whether that is once too often."""
        self._tries[worker] += 1
        self._recent.append(now)
        while self._recent[0] < now - WINDOW:
            self._recent.popleft()
        return self._tries[worker] >= TRIES or len(self._recent) > self._most

    def add_return(self, step: int) -> bool:
        """Take in that the job goes back to a step; return whether it has done so too often to go on."""
        self._returns[step] += 1
        return self._returns[step] > LEAST

    def go_on(self) -> None:
        """Take in that a step is closed: no loss has stood in its way."""
        self._tries.clear()


def failed(failure: Failure, what: str) -> WorkerFailed:
    """Return the error of a function that has sent a failure; ``what`` names it."""
    cure = f"its traceback:\n{failure.traceback}" if failure.traceback else None
    error = WorkerFailed(f"{what}: {failure.error}", cure=cure)
    error.exit_code = failure.exit_code or error.exit_code
    return error


def died(ended: Exited, what: str) -> WorkerLost:
    """Return the error of a function that is over without a word; ``what`` names it."""
    if "\n" in ended.cause:
        *_, last = ended.cause.splitlines()
        return WorkerLost(f"{what}: {last}", cure=f"its traceback:\n{ended.cause}")
    if ended.cause:
        return WorkerLost(f"{what}: {ended.cause}")
    if ended.killed:
        had = "" if ended.peak is None else f"it had {megabytes(ended.peak)} of memory at most: "
        cure = f"{had}was it out of memory, or killed from outside?"
    else:
        cure = "set MLLESS_DEBUG=1 to see its own traceback"
    return WorkerLost(what, found=ended.description, cure=cure)


def silent(worker: int, step: int) -> DeadlineExceeded:
    """Return the error of a worker that does not report a step."""
    return DeadlineExceeded(
        f"no report on step {step} from worker {worker} within its deadline",
        cure="was it stopped? If its steps may take longer, raise --worker-timeout",
    )


def out_of_step(report: Report, step: int) -> JobError:
    """Return the error of a worker that reports on a step to come."""
    return JobError(
        f"worker {report.worker} is out of step",
        expected=f"a report on step {step}",
        found=f"one on step {report.step}",
    )


def late_start(worker: int, seconds: float) -> DeadlineExceeded:
    """Return the error of a worker that has not said hello within so many seconds."""
    return DeadlineExceeded(
        f"no start from worker {worker} within {seconds:g} s",
        cure="can it reach store and bus? Try mlless doctor",
    )


def unfit(hello: Hello, version: str) -> JobError | None:
    """Return the error of a worker that is of another release than ``version``, or ends too soon."""
    if (hello.protocol, hello.version) != (PROTOCOL, version):
        return JobError(
            f"worker {hello.worker} does not fit this driver",
            expected=f"protocol {PROTOCOL}, mlless {version}",
            found=f"protocol {hello.protocol}, mlless {hello.version}",
            cure="install the same release of mlless on both sides",
        )
    if hello.left is not None and hello.left < SHORTEST:
        return JobError(
            "functions end too soon to train anything",
            expected=f"a time limit of at least {SHORTEST:g} s and their start",
            found=f"{hello.left:.1f} s left to worker {hello.worker} once it is there",
            cure="raise --time-limit, or the limit in the configuration of the functions",
        )
    return None
