"""Passes a training on to Weights & Biases, through its client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mlless.records import FAILED
from mlless.tracking.callback import Beginning, Ending
from mlless.tracking.tracker import APART, Point, Tracker, name_of, parameters_of

PROJECT = "mlless"


class WandB(Tracker):
    """Follows a training as a run of Weights & Biases: the job as its configuration, steps as history.

    Key, team, and whether it is ``offline`` are settings of its client, such as ``WANDB_API_KEY``,
    ``WANDB_ENTITY`` and ``WANDB_MODE``. A training that is resumed is another run of the same group.

    Parameters
    ----------
    project : str, optional
        By default ``WANDB_PROJECT``, or ``mlless``.
    every : float, default 0.1
        Seconds between two steps that are passed on; evaluations always are.
    """

    tool, packages, extra = "Weights & Biases", ("wandb",), "wandb"

    def __init__(self, project: str | None = None, *, every: float = APART) -> None:
        super().__init__(every=every)
        self.project = project

    def open(self, beginning: Beginning) -> _Run:
        """Begin a run."""
        import wandb

        run = wandb.init(
            project=self.project or os.environ.get("WANDB_PROJECT") or PROJECT,
            name=name_of(beginning),
            group=beginning.run,
            config=parameters_of(beginning.job),
            settings=wandb.Settings(console="off", silent=True),  # what a training prints is its own
            reinit="create_new",
        )
        run.define_metric("*", step_metric="step")  # a job may go back, its client's own steps may not
        return _Run(run)


class _Run:
    """A run of Weights & Biases."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def write(self, points: Sequence[Point]) -> None:
        """Log some steps."""
        for point in points:
            self._run.log({"step": point.step, **point.values})

    def close(self, ending: Ending) -> None:
        """End the run, as failed if the training has."""
        self._run.summary["stop_reason"] = ending.stop_reason
        for name, value in ending.heldout.items():
            self._run.summary[f"model_{name}"] = value
        self._run.finish(exit_code=1 if ending.stop_reason == FAILED else 0)
