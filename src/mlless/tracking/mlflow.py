"""Passes a training on to MLflow, through its client."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import mlless
from mlless.records import FAILED, RUNNING
from mlless.tracking.callback import Beginning, Ending
from mlless.tracking.tracker import APART, Point, Tracker, name_of, parameters_of

EXPERIMENT = "mlless"
_RUN = "mlless.run"  # the tag that names a run's place, so that one that is resumed is found again
_AT_ONCE = 1000  # metrics, and 100 parameters, are the most that MLflow takes with a request
_PARAMETERS = 100
_TEXT = 5000  # characters of a tag
_STATUS = {FAILED: "FAILED", "interrupted": "KILLED"}


class MLflow(Tracker):
    """Follows a training as a run of MLflow: the job as parameters, steps as metrics.

    A run that is resumed goes on in the run of MLflow that it had.

    Parameters
    ----------
    uri : str, optional
        A tracking server, as in ``http://HOST:5000``, or a database as in ``sqlite:///mlflow.db``. Without
        one MLflow's own settings count, such as ``MLFLOW_TRACKING_URI``.
    experiment : str, optional
        By default ``MLFLOW_EXPERIMENT_NAME``, or ``mlless``.
    every : float, default 0.1
        Seconds between two steps that are passed on; evaluations always are.
    """

    tool, packages, extra = "MLflow", ("mlflow-skinny",), "mlflow"

    def __init__(
        self, uri: str | None = None, *, experiment: str | None = None, every: float = APART
    ) -> None:
        super().__init__(every=every)
        self.uri, self.experiment = uri, experiment

    def open(self, beginning: Beginning) -> _Run:
        """Find the experiment and the run, or make them."""
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.uri)
        name = self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else client.create_experiment(name)
        if run := _run_before(client, experiment, beginning):
            client.update_run(run, status="RUNNING")
        else:
            run = _begun(client, experiment, beginning)
        return _Run(client, run)


def _run_before(client: Any, experiment: str, beginning: Beginning) -> str | None:
    """Return the run that a training goes on with: the newest one of its place, if it is resumed."""
    if not beginning.step or beginning.run is None:
        return None
    quote = '"' if "'" in beginning.run else "'"  # MLflow knows no other way to write one
    same = client.search_runs(
        [experiment],
        f"tags.`{_RUN}` = {quote}{beginning.run}{quote}",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    return str(same[0].info.run_id) if same else None


def _begun(client: Any, experiment: str, beginning: Beginning) -> str:
    """Begin a run of MLflow, with the job as its parameters; return its id."""
    from mlflow.entities import Param

    tags = {_RUN: beginning.run or "", "mlless.version": mlless.__version__}
    run = str(client.create_run(experiment, run_name=name_of(beginning), tags=tags).info.run_id)
    parameters = [Param(name, value) for name, value in parameters_of(beginning.job).items()]
    for some in _batches(parameters, _PARAMETERS):
        client.log_batch(run, params=some)
    return run


class _Run:
    """A run of MLflow."""

    def __init__(self, client: Any, run: str) -> None:
        self._client, self._run = client, run

    def write(self, points: Sequence[Point]) -> None:
        """Log the values of some steps, in as few requests as MLflow allows."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, int(point.at * 1000), point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for some in _batches(metrics, _AT_ONCE):
            self._client.log_batch(self._run, metrics=some)

    def close(self, ending: Ending) -> None:
        """End the run, unless another process goes on with it."""
        if ending.stop_reason == RUNNING:
            return
        self._client.set_tag(self._run, "mlless.stop_reason", ending.stop_reason)
        if ending.error:
            self._client.set_tag(self._run, "mlless.error", ending.error[:_TEXT])
        for name, value in ending.heldout.items():
            self._client.log_metric(self._run, f"model_{name}", value)
        self._client.set_terminated(self._run, _STATUS.get(ending.stop_reason, "FINISHED"))


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[at : at + size] for at in range(0, len(items), size))
