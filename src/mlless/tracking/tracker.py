"""What all trackers have in common: a thread beside the training, which passes its steps on to a tool.

A training never waits for a tool, but at its beginning and its end. What fails in between is told once.
"""

from __future__ import annotations

import math
import queue
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from mlless.errors import ChannelError, MLLessError, UsageError, hidden, not_installed, warn
from mlless.job import JobSpec
from mlless.records import StepRecord
from mlless.report.history import Totals
from mlless.tracking.callback import Beginning, Ending

APART = 0.1  # seconds between two steps that are passed on
_OPENING, _CLOSING = 60.0, 60.0  # seconds that a training waits for a tool
_OF_PYDANTIC = re.compile(r"^  (?:Value error, )?(.+) \[type=\w+, input_value=", re.MULTILINE)


@dataclass(frozen=True)
class Point:
    """What is told of a step: values by name, at so many seconds since 1970."""

    step: int
    at: float
    values: Mapping[str, float]


class Sink(Protocol):
    """A tool that is open for one training."""

    def write(self, points: Sequence[Point]) -> None:
        """Take in some steps."""
        ...

    def close(self, ending: Ending) -> None:
        """Say how the training has ended, once everything is written; let go of the tool."""
        ...


class Tracker(ABC):
    """A callback that passes a training on to another tool.

    Parameters
    ----------
    every : float, default 0.1
        Seconds between two steps that are passed on. Steps with an evaluation, a loss or a decision always
        are. Bytes are sums, so that nothing is missed.
    """

    tool: str
    packages: tuple[str, ...]
    extra: str | None = None  # of ours, that brings them

    def __init__(self, *, every: float = APART) -> None:
        self.every = every
        self._work: _Work | None = None

    @abstractmethod
    def open(self, beginning: Beginning) -> Sink:
        """Open the tool for a training; its client is imported here."""

    def on_begin(self, beginning: Beginning) -> None:
        """Open the tool, or raise why that is not possible."""
        if self._work is not None:
            raise UsageError("a tracker follows one training at a time", cure="make another one")
        work = _Work(self, beginning)
        work.begin()
        self._work = work

    def on_step(self, record: StepRecord) -> None:
        """Pass a step on, unless one was passed on just now."""
        if self._work is not None:
            self._work.take(record)

    def on_epoch(self, record: StepRecord) -> None:
        """Pass on the evaluation of the finished model, which is no step of training."""
        if self._work is not None and record.step != self._work.newest:
            self._work.take(record)

    def on_end(self, ending: Ending) -> None:
        """Pass the end on, and wait until all is written."""
        work, self._work = self._work, None
        if work is not None:
            work.end(ending)


class _Work:
    """The thread of a tracker that follows one training."""

    def __init__(self, tracker: Tracker, beginning: Beginning) -> None:
        self._tracker, self._beginning = tracker, beginning
        self._queue: queue.SimpleQueue[Point | Ending] = queue.SimpleQueue()
        self._opened = threading.Event()
        self._error: Exception | None = None
        self._totals, self._next = Totals(), -math.inf
        self.newest = -1
        self._thread = threading.Thread(target=self._run, name=f"mlless {tracker.tool}", daemon=True)

    def begin(self) -> None:
        """Start, and wait until the tool is open."""
        self._thread.start()
        tool = self._tracker.tool
        if not self._opened.wait(_OPENING):
            raise ChannelError(f"{tool} does not answer within {_OPENING:g} s", cure="check its address")
        if isinstance(self._error, ModuleNotFoundError):
            what, tracker = f"a training that is passed on to {tool}", self._tracker
            raise not_installed(what, *tracker.packages, extra=tracker.extra)
        if self._error is not None:
            raise _told(f"{tool} cannot be opened", self._error) from self._error

    def take(self, record: StepRecord) -> None:
        """Hand a step to the thread, if it is to be passed on."""
        self.newest = record.step
        self._totals.add(record)
        now = time.monotonic()
        if now >= self._next or record.heldout is not None or record.losses or record.decision:
            self._next = now + self._tracker.every
            self._queue.put(Point(record.step, time.time(), dict(values_of(record, self._totals))))

    def end(self, ending: Ending) -> None:
        """Hand the end to the thread, and wait for it."""
        tool = self._tracker.tool
        self._queue.put(ending)
        self._thread.join(_CLOSING)
        if self._thread.is_alive():
            warn(f"{tool} has not taken all within {_CLOSING:g} s, and misses the rest", RuntimeWarning)
        elif self._error is not None:
            warn(
                f"{tool} has failed, and misses a part of the training: {_worded(self._error)}",
                RuntimeWarning,
            )

    def _run(self) -> None:
        try:
            sink = self._tracker.open(self._beginning)
            self._opened.set()
            ending = None
            while ending is None:
                points, ending = self._waiting()
                if points:
                    sink.write(points)
            sink.close(ending)
        except Exception as error:  # whatever a client raises: a training does not end for it
            self._error = error
            self._opened.set()

    def _waiting(self) -> tuple[list[Point], Ending | None]:
        """Return all that has come meanwhile, at least one thing."""
        points = []
        item = self._queue.get()
        while isinstance(item, Point):
            points.append(item)
            if self._queue.empty():
                return points, None
            item = self._queue.get()
        return points, item


def _told(what: str, error: Exception) -> MLLessError:
    if isinstance(error, MLLessError):
        return error
    return ChannelError(what, found=_worded(error), cure="check its address")


def _worded(error: Exception) -> str:
    """Return what a client says of an error, fit to be shown, without what pydantic adds to it."""
    told = "; ".join(_OF_PYDANTIC.findall(str(error))) or " ".join(str(error).split())
    return hidden(f"{type(error).__name__}: {told}".rstrip("."))


def values_of(record: StepRecord, totals: Totals) -> Iterator[tuple[str, float]]:
    """Yield what is told of a step, by name; what it does not have, or is not finite, is left out."""
    named: dict[str, float | None] = {
        "loss": record.loss,
        "train_loss": record.train_loss,
        **{f"heldout_{name}": value for name, value in (record.heldout or {}).items()},
        "epoch": record.epoch,
        "seconds": record.time,
        "workers": record.workers,
        "cost": record.cost,
        "bytes_published": totals.bytes_out,
        "bytes_read": totals.bytes_in,
        "bytes_fetched": totals.bytes_fetched,
        "lost": totals.lost,
    }
    for name, value in named.items():
        if value is not None and math.isfinite(value):
            yield name, float(value)


def parameters_of(job: JobSpec) -> dict[str, str]:
    """Return what a job trains, as text by a name with dots; what is not set is left out."""

    def flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
        """Yield what is in a value, by a name with dots."""
        if isinstance(value, dict):
            for inner, one in value.items():
                yield from flat(f"{name}.{inner}" if name else inner, one)
        elif value is not None:
            yield name, str(value)

    return dict(flat("", msgspec.to_builtins(job)))


def name_of(beginning: Beginning) -> str:
    """Return what a training is called in a tool: as its run's folder."""
    return (beginning.run or "fit").rstrip("/").rpartition("/")[2]
