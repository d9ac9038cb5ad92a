"""What a run says of itself: one StepRecord a step, one Summary at the end. Values alone."""

from __future__ import annotations

import msgspec

from mlless.autotuner.decision import Decision
from mlless.billing.meter import Bill
from mlless.job import JobSpec

RUNNING, FAILED = "running", "failed"  # how a run that has not come to its end may stand


class StepTimes(msgspec.Struct, frozen=True):
    """Where the time of a step, or of a whole run, went: seconds, the mean over its workers.

    Attributes
    ----------
    fetch : float
        Reading rows and assembling the mini-batch.
    compute : float
        Taking the step, the filter included.
    filter : float
        Taking out and encoding what is significant.
    publish : float
        Storing the update.
    wait : float
        Waiting for the commit.
    merge : float
        Reading the updates of others and adding them.
    evaluate : float
        Scoring held-out rows.
    keep : float
        Storing models: the best, checkpoints, and what is handed over.
    """

    fetch: float
    compute: float
    filter: float
    publish: float
    wait: float
    merge: float
    evaluate: float
    keep: float = 0.0


class StepRecord(msgspec.Struct, frozen=True):
    """One closed step: a line of ``history.jsonl``.

    Attributes
    ----------
    step : int
        The number of the step, from 0.
    epoch : float
        Passes over the training part so far.
    time : float
        Seconds since the job began.
    loss : float or None
        The mean over the samples of the step, before it: squared error in rating units, or log loss. None for
        a step in which workers only flush.
    train_loss : float or None
        The exponential average of ``loss``.
    heldout : dict of float, or None
        The held-out metrics of the model before the step, if it was evaluated.
    workers, samples, entries : int
        Workers that took part, rows trained on, entries published.
    bytes_out, bytes_in : int
        Bytes of updates published, and bytes of others' updates and sums read.
    bytes_fetched, bytes_kept : int
        Bytes of mini-batches read, and of models stored and loaded.
    times : StepTimes
        Where the time went.
    cost : float or None
        The bill so far in dollars, if there is a tariff.
    decision : Decision or None
        What a look of the auto-tuner came to, if there was one.
    losses : tuple of str
        A line for each worker that was lost since the step before. A line also says that the job was resumed.
    rewound_to : int or None
        The job went back to this step. Earlier records of this step and of later ones no longer count.
    handovers, lost : int
        Functions that handed over to a successor since the step before, and functions that were lost.
    sums_lost : int
        Shards of which what a merger had kept of their sums was lost with it.
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
    sums_lost: int = 0


class Checkpoints(msgspec.Struct, frozen=True):
    """The checkpoints of a job.

    Attributes
    ----------
    count : int
        How many were made.
    seconds, share : float
        The seconds of a worker that they took, and the share of the job's time. Best models that were stored
        together with a checkpoint are included.
    step : int or None
        The step of the newest one in the run's place. The run can be resumed from there until it has ended.
    bytes, writes : int
        Bytes that went into the run's place, the history included, and requests to an object store for that.
        A folder needs no requests.
    """

    count: int = 0
    seconds: float = 0.0
    share: float = 0.0
    step: int | None = None
    bytes: int = 0
    writes: int = 0


class WorkerSummary(msgspec.Struct, frozen=True):
    """One function of a job.

    Attributes
    ----------
    worker, generation, pid : int
        Which worker it was, which launch of it, and its process.
    cpu_seconds, seconds : float or None
        Its CPU seconds, and the seconds that are billed; None if nobody could tell.
    peak_memory : int or None
        The most memory that its process had at a time, in bytes.
    """

    worker: int
    generation: int
    pid: int
    cpu_seconds: float | None
    seconds: float | None = None
    peak_memory: int | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A run as a whole: the content of ``summary.json``.

    Attributes
    ----------
    steps, epochs : int, float
        How far the job came.
    wall_seconds, cpu_seconds : float
        Time of the whole job, and CPU time of all its processes.
    startup_seconds, startup_cpu_seconds : float
        The part of these before the first step.
    times : StepTimes
        Where the time of the steps went.
    train_loss : float or None
        The last average of the training loss.
    heldout : dict of float
        The held-out metrics of the model that was written.
    model_step, restored : int, bool
        The steps that this model has behind it, and whether it is an earlier and better one than the last. 0
        steps mean that there is no model.
    stop_reason : str
        ``epochs``, ``target``, ``patience``, ``time``, ``cost``, ``interrupted``, ``callback`` or
        ``diverged``. It is ``running`` while the job runs, and stays so if the job was killed. It is
        ``failed`` if an error ended the job.
    bytes_published, bytes_read, bytes_fetched, entries_published : int
        Sums over all steps and workers.
    workers : list of WorkerSummary
        Every function of the job.
    kernels, version : str
        Which kernels computed, and which release.
    job : JobSpec
        Everything that was decided about the training.
    bill : Bill or None
        What it cost, if there is a tariff.
    seconds : float
        Seconds from the start of the functions until the model was there, on the clock of the steps.
    members : tuple of int
        The numbers of workers in the order in which they took part.
    last_look : str or None
        The result of the auto-tuner's last look.
    notes : tuple of str
        Reasons to doubt the data set.
    error, exit_code : str or None, int
        What ended a job that has failed.
    checkpoints : Checkpoints
        How many there were, and what they took.
    resumed : tuple of int
        The steps from which the job went on after it had been lost. Steps, bytes, ``seconds`` and bill are
        then sums over the whole run; ``workers`` and CPU seconds are those since the last of these steps.
    handovers, lost : int
        Functions that handed over to a successor, and functions that were lost.
    sums_lost : int
        Shards of which what a merger had kept of their sums was lost with it.
    options : tuple of str
        The options with which ``mlless resume`` runs it where it ran, without passwords.
    system : str
        What has trained it: ``mlless``, or another system of ``mlless compare``.
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
    sums_lost: int = 0
    options: tuple[str, ...] = ()
    system: str = "mlless"

    @property
    def peak_memory(self) -> int | None:
        """The most memory that any worker had, in bytes; None if nobody could tell."""
        return max((one.peak_memory for one in self.workers if one.peak_memory is not None), default=None)
