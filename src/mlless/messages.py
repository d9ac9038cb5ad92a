"""What supervisor and workers say to each other. Small values, typed, msgpack on the wire.

A step in messages: every member sends a Report, the supervisor answers with one Commit. Updates
themselves never travel here.
"""

from __future__ import annotations

import traceback

import msgspec

from mlless.errors import CodecError, MLLessError
from mlless.memory import memory_limit, peak_memory, shortage

PROTOCOL = 8

FunctionId = tuple[int, int]  # worker, generation


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    pass


class Times(_Message, frozen=True):
    """Where a worker's step went, in seconds.

    ``wait`` and ``merge`` are those that opened the step: waiting for the commit of the step
    before, fetching its updates and merging them. ``compute`` includes the fused filter;
    ``filter`` is what remains of it: taking the published entries out and encoding them. ``keep`` is storing
    models: the best, the result, a donation, a checkpoint, or what a successor goes on from.
    """

    fetch: float = 0.0
    compute: float = 0.0
    filter: float = 0.0
    publish: float = 0.0
    wait: float = 0.0
    merge: float = 0.0
    evaluate: float = 0.0
    keep: float = 0.0


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
    """A worker's part of the evaluation of ``shared`` before a step, and the digest of its bits.

    It takes the held-out rows of the groups that the worker owns; ``reads`` files of so many ``bytes``
    were read for it.
    """

    sums: Sums
    digest: str
    reads: int
    bytes: int


class Origin(_Message, frozen=True):
    """From where a replica starts: what the store has under ``key`` is the model before ``step``.

    ``digest`` is that of the bits of ``shared``, empty where it is not known. Further ``parts`` of the model
    are under other keys. Rows that are ``owned`` may be missing: their owner computes them.
    """

    key: str
    step: int
    digest: str
    parts: tuple[str, ...] = ()
    owned: bool = True


class Hello(_Message, frozen=True, tag="hello"):
    """A worker is there: who it is, what it runs, and for how many seconds it may, None for no limit."""

    worker: int
    generation: int
    pid: int
    protocol: int
    version: str
    left: float | None = None


class Ready(_Message, frozen=True, tag="ready"):
    """A successor has prepared itself: it has its rows in memory, and waits for its beginning."""

    worker: int
    generation: int


class Report(_Message, frozen=True, tag="report"):
    """A worker has ended its part of a step and its update is in the store.

    ``samples`` is 0 for a worker that flushes or only scores. ``finite`` is false when a parameter stopped
    being a finite number; nothing is published then. ``reads`` files of ``bytes_fetched`` were read to
    train on. Models of ``bytes_kept`` were stored or loaded since the report before. The function has so many
    seconds ``left`` before its time limit ends it, None if there is none.
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
    reads: int
    bytes_fetched: int
    times: Times
    evaluation: Evaluation | None = None
    bytes_kept: int = 0
    left: float | None = None


class Donated(_Message, frozen=True, tag="donated"):
    """A worker has stored its model of the open step for one that takes a lost one's place."""

    worker: int
    generation: int
    origin: Origin


class HandedOver(_Message, frozen=True, tag="handed over"):
    """A function whose time is soon over has stored all that its successor needs, and exits.

    The rest is what it has done since its last report; the fields are those of ``Report``.
    """

    worker: int
    generation: int
    origin: Origin
    bytes_in: int
    bytes_kept: int
    times: Times


class Substituted(_Message, frozen=True, tag="substituted"):
    """A worker has taken the part of a lost one in the open step, besides its own: that one's report."""

    worker: int
    generation: int
    report: Report


class Merged(_Message, frozen=True, tag="merged"):
    """A worker has merged a shard of the open step for all. It has read and stored so many bytes for it."""

    worker: int
    generation: int
    step: int
    shard: int
    bytes_in: int
    bytes_out: int


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
        return Failure(worker, generation, step, error.as_typed, error.exit_code, "")
    told = repr(error)
    if isinstance(error, MemoryError):
        told = f"{shortage(memory_limit(), peak_memory())}; it needs more (--memory, ulimit -v): {told}"
    return Failure(worker, generation, step, told, 0, "".join(traceback.format_exception(error)))


class Plan(_Message, frozen=True):
    """One step: who takes part and owns which groups, which part of the epoch it trains on, who flushes.

    Members that do not flush train on so many parts, ``length``, from part ``part`` of ``parts`` on, in the
    order of the epoch, of the groups that they own. Each is a mini-batch. Steps before had so many
    mini-batches ``beyond`` one each. ``owners`` is what ``membership.deal`` returns, empty on its way where
    it is that of the step before. ``evaluate`` asks for an evaluation first. In the ``last`` step nobody
    trains. ``drain``: all steps before it are merged first, whatever the slack.
    """

    step: int
    members: tuple[int, ...]
    epoch: int
    parts: int
    part: int
    owners: bytes = b""
    flush: tuple[int, ...] = ()
    evaluate: bool = False
    last: bool = False
    drain: bool = False
    length: int = 1
    beyond: int = 0

    @property
    def batches(self) -> int:
        """How many mini-batches a worker that was there from the start has taken before."""
        return self.step + self.beyond

    def due(self, slack: int) -> int:
        """Return how many steps a member has merged, from step 0 on, before it takes its part in this one.

        All before it if ``slack`` is 0. Else so many are left out, but where something depends on the model
        that all have in common: it is scored, whole residuals are merged, or functions hand over.
        """
        whole = self.drain or self.evaluate or self.last or self.flush
        return self.step if whole else max(self.step - slack, 0)

    @property
    def trainers(self) -> tuple[int, ...]:
        """The members that take a mini-batch, in order of id."""
        if self.last:
            return ()
        if not self.flush:
            return self.members
        return tuple(member for member in self.members if member not in self.flush)

    @property
    def lowest(self) -> int:
        """The member that stores the model with which the job ends."""
        return min(self.members)

    @property
    def done(self) -> float:
        """Passes over the training rows when the step is over."""
        return self.epoch + (self.part + (self.length if self.trainers else 0)) / self.parts


class Begin(_Message, frozen=True, tag="begin"):
    """What a worker is told that is there: from where it starts, and the next two steps; more with slack."""

    origin: Origin
    plans: tuple[Plan, ...]


class Prepare(_Message, frozen=True, tag="prepare"):
    """Asks a successor to read what these steps need, while the one before it still works."""

    plans: tuple[Plan, ...]


class Commit(_Message, frozen=True, tag="commit"):
    """Closes a step and names the plans of the next two, and with slack of more.

    Attributes
    ----------
    published : pairs
        Worker and generation of all who published, in order of worker id.
    mergers : pairs
        Who has merged the shards, in the order of the shards, if the pattern has any.
    best, checkpoint : pairs
        The functions that store the model before this step, which is the best so far, and those that store a
        checkpoint of the step to come. The first one stores what all share, and each the rows that it owns.
    handover : pairs
        The functions that then store what their successors go on from, and exit.
    left : pairs
        The functions that train no more, and have stored the rows that they owned for their heirs.
    end : bool
        The job is over.
    """

    step: int
    published: tuple[FunctionId, ...]
    plans: tuple[Plan, ...]
    best: tuple[FunctionId, ...] = ()
    checkpoint: tuple[FunctionId, ...] = ()
    handover: tuple[FunctionId, ...] = ()
    end: bool = False
    mergers: tuple[FunctionId, ...] = ()
    left: tuple[FunctionId, ...] = ()


class Merge(_Message, frozen=True, tag="merge"):
    """Asks a worker that has reported the open step to merge a shard of what these have published.

    ``whole``: it sends all that it has kept of the shard's sums as well. Another one may merge it from the
    next step on.
    """

    step: int
    shard: int
    published: tuple[FunctionId, ...]
    whole: bool = False


class Donate(_Message, frozen=True, tag="donate"):
    """Asks a worker that has reported the open step for its model: another one is to start from it."""

    step: int


class Substitute(_Message, frozen=True, tag="substitute"):
    """Asks a worker that has reported the open step to take the part of a lost one, in its name."""

    step: int
    worker: int
    generation: int


class Abort(_Message, frozen=True, tag="abort"):
    """Exit at once: the job is given up, or another function has taken this one's place."""

    reason: str


FromWorker = Hello | Ready | Report | Donated | HandedOver | Substituted | Merged | Failure
ToWorker = Prepare | Begin | Merge | Commit | Donate | Substitute | Abort

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
