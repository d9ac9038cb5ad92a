"""Who follows a training: callbacks of the user's own, and trackers that pass it on to other tools.

``MLflow``, ``TensorBoard`` and ``WandB`` are callbacks. Each imports its tool's own client when a training
begins, not before.
"""

from __future__ import annotations

from mlless.tracking.callback import Beginning, Callback, Ending
from mlless.tracking.mlflow import MLflow
from mlless.tracking.tensorboard import TensorBoard
from mlless.tracking.wandb import WandB

__all__ = ["Beginning", "Callback", "Ending", "MLflow", "TensorBoard", "WandB"]
