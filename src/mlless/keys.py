"""PURE: under which keys the functions of a job find one another's updates and models in their store.

Each names step, worker and generation: no other function ever writes to it.
"""

from __future__ import annotations

from mlless.messages import FunctionId

INITIAL = "initial"  # the model x_0, which the driver stores
BEST, RESULT, CHECKPOINT = "best", "result", "checkpoint"  # kinds of models,
DONATION, HANDOVER = "donation", "handover"  # and those that are there for one step,
ROWS = "rows"  # as are the rows of an owner that leaves
UPDATE, MERGED = "update", "merged"  # updates, and sums of the pieces of all


def model_key(kind: str, step: int, function: FunctionId) -> str:
    """Return the key of the model of a step that a function stores."""
    worker, generation = function
    return f"{kind}/{step}/{worker}.{generation}"


def update_key(step: int, function: FunctionId) -> str:
    """Return the key of a function's update of a step, or of that part of it which everyone reads."""
    return model_key(UPDATE, step, function)


def piece_key(step: int, function: FunctionId, shard: int) -> str:
    """Return the key of the piece of an update that the merger of a shard reads."""
    return f"{model_key(UPDATE, step, function)}/{shard}"


def merged_key(step: int, function: FunctionId, shard: int) -> str:
    """Return the key of what a function has merged of a shard."""
    return f"{model_key(MERGED, step, function)}/{shard}"


def pieces(step: int, function: FunctionId, shards: int) -> list[str]:
    """Return all keys that an update may have which is cut into so many shards."""
    return [update_key(step, function), *[piece_key(step, function, shard) for shard in range(shards)]]
