"""PURE: under which keys the functions of a job find one another's updates and models in their store.

Each names step, worker and generation: no other function ever writes to it.
"""

from __future__ import annotations

from mlless.messages import FunctionId

INITIAL = "initial"  # the model x_0, which the driver stores
BEST, RESULT, CHECKPOINT = "best", "result", "checkpoint"  # kinds of models,
DONATION, HANDOVER = "donation", "handover"  # and those that are there for one step
_UPDATE = "update"


def model_key(kind: str, step: int, function: FunctionId) -> str:
    """Return the key of the model of a step that a function stores."""
    worker, generation = function
    return f"{kind}/{step}/{worker}.{generation}"


def update_key(step: int, function: FunctionId) -> str:
    """Return the key of a function's update of a step."""
    return model_key(_UPDATE, step, function)
