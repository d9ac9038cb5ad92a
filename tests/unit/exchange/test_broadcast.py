"""Publishing to the store and collecting everyone's updates."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.exchange.conftest import made_update, same_bits

from mlless.channels.embedded_store import EmbeddedStore
from mlless.errors import CodecError, MissingUpdate
from mlless.exchange import codec
from mlless.exchange.broadcast import Broadcast, update_key
from mlless.exchange.update import Update
from mlless.replica import TableShape

SHAPES = [TableShape("users", 20, 5), TableShape("items", 30, 5)]


@pytest.fixture
def store(tmp_path: Path) -> EmbeddedStore:
    return EmbeddedStore(tmp_path)


def member(store: EmbeddedStore, worker: int, generation: int = 0) -> Broadcast:
    return Broadcast(store, SHAPES, "zstd", worker, generation)


def publish(store: EmbeddedStore, worker: int, step: int, update: Update, generation: int = 0) -> int:
    one = member(store, worker, generation)
    chunks = one.encode(update)
    one.publish(step, chunks)
    return sum(len(chunk) for chunk in chunks)


def test_all_members_collect_the_same_updates_in_the_order_of_the_commit(store: EmbeddedStore) -> None:
    updates = {worker: made_update(worker, SHAPES, half=True) for worker in (0, 2, 5)}
    sizes = {worker: publish(store, worker, 7, update) for worker, update in updates.items()}
    published = [(0, 0), (2, 0), (5, 0)]
    expected = [codec.decoded(updates[worker]) for worker, _ in published]
    for worker, update in updates.items():
        collected, size = member(store, worker).collect(7, published, update)
        assert all(same_bits(got, want) for got, want in zip(collected, expected, strict=True))
        assert size == sum(sizes[peer] for peer in updates if peer != worker)


def test_one_who_published_nothing_collects_the_others(store: EmbeddedStore) -> None:
    update = made_update(1, SHAPES, half=True)
    publish(store, 1, 0, update)
    collected, _ = member(store, 0).collect(0, [(1, 0)], ())
    assert same_bits(collected[0], codec.decoded(update))
    assert member(store, 0).collect(0, [], ()) == ([], 0)


def test_an_update_of_no_entries_is_no_bytes(store: EmbeddedStore) -> None:
    assert member(store, 0).encode(made_update(1, SHAPES, half=True, share=0.0)) == []
    assert member(store, 0).encode(()) == []


def test_a_missing_update_is_named(store: EmbeddedStore) -> None:
    publish(store, 1, 3, made_update(1, SHAPES, half=True))
    with pytest.raises(MissingUpdate, match=r"update/3/2\.0"):
        member(store, 0).collect(3, [(1, 0), (2, 0)], ())


def test_a_damaged_update_is_named(store: EmbeddedStore) -> None:
    publish(store, 1, 3, made_update(1, SHAPES, half=True))
    store.put(update_key(3, 2, 0), [b"no update"])
    with pytest.raises(CodecError, match=r"update/3/2\.0: not a valid update"):
        member(store, 0).collect(3, [(1, 0), (2, 0)], ())


def test_generations_have_keys_of_their_own(store: EmbeddedStore) -> None:
    old, new = made_update(1, SHAPES, half=True), made_update(2, SHAPES, half=True)
    publish(store, 1, 3, old, generation=0)
    publish(store, 1, 3, new, generation=1)
    collected, _ = member(store, 0).collect(3, [(1, 1)], ())
    assert same_bits(collected[0], codec.decoded(new))
    # A successor reads what its predecessor published like anyone else's.
    collected, _ = member(store, 1, 1).collect(3, [(1, 0)], ())
    assert same_bits(collected[0], codec.decoded(old))


def test_discard_removes_ones_own_update_alone(store: EmbeddedStore) -> None:
    update = made_update(1, SHAPES, half=True)
    for worker in (0, 1):
        publish(store, worker, 3, update)
        publish(store, worker, 4, update)
    member(store, 0).discard(3)
    member(store, 0).discard(99)
    store.get([update_key(3, 1, 0), update_key(4, 0, 0), update_key(4, 1, 0)])
    with pytest.raises(MissingUpdate):
        store.get([update_key(3, 0, 0)])
