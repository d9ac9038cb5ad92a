"""Models in the store: snapshots of ``shared``, and origins from which a replica can start.

A snapshot has a table's ``shared`` under the table's name. An origin has the optimizer's state besides, as
``NAME/state``, and what a stepper remembers; it may lack them, as the initial model does. A *whole* one has
all that the next step of its replica depends on: ``NAME/last``, too, and unless they are zero
``NAME/residual`` and ``NAME/kept``, what its worker has kept of the sums of all.

Of a table whose rows are owned, a worker knows those that are its own: ``NAME/rows`` are their numbers then,
and the table is in several *parts*, one a worker. The first part has what all share, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from mlless.channels.ports import Bytes, KeyValueStore
from mlless.errors import DatasetError, JobError
from mlless.kernels.arrays import Floats, Ids
from mlless.messages import Origin
from mlless.replica import Replica, Table

_STATE, _RESIDUAL, _LAST, _ROWS, _KEPT = "/state", "/residual", "/last", "/rows", "/kept"
Arrays = dict[str, NDArray[Any]]  # of float32, int32 and uint32


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


def packed(arrays: Arrays, metadata: dict[str, str]) -> bytes:
    """Return arrays and texts as the bytes of a safetensors file."""
    return safetensors.numpy.save(arrays, metadata)


def save_snapshot(store: KeyValueStore, key: str, arrays: Arrays, step: int = 0) -> int:
    """Store a snapshot, or a part of one, the model after so many steps; return its bytes."""
    return _save(store, key, {**arrays}, {"step": str(step)})


def read_snapshot(
    store: KeyValueStore, keys: Sequence[str], start: Mapping[str, Floats]
) -> tuple[dict[str, Floats], int]:
    """Return the snapshot whose parts are under ``keys``, table by table, and of which step it is.

    Rows that are nobody's are as at the ``start`` of the job.
    """
    parts = _read(store, keys)
    return assembled([arrays for arrays, _, _ in parts], start), int(parts[0][1].get("step", 0))


def read_origin(store: KeyValueStore, origin: Origin, start: Mapping[str, Floats]) -> bytes:
    """Return the bytes of an origin as if it were in one part; ``start`` is as in ``read_snapshot``."""
    parts = _read(store, (origin.key, *origin.parts))
    return packed(assembled([arrays for arrays, _, _ in parts], start), parts[0][1])


def assembled(parts: Sequence[Arrays], start: Mapping[str, Floats]) -> Arrays:
    """Return what the parts of a model come to; ``start`` is as in ``read_snapshot``."""
    first, *_ = parts
    owned = [name.removesuffix(_ROWS) for name in first if name.endswith(_ROWS)]
    whole = {name: array for name, array in first.items() if name.partition("/")[0] not in owned}
    for table in owned:
        whole[table] = np.array(start[table])
        for name in (table + section for section in (_STATE, _LAST) if table + section in first):
            whole[name] = np.zeros((len(start[table]), *first[name].shape[1:]), first[name].dtype)
        for part in parts:
            for name in (table, table + _STATE, table + _LAST):
                if name in whole:
                    whole[name][part[table + _ROWS]] = part[name]
    return whole


def save_origin(
    store: KeyValueStore,
    key: str,
    replica: Replica,
    step: int,
    memory: Memory,
    *,
    whole: bool = False,
    rows: Ids | None = None,
    shared: bool = True,
) -> tuple[Origin, int]:
    """Store from where another replica can start in ``step``; return that, and its bytes."""
    arrays, metadata = origin_of(replica, step, memory, whole=whole, rows=rows, shared=shared)
    owned = rows is not None or not any(table.shape.owned for table in replica.tables)
    return Origin(key, step, replica.digest(), owned=owned), _save(store, key, arrays, metadata)


def part_of(replica: Replica, rows: Ids | None, *, shared: bool) -> dict[str, Floats]:
    """Return a worker's part of a snapshot: its ``rows``, if it owns any, and what is ``shared``."""
    arrays: Arrays = {}
    for table, places in _places(replica, rows, shared=shared):
        arrays[table.shape.name] = table.shared[places].copy()
        if isinstance(places, np.ndarray):
            arrays[table.shape.name + _ROWS] = places
    return arrays


def origin_of(
    replica: Replica,
    step: int,
    memory: Memory,
    *,
    whole: bool = False,
    rows: Ids | None = None,
    shared: bool = True,
) -> tuple[Arrays, dict[str, str]]:
    """Return from where another replica can start in ``step``, as arrays and metadata.

    From a ``whole`` one it goes on as this one would, if it has what is ``shared``. Of rows that are owned it
    has ``rows``, or none.
    """
    arrays: Arrays = {**part_of(replica, rows, shared=shared)}
    for table, places in _places(replica, rows, shared=shared):
        name = table.shape.name
        arrays[name + _STATE] = table.state[places].copy()
        if whole:
            arrays[name + _LAST] = table.last[places].copy()
            if table.residual[places].view(np.int32).any():  # its bits, for there is a zero below zero
                arrays[name + _RESIDUAL] = table.residual[places].copy()
    for table, kept in zip(replica.tables, replica.kept, strict=True):
        if whole and shared and kept.view(np.int32).any():
            arrays[table.shape.name + _KEPT] = kept.copy()
    exponents = " ".join(map(str, memory.exponents))
    return arrays, {"step": str(step), "exponents": exponents, "samples": str(memory.samples)}


def _places(replica: Replica, rows: Ids | None, *, shared: bool) -> list[tuple[Table, Ids | slice]]:
    """Return the tables of which a worker's part of a model has something, and which rows."""
    places: list[tuple[Table, Ids | slice]] = []
    for table in replica.tables:
        if table.shape.owned and rows is not None:
            places.append((table, rows))
        elif shared and not table.shape.owned:
            places.append((table, slice(None)))
    return places


def load_origin(
    store: KeyValueStore, origin: Origin, replica: Replica, batches: int, rows: Ids | None = None
) -> tuple[Memory, int]:
    """Start a replica from where ``origin`` says; return what a stepper remembers, and the bytes read.

    So many mini-batches were taken before: ``batches``. If the origin is not whole, the residual is zero and
    nothing is kept of sums, and every row counts as touched in the last of them. Of tables whose rows are
    owned it takes ``rows``, as far as they are there.
    """
    (first, metadata, size), *others = _read(store, (origin.key, *origin.parts))
    start_from(first, batches, replica, rows)
    for arrays, _, more in others:
        take_rows(arrays, batches, replica, rows)
        size += more
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


def start_from(arrays: Arrays, batches: int, replica: Replica, rows: Ids | None = None) -> None:
    """Start a replica from an origin's arrays; ``batches`` and ``rows`` are as in ``load_origin``."""
    for table in replica.tables:
        if not table.shape.owned or rows is None:
            _start(table, slice(None), arrays, batches)
    if rows is not None:
        take_rows(arrays, batches, replica, rows)
    for table, kept in zip(replica.tables, replica.kept, strict=True):
        if (stored := arrays.get(table.shape.name + _KEPT)) is not None:
            kept[:] = stored


def take_rows(arrays: Arrays, batches: int, replica: Replica, rows: Ids | None) -> None:
    """Take from a part of a model, after so many mini-batches, those owned ``rows`` which it has."""
    for table in replica.tables:
        name = table.shape.name
        if not table.shape.owned or rows is None or name not in arrays:
            continue
        stored = arrays.get(name + _ROWS)
        there = rows if stored is None else stored[np.isin(stored, rows)]
        places = rows if stored is None else np.flatnonzero(np.isin(stored, rows))
        sections = (name, name + _STATE, name + _RESIDUAL, name + _LAST)
        _start(table, there, {one: arrays[one][places] for one in sections if one in arrays}, batches)


def _start(table: Table, rows: Ids | slice, arrays: Arrays, batches: int) -> None:
    name = table.shape.name
    table.restore(arrays.get(name), rows)
    for section, array in ((_STATE, table.state), (_RESIDUAL, table.residual)):
        if (stored := arrays.get(name + section)) is not None:
            array[rows] = stored
    table.last[rows] = arrays.get(name + _LAST, batches - 1)


def _save(store: KeyValueStore, key: str, arrays: Arrays, metadata: dict[str, str]) -> int:
    data = packed(arrays, metadata)
    store.put(key, [data])
    return len(data)


def read_part(store: KeyValueStore, key: str) -> tuple[Arrays, int]:
    """Return what is under a key of a model in parts, and its bytes."""
    [(arrays, _, size)] = _read(store, [key])
    return arrays, size


def _read(store: KeyValueStore, keys: Sequence[str]) -> list[tuple[Arrays, dict[str, str], int]]:
    read = []
    for key, value in zip(keys, store.get(keys), strict=True):
        data = bytes(value)
        try:
            read.append((safetensors.numpy.load(data), metadata_of(data), len(data)))
        except safetensors.SafetensorError as error:
            raise DatasetError("not a snapshot", where=key, found=str(error)) from error
    return read
