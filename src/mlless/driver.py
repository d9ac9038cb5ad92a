"""Starts a job, listens, assembles the result, cleans up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

import mlless
from mlless import checkpoint, kernels
from mlless.artifact import FORMAT as ARTIFACT_FORMAT
from mlless.artifact import MODEL, Artifact, Description, read_artifact, write_artifact
from mlless.channels.embedded_bus import EmbeddedHub
from mlless.channels.embedded_store import EmbeddedStore, make_folder
from mlless.clock import SystemClock
from mlless.data.dataset import Dataset, open_dataset
from mlless.data.manifest import Clicks
from mlless.errors import UsageError
from mlless.job import JobSpec, MergeRule
from mlless.launch import ENTRY, Launch
from mlless.models import model_of
from mlless.prediction import Predictor
from mlless.recipes import Wishes, job_of
from mlless.records import StepRecord, Summary
from mlless.replica import Replica
from mlless.report.history import HISTORY, HistoryFile, Totals, write_summary
from mlless.report.summary import Meter, summarize
from mlless.runtimes.processes import ProcessRuntime
from mlless.supervisor import Leavers, Supervisor, nobody

_GRACE = 10.0  # seconds for workers to exit once the model is there

Listener = Callable[[StepRecord], None]


@dataclass(frozen=True, repr=False)
class Run:
    """A finished training: its folder and its summary."""

    folder: Path
    summary: Summary

    def __repr__(self) -> str:
        heldout = ", ".join(f"{name} {value:.4f}" for name, value in self.summary.heldout.items())
        return f"<Run {self.folder}: {self.summary.steps} steps, {heldout or 'nothing held out'}>"

    def model(self) -> Predictor:
        """Return the trained model, ready to score."""
        return Predictor(read_artifact(self.folder))

    def history(self) -> list[StepRecord]:
        """Return the record of every step."""
        lines = (self.folder / HISTORY).read_bytes().splitlines()
        return [msgspec.json.decode(line, type=StepRecord) for line in lines]


def train(
    dataset: str | Path,
    *,
    out: str | Path,
    model: Literal["mf", "lr"] | None = None,
    workers: int | None = None,
    sync: Literal["bsp", "isp"] = "isp",
    significance: float | None = None,
    factors: int | None = None,
    optimizer: Literal["adagrad", "nesterov"] = "adagrad",
    learning_rate: float | None = None,
    l2: float | None = None,
    merge: MergeRule | None = None,
    epochs: int | None = None,
    patience: int | None = None,
    target: str | None = None,
    max_time: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    show: bool = False,
    listen: Listener = lambda record: None,
) -> Run:
    """Train a model on a partitioned data set with worker processes; return the run.

    What is left None follows from the data set, or is the measured default for the model. ``out``
    becomes the run's folder: ``model.safetensors``, ``history.jsonl``, ``summary.json``. ``show``
    tells how it goes: live on a terminal, else in a line an evaluation. ``listen`` hears of every step.
    A Ctrl-C or SIGTERM does not raise: the run comes back with the model so far and the
    ``summary.stop_reason`` ``interrupted``. A second one raises KeyboardInterrupt.
    """
    wishes = Wishes(
        model=model,
        workers=workers,
        sync=sync,
        significance=significance,
        factors=factors,
        optimizer=optimizer,
        learning_rate=learning_rate,
        l2=l2,
        merge=merge,
        epochs=epochs,
        patience=patience,
        target=target,
        max_time=max_time,
        seed=seed,
    )
    data = open_dataset(dataset)
    spec = plan_job(wishes, data)
    with _shown(spec, listen) if show else nullcontext(listen) as hear:
        return run_job(spec, data, Path(out), overwrite=overwrite, listen=hear)


@contextmanager
def _shown(spec: JobSpec, listen: Listener) -> Iterator[Listener]:
    try:
        from mlless.report.progress import progress
    except ModuleNotFoundError as error:
        raise UsageError("showing progress needs rich", cure="pip install 'mlless[all]'") from error
    with progress(spec) as display:

        def hear(record: StepRecord) -> None:
            display(record)
            listen(record)

        yield hear


def plan_job(wishes: Wishes, dataset: Dataset, *, least_steps: int = 0) -> JobSpec:
    """Return the job that ``run_job`` is to run on a data set of this machine; see ``recipes.job_of``."""
    # Memory is quicker than any compressor: on one machine updates travel as they are.
    location = str(Path(dataset.location).resolve())
    return job_of(wishes, dataset.manifest, location, compression="none", least_steps=least_steps)


def run_job(
    spec: JobSpec,
    dataset: Dataset,
    out: Path,
    *,
    overwrite: bool = False,
    listen: Listener = lambda record: None,
    leavers: Leavers = nobody,
) -> Run:
    """Run a job on processes of this machine; its folder ``out`` then holds model, history, summary.

    ``leavers`` decides after each step which workers to let go. A Ctrl-C ends the job in order, with
    the model so far; a second one at once. Whatever happens, nothing of the job is left behind but
    the run's folder.
    """
    check_run_folder(out, overwrite)
    meter, totals = Meter(), Totals()
    model = model_of(spec.model)
    replica = Replica(model.shapes)
    replica.restore(model.initial(np.random.Generator(np.random.PCG64(spec.seed))))
    with _channels(replica, spec.workers) as (folder, store, hub, runtime), HistoryFile(out) as history:
        checkpoint.save_snapshot(store, checkpoint.INITIAL, replica.snapshot())

        def hear(record: StepRecord) -> None:
            meter.mark_start()
            totals.add(record)
            history.add(record)
            listen(record)

        supervisor = Supervisor(
            spec,
            hub=hub,
            store=store,
            runtime=runtime,
            clock=SystemClock(),
            version=mlless.__version__,
            initial_digest=replica.digest(),
            listen=hear,
            leavers=leavers,
        )
        with _interruptible(supervisor):
            launches = {
                (worker, 0): msgspec.json.encode(Launch(spec, str(folder), worker, 0))
                for worker in range(spec.workers)
            }
            runtime.start(launches)
            outcome = supervisor.run()
            tables = checkpoint.read_snapshot(store, checkpoint.RESULT)
            outcome.ended += runtime.stop(_GRACE)
            ids = dataset.ids() if dataset.manifest.kind == "ratings" else None
            shape = dataset.manifest.shape
            about = Description(
                ARTIFACT_FORMAT,
                mlless.__version__,
                spec.model,
                spec.fingerprint,
                spec.seed,
                shape.columns if isinstance(shape, Clicks) else None,
            )
            write_artifact(out, Artifact(about, tables, ids))
            summary = summarize(spec, outcome, totals, meter)
            write_summary(out, summary)
            history.keep()
    return Run(out, summary)


@contextmanager
def _channels(
    replica: Replica, workers: int
) -> Iterator[tuple[Path, EmbeddedStore, EmbeddedHub, ProcessRuntime]]:
    """Open the channels of a job on this machine; whatever happens, nothing of them is left behind."""
    model = sum(table.shared.nbytes for table in replica.tables)
    folder = make_folder(needed=(3 + 2 * workers) * model)  # three snapshots, two updates a worker
    store = EmbeddedStore(folder)
    try:
        hub = EmbeddedHub(folder)
        # Who has no compiled kernels has been told so here; the workers need not say it again.
        runtime = ProcessRuntime(ENTRY, folder, {"MLLESS_KERNELS": kernels.NAME})
        try:
            yield folder, store, hub, runtime
        finally:
            hub.close()
            runtime.stop(0.0)
    finally:
        store.destroy()


def check_run_folder(out: Path, overwrite: bool) -> None:
    """Raise UsageError if a run in the folder ``out`` would replace anything that must not be lost.

    What a failed run has left behind, a history without a model, makes way.
    """
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if MODEL in found and not overwrite:
        raise UsageError(
            "the run's folder exists", where=str(out), cure="choose another --out, or add --overwrite"
        )
    if found - {HISTORY} and MODEL not in found:
        raise UsageError("not a run's folder, so nothing is written to it", where=str(out))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the run's folder: {error.strerror}", where=str(out), cure="choose another --out"
        ) from error


@contextmanager
def _interruptible(supervisor: Supervisor) -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into an orderly end of the job; the second stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        for again in before:
            signal.signal(again, signal.default_int_handler)
        supervisor.request_stop("interrupted")

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: it was not set from Python, and cannot be set back from here
                signal.signal(number, handler)
