"""Snapshots in the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlless import checkpoint
from mlless.channels.embedded_store import EmbeddedStore
from mlless.errors import DatasetError, MissingUpdate
from mlless.replica import Replica, TableShape

SHAPES = (TableShape("users", 30, 5), TableShape("intercept", 1, 1))


def trained(seed: int) -> Replica:
    replica, random = Replica(SHAPES), np.random.default_rng(seed)
    for table in replica.tables:
        table.shared[:] = random.normal(0, 1, table.shared.shape)
        table.residual[:] = 1
    return replica


def test_a_snapshot_restores_the_same_bits(tmp_path: Path) -> None:
    store, replica, other = EmbeddedStore(tmp_path), trained(1), trained(2)
    checkpoint.save_snapshot(store, checkpoint.BEST, replica.snapshot())
    checkpoint.load_snapshot(store, checkpoint.BEST, other)
    assert other.digest() == replica.digest()
    assert not any(table.residual.any() for table in other.tables)
    assert set(checkpoint.read_snapshot(store, checkpoint.BEST)[0]) == {"users", "intercept"}


def test_the_latest_snapshot_of_a_name_counts(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    for seed in (1, 2):
        checkpoint.save_snapshot(store, checkpoint.BEST, trained(seed).snapshot())
    other = trained(3)
    checkpoint.load_snapshot(store, checkpoint.BEST, other)
    assert other.digest() == trained(2).digest()


def test_a_missing_snapshot_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingUpdate, match="best"):
        checkpoint.read_snapshot(EmbeddedStore(tmp_path), checkpoint.BEST)


@pytest.mark.parametrize("data", [b"", b"x", b"\xff" * 100, b"\x10" + bytes(50)])
def test_what_is_no_snapshot_is_refused(tmp_path: Path, data: bytes) -> None:
    store = EmbeddedStore(tmp_path)
    store.put("best", [data])
    with pytest.raises(DatasetError, match="best: not a snapshot"):
        checkpoint.read_snapshot(store, "best")


def test_a_snapshot_of_another_model_is_refused(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    checkpoint.save_snapshot(store, "best", trained(1).snapshot())
    with pytest.raises(DatasetError, match="not a snapshot of this model: table users"):
        checkpoint.load_snapshot(store, "best", Replica((TableShape("users", 29, 5), SHAPES[1])))
