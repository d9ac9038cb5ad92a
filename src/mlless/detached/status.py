"""How a run stands: whether it is under way, lost or over, and how far it has come."""

from __future__ import annotations

from typing import Literal

import msgspec

from mlless.channels.opening import open_objects
from mlless.locations import Location, Place, place_of
from mlless.records import FAILED, RUNNING, StepRecord
from mlless.report.history import SUMMARY, Following, Totals, is_finished, read_summary, readable, that_count
from mlless.report.left import step_of_checkpoint
from mlless.report.underway import Underway, is_alive, options_of, read_underway

State = Literal["starting", "running", "lost", "finished", "failed"]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a run, as `mlless.status` returns it.

    Attributes
    ----------
    run : str
        Its folder or URL.
    state : {"starting", "running", "lost", "finished", "failed"}
        ``lost`` means that the job has not come to an end, and no process is left that works on it.
    step, epoch : int or None, float
        The last step that is known, None before the first one, and passes over the data so far.
    epochs : int
        Passes over the data at most.
    heldout, best : dict of float
        The held-out metrics of the newest evaluation, and of the best model so far.
    model_step : int
        The steps that this model has behind it; 0 if there is none.
    workers : int
        Workers that took part in the last step.
    seconds : float
        Seconds of training.
    cost : float or None
        The bill so far in dollars, if there is a tariff.
    stop_reason, error : str or None
        Why the run ended, and with which error.
    checkpoint : int or None
        The step from which a run that is lost or has failed is resumed; None starts it again.
    options : tuple of str
        The options with which ``mlless resume`` runs it where it ran, without passwords.
    job : Underway or None
        The job itself while it is under way or lost: its process, machine and log.
    train_loss : float or None
        The average of the training loss at the last step.
    bytes_published, bytes_read, bytes_fetched, handovers, lost : int
        Sums over the steps, as in `Summary`.
    """

    run: str
    state: State
    step: int | None
    epoch: float
    epochs: int
    heldout: dict[str, float]
    best: dict[str, float]
    model_step: int
    workers: int
    seconds: float
    cost: float | None
    stop_reason: str | None = None
    error: str | None = None
    checkpoint: int | None = None
    options: tuple[str, ...] = ()
    job: Underway | None = None
    train_loss: float | None = None
    bytes_published: int = 0
    bytes_read: int = 0
    bytes_fetched: int = 0
    handovers: int = 0
    lost: int = 0


def status(run: Location) -> Status:
    """Return the state of a run: how its job stands, how far it has come, and how good its model is.

    It may run on this machine or elsewhere, detached or not.

    Parameters
    ----------
    run : str or path
        The folder or URL of the run.

    Returns
    -------
    Status
        The state.

    Raises
    ------
    DatasetError
        There is no run, or one of another release.
    """
    place = place_of(run)
    with readable(place):
        return _status(place)


def records_of(place: Place) -> list[StepRecord]:
    """Return the record of every step so far, also of steps that are taken again.

    DatasetError if there is no run.
    """
    with readable(place):
        alive, job = is_alive(place), read_underway(place)
        if not alive and job is None:
            is_finished(place)  # or the error that there is no run
        return _records(place, alive, job)


def _records(place: Place, alive: bool, job: Underway | None) -> list[StepRecord]:
    """Return the records of the steps of a job, or of the run that it has left."""
    # Before its job.json is there nothing else is of the job.
    hears = job is not None or not alive
    return Following(place, under_way=alive or job is not None).read() if hears else []


def _status(place: Place) -> Status:
    alive, job = is_alive(place), read_underway(place)
    known = alive or job is not None
    if not known:
        is_finished(place)  # or the error that there is no run
    summary = read_summary(place) if SUMMARY in open_objects(place).names() else None
    if known and summary is not None and summary.stop_reason != RUNNING:
        summary = None  # of the run that is to be replaced
    records = that_count(_records(place, alive, job))
    if alive:
        state: State = "running" if records else "starting"
    elif summary is None or summary.stop_reason == RUNNING:
        state = "lost"
    else:
        state = "failed" if summary.stop_reason == FAILED else "finished"
    over = state in ("failed", "finished")
    options = options_of(job.deployment, job.detached) if job else summary.options if summary else ()
    last, totals = records[-1] if records else None, Totals()
    for record in records:
        totals.add(record)
    spec = job.job if job else summary.job if summary else None
    return Status(
        run=str(place),
        state=state,
        step=last.step if last else None,
        epoch=last.epoch if last else 0.0,
        epochs=spec.stop.epochs if spec else 0,
        heldout=next((one.heldout for one in reversed(records) if one.heldout), {}),
        best=summary.heldout if summary else {},
        model_step=summary.model_step if summary else 0,
        workers=last.workers if last else 0,
        seconds=last.time if last else 0.0,
        cost=summary.bill.total if over and summary and summary.bill else last.cost if last else None,
        stop_reason=summary.stop_reason if over and summary else None,
        error=summary.error if over and summary else None,
        checkpoint=step_of_checkpoint(place) if state in ("lost", "failed") else None,
        options=options,
        job=job,
        train_loss=last.train_loss if last else None,
        bytes_published=totals.bytes_out,
        bytes_read=totals.bytes_in,
        bytes_fetched=totals.bytes_fetched,
        handovers=totals.handovers,
        lost=totals.lost,
    )
