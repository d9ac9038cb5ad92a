"""What is told of data from which little can be learnt, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mlless.data.dataset import Dataset
from mlless.data.features import Layout
from mlless.data.findings import check_two_classes
from mlless.data.ids import RatingIds
from mlless.data.manifest import MANIFEST, Clicks, decode_manifest, encode_manifest
from mlless.data.memory import Parting, clicks_in_memory, ratings_in_memory
from mlless.data.partition import partition
from mlless.data.rows import ClicksRows
from mlless.errors import InputError

Write = Callable[[str, str | bytes], Path]


def told(dataset: Dataset) -> dict[str, str]:
    """Return the findings by their kind."""
    return {note.kind: note.text for note in dataset.manifest.notes}


def ratings_csv(rows: list[tuple[int, int, float]]) -> str:
    return "userId,movieId,rating\n" + "".join(f"{user},{item},{rating}\n" for user, item, rating in rows)


def good_ratings(count: int = 1200) -> list[tuple[int, int, float]]:
    """Return ratings of distinct pairs of 30 users and 50 items that leave nothing to doubt."""
    cells = np.random.default_rng(0).choice(30 * 50, count, replace=False)
    return [(int(cell) // 50, int(cell) % 50, cell % 7 / 2) for cell in cells]


def both(
    write: Write, tmp_path: Path, rows: list[tuple[int, int, float]], validation: float
) -> list[Dataset]:
    """Return the data sets of the ratings on disk and in memory: they are to tell the same."""
    on_disk = partition(write("r.csv", ratings_csv(rows)), tmp_path / "d", validation=validation)
    users, items, ratings = (np.array(column) for column in zip(*rows, strict=True))
    ids = RatingIds(np.arange(users.max() + 1), np.arange(items.max() + 1))
    parting, values = Parting(validation, seed=0), ratings.astype(np.float32)
    in_memory = ratings_in_memory(users, items, values, ids=ids, scale=None, parting=parting)
    return [on_disk, in_memory]


def svm(labels: list[int]) -> str:
    return "".join(f"{label} {n % 5}:1\n" for n, label in enumerate(labels))


def test_good_data_leaves_nothing_to_doubt(write: Write, tmp_path: Path) -> None:
    for dataset in both(write, tmp_path, good_ratings(), 0.1):
        assert told(dataset) == {}
        assert b"notes" not in encode_manifest(dataset.manifest)
    labels = [n % 3 == 0 for n in range(1200)]
    assert told(partition(write("c.svm", svm(list(map(int, labels)))), tmp_path / "c")) == {}


def test_equal_ratings(write: Write, tmp_path: Path) -> None:
    for dataset in both(write, tmp_path, [(user, item, 4.0) for user, item, _ in good_ratings()], 0.1):
        assert set(told(dataset)) == {"equal"}
        assert told(dataset)["equal"].startswith("all 1,200 ratings are 4: a model can only predict that.")


@pytest.mark.parametrize(("others", "kinds"), [(12, {"lopsided"}), (13, set())])
def test_nearly_all_ratings_the_same(write: Write, tmp_path: Path, others: int, kinds: set[str]) -> None:
    rows = [(user, item, 1.0 if n < others else 5.0) for n, (user, item, _) in enumerate(good_ratings())]
    for dataset in both(write, tmp_path, rows, 0.1):
        assert set(told(dataset)) == kinds
        if kinds:
            shape = dataset.manifest.shape
            assert (
                f"99% of the ratings are 5: compare the model's rmse with {shape.deviation:.4f}"
                in (told(dataset)["lopsided"])
            )


def test_repeats_of_a_pair(write: Write, tmp_path: Path) -> None:
    rows = good_ratings()
    for dataset in both(write, tmp_path, [*rows, *rows[:9], *rows[:1]], 0.1):
        assert set(told(dataset)) == {"repeats"}
        text = told(dataset)["repeats"]
        assert "10 of 1,210 ratings repeat a pair of user and item, one pair is there 3 times" in text


def test_one_pair_alone_cannot_be_held_out(write: Write, tmp_path: Path) -> None:
    for dataset in both(write, tmp_path, [(1, 2, n % 5) for n in range(300)], 0.1):
        assert dataset.manifest.validation == ()
        assert "299 of 300 ratings repeat a pair" in told(dataset)["repeats"]
        assert told(dataset)["held-out"].startswith("nothing is held out")


@pytest.mark.parametrize(
    ("count", "validation", "says"),
    [
        (
            1200,
            0.08,
            "only 96 rows are there to judge a model by: rmse on them has a standard error of 7.22%",
        ),
        (1200, 0.09, None),
        (1200, 0.0, None),
        (4, 0.1, "nothing is held out"),
    ],
)
def test_few_ratings_held_out(
    write: Write, tmp_path: Path, count: int, validation: float, says: str | None
) -> None:
    for dataset in both(write, tmp_path, good_ratings(count), validation):
        assert ("held-out" in told(dataset)) == (says is not None)
        assert says is None or told(dataset)["held-out"].startswith(says)


def test_users_and_items_of_a_single_rating(write: Write, tmp_path: Path) -> None:
    rows = [(n if n < 700 else 700 + n % 600, n % 9, n % 5) for n in range(1900)]
    for dataset in both(write, tmp_path, rows, 0.1):
        assert set(told(dataset)) == {"seldom"}
        assert told(dataset)["seldom"].startswith(
            "700 of 1,300 users have a single rating: predictions for them come down to the item"
        )
    for dataset in both(write, tmp_path / "other", [(i, u, r) for u, i, r in rows], 0.1):
        assert "700 of 1,300 items have a single rating" in told(dataset)["seldom"]


def labels_with(positives: int, rows: int) -> list[int]:
    return [int(n % (rows // positives) == 0 and n // (rows // positives) < positives) for n in range(rows)]


def test_nearly_all_rows_of_one_label_and_few_of_the_other_held_out(write: Write, tmp_path: Path) -> None:
    dataset = partition(write("c.svm", svm(labels_with(20, 2500))), tmp_path / "d")
    labels = np.concatenate([group.labels for group in dataset.groups(dataset.manifest.validation)])
    rarer = int(labels.sum())
    assert 0 < rarer < 10
    error = np.sqrt(251 / (12 * rarer * (250 - rarer)))
    assert told(dataset) == {
        "lopsided": "99.2% of the rows are of one label: judge the model by auc. A constant reaches "
        "a log_loss of 0.0466 on all rows, of more or less on the held-out ones",
        "held-out": f"250 rows are there to judge a model by, {rarer} of the rarer label: auc has a standard "
        f"error of up to {error:.2f}. Hold out a larger share, or gather more",
    }


def test_the_same_of_clicks_in_memory() -> None:
    labels = np.array(labels_with(20, 2500), np.uint8)
    rows = ClicksRows(
        labels, np.arange(2500), np.arange(2501), np.zeros(2500, np.uint32), np.ones(2500, np.float32)
    )
    assert set(told(clicks_in_memory(rows, None, features=1, parting=Parting(0.1, 0)))) == {
        "lopsided",
        "held-out",
    }
    assert set(told(clicks_in_memory(rows, None, features=1, parting=Parting(0.0, 0)))) == {"lopsided"}


def test_columns_that_say_nothing(write: Write, tmp_path: Path) -> None:
    lines = [
        f"{n % 2},7,,{n % 9},{'' if n % 4 else 3},x,,{n % 11},{'y' if n else 'z'}\n" for n in range(1200)
    ]
    source = write("t.csv", "label,a,b,c,d,e,f,g,h\n" + "".join(lines))
    layout = Layout("label", ("a", "b", "c", "d"), ("e", "f", "g", "h"))
    dataset = partition(source, tmp_path / "d", columns=layout)
    assert [(note.kind, note.text.partition(",")[0]) for note in dataset.manifest.notes] == [
        ("missing", "column b: missing in every row"),
        ("constant", "column a: the same in every row"),
        ("missing", "column f: missing in every row"),
        ("constant", "column e: the same in every row"),
    ]
    many = write(
        "m.csv", "y," + ",".join("abcdefg") + "\n" + "".join(f"{n % 2}{',1' * 7}\n" for n in range(1200))
    )
    (note,) = partition(many, tmp_path / "m", columns=Layout("y", tuple("abcdefg"))).manifest.notes
    assert note.text.startswith(
        "columns a, b, c, d, e and 2 more: the same in every row, so nothing is learnt"
    )


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_refused(write: Write, tmp_path: Path, label: int) -> None:
    source = write("c.svm", svm([label] * 50))
    with pytest.raises(InputError, match=f"c.svm: only one class: .* found 45 rows, all of label {label}"):
        partition(source, tmp_path / "d")
    assert list(tmp_path.iterdir()) == [source]


def test_a_test_set_may_be_of_one_class_and_says_so(write: Write, tmp_path: Path) -> None:
    partition(write("c.svm", svm([0, 1] * 500)), tmp_path / "d")
    test = partition(write("t.svm", svm([1] * 500)), tmp_path / "t", like=tmp_path / "d")
    assert told(test) == {
        "held-out": "all 500 rows to judge a model by are of one label: auc has no value. Gather more"
    }
    with pytest.raises(InputError, match="only one class"):
        check_two_classes(test.manifest, "t")
    few = partition(write("f.svm", svm([0, 1] * 20)), tmp_path / "f", like=tmp_path / "d")
    assert told(few)["held-out"].startswith(
        "only 40 rows are there to judge a model by, 20 of the rarer label"
    )


def test_a_manifest_without_notes_is_read_and_keeps_its_fingerprint(write: Write, tmp_path: Path) -> None:
    manifest = partition(write("c.svm", svm([0, 1] * 20)), tmp_path / "d").manifest
    assert manifest.notes
    fields = msgspec.json.decode((tmp_path / "d" / MANIFEST).read_bytes())
    del fields["notes"]
    old = decode_manifest(msgspec.json.encode(fields), "d")
    assert old == msgspec.structs.replace(manifest, notes=())
    assert "notes" not in msgspec.to_builtins(old)
    assert isinstance(old.shape, Clicks)


@pytest.mark.parametrize("rows", [300, 3000])
@pytest.mark.parametrize("hashed", [2048, 2100, 1 << 20])
def test_columns_that_are_different_in_nearly_every_row(
    write: Write, tmp_path: Path, rows: int, hashed: int
) -> None:
    lines = [
        f"{n % 3 == 0:d},{n},session {n},{'' if n % 2 else f'odd {n}'},pair {n // 2},{n % 7},{n - n % 50}\n"
        for n in range(rows)
    ]
    source = write("t.csv", "label,age,a,b,c,d,e\n" + "".join(lines))
    layout = Layout("label", ("age",), ("a", "b", "c", "d", "e"))
    found = told(partition(source, tmp_path / "d", columns=layout, features=hashed))
    assert found["unique"] == (
        "columns a, b: different in nearly every row, so it tells nothing of new rows. Leave it out"
    )


def test_where_hashes_run_out_no_column_is_said_to_be_different_in_every_row(
    write: Write, tmp_path: Path
) -> None:
    source = write("t.csv", "label,a\n" + "".join(f"{n % 2},v{n // 2}\n" for n in range(3000)))
    assert "unique" not in told(
        partition(source, tmp_path / "d", columns=Layout("label", (), ("a",)), features=64)
    )
    few = write("few.csv", "label,a\n" + "".join(f"{n % 2},v{n}\n" for n in range(99)))
    assert "unique" not in told(partition(few, tmp_path / "e", columns=Layout("label", (), ("a",))))
