"""Snapshots of ``shared`` in the store: the start x_0, the best model so far, the result."""

from __future__ import annotations

import msgspec
import safetensors
import safetensors.numpy

from mlless.channels.ports import Bytes, KeyValueStore
from mlless.errors import DatasetError
from mlless.kernels.arrays import Floats
from mlless.replica import Replica

NAMES = INITIAL, BEST, RESULT = "initial", "best", "result"


class _Header(msgspec.Struct):
    """The part of a safetensors file's header that its Python package reads from files only."""

    metadata: dict[str, str] = msgspec.field(name="__metadata__", default_factory=dict)


def metadata_of(data: Bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file that is known to be one."""
    end = 8 + int.from_bytes(data[:8], "little")
    return msgspec.json.decode(data[8:end], type=_Header).metadata


def save_snapshot(store: KeyValueStore, name: str, arrays: dict[str, Floats], step: int = 0) -> None:
    """Store a snapshot under ``name``: the model after so many steps."""
    store.put(name, [safetensors.numpy.save(arrays, {"step": str(step)})])


def read_snapshot(store: KeyValueStore, name: str) -> tuple[dict[str, Floats], int]:
    """Return the snapshot ``name``, table by table, and of which step it is."""
    data = bytes(store.get([name])[0])
    try:
        return safetensors.numpy.load(data), int(metadata_of(data).get("step", 0))
    except safetensors.SafetensorError as error:
        raise DatasetError("not a snapshot", where=name, found=str(error)) from error


def load_snapshot(store: KeyValueStore, name: str, replica: Replica) -> None:
    """Set the replica to the snapshot ``name``."""
    tables, _ = read_snapshot(store, name)
    replica.restore(tables)
