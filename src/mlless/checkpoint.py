"""Snapshots of ``shared`` in the store: the start x_0, the best model so far, the result."""

from __future__ import annotations

import safetensors
import safetensors.numpy

from mlless.channels.ports import KeyValueStore
from mlless.errors import DatasetError
from mlless.kernels.arrays import Floats
from mlless.replica import Replica

NAMES = INITIAL, BEST, RESULT = "initial", "best", "result"


def save_snapshot(store: KeyValueStore, name: str, arrays: dict[str, Floats]) -> None:
    """Store a snapshot under ``name``."""
    store.put(name, [safetensors.numpy.save(arrays)])


def read_snapshot(store: KeyValueStore, name: str) -> dict[str, Floats]:
    """Return the snapshot ``name``, table by table."""
    try:
        return safetensors.numpy.load(bytes(store.get([name])[0]))
    except safetensors.SafetensorError as error:
        raise DatasetError("not a snapshot", where=name, found=str(error)) from error


def load_snapshot(store: KeyValueStore, name: str, replica: Replica) -> None:
    """Set the replica to the snapshot ``name``."""
    replica.restore(read_snapshot(store, name))
