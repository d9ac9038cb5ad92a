"""Publishing to the store and merging everyone's updates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.unit.exchange.conftest import made_update

from mlless.channels.embedded_store import EmbeddedStore
from mlless.channels.ports import Bytes
from mlless.errors import CodecError, MissingUpdate
from mlless.exchange import codec, reading
from mlless.exchange.broadcast import Broadcast
from mlless.exchange.reading import Reader
from mlless.exchange.update import Update
from mlless.job import Compression, Sync
from mlless.kernels.arrays import TableUpdate
from mlless.keys import update_key
from mlless.messages import Commit
from mlless.replica import Replica, TableShape

SHAPES = [TableShape("users", 20, 5), TableShape("items", 30, 5)]


@pytest.fixture
def store(tmp_path: Path) -> EmbeddedStore:
    return EmbeddedStore(tmp_path)


class Member:
    """A worker's replica and its part of the exchange."""

    def __init__(
        self, store: EmbeddedStore, worker: int, generation: int = 0, compression: Compression = "zstd"
    ) -> None:
        self.replica, self.store = Replica(SHAPES), store
        sync = Sync(significance=0.0, half=False, merge="sum", compression=compression)
        self.pattern = Broadcast(Reader(store, self.replica), sync, (worker, generation))

    def publish(self, step: int, update: Update) -> int:
        pieces = self.pattern.encode(step, update)
        self.store.put_all(pieces)
        return sum(map(len, pieces.values()))

    def merge(self, step: int, published: list[tuple[int, int]]) -> int:
        return self.pattern.merge(Commit(step, tuple(published), ()), 3)


def digest_of(*updates: Update) -> str:
    """Return the digest of a replica into which the updates were merged, in this order."""
    replica = Replica(SHAPES)
    replica.merge({str(n): codec.pack(update, "none") for n, update in enumerate(updates)}, "sum", 3)
    return replica.digest()


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_all_members_merge_the_same_updates_in_the_order_of_the_commit(
    store: EmbeddedStore, compression: Compression
) -> None:
    updates = {worker: made_update(worker, SHAPES, half=worker != 5) for worker in (0, 2, 5)}
    members = {worker: Member(store, worker, compression=compression) for worker in updates}
    sizes = {worker: member.publish(7, updates[worker]) for worker, member in members.items()}
    for worker, member in members.items():
        size = member.merge(7, [(0, 0), (2, 0), (5, 0)])
        assert size == sum(sizes[peer] for peer in updates if peer != worker)
        assert member.replica.digest() == digest_of(*updates.values())


def test_the_order_of_the_commit_is_that_of_the_sum(store: EmbeddedStore) -> None:
    """In float32 a + b + c depends on it: one's own update is merged in its place, not first or last."""
    published = [(0, 0), (1, 0), (2, 0)]
    members = [Member(store, worker) for worker, _ in published]
    nothing = TableUpdate(np.empty(0, np.uint32), np.empty((0, 1), np.uint8), np.empty(0, np.float32))
    for member, value in zip(members, (1e8, -1e8, 3.0), strict=True):
        first = np.zeros(1, np.uint32), np.ones((1, 1), np.uint8), np.array([value], np.float32)
        member.publish(0, (TableUpdate(*first), nothing))
    for member in members:
        member.merge(0, published)
        assert member.replica.tables[0].shared[0, 0] == 3.0


class Spied(EmbeddedStore):
    """A store that remembers what was read together."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.read: list[list[str]] = []

    def get(self, keys: Sequence[str]) -> list[Bytes]:
        self.read.append(list(keys))
        return super().get(keys)


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("me", [0, 3, 6, None])
@pytest.mark.parametrize("together", [1, 2, 3, 6])
def test_large_updates_are_merged_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: Compression, me: int | None, together: int
) -> None:
    """The same bits, and never more of them in memory than fit; one who published nothing cannot know."""
    updates = [made_update(worker, SHAPES, half=worker != 5, density=1.0, share=1.0) for worker in range(7)]
    store = Spied(tmp_path)
    for worker, update in enumerate(updates):
        Member(store, worker, compression=compression).publish(4, update)
    member = Member(store, 99 if me is None else me, compression=compression)
    own = updates[0 if me is None else me]
    if me is not None:
        member.pattern.encode(4, own)
    monkeypatch.setattr(reading, "_AT_ONCE", together * len(codec.pack(own, compression)))
    member.merge(4, [(worker, 0) for worker in range(7)])
    assert member.replica.digest() == digest_of(*updates)
    peers = [update_key(4, (worker, 0)) for worker in range(7) if worker != me]
    assert [key for keys in store.read for key in keys] == peers
    if me is None:
        assert store.read == [peers]
    else:
        assert max(map(len, store.read)) <= together


@pytest.mark.parametrize("trouble", ["damaged", "missing"])
def test_nothing_is_merged_if_the_last_of_many_large_updates_is_in_trouble(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    for worker in range(3):
        Member(store, worker).publish(4, made_update(worker, SHAPES, half=False))
    if trouble == "damaged":
        store.put(update_key(4, (3, 0)), [b"no update"])
    member = Member(store, 0)
    member.pattern.encode(4, made_update(0, SHAPES, half=False))
    monkeypatch.setattr(reading, "_AT_ONCE", 1)
    with pytest.raises(CodecError if trouble == "damaged" else MissingUpdate, match=r"update/4/3\.0"):
        member.merge(4, [(0, 0), (1, 0), (2, 0), (3, 0)])
    assert member.replica.digest() == digest_of()


def test_one_who_published_nothing_merges_the_others(store: EmbeddedStore) -> None:
    update = made_update(1, SHAPES, half=True)
    Member(store, 1).publish(0, update)
    other = Member(store, 0)
    assert other.pattern.encode(0, ()) == {}
    assert other.merge(0, []) == 0
    assert other.replica.digest() == digest_of()
    other.merge(0, [(1, 0)])
    assert other.replica.digest() == digest_of(update)


def test_an_update_of_no_entries_is_no_bytes(store: EmbeddedStore) -> None:
    assert Member(store, 0).pattern.encode(0, made_update(1, SHAPES, half=True, share=0.0)) == {}
    assert Member(store, 0).pattern.encode(0, ()) == {}


def test_a_missing_update_is_named(store: EmbeddedStore) -> None:
    Member(store, 1).publish(3, made_update(1, SHAPES, half=True))
    with pytest.raises(MissingUpdate, match=r"update/3/2\.0"):
        Member(store, 0).merge(3, [(1, 0), (2, 0)])


@pytest.mark.parametrize("shapes", [None, [TableShape("users", 20, 5)]])
def test_a_damaged_update_is_named_and_nothing_is_merged(
    store: EmbeddedStore, shapes: list[TableShape] | None
) -> None:
    Member(store, 1).publish(3, made_update(1, SHAPES, half=True))
    bad = b"no update"
    if shapes:  # whole, but of another model
        bad = bytes(codec.seal(codec.pack(made_update(2, shapes, half=True), "none"), "none"))
    store.put(update_key(3, (2, 0)), [bad])
    member = Member(store, 0)
    with pytest.raises(CodecError, match=r"update/3/2\.0: not a valid update"):
        member.merge(3, [(1, 0), (2, 0)])
    assert member.replica.digest() == digest_of()


def test_generations_have_keys_of_their_own(store: EmbeddedStore) -> None:
    old, new = made_update(1, SHAPES, half=True), made_update(2, SHAPES, half=True)
    Member(store, 1).publish(3, old)
    successor, other = Member(store, 1, generation=1), Member(store, 0)
    successor.publish(3, new)
    other.merge(3, [(1, 1)])
    assert other.replica.digest() == digest_of(new)
    # A successor reads what its predecessor published like anyone else's.
    successor.merge(3, [(1, 0)])
    assert successor.replica.digest() == digest_of(old)
