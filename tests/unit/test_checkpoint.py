"""Models in the store: snapshots, and origins from which a replica starts."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.extra.numpy
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless import checkpoint
from mlless.channels.embedded_store import EmbeddedStore
from mlless.checkpoint import Memory
from mlless.errors import DatasetError, JobError, MissingUpdate
from mlless.messages import Origin
from mlless.replica import Replica, TableShape

SHAPES = (TableShape("users", 30, 5), TableShape("intercept", 1, 1))


def trained(seed: int) -> Replica:
    replica, random = Replica(SHAPES), np.random.default_rng(seed)
    for table in replica.tables:
        table.shared[:] = random.normal(0, 1, table.shared.shape)
        table.state[:] = random.normal(0, 1, table.shared.shape)
        table.residual[:] = 1
    return replica


def test_a_replica_starts_from_an_origin_with_the_same_bits(tmp_path: Path) -> None:
    store, replica, other = EmbeddedStore(tmp_path), trained(1), trained(2)
    origin, size = checkpoint.save_origin(store, "donation/7/0.0", replica, 7, Memory((3, -4), 12))
    assert origin == Origin("donation/7/0.0", 7, replica.digest())
    assert checkpoint.load_origin(store, origin, other, origin.step) == (Memory((3, -4), 12), size)
    assert other.digest() == replica.digest()
    for mine, theirs in zip(replica.tables, other.tables, strict=True):
        assert np.array_equal(mine.state, theirs.state)
        assert not theirs.residual.any()
        assert (theirs.last == 6).all()


bits = hypothesis.extra.numpy.arrays(np.uint32, st.just(int(sum(3 * s.columns * s.rows for s in SHAPES))))


@given(bits=bits, last=st.integers(-1, 2**31 - 1), samples=st.integers(1, 2**40), quiet=st.booleans())
def test_a_whole_origin_has_all_bits_of_a_replica(bits, last: int, samples: int, quiet: bool) -> None:
    replica, other, at = Replica(SHAPES), trained(2), 0
    for table in replica.tables:
        for section in (table.shared, table.state, table.residual):
            section.view(np.uint32)[:] = bits[at : at + section.size].reshape(section.shape)
            at += section.size
        table.last[0] = last
        if quiet:
            table.residual[:] = 0
    memory = Memory((3, -100), samples)
    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddedStore(Path(folder))
        origin, size = checkpoint.save_origin(store, "handover/7/0.0", replica, 7, memory, whole=True)
        assert checkpoint.load_origin(store, origin, other, origin.step) == (memory, size)
    for mine, theirs in zip(replica.tables, other.tables, strict=True):
        assert np.array_equal(mine.rows.data.view(np.uint32), theirs.rows.data.view(np.uint32))


def test_an_origin_may_have_no_memory(tmp_path: Path) -> None:
    store, replica, other = EmbeddedStore(tmp_path), trained(1), Replica(SHAPES)
    checkpoint.save_snapshot(store, "initial", replica.snapshot())
    memory, _ = checkpoint.load_origin(store, Origin("initial", 0, replica.digest()), other, 0)
    assert memory == Memory()
    assert not any(table.state.any() for table in other.tables)
    assert all((table.last == -1).all() for table in other.tables)


def test_another_model_than_the_one_that_was_meant_is_refused(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    origin, _ = checkpoint.save_origin(store, "donation", trained(1), 7, Memory())
    wrong = msgspec.structs.replace(origin, digest="0" * 16)
    with pytest.raises(JobError, match="donation: not the model that this worker is to start from"):
        checkpoint.load_origin(store, wrong, Replica(SHAPES), 0)
    checkpoint.load_origin(store, msgspec.structs.replace(origin, digest=""), Replica(SHAPES), 0)


def test_the_latest_snapshot_of_a_key_counts(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    for seed in (1, 2):
        checkpoint.save_snapshot(store, "best", trained(seed).snapshot(), step=seed)
    tables, step = checkpoint.read_snapshot(store, ["best"], {})
    assert step == 2
    assert set(tables) == {"users", "intercept"}
    other = Replica(SHAPES)
    other.restore(tables)
    assert other.digest() == trained(2).digest()


def test_a_missing_snapshot_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingUpdate, match="best"):
        checkpoint.read_snapshot(EmbeddedStore(tmp_path), ["best"], {})


@pytest.mark.parametrize("data", [b"", b"x", b"\xff" * 100, b"\x10" + bytes(50)])
def test_what_is_no_snapshot_is_refused(tmp_path: Path, data: bytes) -> None:
    store = EmbeddedStore(tmp_path)
    store.put("best", [data])
    with pytest.raises(DatasetError, match="best: not a snapshot"):
        checkpoint.read_snapshot(store, ["best"], {})


def test_an_origin_of_another_model_is_refused(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    origin, _ = checkpoint.save_origin(store, "donation", trained(1), 7, Memory())
    with pytest.raises(DatasetError, match="not a snapshot of this model: table users"):
        checkpoint.load_origin(store, origin, Replica((TableShape("users", 29, 5), SHAPES[1])), 0)
