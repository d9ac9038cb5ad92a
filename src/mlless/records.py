"""What a run says of itself: one StepRecord a step, one Summary at the end. Values alone."""

from __future__ import annotations

import msgspec

from mlless.autotuner.decision import Decision
from mlless.billing.meter import Bill
from mlless.job import JobSpec

RUNNING, FAILED = "running", "failed"  # how a run that has not come to its end may stand


class StepTimes(msgspec.Struct, frozen=True):
    """Seconds of a step (or of a whole run), the mean over its workers; see ``messages.Times``."""

    fetch: float
    compute: float
    filter: float
    publish: float
    wait: float
    merge: float
    evaluate: float
    keep: float = 0.0


class StepRecord(msgspec.Struct, frozen=True):
    """One closed step.

    ``time`` is in seconds since the job began, ``epoch`` in passes over the training part. ``loss``
    is the mean over the step's samples before it (squared error in rating units, or log loss),
    None for a step of flushes; ``train_loss`` its exponential average. ``heldout`` is that of the
    model before the step, where it was evaluated. Bytes and entries are sums over the workers;
    ``bytes_in`` are peers' updates, and sums of them, ``bytes_fetched`` mini-batches, ``bytes_kept`` models
    stored and loaded. ``cost`` is the bill so far in dollars, where there is a tariff; ``decision`` the
    auto-tuner's, where one came about. ``losses`` tells, a line each, of workers that were lost since the
    step before, and that the job was resumed. ``rewound_to`` says that the job has gone back to this step:
    the records of it and of later steps that stand before this one no longer count. So many functions whose
    time limit was near handed over to their successors before the step: ``handovers``. So many were ``lost``.
    """

    step: int
    epoch: float
    time: float
    loss: float | None
    train_loss: float | None
    heldout: dict[str, float] | None
    workers: int
    samples: int
    entries: int
    bytes_out: int
    bytes_in: int
    bytes_fetched: int
    times: StepTimes
    cost: float | None = None
    decision: Decision | None = None
    losses: tuple[str, ...] = ()
    rewound_to: int | None = None
    bytes_kept: int = 0
    handovers: int = 0
    lost: int = 0


class Checkpoints(msgspec.Struct, frozen=True):
    """The checkpoints of a job: how many, and the seconds that they took, a ``share`` of the job's.

    These are a worker's seconds, best models that were stored with a checkpoint included. To put them into
    the run's place took so many ``bytes``, those of the history included, and ``writes``, which are requests
    to an object store, 0 in a folder. From the one of ``step``, the newest in the run's place, the run can be
    resumed as long as it has not ended.
    """

    count: int = 0
    seconds: float = 0.0
    share: float = 0.0
    step: int | None = None
    bytes: int = 0
    writes: int = 0


class WorkerSummary(msgspec.Struct, frozen=True):
    """One launch of a worker; ``cpu_seconds`` and what follows are None where no one could tell.

    ``seconds`` are billed. ``peak_memory`` is the most memory that its process had at a time, in bytes.
    """

    worker: int
    generation: int
    pid: int
    cpu_seconds: float | None
    seconds: float | None = None
    peak_memory: int | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A run as a whole.

    ``cpu_seconds`` is of all processes of the job, start-up included; ``startup_seconds`` and
    ``startup_cpu_seconds`` are the part before the first step; ``times`` says where that of the
    steps went. ``heldout`` is that of the model that was written, which is the one after
    ``model_step`` steps; ``restored`` says that it is an earlier and better one than the last.
    ``seconds`` is how long it took from the start of its functions until the model was there, on the clock
    of its steps. ``members`` are the numbers of workers in the order in which they took part, ``last_look``
    is what the auto-tuner's last look came to. ``notes`` are what was to doubt in the data set, a line each.
    ``stop_reason``: ``epochs``, ``target``, ``patience``, ``time``, ``cost``, ``interrupted``,
    ``callback`` or ``diverged``; ``running`` while the job runs, and for good if no process was left to say
    more; ``failed``, with the ``error`` and its ``exit_code``. Then the model is the best one so far, if
    ``model_step`` is not 0: none otherwise. ``resumed`` are the steps from which the job went on after it had
    been lost: its steps, bytes, ``seconds`` and bill are those of all its lives, ``workers`` and CPU seconds
    those of the last. So many functions handed over to their successors in all lives, ``handovers``, and so
    many were ``lost``. ``options`` are those with which the run is resumed where it ran, as one types them,
    without passwords. ``system`` names what has trained it, as ``mlless compare`` does.
    """

    steps: int
    epochs: float
    wall_seconds: float
    cpu_seconds: float
    startup_seconds: float
    startup_cpu_seconds: float
    times: StepTimes
    train_loss: float | None
    heldout: dict[str, float]
    model_step: int
    restored: bool
    stop_reason: str
    bytes_published: int
    bytes_read: int
    bytes_fetched: int
    entries_published: int
    workers: list[WorkerSummary]
    kernels: str
    version: str
    job: JobSpec
    bill: Bill | None = None
    seconds: float = 0.0
    members: tuple[int, ...] = ()
    last_look: str | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None
    exit_code: int = 0
    checkpoints: Checkpoints = Checkpoints()
    resumed: tuple[int, ...] = ()
    handovers: int = 0
    lost: int = 0
    options: tuple[str, ...] = ()
    system: str = "mlless"

    @property
    def peak_memory(self) -> int | None:
        """Bytes of memory at most of the worker that had the most; None where no one could tell."""
        return max((one.peak_memory for one in self.workers if one.peak_memory is not None), default=None)
