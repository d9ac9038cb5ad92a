"""Training from Python: ``train``, and ``resume`` after it was lost."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Unpack

from mlless.closing import Listener
from mlless.data.dataset import Dataset, open_dataset
from mlless.deployment import Deployment
from mlless.driver import plan_job, plan_resume, run_job, unheard
from mlless.locations import Location
from mlless.options import anew, chosen, declared, made, takes_options
from mlless.records import StepRecord
from mlless.report.left import resuming
from mlless.report.progress import progress
from mlless.run import Run
from mlless.tracking.callback import Callback
from mlless.train_options import ResumeOptions, TrainOptions
from mlless.wishes import Wishes


@takes_options(*declared(Wishes), *declared(Deployment))
def train(
    dataset: Location | Dataset,
    *,
    out: Location,
    overwrite: bool = False,
    verbose: bool = True,
    listen: Listener = unheard,
    callbacks: Sequence[Callback] = (),
    **options: Unpack[TrainOptions],
) -> Run:
    """Train a model on a partitioned data set, on this machine or by functions elsewhere, and return the run.

    A Ctrl-C or SIGTERM does not raise. The run then has the model so far, and its ``summary.stop_reason`` is
    ``interrupted``. A second one raises KeyboardInterrupt.

    Parameters
    ----------
    dataset : str, path or Dataset
        The folder of the data set, or the URL of its prefix in an object store.
    out : str or path
        The folder or URL for the run: ``model.safetensors``, ``history.jsonl`` and ``summary.json``.
    overwrite : bool, default False
        Whether to replace a run that is there.
    verbose : bool, default True
        Whether to show how it goes: live on a terminal, elsewhere one line for each evaluation.
    listen : callable
        Is called with the `StepRecord` of every step. If it returns True the training ends. It is the short
        form of a callback that hears of steps alone.
    callbacks : list
        Objects like `mlless.tracking.Callback`, such as ``mlless.tracking.MLflow()``.
    **options
        See below. Settings in files and variables do not count: they are for the command line.

    Returns
    -------
    Run
        The run, with its model, history and summary.

    Raises
    ------
    UsageError
        The request does not fit the data set, or its options do not go together.
    MLLessError
        The training failed; the class of the error says how.
    """
    wishes, deployment = made(Wishes, options), made(Deployment, options)
    data = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    spec = plan_job(wishes, data, deployment)
    with progress(spec) if verbose else nullcontext(unheard) as display:

        def hear(record: StepRecord) -> object:
            """Show a step, and tell who listens."""
            display(record)
            return listen(record)

        return run_job(
            spec,
            data,
            out,
            overwrite=overwrite,
            listen=hear,
            callbacks=callbacks,
            deployment=deployment,
        )


@takes_options(*anew(Wishes), *declared(Deployment))
def resume(
    run: Location,
    *,
    dataset: Location | Dataset | None = None,
    verbose: bool = True,
    listen: Listener = unheard,
    callbacks: Sequence[Callback] = (),
    **options: Unpack[ResumeOptions],
) -> Run:
    """Go on with a training that was killed or has failed, from its newest checkpoint, and return the run.

    Steps after the checkpoint are taken again. Time, money, history, patience and the best model go on from
    where they were. The training may go on with other workers, and elsewhere.

    Parameters
    ----------
    run : str or path
        The folder or URL of the run: what ``train`` was given as ``out``.
    dataset : str, path or Dataset, optional
        Where the same data set is now, if it was moved.
    verbose : bool, default True
        Whether to show how it goes, as ``train`` does.
    listen : callable
        Is called with the `StepRecord` of every further step, as by ``train``.
    callbacks : list
        As those of ``train``.
    **options
        See below. Where functions run and meet must be given again.

    Returns
    -------
    Run
        The run, with the summary of all of it.

    Raises
    ------
    UsageError
        There is no run, or it cannot be resumed: it still runs, has ended, or has no checkpoint. Or the
        options do not go together.
    MLLessError
        The training failed; the class of the error says how.
    """
    deployment = made(Deployment, options)
    with resuming(run) as left:
        job = plan_resume(left, chosen(anew(Wishes), options), dataset)
        with (
            progress(job.spec, elapsed=left.seconds, earlier=left.records)
            if verbose
            else nullcontext(unheard) as display
        ):

            def hear(record: StepRecord) -> object:
                """Show a step, and tell who listens."""
                display(record)
                return listen(record)

            return run_job(
                job.spec,
                job.dataset,
                left.place,
                listen=hear,
                callbacks=callbacks,
                deployment=deployment,
                left=job.left,
            )
