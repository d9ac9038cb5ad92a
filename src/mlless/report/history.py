"""A run's files for other tools: ``history.jsonl``, one line a step, and ``summary.json``."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

import msgspec

from mlless.channels.opening import open_objects
from mlless.channels.ports import ObjectStore
from mlless.errors import ChannelError, DatasetError, MissingObject
from mlless.locations import Directory, Place
from mlless.records import FAILED, RUNNING, StepRecord, StepTimes, Summary

HISTORY = "history.jsonl"
SUMMARY = "summary.json"
CHECKPOINT = "checkpoint.safetensors"  # of a job that has not come to its end
PART = ".part-"  # how the name of a file begins that is being written
_TRIES = 5
_ROOM = 16 << 10  # bytes that a history leaves where a disk is full
_ACTIVITIES = StepTimes.__struct_fields__


@dataclass
class Totals:
    """Sums over a run's steps, and what became of its workers."""

    bytes_out: int = 0
    bytes_in: int = 0
    bytes_fetched: int = 0
    entries: int = 0
    handovers: int = 0
    lost: int = 0
    sums_lost: int = 0
    members: list[int] = field(default_factory=list)
    last_look: str | None = None
    last: StepRecord | None = None
    _seconds: list[float] = field(default_factory=lambda: [0.0] * len(_ACTIVITIES))

    def add(self, record: StepRecord) -> None:
        """Take in a step."""
        self.last = record
        self.bytes_out += record.bytes_out
        self.bytes_in += record.bytes_in
        self.bytes_fetched += record.bytes_fetched
        self.entries += record.entries
        self.handovers += record.handovers
        self.lost += record.lost
        self.sums_lost += record.sums_lost
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
    """Writes a run's history as it goes; where it ``replaces`` another one, that stays until ``store``.

    It begins with the lines of ``before``. In a folder it can be read as it grows. On the way to an object
    store it is in a temporary file; what is new goes there in a piece of its own. Where it cannot be written,
    say on a full disk, it ends with the steps that it has: that must not end a training.
    """

    def __init__(self, run: Place, *, replaces: bool = False, before: bytes = b"") -> None:
        self._run, self._objects = run, open_objects(run)
        self._name = f"{PART}{HISTORY}" if replaces else HISTORY
        if not before and not replaces:
            self._drop_pieces()
        # Before a long training: can it be written there? If not, this says so.
        self._objects.put(self._name, before)
        if before:  # it has all that was in them
            self._drop_pieces()
        self._file = (
            (run.path / self._name).open("r+b", buffering=0)
            if isinstance(run, Directory)
            else tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (closed on leaving)
        )
        self._encoder = msgspec.json.Encoder()
        if isinstance(run, Directory):
            self._file.seek(len(before))
        else:
            self._file.write(before)
        self._size, self._broken = len(before), False
        self._stored, self._pieces = len(before), [0]
        self._lock, self._storing = threading.Lock(), threading.Lock()

    def __enter__(self) -> HistoryFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._name != HISTORY:
            # The run has failed before it had anything to replace the other by, or the history has been put.
            with contextlib.suppress(ChannelError):
                self._objects.delete([self._name])

    def add(self, record: StepRecord) -> None:
        """Append a step's line at once, for who follows the file: that takes 3 microseconds."""
        left = line = self._encoder.encode(record) + b"\n"
        with self._lock:
            if self._broken:
                return
            try:
                while left:  # where room ends within a line, the next write says so
                    left = left[self._file.write(left) :]
                self._size += len(line)
            except OSError as error:
                self._broken = True
                _tell(f"{HISTORY} ends here, the training goes on: cannot write: {error.strerror}")
                with contextlib.suppress(OSError):
                    self._make_room()

    def store(self, *, whole: bool = False) -> int:
        """Put what there is in its place, as far as that is possible. Threads may call it.

        In an object store it is ``whole`` at the end, and in pieces until then, so that no line is put more
        often than the logarithm of their number. Returns the bytes that were put there with a request.
        """
        try:
            if isinstance(self._run, Directory):
                os.replace(self._run.path / self._name, self._run.path / HISTORY)
                self._name = HISTORY
            else:
                with self._storing:
                    return self._put(whole)
        except (ChannelError, OSError) as error:
            _tell(f"{HISTORY} is not stored: {error}")
        return 0

    def _put(self, whole: bool) -> int:
        """Put what is new, together with the pieces before it that are no larger; these go."""
        replaces, start, end, kept = self._name != HISTORY, self._stored, self._size, [*self._pieces]
        if start == end and not replaces and not (whole and len(kept) > 1):
            return 0
        if replaces:
            self._drop_pieces()  # those of the other run
        while kept and (whole or start - kept[-1] <= end - start):
            start = kept.pop()
        data = os.pread(self._file.fileno(), end - start, start)
        self._objects.put(_piece(start), data)
        self._objects.delete([_piece(one) for one in self._pieces if one > start])
        self._stored, self._pieces = end, [*kept, start]
        if replaces:
            self._objects.delete([self._name])
            self._name = HISTORY
        return len(data)

    def _drop_pieces(self) -> None:
        if not isinstance(self._run, Directory):
            self._objects.delete([_piece(start) for start in _starts(self._objects.names()) if start])

    def _make_room(self) -> None:
        """Cut the file off after a whole line, so that there is room for a summary where a disk is full."""
        end = max(self._size - _ROOM, 0)
        tail = os.pread(self._file.fileno(), self._size - end, end)
        self._size = end + tail.find(b"\n") + 1 if end else 0
        self._file.truncate(self._size)


def _tell(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=3)


class Following:
    """Reads the history of a run as it grows; of a job that replaces a run, that of the job ``under_way``."""

    def __init__(self, run: Place, *, under_way: bool) -> None:
        self._run, self._objects = run, open_objects(run)
        self._names = (f"{PART}{HISTORY}", HISTORY) if under_way else (HISTORY,)
        self._at, self._first, self._last = 0, b"", b""

    def read(self) -> list[StepRecord]:
        """Return the records that have come, or all of another history that has taken the place of the one.

        ChannelError if the place is out of reach.
        """
        at = self._at - len(self._last)
        data = self._from(at)
        if data.startswith(self._last):
            data = data[len(self._last) :]
        else:
            data = whole_lines(self._from(0))
            if not data or (len(data) < self._at and data.startswith(self._first)):
                return []  # it is just being put there again, or will have begun anew
            self._at = 0
        data = whole_lines(data)
        if data:
            if not self._at:
                self._first = data[: data.find(b"\n") + 1]
            self._at += len(data)
            self._last = data[data[:-1].rfind(b"\n") + 1 :]
        return decoded(data)

    def _from(self, at: int) -> bytes:
        for name in self._names:
            with contextlib.suppress(MissingObject, FileNotFoundError):
                if not isinstance(self._run, Directory):
                    return (
                        stored_history(self._objects, at) if name == HISTORY else self._objects.get(name)[at:]
                    )
                with (self._run.path / name).open("rb") as file:
                    file.seek(at)
                    return file.read()
        return b""


def read_history(run: Place) -> list[StepRecord]:
    """Return the record of every step of a run, but for those that it has gone back behind."""
    return that_count(decoded(stored_history(open_objects(run))))


def read_lines(run: Place) -> bytes:
    """Return the whole lines of a run's history, also of steps that are taken again."""
    return whole_lines(stored_history(open_objects(run)))


def _piece(start: int) -> str:
    """Return the name of a part of a history that begins at so many bytes."""
    return f"{HISTORY}.{start}" if start else HISTORY


def _starts(names: Iterable[str]) -> list[int]:
    """Return at which bytes the parts of a history begin."""
    found = (name.removeprefix(f"{HISTORY}.") for name in names if name.startswith(f"{HISTORY}."))
    return [0, *sorted(int(text) for text in found if text.isdecimal())]


def stored_history(objects: ObjectStore, at: int = 0) -> bytes:
    """Return a history from so many bytes on, of which the newest part may be in pieces of their own."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(MissingObject):  # one was put together with others meanwhile
            return _joined(objects, at)
    return _joined(objects, at)


def _joined(objects: ObjectStore, at: int) -> bytes:
    starts = _starts(objects.names())
    begin = end = max(start for start in starts if start <= at)
    data = b""
    for start in starts:
        if begin <= start <= end:  # what is behind a gap is of no use
            piece = objects.get(_piece(start))
            data += piece[end - start :]
            end = max(end, start + len(piece))
    return data[at - begin :]


@contextmanager
def readable(run: Place) -> Iterator[None]:
    """Tell of files that are not those of a run as a DatasetError."""
    try:
        yield
    except (msgspec.DecodeError, MissingObject) as error:
        raise DatasetError(
            "not the files of a run of this release",
            where=run.address,
            found=str(error),
            cure="read it with the release that has written it, or train again",
        ) from error


def whole_lines(history: bytes) -> bytes:
    """Return the lines of a history that are whole: its writer may be at work, or have been killed."""
    return history[: history.rfind(b"\n") + 1]


def decoded(history: bytes) -> list[StepRecord]:
    """Return the records of the lines of a history, also of steps that are taken again."""
    return [msgspec.json.decode(line, type=StepRecord) for line in history.splitlines()]


def that_count(records: Iterable[StepRecord]) -> list[StepRecord]:
    """Return the records but for those that a run has gone back behind."""
    kept: list[StepRecord] = []
    for record in records:
        if (back := record.rewound_to) is not None:
            while kept and kept[-1].step >= back:
                kept.pop()
        kept.append(record)
    return kept


def write_summary(run: Place, summary: Summary) -> None:
    """Write the summary as indented JSON."""
    text = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    open_objects(run).put(SUMMARY, text + b"\n")


def read_summary(run: Place) -> Summary:
    """Return the summary of a run."""
    return msgspec.json.decode(open_objects(run).get(SUMMARY), type=Summary)


def is_finished(run: Place) -> bool:
    """Return whether a run has come to its end; DatasetError if there is none."""
    objects = open_objects(run)
    found = objects.names()
    if not {SUMMARY, HISTORY} & found:
        raise no_run(run)
    if SUMMARY not in found:
        return False
    try:
        return msgspec.json.decode(objects.get(SUMMARY), type=_Ended).stop_reason not in (RUNNING, FAILED)
    except msgspec.DecodeError:
        return True  # whatever it is, whoever reads it tells what is wrong with it


def no_run(run: Place) -> DatasetError:
    """Return the error of a place where no run is."""
    return DatasetError(
        "no run here",
        where=str(run),
        expected="the folder or URL that a training was given as --out",
        cure="check the path, or start with mlless train",
    )


class _Ended(msgspec.Struct):
    """What every release's summary says."""

    stop_reason: str
