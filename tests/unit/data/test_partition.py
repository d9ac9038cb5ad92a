"""Partitioning: every row exactly once, under its own id, the same bytes every time; and what is refused."""

from __future__ import annotations

import contextlib
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.data import partition as partition_module
from mlless.data.dataset import Dataset, open_dataset
from mlless.data.features import Layout
from mlless.data.groups import RatingsGroup
from mlless.data.manifest import NO_FILE, Clicks, File, Ratings
from mlless.data.partition import partition
from mlless.data.readers import parquet
from mlless.data.readers import text as text_module
from mlless.data.synthetic import write_clicks, write_ratings
from mlless.errors import ChannelError, DatasetError, InputError, MLLessError, UsageError

Write = Callable[[str, str | bytes], Path]
RatingRow = tuple[int, int, float]
ClickRow = tuple[int, int, tuple[tuple[int, float], ...]]
RatingsIn = Callable[[Dataset, tuple[File, ...]], list[RatingRow]]
ClicksIn = Callable[[Dataset, tuple[File, ...]], list[ClickRow]]
Everything = Callable[[Path], dict[str, bytes]]

HALF = [n / 2 for n in range(1, 11)]


def ratings_csv(rows: list[RatingRow]) -> str:
    return "userId,movieId,rating\n" + "".join(f"{user},{item},{rating}\n" for user, item, rating in rows)


def libsvm(rows: list[ClickRow]) -> str:
    return "".join(
        f"{label} {' '.join(f'{index}:{value}' for index, value in entries)}\n" for _, label, entries in rows
    )


@contextlib.contextmanager
def limits(*, block: int = 2 << 20, bucket: int = 32 << 20) -> Iterator[None]:
    """Small blocks and buckets, so that small sources have many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "BLOCK", block)
        patch.setattr("mlless.data.readers.parts.PIECE", block)
        patch.setattr(partition_module, "BOUND", bucket)
        yield


ratings_rows = st.lists(
    st.tuples(st.integers(0, 2**63 - 1) | st.integers(0, 5), st.integers(0, 9), st.sampled_from(HALF)),
    min_size=1,
    max_size=60,
)


@given(
    ratings_rows,
    st.sampled_from([0.0, 0.1, 0.5]),
    st.integers(8, 300),
    st.integers(20, 9999),
)
def test_every_rating_is_there_once_under_its_own_id(
    tmp_path_factory: pytest.TempPathFactory,
    ratings_in: RatingsIn,
    rows: list[RatingRow],
    validation: float,
    block: int,
    bucket: int,
) -> None:
    folder = tmp_path_factory.mktemp("ratings")
    (folder / "r.csv").write_text(ratings_csv(rows))
    with limits(block=block, bucket=bucket):
        data = partition(folder / "r.csv", folder / "d", validation=validation)
    manifest = data.manifest
    train, validated = ratings_in(data, manifest.train), ratings_in(data, manifest.validation)
    assert sorted(train + validated) == sorted(rows)
    times = Counter((user, item) for user, item, _ in rows)
    # A pair is on one side, so what is held out is only near to what was asked for.
    assert abs(len(validated) - round(len(rows) * validation)) <= max(times.values()) / 2
    assert not {row[:2] for row in train} & {row[:2] for row in validated}
    assert manifest.rows == len(rows)
    shape = manifest.shape
    assert isinstance(shape, Ratings)
    assert (shape.low, shape.high) == (min(r for *_, r in rows), max(r for *_, r in rows))
    trained = np.array([rating for *_, rating in train])
    assert shape.mean == pytest.approx(trained.mean())
    assert shape.deviation == pytest.approx(trained.std() or 1.0)
    ids = data.ids()
    assert sorted(ids.users.tolist()) == sorted({user for user, *_ in rows})
    assert ids.items.tolist() == sorted({item for _, item, _ in rows})
    assert (shape.users, shape.items) == (len(ids.users), len(ids.items))
    assert len(manifest.validation) == (len(manifest.train) if validated else 0)
    before = -1
    for number in range(len(manifest.train)):
        of_group = users_in(data, number)
        # The users of a group are consecutive ones, in ascending order of their ids.
        assert of_group == list(range(before + 1, before + 1 + len(of_group)))
        before = of_group[-1]
        own = ids.users[of_group].tolist()
        assert own == sorted(own)
    assert before == shape.users - 1


def users_in(data: Dataset, number: int) -> list[int]:
    """Return the users of a group, as rows of their table."""
    manifest = data.manifest
    parts = (manifest.train, manifest.validation) if manifest.validation else (manifest.train,)
    users: set[int] = set()
    for group in data.groups(part[number] for part in parts):
        assert isinstance(group, RatingsGroup)
        users |= set(group.users.tolist())
    return sorted(users)


click_entries = st.dictionaries(st.integers(0, 40), st.sampled_from([1.0, 1.0, 0.5, -2.0]), max_size=5)


@given(
    st.lists(st.tuples(st.integers(0, 1), click_entries), min_size=1, max_size=50),
    st.integers(8, 300),
    st.integers(20, 9999),
)
def test_every_click_is_there_once_under_its_row_number(
    tmp_path_factory: pytest.TempPathFactory,
    clicks_in: ClicksIn,
    made: list[tuple[int, dict[int, float]]],
    block: int,
    bucket: int,
) -> None:
    folder = tmp_path_factory.mktemp("clicks")
    rows = [(n, label, tuple(entries.items())) for n, (label, entries) in enumerate(made)]
    (folder / "c.svm").write_text("# clicks\n" + libsvm(rows))
    with limits(block=block, bucket=bucket):
        if not any(entries for *_, entries in rows):
            with pytest.raises(InputError, match="no row has a feature"):
                partition(folder / "c.svm", folder / "d")
            return
        rarer = min(sum(label == one for _, label, _ in rows) for one in (0, 1))
        if not rarer:
            with pytest.raises(
                InputError, match=rf"only one class.*found \d+ rows, all of label {rows[0][1]}"
            ):
                partition(folder / "c.svm", folder / "d")
            return
        share = 0.1 if rarer > round(len(rows) * 0.1) else 0.0
        data = partition(folder / "c.svm", folder / "d", validation=share)
    train = clicks_in(data, data.manifest.train)
    assert sorted(train + clicks_in(data, data.manifest.validation)) == rows
    positives = sum(label for _, label, _ in train) / len(train)
    biggest = max(index for *_, entries in rows for index, _ in entries)
    shape = data.manifest.shape
    assert isinstance(shape, Clicks)
    assert (shape.features, shape.index_base) == (biggest + 1, 0)
    assert shape.positives == pytest.approx(positives)
    assert data.manifest.ids is None


def test_the_same_seed_gives_the_same_bytes_whatever_the_chunks(
    tmp_path: Path, everything: Everything
) -> None:
    write_ratings(tmp_path / "r.csv", users=50, items=60, rows=1500)
    write_clicks(tmp_path / "c.svm", rows=500, features=100, per_row=8)
    table = "".join(f"{n % 2},{n % 7},{n % 11}\n" for n in range(600))
    (tmp_path / "t.csv").write_text("label,visits,page\n" + table)
    columns = Layout("label", numeric=("visits",), categorical=("page",))
    for source, options in (("r.csv", {}), ("c.svm", {}), ("t.csv", {"columns": columns})):
        # In memory; also in small blocks; on disk, several groups at a time; one at a time; another seed.
        for name, block, bucket, seed in (
            ("a", 2 << 20, 32 << 20, 3),
            ("b", 700, 32 << 20, 3),
            ("c", 700, 5000, 3),
            ("d", 500, 20, 3),
            ("e", 2 << 20, 32 << 20, 4),
        ):
            with limits(block=block, bucket=bucket):
                partition(tmp_path / source, tmp_path / name, seed=seed, overwrite=True, **options)
        a, b, c, d, e = (everything(tmp_path / name) for name in "abcde")
        assert a == b == c == d
        assert a != e
        assert not {name for name in a if name.startswith("train")} & set(e)  # names tell the content


def test_parquet_and_text_hold_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(parquet, "ROWS", 100)
    rows = [(n % 17, n % 23, HALF[n % 10]) for n in range(1000)]
    users, items, ratings = zip(*rows, strict=True)
    table = pyarrow.table({"user": users, "item": items, "rating": ratings})
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    (tmp_path / "r.csv").write_text(ratings_csv(rows))
    a, b = (partition(tmp_path / f"r.{name}", tmp_path / name).manifest for name in ("csv", "parquet"))
    assert (a.shape, a.train, a.validation, a.ids) == (b.shape, b.train, b.validation, b.ids)


def test_the_order_is_shuffled_and_the_parts_are_drawn_from_all_rows(
    tmp_path: Path, ratings_in: RatingsIn
) -> None:
    rows = [(n // 1000, n % 1000, 1.0) for n in range(2000)]
    (tmp_path / "r.csv").write_text(ratings_csv(rows))
    data = partition(tmp_path / "r.csv", tmp_path / "d", validation=0.25)
    held_out = [item for _, item, _ in ratings_in(data, data.manifest.validation)]
    assert len(held_out) == 500
    assert abs(np.mean(held_out) - 500) < 52  # 4 standard errors
    assert len(data.manifest.train) == 2
    for file in data.manifest.train + data.manifest.validation:
        items = [item for _, item, _ in ratings_in(data, (file,))]
        for part in np.array_split(items, 4):
            # 4 standard errors; in the order of the source: up to 375.
            assert abs(np.mean(part) - 500) < 4 * 289 / np.sqrt(len(part))


def test_clicks_are_dealt_evenly_and_at_random(tmp_path: Path, clicks_in: ClicksIn) -> None:
    write_clicks(tmp_path / "c.svm", rows=4001, features=50, per_row=2)
    data = partition(tmp_path / "c.svm", tmp_path / "d", validation=0.25)
    manifest = data.manifest
    sizes = [train.rows + held.rows for train, held in zip(manifest.train, manifest.validation, strict=True)]
    assert len(sizes) == 160
    assert (min(sizes), max(sizes)) == (25, 26)
    first = [number for number, *_ in clicks_in(data, (manifest.train[0], manifest.validation[0]))]
    others = [number for number, *_ in clicks_in(data, (manifest.train[1], manifest.validation[1]))]
    assert first != sorted(first)
    gaps = np.array(sorted(first)) % 160 - np.array(sorted(others))[: len(first)] % 160
    assert len(set(gaps.tolist())) > 15  # neighbours go to other groups each time


def test_a_part_of_a_group_without_rows_is_not_stored(tmp_path: Path, everything: Everything) -> None:
    write_ratings(tmp_path / "r.csv", users=40, items=60, rows=1000)
    data = partition(tmp_path / "r.csv", tmp_path / "d", validation=0.02)
    manifest = data.manifest
    assert len(manifest.train) == len(manifest.validation) == 40
    empty = [file for file in manifest.validation if not file.rows]
    assert empty
    assert set(empty) == {NO_FILE}
    assert sum(file.rows for file in manifest.validation) == 20
    stored = {name for name in everything(tmp_path / "d") if name.startswith("validation")}
    assert stored == {file.path for file in manifest.validation if file.rows}
    assert sum(map(len, data.groups(manifest.validation))) == 20


def test_the_manifest_says_how_it_was_made(write: Write) -> None:
    path = write("r.csv.gz", ratings_csv([(1, 2, 3.0), (1, 3, 4.0)]) + "oops\n")
    data = partition(path, path.parent / "d", seed=7, validation=0.0, skip_malformed=True)
    made = data.manifest.made
    assert (made.source, made.format, made.seed) == ("r.csv.gz", "ratings", 7)
    assert (made.validation, made.like, made.skipped) == (0.0, None, 1)
    assert made.source_bytes == path.stat().st_size


def test_progress_goes_from_nothing_to_all(tmp_path: Path) -> None:
    write_ratings(tmp_path / "r.csv", users=50, items=60, rows=1500)
    seen: list[tuple[float, str]] = []
    with limits(block=1000):
        partition(tmp_path / "r.csv", tmp_path / "d", progress=lambda share, what: seen.append((share, what)))
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[0] < 0.2
    assert shares[-1] == 1.0
    assert {what for _, what in seen} == {"reading", "writing", "done"}


def test_a_test_set_like_another_keeps_its_ids_and_scale(
    write: Write, tmp_path: Path, ratings_in: RatingsIn
) -> None:
    rows = [(10, 7, 1.0), (30, 5, 4.0), (20, 5, 5.0)]
    first = partition(write("a.csv", ratings_csv(rows)), tmp_path / "a", validation=0.0)
    more = [(30, 7, 2.0), (25, 7, 0.5), (5, 99, 3.0)]
    second = partition(write("b.csv", ratings_csv(more)), tmp_path / "b", like=tmp_path / "a")
    assert second.ids().users.tolist() == [10, 20, 30, 5, 25]
    assert second.ids().items.tolist() == [5, 7, 99]
    assert second.manifest.validation == ()
    assert second.manifest.made.validation == 0.0
    assert second.manifest.made.like == first.manifest.fingerprint
    a, b = first.manifest.shape, second.manifest.shape
    assert isinstance(a, Ratings)
    assert b == Ratings(5, 3, a.mean, a.deviation, a.low, a.high)
    assert sorted(ratings_in(second, second.manifest.train)) == sorted(more)
    third = partition(
        write("c.csv", ratings_csv([(1, 7, 2.0), (5, 5, 1.0)])), tmp_path / "c", like=tmp_path / "b"
    )
    assert third.ids().users.tolist() == [10, 20, 30, 5, 25, 1]
    assert sorted(ratings_in(third, third.manifest.train)) == [(1, 7, 2.0), (5, 5, 1.0)]


@pytest.mark.parametrize(
    ("text", "features", "base"),
    [
        ("1 0:1 4:1\n0 2:1\n", 5, 0),
        ("1 1:1 5:1\n0 2:1\n", 5, 1),
        ("1 1:1 4:1\n0 2:1\n", 5, 0),
        ("1 1:1\n0 1:1\n", 2**31, 0),
    ],
)
def test_a_given_number_of_features_tells_where_counting_starts(
    write: Write, tmp_path: Path, text: str, features: int, base: int
) -> None:
    shape = partition(write("c.svm", text), tmp_path / "d", features=features).manifest.shape
    assert isinstance(shape, Clicks)
    assert (shape.features, shape.index_base, shape.table_rows) == (features, base, features + base)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 1:1\n0 5:1\n1 0:1\n", "line 2: features 0 and 5 both occur.*index 0 in .*line 3.*`features` 6"),
        ("1 1:1\n1 0:1 5:1\n", "line 2: features 0 and 5 both occur.*`features` 6"),
        ("1 1:1\n0 6:1\n", "line 2: malformed line: expected a feature index from 0 to 5, found '6'"),
    ],
)
def test_a_wrong_number_of_features_is_an_error(
    write: Write, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        partition(write("c.svm", text), tmp_path / "d", features=5)


def test_features_numbered_wildly_are_refused_before_there_is_a_table(write: Write, tmp_path: Path) -> None:
    path = write("c.svm", "1 1:1 2147483646:1\n0 2:1\n")
    with pytest.raises(InputError, match=r"up to 2,147,483,646, .*`features` 2147483647"):
        partition(path, tmp_path / "d")
    assert partition(path, tmp_path / "d", features=2147483647).manifest.rows == 2


def test_clicks_like_others_keep_their_dimension(write: Write, tmp_path: Path, clicks_in: ClicksIn) -> None:
    partition(write("a.svm", "1 1:1 5:1\n0 2:1\n"), tmp_path / "a", features=5, validation=0.0)
    data = partition(write("b.svm", "0 3:0.5\n0 1:1\n"), tmp_path / "b", like=tmp_path / "a")
    assert data.manifest.shape == Clicks(features=5, index_base=1, positives=0.0)
    assert sorted(clicks_in(data, data.manifest.train)) == [(0, 0, ((3, 0.5),)), (1, 0, ((1, 1.0),))]
    path = write("c.svm", "0 3:1\n0 6:1\n1 0:1\n1 2:1\n")
    with pytest.raises(InputError, match=r"line 2.*a feature index from 1 to 5, found '6'"):
        partition(path, tmp_path / "c", like=tmp_path / "a")
    skipped = partition(path, tmp_path / "c", like=tmp_path / "a", skip_malformed=True)
    assert (skipped.manifest.rows, skipped.manifest.made.skipped) == (2, 2)


CSV = ratings_csv([(1, 2, 3.0)] * 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 1.0}, "no such share"),
        ({"validation": -0.1}, "no such share"),
        ({"validation": float("nan")}, "no such share"),
        ({"validation": 0.95}, "no rows are left for training"),
        ({"seed": -1}, "no such seed"),
        ({"features": 5}, "`features` is for clicks"),
        ({"format": "csv"}, "unknown format"),
        ({"format": "libsvm", "features": 0}, "no such number of features"),
        ({"format": "libsvm", "features": 2**31 + 1}, "no such number of features"),
    ],
)
def test_impossible_options_are_refused(
    write: Write, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    path = write("r.csv", CSV)
    with pytest.raises(UsageError, match=message):
        partition(path, tmp_path / "d", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [path]


def test_like_must_be_a_data_set_of_the_same_kind(write: Write, tmp_path: Path) -> None:
    clicks = partition(write("c.svm", "1 1:1\n0 2:1\n"), tmp_path / "clicks")
    with pytest.raises(UsageError, match="other kind: expected ratings, found clicks"):
        partition(write("r.csv", CSV), tmp_path / "d", like=clicks.location)
    with pytest.raises(DatasetError, match="no such folder"):
        partition(write("r.csv", CSV), tmp_path / "d", like=tmp_path / "none")
    with pytest.raises(UsageError, match="only one of them"):
        partition(write("c.svm", "1 1:1\n"), tmp_path / "d", like=clicks.location, features=3)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.csv", "userId,movieId,rating\n", "no rows: expected at least one, found none"),
        ("c.svm", "# nothing\n", "no rows"),
        ("c.svm", "1\n0\n", "no row has a feature"),
        ("r.csv", CSV + "1,2,x\n", "line 7: malformed line"),
    ],
)
def test_a_source_without_good_rows_is_an_error_and_leaves_nothing(
    write: Write, tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = write(name, text)
    with pytest.raises(InputError, match=message):
        partition(path, tmp_path / "sub" / "d")
    assert list(tmp_path.iterdir()) == [path]


def test_only_malformed_lines_are_no_rows(write: Write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`skip_malformed` would leave out 2 of 2 rows"):
        partition(write("c.svm", "1 x\n0 y\n"), tmp_path / "d", format="libsvm", skip_malformed=True)


def test_overwrite_replaces_and_a_failure_does_not(
    write: Write, tmp_path: Path, everything: Everything
) -> None:
    dest = tmp_path / "d"
    partition(write("r.csv", CSV), dest)
    before = everything(dest)
    with pytest.raises(UsageError, match="`overwrite`"):
        partition(write("r.csv", CSV), dest)

    def interrupt(share: float, what: str) -> None:
        if what == "writing":
            raise KeyboardInterrupt

    for failing, options in (("r.csv", {"progress": interrupt}), ("bad.csv", {})):
        path = write(failing, ratings_csv([(5, 5, 5.0)]) + ("" if options else "x\n"))
        with pytest.raises((KeyboardInterrupt, InputError)):
            partition(path, dest, overwrite=True, **options)  # type: ignore[arg-type]
        assert everything(dest) == before
    partition(write("r.csv", ratings_csv([(5, 5, 5.0)])), dest, overwrite=True)
    assert open_dataset(dest).manifest.rows == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "d", "r.csv"]


def test_what_is_read_is_not_replaced(write: Write, tmp_path: Path, everything: Everything) -> None:
    dest = tmp_path / "d"
    partition(write("r.csv", CSV), dest)
    inside = dest / "train" / "r.csv"
    inside.write_text(CSV)
    before = everything(tmp_path)
    with pytest.raises(UsageError, match="the source would be replaced"):
        partition(inside, dest, overwrite=True)
    with pytest.raises(UsageError, match="the data set of `like` would be replaced"):
        partition(tmp_path / "r.csv", dest, like=dest, overwrite=True)
    with pytest.raises(UsageError, match="already a file"):
        partition(tmp_path / "r.csv", tmp_path / "r.csv", overwrite=True)
    assert everything(tmp_path) == before


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse to write more than ``size`` bytes to a file, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [500, 5000])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, size: int) -> None:
    source = tmp_path / "c.svm"
    write_clicks(source, rows=400, features=100, per_row=8)
    with (
        limits(block=700, bucket=1000),
        largest_file(size),
        pytest.raises(ChannelError, match="cannot write: File too large"),
    ):
        partition(source, tmp_path / "d")
    assert list(tmp_path.iterdir()) == [source]


def test_more_than_32_bits_can_number_is_an_error(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlless.data.preparation.MOST", 3)
    monkeypatch.setattr("mlless.data.rows.MOST", 3)
    for name, text, message in (
        (
            "r.csv",
            ratings_csv([(n, 1, 1.0) for n in range(4)]),
            "too many users: expected at most 3, found 4",
        ),
        ("c.svm", "1 1:1 2:1 3:1\n0 1:1\n", "too many features in the rows of one group"),
    ):
        with pytest.raises(MLLessError, match=message):
            partition(write(name, text), tmp_path / "d", validation=0.0)
