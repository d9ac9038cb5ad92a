"""Data sets in memory: the same rows, cut like those on disk, and the same when they are written there."""

from __future__ import annotations

import numpy as np
import pytest

from mlless.data.dataset import open_dataset
from mlless.data.ids import RatingIds
from mlless.data.memory import Parting, clicks_in_memory, of_all_rows, ratings_in_memory, store_dataset
from mlless.data.rows import ClicksRows
from mlless.errors import ChannelError


def made(validation: float = 0.1, scale=None, rows: int = 500):
    random = np.random.default_rng(1)
    users, items = random.integers(0, 20, rows), random.integers(0, 30, rows)
    ratings = random.integers(1, 6, rows).astype(np.float32)
    ids = RatingIds(np.arange(20) * 5, np.arange(30) * 7)
    parting = Parting(validation, seed=3)
    dataset = ratings_in_memory(users, items, ratings, ids=ids, scale=scale, parting=parting)
    return (users, items, ratings), dataset


def rows_in(dataset, files):
    found = []
    for group in dataset.groups(files):
        columns = group.users, group.items, group.ratings
        found += zip(*(column.tolist() for column in columns), strict=True)
    return sorted(found)


def test_every_rating_is_there_once():
    rows, dataset = made()
    manifest = dataset.manifest
    assert rows_in(dataset, manifest.train + manifest.validation) == sorted(
        zip(*(column.tolist() for column in rows), strict=True)
    )
    # Rows of one pair are on one side, so what is held out is only near to the tenth asked for.
    assert abs(sum(file.rows for file in manifest.validation) - 50) <= 2
    train, held_out = (
        {row[:2] for row in rows_in(dataset, f)} for f in (manifest.train, manifest.validation)
    )
    assert not train & held_out
    before = -1
    for files in zip(manifest.train, manifest.validation, strict=True):
        users = sorted({user for user, *_ in rows_in(dataset, files)})
        assert users == list(range(before + 1, before + 1 + len(users)))
        before = users[-1]
    assert len(manifest.train) == 20
    trained = np.array([rating for *_, rating in rows_in(dataset, manifest.train)])
    assert manifest.shape.mean == pytest.approx(trained.mean())
    assert manifest.shape.deviation == pytest.approx(trained.std())
    assert (manifest.shape.low, manifest.shape.high) == (1, 5)


def test_the_same_seed_gives_the_same_data_set():
    assert made()[1].manifest.fingerprint == made()[1].manifest.fingerprint


def test_a_given_scale_is_kept():
    scale = made()[1].manifest.shape
    other = made(scale=scale, rows=90)[1].manifest.shape
    assert (other.mean, other.deviation) == (scale.mean, scale.deviation)


def test_equal_ratings_have_a_deviation_of_one():
    ids = RatingIds(np.arange(2), np.arange(2))
    pair, ratings = np.arange(2), np.full(2, 0.1, np.float32)
    dataset = ratings_in_memory(pair, pair, ratings, ids=ids, scale=None, parting=Parting(0.0, 0))
    assert dataset.manifest.shape.deviation == 1.0


def test_clicks_keep_their_weights():
    random = np.random.default_rng(2)
    labels = random.integers(0, 2, 200).astype(np.uint8)
    indices = np.arange(200, dtype=np.uint32) % 9
    rows = ClicksRows(
        labels, np.arange(200), np.arange(201), indices, random.normal(size=200).astype(np.float32)
    )
    weights = random.random(200).astype(np.float32)
    dataset = clicks_in_memory(rows, weights, features=9, parting=Parting(0.2, 0))
    for one in (dataset, of_all_rows(dataset)):
        seen = []
        for group in one.groups(one.manifest.train + one.manifest.validation):
            np.testing.assert_array_equal(group.weights, weights[group.numbers])
            np.testing.assert_array_equal(group.labels, labels[group.numbers])
            np.testing.assert_array_equal(group.indices, indices[group.numbers])
            np.testing.assert_array_equal(group.values, rows.values[group.numbers])
            seen += group.numbers.tolist()
        assert sorted(seen) == list(range(200))
    trained = np.concatenate([group.numbers for group in dataset.groups(dataset.manifest.train)])
    share = np.average(labels[trained], weights=weights[trained])
    assert dataset.manifest.shape.positives == pytest.approx(share)


def test_all_rows_are_those_to_train_on_and_the_held_out_ones_of_the_same_group():
    _, dataset = made(validation=0.5)
    whole, manifest = of_all_rows(dataset), dataset.manifest
    assert (whole.manifest.validation, whole.manifest.rows) == ((), 500)
    assert whole.manifest.fingerprint != manifest.fingerprint
    for one, *parts in zip(whole.manifest.train, manifest.train, manifest.validation, strict=True):
        assert rows_in(whole, [one]) == rows_in(dataset, parts)
        held_out = {row[:2] for row in rows_in(dataset, parts[1:])}
        group = whole.read(one)
        order = [pair in held_out for pair in zip(group.users.tolist(), group.items.tolist(), strict=True)]
        assert order not in (sorted(order), sorted(order, reverse=True))  # they are mixed


def test_written_to_a_folder_it_is_the_same(tmp_path):
    _, dataset = made()
    store_dataset(dataset, tmp_path)
    there = open_dataset(tmp_path)
    assert there.manifest == dataset.manifest
    np.testing.assert_array_equal(there.ids().users, np.arange(20) * 5)
    files = there.manifest.train
    assert rows_in(there, files) == rows_in(dataset, files)


def test_what_is_not_there_is_named():
    with pytest.raises(ChannelError, match="no such object"):
        made()[1].objects.get("train/9")
