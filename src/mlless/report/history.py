"""A run's files for other tools: ``history.jsonl``, one line a step, and ``summary.json``."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass, field
from types import TracebackType

import msgspec

from mlless.channels.opening import open_objects
from mlless.errors import ChannelError
from mlless.locations import Directory, Place
from mlless.records import StepRecord, StepTimes, Summary

HISTORY = "history.jsonl"
SUMMARY = "summary.json"
_ACTIVITIES = StepTimes.__struct_fields__


@dataclass
class Totals:
    """Sums over a run's steps, and what became of its workers."""

    bytes_out: int = 0
    bytes_in: int = 0
    bytes_fetched: int = 0
    entries: int = 0
    members: list[int] = field(default_factory=list)
    last_look: str | None = None
    _seconds: list[float] = field(default_factory=lambda: [0.0] * len(_ACTIVITIES))

    def add(self, record: StepRecord) -> None:
        """Take in a step."""
        self.bytes_out += record.bytes_out
        self.bytes_in += record.bytes_in
        self.bytes_fetched += record.bytes_fetched
        self.entries += record.entries
        if record.workers not in self.members[-1:]:
            self.members.append(record.workers)
        if record.decision is not None:
            self.last_look = record.decision.why
        for number, name in enumerate(_ACTIVITIES):
            self._seconds[number] += getattr(record.times, name)

    def times(self) -> StepTimes:
        """Return where the time of the steps went."""
        return StepTimes(*self._seconds)


class HistoryFile:
    """Writes a run's history as it goes; the history of a run to be replaced stays until ``keep``.

    In a folder it can be read as it grows. On the way to an object store it is in a temporary file.
    """

    def __init__(self, run: Place) -> None:
        self._objects = open_objects(run)
        replaces = SUMMARY in self._objects.names()
        self._name = f".part-{HISTORY}" if replaces else HISTORY
        # Before a long training: can it be written there? If not, this says so.
        self._objects.put(self._name, b"")
        self._file = (
            (run.path / self._name).open("r+b") if isinstance(run, Directory) else tempfile.TemporaryFile()  # noqa: SIM115 (closed on leaving)
        )
        self._encoder = msgspec.json.Encoder()
        self._kept = False

    def __enter__(self) -> HistoryFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._name != HISTORY or (self._objects.distant and not self._kept):
            # A run that has failed has an error to tell, and one that has not keeps its history elsewhere.
            with contextlib.suppress(ChannelError):
                self._objects.delete([self._name])

    def keep(self) -> None:
        """Put the history in its place: the run has come to its end."""
        self._file.seek(0)
        self._objects.put(HISTORY, self._file.read())
        self._kept = True

    def add(self, record: StepRecord) -> None:
        """Append a step's line; it is in the file once the run is over or 8 KiB have gathered."""
        self._file.write(self._encoder.encode(record) + b"\n")


def read_history(run: Place) -> list[StepRecord]:
    """Return the record of every step of a run."""
    lines = open_objects(run).get(HISTORY).splitlines()
    return [msgspec.json.decode(line, type=StepRecord) for line in lines]


def write_summary(run: Place, summary: Summary) -> None:
    """Write the summary as indented JSON."""
    text = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    open_objects(run).put(SUMMARY, text + b"\n")


def read_summary(run: Place) -> Summary:
    """Return the summary of a run."""
    return msgspec.json.decode(open_objects(run).get(SUMMARY), type=Summary)
