"""Models in the store: snapshots of ``shared``, and origins from which a replica can start.

A snapshot has a table's ``shared`` under the table's name. An origin has the optimizer's state besides, as
``NAME/state``, and what a stepper remembers; it may lack them, as the initial model does. A *whole* one has
all that the next step of its replica depends on: ``NAME/last``, too, and ``NAME/residual`` unless it is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from mlless.channels.ports import Bytes, KeyValueStore
from mlless.errors import DatasetError, JobError
from mlless.kernels.arrays import Floats
from mlless.messages import Origin
from mlless.replica import Replica

_STATE, _RESIDUAL, _LAST = "/state", "/residual", "/last"
Arrays = dict[str, NDArray[Any]]  # of float32 and int32


class Memory(msgspec.Struct, frozen=True):
    """What a stepper has beside its replica: the filter's exponents, the samples of its newest mini-batch."""

    exponents: tuple[int, ...] = ()
    samples: int = 1


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
    return _save(store, key, {**arrays}, {"step": str(step)})


def read_snapshot(store: KeyValueStore, key: str) -> tuple[dict[str, Floats], int]:
    """Return the snapshot under ``key``, table by table, and of which step it is."""
    arrays, metadata, _ = _read(store, key)
    return arrays, int(metadata.get("step", 0))


def save_origin(
    store: KeyValueStore, key: str, replica: Replica, step: int, memory: Memory, *, whole: bool = False
) -> tuple[Origin, int]:
    """Store from where another replica can start in ``step``; return that, and its bytes."""
    size = _save(store, key, *origin_of(replica, step, memory, whole=whole))
    return Origin(key, step, replica.digest()), size


def origin_of(
    replica: Replica, step: int, memory: Memory, *, whole: bool = False
) -> tuple[Arrays, dict[str, str]]:
    """Return from where another replica can start in ``step``, as arrays and metadata.

    From a ``whole`` one it goes on as this one would.
    """
    arrays: Arrays = {**replica.snapshot()}
    for table in replica.tables:
        name = table.shape.name
        arrays[name + _STATE] = table.state.copy()
        if whole:
            arrays[name + _LAST] = table.last.copy()
            if table.residual.view(np.int32).any():  # its bits, for there is a zero below zero
                arrays[name + _RESIDUAL] = table.residual.copy()
    exponents = " ".join(map(str, memory.exponents))
    return arrays, {"step": str(step), "exponents": exponents, "samples": str(memory.samples)}


def load_origin(store: KeyValueStore, origin: Origin, replica: Replica) -> tuple[Memory, int]:
    """Start a replica from where ``origin`` says; return what a stepper remembers, and the bytes read.

    If the origin is not whole, the residual is zero, and every row counts as touched in the step before.
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
    return memory_of(metadata), size


def memory_of(metadata: Mapping[str, str]) -> Memory:
    """Return what a stepper remembers that goes on from an origin with this metadata."""
    exponents = tuple(map(int, metadata.get("exponents", "").split()))
    return Memory(exponents, int(metadata.get("samples", 1)))


def start_from(arrays: Arrays, step: int, replica: Replica) -> None:
    """Start a replica in a step, from an origin's arrays."""
    replica.restore(arrays)
    for table in replica.tables:
        for name, section in ((_STATE, table.state), (_RESIDUAL, table.residual)):
            if (stored := arrays.get(table.shape.name + name)) is not None:
                section[:] = stored
        table.last[:] = arrays.get(table.shape.name + _LAST, step - 1)


def _save(store: KeyValueStore, key: str, arrays: Arrays, metadata: dict[str, str]) -> int:
    data = packed(arrays, metadata)
    store.put(key, [data])
    return len(data)


def _read(store: KeyValueStore, key: str) -> tuple[dict[str, Floats], dict[str, str], int]:
    data = bytes(store.get([key])[0])
    try:
        return safetensors.numpy.load(data), metadata_of(data), len(data)
    except safetensors.SafetensorError as error:
        raise DatasetError("not a snapshot", where=key, found=str(error)) from error
