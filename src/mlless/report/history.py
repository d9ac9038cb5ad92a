"""A run's files for other tools: ``history.jsonl``, one line a step, and ``summary.json``."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import msgspec

from mlless.records import StepRecord, StepTimes, Summary

HISTORY = "history.jsonl"
SUMMARY = "summary.json"
_ACTIVITIES = StepTimes.__struct_fields__


@dataclass
class Totals:
    """Sums over a run's steps."""

    bytes_out: int = 0
    bytes_in: int = 0
    bytes_fetched: int = 0
    entries: int = 0
    _seconds: list[float] = field(default_factory=lambda: [0.0] * len(_ACTIVITIES))

    def add(self, record: StepRecord) -> None:
        """Take in a step."""
        self.bytes_out += record.bytes_out
        self.bytes_in += record.bytes_in
        self.bytes_fetched += record.bytes_fetched
        self.entries += record.entries
        for number, name in enumerate(_ACTIVITIES):
            self._seconds[number] += getattr(record.times, name)

    def times(self) -> StepTimes:
        """Return where the time of the steps went."""
        return StepTimes(*self._seconds)


class HistoryFile:
    """Writes a run's history as it goes; the history of a run to be replaced stays until ``keep``."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / HISTORY
        replaces = self._path.with_name(SUMMARY).exists()
        self._writing = folder / f".part-{HISTORY}" if replaces else self._path
        self._file = self._writing.open("wb")
        self._encoder = msgspec.json.Encoder()

    def __enter__(self) -> HistoryFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._writing != self._path:
            self._writing.unlink(missing_ok=True)

    def keep(self) -> None:
        """Put the history in its place: the run has come to its end."""
        self._file.flush()
        os.replace(self._writing, self._path)

    def add(self, record: StepRecord) -> None:
        """Append a step's line; it is in the file once the run is over or 8 KiB have gathered."""
        self._file.write(self._encoder.encode(record) + b"\n")


def write_summary(folder: Path, summary: Summary) -> None:
    """Write the summary as indented JSON."""
    text = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    (folder / SUMMARY).write_bytes(text + b"\n")


def read_summary(folder: Path) -> Summary:
    """Return the summary of the run in ``folder``."""
    return msgspec.json.decode((folder / SUMMARY).read_bytes(), type=Summary)
