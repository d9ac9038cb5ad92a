"""What a run came to: time and CPU of all its processes, and the summary."""

from __future__ import annotations

import resource
import time

import mlless
from mlless import kernels
from mlless.billing.meter import Bill
from mlless.data.manifest import Finding
from mlless.job import JobSpec
from mlless.records import Summary, WorkerSummary
from mlless.report.history import Totals
from mlless.supervisor import Outcome


class Stopwatch:
    """Wall and CPU seconds of a job: this process and all it started."""

    def __init__(self) -> None:
        self._wall, self._own, self._children = time.monotonic(), time.process_time(), _children()
        self._driver_start: float | None = None

    def mark_start(self) -> None:
        """Say that training has begun; what this process used until now was start-up."""
        if self._driver_start is None:
            self._driver_start = time.process_time() - self._own

    def startup_cpu(self, workers: float) -> float:
        """Return the CPU seconds of start-up, given those of the workers: all else of the children."""
        return (self._driver_start or 0.0) + max(0.0, _children() - self._children - workers)

    def wall(self) -> float:
        """Return the seconds since the job began."""
        return time.monotonic() - self._wall

    def cpu(self) -> float:
        """Return the CPU seconds of this process and of those that have ended."""
        return time.process_time() - self._own + _children() - self._children


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def summarize(
    spec: JobSpec,
    outcome: Outcome,
    totals: Totals,
    watch: Stopwatch,
    *,
    started: float = 0.0,
    bill: Bill | None = None,
    notes: tuple[Finding, ...] = (),
) -> Summary:
    """Return the summary of a job, whose functions had started after so many seconds.

    ``notes`` are those of its data set.
    """
    last = totals.last
    ended = {(one.worker, one.generation): one for one in outcome.ended}
    return Summary(
        steps=last.step + 1 if last else 0,
        epochs=last.epoch if last else 0.0,
        wall_seconds=watch.wall(),
        cpu_seconds=watch.cpu(),
        startup_seconds=started + outcome.started_at,
        startup_cpu_seconds=watch.startup_cpu(sum(one.cpu_seconds for one in ended.values())),
        times=totals.times(),
        train_loss=last.train_loss if last else None,
        heldout=outcome.model.heldout,
        model_step=outcome.model.step,
        restored=outcome.model.restored,
        stop_reason=outcome.stop_reason,
        bytes_published=totals.bytes_out,
        bytes_read=totals.bytes_in,
        bytes_fetched=totals.bytes_fetched,
        entries_published=totals.entries,
        workers=[
            WorkerSummary(*who, pid, ended[who].cpu_seconds, ended[who].seconds, ended[who].peak)
            if who in ended
            else WorkerSummary(*who, pid, None)
            for who, pid in sorted(outcome.pids.items())
        ],
        kernels=kernels.NAME,
        version=mlless.__version__,
        job=spec,
        bill=bill,
        seconds=outcome.seconds,
        members=tuple(totals.members),
        handovers=totals.handovers,
        lost=totals.lost,
        sums_lost=totals.sums_lost,
        last_look=totals.last_look,
        notes=tuple(note.text for note in notes),
    )
