"""A worker's groups: each file is read once, and every row comes up once an epoch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from mlless.data.dataset import Dataset
from mlless.data.groups import ClicksGroup, Group, RatingsGroup
from mlless.data.holding import Holding
from mlless.data.manifest import NO_FILE
from mlless.errors import ChannelError
from mlless.kernels.arrays import ClicksArrays, RatingsArrays
from mlless.models.base import BatchArrays

DEADLINE = 20.0


class Counting:
    """The files of a data set, and which of them have been asked for."""

    def __init__(self, dataset: Dataset, *, distant: bool = False) -> None:
        self._objects, self.asked, self.distant = dataset.objects, list[str](), distant

    def get(self, path: str) -> bytes:
        self.asked.append(path)
        return self._objects.get(path)


def rows_of(batch: BatchArrays) -> list[tuple[object, ...]]:
    """Return the rows of a mini-batch: user, item and rating, or label and features with values."""
    if isinstance(batch, RatingsArrays):
        users = np.repeat(batch.users, np.diff(batch.starts))
        return list(
            zip(users.tolist(), batch.items[batch.local].tolist(), batch.ratings.tolist(), strict=True)
        )
    features = batch.features[batch.local].tolist()
    values = [1.0] * len(features) if batch.values is None else batch.values.tolist()
    starts = batch.starts.tolist()
    return [
        (label, *zip(features[a:b], values[a:b], strict=True))
        for label, a, b in zip(batch.labels.tolist(), starts, starts[1:], strict=False)
    ]


def rows_in(group: Group) -> list[tuple[object, ...]]:
    if isinstance(group, RatingsGroup):
        return list(zip(group.users.tolist(), group.items.tolist(), group.ratings.tolist(), strict=True))
    assert isinstance(group, ClicksGroup)
    ones = np.ones(len(group.indices), np.float32)
    as_batch = ClicksArrays(
        group.labels,
        group.starts,
        group.indices,
        np.arange(len(group.indices), dtype=np.uint32),
        4,
        ones if group.values is None else group.values,
    )
    return rows_of(as_batch)


def epoch_of(holding: Holding, epoch: int, parts: int) -> Iterator[list[tuple[object, ...]]]:
    for step in range(parts):
        batch = holding.batch(epoch, parts, step)
        yield [] if batch is None else rows_of(batch)


@pytest.fixture(params=["ratings", "clicks"])
def dataset(request: pytest.FixtureRequest) -> Dataset:
    return request.getfixturevalue(request.param)


OWNED = (1, 4, 5, 20)


def expected(dataset: Dataset, groups: tuple[int, ...] = OWNED) -> list[tuple[object, ...]]:
    files = [dataset.manifest.train[group] for group in groups]
    return sorted(row for file in files for row in rows_in(dataset.read(file)))


@pytest.mark.parametrize("parts", [1, 3, 50])
@pytest.mark.parametrize("room", [1 << 20, 2000, 0])
def test_every_row_comes_once_an_epoch_whatever_room_there_is(
    dataset: Dataset, parts: int, room: int
) -> None:
    holding = Holding(dataset, 7, room=room)
    holding.own(OWNED)
    for epoch in range(3):
        parted = list(epoch_of(holding, epoch, parts))
        assert sorted(row for part in parted for row in part) == expected(dataset)


def test_the_mini_batches_are_the_same_with_and_without_room(dataset: Dataset) -> None:
    ample, tight = Holding(dataset, 7), Holding(dataset, 7, room=1500)
    for holding in (ample, tight):
        holding.own(OWNED)
    for epoch in range(2):
        assert list(epoch_of(ample, epoch, 4)) == list(epoch_of(tight, epoch, 4))


def test_files_are_read_once_and_again_in_each_pass_where_they_do_not_fit(dataset: Dataset) -> None:
    store = Counting(dataset)
    counted = replace(dataset, objects=store)
    files = [dataset.manifest.train[group] for group in OWNED]
    holding = Holding(counted, 7)
    holding.own(OWNED)
    for epoch in range(3):
        list(epoch_of(holding, epoch, 4))
    assert store.asked == [file.path for file in files]
    training, scoring = holding.take_reads()
    assert (training.files, training.bytes) == (4, sum(file.bytes for file in files))
    assert scoring.files == 0
    assert holding.take_reads()[0].files == 0
    store.asked.clear()
    half = Holding(counted, 7, room=sum(file.bytes for file in files) // 2 + 1)
    half.own(OWNED)
    list(epoch_of(half, 0, 4))
    assert store.asked == [file.path for file in files] * 2  # two parts in each pass
    assert half.take_reads()[0].files == 8


def test_what_has_been_made_is_kept_as_long_as_groups_and_parts_stay(dataset: Dataset) -> None:
    holding = Holding(dataset, 7)
    holding.own(OWNED)
    first = {id(holding.batch(0, 4, step)) for step in range(4)}
    assert {id(holding.batch(1, 4, step)) for step in range(4)} == first
    rows = sorted(row for part in epoch_of(holding, 1, 5) for row in part)
    assert rows == expected(dataset)
    holding.own((1, 4))
    rows = sorted(row for part in epoch_of(holding, 1, 5) for row in part)
    assert rows == expected(dataset, (1, 4))


def test_nothing_more_is_kept_than_there_is_room_for(dataset: Dataset) -> None:
    ample = Holding(dataset, 7)
    ample.own(OWNED)
    made = [ample.batch(0, 4, step) for step in range(4)]
    raw = sum(dataset.read(dataset.manifest.train[group]).nbytes for group in OWNED)
    assert all(batch is not None for batch in made)
    two = sum(batch.nbytes for batch in made[:2] if batch is not None)
    tight = Holding(dataset, 7, room=raw + two)
    tight.own(OWNED)
    kept = [tight.batch(0, 4, step) for step in range(4)]
    assert [tight.batch(0, 4, step) is batch for step, batch in enumerate(kept)] == [True, True, False, False]


def test_groups_change_hands_in_mid_epoch_without_reading_again(dataset: Dataset) -> None:
    store = Counting(dataset)
    holding = Holding(replace(dataset, objects=store), 7)
    holding.own((1, 4))
    before = [row for step in range(2) for row in rows_of(holding.batch(0, 4, step))]  # type: ignore[arg-type]
    holding.own(OWNED)
    after = [row for step in range(2, 4) for row in rows_of(holding.batch(0, 4, step))]  # type: ignore[arg-type]
    other = Holding(dataset, 7)
    other.own((5, 20))
    missing = [row for step in range(2) for row in rows_of(other.batch(0, 4, step))]  # type: ignore[arg-type]
    assert sorted(before + after + missing) == expected(dataset)
    assert len(store.asked) == len(set(store.asked)) == 4


def test_who_owns_nothing_has_nothing(dataset: Dataset) -> None:
    holding = Holding(dataset, 7)
    holding.own(())
    assert holding.batch(0, 3, 0) is None
    assert list(holding.held_out()) == []


def test_groups_without_rows_to_train_on_give_no_mini_batch(ratings: Dataset) -> None:
    train = (NO_FILE, *ratings.manifest.train[1:])
    emptied = replace(ratings, manifest=msgspec.structs.replace(ratings.manifest, train=train))
    holding = Holding(emptied, 7)
    holding.own((0,))
    assert holding.batch(0, 3, 0) is None


@pytest.mark.parametrize("room", [1 << 20, 0])
def test_held_out_rows_are_those_of_the_groups(dataset: Dataset, room: int) -> None:
    store = Counting(dataset)
    holding = Holding(replace(dataset, objects=store), 7, room_held_out=room)
    groups = tuple(range(30))
    holding.own(groups)
    store.asked.clear()
    files = [file for group in groups if (file := dataset.manifest.validation[group]).rows]
    rows = sorted(row for file in files for row in rows_in(dataset.read(file)))
    for _ in range(2):
        assert sorted(row for batch in holding.held_out() for row in rows_of(batch)) == rows
    times = 1 if room else 2
    assert store.asked == [file.path for file in files] * times
    assert holding.take_reads()[1].files == times * len(files)


class Gated(Counting):
    """A distant store whose gets wait until they are let through."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset, distant=True)
        self.was_asked, self.gate = threading.Event(), threading.Event()

    def get(self, path: str) -> bytes:
        self.was_asked.set()
        assert self.gate.wait(DEADLINE)
        return super().get(path)


def test_groups_that_are_expected_come_from_a_distant_store_while_others_are_trained_on(
    dataset: Dataset,
) -> None:
    store = Gated(dataset)
    holding = Holding(replace(dataset, objects=store), 7)
    holding.expect((4, 5))
    assert store.was_asked.wait(DEADLINE)  # the gets are under way, and this thread is free
    store.gate.set()
    holding.own((4, 5))
    assert sorted(row for part in epoch_of(holding, 0, 2) for row in part) == expected(dataset, (4, 5))
    assert sorted(store.asked) == sorted(dataset.manifest.train[group].path for group in (4, 5))


def test_an_error_of_the_background_is_raised_where_the_group_is_taken(dataset: Dataset) -> None:
    class Broken(Counting):
        def get(self, path: str) -> bytes:
            raise ChannelError("gone", where=path)

    holding = Holding(replace(dataset, objects=Broken(dataset, distant=True)), 7)
    holding.expect((4,))
    with pytest.raises(ChannelError, match=r"train/.*: gone"):
        holding.own((4,))
