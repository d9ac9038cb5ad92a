"""Which tracker a tool's name stands for."""

from __future__ import annotations

from mlless.deployment import Deployment
from mlless.tracking.mlflow import MLflow
from mlless.tracking.tensorboard import TensorBoard
from mlless.tracking.tracker import Tracker
from mlless.tracking.wandb import WandB


def open_trackers(deployment: Deployment) -> list[Tracker]:
    """Return a tracker for each tool that a deployment passes its steps on to."""
    return [_tracker(tool, place) for tool, place in deployment.trackers]


def _tracker(tool: str, place: str) -> Tracker:
    match tool:
        case "mlflow":
            return MLflow(place or None)
        case "tensorboard":
            return TensorBoard(place)
        case _:
            return WandB(place or None)
