"""Models in the store: snapshots of ``shared``, and origins from which a replica can start.

A snapshot has a table's ``shared`` under the table's name. An origin has the optimizer's state besides, as
``NAME/state``, and the exponents of the filter; it may lack them, as the initial model does.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import safetensors
import safetensors.numpy

from mlless.channels.ports import Bytes, KeyValueStore
from mlless.errors import DatasetError, JobError
from mlless.kernels.arrays import Floats
from mlless.messages import Origin
from mlless.replica import Replica

_STATE = "/state"


class _Header(msgspec.Struct):
    """The part of a safetensors file's header that its Python package reads from files only."""

    metadata: dict[str, str] = msgspec.field(name="__metadata__", default_factory=dict)


def metadata_of(data: Bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file that is known to be one."""
    end = 8 + int.from_bytes(data[:8], "little")
    return msgspec.json.decode(data[8:end], type=_Header).metadata


def packed(arrays: dict[str, Floats], metadata: dict[str, str]) -> bytes:
    """Return arrays and texts as the bytes of a safetensors file."""
    return safetensors.numpy.save(arrays, metadata)


def save_snapshot(store: KeyValueStore, key: str, arrays: dict[str, Floats], step: int = 0) -> int:
    """Store a snapshot, the model after so many steps; return its bytes."""
    return _save(store, key, arrays, {"step": str(step)})


def read_snapshot(store: KeyValueStore, key: str) -> tuple[dict[str, Floats], int]:
    """Return the snapshot under ``key``, table by table, and of which step it is."""
    arrays, metadata, _ = _read(store, key)
    return arrays, int(metadata.get("step", 0))


def save_origin(
    store: KeyValueStore, key: str, replica: Replica, step: int, exponents: Sequence[int]
) -> tuple[Origin, int]:
    """Store from where another replica can start in ``step``; return that, and its bytes."""
    states = {f"{table.shape.name}{_STATE}": table.state.copy() for table in replica.tables}
    metadata = {"step": str(step), "exponents": " ".join(map(str, exponents))}
    size = _save(store, key, replica.snapshot() | states, metadata)
    return Origin(key, step, replica.digest()), size


def load_origin(store: KeyValueStore, origin: Origin, replica: Replica) -> tuple[tuple[int, ...], int]:
    """Start a replica from where ``origin`` says; return the filter's exponents, if any, and the bytes read.

    The residual is zero, and every row counts as touched in the step before.
    """
    arrays, metadata, size = _read(store, origin.key)
    start_from(arrays, origin.step, replica)
    if origin.digest and (found := replica.digest()) != origin.digest:
        raise JobError(
            "not the model that this worker is to start from",
            where=origin.key,
            expected=f"digest {origin.digest}",
            found=found,
            cure="the file of it is damaged, or another program has written to the job's keys",
        )
    return tuple(map(int, metadata.get("exponents", "").split())), size


def start_from(arrays: dict[str, Floats], step: int, replica: Replica) -> None:
    """Start a replica in a step, from an origin's arrays."""
    replica.restore(arrays)
    for table in replica.tables:
        state = arrays.get(f"{table.shape.name}{_STATE}")
        if state is not None:
            table.state[:] = state
        table.last[:] = step - 1


def _save(store: KeyValueStore, key: str, arrays: dict[str, Floats], metadata: dict[str, str]) -> int:
    data = packed(arrays, metadata)
    store.put(key, [data])
    return len(data)


def _read(store: KeyValueStore, key: str) -> tuple[dict[str, Floats], dict[str, str], int]:
    data = bytes(store.get([key])[0])
    try:
        return safetensors.numpy.load(data), metadata_of(data), len(data)
    except safetensors.SafetensorError as error:
        raise DatasetError("not a snapshot", where=key, found=str(error)) from error
