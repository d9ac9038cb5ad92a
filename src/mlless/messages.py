"""What supervisor and workers say to each other. Small values, typed, msgpack on the wire.

A step in messages: every member sends a Report, the supervisor answers with one Commit. Updates
themselves never travel here.
"""

from __future__ import annotations

import traceback
from typing import Literal

import msgspec

from mlless.errors import CodecError, MLLessError

PROTOCOL = 2


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    pass


class Times(_Message, frozen=True):
    """Where a worker's step went, in seconds.

    ``wait`` and ``merge`` are those that opened the step: waiting for the commit of the step
    before, fetching its updates and merging them. ``compute`` includes the fused filter;
    ``filter`` is what remains of it: taking the published entries out and encoding them.
    """

    fetch: float = 0.0
    compute: float = 0.0
    filter: float = 0.0
    publish: float = 0.0
    wait: float = 0.0
    merge: float = 0.0
    evaluate: float = 0.0


class Sums(_Message, frozen=True):
    """A slice's part of a held-out metric.

    ``loss`` sums squared errors (mf, in rating units) or log losses (lr). For lr the histograms
    count scores of either label in equal bins of probability.
    """

    samples: int
    loss: float
    negatives: tuple[int, ...] = ()
    positives: tuple[int, ...] = ()


class Evaluation(_Message, frozen=True):
    """A worker's slice of the evaluation of ``shared`` before a step, and the digest of its bits.

    ``bytes`` are those of the mini-batches that it was evaluated on.
    """

    sums: Sums
    digest: str
    bytes: int


class Hello(_Message, frozen=True, tag="hello"):
    """A worker is there: who it is, what it runs, and the digest of the start it has loaded."""

    worker: int
    generation: int
    pid: int
    protocol: int
    version: str
    digest: str


class Report(_Message, frozen=True, tag="report"):
    """A worker has ended its part of a step and its update is in the store.

    ``samples`` is 0 for an idle or flushing worker. ``finite`` is false when a parameter stopped
    being a finite number; nothing is published then.
    """

    worker: int
    generation: int
    step: int
    samples: int
    loss: float
    published: bool
    finite: bool
    entries: int
    bytes_out: int
    bytes_in: int
    bytes_fetched: int
    times: Times
    evaluation: Evaluation | None = None


class Finished(_Message, frozen=True, tag="finished"):
    """The model is in the store: of which step, its held-out metrics, whether an earlier one was best.

    ``bytes_in`` are the updates read for the last merge, which no report tells of.
    """

    worker: int
    generation: int
    step: int
    heldout: dict[str, float]
    restored: bool
    bytes_in: int


class Failure(_Message, frozen=True, tag="failure"):
    """A worker cannot go on.

    ``exit_code`` is that of an error of ours, which explains itself; 0 stands for an unexpected one,
    which comes with its traceback.
    """

    worker: int
    generation: int
    step: int
    error: str
    exit_code: int
    traceback: str


def failure_of(worker: int, generation: int, step: int, error: Exception) -> Failure:
    """Return what a worker says of an error it cannot deal with."""
    if isinstance(error, MLLessError):
        return Failure(worker, generation, step, str(error), error.exit_code, "")
    return Failure(worker, generation, step, repr(error), 0, "".join(traceback.format_exception(error)))


class Plan(_Message, frozen=True):
    """One step: who takes part, from which stream position, who flushes, whether to evaluate first.

    Members that do not flush train; the one of rank j among them takes ``position`` + j.
    """

    step: int
    members: tuple[int, ...]
    position: int
    flush: tuple[int, ...] = ()
    evaluate: bool = False

    @property
    def trainers(self) -> tuple[int, ...]:
        """The members that take a mini-batch, in order of id."""
        if not self.flush:
            return self.members
        return tuple(member for member in self.members if member not in self.flush)


class Score(_Message, frozen=True):
    """The best model so far: its step and the value that made it best (lower is better)."""

    step: int
    value: float


class Commit(_Message, frozen=True, tag="commit"):
    """Closes a step and names the next two.

    ``published`` lists (worker, generation) in order of worker id. ``keep``: the model before this
    step is the best so far, and the lowest member stores it. ``end``: the job is over, after
    merging this step ("merge") or by going back to the best model ("restore").
    """

    step: int
    published: tuple[tuple[int, int], ...]
    plans: tuple[Plan, ...]
    keep: bool = False
    best: Score | None = None
    end: Literal["", "merge", "restore"] = ""


class Abort(_Message, frozen=True, tag="abort"):
    """The job is given up: exit at once."""

    reason: str


FromWorker = Hello | Report | Finished | Failure
ToWorker = Commit | Abort

_encoder = msgspec.msgpack.Encoder()
_from_worker = msgspec.msgpack.Decoder(FromWorker)
_to_worker = msgspec.msgpack.Decoder(ToWorker)


def encode(message: FromWorker | ToWorker) -> bytes:
    """Return the message as msgpack."""
    return _encoder.encode(message)


def decode_from_worker(data: bytes | memoryview) -> FromWorker:
    """Return a worker's message; CodecError if it is none."""
    try:
        message: FromWorker = _from_worker.decode(data)
        return message
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CodecError("not a worker's message", found=str(error)) from error


def decode_to_worker(data: bytes | memoryview) -> ToWorker:
    """Return a supervisor's message; CodecError if it is none."""
    try:
        message: ToWorker = _to_worker.decode(data)
        return message
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CodecError("not a supervisor's message", found=str(error)) from error
